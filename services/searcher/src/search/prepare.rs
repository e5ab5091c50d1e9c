//! The first round of a search, and the plan for the second.

use std::collections::BTreeSet;

use tantivy::Term;
use tantivy::schema::{Field, FieldType};

use super::nearest::Neighbors;
use super::statistics::Statistics;
use super::{Plan, Prepared, SearchError, SearchRequest};
use crate::query::{self, Compiled, Expansions, Suggestions};
use crate::schema::IndexSchema;
use crate::shard::Snapshot;

/// The first round at a shard. Blocking.
pub(crate) fn prepare(snapshot: &Snapshot, request: &SearchRequest) -> Result<Prepared, SearchError> {
    Ok(prepare_and_compile(snapshot, request)?.0)
}

/// The same, with `q` compiled for this shard alone.
pub(super) fn prepare_and_compile(
    snapshot: &Snapshot,
    request: &SearchRequest,
) -> Result<(Prepared, Compiled), SearchError> {
    let (schema, searcher) = (&snapshot.index.schema, &snapshot.searcher);
    let expansions = request
        .queries()
        .map(|ast| query::expand(ast, schema, searcher))
        .collect::<Result<Vec<Expansions>, _>>()?;
    // Filters score nothing: only `q` needs statistics.
    let expanded = &expansions[0];
    let compiled = query::compile(&request.ast, schema, expanded)?;
    let scored = &compiled.scored;
    // Another shard may expand the query to terms of fields of which this one has none.
    let fields = if expanded.leaves.is_empty() { BTreeSet::new() } else { text_fields(schema) };
    let mut statistics = Statistics::of(searcher, scored, &fields)?;
    for leaf in expanded.leaves.keys() {
        for (term, docs) in expanded.terms(*leaf) {
            statistics.insert(&term, docs);
        }
    }
    let similar =
        match request.did_you_mean && request.q.is_some() && may_find_nothing(request, scored, &statistics) {
            true => Some(query::did_you_mean(&request.ast, schema, searcher)?),
            false => None,
        };
    Ok((Prepared { expansions, statistics, similar, nearest: Vec::new() }, compiled))
}

/// Whether a word is missing so that there may be no hits at all; else the walk over the dictionary would be in vain.
fn may_find_nothing(request: &SearchRequest, scored: &BTreeSet<Term>, statistics: &Statistics) -> bool {
    let is_known = |term: &Term| statistics.docs_with(term).is_some_and(|docs| docs > 0);
    if request.all_words || scored.len() <= 1 {
        !scored.iter().all(is_known)
    } else {
        !scored.iter().any(is_known)
    }
}

/// The plan for all shards.
pub(crate) fn combine(prepared: impl IntoIterator<Item = Prepared>) -> Plan {
    let mut statistics = Statistics::default();
    let mut similar = Some(Vec::new());
    let mut expansions: Vec<Vec<Expansions>> = Vec::new();
    let mut nearest: Vec<Neighbors> = Vec::new();
    let mut shards = 0;
    for shard in prepared {
        shards += 1;
        statistics.add(shard.statistics);
        similar = similar.zip(shard.similar).map(|(all, of_shard)| [all, vec![of_shard]].concat());
        expansions.resize_with(expansions.len().max(shard.expansions.len()), Vec::new);
        Neighbors::add_all(&mut nearest, shard.nearest);
        for (all, of_shard) in expansions.iter_mut().zip(shard.expansions) {
            all.push(of_shard);
        }
    }
    let expansions = expansions.into_iter().map(Expansions::union).collect();
    // A shard that says nothing has all words, so that they are right.
    let similar = similar.filter(|all| !all.is_empty()).map(Suggestions::union);
    Plan { shards, expansions, statistics, similar, nearest }
}

fn text_fields(schema: &IndexSchema) -> BTreeSet<Field> {
    let is_text = |kind: &FieldType| match kind {
        FieldType::Str(options) => options.get_indexing_options().is_some(),
        FieldType::JsonObject(options) => options.get_text_indexing_options().is_some(),
        _ => false,
    };
    let fields = schema.schema.fields().filter(|(_, entry)| is_text(entry.field_type()));
    fields.map(|(field, _)| field).collect()
}
