//! Tantivy in a process of its own, behind a bare HTTP handler: what a user would write instead of a searcher.
//!
//! It runs Tantivy's own version of each query on the thread that has the request, with the same schema and merge policy,
//! and writes the same answer as a searcher does.

mod engine;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::extract::{Query as Parameters, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::ports;
use crate::process::Process;
use crate::search::queries::Kind;
use engine::Engine;

/// The time limit of the start.
const LIMIT: Duration = Duration::from_secs(30);

/// The arguments of the process that serves Tantivy.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address to serve
    #[arg(long)]
    listen: SocketAddr,
}

/// An order to index a file.
#[derive(Debug, Serialize, Deserialize)]
struct Load {
    file: PathBuf,
    /// A folder that does not exist yet.
    folder: PathBuf,
}

/// What indexing took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) documents: usize,
    /// Until the last document was found by searches.
    pub(crate) seconds: f64,
}

/// An order to write documents again, and to merge all segments.
#[derive(Debug, Serialize, Deserialize)]
struct Merge {
    lines: String,
}

/// A search in the query string.
#[derive(Debug, Deserialize)]
struct Search {
    kind: Kind,
    words: String,
}

type Shared = Arc<Mutex<Option<Arc<Engine>>>>;

/// Serves until the process is killed.
pub(crate) async fn serve(args: &Args) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/empty", get(|| async { StatusCode::OK }))
        .route("/search", get(search))
        .route("/load", post(load))
        .route("/merge", post(merge))
        .with_state(Shared::default());
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    Ok(axum::serve(listener, router).await?)
}

fn engine(shared: &Shared) -> anyhow::Result<Arc<Engine>> {
    let engine = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
    engine.context("nothing was indexed yet")
}

fn failed(error: &anyhow::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response()
}

async fn search(State(shared): State<Shared>, Parameters(search): Parameters<Search>) -> Response {
    let found = engine(&shared).and_then(|engine| {
        let words: Vec<&str> = search.words.split(',').collect();
        engine.search(search.kind, &words)
    });
    match found {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => failed(&error),
    }
}

async fn load(State(shared): State<Shared>, Json(load): Json<Load>) -> Response {
    // The former index is closed first: its writer has a heap of its own.
    *shared.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let loading = spawn_blocking(move || {
        let engine = Engine::create(&load.folder)?;
        let loaded = engine.load(&load.file)?;
        Ok::<_, anyhow::Error>((engine, loaded))
    });
    match loading.await.map_err(anyhow::Error::from).and_then(|loaded| loaded) {
        Ok((engine, loaded)) => {
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(engine));
            Json(loaded).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn merge(State(shared): State<Shared>, Json(merge): Json<Merge>) -> Response {
    let merging = spawn_blocking(move || engine(&shared)?.merge(&merge.lines));
    match merging.await.map_err(anyhow::Error::from).and_then(|merged| merged) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => failed(&error),
    }
}

/// The process that serves Tantivy. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Tantivy {
    process: Process,
    pub(crate) addr: SocketAddr,
    http: reqwest::Client,
}

impl Tantivy {
    /// Starts it, and waits until it answers.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        const PAUSE: Duration = Duration::from_millis(10);
        let addr = ports::free()?;
        let mut command = Command::new(std::env::current_exe().context("finding this binary")?);
        command.args(["search-peer", "--listen", &addr.to_string()]);
        let process = Process::spawn(command, folder.join("tantivy.log"))?;
        let tantivy = Self { process, addr, http: client::plain_http().build()? };
        let began = Instant::now();
        loop {
            let answer = tantivy.http.get(format!("http://{addr}/empty")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(tantivy);
            }
            if began.elapsed() > LIMIT {
                bail!("tantivy's handler is not ready; its log ends with\n{}", tantivy.process.log_tail());
            }
            sleep(PAUSE).await;
        }
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.process.id()
    }

    /// Indexes a file in a new folder, and searches that from now on.
    pub(crate) async fn load(&self, file: &Path, folder: &Path) -> anyhow::Result<Loaded> {
        self.post("load", &Load { file: file.to_owned(), folder: folder.to_owned() }).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let answer = self.http.post(format!("http://{}/{path}", self.addr)).json(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("tantivy, {path}: {status} {text}");
        }
        // An order without an answer has an empty body.
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).with_context(|| format!("tantivy, {path}: {text}"))
    }
}

/// Writes these lines again and merges all segments, as a request to Tantivy's handler at this address.
pub(crate) async fn merge_at(http: &reqwest::Client, addr: SocketAddr, lines: String) -> anyhow::Result<()> {
    let answer = http.post(format!("http://{addr}/merge")).json(&Merge { lines }).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        bail!("tantivy, merge: {status} {text}");
    }
    Ok(())
}
