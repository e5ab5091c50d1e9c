//! Storage as a user sees it: keys, claims, shards that move, processes that are killed or paused.

use std::time::Duration;

use e2e::{Machine, Moto, Said, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{agent_pid, ask, up, url};

const STORAGE: &str = "\
nodes:
  - {id: gateway, service: api_gateway}
  - {id: a, service: storage}
  - {id: b, service: standby}
";

/// The URL of the gateway's own listener.
async fn gateway(machine: &Machine) -> anyhow::Result<String> {
    eventually("the gateway listens", || async {
        let own = ask(&format!("{}/v1/agent/self", url(machine, "gateway").ok()?)).await.ok()?;
        own["member"]["state"]["endpoints"]["gateway"].as_str().map(str::to_owned)
    })
    .await
}

async fn owner(machine: &Machine) -> anyhow::Result<String> {
    let claims = machine.ctl(&["claims", "-o", "json"]).await?.exits(0)?.json()?;
    Ok(claims["claims"][0]["holder"]["node"].as_str().unwrap_or("nobody").to_owned())
}

async fn get(machine: &Machine, key: &str) -> anyhow::Result<String> {
    Ok(machine.ctl(&["kv", "get", key]).await?.exits(0)?.out)
}

#[tokio::test]
async fn keys_are_stored_listed_and_removed_and_survive_every_end() -> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    machine.ctl(&["kv", "put", "greeting", "hello"]).await?.exits(0)?.tells("stored greeting, 5 bytes")?;
    let file = machine.write("photo.jpg", "\u{1}\u{2}binary\n")?;
    machine
        .ctl(&["kv", "put", "a/photo", "--file", &file, "--content-type", "image/jpeg"])
        .await?
        .exits(0)?;
    assert_eq!(get(&machine, "greeting").await?, "hello");
    assert_eq!(get(&machine, "a/photo").await?, "\u{1}\u{2}binary\n");
    let listed = machine.ctl(&["kv", "ls"]).await?.exits(0)?;
    let lines: Vec<_> = listed.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(
        lines,
        [
            vec!["KEY", "BYTES", "VERSION", "TYPE"],
            vec!["a/photo", "9", lines[1][2], "image/jpeg"],
            vec!["greeting", "5", lines[2][2], "text/plain;", "charset=utf-8"]
        ]
    );
    assert_eq!(machine.ctl(&["kv", "ls", "a/", "-o", "name"]).await?.exits(0)?.out, "a/photo\n");

    let through = format!("{}/storage/kv/greeting", gateway(&machine).await?);
    let http = client::plain_http().build()?;
    assert_eq!(http.get(&through).send().await?.text().await?, "hello");
    let direct = format!("{}/svc/storage/kv/greeting", url(&machine, "a")?);
    assert_eq!(http.get(&direct).send().await?.text().await?, "hello");

    let manifest = machine.manifest(STORAGE)?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    assert_eq!(get(&machine, "greeting").await?, "hello");
    for process in ["gateway", "a", "b"].map(|node| agent_pid(&machine, node)) {
        kill_process(process?, Signal::KILL)?;
    }
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    assert_eq!(get(&machine, "greeting").await?, "hello");
    assert_eq!(owner(&machine).await?, "a", "it resumed its shard");

    for (arguments, shown) in [(&["a%0Ab"][..], "a%250Ab"), (&["--encoded", "a%0Ab%FF"], "a%0Ab%FF")] {
        machine.ctl(&[&["kv", "put"], arguments, &[shown]].concat()).await?.exits(0)?;
        assert_eq!(machine.ctl(&["kv", "get", "--encoded", shown]).await?.exits(0)?.out, shown);
        machine.ctl(&["kv", "ls", "-o", "name"]).await?.exits(0)?.tells("--encoded")?;
        machine.ctl(&["kv", "del", "--encoded", shown]).await?.exits(0)?;
    }
    machine.ctl(&["kv", "put", "a b/ü", "odd"]).await?.exits(0)?;
    let names = machine.ctl(&["kv", "ls", "-o", "name"]).await?.exits(0)?.out;
    assert_eq!(names.lines().collect::<Vec<_>>(), ["a b/ü", "a/photo", "greeting"], "as they were given");
    machine
        .ctl(&["kv", "del", "greeting", "a b/ü"])
        .await?
        .exits(0)?
        .tells("a b/ü does not exist any more")?;
    machine.ctl(&["kv", "get", "greeting"]).await?.exits(1)?.tells("there is no key `greeting`")?;
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    assert!(!machine.state().join("store").join(machine.cluster()).exists(), "the store is purged");
    machine.nothing_is_left()
}

#[tokio::test]
async fn keys_are_written_on_a_condition_or_for_a_time_and_exported_and_imported_as_lines()
-> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    machine.ctl(&["kv", "put", "lock", "1", "--if-absent", "--ttl", "1h"]).await?.exits(0)?;
    machine
        .ctl(&["kv", "put", "lock", "2", "--if-absent"])
        .await?
        .exits(1)?
        .tells("lock was not changed: the condition does not hold: the key has version")?;
    let shown = machine.ctl(&["kv", "get", "lock", "-o", "json"]).await?.exits(0)?.json()?;
    assert_eq!((&shown["value"], shown["expires_ms"].is_u64()), (&Value::from("1"), true), "{shown}");
    let version = shown["version"].to_string();
    let listed = machine.ctl(&["kv", "ls"]).await?.exits(0)?.out;
    assert!(listed.contains("EXPIRES IN") && listed.contains(" 59m"), "{listed}");
    machine.ctl(&["kv", "put", "lock", "3", "--if-version", &version]).await?.exits(0)?;
    machine.ctl(&["kv", "del", "lock", "--if-version", &version]).await?.exits(1)?.tells("not changed")?;
    machine.ctl(&["kv", "put", "lock", "3", "--ttl", "soon"]).await?.exits(2)?;
    machine
        .ctl(&["kv", "put", "lock", "3", "--ttl", "10ms"])
        .await?
        .exits(2)?
        .tells("a duration from 1s to 10y is wanted")?;

    machine.ctl(&["kv", "put", "--encoded", "%FF/a", "\u{1}"]).await?.exits(0)?;
    let file = machine.write("all.ndjson", "")?;
    machine.ctl(&["kv", "export", "--output", &file]).await?.exits(0)?.tells("exported 2 keys in ")?;
    let lines = std::fs::read_to_string(&file)?;
    assert_eq!(lines, machine.ctl(&["kv", "export"]).await?.exits(0)?.out);
    machine.ctl(&["kv", "del", "--encoded", "lock", "%FF/a"]).await?.exits(0)?;
    machine.ctl(&["kv", "import", &file]).await?.exits(0)?.tells("imported 2 keys in ")?;
    assert_eq!(lines, machine.ctl(&["kv", "export"]).await?.exits(0)?.out);

    let many: String = (0..25_000).map(|n| format!("{{\"key\":\"n/{n}\",\"value\":\"{n}\"}}\n")).collect();
    let file = machine.write("many.ndjson", &many)?;
    let said = machine.ctl(&["kv", "import", &file, "-o", "json"]).await?.exits(0)?.json()?;
    assert_eq!(said["imported"], 25_000);
    let file = machine.write("bad.ndjson", &many.replacen("\"n/12345\"", "\"\"", 1))?;
    machine
        .ctl(&["kv", "import", &file])
        .await?
        .exits(2)?
        .tells("line 12346: the key is empty")?
        .tells("lines 1 to 10000 are stored")?;
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_shard_is_moved_by_a_command_and_ctl_up_reports_it_and_moves_it_back() -> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    machine.ctl(&["kv", "put", "k", "v"]).await?.exits(0)?;
    machine
        .ctl(&["set-service", "b", "storage", "--shard", "0"])
        .await?
        .exits(5)?
        .tells("storage/0 is owned by a (epoch 1)")?
        .tells(" set-service b storage --shard 0 --take")?;
    let moved = machine.ctl(&["set-service", "b", "storage/0", "--take"]).await?.exits(0)?;
    assert!(moved.out.starts_with("b: standby -> storage/0, ready in "), "{}", moved.out);
    assert_eq!((owner(&machine).await?.as_str(), get(&machine, "k").await?.as_str()), ("b", "v"));
    // It stays where an operator moved it.
    let manifest = machine.manifest(STORAGE)?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine
        .ctl(&["up", &manifest])
        .await?
        .exits(0)?
        .tells("drift: a is standby, the manifest says storage/0")?
        .tells("drift: b is storage/0, the manifest says standby")?;
    assert_eq!(owner(&machine).await?, "b");
    machine.ctl(&["up", &manifest, "--reset"]).await?.exits(0)?.tells("restored: a was standby")?;
    assert_eq!((owner(&machine).await?.as_str(), get(&machine, "k").await?.as_str()), ("a", "v"));
    machine.ctl(&["status"]).await?.exits(0)?;
    Ok(())
}

/// Writes rising numbers directly to a node, and returns those that it acknowledged.
async fn write_directly(node: String, from: u64) -> Vec<u64> {
    let Ok(http) = client::plain_http().timeout(Duration::from_secs(20)).build() else { return Vec::new() };
    let mut acknowledged = Vec::new();
    for number in from..from + 20 {
        let answer = http.put(format!("{node}/svc/storage/kv/direct")).body(number.to_string()).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            acknowledged.push(number);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_that_act_as_owner_of_a_shard_only_one_ever_acknowledges() -> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    let through = format!("{}/storage/kv/direct", gateway(&machine).await?);
    let http = client::plain_http().timeout(Duration::from_secs(30)).build()?;
    for (round, (from, to)) in [("a", "b"), ("b", "a"), ("a", "b")].into_iter().enumerate() {
        let base = u64::try_from(round)? * 1_000;
        // Requests are in flight to the owner when it is paused.
        let mut early = JoinSet::new();
        let owner_url = url(&machine, from)?;
        early.spawn(write_directly(owner_url.clone(), base + 1));
        eventually("the first is stored", || async {
            let answer = http.get(&through).send().await.ok()?.text().await.ok()?;
            (answer.parse::<u64>().ok()? > base).then_some(())
        })
        .await?;
        kill_process(agent_pid(&machine, from)?, Signal::STOP)?;
        let taken = machine.ctl(&["set-service", to, "storage/0", "--take"]).await?;
        // From here on the other node owns the shard, and gets a write.
        let latest = base + 500;
        let answer = http.put(&through).body(latest.to_string()).send().await?;
        assert!(answer.status().is_success(), "{}: {taken:?}", answer.status());
        kill_process(agent_pid(&machine, from)?, Signal::CONT)?;
        // Once it resumes, it handles the requests from before the pause and new ones.
        let late = write_directly(owner_url, base + 600).await;
        assert_eq!(late, Vec::<u64>::new(), "the former owner acknowledged a write");
        for acknowledged in early.join_all().await.concat() {
            assert!(acknowledged < base + 500);
        }
        taken.exits(0)?;
        let found: u64 = http.get(&through).send().await?.text().await?.parse()?;
        assert_eq!(found, latest, "nothing that was acknowledged is lost or undone");
        eventually("the former owner has stepped down", || async {
            let seen = ask(&format!("{}/v1/members/{from}", url(&machine, "gateway").ok()?)).await.ok()?;
            (seen["member"]["state"]["role"]["service"] == "standby").then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_paused_at_any_moment_of_a_take_loses_the_shard_and_nothing_else() -> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    let through = format!("{}/storage/kv/key", gateway(&machine).await?);
    let http = client::plain_http().timeout(Duration::from_secs(30)).build()?;
    for moment in [0, 4, 8, 15, 25, 40] {
        machine.ctl(&["set-service", "a", "storage/0", "--take"]).await?.exits(0)?;
        let taking = machine.start("ctl", &["set-service", "b", "storage/0", "--take"])?;
        // The moment is arbitrary; it may hit any step.
        tokio::time::sleep(Duration::from_millis(moment)).await;
        kill_process(agent_pid(&machine, "b")?, Signal::STOP)?;
        // This takes longer than the failure detector, since the owner is asked and does not answer.
        let back = eventually("a has it again", || async {
            let back = machine.ctl(&["set-service", "a", "storage/0", "--take"]).await.ok()?;
            (back.code() == Some(0)).then_some(back)
        });
        let back: Said = back.await?;
        let written = format!("after {moment}");
        let answer = http.put(&through).body(written.clone()).send().await?;
        assert!(answer.status().is_success(), "{moment}: {}, {back:?}", answer.status());
        kill_process(agent_pid(&machine, "b")?, Signal::CONT)?;
        // The first command may have failed or not; the second one came later.
        let _ = taking.ends().await?;
        eventually("a is no longer busy with the request of b", || async {
            let back = machine.ctl(&["set-service", "a", "storage/0", "--take"]).await.ok()?;
            (back.code() == Some(0)).then_some(())
        })
        .await?;
        assert_eq!(http.get(&through).send().await?.text().await?, written, "{moment}");
    }
    Ok(())
}

#[tokio::test]
async fn a_paused_owner_resumes_without_its_shard() -> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    let through = format!("{}/storage/kv/key", gateway(&machine).await?);
    let direct = format!("{}/svc/storage/kv/key", url(&machine, "a")?);
    let http = client::plain_http().timeout(Duration::from_secs(30)).build()?;
    http.put(&through).body("before").send().await?.error_for_status()?;
    kill_process(agent_pid(&machine, "a")?, Signal::STOP)?;
    // It neither answers nor refuses the connection, so it is challenged first.
    eventually("b has taken the shard over", || async { (owner(&machine).await.ok()? == "b").then_some(()) })
        .await?;
    http.put(&through).body("after").send().await?.error_for_status()?;
    let asked = http.get(&direct).send();
    let resuming = async {
        // It gets the request while paused, and answers when it resumes.
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill_process(agent_pid(&machine, "a")?, Signal::CONT)?;
        anyhow::Ok(())
    };
    let (asked, resuming) = tokio::join!(asked, resuming);
    resuming?;
    assert!(!asked?.status().is_success(), "it may still act as owner, but returns no stale data");
    assert_eq!(http.get(&through).send().await?.text().await?, "after");
    eventually("a stands by", || async {
        let members = machine.ctl(&["members"]).await.ok()?.out;
        members.lines().any(|line| line.starts_with("a ") && line.contains("standby")).then_some(())
    })
    .await
}

#[tokio::test]
async fn an_s3_server_works_with_one_line_in_the_manifest() -> anyhow::Result<()> {
    let Some(moto) = Moto::start().await? else { return Ok(()) };
    let machine = Machine::new()?;
    let manifest = machine.manifest(&format!("store: s3://{}/clusters\n{STORAGE}", Moto::BUCKET))?;
    let environment = moto.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let ctl = async |arguments: &[&str]| machine.start_with("ctl", arguments, &environment)?.ends().await;
    ctl(&["up", &manifest]).await?.exits(0)?;
    machine.ctl(&["kv", "put", "greeting", "hello"]).await?.exits(0)?;
    machine.ctl(&["set-service", "b", "storage/0", "--take"]).await?.exits(0)?;
    assert_eq!(get(&machine, "greeting").await?, "hello");
    let spec = machine.ctl(&["spec", "-o", "json"]).await?.exits(0)?.json()?;
    assert_eq!(spec["store"]["url"], Value::from(format!("s3://{}/clusters", Moto::BUCKET)));
    for process in ["gateway", "a", "b"].map(|node| agent_pid(&machine, node)) {
        kill_process(process?, Signal::KILL)?;
    }
    ctl(&["up", &manifest]).await?.exits(0)?;
    assert_eq!((get(&machine, "greeting").await?.as_str(), owner(&machine).await?.as_str()), ("hello", "b"));
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn an_unusable_store_is_refused_before_anything_starts() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let file = machine.write("no-folder", "a file")?;
    for (store, words) in [
        (format!("file://{file}/below"), "no-folder"),
        ("ftp://host/x".to_owned(), "s3"),
        ("s3://key:secret@bucket/x".to_owned(), "environment"),
        ("memory:///".to_owned(), "serves one agent only"),
        ("relative/folder".to_owned(), "absolute"),
    ] {
        let manifest = machine.manifest(&format!("store: '{store}'\n{STORAGE}"))?;
        machine.ctl(&["up", &manifest]).await?.exits(2)?.tells(words)?.tells("cluster.yaml:3:")?;
        machine.nothing_is_left()?;
        if store.starts_with("relative") || store.starts_with("memory") {
            // As a flag of one agent, the first is a folder below the current one, and the second is valid.
            continue;
        }
        let refused = machine.agent(&["--listen-addr", "127.0.0.1:0", "--store", &store]).await?;
        assert!(matches!(refused.code(), Some(1 | 2)), "{refused:?}");
        refused.tells(words)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_unreachable_for_a_while_has_no_second_history() -> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    machine.ctl(&["kv", "put", "before", "1"]).await?.exits(0)?;
    let (store, away) = (machine.state().join("store"), machine.folder().join("away"));
    std::fs::rename(&store, &away)?;
    let http = client::plain_http().timeout(Duration::from_secs(30)).build()?;
    let direct = format!("{}/svc/storage/kv/during", url(&machine, "a")?);
    let answer = http.put(&direct).body("1").send().await?;
    assert_eq!(answer.status(), 503, "{}", answer.text().await?);
    machine.ctl(&["claims"]).await?.exits(1)?.tells("is it mounted")?;
    assert_eq!(machine.ctl(&["status"]).await?.code(), Some(1));
    assert_ne!(machine.ctl(&["set-service", "b", "storage/0", "--take"]).await?.code(), Some(0));
    assert!(!store.exists(), "nothing is written beside it");
    std::fs::rename(&away, &store)?;
    eventually("it continues", || async {
        let said = machine.ctl(&["kv", "put", "after", "1"]).await.ok()?;
        (said.code() == Some(0)).then_some(())
    })
    .await?;
    let manifest = machine.manifest(STORAGE)?;
    for process in ["gateway", "a", "b"].map(|node| agent_pid(&machine, node)) {
        kill_process(process?, Signal::KILL)?;
    }
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    for key in ["before", "after"] {
        assert_eq!(get(&machine, key).await?, "1", "{key}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_runs_is_not_moved_to_another_store_by_a_line_of_its_manifest() -> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    machine.ctl(&["kv", "put", "k", "v"]).await?.exits(0)?;
    let other = machine.folder().join("other");
    let manifest = machine.manifest(&format!("store: {}\n{STORAGE}", other.display()))?;
    for arguments in [&["up", manifest.as_str()][..], &["up", &manifest, "--reset"]] {
        machine
            .ctl(arguments)
            .await?
            .exits(2)?
            .tells("the cluster runs on another store")?
            .tells("cluster.yaml:3:")?;
    }
    assert_eq!(get(&machine, "k").await?, "v");
    Ok(())
}

#[tokio::test]
async fn shards_never_change_and_status_names_those_without_an_owner() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let addr = format!("127.0.0.1:{}", e2e::free_port()?);
    let agent = machine
        .start("agent", &["--listen-addr", &addr, "--service", "storage", "--shard", "2", "--shards", "3"])?;
    let agent_url = format!("http://{addr}");
    let status = eventually("the agent is ready", || async {
        let said = machine.ctl(&["--agent", &agent_url, "status"]).await.ok()?;
        said.out.contains("1 member, 1 ready").then_some(said)
    })
    .await?;
    assert_eq!(status.code(), Some(1));
    for words in [
        "storage/0 has no owner (it never had an owner)",
        "no node is there to take it over; `",
        "--service standby --listen-addr 127.0.0.1:0 --seed ",
        "storage/1 has no owner",
    ] {
        assert!(status.out.contains(words), "{}", status.out);
    }
    agent.signal(Signal::TERM);
    agent.ends().await?.exits(0)?;

    let machine = up(STORAGE).await?;
    machine.ctl(&["down"]).await?.exits(0)?;
    let more = machine.manifest(&format!("services: {{storage: {{shards: 3}}}}\n{STORAGE}"))?;
    machine.ctl(&["up", &more]).await?.exits(2)?.tells("1")?.tells("cluster.yaml:")?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn changes_are_shown_until_an_interrupt_which_prints_where_to_resume() -> anyhow::Result<()> {
    let machine = up(STORAGE).await?;
    let stream = machine.start("ctl", &["kv", "watch", "user/", "--values"])?;
    machine.ctl(&["kv", "put", "other", "1"]).await?.exits(0)?;
    eventually("it watches", || async {
        machine.ctl(&["kv", "put", "user/1", "hello"]).await.ok()?;
        stream.out().contains("put     user/1").then_some(())
    })
    .await?;
    machine.ctl(&["kv", "del", "user/1"]).await?.exits(0)?;
    eventually("it shows it", || async { stream.out().contains("delete  user/1").then_some(()) }).await?;
    stream.signal(Signal::INT);
    let ended = stream.ends().await?.exits(0)?;
    assert!(ended.out.contains("hello") && !ended.out.contains("other"), "{}", ended.out);
    let cursor = ended.err.rsplit("--from ").next().unwrap_or_default().trim().to_owned();

    machine.ctl(&["kv", "put", "user/2", "x"]).await?.exits(0)?;
    let stream = machine.start("ctl", &["kv", "watch", "-o", "json", "--from", &cursor])?;
    eventually("it continues", || async { stream.out().contains("user/2").then_some(()) }).await?;
    stream.signal(Signal::INT);
    let ended = stream.ends().await?.exits(0)?;
    let first: Value = serde_json::from_str(ended.out.lines().next().unwrap_or_default())?;
    assert_eq!((&first["event"], &first["key"]), (&"put".into(), &"user/2".into()));

    let places = cursor.split(',').filter_map(|place| place.split(':').next());
    let never: Vec<_> = places.map(|shard| format!("{shard}:99999.0")).collect();
    let gone = machine.ctl(&["kv", "watch", "--from", &never.join(",")]).await?.exits(1)?;
    gone.tells("are not kept any more")?.tells("watch without --from")?;
    machine.ctl(&["kv", "watch", "--from", "x"]).await?.exits(2)?.tells("`x` is no cursor")?;
    Ok(())
}
