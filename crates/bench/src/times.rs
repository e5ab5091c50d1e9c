//! The times of role changes, as the caller sees them and as the receipts report them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use client::Client;
use serde_json::{Value, json};
use tokio::time::Instant;
use types::api::{Receipt, Wait};
use types::{Phase, Role};

use crate::progress::progress;
use crate::stats::{Summary, millis};

/// The time limit of a role change, which may wait ten seconds for requests in flight.
pub(crate) const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// The number of refused changes after which the run fails.
const REFUSALS: usize = 5;

/// The times of role changes.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// From the command to its receipt, by the caller's clock.
    pub(crate) wall: Vec<Duration>,
    /// The times in the receipts, in milliseconds.
    pub(crate) receipts: Vec<f64>,
    steps: BTreeMap<String, Vec<f64>>,
    /// The number of changes that some member had not confirmed.
    pub(crate) unconfirmed: usize,
    pub(crate) refused: Vec<String>,
}

impl Times {
    /// Gives a node a role; with `take`, a shard that another node owns.
    pub(crate) async fn change(
        &mut self,
        client: &Client,
        node: &str,
        role: &str,
        take: bool,
    ) -> anyhow::Result<()> {
        let role: Role = role.parse()?;
        let began = Instant::now();
        let answer = client.set_service(&node.parse()?, &role, Wait::All, take, None).await;
        let took = began.elapsed();
        match answer {
            Ok(receipt) if receipt.changed && receipt.state.phase == Phase::Ready => {
                self.note(took, &receipt);
            }
            Ok(receipt) => bail!("{node} did not become {role}: {receipt:?}"),
            Err(error) => {
                let refusal = format!("{node} did not become {role}, after {:.0} ms: {error}", millis(took));
                progress(&refusal);
                self.refused.push(refusal);
                if self.refused.len() > REFUSALS {
                    bail!("too many changes were refused: {:#?}", self.refused);
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, took: Duration, receipt: &Receipt) {
        self.wall.push(took);
        self.receipts.push(receipt.took_ms);
        for step in &receipt.steps {
            self.steps.entry(step.name.clone()).or_default().push(step.ms);
        }
        if !receipt.seen.missing.is_empty() {
            self.unconfirmed += 1;
            progress(&format!(
                "{} by {}/{}: {:?}",
                receipt.to, receipt.seen.by, receipt.seen.of, receipt.seen.missing
            ));
        }
    }

    /// Each step with its p50 and p99, in milliseconds.
    pub(crate) fn steps_in_words(&self) -> String {
        let each = self.steps.iter().filter_map(|(name, ms)| {
            let summary = Summary::of(ms)?;
            Some(format!("{name} {:.1} / {:.1}", summary.p50, summary.p99))
        });
        each.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn details(&self, what: &str) -> Value {
        let steps: BTreeMap<_, _> = self.steps.iter().map(|(name, ms)| (name, Summary::of(ms))).collect();
        json!({
            "what": what,
            "receipts_ms": Summary::of(&self.receipts),
            "steps_ms": steps,
            "unconfirmed": self.unconfirmed,
            "refused": self.refused,
        })
    }
}
