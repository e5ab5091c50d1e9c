//! Checks that the plugins of these tests keep the promises that all plugins make. Each service's own tests do the
//! same.

#[tokio::test]
async fn the_echo_plugin_keeps_its_promises() {
    plugin::conformance::check(&e2e::Echo, &serde_json::json!({})).await;
    plugin::conformance::check(&e2e::OwnedEcho, &serde_json::json!({})).await;
}
