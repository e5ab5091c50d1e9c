//! The gateway's HTTP API, as paths of an OpenAPI document.
//!
//! It has three resources: its index, its backends, and everything that it forwards. The gateway forwards requests of all methods in the
//! same way, so one description serves them all.

use serde_json::{Map, Value, json};
use types::Problem;
use types::backends::BackendState;

/// The methods that are forwarded: all that OpenAPI knows except `TRACE`, which the listeners refuse.
pub(crate) const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// The errors that the gateway itself answers to a request that it should forward.
const ERRORS: [(u16, &str); 8] = [
    (
        400,
        "The path has dot segments that the route can't accept, a header is malformed, or the client broke off the body",
    ),
    (
        403,
        "The request may come from a web page of another site, or names a host that is not allowed; the setting `hosts` allows more",
    ),
    (404, "The path begins with neither a route nor a service; the hint lists both"),
    (408, "The body of the request paused for longer than `idle_timeout`"),
    (502, "The member or the address accepts no connection, or its answer is not valid HTTP/1.1"),
    (
        503,
        "No member served the service while the request could wait, or too many requests wait; with `Coterie-Not-Processed` nothing was done",
    ),
    (504, "There was no answer within `response_timeout`; the request may have been processed"),
    (508, "The request has passed through this gateway too often: a route leads back to it"),
];

/// The paths. Below the gateway's own listener they are the same as below `/svc/{service}` of an agent, but for `/backends`.
pub(crate) fn paths() -> Value {
    let methods: Map<_, _> = METHODS.iter().map(|method| ((*method).to_owned(), forwarded(method))).collect();
    json!({ "/": { "get": index() }, "/backends": { "get": backends() }, "/{service}/{path}": methods })
}

fn index() -> Value {
    let names = |about: &str, values: Value| json!({ "type": "object", "description": about, "additionalProperties": values });
    let urls = json!({ "type": "array", "items": { "type": "string" } });
    let serving = json!({ "type": "integer", "minimum": 0 });
    json!({
        "summary": "Lists the routes and services behind the gateway",
        "description": "A route with the prefix `/` replaces this path. The index is also at the root of the gateway's own \
                        listener, whose URL `ctl members` shows under ENDPOINTS.",
        "responses": { "200": {
            "description": "The routes and services",
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

fn backends() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let number = |about: &str| json!({ "type": "number", "minimum": 0, "description": about });
    let states = BackendState::ALL.map(BackendState::as_str);
    let backend = json!({
        "type": "object",
        "required": ["address", "state", "in_flight", "weight"],
        "properties": {
            "address": text("The URL below which requests are sent"),
            "node": text("The member, if it is one"),
            "state": { "type": "string", "enum": states, "description": "Whether it gets requests. After an ejection a single \
                request finds out whether it works again" },
            "why": text("Why it is in this state"),
            "until_ms": number("When the state ends, in milliseconds since 1970"),
            "in_flight": number("Requests from this node whose answers have not ended"),
            "estimate_ms": number("The estimated response time in milliseconds; absent before the first answer"),
            "weight": number("Its share of the requests relative to the others"),
        },
    });
    let pool = json!({
        "type": "object",
        "required": ["name", "panic", "backends"],
        "properties": {
            "name": text("The name of the service, or the prefix of the route"),
            "panic": { "type": "boolean", "description": "Most members disappeared at once, and are kept for a while" },
            "backends": { "type": "array", "items": backend },
        },
    });
    let pools = |about: &str| json!({ "type": "array", "description": about, "items": pool });
    json!({
        "summary": "Lists the backends of this gateway, and why each gets requests or not",
        "description": "Each gateway judges its backends by itself. On the agent's listener only.",
        "responses": { "200": {
            "description": "The backends",
            "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["node", "services", "routes"],
                "properties": {
                    "node": text("The node that answers"),
                    "services": pools("The members of each service"),
                    "routes": pools("The addresses of each route"),
                },
            } } },
        } },
    })
}

fn forwarded(method: &str) -> Value {
    let path = |name: &str, about: &str| json!({ "name": name, "in": "path", "required": true, "description": about, "schema": { "type": "string" } });
    let mut responses = json!({ "default": {
        "description": "The answer of the member or of the route's address, unchanged",
        "content": { "*/*": { "schema": { "type": "string", "format": "binary" } } },
    } });
    for (status, about) in ERRORS {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        responses[status.to_string()] =
            json!({ "description": about, "content": { Problem::MEDIA_TYPE: { "schema": schema } } });
    }
    let mut operation = json!({
        "summary": "Forwards the request",
        "description": "To a member that serves the service, below its `/svc/{service}`; for a service with shards to the one \
                        that has the shard. A route of the settings takes precedence: of those whose prefix the path \
                        begins with, the longest. Bodies are streamed both ways. At the gateway's own listener the path is \
                        `/{service}/{path}` below its URL.",
        "parameters": [
            path("service", "The name of a service, or the first segment of a route's prefix."),
            path("path", "The rest of the path, with any number of segments, and the query: forwarded byte for byte."),
        ],
        "responses": responses,
    });
    if matches!(method, "put" | "post" | "patch" | "delete") {
        operation["requestBody"] = json!({
            "description": "Forwarded unchanged",
            "content": { "*/*": { "schema": { "type": "string", "format": "binary" } } },
        });
    }
    operation
}
