//! How a route chooses among its members or addresses, as an operator writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Checked;
use crate::affinity::{Affinity, Choice, CookieNameError};

/// How the destination of each request is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceSettings {
    /// The cheaper of two that are drawn at random.
    TwoChoices,
    /// In turn, in proportion to the weights.
    RoundRobin,
    /// The one with the fewest requests in flight in relation to its weight.
    LeastConnections,
}

/// What requests that should go to the same destination have in common.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AffinitySettings {
    /// The client's address.
    Client,
    /// The value of this cookie.
    Cookie(String),
    /// The value of this header.
    Header(String),
}

impl Checked<'_> {
    pub(super) fn choice(&mut self) -> Choice {
        let route = self.route;
        if route.balance.is_some() && route.affinity.is_some() {
            let message = "it excludes `affinity`, which says itself where requests go";
            self.wrong("balance", message, "leave one of them out");
        }
        if let Some(affinity) = &route.affinity {
            return self.affinity(affinity).map(Choice::Affinity).unwrap_or_default();
        }
        match route.balance {
            Some(BalanceSettings::TwoChoices) => Choice::TwoChoices,
            Some(BalanceSettings::RoundRobin) => Choice::RoundRobin(mesh::Turns::default()),
            Some(BalanceSettings::LeastConnections) => Choice::LeastConnections,
            None if route.backends.is_some() => Choice::Shares,
            None => Choice::TwoChoices,
        }
    }

    fn affinity(&mut self, affinity: &AffinitySettings) -> Option<Affinity> {
        match affinity {
            AffinitySettings::Client => Some(Affinity::Client),
            AffinitySettings::Header(name) => self.header_name("affinity/header", name).map(Affinity::Header),
            AffinitySettings::Cookie(name) => match name.parse() {
                Ok(name) => Some(Affinity::Cookie(name)),
                Err(error) => {
                    let error: CookieNameError = error;
                    self.wrong("affinity/cookie", error.to_string(), "write it like `shop-affinity`");
                    None
                }
            },
        }
    }
}
