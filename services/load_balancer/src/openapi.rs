//! The balancer's HTTP API, as paths of an OpenAPI document.

use serde_json::{Value, json};

use crate::backend::Standing;

pub(crate) fn paths() -> Value {
    json!({ "/backends": { "get": {
        "summary": "Lists the backends of each listener, and whether they get connections",
        "description": "As the member that answers sees them: each balancer counts and checks for itself.",
        "responses": { "200": {
            "description": "The listeners with their targets and backends",
            "content": { "application/json": { "schema": object(
                &["node", "listeners"],
                &json!({
                    "node": { "type": "string", "description": "The node that answers" },
                    "listeners": { "type": "array", "items": listener() },
                }),
            ) } },
        } },
    } } })
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn text(about: &str) -> Value {
    json!({ "type": "string", "description": about })
}

fn count(about: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": about })
}

fn listener() -> Value {
    let balance = ["two_choices", "round_robin", "least_connections", "source"];
    object(
        &["name", "address", "mode", "balance", "connections", "queued", "targets"],
        &json!({
            "name": text("Its name"),
            "address": text("The address that it has bound"),
            "mode": { "type": "string", "enum": ["tcp", "http"], "description": "What is balanced: connections or HTTP requests" },
            "balance": { "type": "string", "enum": balance, "description": "How a backend is chosen" },
            "connections": count("The connections, in HTTP mode requests, that are being forwarded"),
            "queued": count("Those that wait in the queue"),
            "targets": { "type": "array", "description": "One, or one for each entry of `sni`", "items": target() },
        }),
    )
}

fn target() -> Value {
    let hosts = json!({
        "type": "array",
        "items": { "type": "string" },
        "description": "The server names that lead to it; absent without `sni`",
    });
    object(
        &["backends"],
        &json!({
            "hosts": hosts,
            "service": text("The service whose members are the backends; absent for fixed ones"),
            "listener": text("The listener of the service's members; absent for fixed backends and for the service's API"),
            "why": text("Why no backend gets connections; absent if one does"),
            "backends": { "type": "array", "items": backend() },
        }),
    )
}

fn backend() -> Value {
    let states: Vec<_> = Standing::ALL.map(Standing::as_str).into_iter().chain(["unresolved"]).collect();
    object(
        &["address", "named", "state", "weight", "backup", "connections"],
        &json!({
            "address": text("The address to which connections go; empty if there is none"),
            "named": text("The address as settings or gossip name it"),
            "member": text("The member of the cluster, if it is one"),
            "state": { "type": "string", "enum": states, "description": "Only `up` gets new connections, and `unreachable` when it is tried again" },
            "why": text("The reason for the state, or the last failure"),
            "weight": { "type": "number", "minimum": 0, "description": "Its share relative to the other backends'" },
            "backup": { "type": "boolean", "description": "Whether it is used only while no other one is up" },
            "connections": count("Its open connections, in HTTP mode requests"),
            "connections_total": count("The connections that it has accepted, in HTTP mode requests that reached it; absent for members of a service whose API is the target"),
            "failures_total": count("The connections that it has not accepted; absent like `connections_total`"),
        }),
    )
}
