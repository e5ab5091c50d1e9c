//! IP addresses and networks as they are indexed. Pure.
//!
//! Tantivy's JSON fields have no addresses, so an address is indexed as text: the 16 bytes of its IPv6 form in hexadecimal
//! digits, an IPv4 address as `::ffff:a.b.c.d`. That text is in the order of addresses, so ranges, networks, sorting and counts
//! work as those of keywords, and a field of addresses can be declared at any time.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An IP address. IPv4 and its form in IPv6 are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Address(Ipv6Addr);

/// An address, or all addresses that begin with some bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) first: Address,
    pub(crate) last: Address,
}

impl Address {
    /// Reads `10.0.0.1` or `2001:db8::1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(Self(match text.parse().ok()? {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        }))
    }

    /// The text by which it is indexed.
    pub(crate) fn to_term(self) -> String {
        format!("{:032x}", self.0.to_bits())
    }

    /// Reads what [`to_term`](Self::to_term) wrote.
    pub(crate) fn of_term(term: &str) -> Option<Self> {
        let is_own = term.len() == 32 && term.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_own
            .then(|| u128::from_str_radix(term, 16).ok().map(|bits| Self(Ipv6Addr::from_bits(bits))))
            .flatten()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_ipv4_mapped() {
            Some(address) => address.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

impl Network {
    /// Reads an address, or a network such as `10.0.0.0/8`. Bits after the prefix do not count.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Some((address, prefix)) = text.split_once('/') else {
            let address = Address::parse(text)?;
            return Some(Self { first: address, last: address });
        };
        let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u32 = prefix.parse().ok().filter(|_| is_number)?;
        let (most, before) = if address.contains(':') { (128, 0) } else { (32, 96) };
        let prefix = (prefix <= most).then_some(before + prefix)?;
        let bits = Address::parse(address)?.0.to_bits();
        let rest = u128::MAX.checked_shr(prefix).unwrap_or(0);
        let of = |bits| Address(Ipv6Addr::from_bits(bits));
        Some(Self { first: of(bits & !rest), last: of(bits | rest) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_with_its_bits() {
        for (text, first, last) in [
            ("10.1.2.3", "10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/8", "10.0.0.0", "10.255.255.255"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::1/128", "::1", "::1"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::ffff:10.0.0.0/104", "10.0.0.0", "10.255.255.255"),
        ] {
            let Network { first: a, last: b } = Network::parse(text).unwrap();
            assert_eq!((a.to_string().as_str(), b.to_string().as_str()), (first, last), "{text}");
        }
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/8/8",
            "10.0.0.0/99999999999",
            "x",
            "fe80::1%eth0",
            "010.0.0.1",
            "10.0.0.256",
            " 10.0.0.1",
            "1",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn terms_are_in_the_order_of_addresses_and_are_read_back(one: u128, other: u128, v4: u32) {
            let (one, other) = (Address(Ipv6Addr::from_bits(one)), Address(Ipv6Addr::from_bits(other)));
            prop_assert_eq!(one.cmp(&other), one.to_term().cmp(&other.to_term()));
            let v4 = Address::parse(&std::net::Ipv4Addr::from_bits(v4).to_string()).unwrap();
            for address in [one, v4] {
                prop_assert_eq!(Address::of_term(&address.to_term()), Some(address));
                prop_assert_eq!(Address::parse(&address.to_string()), Some(address));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}", hex in "[0-9a-f]{30,33}") {
            let _ = (Network::parse(&text), Address::of_term(&text));
            prop_assert_eq!(Address::of_term(&hex).is_some(), hex.len() == 32);
        }
    }
}
