//! Damaged local files, and queries that panic, through HTTP.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::search::PANIC;

/// The documents in a service with damage.
const DOCUMENTS: usize = 300;

async fn filled(searchers: &Searchers) {
    let line = |number: usize| {
        let text = format!("common word{number} half{} {}", number % 2, "filling ".repeat(number % 7));
        json!({"name": format!("id-{number}"), "text": text, "size": number * 31 % 101}).to_string()
    };
    let lines = (0..DOCUMENTS).map(line).collect::<Vec<_>>().join("\n");
    let answer = searchers.call("POST", "/x/docs?refresh=true", lines).await;
    assert_eq!(answer.json(), json!({"indexed": DOCUMENTS, "refused": []}));
}

/// The local files of a node with this extension.
fn files(searchers: &Searchers, node: &NodeId, extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![searchers.0.cache_dir(node).join("searcher")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|of| of == extension) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no file `{extension}`");
    found
}

/// Changes the first bytes of a file, all but Tantivy's footer. It may be mapped, so it stays the same file.
fn damage(path: &Path) {
    let content = fs::read(path).unwrap();
    let footer =
        8 + usize::try_from(u32::from_le_bytes(content[content.len() - 8..][..4].try_into().unwrap()))
            .unwrap();
    let changed: Vec<u8> = content[..content.len() - footer].iter().map(|byte| byte ^ 0x5a).collect();
    assert!(!changed.is_empty());
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&changed, 0).unwrap();
}

/// Requests that read each kind of file.
async fn requests(searchers: &Searchers, node: &NodeId, level: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for path in [
        format!("/x/docs/id-7?consistency={level}"),
        format!("/x/search?q=word7&consistency={level}"),
        format!("/x/search?q=common%20half1&consistency={level}"),
        format!("/x/search?q=%22common%20word9%22&consistency={level}"),
        format!("/x/search?q=common&sort=-size&facets=name&consistency={level}"),
    ] {
        answers.push(searchers.call_at(node, "GET", &path, "").await);
    }
    answers
}

fn is_right(answers: &[Answer]) -> bool {
    let total = |at: usize| answers[at].json()["total"].as_u64();
    answers.iter().all(|answer| answer.status == 200)
        && total(1) == Some(1)
        && total(2) == Some(DOCUMENTS as u64)
        && total(3) == Some(1)
        && total(4) == Some(DOCUMENTS as u64)
}

/// Damages the files of an extension at a node, and waits until they are as before.
async fn check(searchers: &Searchers, node: &NodeId, extension: &str, level: &str) {
    let answers = requests(searchers, node, level).await;
    if level == "strong" {
        let shown = |answer: &Answer| String::from_utf8_lossy(&answer.body).into_owned();
        assert!(is_right(&answers), "{:#?}", answers.iter().map(shown).collect::<Vec<_>>());
    }
    until("it answers", async || is_right(&requests(searchers, node, level).await)).await;
    let all = files(searchers, node, extension);
    let before: Vec<_> = all.iter().map(|path| fs::read(path).unwrap()).collect();
    all.iter().for_each(|path| damage(path));
    let answers = requests(searchers, node, level).await;
    assert!(!is_right(&answers), "{extension}: the damage shows");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        // A get that waited until the damage was repaired is right. A wrong list of documents may only be shorter.
        if answer.status == 404 {
            continue;
        }
        let (status, code) = answer.code();
        assert!(
            matches!((status, code.as_str()), (500, "damaged-local-files" | "query-panicked")),
            "{extension}: {status} {code}"
        );
    }
    until("the files are fetched again", async || {
        all.iter().zip(&before).all(|(path, before)| fs::read(path).is_ok_and(|now| now == *before))
    })
    .await;
    until("it is ready", async || searchers.0.service(node).health() == Health::Ready).await;
    until("it answers again", async || is_right(&requests(searchers, node, level).await)).await;
}

#[tokio::test]
async fn damaged_files_of_an_owner_are_found_by_a_query_that_fails_and_fetched_again() {
    for extension in ["store", "fast", "term", "idx"] {
        let searchers = Searchers::with_index(1, json!({})).await;
        filled(&searchers).await;
        let owner = searchers.0.owner(shard(0));
        check(&searchers, &owner, extension, "strong").await;
        let put = searchers.call("PUT", "/x/docs/id-7?refresh=true", "{\"text\":\"new\"}").await;
        assert_eq!((put.status, &put.json()["version"]), (200, &json!(2)), "{extension}");
        searchers.stop().await;
    }
}

#[tokio::test]
async fn damaged_files_of_a_replica_are_found_by_a_query_that_fails_and_fetched_again() {
    for extension in ["store", "idx"] {
        let mut searchers = Searchers::with_index(1, json!({})).await;
        let replica = searchers.0.replicate(shard(0)).await;
        filled(&searchers).await;
        check(&searchers, &replica, extension, "any").await;
        searchers.stop().await;
    }
}

#[tokio::test]
async fn a_write_that_meets_a_damaged_file_is_refused_and_others_are_done() {
    let searchers = Searchers::with_index(1, json!({})).await;
    filled(&searchers).await;
    let owner = searchers.0.owner(shard(0));
    files(&searchers, &owner, "store").iter().for_each(|path| damage(path));
    // A patch needs the present document, a put only its number.
    let (patched, put) = tokio::join!(
        searchers.call("PATCH", "/x/docs/id-1", "{\"size\":7}"),
        searchers.call("PUT", "/x/docs/id-2", "{\"size\":7}"),
    );
    assert_eq!(patched.status, 500, "{}", patched.json());
    // It fails only if the shard is being opened again already.
    assert!(matches!(put.status, 200 | 503), "{}", put.json());
    until("the put is done", async || {
        searchers.call("PUT", "/x/docs/id-2", "{\"size\":7}").await.status == 200
    })
    .await;
    until("the patch is done", async || {
        searchers.call("PATCH", "/x/docs/id-1", "{\"size\":7}").await.status == 200
    })
    .await;
    assert_eq!(searchers.get("/x/docs/id-1").await.json()["size"], 7);
    assert_eq!(searchers.get("/x/docs/id-2").await.json(), json!({"size": 7}));
    searchers.stop().await;
}

#[tokio::test]
async fn a_query_that_panics_again_and_again_is_answered_with_500_and_hinders_no_other_one() {
    let searchers = Searchers::with_index(2, json!({})).await;
    filled(&searchers).await;
    for _ in 0..20 {
        let answer = searchers.get(&format!("/x/search?q={PANIC}&allow_partial=false")).await;
        assert_eq!(answer.status, 500, "{}", answer.json());
        assert!(answer.problem().detail.contains("a test wants it"), "{}", answer.json());
        let answer = searchers.get("/x/search?q=common").await.json();
        assert_eq!((&answer["total"], &answer["shards"]["ok"]), (&json!(DOCUMENTS), &json!(2)));
        let put = searchers.call("PUT", "/x/docs/id-1", "{\"text\":\"common\"}").await;
        assert_eq!(put.status, 200, "{}", put.json());
    }
    for number in 0..2 {
        let owner = searchers.0.owner(shard(number));
        until("it is ready", async || searchers.0.service(&owner).health() == Health::Ready).await;
    }
    searchers.stop().await;
}
