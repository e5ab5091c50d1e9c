//! Clusters from before named services start unchanged: `tests/fixtures/unnamed` has a store and data folders as agents
//! of that version wrote them.

use std::path::Path;

use e2e::{NodeOptions, Sandbox, repository};
use serde_json::Value;
use types::{Phase, Role};

/// Copies a folder with its contents.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_store_and_old_data_folders_are_used_unchanged() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    let fixtures = repository().join("tests/fixtures/unnamed");
    let root = sandbox.data_dir("store");
    copy(&fixtures.join("store"), &root)?;
    for node in ["a", "b", "gateway"] {
        copy(&fixtures.join("data").join(node), &sandbox.data_dir(node))?;
    }
    let (born, spec) = (read(&sandbox.data_dir("a").join("node.json"))?, "spec-storage.json");
    let kept = read(&sandbox.data_dir("a").join(spec))?;
    // An operator gave `b` its shard: the kept role in its data folder takes precedence over the flags.
    for (name, role) in [("a", "storage/0"), ("b", "standby"), ("gateway", "api_gateway")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    for (name, role) in [("a", "storage/0"), ("b", "storage/1"), ("gateway", "api_gateway")] {
        let role: Role = role.parse()?;
        let member = sandbox
            .seen("gateway", name, |member| {
                member.state.as_ref().is_some_and(|state| state.role == role && state.phase == Phase::Ready)
            })
            .await?;
        let state = member.state.unwrap_or_else(|| unreachable!("it has just been seen"));
        assert_eq!(state.service_type, None, "the gossiped state is unchanged");
        assert_eq!(state.spec, Some(1), "{name} runs with the existing spec");
    }
    let gateway = sandbox.gateway("gateway").await?;
    for number in 0..8 {
        let url = format!("{gateway}/storage/kv/key-{number}");
        let value = sandbox.http().get(url).send().await?.error_for_status()?.text().await?;
        assert_eq!(value, format!("value-{number}"));
    }
    assert_eq!(read(&sandbox.data_dir("a").join(spec))?, kept, "a spec that is kept stays as it was written");
    let now = read(&sandbox.data_dir("a").join("node.json"))?;
    assert_eq!((&now["id"], &now["born"]), (&born["id"], &born["born"]), "it is the same node");
    // New data has the old format: old agents can read it.
    let put = sandbox.http().put(format!("{gateway}/storage/kv/later")).body("value");
    put.send().await?.error_for_status()?;
    let specs = sandbox.store().await?.specs().all().await?;
    for (service, number) in [("storage", 1), ("api_gateway", 1)] {
        let known = specs.get(&service.parse()?).and_then(|known| known.as_ref().ok());
        assert!(
            known.is_some_and(|known| known.number == number && known.spec.service_type.is_none()),
            "{specs:?}"
        );
    }
    Ok(())
}
