//! Membership: crashes, restarts, leaves, two nodes with one id.

use std::time::Duration;

use e2e::{NodeOptions, Sandbox};
use plugin::Registry;
use runtime::{Config, DataDirError, Node, NodeError};
use store::Store;
use store::faults::{Faults, Mode};
use tokio::time::timeout;
use types::{Phase, Profile};

/// An empty store with faults.
async fn empty_store() -> anyhow::Result<Faults> {
    let store = Store::open(&"memory:///".parse()?, &"elsewhere".parse()?).await?;
    Ok(Faults::new(store.data(&"any/0".parse()?)))
}

const THREE: [(&str, &str); 3] = [("a", "standby"), ("b", "standby"), ("c", "standby")];

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_node_is_gone_and_a_restarted_one_is_a_member_once() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::of(&THREE, &NodeOptions::default()).await?;
    let before = sandbox.seen("a", "c", |_| true).await?.generation;
    sandbox.kill("c").await?;
    sandbox.all_ready().await?;
    sandbox.start("c", "standby", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    let after = sandbox.seen("a", "c", |_| true).await?.generation;
    assert!(after > before, "{after} is a new generation after {before}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_faster_than_the_failure_detector_does_not_count_as_a_second_node() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::of(&THREE, &NodeOptions::default()).await?;
    sandbox.kill("c").await?;
    sandbox.start("c", "standby", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    assert_eq!(sandbox.node("c")?.failure(), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_with_an_id_exits_and_the_first_stays() -> anyhow::Result<()> {
    let sandbox = Sandbox::of(&THREE, &NodeOptions::default()).await?;
    let config = Config {
        cluster: "sandbox".parse()?,
        node_id: Some("a".parse()?),
        listen: ([127, 0, 0, 1], 0).into(),
        seeds: vec![sandbox.node("b")?.gossip().to_owned()],
        profile: Profile::Local,
        ..Config::new(sandbox.data_dir("second"))
    };
    let second = Node::start(config, Registry::new()).await?;
    let ended = timeout(Duration::from_secs(30), second.wait()).await?;
    assert!(matches!(&ended, Err(NodeError::IdTaken { .. })), "{ended:?}");
    sandbox.all_ready().await?;
    let shown = sandbox.seen("b", "a", |_| true).await?;
    assert_eq!(shown.http, sandbox.url("a")?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_has_one_agent_at_a_time() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::of(&[("a", "standby")], &NodeOptions::default()).await?;
    let config = Config {
        cluster: "sandbox".parse()?,
        listen: ([127, 0, 0, 1], 0).into(),
        ..Config::new(sandbox.data_dir("a"))
    };
    let refused = Node::start(config.clone(), Registry::new()).await;
    assert!(matches!(&refused, Err(NodeError::DataDir(DataDirError::InUse { .. }))), "{refused:?}");
    sandbox.leave("a").await?;
    Node::start(config, Registry::new()).await?.shutdown().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_a_member_before_its_store_has_answered() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::of(&[("a", "standby")], &NodeOptions::default()).await?;
    let faults = empty_store().await?;
    faults.set(Mode::Hang);
    let over = NodeOptions { objects: Some(faults.objects()), ..NodeOptions::default() };
    sandbox.start("b", "standby", &over).await?;
    let b = sandbox.seen("a", "b", |_| true).await?;
    assert_eq!((b.state.map(|state| state.phase), b.store), (Some(Phase::Starting), None));
    faults.set(Mode::Work);
    sandbox.all_ready().await?;
    sandbox.seen("a", "b", |b| b.store.is_some()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_unusable_store_ends_and_no_other_node_does() -> anyhow::Result<()> {
    let sandbox = Sandbox::of(&[("a", "standby")], &NodeOptions::default()).await?;
    let faults = empty_store().await?;
    faults.ignore_create(true);
    let config = Config {
        cluster: "sandbox".parse()?,
        node_id: Some("b".parse()?),
        listen: ([127, 0, 0, 1], 0).into(),
        seeds: vec![sandbox.node("a")?.gossip().to_owned()],
        profile: Profile::Local,
        ..Config::new(sandbox.data_dir("b"))
    };
    let node = Node::start_over(config, Registry::new(), faults.objects()).await?;
    let ended = timeout(Duration::from_secs(30), node.wait()).await?;
    assert!(matches!(&ended, Err(NodeError::Store(_))), "{ended:?}");
    sandbox.all_ready().await
}
