//! Reads the server name out of a TLS client's hello (RFC 8446, section 4.1.2, and RFC 6066, section 3), without
//! terminating TLS.
//!
//! [`parse`] is pure, and looks at what has arrived so far: a hello may come in any number of TCP pieces, and may be spread
//! over several records. Everything that was read is kept, for the backend.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The longest hello, with the headers of its records.
pub(crate) const LONGEST: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// The longest plaintext of a record.
const RECORD: usize = 1 << 14;

/// A connection does not begin with a hello that can be used. Close it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("the connection does not begin with a TLS hello")]
    NotTls,
    #[error("the TLS hello is malformed")]
    Malformed,
    #[error("the TLS hello is longer than {LONGEST} bytes")]
    TooLong,
    #[error("no whole TLS hello arrived in time")]
    TooSlow,
    #[error("the connection ended within the TLS hello")]
    Broken(#[from] io::Error),
}

/// What has arrived with a hello.
#[derive(Debug)]
pub(crate) struct Hello {
    /// The server name, as the client wrote it; `None` if it names none.
    pub(crate) name: Option<String>,
    /// Everything that was read.
    pub(crate) bytes: Vec<u8>,
}

/// Reads until the hello is whole.
pub(crate) async fn read(stream: &mut TcpStream, deadline: Instant) -> Result<Hello, HelloError> {
    let reading = async {
        let mut bytes = Vec::with_capacity(2048);
        loop {
            let room = u64::try_from(LONGEST - bytes.len()).unwrap_or(0);
            if AsyncReadExt::take(&mut *stream, room).read_buf(&mut bytes).await? == 0 {
                let is_full = bytes.len() >= LONGEST;
                let ended = || io::Error::from(io::ErrorKind::UnexpectedEof).into();
                return Err(if is_full { HelloError::TooLong } else { ended() });
            }
            if let Parsed::Whole(name) = parse(&bytes)? {
                return Ok(Hello { name, bytes });
            }
        }
    };
    timeout_at(deadline, reading).await.unwrap_or(Err(HelloError::TooSlow))
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// More is needed.
    Partial,
    /// The hello with its server name, if it has one.
    Whole(Option<String>),
}

/// What the first bytes of a connection are.
fn parse(bytes: &[u8]) -> Result<Parsed, HelloError> {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    while let [kind, header @ ..] = rest {
        // The record's version is not looked at beyond its first byte: it has been 3.0 to 3.4.
        if *kind != HANDSHAKE || header.first().is_some_and(|major| *major != 3) {
            return Err(HelloError::NotTls);
        }
        let [_, _, high, low, record @ ..] = header else { return Ok(Parsed::Partial) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len == 0 || len > RECORD {
            return Err(HelloError::Malformed);
        }
        handshake.extend_from_slice(&record[..len.min(record.len())]);
        if let [kind, ..] = handshake[..]
            && kind != CLIENT_HELLO
        {
            return Err(HelloError::Malformed);
        }
        if let [_, a, b, c, body @ ..] = &handshake[..] {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if len > LONGEST {
                return Err(HelloError::TooLong);
            }
            if let Some(body) = body.get(..len) {
                return server_name(body).ok_or(HelloError::Malformed).map(Parsed::Whole);
            }
        }
        let Some(next) = record.get(len..) else { return Ok(Parsed::Partial) };
        rest = next;
    }
    Ok(Parsed::Partial)
}

/// The server name in the body of a hello; `None` if the body is malformed.
fn server_name(body: &[u8]) -> Option<Option<String>> {
    let mut body = Reader(body);
    // The version and the random number.
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    if body.0.is_empty() {
        // A hello without extensions, from before TLS 1.2.
        return Some(None);
    }
    let mut extensions = Reader(body.vector16()?);
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let extension = extensions.vector16()?;
        if kind == SERVER_NAME {
            if found.is_some() {
                return None;
            }
            found = Some(host_name(extension)?);
        }
    }
    Some(found)
}

/// The one host name in the extension. Names of other kinds never existed.
fn host_name(extension: &[u8]) -> Option<String> {
    let mut extension = Reader(extension);
    let mut list = Reader(extension.vector16()?);
    let kind = list.take(1)?[0];
    let name = list.vector16()?;
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let is_name = kind == HOST_NAME && (1..=255).contains(&name.len()) && name.iter().all(is_name_byte);
    let is_all = list.0.is_empty() && extension.0.is_empty();
    (is_name && is_all).then(|| String::from_utf8(name.to_vec()).ok()).flatten()
}

/// Takes parts off the front, if there are enough bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(part)
    }

    fn number16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector whose length is one byte.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(len.into())
    }

    /// A vector whose length is two bytes.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = self.number16()?;
        self.take(len.into())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector16(inner: &[u8]) -> Vec<u8> {
        [&u16::try_from(inner.len()).unwrap().to_be_bytes()[..], inner].concat()
    }

    fn extension(kind: u16, inner: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), vector16(inner)].concat()
    }

    fn sni(name: &str) -> Vec<u8> {
        extension(SERVER_NAME, &vector16(&[vec![HOST_NAME], vector16(name.as_bytes())].concat()))
    }

    /// A handshake message with these extensions.
    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([&[32][..], &[9; 32]].concat());
        body.extend(vector16(&[0x13, 1, 0x13, 2]));
        body.extend([1, 0]);
        body.extend(vector16(extensions));
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO][..], &len[1..], &body].concat()
    }

    /// A message in records of this size.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |piece: &[u8]| [&[HANDSHAKE, 3, 1][..], &vector16(piece)].concat();
        message.chunks(size).flat_map(record).collect()
    }

    /// A hello for a name, as large as those with a post-quantum key share.
    pub(crate) fn hello(name: Option<&str>, record: usize) -> Vec<u8> {
        let key_share = extension(51, &[5; 1250]);
        let name = name.map(sni).unwrap_or_default();
        records(&message(&[key_share, name, extension(0x0a0a, b"")].concat()), record)
    }

    #[test]
    fn the_name_is_found_in_any_records_once_the_hello_is_whole() {
        for (name, record) in
            [(Some("shop.example"), RECORD), (Some("A"), 1), (Some("a_b.example"), 100), (None, 700)]
        {
            let bytes = hello(name, record);
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]).unwrap(), Parsed::Partial, "cut at {cut}");
            }
            let wanted = Parsed::Whole(name.map(ToOwned::to_owned));
            assert_eq!(parse(&bytes).unwrap(), wanted);
            // Early data may follow at once.
            assert_eq!(parse(&[&bytes[..], &[23, 3, 3, 0, 1, 0]].concat()).unwrap(), wanted);
        }
    }

    #[test]
    fn the_name_is_found_wherever_a_record_ends() {
        let message = message(&[sni("shop.example"), extension(51, &[5; 300])].concat());
        for cut in 1..message.len() {
            let bytes = [records(&message[..cut], RECORD), records(&message[cut..], RECORD)].concat();
            assert_eq!(parse(&bytes).unwrap(), Parsed::Whole(Some("shop.example".to_owned())), "{cut}");
        }
    }

    #[tokio::test]
    async fn a_hello_that_does_not_end_is_not_awaited_for_long() {
        use tokio::io::AsyncWriteExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        let (mut client, (mut stream, _)) = (client.unwrap(), accepted.unwrap());
        let whole = hello(Some("shop.example"), RECORD);
        client.write_all(&whole[..whole.len() - 1]).await.unwrap();
        let until = Instant::now() + std::time::Duration::from_millis(50);
        let error = read(&mut stream, until).await.unwrap_err();
        assert!(matches!(error, HelloError::TooSlow), "{error}");
    }

    #[test]
    fn what_is_no_hello_is_refused_as_early_as_possible() {
        for (bytes, wanted) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), "does not begin"),
            (vec![0x80, 0x2e, 1], "does not begin"),
            (vec![HANDSHAKE, 2], "does not begin"),
            (vec![HANDSHAKE, 3, 1, 0, 0], "malformed"),
            (vec![HANDSHAKE, 3, 1, 0x40, 1], "malformed"),
            (vec![HANDSHAKE, 3, 1, 0, 4, 2], "malformed"),
            (vec![HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 0xff, 0xff, 0xff], "longer than"),
            (records(&message(&sni("")), RECORD), "malformed"),
            (records(&message(&sni("a b")), RECORD), "malformed"),
            (records(&message(&[sni("a"), sni("b")].concat()), RECORD), "malformed"),
            (records(&message(&extension(SERVER_NAME, &[0, 9, 0])), RECORD), "malformed"),
            (records(&[CLIENT_HELLO, 0, 0, 2, 3, 3], RECORD), "malformed"),
        ] {
            let error = parse(&bytes).unwrap_err().to_string();
            assert!(error.contains(wanted), "{bytes:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_damaged_hello_never_panics(at in 0..1400_usize, byte in any::<u8>(), cut in 0..1500_usize) {
            let mut bytes = hello(Some("shop.example"), 400);
            let len = bytes.len();
            bytes[at % len] = byte;
            let _ = parse(&bytes);
            let _ = parse(&bytes[..cut.min(len)]);
        }

        #[test]
        fn garbage_in_the_body_never_panics(extensions in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&records(&message(&extensions), RECORD));
            let _ = server_name(&extensions);
        }
    }
}
