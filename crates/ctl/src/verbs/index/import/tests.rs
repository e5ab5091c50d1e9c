//! The import against a member that answers as the test says.

use std::sync::{Arc, Mutex};

use clap::Parser;
use types::{ErrorKind, Problem};

use super::*;
use crate::fake::{Answer, Fake};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(words: &[&str]) -> Args {
    Line::try_parse_from([&["import"], words].concat()).unwrap().args
}

fn hint(words: &[&str], service: Option<&str>, has_ids: bool, done: usize) -> Failure {
    let service = service.map(|name| name.parse().unwrap());
    let args = args(words);
    let resume = Resume { args: &args, service: service.as_ref(), has_ids };
    explain(&resume.failed(Failure::interrupted().into(), true, done))
}

#[test]
fn an_interrupted_import_says_how_to_resume() {
    let said = "lines 1 to 7 are done; `ctl index import p 'a b.ndjson' --skip-lines 7` resumes, and repeating does \
                no harm";
    assert_eq!(hint(&["p", "a b.ndjson"], None, true, 7), Failure::interrupted().hint(said));
    let said = "none of the lines is known to be stored; `ctl index --service archive import p - --refused r` resumes \
                with the same input, and some of the next lines may then be stored twice, since they have no ids";
    let words = ["p", "-", "--refused", "r"];
    assert_eq!(hint(&words, Some("archive"), false, 0), Failure::interrupted().hint(said));
}

#[test]
fn if_nothing_was_sent_there_is_nothing_to_resume() {
    let args = args(&["p", "/tmp"]);
    let resume = Resume { args: &args, service: None, has_ids: true };
    let folder = LinesError::from(io::Error::from(io::ErrorKind::IsADirectory));
    let failure = explain(&resume.failed(folder.into(), false, 0));
    assert_eq!(failure, Failure::new(Exit::Error, "reading /tmp: is a directory"));
}

#[test]
fn an_id_that_is_given_must_be_the_one_of_the_index() {
    let index = "p".parse().unwrap();
    assert_eq!(agreed(&index, Some("name"), Some("name")), Ok(Some("name")));
    assert_eq!(agreed(&index, Some("name"), None), Ok(Some("name")));
    assert_eq!(agreed(&index, None, None), Ok(None));
    let other = agreed(&index, Some("name"), Some("isbn")).unwrap_err();
    assert_eq!(other.to_string(), "the id of a document of p is in the field `name`, not in `isbn`");
    let none = agreed(&index, None, Some("isbn")).unwrap_err();
    assert_eq!(none.to_string(), "the id of a document of p is in no field, not in `isbn`");
}

#[test]
fn refused_lines_are_kept_in_a_file_that_a_resumed_import_adds_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("refused");
    let refused = |text: &str| Refused { line: 1, message: String::new(), text: text.as_bytes().to_vec() };
    Kept::open(&path, false).unwrap().add(&[refused("a"), refused("b")]).unwrap();
    Kept::open(&path, true).unwrap().add(&[refused("c")]).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\nc\n");
    Kept::open(&path, false).unwrap().add(&[]).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
}

fn chunk(text: &str) -> Chunk {
    Chunk { first: 1, lines: text.lines().count(), text: text.as_bytes().to_vec() }
}

async fn sent(fake: &Fake, text: &str) -> anyhow::Result<Sent> {
    let room = Semaphore::new(BYTES_IN_FLIGHT);
    send(&fake.reached, &"books".parse().unwrap(), Ok(chunk(text)), &room).await
}

#[tokio::test]
async fn lines_are_sent_again_until_each_is_stored_or_refused_for_good() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let fake = Fake::new("searcher/0", move |request, body| {
        assert_eq!(request, "POST /books/docs");
        let mut bodies = seen.lock().unwrap();
        bodies.push(body.to_owned());
        let refused = |line: usize, status: u16, detail: &str| {
            json!({ "line": line, "id": "x", "status": status, "code": "c", "detail": detail })
        };
        match bodies.len() {
            1 => {
                let problem = Problem::new(ErrorKind::TooManyRequests, "too-far-behind", "wait");
                Answer::problem(&problem).retry_after(0)
            }
            2 => Answer::json(&json!({ "indexed": 1,
                    "refused": [refused(2, 400, "no text"), refused(3, 503, "shard 1: it is being opened")] })),
            _ => Answer::json(&json!({ "indexed": 1, "refused": [] })),
        }
    })
    .await;
    let sent = sent(&fake, "{\"a\":1}\n{\"a\":2}\n{\"a\":3}").await.unwrap();
    assert_eq!((sent.lines, sent.indexed), (3, 2));
    let expected =
        Refused { line: 2, message: "line 2 (x): no text".to_owned(), text: b"{\"a\":2}".to_vec() };
    assert_eq!(sent.refused, [expected]);
    let bodies = bodies.lock().unwrap();
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(bodies[2], "{\"a\":3}\n");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_divided_down_to_the_line_that_is_refused() {
    let fake = Fake::new("searcher/0", |_, body| {
        if body.len() > 8 {
            return Answer::problem(&Problem::new(ErrorKind::TooLarge, "body-too-large", "at most 8 bytes"));
        }
        Answer::json(&json!({ "indexed": body.lines().count() }))
    })
    .await;
    let sent = sent(&fake, "{}\n{}\n{\"a\": 1234}\n{}\n{}").await.unwrap();
    assert_eq!((sent.lines, sent.indexed), (5, 4));
    assert_eq!((sent.refused.len(), sent.refused[0].message.as_str()), (1, "line 3: at most 8 bytes"));
}

#[tokio::test]
async fn a_request_that_is_refused_as_a_whole_fails_at_once() {
    let fake = Fake::new("searcher/0", |_, _| {
        Answer::problem(&Problem::new(ErrorKind::InsufficientStorage, "no-space", "the disk is full"))
    })
    .await;
    assert_eq!(sent(&fake, "{}").await.unwrap_err().to_string(), "the disk is full");
}

#[tokio::test]
async fn an_index_that_is_missing_is_created_if_that_is_wanted() {
    let fake = || {
        Fake::new("searcher/0", |request, body| match request {
            "GET /books" => Answer::problem(&Problem::new(
                ErrorKind::NotFound,
                "no-such-index",
                "there is no index `books`",
            )),
            "GET /" => Answer::json(&json!({ "indexes": [{ "name": "boks", "uuid": "u", "fields": 0 }] })),
            "PUT /books" => {
                assert_eq!(body, r#"{"id":"isbn"}"#);
                Answer::json(&json!({ "created": true }))
            }
            other => panic!("{other}"),
        })
    };
    let created = id_field(&fake().await.reached, &args(&["books", "-", "--create", "--id", "isbn"])).await;
    assert_eq!(created.unwrap().as_deref(), Some("isbn"));
    let error = id_field(&fake().await.reached, &args(&["books", "-"])).await.unwrap_err();
    let hint = "`ctl index create books` creates it, and so does --create; `ctl index ls` lists others";
    assert_eq!(explain(&error), Failure::new(Exit::Error, "there is no index `books`").hint(hint));
    let error = show::fetch(&fake().await.reached, &"books".parse().unwrap()).await.unwrap_err();
    let expected = Failure::new(Exit::Error, "there is no index `books`").hint("did you mean `boks`?");
    assert_eq!(explain(&error), expected);
}
