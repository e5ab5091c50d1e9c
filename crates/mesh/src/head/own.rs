//! The values of a head that is sent over HTTP/2, freed from the buffer in which they were received.
//!
//! HPACK remembers values as long as the connection lives (RFC 7541, section 2.3.2), and each one of a forwarded message over
//! HTTP/1 is a part of the buffer in which that was received: it would keep all of the buffer.

use http::{HeaderMap, HeaderValue};

/// Copies the values of a head.
pub fn own_values(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        if let Ok(mut own) = HeaderValue::from_bytes(value.as_bytes()) {
            own.set_sensitive(value.is_sensitive());
            *value = own;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_values_of_a_head_do_not_keep_the_buffer_in_which_they_were_received() {
        let buffer = Bytes::from(vec![b'x'; 8192]);
        let mut headers = HeaderMap::new();
        for (name, range) in [("server", 0..5), ("etag", 9..20)] {
            headers.insert(name, HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap());
        }
        headers.get_mut("etag").unwrap().set_sensitive(true);
        own_values(&mut headers);
        assert!(buffer.is_unique());
        assert_eq!(
            (&headers["server"], &headers["etag"]),
            (&HeaderValue::from_static("xxxxx"), &HeaderValue::from_static("xxxxxxxxxxx"))
        );
        assert!(headers["etag"].is_sensitive() && !headers["server"].is_sensitive());
    }
}
