//! A searcher in memory, with the part of its API that clients use. It can have a flaw, which the checks have to find.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One in this many operations shows the flaw.
const SHARE: u64 = 20;
const MAX_BODY: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Searches do not find some documents.
    Loss,
    /// Searches find some documents twice.
    Duplicate,
    /// Searches find some documents that were replaced or deleted.
    Resurrection,
}

#[derive(Debug)]
struct Document {
    id: String,
    seq: u64,
    source: Value,
}

#[derive(Debug)]
struct State {
    flaw: Flaw,
    seq: u64,
    documents: BTreeMap<String, Document>,
    /// Documents that only searches find.
    dead: Vec<Document>,
}

/// Serves until the set is dropped. The same paths are served as a gateway's and as a member's.
pub(crate) async fn start(flaw: Flaw) -> (SocketAddr, JoinSet<()>) {
    let state = State { flaw, seq: 0, documents: BTreeMap::new(), dead: Vec::new() };
    let state = Arc::new(Mutex::new(state));
    let answer = move |request: Request| {
        let state = Arc::clone(&state);
        async move {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, MAX_BODY).await.unwrap();
            let mut answer = state.lock().unwrap().answer(&head, &body);
            if head.uri.query().unwrap_or_default().contains("=any") || body_level(&body) == "any" {
                answer.headers_mut().insert(types::api::STALENESS_MS, "0".parse().unwrap());
            }
            answer
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    (addr, serving)
}

fn body_level(body: &Bytes) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["consistency"].as_str().unwrap_or_default().to_owned()
}

impl State {
    fn answer(&mut self, head: &Parts, body: &Bytes) -> Response {
        let path = head.uri.path();
        let path = path.strip_prefix("/svc").unwrap_or(path).strip_prefix("/searcher/torture").unwrap();
        let query = head.uri.query().unwrap_or_default();
        if let Some(id) = path.strip_prefix("/docs/") {
            return self.document(&head.method, id, query, &head.headers, body);
        }
        match path {
            "" => answered(StatusCode::CREATED, None, &json!({ "created": true })),
            "/refresh" | "/compact" => answered(StatusCode::OK, None, &json!({})),
            "/docs" => self.bulk(body),
            "/delete" => self.delete_found(&serde_json::from_slice(body).unwrap()),
            "/search" => self.search(&serde_json::from_slice(body).unwrap()),
            other => panic!("{other}"),
        }
    }

    fn document(
        &mut self,
        method: &Method,
        id: &str,
        query: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response {
        let present = self.documents.get(id);
        let seq = present.map(|document| document.seq);
        if method == Method::GET {
            return match present {
                Some(document) => answered(StatusCode::OK, seq, &document.source),
                None => {
                    let problem = json!({ "type": "urn:coterie:problem:no-such-document" });
                    answered(StatusCode::NOT_FOUND, None, &problem)
                }
            };
        }
        let is_parameter = query.contains("if_seq_no=");
        let holds = match (headers.get("if-none-match"), headers.get("if-match")) {
            (Some(_), _) => seq.is_none(),
            (_, Some(tag)) => seq.is_some_and(|seq| tag == &format!("\"{seq}\"")),
            _ => !is_parameter || seq.is_some_and(|seq| query.contains(&format!("if_seq_no={seq}&"))),
        };
        if !holds {
            let status = if is_parameter { StatusCode::CONFLICT } else { StatusCode::PRECONDITION_FAILED };
            return answered(status, seq, &json!({}));
        }
        let is_put = method != Method::DELETE;
        let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
        if method == Method::PATCH {
            let Some(present) = present else {
                let problem = json!({ "type": "urn:coterie:problem:no-such-document" });
                return answered(StatusCode::NOT_FOUND, None, &problem);
            };
            let mut merged = present.source.clone();
            merged["token"] = body["token"].take();
            body = merged;
        }
        let before = self.documents.remove(id);
        let result = match (is_put, &before) {
            (true, None) => "created",
            (true, Some(_)) => "updated",
            (false, Some(_)) => "deleted",
            (false, None) => return answered(StatusCode::OK, None, &json!({ "result": "not_found" })),
        };
        self.seq += 1;
        if self.flaw == Flaw::Resurrection && self.seq.is_multiple_of(SHARE) {
            self.dead.extend(before);
        }
        if is_put {
            let document = Document { id: id.to_owned(), seq: self.seq, source: body };
            self.documents.insert(id.to_owned(), document);
        }
        let body = json!({ "seq": self.seq, "term": 1, "result": result });
        answered(StatusCode::OK, is_put.then_some(self.seq), &body)
    }

    fn bulk(&mut self, body: &Bytes) -> Response {
        let lines: Vec<Value> =
            body.split(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
        for line in &lines {
            let (id, line) = (line["key"].as_str().unwrap(), Bytes::from(line.to_string()));
            self.document(&Method::PUT, id, "", &HeaderMap::new(), &line);
        }
        answered(StatusCode::OK, None, &json!({ "indexed": lines.len(), "refused": [] }))
    }

    fn delete_found(&mut self, request: &Value) -> Response {
        let token = request["q"].as_str().unwrap().strip_prefix("token:").unwrap();
        let found = self.documents.values().find(|document| document.source["token"] == token);
        let found = found.map(|document| document.id.clone());
        if let Some(id) = &found {
            self.document(&Method::DELETE, id, "", &HeaderMap::new(), &Bytes::new());
        }
        let deleted = usize::from(found.is_some());
        let body =
            json!({ "deleted": deleted, "conflicts": 0, "timed_out": false, "shards": { "failed": [] } });
        answered(StatusCode::OK, None, &body)
    }

    fn search(&self, request: &Value) -> Response {
        let group = request["filter"].as_str().and_then(|filter| filter.strip_prefix("group:"));
        let tokens = request["q"].as_str().unwrap().split(' ').filter_map(|word| word.strip_prefix("token:"));
        let tokens: BTreeSet<_> = tokens.collect();
        let matches = |document: &&Document| match group {
            Some(group) => document.source["group"] == group,
            None => tokens.is_empty() || tokens.contains(document.source["token"].as_str().unwrap()),
        };
        let mut hits = Vec::new();
        for document in self.documents.values().chain(&self.dead).filter(matches) {
            let is_hit = document.seq.is_multiple_of(SHARE);
            let times = match self.flaw {
                Flaw::Loss if is_hit => 0,
                Flaw::Duplicate if is_hit => 2,
                _ => 1,
            };
            let Document { id, seq, source } = document;
            hits.extend((0..times).map(|_| json!({ "id": id, "sort": [seq, seq, 0], "source": source })));
        }
        let body =
            json!({ "timed_out": false, "total": hits.len(), "shards": { "failed": [] }, "hits": hits });
        answered(StatusCode::OK, None, &body)
    }
}

fn answered(status: StatusCode, seq: Option<u64>, body: &Value) -> Response {
    let mut answer = Response::builder().status(status);
    if let Some(seq) = seq {
        answer = answer.header("etag", format!("\"{seq}\"")).header("coterie-term", "1");
    }
    answer.body(Body::from(body.to_string())).unwrap()
}
