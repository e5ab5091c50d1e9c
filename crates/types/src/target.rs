//! Which member of a service type may answer.

use std::hash::Hasher;
use std::num::NonZeroU32;

use siphasher::sip::SipHasher13;

use crate::id::ShardId;

/// Which member may answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any ready member of the type.
    Any,
    /// A ready member that has this shard.
    Shard(ShardId),
    /// A ready member that has the shard of this key.
    Key(KeyHash),
    /// A ready member that has this shard or a replica of it.
    ShardReplica(ShardId),
    /// A ready member that has the shard of this key or a replica of it.
    KeyReplica(KeyHash),
}

/// The hash that decides which shard a key belongs to: SipHash-1-3 with a zero key (Aumasson and Bernstein, 2012).
///
/// The function must never change: it determines where a cluster's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The hash of a key's bytes.
    pub fn of(key: &[u8]) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(key);
        Self(hasher.finish())
    }

    /// The hash of the text between the first `{` of a key and the next `}`, so that keys can be kept together in one
    /// shard; of the whole key if that text is empty or missing, as with the hash tags of Redis Cluster.
    pub fn of_tagged(key: &[u8]) -> Self {
        let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
            let rest = &key[open + 1..];
            let close = rest.iter().position(|byte| *byte == b'}')?;
            Some(&rest[..close])
        });
        Self::of(tag.filter(|tag| !tag.is_empty()).unwrap_or(key))
    }

    /// How much the key prefers a node of this name and weight, in weighted rendezvous hashing (Thaler and Ravishankar, 1998;
    /// Schindelhauer and Schomaker, 2005): of several nodes it prefers the one with the highest value. A node that comes or
    /// goes changes the preferred node of its own share of the keys only.
    pub fn preference(self, node: Self, weight: f64) -> f64 {
        // The finalizer of MurmurHash3: both hashes are random already, so one round makes their combination so.
        let mut mixed = self.0 ^ node.0.rotate_left(32);
        for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
            mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
        }
        mixed ^= mixed >> 33;
        #[expect(clippy::cast_precision_loss, reason = "53 bits of the hash are kept")]
        let unit = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -weight / unit.ln()
    }

    /// The key's shard, of `shards`: the hash, scaled down to that number.
    pub fn shard(self, shards: NonZeroU32) -> ShardId {
        let scaled = (u128::from(self.0) * u128::from(shards.get())) >> 64;
        let number = u32::try_from(scaled).expect("the high half of a product is below its other factor");
        ShardId::try_from(number.min(ShardId::MAX)).expect("it is at most the highest")
    }
}

/// Whether a role of a type has a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharding {
    /// No shard: every member is like the others.
    None,
    /// A shard that several members may have at once.
    Unowned,
    /// A shard that one member at a time owns, by a claim on the store.
    Owned,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_moves_to_another_shard() {
        let four = NonZeroU32::new(4).unwrap();
        let shards = ["", "a", "greeting", "user/1", "user/2"].map(|key| KeyHash::of(key.as_bytes()));
        assert_eq!(shards.map(|hash| hash.shard(four).as_u32()), [3, 1, 3, 3, 1], "pinned");
    }

    #[test]
    fn the_text_in_the_first_braces_decides() {
        for (key, decides) in [
            ("{user/1}/name", "user/1"),
            ("a{user/1}b{c}", "user/1"),
            ("a{}b{c}", "a{}b{c}"),
            ("a{b", "a{b"),
            ("a}b{c", "a}b{c"),
            ("a}{b}", "b"),
            ("{{a}}", "{a"),
            ("plain", "plain"),
        ] {
            assert_eq!(KeyHash::of_tagged(key.as_bytes()), KeyHash::of(decides.as_bytes()), "{key}");
        }
    }

    #[test]
    fn keys_spread_evenly() {
        let shards = NonZeroU32::new(5).unwrap();
        let mut counts = [0_u32; 5];
        for number in 0..10_000 {
            let shard = KeyHash::of(format!("key-{number}").as_bytes()).shard(shards);
            counts[shard.as_u32() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (1_850..2_150).contains(count)), "{counts:?}");
    }
}
