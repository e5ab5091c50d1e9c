//! What every plugin must guarantee, as a test suite that each plugin's tests run.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use store::Store;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;
use types::{Role, ShardId, Sharding};

use crate::{Context, Health, Plugin, Service, TaskFailure};

/// How long any step of the suite may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every check against a plugin. `settings` must be settings that it accepts.
///
/// # Panics
/// If a check fails; the message names it.
pub async fn check(plugin: &dyn Plugin, settings: &serde_json::Value) {
    describes_itself(plugin);
    refuses_unknown_settings(plugin);
    for round in 1..=2 {
        runs_once(plugin, settings, round).await;
    }
    applies_new_settings_or_needs_a_restart(plugin, settings).await;
    survives_a_drain_that_is_cut_short(plugin, settings).await;
    leaves_nothing_behind_when_its_start_is_cut_short(plugin, settings).await;
    if plugin.sharding() == Sharding::Owned {
        yields_to_the_next_owner(plugin, settings).await;
    }
    if plugin.replicates() {
        runs_as_a_replica_beside_owners(plugin, settings).await;
    }
}

fn describes_itself(plugin: &dyn Plugin) {
    assert_eq!(plugin.service_type(), plugin.service_type(), "the service type never changes");
    assert_ne!(plugin.service_type().as_str(), Role::STANDBY, "standby is not a plugin");
    let about = plugin.about();
    assert!(!about.is_empty() && about.lines().count() == 1, "about is one line: {about:?}");
}

fn refuses_unknown_settings(plugin: &dyn Plugin) {
    let unknown = serde_json::json!({ "no_such_setting": true });
    let Err(first) = plugin.prepare(&unknown) else {
        panic!("an unknown setting must be refused");
    };
    assert!(first.to_string().contains("no_such_setting"), "the error names the setting: {first}");
    let again = plugin.prepare(&unknown).err();
    assert_eq!(again.as_ref(), Some(&first), "checking settings is pure");
    assert!(plugin.prepare(&serde_json::json!(17)).is_err(), "settings are an object");
}

async fn runs_once(plugin: &dyn Plugin, settings: &serde_json::Value, round: u32) {
    let (context, mut failures, service) = start(plugin, settings).await;
    assert!(!matches!(service.health(), Health::Failed(_)), "round {round}: healthy after its start");

    let request = Request::get("/no/such/path").body(Body::empty()).expect("the request is well formed");
    let answer = timeout(PATIENCE, service.clone().routes().oneshot(request)).await;
    assert!(answer.is_ok(), "round {round}: a request is answered in time");

    for _ in 0..2 {
        let deadline = Instant::now() + Duration::from_secs(1);
        timeout(PATIENCE, service.drain(deadline)).await.expect("drain ends by its deadline");
    }
    end(&context, service).await;
    assert_eq!(failures.try_recv().ok(), None, "round {round}: no task failed");
}

/// New settings while the service runs: whatever it returns, it continues to answer, and ends as usual.
async fn applies_new_settings_or_needs_a_restart(plugin: &dyn Plugin, settings: &serde_json::Value) {
    let (context, mut failures, service) = start(plugin, settings).await;
    let prepared = || match plugin.prepare(settings) {
        Ok(prepared) => prepared,
        Err(error) => panic!("good settings are accepted: {error}"),
    };
    for round in 1..=2 {
        let updated = timeout(PATIENCE, service.update(prepared())).await.expect("an update ends in time");
        assert!(!matches!(service.health(), Health::Failed(_)), "round {round}: healthy after {updated:?}");
        let request = Request::get("/no/such/path").body(Body::empty()).expect("the request is well formed");
        let answer = timeout(PATIENCE, service.clone().routes().oneshot(request)).await;
        assert!(answer.is_ok(), "round {round}: a request is answered in time after {updated:?}");
    }
    // One poll, then dropped: the service runs with the old settings or the new ones.
    let _ = timeout(Duration::ZERO, service.update(prepared())).await;
    assert!(!matches!(service.health(), Health::Failed(_)), "healthy after an update that was cut short");
    end(&context, service).await;
    assert_eq!(failures.try_recv().ok(), None, "no task failed");
}

async fn survives_a_drain_that_is_cut_short(plugin: &dyn Plugin, settings: &serde_json::Value) {
    let (context, _failures, service) = start(plugin, settings).await;
    // One poll, then dropped: stopping must still work.
    let _ = timeout(Duration::ZERO, service.drain(Instant::now() + PATIENCE)).await;
    end(&context, service).await;
}

async fn leaves_nothing_behind_when_its_start_is_cut_short(
    plugin: &dyn Plugin,
    settings: &serde_json::Value,
) {
    let (context, _failures) = context(plugin).await;
    let Ok(prepared) = plugin.prepare(settings) else {
        panic!("good settings are accepted");
    };
    // One poll, then dropped, as when the node leaves.
    let started = timeout(Duration::ZERO, prepared.start(context.clone())).await;
    if let Ok(Ok(service)) = started {
        // It started within one poll; so it is stopped without having been drained.
        end(&context, service).await;
        return;
    }
    context.shutdown.cancel();
    timeout(PATIENCE, context.tasks.wait()).await.expect("every task ends with the start that began it");
}

/// A new owner can run the shard while the former owner still runs it; the former owner then ends as usual.
async fn yields_to_the_next_owner(plugin: &dyn Plugin, settings: &serde_json::Value) {
    let store = memory().await;
    let mut owners = Vec::new();
    for owner in 1..=3 {
        let (context, failures) = Context::for_owner_test(first_shard(plugin), &store).await;
        let Ok(prepared) = plugin.prepare(settings) else {
            panic!("good settings are accepted");
        };
        let started = timeout(PATIENCE, prepared.start(context.clone())).await.expect("starts in time");
        let service = started.unwrap_or_else(|error| panic!("owner {owner} starts: {error}"));
        assert!(!matches!(service.health(), Health::Failed(_)), "owner {owner}: healthy after its start");
        owners.push((context, failures, service));
    }
    for (context, mut failures, service) in owners {
        end(&context, service).await;
        assert_eq!(
            failures.try_recv().ok(),
            None,
            "no task failed, although the shard had passed to another node"
        );
    }
}

/// A replica starts before there is any owner, and runs beside each owner.
async fn runs_as_a_replica_beside_owners(plugin: &dyn Plugin, settings: &serde_json::Value) {
    let store = memory().await;
    let mut running = Vec::new();
    for is_owner in [false, true, false, true] {
        let (context, failures) = match is_owner {
            true => Context::for_owner_test(first_shard(plugin), &store).await,
            false => Context::for_replica_test(first_shard(plugin), &store),
        };
        let Ok(prepared) = plugin.prepare(settings) else {
            panic!("good settings are accepted");
        };
        let started = timeout(PATIENCE, prepared.start(context.clone())).await.expect("starts in time");
        let service = started.unwrap_or_else(|error| panic!("starts, is_owner={is_owner}: {error}"));
        assert!(
            !matches!(service.health(), Health::Failed(_)),
            "healthy after its start, is_owner={is_owner}"
        );
        assert_eq!(service.staleness().is_some(), !is_owner, "a replica reports how far behind it may be");
        running.push((context, failures, service));
    }
    for (context, mut failures, service) in running {
        end(&context, service).await;
        assert_eq!(failures.try_recv().ok(), None, "no task failed");
    }
}

fn first_shard(plugin: &dyn Plugin) -> Role {
    Role::Service { service: plugin.service_type().into(), shard: Some(ShardId::default()) }
}

async fn memory() -> Store {
    let url = "memory:///".parse().expect("the URL is well formed");
    let cluster = "test".parse().expect("the name follows the rule");
    Store::open(&url, &cluster).await.expect("a store in memory always opens")
}

/// A context for the plugin's first shard, if it has shards, on a new store.
async fn context(plugin: &dyn Plugin) -> (Context, mpsc::UnboundedReceiver<TaskFailure>) {
    match plugin.sharding() {
        Sharding::None => {
            Context::for_test(Role::Service { service: plugin.service_type().into(), shard: None })
        }
        Sharding::Unowned => Context::for_test(first_shard(plugin)),
        Sharding::Owned => Context::for_owner_test(first_shard(plugin), &memory().await).await,
    }
}

async fn start(
    plugin: &dyn Plugin,
    settings: &serde_json::Value,
) -> (Context, mpsc::UnboundedReceiver<TaskFailure>, Arc<dyn Service>) {
    let (context, failures) = context(plugin).await;
    let prepared = match plugin.prepare(settings) {
        Ok(prepared) => prepared,
        Err(error) => panic!("good settings are accepted: {error}"),
    };
    let service = timeout(PATIENCE, prepared.start(context.clone())).await.expect("starts in time");
    match service {
        Ok(service) => (context, failures, service),
        Err(error) => panic!("starts: {error}"),
    }
}

async fn end(context: &Context, service: Arc<dyn Service>) {
    context.shutdown.cancel();
    for _ in 0..2 {
        let stopped = timeout(PATIENCE, service.stop()).await.expect("stops in time");
        assert!(stopped.is_ok(), "stops, the second time too: {stopped:?}");
    }
    // The call must not panic; its result does not matter.
    let _ = service.health();
    drop(service);
    timeout(PATIENCE, context.tasks.wait()).await.expect("every task ends with its service");
    // Not every service has one.
    let _ = std::fs::remove_dir_all(&context.cache_dir);
}
