//! WebSockets through the gateway: a script with Python's websockets is both server and client.

use crate::python::converse;

#[tokio::test]
async fn websockets_of_others_converse_through_the_gateway() -> anyhow::Result<()> {
    converse("websockets, h2", "websockets_client.py", "http").await
}
