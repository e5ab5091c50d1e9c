//! WebSockets through a gateway and a balancer: a script with Python's websockets is both server and client.

use crate::front::Kind;
use crate::python::converse;

async fn talk(kind: Kind) -> anyhow::Result<()> {
    // hyper takes the reset of a stream to a backend for its end.
    let arguments: &[&str] = if kind == Kind::BalancerOverH2c { &["no-resets"] } else { &[] };
    converse(kind, "websockets, h2", ("websockets_client.py", arguments), "http").await
}

#[tokio::test]
async fn websockets_of_others_converse_through_the_gateway() -> anyhow::Result<()> {
    talk(Kind::Gateway).await
}

#[tokio::test]
async fn websockets_of_others_converse_through_a_balancer() -> anyhow::Result<()> {
    talk(Kind::Balancer).await
}

#[tokio::test]
async fn websockets_of_others_converse_through_a_balancer_that_speaks_http_2_to_its_backend()
-> anyhow::Result<()> {
    talk(Kind::BalancerOverH2c).await
}
