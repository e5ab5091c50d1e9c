//! `GET /v1/openapi.json`: the API described by the types and handlers themselves.

use axum::Json;
use utoipa::OpenApi;

use super::{commands, events, metrics, queries, svc};

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
        commands::drain_or_leave,
        commands::update_service,
        events::events,
        metrics::metrics,
        svc::call,
        document,
    )
)]
struct Api;

/// The description of the API.
pub fn description() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The description of the API.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "OpenAPI 3.1")))]
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}
