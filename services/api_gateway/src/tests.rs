//! The gateway as its clients see it.

use plugin::conformance;
use serde_json::json;

use crate::ApiGateway;

#[tokio::test]
async fn the_plugin_keeps_the_promises_of_every_plugin() {
    conformance::check(&ApiGateway, &json!({})).await;
    let routes = json!({"routes": [{"prefix": "/", "to": ["http://127.0.0.1:1"]}]});
    conformance::check(&ApiGateway, &routes).await;
}
