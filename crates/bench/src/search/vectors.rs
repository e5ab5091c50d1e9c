//! Measures exact searches for the nearest vectors, at the owner of the only shard, by one client.

use std::fmt::Write as _;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::ours::Binaries;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::search::Sizes;
use crate::search::cluster::{Cluster, Writer, post_to};
use crate::search::visible::{Since, Written};
use crate::stats::{Summary, millis};

const INDEX: &str = "vectors";
/// The numbers of a vector.
const DIMS: usize = 384;
/// The number of lines in the body of a request.
const BATCH: usize = 500;
/// One of so many documents matches the filter.
const GROUPS: usize = 10;
/// Searches before the measured ones.
const WARM_UP: usize = 5;
const SEED: u64 = 38;
/// The target for the median.
const MOST_MS: f64 = 30.0;

pub(crate) async fn run(binaries: &Binaries, sizes: &Sizes, report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::start(binaries.clone(), 1, json!({})).await?;
    let definition = json!({
        "id": "id",
        "fields": {
            "id": { "type": "keyword" },
            "group": { "type": "i64" },
            "v": { "type": "vector", "dims": DIMS, "similarity": "cosine" },
        },
    });
    cluster.create_as(INDEX, &definition).await?;
    let mut random = StdRng::seed_from_u64(SEED);
    let mut vector = || -> Vec<f32> { (0..DIMS).map(|_| random.random::<f32>() - 0.5).collect() };
    let (mut writer, written) = (Writer::open(cluster.addr, INDEX).await?, Written::new(Since::Acknowledged));
    let numbers: Vec<usize> = (0..sizes.vectors).collect();
    for batch in numbers.chunks(BATCH) {
        let mut lines = String::new();
        for number in batch {
            let document = json!({ "id": number.to_string(), "group": number % GROUPS, "v": vector() });
            writeln!(lines, "{document}")?;
        }
        writer.store(Bytes::from(lines), &written).await?;
    }
    cluster.refresh(INDEX).await?;
    let http = client::plain_http().build()?;
    post_to(&http, cluster.addr, &format!("{INDEX}/compact"), Bytes::new()).await?;

    let path = format!("{INDEX}/search");
    for (what, filter) in [("", Value::Null), (", a tenth of them filtered", json!("group:3"))] {
        let (mut took, mut began) = (Vec::new(), Instant::now());
        for number in 0.. {
            if number == WARM_UP {
                began = Instant::now();
            }
            let knn = json!({ "field": "v", "vector": vector(), "k": 10, "filter": filter });
            let body = json!({ "knn": knn, "source": false }).to_string();
            let sent = Instant::now();
            post_to(&http, cluster.addr, &path, Bytes::from(body)).await?;
            if number >= WARM_UP {
                took.push(millis(sent.elapsed()));
                if began.elapsed() > sizes.time * 2 {
                    break;
                }
            }
        }
        let name = format!("exact kNN, {} vectors of {DIMS} numbers{what}", sizes.vectors);
        let missing =
            Peer::Missing("Tantivy, FTS5 and DuckDB's full-text extension have no vectors".to_owned());
        let row = Row::new(name, 1, "ms").ours(Summary::of(&took)).peer(missing);
        report.rows.push(row.target(Target::P50(MOST_MS)));
    }
    cluster.nodes.end().await;
    Ok(())
}
