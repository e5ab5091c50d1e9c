//! Where a request may go: to the members of a service, or to one of several addresses.

use types::{ServiceName, Target};

use crate::balance::Balance;
use crate::base_url::BaseUrl;
use crate::error::MeshError;
use crate::upstream::RoutePool;

/// The possible destinations of a request.
pub(super) enum Goal<'a> {
    Service {
        service: &'a ServiceName,
        target: Target,
        /// Whether it may be sent again although it may have been acted on.
        may_repeat: bool,
        balance: Balance<'a>,
    },
    Addresses {
        urls: &'a [BaseUrl],
        may_repeat: bool,
        /// The weight of each; empty if they weigh the same.
        weights: &'a [u32],
        balance: Balance<'a>,
        pool: Option<&'a RoutePool>,
    },
}

impl Goal<'_> {
    pub(super) fn unknown(&self) -> MeshError {
        match *self {
            Self::Service { service, .. } => MeshError::UnknownService { service: service.clone() },
            Self::Addresses { urls: [], .. } => MeshError::NoAddress,
            Self::Addresses { urls, .. } => {
                let why = |url: &BaseUrl| Some(format!("{} {}", url.authority(), url.state().why_down()?));
                MeshError::AllDown { why: Some(urls.iter().filter_map(why).collect::<Vec<_>>().join(", ")) }
            }
        }
    }

    /// Whether the request may be acted on twice.
    pub(super) fn may_repeat(&self) -> bool {
        match *self {
            Self::Service { may_repeat, .. } | Self::Addresses { may_repeat, .. } => may_repeat,
        }
    }

    /// Whether a node of the cluster answers.
    pub(super) fn is_member(&self) -> bool {
        matches!(self, Self::Service { .. })
    }
}
