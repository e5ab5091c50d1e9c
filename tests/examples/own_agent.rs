//! A minimal agent with its own plugin.

use e2e::Echo;
use plugin::Registry;
use runtime::Config;

#[tokio::main]
async fn main() -> Result<(), runtime::NodeError> {
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        role: "echo".parse().expect("the name follows the rule"),
        ..Config::new(std::env::temp_dir().join("own-agent"))
    };
    runtime::run(config, Registry::new().with(Echo)).await
}
