//! gRPC through a gateway and a balancer: a script with Python's grpcio is both server and client.

use crate::front::Kind;
use crate::python::converse;

const MODULES: &str = "grpc, grpc_health";

#[tokio::test]
async fn grpc_calls_of_every_kind_pass_with_their_trailers() -> anyhow::Result<()> {
    converse(Kind::Gateway, MODULES, ("grpc_client.py", &[]), "h2c").await
}

#[tokio::test]
async fn grpc_calls_of_every_kind_pass_a_balancer_with_their_trailers() -> anyhow::Result<()> {
    converse(Kind::Balancer, MODULES, ("grpc_client.py", &[]), "h2c").await
}
