//! The service under test: how its requests are built, and what its answers mean.

use http::Request;

use crate::torture::cluster::Endpoint;
use crate::torture::history::{Action, Key, Outcome};
use crate::torture::protocol::{Body, Call, Reads, Reply, documents, keys};
use crate::wire::Answer;

/// A service whose owners of shards are disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Service {
    /// Keys and values, whose changes are watched
    #[default]
    Storage,
    /// Documents, which are read by id and found by searches
    Searcher,
}

impl Service {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Searcher => "searcher",
        }
    }

    /// The prefix of the service's paths on a server.
    pub(crate) fn base(self, endpoint: Endpoint) -> &'static str {
        match (self, endpoint) {
            (Self::Storage, Endpoint::Gateway(_)) => "/storage",
            (Self::Storage, Endpoint::Member(_)) => "/svc/storage",
            (Self::Searcher, Endpoint::Gateway(_)) => "/searcher",
            (Self::Searcher, Endpoint::Member(_)) => "/svc/searcher",
        }
    }

    /// The request for one key.
    pub(crate) fn request(self, base: &str, call: &Call) -> http::Result<Request<Body>> {
        match self {
            Self::Storage => keys::request(base, call),
            Self::Searcher => documents::request(base, call),
        }
    }

    /// The meaning of an answer for one key.
    pub(crate) fn reply(self, call: &Call, answer: &Answer) -> Reply {
        match self {
            Self::Storage => keys::reply(call.action, answer),
            Self::Searcher => documents::reply(call, answer),
        }
    }

    /// The request for all keys of a group.
    pub(crate) fn listing(
        self,
        base: &str,
        lane: u32,
        group: u32,
        reads: Reads,
    ) -> http::Result<Request<Body>> {
        match self {
            Self::Storage => keys::listing(base, lane, group, reads),
            Self::Searcher => documents::listing(base, lane, group, reads),
        }
    }

    /// The outcomes for the keys in a listing.
    pub(crate) fn listed(self, action: Action, answer: &Answer) -> Result<Vec<(Key, Outcome)>, Reply> {
        match self {
            Self::Storage => keys::listed(action, answer),
            Self::Searcher => documents::listed(action, answer),
        }
    }

    /// The epoch of the claim under which a value was written, if the answer states it.
    pub(crate) fn term(self, answer: &Answer) -> Option<u64> {
        match self {
            Self::Storage => None,
            Self::Searcher => documents::term(answer),
        }
    }
}
