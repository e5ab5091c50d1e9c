//! gRPC through the gateway: a script with Python's grpcio is both server and client.

use crate::python::converse;

#[tokio::test]
async fn grpc_calls_of_every_kind_pass_with_their_trailers() -> anyhow::Result<()> {
    converse("grpc, grpc_health", "grpc_client.py", "h2c").await
}
