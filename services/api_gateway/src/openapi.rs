//! What an agent's listener shows of a gateway, as paths of an OpenAPI document.

use serde_json::{Value, json};
use types::Problem;
use types::backends::BackendState;

/// The paths below `/svc/{service}`.
pub(crate) fn paths() -> Value {
    json!({ "/backends": { "get": backends() }, "/routes": { "get": routes() } })
}

fn routes() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let number = |about: &str| json!({ "type": "integer", "minimum": 0, "description": about });
    let object = |about: &str, properties: Value| json!({ "type": "object", "description": about, "properties": properties });
    let lines = |about: &str| json!({ "type": "array", "items": { "type": "string" }, "description": about });
    let limits = object(
        "The limits of its requests; those that it has",
        json!({
            "body": number("The largest body, in bytes"),
            "min_rate": number("The least rate of a body, in bytes per second; 0 is none"),
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
    let retry = object(
        "Which failed requests are sent again; absent if the settings do not say so",
        json!({
            "attempts": number("How often a request may be sent in all"),
            "on": { "type": "array", "items": { "type": "string", "enum": ["connect", "reset"] }, "description": "Failures without an answer" },
            "codes": { "type": "array", "items": { "type": "integer" }, "description": "Statuses of answers" },
        }),
    );
    let mut route = json!({
        "type": "object",
        "description": "A route under one of its hosts",
        "required": ["place", "name", "target", "limits"],
        "properties": {
            "place": text("Its place in the settings, as a JSON pointer"),
            "name": text("Its name, or else what it takes"),
            "host": text("The host, or `*.` and a suffix; every host without this"),
            "path": text("The whole path"),
            "prefix": text("The beginning of the path"),
            "methods": { "type": "array", "items": { "type": "string" }, "description": "The methods; every method without this" },
            "headers": { "type": "object", "additionalProperties": { "type": "string" }, "description": "Header fields and their values; those that may be secrets are not shown" },
            "unless_scheme": text("It takes only requests with another scheme"),
            "target": target,
            "balance": { "type": "string", "enum": ["two_choices", "weights", "round_robin", "least_connections"],
                "description": "How one of the members or addresses is chosen; absent with an affinity" },
            "affinity": text("What requests to the same member or address have in common: `client`, or a cookie or header and its name"),
            "limits": limits,
            "keys": text("The name of the API keys that it needs"),
            "retry": retry,
            "compress": { "type": "boolean", "description": "Whether answers are compressed for clients that accept it; absent if not" },
            "forwarded": { "type": "boolean", "description": "Whether its servers get `Forwarded` besides `X-Forwarded-*`; absent if not" },
        },
    });
    if let (Some(properties), Value::Object(effects)) = (route["properties"].as_object_mut(), effects()) {
        properties.extend(effects);
    }
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
                    "is_index": { "type": "boolean", "description": "The gateway answers the request with the list of its routes, because neither takes it; absent if not" },
                    "is_of_proxy": { "type": "boolean", "description": "Some of its header fields count only from the trusted proxies of a listener, as one of which the request is explained; absent if not" },
                    "refused": object("Why the gateway refuses the request, although a route or a service would take it", json!({
                        "status": number("The status of the answer"), "code": text("The code of the problem"),
                        "detail": text("What is wrong"), "hint": text("What to do") })),
                    "ready": lines("The listeners that answer the request themselves, as a readiness check"),
                    "is_ready_everywhere": { "type": "boolean", "description": "All listeners do; absent if not" },
                } },
            ] } } } },
            "400": { "description": "The query is malformed", "content": { Problem::MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } } },
        },
    })
}

/// The properties of a route that change what is sent, and how long it may take.
fn effects() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let object = |about: &str, properties: Value| json!({ "type": "object", "description": about, "properties": properties });
    let lines = |about: &str| json!({ "type": "array", "items": { "type": "string" }, "description": about });
    let edits = |about: &str| {
        object(
            about,
            json!({
                "remove": lines("Fields that are removed"),
                "set": lines("Fields that replace others, `name: value`"),
                "add": lines("Fields that are added, `name: value`; values that may be secrets are not shown"),
            }),
        )
    };
    json!({
            "strip_prefix": { "type": "boolean", "description": "False if the prefix is sent with the path; absent otherwise" },
            "rewrite": object("What the address gets instead of what the client sent", json!({
                "prefix": text("What replaces the prefix"), "host": text("The `Host` header") })),
            "slashes": { "type": "string", "enum": ["refuse"], "description": "Paths with `%2F` are refused; absent if not" },
            "request_headers": edits("Changes of the header fields of requests"),
            "response_headers": edits("Changes of the header fields of answers"),
            "timeouts": object("The time limits that it has, such as `5s`", json!({
                "answer": text("Until the head of the answer"), "idle": text("Without progress of a body"),
                "total": text("For the whole exchange"), "websocket": text("Without a byte over a WebSocket") })),
            "check": text("How its addresses are checked, in words"),
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
            "weight": { "type": "number", "minimum": 0, "description": "Its share of the requests relative to the others now: less in slow start, and 0 while it gets none" },
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
