//! What searches find when nothing changes any more: every document once, by a search for everything and by its token, before
//! and after a compaction.
//!
//! Whether these are the right documents is decided with the history of each key, to which the inventory adds a read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::torture::history::{Action, Key, Outcome, Record, show_value};
use crate::torture::protocol::Reply;
use crate::torture::protocol::documents::{self, Hit, Page};
use crate::torture::workload::{Client, Shared, success};
use crate::wire::Answer;

/// The number of values in one search.
const VALUES: usize = 100;
/// The number of attempts to see the same before and after: a request whose client gave up may still be carried out.
const ATTEMPTS: usize = 5;

/// What searches found at the end.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) documents: usize,
    /// The values for which it searched.
    pub(crate) values: usize,
    pub(crate) flaws: Vec<Flaw>,
}

/// A contradiction between searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// The document, if it is about one.
    pub(crate) key: Option<Key>,
    pub(crate) what: String,
}

/// What searches found while nothing changed.
#[derive(Debug, Default)]
struct Found {
    /// The number of all documents, as each page stated it.
    totals: BTreeSet<usize>,
    all: Vec<Hit>,
    /// The hits of the searches for values.
    by_value: Vec<Hit>,
}

/// Searches for everything, as it is and after a compaction. Fails if a search is not answered.
pub(crate) async fn take(shared: &Arc<Shared>) -> anyhow::Result<Inventory> {
    let mut client = Client::last(shared);
    let values = shared.history.values();
    let mut flaws = look(&mut client, shared, &values).await?.1;
    client.insist(documents::compact, success).await.context("the index could not be compacted")?;
    let (found, later) = look(&mut client, shared, &values).await?;
    flaws.extend(
        later.into_iter().map(|flaw| Flaw { what: format!("after a compaction, {}", flaw.what), ..flaw }),
    );
    Ok(Inventory { documents: found.all.len(), values: values.len(), flaws })
}

async fn look(
    client: &mut Client,
    shared: &Shared,
    values: &BTreeMap<u64, Key>,
) -> anyhow::Result<(Found, Vec<Flaw>)> {
    let start = shared.history.now();
    let mut found = all(client).await?;
    for _ in 0..ATTEMPTS {
        let mut by_value = Vec::new();
        for values in values.keys().copied().collect::<Vec<_>>().chunks(VALUES) {
            let search = |base: &str| documents::any_of(base, values);
            let hits = client.insist(search, |answer| documents::read_hits(answer).map_err(show)).await;
            by_value.extend(hits.context("values could not be searched for")?);
        }
        let before = std::mem::replace(&mut found, all(client).await?);
        found.by_value = by_value;
        if before.all == found.all {
            break;
        }
    }
    let end = shared.history.now();
    let present: BTreeMap<_, _> = found.all.iter().map(|hit| (hit.key, hit)).collect();
    for key in shared.history.keys() {
        let outcome = present.get(&key).map_or(Outcome::Missing, |hit| {
            let Hit { value, version, .. } = **hit;
            Outcome::Found { value, version }
        });
        shared.history.note(key, Record { client: Client::LAST, action: Action::Scan, outcome, start, end });
    }
    let flaws = check(&found, values);
    Ok((found, flaws))
}

/// All documents, page by page.
async fn all(client: &mut Client) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut after = None;
    loop {
        let search = |base: &str| documents::all(base, after.as_ref());
        let read = |answer: &Answer| documents::read_page(answer).map_err(show);
        let page = client.insist(search, read).await.context("all documents could not be searched for")?;
        let Page { total, hits, next } = page;
        found.totals.insert(total);
        found.all.extend(hits);
        ensure!(next.is_none() || next != after, "the search for all documents does not end");
        after = next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

fn show(reply: Reply) -> String {
    match reply {
        Reply::Outcome(outcome) => outcome.to_string(),
        Reply::Nothing => "it was not processed".to_owned(),
        Reply::Open(why) | Reply::Unexpected(why) | Reply::Wrong(why) => why,
    }
}

/// Compares the searches with each other and with the values that clients put.
fn check(found: &Found, values: &BTreeMap<u64, Key>) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut flaw = |key, what| flaws.push(Flaw { key, what });
    let all: BTreeMap<_, _> = found.all.iter().map(|hit| (hit.key, hit)).collect();
    if let Some(key) = documents::twice(&found.all) {
        flaw(Some(key), format!("a search for everything found {key} twice"));
    }
    if found.totals != BTreeSet::from([all.len()]) {
        flaw(None, format!("{} documents, but a total of {:?}", all.len(), found.totals));
    }
    for (key, hit) in &all {
        if values.get(&hit.value) != Some(key) {
            flaw(Some(*key), format!("{key} has the value {}, which no client put", show_value(hit.value)));
        }
    }
    let mut by_value = BTreeMap::new();
    for hit in &found.by_value {
        let key = hit.key;
        if by_value.insert(key, hit).is_some() {
            flaw(Some(key), format!("a search for tokens found {key} twice"));
        }
        if all.get(&key) != Some(&hit) {
            let value = show_value(hit.value);
            flaw(
                Some(key),
                format!("the search for its token found {key} with {value}, the one for everything did not"),
            );
        }
    }
    for (key, hit) in &all {
        if !by_value.contains_key(key) {
            let value = show_value(hit.value);
            flaw(
                Some(*key),
                format!("the search for everything found {key} with {value}, the one for its token did not"),
            );
        }
    }
    flaws
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::history::value;

    fn hit(number: u32, put: u32) -> Hit {
        Hit { key: key(number), value: value(1, put), version: u64::from(put) }
    }

    fn key(number: u32) -> Key {
        Key { lane: 0, group: 0, number }
    }

    fn flaws(all: &[Hit], total: usize, by_value: &[Hit]) -> Vec<String> {
        // Key 1 had two values, key 2 one.
        let values = BTreeMap::from([(value(1, 1), key(1)), (value(1, 2), key(1)), (value(1, 3), key(2))]);
        let found = Found { totals: [total].into(), all: all.to_vec(), by_value: by_value.to_vec() };
        check(&found, &values).into_iter().map(|flaw| flaw.what).collect()
    }

    #[test]
    fn every_document_is_found_once_by_each_search() {
        let (one, two) = (hit(1, 2), hit(2, 3));
        assert!(flaws(&[one, two], 2, &[two, one]).is_empty());
        assert!(flaws(&[], 0, &[]).is_empty());
        for (all, total, by_value, why) in [
            (vec![one, two], 3, vec![one, two], "a total of {3}"),
            (vec![one, two], 2, vec![one], "the one for its token did not"),
            (vec![one], 1, vec![one, two], "the one for everything did not"),
            (vec![one, two], 2, vec![one, two, one], "a search for tokens found t-0-0-1 twice"),
            (vec![one, two, one], 2, vec![one, two], "a search for everything found t-0-0-1 twice"),
            // The version before lives on beside the present one.
            (vec![one, two], 2, vec![one, two, hit(1, 1)], "found t-0-0-1 with 1.1"),
            (vec![hit(2, 2)], 1, vec![hit(2, 2)], "t-0-0-2 has the value 1.2, which no client put"),
        ] {
            let flaws = flaws(&all, total, &by_value);
            assert!(flaws.iter().any(|flaw| flaw.contains(why)), "{why}: {flaws:?}");
        }
    }
}
