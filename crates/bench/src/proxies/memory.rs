//! The memory of idle connections.
//!
//! Each measurement has a fresh proxy, because memory that one kind of connections has freed would serve the next. The first
//! connections are not counted: they come with what a proxy allocates once.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use crate::progress::progress;
use crate::proxies::Proxy;
use crate::proxies::idle::{self, Kind};
use crate::proxies::load::count;
use crate::proxies::measured::{Better, Compared, Group};
use crate::proxies::options::Setting;
use crate::proxies::start::{Ours, Running};
use crate::report::Report;
use crate::rows::Target;
use crate::stats::Summary;

/// The pause before the memory is read, for buffers that are returned late.
const REST: Duration = Duration::from_secs(2);

/// How many connections are opened.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Not counted.
    first: usize,
    counted: usize,
}

/// Measures all proxies with each kind of connection. `most` is the target of our HTTP/1 connections, in KB.
pub(crate) async fn measure(
    setting: &Setting,
    kinds: &[Kind],
    ours: Ours,
    most: Option<f64>,
    report: &mut Report,
) -> anyhow::Result<Vec<Compared>> {
    let sizes = if setting.is_quick {
        Sizes { first: 100, counted: 300 }
    } else {
        Sizes { first: 500, counted: 2_000 }
    };
    let mut all = Vec::new();
    for kind in kinds {
        let mut samples: BTreeMap<Proxy, Vec<f64>> = BTreeMap::new();
        for round in 1..=setting.rounds {
            for proxy in setting.chosen(ours.layer) {
                let name = format!("{proxy}-{kind:?}-{round}");
                let each = fresh(setting, proxy, ours, &name, *kind, sizes).await;
                match each {
                    Ok(each) => {
                        progress(&format!(
                            "round {round}, idle {kind} connections, {proxy}: {each:.2} KB each"
                        ));
                        samples.entry(proxy).or_default().push(each);
                    }
                    Err(error) => {
                        report
                            .notes
                            .push(format!("idle {kind} connections, {proxy}, round {round}: {error:#}"));
                    }
                }
            }
        }
        let values = samples.iter().filter_map(|(proxy, each)| Some((*proxy, Summary::of(each)?)));
        let limit = most.filter(|_| *kind == Kind::Http1).map(Target::Max);
        all.push(Compared {
            what: format!("memory of an idle connection, {kind}"),
            clients: sizes.counted,
            unit: "KB",
            better: Better::Less,
            values: values.collect(),
            comparisons: vec![(Group::Peers, limit), (Group::Others, Some(Target::Ratio(1.0)))],
        });
    }
    Ok(all)
}

/// Starts a proxy, measures it, and ends it.
async fn fresh(
    setting: &Setting,
    proxy: Proxy,
    ours: Ours,
    name: &str,
    kind: Kind,
    sizes: Sizes,
) -> anyhow::Result<f64> {
    let running = setting.start(proxy, ours, name).await?;
    let each = one(&running, kind, sizes).await;
    running.end().await?;
    each
}

/// What each connection costs, in KB of 1,000 bytes.
async fn one(running: &Running, kind: Kind, sizes: Sizes) -> anyhow::Result<f64> {
    let _first = idle::open_many(&running.addresses, kind, sizes.first).await?;
    sleep(REST).await;
    let before = running.anonymous_kib()?;
    let _counted = idle::open_many(&running.addresses, kind, sizes.counted).await?;
    sleep(REST).await;
    let more = running.anonymous_kib()? - before;
    Ok(more * 1.024 / count(u64::try_from(sizes.counted)?))
}
