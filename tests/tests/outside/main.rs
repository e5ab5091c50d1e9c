//! Clients and test tools that others wrote, against the real agent: curl, h2load, varnishtest, Python's httpx, grpcio and
//! websockets.
//!
//! `.ci/run` installs them. Elsewhere, a test whose tool is missing says so and passes.

mod curl;
mod front;
mod grpc;
mod h2load;
mod python;
mod tool;
mod varnishtest;
mod websockets;
