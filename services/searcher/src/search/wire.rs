//! How bytes travel in JSON between members: as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

pub(super) fn decode<E: serde::de::Error>(text: &str) -> Result<Vec<u8>, E> {
    STANDARD_NO_PAD.decode(text).map_err(E::custom)
}

/// Counts by terms.
pub(super) mod terms {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};
    use tantivy::Term;

    pub(in crate::search) fn serialize<S: Serializer>(
        counts: &BTreeMap<Term, u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeMap};
        let mut map = serializer.serialize_map(Some(counts.len()))?;
        for (term, count) in counts {
            let bytes = postcard::to_allocvec(term).map_err(S::Error::custom)?;
            map.serialize_entry(&super::encode(&bytes), count)?;
        }
        map.end()
    }

    pub(in crate::search) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Term, u64>, D::Error> {
        use serde::de::Error;
        let counts: BTreeMap<String, u64> = Deserialize::deserialize(deserializer)?;
        let decoded = counts.into_iter().map(|(key, count)| {
            let bytes = super::decode::<D::Error>(&key)?;
            Ok((postcard::from_bytes(&bytes).map_err(D::Error::custom)?, count))
        });
        decoded.collect()
    }
}
