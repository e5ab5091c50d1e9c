//! The gateway's HTTP API, as paths of an OpenAPI document.
//!
//! It has four resources: its index, its backends, its routes, and everything that it forwards. The gateway forwards requests of all methods in the
//! same way, so one description serves them all.

use serde_json::{Map, Value, json};
use types::Problem;
use types::backends::BackendState;

/// The methods that are forwarded: all that OpenAPI knows except `TRACE`, which the listeners refuse.
pub(crate) const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// The errors that the gateway itself answers to a request that it should forward.
const ERRORS: [(u16, &str); 11] = [
    (
        400,
        "The path has dot segments that the route can't accept, a header is malformed, or the client broke off the body",
    ),
    (401, "The route needs an API key, and the request has none or an unknown one"),
    (
        403,
        "The request may come from a web page of another site, or names a host that is not allowed; the setting `hosts` allows more",
    ),
    (404, "No route takes the request, and its path begins with no service; the hint lists both"),
    (408, "The body of the request paused for longer than `idle_timeout`"),
    (413, "The body is larger than the route accepts"),
    (429, "The rate of the route is used up; `Retry-After` says for how long"),
    (502, "The member or the address accepts no connection, or its answer is not valid HTTP/1.1"),
    (
        503,
        "No member served the service while the request could wait, or too many requests wait; with `Coterie-Not-Processed` nothing was done",
    ),
    (
        504,
        "There was no answer within `response_timeout`, or the exchange took longer than the route allows; the request may have been processed",
    ),
    (508, "The request has passed through this gateway too often: a route leads back to it"),
];

/// The paths. Below the gateway's own listener they are the same as below `/svc/{service}` of an agent, but for `/backends` and `/routes`.
pub(crate) fn paths() -> Value {
    let methods: Map<_, _> = METHODS.iter().map(|method| ((*method).to_owned(), forwarded(method))).collect();
    json!({ "/": { "get": index() }, "/backends": { "get": backends() }, "/routes": { "get": routes() }, "/{service}/{path}": methods })
}

fn routes() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let number = |about: &str| json!({ "type": "integer", "minimum": 0, "description": about });
    let object = |about: &str, properties: Value| json!({ "type": "object", "description": about, "properties": properties });
    let limits = object(
        "The limits of its requests; those that it has",
        json!({
            "body": number("The largest body, in bytes"),
            "in_flight": number("The largest number of concurrent requests"),
            "rate": text("The largest rate, in words"),
        }),
    );
    let target = object(
        "Where it leads; one of these",
        json!({
            "service": text("A service, by its name"),
            "to": { "type": "array", "items": { "type": "string" }, "description": "Addresses, chosen by load" },
            "backends": { "type": "array", "description": "Addresses with weights", "items": { "type": "object", "properties": {
                "url": text("The address"), "weight": number("Its share") } } },
            "redirect": object("Another URL", json!({
                "status": number("The status"), "scheme": text("The scheme"), "host": text("The host"),
                "port": number("The port"), "to": text("The path, in which `{rest}` stands for the rest of the path") })),
            "answer": object("A fixed answer", json!({ "status": number("The status") })),
        }),
    );
    let route = json!({
        "type": "object",
        "description": "A route under one of its hosts",
        "required": ["place", "target", "limits"],
        "properties": {
            "place": text("Its place in the settings, as a JSON pointer"),
            "name": text("Its name"),
            "host": text("The host, or `*.` and a suffix; every host without this"),
            "path": text("The whole path"),
            "prefix": text("The beginning of the path"),
            "methods": { "type": "array", "items": { "type": "string" }, "description": "The methods; every method without this" },
            "headers": { "type": "object", "additionalProperties": { "type": "string" }, "description": "Header fields and their values" },
            "unless_scheme": text("It takes only requests with another scheme"),
            "target": target,
            "limits": limits,
            "keys": text("The name of the API keys that it needs"),
        },
    });
    let passed = json!({ "type": "array", "description": "The routes before it in the order", "items": {
        "type": "object", "required": ["route", "why"],
        "properties": { "route": route, "why": text("The first condition that the request does not meet") } } });
    let parameter = |name: &str, about: &str| json!({ "name": name, "in": "query", "description": about, "schema": { "type": "string" } });
    json!({
        "summary": "Lists the routes in order of precedence, or explains which one takes a request",
        "description": "Only below `/svc/{service}` of an agent.",
        "parameters": [
            parameter("test", "A request that is not sent: `GET https://shop.example/path`. The answer says which route takes it, and \
                               why those before it do not."),
            parameter("header", "A header field of that request, `name: value`; may be repeated."),
        ],
        "responses": {
            "200": { "description": "The routes, or the explanation", "content": { "application/json": { "schema": { "oneOf": [
                { "type": "object", "required": ["node", "routes"], "properties": {
                    "node": text("The node that answers"),
                    "routes": { "type": "array", "items": route },
                } },
                { "type": "object", "required": ["passed"], "properties": {
                    "passed": passed,
                    "route": route,
                    "service": text("The service that gets the request, if no route takes it"),
                } },
            ] } } } },
            "400": { "description": "The query is malformed", "content": { Problem::MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } } },
        },
    })
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
                    "routes": names("The addresses or the service of each route, by its name or what it takes", urls),
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
                        that has the shard. A route of the settings takes precedence; `/routes` shows their order. Bodies are streamed both ways. At the gateway's own listener the path is \
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
