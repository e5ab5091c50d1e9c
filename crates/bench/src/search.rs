//! Measures a searcher: searches, indexing, visibility, takeover and memory.
//!
//! Beside it run, on the same documents and in the same run: Tantivy in a process of its own behind a bare HTTP handler, and
//! SQLite's FTS5 and DuckDB's full-text extension in a Python process, where they are installed.

mod cluster;
mod corpus;
mod drive;
mod indexing;
mod matrix;
mod million;
pub(crate) mod peer;
mod queries;
mod rows;
mod searches;
mod sql;
mod takeover;
mod vectors;
mod visible;

use std::time::Duration;

use clap::ValueEnum;

use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use corpus::{Corpus, Source};
use queries::Kind;

/// The name of the index.
pub(crate) const INDEX: &str = "docs";
/// The number of connections that store documents.
const WRITERS: usize = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',', default_values = ["searches", "vectors", "indexing", "visibility", "takeover", "million"])]
    parts: Vec<Part>,
    /// Documents to search
    #[arg(long, value_name = "CORPUS", value_enum, value_delimiter = ',', default_values = ["generated", "packages"])]
    corpora: Vec<Source>,
    /// Kinds of queries
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',', default_values = ["term", "or", "and", "phrase", "prefix", "fuzzy", "facet"])]
    kinds: Vec<Kind>,
    /// Numbers of concurrent clients
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 64],
        value_parser = clap::value_parser!(u16).range(1..=200))]
    clients: Vec<u16>,
    /// Number of documents
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    documents: u32,
    /// Seconds for each kind of query in a round
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,
    /// Number of rounds of searches and of indexing
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Kills of an owner, for each of the two cases
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    kills: u32,
    /// Small sizes, to see that everything works; overrides the numbers
    #[arg(long)]
    quick: bool,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Rates, latencies, CPU and memory of searches
    Searches,
    /// Latencies of exact searches for the nearest vectors
    Vectors,
    /// The rate of durable indexing
    Indexing,
    /// When written documents are found, at 1,000 documents a second
    Visibility,
    /// The first search after an owner was killed
    Takeover,
    /// The memory with a million documents
    Million,
}

/// The sizes of a run.
#[derive(Debug, Clone)]
struct Sizes {
    documents: usize,
    clients: Vec<usize>,
    /// How long each kind of query is measured.
    time: Duration,
    rounds: u32,
    kills: u32,
    /// The number of operations that a takeover replays.
    replayed: usize,
    /// How long 1,000 documents a second are written.
    steady: Duration,
    /// The number of documents of 200 bytes.
    many: usize,
    /// The number of documents with vectors.
    vectors: usize,
}

impl Args {
    fn sizes(&self) -> anyhow::Result<Sizes> {
        let mut sizes = Sizes {
            documents: usize::try_from(self.documents)?,
            clients: self.clients.iter().copied().map(usize::from).collect(),
            time: Duration::try_from_secs_f64(self.seconds)?,
            rounds: self.rounds,
            kills: self.kills,
            replayed: 10_000,
            steady: Duration::from_secs(30),
            many: 1_000_000,
            vectors: 60_000,
        };
        if self.quick {
            sizes = Sizes {
                documents: 2_000,
                clients: vec![1, 8],
                time: Duration::from_millis(200),
                rounds: 1,
                kills: 1,
                replayed: 500,
                steady: Duration::from_secs(3),
                many: 5_000,
                vectors: 2_000,
            };
        }
        Ok(sizes)
    }
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let (binaries, sizes) = (Binaries::find()?, args.sizes()?);
    let has = |part| args.parts.contains(&part);
    if has(Part::Searches) {
        for source in &args.corpora {
            match Corpus::of(*source, sizes.documents).await {
                Ok(corpus) => Box::pin(searches::run(&binaries, &sizes, &args.kinds, corpus, report)).await?,
                Err(error) => report.notes.push(format!("the corpus `{source}` was not measured: {error:#}")),
            }
        }
    }
    if has(Part::Vectors) {
        progress("vectors");
        Box::pin(vectors::run(&binaries, &sizes, report)).await?;
    }
    if has(Part::Indexing) {
        progress("indexing");
        Box::pin(indexing::rates(&binaries, &sizes, report)).await?;
    }
    if has(Part::Visibility) {
        progress("visibility");
        Box::pin(indexing::visibility(&binaries, &sizes, report)).await?;
    }
    if has(Part::Takeover) {
        Box::pin(takeover::run(&binaries, &sizes, report)).await?;
    }
    if has(Part::Million) {
        progress("many documents");
        Box::pin(million::run(&binaries, &sizes, report)).await?;
    }
    report.notes.push("N is the number of clients, of connections that write, or of nodes".to_owned());
    Ok(())
}
