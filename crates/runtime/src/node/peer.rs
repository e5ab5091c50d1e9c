//! Asks another agent what it says of itself.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use mesh::{CallError, Mesh};
use types::api::AgentSelf;

/// What the agent at this URL says of itself; none if what answers there is no agent.
///
/// # Errors
///
/// [`CallError`] if nothing answers within `limit`.
pub(crate) async fn agent_self(
    mesh: &Mesh,
    http: &str,
    limit: Duration,
) -> Result<Option<AgentSelf>, CallError> {
    let request = Request::get(format!("{http}/v1/agent/self"))
        .body(Bytes::new())
        .map_err(|error| CallError::Malformed(error.to_string()))?;
    let answer = mesh.call(request, limit).await?;
    Ok(serde_json::from_slice(answer.body()).ok())
}
