//! `GET /v1/openapi.json`: the API described by the types and handlers themselves.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use plugin::Registry;
use serde_json::{Value, json};
use types::Problem;
use utoipa::OpenApi;

use super::{App, commands, events, metrics, queries, removed, settled, svc};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Coterie",
        description = "A node of a Coterie cluster. Every answer says whose view it is."
    ),
    paths(
        queries::cluster_state,
        queries::agent_self,
        queries::members,
        queries::members_first_spelling,
        queries::member,
        queries::services,
        queries::livez,
        queries::readyz,
        commands::change_service,
        commands::drain_leave_or_release,
        commands::update_service,
        settled::specs,
        settled::put_spec,
        removed::remove,
        settled::claims,
        events::events,
        metrics::metrics,
        svc::call,
        document,
    ),
    components(schemas(types::api::Wait, types::api::Release))
)]
struct Api;

/// The description of the API, as OpenAPI 3.1.
///
/// Fills in what all routes have in common: each answer has a description, and problems have their media type. The services
/// that the agent can run are described below `/svc`, each under the name of its type.
pub fn description(registry: &Registry) -> Value {
    let mut document = serde_json::to_value(Api::openapi()).expect("the description is plain data");
    for plugin in registry.plugins() {
        let service = plugin.service_type();
        let Value::Object(paths) = plugin.openapi_paths() else { continue };
        for (path, mut methods) in paths {
            let operations = methods.as_object_mut().into_iter().flatten();
            for (_, operation) in operations.filter(|(_, operation)| operation.is_object()) {
                operation["tags"] = json!([service.as_str()]);
            }
            document["paths"][format!("/svc/{service}{path}")] = methods;
        }
    }
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for operation in paths.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten()) {
        let responses = operation.1["responses"].as_object_mut().into_iter().flatten();
        for (status, response) in responses {
            complete(status, response);
        }
    }
    document
}

fn complete(status: &str, response: &mut Value) {
    let code = status.parse::<StatusCode>().ok();
    let Some(response) = response.as_object_mut() else {
        return;
    };
    let description = response.entry("description").or_insert(Value::Null);
    if description.as_str().is_none_or(str::is_empty) {
        *description = code.and_then(|code| code.canonical_reason()).unwrap_or("answer").into();
    }
    let is_problem = code.is_some_and(|code| code.is_client_error() || code.is_server_error());
    if let Some(content) = response.get_mut("content").and_then(Value::as_object_mut)
        && is_problem
        && let Some(schema) = content.remove("application/json")
    {
        content.insert(Problem::MEDIA_TYPE.to_owned(), schema);
    }
}

/// The description of the API.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "OpenAPI 3.1")))]
pub(crate) async fn document(State(app): State<App>) -> Json<Value> {
    Json(description(&app.registry))
}
