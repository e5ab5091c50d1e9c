//! The memory of a service with as many indexes as it may have. It is a test program of its own, as memory is measured for the
//! whole process.

use std::num::NonZeroU32;
use std::sync::Arc;

use plugin::Health;
use plugin::testing::ShardCluster;
use searcher::Searcher;
use serde_json::{Value, json};

/// The most indexes of a service.
const INDEXES: usize = 200;
/// The documents of each index.
const DOCUMENTS: usize = 50;
/// The most anonymous memory of the process, which has the store in memory too.
const LIMIT_KIB: u64 = 512 * 1024;

/// The anonymous memory of this process, in KiB.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it has this line");
    line.trim().trim_end_matches(" kB").parse().expect("it is a number")
}

/// How many threads this process has.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("it is Linux").count()
}

async fn call(cluster: &ShardCluster, method: &str, path: &str, body: String) -> (u16, Value) {
    let answer = cluster.call(method, path, body).await;
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

/// Writes documents to all indexes in turn, and looks for them.
async fn fill(cluster: &ShardCluster, round: usize) -> (u64, usize) {
    let (mut most, mut most_threads) = (0, 0);
    for index in 0..INDEXES {
        let line = |number: usize| {
            let text = format!("common round{round} word{} of {index}", number * 7 % 97);
            json!({"name": format!("id-{number}"), "text": text, "size": number}).to_string()
        };
        let lines = (0..DOCUMENTS).map(line).collect::<Vec<_>>().join("\n");
        let (status, done) = call(cluster, "POST", &format!("/index-{index}/docs"), lines).await;
        assert_eq!((status, &done["indexed"]), (200, &json!(DOCUMENTS)), "{done}");
        (most, most_threads) = (most.max(anonymous_kib()), most_threads.max(threads()));
    }
    for index in 0..INDEXES {
        let path = format!(
            "/index-{index}/search?q=round{round}&sort=-size&facets=name&consistency=strong&highlight=true&timeout=60s"
        );
        let (status, found) = call(cluster, "GET", &path, String::new()).await;
        assert_eq!((status, &found["total"]), (200, &json!(DOCUMENTS)), "{found}");
        (most, most_threads) = (most.max(anonymous_kib()), most_threads.max(threads()));
    }
    (most, most_threads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_indexes_are_written_and_searched_within_512_mebibytes() {
    let empty = anonymous_kib();
    let mut cluster = ShardCluster::start(Arc::new(Searcher), &json!({}), NonZeroU32::MIN).await;
    let definition = json!({
        "id": "name",
        "fields": {"name": {"type": "keyword"}, "text": {"type": "text"}, "size": {"type": "i64"}},
    });
    for index in 0..INDEXES {
        let (status, created) =
            call(&cluster, "PUT", &format!("/index-{index}"), definition.to_string()).await;
        assert_eq!(status, 201, "{created}");
    }
    let (status, refused) = call(&cluster, "PUT", "/one-too-many", definition.to_string()).await;
    assert_eq!((status, &refused["title"]), (409, &json!("too many indexes")), "{refused}");
    let (memory, threads) = fill(&cluster, 0).await;
    println!("{empty} KiB when empty, {memory} KiB at most, {threads} threads at most");
    assert!(memory < LIMIT_KIB, "{memory} KiB");
    // The next owner opens them all.
    let owner = cluster.move_shard(0.try_into().unwrap()).await;
    let (memory, threads) = fill(&cluster, 1).await;
    println!("after a move: {memory} KiB at most, {threads} threads at most");
    assert!(memory < LIMIT_KIB, "{memory} KiB");
    assert_eq!(cluster.service(&owner).health(), Health::Ready);
    cluster.stop().await;
}
