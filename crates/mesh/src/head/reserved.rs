//! The header fields that settings can't set or remove, each with the reason.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, TRAILER};

use super::names::{is_alias, is_hop_by_hop, is_managed, is_own};

/// Why the settings of a proxy may not change a header field; `None` if they may.
pub fn reserved(name: &HeaderName) -> Option<&'static str> {
    if *name == HOST {
        Some("it follows from the address that the request is sent to")
    } else if *name == CONTENT_LENGTH || *name == TRAILER {
        Some("it describes the body, which stays as it is")
    } else if is_hop_by_hop(name) || *name == EXPECT {
        Some("it is about one connection only")
    } else if is_own(name) {
        Some("only Coterie's own nodes may send it")
    } else if is_managed(name) || name.as_str() == "cdn-loop" {
        Some("the gateway writes it itself")
    } else if is_alias(name) {
        Some("a server may mistake it for a field that the gateway writes")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_frame_route_or_identify_a_message_are_reserved() {
        for name in [
            "host",
            "content-length",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "expect",
            "proxy-authorization",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-anything",
            "x-real-ip",
            "x-request-id",
            "coterie-epoch",
            "cdn-loop",
            "x_forwarded_for",
        ] {
            assert!(reserved(&name.parse().unwrap()).is_some(), "{name}");
        }
        for name in
            ["authorization", "cookie", "content-type", "cache-control", "x-from", "x_custom", "origin"]
        {
            assert_eq!(reserved(&name.parse().unwrap()), None, "{name}");
        }
    }
}
