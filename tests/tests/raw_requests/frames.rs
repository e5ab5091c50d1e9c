//! HTTP/2 frames by hand (RFC 9113, section 4), with fields in HPACK's plainest form (RFC 7541).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often a client that sends drop by drop does so.
pub(crate) const EVERY: Duration = Duration::from_millis(500);
/// How long an exchange may take.
const LONG: Duration = Duration::from_secs(60);

/// A frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or a GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        code.map_or(u32::MAX, u32::from_be_bytes)
    }
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("tests send small frames");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field that is not indexed.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(
            u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("tests have short fields"),
        );
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A block with these fields.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The block of `GET path`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)])
}

/// The first frames of a connection, with these settings.
pub(crate) fn preface(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()
}

/// Sends bytes on a new connection and reads frames until it ends or `is_enough` of them have come.
pub(crate) async fn exchange(
    address: SocketAddr,
    bytes: Vec<u8>,
    is_enough: impl Fn(&[Frame]) -> bool,
) -> anyhow::Result<Vec<Frame>> {
    exchange_within(LONG, address, bytes, is_enough).await
}

/// The same with another limit.
pub(crate) async fn exchange_within(
    limit: Duration,
    address: SocketAddr,
    bytes: Vec<u8>,
    is_enough: impl Fn(&[Frame]) -> bool,
) -> anyhow::Result<Vec<Frame>> {
    exchange_dripping(limit, address, bytes, &[], is_enough).await
}

/// The same, with more bytes at intervals.
pub(crate) async fn exchange_dripping(
    limit: Duration,
    address: SocketAddr,
    bytes: Vec<u8>,
    drop: &[u8],
    is_enough: impl Fn(&[Frame]) -> bool,
) -> anyhow::Result<Vec<Frame>> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let (acks, mut unsent) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    let mut frames = Vec::new();
    // The other end may close before it has read everything.
    let writing = async {
        let _ = writer.write_all(&bytes).await;
        loop {
            let _ = match timeout(EVERY, unsent.recv()).await {
                Ok(Some(ack)) => writer.write_all(&ack).await,
                Ok(None) => std::future::pending().await,
                Err(_elapsed) => writer.write_all(drop).await,
            };
        }
    };
    let reading = async {
        while !is_enough(&frames) {
            let mut head = [0; 9];
            if reader.read_exact(&mut head).await.is_err() {
                return;
            }
            let length = usize::from(head[0]) * 65_536 + usize::from(head[1]) * 256 + usize::from(head[2]);
            let mut payload = vec![0; length];
            if reader.read_exact(&mut payload).await.is_err() {
                return;
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if head[3] == PING && head[4] & ACK == 0 {
                // A client that does not answer is taken to be gone.
                let _ = acks.send(frame(PING, ACK, 0, &payload));
            }
            frames.push(Frame { kind: head[3], flags: head[4], stream, payload });
        }
    };
    let both = async {
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
    };
    let in_time = timeout(limit, both).await.is_ok();
    anyhow::ensure!(in_time, "the connection is still open after {limit:?}; it sent {:?}", frames.last());
    Ok(frames)
}

/// Whether a stream has ended, well or badly, or the connection has.
pub(crate) fn has_ended(frames: &[Frame], stream: u32) -> bool {
    frames.last().is_some_and(|last| {
        last.kind == GOAWAY
            || last.stream == stream
                && (last.kind == RST_STREAM || last.flags & END_STREAM > 0 && last.kind <= HEADERS)
    })
}
