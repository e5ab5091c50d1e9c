//! What leaves were expanded to, and the union over shards.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tantivy::Term;
use tantivy::schema::{Field, Type};

/// The most terms that a leaf is expanded to.
pub(super) const MAX_TERMS: usize = 50;
/// The most terms that a shard reports for a leaf. They are more than are used, so that a term that is frequent over all shards
/// is not missed, or counted too low, because a shard has 50 others that are more frequent there.
const MAX_SHARD_TERMS: usize = 250;

/// What prefixes, wildcards and misspelled words were expanded to. The serialized form travels between members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Expansions {
    /// By the number of the leaf in the tree: the terms (the number of the field, then Tantivy's bytes), with the number of
    /// documents that have them. After [`union`](Self::union) at most 50 each: the most frequent ones, and of equally frequent
    /// ones the first in the order of bytes.
    #[serde(with = "leaves")]
    pub(crate) leaves: BTreeMap<u32, BTreeMap<Vec<u8>, u64>>,
    /// The leaves that match more terms than are listed.
    #[serde(default)]
    pub(crate) incomplete: BTreeSet<u32>,
}

impl Expansions {
    /// The union of the expansions of several shards: the most frequent terms of all. The order of the shards does not matter.
    pub(crate) fn union(all: impl IntoIterator<Item = Self>) -> Self {
        let mut union = Self::default();
        for shard in all {
            union.incomplete.extend(shard.incomplete);
            for (leaf, terms) in shard.leaves {
                let sums = union.leaves.entry(leaf).or_default();
                for (term, documents) in terms {
                    let sum = sums.entry(term).or_default();
                    *sum = sum.saturating_add(documents);
                }
            }
        }
        union.cut(MAX_TERMS);
        union
    }

    /// Adds the terms of a leaf at one shard.
    pub(super) fn add(&mut self, leaf: u32, terms: BTreeMap<Vec<u8>, u64>, incomplete: bool) {
        if incomplete {
            self.incomplete.insert(leaf);
        }
        self.leaves.insert(leaf, terms);
        self.cut(MAX_SHARD_TERMS);
    }

    /// The terms of a leaf with their numbers of documents.
    pub(crate) fn terms(&self, leaf: u32) -> Vec<(Term, u64)> {
        let terms = self.leaves.get(&leaf).into_iter().flatten();
        terms.filter_map(|(bytes, documents)| Some((decode(bytes)?, *documents))).collect()
    }

    fn cut(&mut self, limit: usize) {
        for (leaf, terms) in &mut self.leaves {
            if terms.len() <= limit {
                continue;
            }
            self.incomplete.insert(*leaf);
            let mut ordered: Vec<_> = std::mem::take(terms).into_iter().collect();
            // Stable: equally frequent terms stay in the order of their bytes.
            ordered.sort_by_key(|(_, documents)| std::cmp::Reverse(*documents));
            ordered.truncate(limit);
            terms.extend(ordered);
        }
    }
}

/// A term as bytes that are the same at all shards: the number of the field, the code of its type and the bytes of the
/// dictionary.
pub(super) fn encode(field: Field, kind: Type, key: &[u8]) -> Vec<u8> {
    let mut bytes = field.field_id().to_be_bytes().to_vec();
    bytes.push(kind.to_code());
    bytes.extend_from_slice(key);
    bytes
}

/// `None` if another member sent something that is no term.
fn decode(bytes: &[u8]) -> Option<Term> {
    let (field, rest) = bytes.split_first_chunk::<4>()?;
    let (code, key) = rest.split_first()?;
    let field = Field::from_field_id(u32::from_be_bytes(*field));
    let mut term = Term::from_field_bytes(field, &[]);
    term.clear_with_type(Type::from_code(*code)?);
    term.append_bytes(key);
    Some(term)
}

/// Leaves as lists of pairs with the terms in Base64: bytes can't be keys in JSON.
mod leaves {
    use std::collections::BTreeMap;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Leaves = BTreeMap<u32, BTreeMap<Vec<u8>, u64>>;

    pub(super) fn serialize<S: Serializer>(leaves: &Leaves, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = |terms: &BTreeMap<Vec<u8>, u64>| -> Vec<(String, u64)> {
            terms.iter().map(|(term, documents)| (STANDARD_NO_PAD.encode(term), *documents)).collect()
        };
        let leaves: Vec<_> = leaves.iter().map(|(leaf, terms)| (*leaf, pairs(terms))).collect();
        leaves.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Leaves, D::Error> {
        let mut leaves = Leaves::new();
        for (leaf, pairs) in Vec::<(u32, Vec<(String, u64)>)>::deserialize(deserializer)? {
            let terms = leaves.entry(leaf).or_default();
            for (term, documents) in pairs {
                terms.insert(STANDARD_NO_PAD.decode(term).map_err(D::Error::custom)?, documents);
            }
        }
        Ok(leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansions(terms: &[(&str, u64)]) -> Expansions {
        let mut expansions = Expansions::default();
        let terms = terms.iter().map(|(term, documents)| (term.as_bytes().to_vec(), *documents));
        expansions.add(3, terms.collect(), false);
        expansions
    }

    #[test]
    fn documents_are_summed_over_shards_in_any_order() {
        let (a, b) = (expansions(&[("x", 2), ("y", 1)]), expansions(&[("y", 5), ("z", 1)]));
        let union = Expansions::union([a.clone(), b.clone()]);
        assert_eq!(union, expansions(&[("x", 2), ("y", 6), ("z", 1)]));
        assert_eq!(Expansions::union([b, a]), union);
    }

    #[test]
    fn the_fifty_most_frequent_terms_of_all_shards_stay() {
        let names: Vec<_> = (0..100).map(|number| format!("t{number:03}")).collect();
        let shard = |rare: usize| {
            let terms = names
                .iter()
                .enumerate()
                .map(|(index, name)| (name.as_str(), 1 + u64::from(index % 10 == rare)));
            expansions(&terms.collect::<Vec<_>>())
        };
        let union = Expansions::union([shard(1), shard(2)]);
        let terms = &union.leaves[&3];
        assert_eq!(terms.len(), 50);
        assert_eq!(terms.values().filter(|documents| **documents == 3).count(), 20);
        assert!(terms.contains_key(b"t000".as_slice()) && terms.contains_key(b"t092".as_slice()));
        assert!(!terms.contains_key(b"t099".as_slice()));
        assert!(union.incomplete.contains(&3));
    }

    #[test]
    fn a_term_is_decoded_as_it_was() {
        let field = Field::from_field_id(7);
        let mut json = Term::from_field_json_path(field, "a.b", true);
        json.append_type_and_str("x");
        for term in [Term::from_field_text(field, "w\u{f6}rd"), json] {
            let bytes = encode(field, term.typ(), term.serialized_value_bytes());
            assert_eq!(decode(&bytes), Some(term));
        }
        assert_eq!(decode(b""), None);
        assert_eq!(decode(b"\0\0\0\x01\xffx"), None);
    }

    #[test]
    fn expansions_travel_as_json_and_postcard() {
        let union = expansions(&[("x", 2)]);
        let json = serde_json::to_string(&union).unwrap();
        assert_eq!(serde_json::from_str::<Expansions>(&json).unwrap(), union);
        let bytes = postcard::to_stdvec(&union).unwrap();
        assert_eq!(postcard::from_bytes::<Expansions>(&bytes).unwrap(), union);
    }
}
