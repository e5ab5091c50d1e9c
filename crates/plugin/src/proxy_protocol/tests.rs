use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

const LOCALHOST: &str = "127.0.0.0/8";

/// Both ends of a connection, and the address of the first.
async fn connection() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(connecting, listener.accept());
    let (server, peer) = accepted.unwrap();
    let client = client.unwrap();
    client.set_nodelay(true).unwrap();
    (client, server, peer)
}

/// What is received of these bytes, and what is left behind the header.
async fn received(bytes: &[u8]) -> (Result<Option<Proxied>, ProxyHeaderError>, Vec<u8>) {
    let (mut client, mut server, peer) = connection().await;
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let outcome = receive(&mut server, peer, &[LOCALHOST.parse().unwrap()]).await;
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    (outcome, rest)
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE_V2, &[command, family], &len, rest].concat()
}

fn proxied(source: &str, destination: &str) -> Proxied {
    Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

const ADDRESSES: &[u8] = &[10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80];

#[tokio::test]
async fn what_is_sent_is_received_and_the_payload_stays() {
    for (source, destination) in
        [("10.0.0.1:4660", "10.0.0.2:80"), ("[2001:db8::1]:1", "[2001:db8::2]:65535")]
    {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let sent = proxied(source, destination);
            let bytes = [header(version, Some(sent)), b"PROXY payload\r\n".to_vec()].concat();
            let (outcome, rest) = received(&bytes).await;
            assert_eq!(outcome.unwrap(), Some(sent), "{version:?}");
            assert_eq!(rest, b"PROXY payload\r\n", "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_header_may_arrive_in_pieces_of_one_byte() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let sent = proxied("10.0.0.1:4660", "10.0.0.2:80");
        let bytes = [header(version, Some(sent)), b"payload".to_vec()].concat();
        let (mut client, mut server, peer) = connection().await;
        let sending = async {
            for byte in bytes {
                client.write_u8(byte).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let receiving = async {
            let found = receive(&mut server, peer, &[LOCALHOST.parse().unwrap()]).await.unwrap();
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            (found, rest)
        };
        let ((), (found, rest)) = tokio::join!(sending, receiving);
        assert_eq!((found, rest), (Some(sent), b"payload".to_vec()), "{version:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_speaks_for_itself_names_no_client() {
    let unix = [0_u8; 216];
    let unknown_tlv = [0xe0, 0, 3, b'a', b'b', b'c', 0x04, 0, 0];
    for bytes in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n".to_vec(),
        header(ProxyVersion::V1, None),
        header(ProxyVersion::V2, None),
        // LOCAL, with addresses and TLVs, and with a family that does not exist.
        v2(0x20, 0x11, &[ADDRESSES, &unknown_tlv].concat()),
        v2(0x20, 0x77, b"anything"),
        // UNSPEC with TLVs, a Unix socket, UDP.
        v2(0x21, 0x00, &unknown_tlv),
        v2(0x21, 0x31, &unix),
        v2(0x21, 0x12, ADDRESSES),
    ] {
        let (outcome, rest) = received(&[bytes.as_slice(), b"rest"].concat()).await;
        assert_eq!(outcome.unwrap(), None, "{bytes:?}");
        assert_eq!(rest, b"rest", "{bytes:?}");
    }
}

#[tokio::test]
async fn unknown_fields_are_skipped_exactly() {
    let largest = vec![7_u8; LONGEST_V2 - FIXED_V2 - ADDRESSES.len() - 3];
    let len = u16::try_from(largest.len()).unwrap().to_be_bytes();
    for fields in [vec![], vec![0xee, 0, 0], [&[0xee][..], &len, &largest].concat(), vec![0xee, 0xff, 0xff]] {
        let bytes = v2(0x21, 0x11, &[ADDRESSES, fields.as_slice()].concat());
        let (outcome, rest) = received(&[bytes.as_slice(), b"rest"].concat()).await;
        assert_eq!(outcome.unwrap(), Some(proxied("10.0.0.1:4660", "10.0.0.2:80")));
        assert_eq!(rest, b"rest", "{} bytes of fields", fields.len());
    }
}

#[tokio::test]
async fn what_is_no_header_is_refused() {
    let long_line = format!("PROXY TCP4 {} \r\n", "1".repeat(100));
    for (bytes, wanted) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "does not begin"),
        (b"\x16\x03\x01".to_vec(), "does not begin"),
        (b"PROXYxTCP4 10.0.0.1 10.0.0.2 1 2\r\n".to_vec(), "does not begin"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n".to_vec(), "malformed"),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), "malformed"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n".to_vec(), "malformed"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n".repeat(9), "longer than 107"),
        (long_line.into_bytes(), "longer than 107"),
        (v2(0x21, 0x11, &ADDRESSES[..11]), "malformed"),
        (v2(0x22, 0x11, ADDRESSES), "malformed"),
        (v2(0x31, 0x11, ADDRESSES), "malformed"),
        (v2(0x21, 0x41, ADDRESSES), "malformed"),
        (v2(0x21, 0x11, &[0; 5000]), "longer than 4096"),
        (b"PROXY TCP4 10.0.".to_vec(), "ended within"),
        (v2(0x21, 0x11, ADDRESSES)[..20].to_vec(), "ended within"),
        (Vec::new(), "ended within"),
    ] {
        let (mut client, mut server, peer) = connection().await;
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let error = receive(&mut server, peer, &[LOCALHOST.parse().unwrap()]).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{bytes:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_does_not_come_is_not_awaited_for_long() {
    for begin in ["", "PROXY TCP4 10"] {
        let (mut client, mut server, peer) = connection().await;
        client.write_all(begin.as_bytes()).await.unwrap();
        let error = receive(&mut server, peer, &[LOCALHOST.parse().unwrap()]).await.unwrap_err();
        assert!(matches!(error, ProxyHeaderError::TooSlow(_)), "{error}");
    }
}

#[tokio::test]
async fn only_trusted_peers_name_their_clients() {
    let (mut client, mut server, peer) = connection().await;
    client.write_all(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n").await.unwrap();
    let error = receive(&mut server, peer, &["10.0.0.0/8".parse().unwrap()]).await.unwrap_err();
    assert!(matches!(error, ProxyHeaderError::NotTrusted(_)), "{error}");
    assert_eq!(server.read_u8().await.unwrap(), b'P', "nothing was taken");
    let networks = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    for (address, trusted) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("2001:db8::7", true),
        ("11.0.0.1", false),
        ("::1", false),
    ] {
        assert_eq!(is_trusted(address.parse().unwrap(), &networks), trusted, "{address}");
    }
}

#[test]
fn a_header_has_one_family_of_addresses() {
    for (source, destination, line) in [
        ("[::ffff:10.0.0.1]:1", "10.0.0.2:2", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"),
        ("[2001:db8::1]:1", "10.0.0.2:2", "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.2 1 2\r\n"),
        ("10.0.0.1:1", "[::1]:2", "PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n"),
    ] {
        let proxied = proxied(source, destination);
        let bytes = header(ProxyVersion::V1, Some(proxied));
        assert_eq!(String::from_utf8(bytes).unwrap(), line);
        let binary = header(ProxyVersion::V2, Some(proxied));
        assert!(matches!(parse(&binary), Ok(Parsed::Whole { len, proxied: Some(_) }) if len == binary.len()));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        begin in prop_oneof![Just(&b""[..]), Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 "[..]), Just(SIGNATURE_V2)],
        rest in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let _ = parse(&[begin, &rest].concat());
    }
}
