//! What the gateway answers over HTTP, as paths of an OpenAPI document.
//!
//! It has two resources: its index, and everything that it passes on. Whatever the method, the same is done with a request
//! that is passed on, so all of them are described by one.

use serde_json::{Map, Value, json};
use types::Problem;

/// The methods of what is passed on: all that OpenAPI knows but `TRACE`, which the listeners refuse.
pub(crate) const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// The errors of a request that is passed on, when the gateway gives them itself.
const ERRORS: [(u16, &str); 8] = [
    (
        400,
        "The path has dot segments that the route can't take, a header is malformed, or the client ended the body",
    ),
    (403, "The host or the web page may be a stranger's; `hosts` of the settings lets more in"),
    (404, "The path begins with no route and no service; the hint lists both"),
    (408, "The body of the request paused for longer than `idle_timeout`"),
    (502, "The member or the address takes no connection, or its answer is not one of HTTP/1.1"),
    (
        503,
        "No member served it for as long as it could wait, or too much waits; with `Coterie-Not-Processed` nothing was done",
    ),
    (504, "There was no answer within `response_timeout`; the request may have been acted upon"),
    (508, "The request has come by this gateway too often: a route leads back to it"),
];

/// The paths. Below the gateway's own listener they are the same as below `/svc/{service}` of an agent.
pub(crate) fn paths() -> Value {
    let methods: Map<_, _> = METHODS.iter().map(|method| ((*method).to_owned(), passed_on(method))).collect();
    json!({ "/": { "get": index() }, "/{service}/{path}": methods })
}

fn index() -> Value {
    let names = |about: &str, values: Value| json!({ "type": "object", "description": about, "additionalProperties": values });
    let urls = json!({ "type": "array", "items": { "type": "string" } });
    let serving = json!({ "type": "integer", "minimum": 0 });
    json!({
        "summary": "Lists the routes and services behind the gateway",
        "description": "A route with the prefix `/` takes this path as well. The same is at the root of the gateway's own \
                        listener, whose URL `ctl members` shows under ENDPOINTS.",
        "responses": { "200": {
            "description": "What is behind it",
            "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["node", "routes", "services"],
                "properties": {
                    "node": { "type": "string", "description": "The node that answers" },
                    "routes": names("The addresses of each route, by its prefix", urls),
                    "services": names("The number of serving members of each service, by its name", serving),
                },
            } } },
        } },
    })
}

fn passed_on(method: &str) -> Value {
    let path = |name: &str, about: &str| json!({ "name": name, "in": "path", "required": true, "description": about, "schema": { "type": "string" } });
    let mut responses = json!({ "default": {
        "description": "The answer of the member or of the route's address, as it is",
        "content": { "*/*": { "schema": { "type": "string", "format": "binary" } } },
    } });
    for (status, about) in ERRORS {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        responses[status.to_string()] =
            json!({ "description": about, "content": { Problem::MEDIA_TYPE: { "schema": schema } } });
    }
    let mut operation = json!({
        "summary": "Passes the request on",
        "description": "To a member that serves the service, below its `/svc/{service}`; for a service with shards to the one \
                        that has the shard. A route of the settings takes precedence: of those whose prefix the path \
                        begins with, the longest. Bodies are streamed both ways. At the gateway's own listener the path is \
                        `/{service}/{path}` below its URL.",
        "parameters": [
            path("service", "The name of a service, or the first segment of a route's prefix."),
            path("path", "The rest of the path, with as many segments as there are, and the query: passed on byte for byte."),
        ],
        "responses": responses,
    });
    if matches!(method, "put" | "post" | "patch" | "delete") {
        operation["requestBody"] = json!({
            "description": "Passed on as it comes",
            "content": { "*/*": { "schema": { "type": "string", "format": "binary" } } },
        });
    }
    operation
}
