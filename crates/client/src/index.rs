//! Indexes of the service type `searcher` and their documents, through one of its members.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use percent_encoding::utf8_percent_encode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{Client, problem_or_unexpected};
use crate::error::ClientError;
use crate::kv::PLAIN;
use crate::search::SearchedShards;

/// An index in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSummary {
    /// Its name.
    pub name: String,
    /// Its id, unique for each creation.
    pub uuid: String,
    /// The number of declared fields.
    pub fields: u64,
    /// The number of documents, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// The bytes that they take, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether the settings declare it, so that it can't be deleted.
    #[serde(default)]
    pub declared: bool,
    /// Its other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// How long after its creation it is deleted, such as `30d`; `None` if it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_after: Option<String>,
}

#[derive(Deserialize)]
struct Indexes {
    indexes: Vec<IndexSummary>,
}

/// The answer to the creation of an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Created {
    /// Whether it was created; `false` if it existed.
    pub created: bool,
    /// Whether fields were added to it.
    #[serde(default)]
    pub extended: bool,
}

/// What became of documents that were sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// Each document was indexed or refused on its own.
    Done {
        /// How many are durable.
        indexed: u64,
        /// The others.
        refused: Vec<RefusedLine>,
    },
    /// Send them again later.
    Later {
        /// The reason.
        why: String,
        /// When, if the member said so.
        after: Option<Duration>,
    },
}

/// A line that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLine {
    /// Its number in the request, from 1.
    pub line: usize,
    /// The id of its document, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The status that a request of its own would have got.
    #[serde(default)]
    pub status: u16,
    /// The reason, for programs.
    pub code: String,
    /// The reason, for people.
    pub detail: String,
}

/// Which documents to copy into another index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Reindex {
    /// The index to copy into.
    pub to: String,
    /// A query for the documents; all of them without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// What was copied before: the `seqs` of the last answer.
    pub after_seq: BTreeMap<String, Option<u64>>,
    /// How long it may take, such as `10s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// What was copied into another index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reindexed {
    /// How many documents were copied.
    pub copied: u64,
    /// How many the other index had already, in the same or a newer state.
    pub skipped: u64,
    /// How many do not fit the other index.
    pub refused: u64,
    /// The first of them.
    #[serde(default)]
    pub refusals: Vec<RefusedCopy>,
    /// Whether the time was up before all was done.
    pub timed_out: bool,
    /// The last operation of each shard up to which all is done.
    pub seqs: BTreeMap<String, Option<u64>>,
    /// The shards, and why some did not do their part.
    pub shards: SearchedShards,
}

/// A document that does not fit the index into which it was to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCopy {
    /// Its id.
    pub id: String,
    /// The status that a request of its own would have got.
    #[serde(default)]
    pub status: u16,
    /// The reason, for programs.
    pub code: String,
    /// The reason, for people.
    pub detail: String,
}

#[derive(Deserialize)]
struct Answered {
    indexed: u64,
    #[serde(default)]
    refused: Vec<RefusedLine>,
}

impl Client {
    /// The indexes, by name.
    pub async fn indexes(&self) -> Result<Vec<IndexSummary>, ClientError> {
        let listed: Indexes = self.json(self.get(&format!("/svc/{}/", self.service()))).await?;
        Ok(listed.indexes)
    }

    /// An index: its definition, its documents and size, the state of its shards.
    pub async fn index(&self, name: &str) -> Result<Value, ClientError> {
        self.json(self.get(&self.index_path(name, ""))).await
    }

    /// Creates an index, or adds fields to it. Safe to repeat.
    pub async fn create_index(&self, name: &str, definition: &Value) -> Result<Created, ClientError> {
        let request = self.http().put(self.url(&self.index_path(name, ""))).json(definition);
        self.json(request).await
    }

    /// Deletes an index with all of its documents.
    pub async fn delete_index(&self, name: &str) -> Result<(), ClientError> {
        self.plain(self.http().delete(self.url(&self.index_path(name, "")))).await
    }

    /// Makes everything that was acknowledged visible to searches.
    pub async fn refresh_index(&self, name: &str) -> Result<(), ClientError> {
        self.plain(self.http().post(self.url(&self.index_path(name, "/refresh")))).await
    }

    /// Merges the segments of each shard into one, without deleted documents. It may take minutes.
    pub async fn compact_index(&self, name: &str) -> Result<(), ClientError> {
        self.plain(self.http().post(self.url(&self.index_path(name, "/compact")))).await
    }

    /// Copies documents into another index, unless that has newer ones. Safe to repeat.
    pub async fn reindex(&self, index: &str, order: &Reindex) -> Result<Reindexed, ClientError> {
        self.json(self.http().post(self.url(&self.index_path(index, "/reindex"))).json(order)).await
    }

    /// Stores documents, a line of JSON each. Returns once they are durable. Safe to repeat if they have ids.
    pub async fn import_documents(&self, index: &str, lines: Vec<u8>) -> Result<Imported, ClientError> {
        let url = self.url(&self.index_path(index, "/docs"));
        let request = self.http().post(url).header(CONTENT_TYPE, "application/x-ndjson").body(lines);
        let answer = request
            .timeout(self.limit())
            .send()
            .await
            .map_err(|error| ClientError::transport(self.base_url(), self.limit(), &error))?;
        let status = answer.status();
        if status.is_success() {
            let answered: Answered = self.parsed(status.as_u16(), &self.whole(answer).await?)?;
            return Ok(Imported::Done { indexed: answered.indexed, refused: answered.refused });
        }
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        match problem_or_unexpected(self.base_url(), self.limit(), answer).await {
            ClientError::Problem(problem) if matches!(problem.status, 429 | 503) => {
                Ok(Imported::Later { why: problem.detail, after: after.map(Duration::from_secs) })
            }
            error => Err(error),
        }
    }

    /// A path below an index.
    pub(crate) fn index_path(&self, name: &str, below: &str) -> String {
        format!("/svc/{}/{}{below}", self.service(), utf8_percent_encode(name, PLAIN))
    }

    /// A request whose answer says no more than that it is done.
    async fn plain(&self, request: reqwest::RequestBuilder) -> Result<(), ClientError> {
        let answer = request
            .timeout(self.limit())
            .send()
            .await
            .map_err(|error| ClientError::transport(self.base_url(), self.limit(), &error))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(problem_or_unexpected(self.base_url(), self.limit(), answer).await)
    }
}

#[cfg(test)]
mod tests {
    use mesh::testing::Upstream;
    use types::{ErrorKind, Problem};

    use super::*;

    async fn answering(status: &str, headers: &str, media_type: &str, body: &str) -> (Upstream, Client) {
        let length = body.len();
        let server = Upstream::writing(format!(
            "HTTP/1.1 {status}\r\n{headers}content-type: {media_type}\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        ))
        .await;
        let client = Client::new(&server.url().to_string()).unwrap();
        let client = client.with_service("finder".parse().unwrap());
        (server, client)
    }

    #[tokio::test]
    async fn an_index_is_named_in_the_path_of_its_service() {
        let (server, client) = answering("201 Created", "", "application/json", r#"{"created":true}"#).await;
        let created = client.create_index("a b", &serde_json::json!({ "id": "n" })).await;
        assert_eq!(created.unwrap(), Created { created: true, extended: false });
        assert!(server.heads()[0].starts_with("PUT /svc/finder/a%20b HTTP/1.1\r\n"), "{:?}", server.heads());
        let listing = r#"{"indexes":[{"name":"p","uuid":"u","fields":3}]}"#;
        let (server, client) = answering("200 OK", "", "application/json", listing).await;
        let listed = client.indexes().await.unwrap();
        assert_eq!((listed[0].name.as_str(), listed[0].documents, listed[0].declared), ("p", None, false));
        assert!(server.heads()[0].starts_with("GET /svc/finder/ HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn documents_are_indexed_or_refused_each_on_its_own() {
        let body = r#"{"indexed":2,"refused":[{"line":3,"id":"x","status":400,"code":"bad-document","detail":"no"}]}"#;
        let (server, client) = answering("200 OK", "", "application/json", body).await;
        let refused = RefusedLine {
            line: 3,
            id: Some("x".to_owned()),
            status: 400,
            code: "bad-document".to_owned(),
            detail: "no".to_owned(),
        };
        let imported = client.import_documents("p", b"{}\n{}\n1\n".to_vec()).await.unwrap();
        assert_eq!(imported, Imported::Done { indexed: 2, refused: vec![refused] });
        assert!(server.heads()[0].starts_with("POST /svc/finder/p/docs HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_busy_member_says_when_to_send_the_documents_again() {
        let problem = Problem::new(ErrorKind::TooManyRequests, "behind", "too much is not indexed yet");
        let body = serde_json::to_string(&problem).unwrap();
        for (headers, after) in [("retry-after: 3\r\n", Some(Duration::from_secs(3))), ("", None)] {
            let (_server, client) = answering("429 Too Many", headers, Problem::MEDIA_TYPE, &body).await;
            let imported = client.import_documents("p", Vec::new()).await.unwrap();
            let why = "too much is not indexed yet".to_owned();
            assert_eq!(imported, Imported::Later { why, after });
        }
        let problem = Problem::new(ErrorKind::NotFound, "no-such-index", "there is no index `p`");
        let body = serde_json::to_string(&problem).unwrap();
        let (_server, client) = answering("404 Not Found", "", Problem::MEDIA_TYPE, &body).await;
        let error = client.import_documents("p", Vec::new()).await.unwrap_err();
        assert_eq!(error.problem(), Some(&problem));
    }
}
