//! Which addresses are loopback, and which a node may listen on. Pure.

use std::net::IpAddr;

/// Whether only this machine can reach an address.
pub fn is_loopback(address: impl Into<IpAddr>) -> bool {
    address.into().is_loopback()
}

/// Which addresses may be listened on: nothing is encrypted or authenticated yet, so only the operator can allow a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loopback {
    /// Only addresses that no other machine can reach.
    #[default]
    Required,
    /// All.
    NotRequired,
}

impl Loopback {
    /// The rule with `--insecure`, and without.
    pub fn unless_insecure(insecure: bool) -> Self {
        if insecure { Self::NotRequired } else { Self::Required }
    }

    /// Whether the address may be listened on.
    pub fn allows(self, address: impl Into<IpAddr>) -> bool {
        self == Self::NotRequired || is_loopback(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_must_be_allowed() {
        for (address, is_ours) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("10.0.0.7", false),
            ("::ffff:127.0.0.1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(is_loopback(address), is_ours, "{address}");
            assert_eq!(Loopback::unless_insecure(false).allows(address), is_ours, "{address}");
            assert!(Loopback::unless_insecure(true).allows(address), "{address}");
        }
    }
}
