//! Active checks: whether a backend accepts connections, answers a request, or says by gRPC that it serves.
//!
//! [`Checked`] is pure: results come in. The first result decides at once; after that several in a row are needed.
//! [`CheckSettings`] are what an operator writes, and [`run`] checks all backends of a pool at their intervals.

mod grpc;
mod rounds;
mod settings;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use self::rounds::run;
pub use self::settings::{CheckSettings, GrpcCheck, HttpCheck, TcpCheck};
use crate::proxy_protocol::{ProxyVersion, header};

/// The longest status line of an answer to a check.
const STATUS_LINE: usize = 1024;

/// How backends are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checking {
    /// What a check does.
    pub probe: Probe,
    /// The time between two checks of a backend.
    pub every: Duration,
    /// How many successes in a row bring a backend up.
    pub rise: u32,
    /// How many failures in a row take it down.
    pub fall: u32,
    /// How long one check may take.
    pub timeout: Duration,
    /// The header with which connections begin, if backends want one.
    pub send: Option<ProxyVersion>,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Connects.
    Tcp,
    /// Sends a GET request.
    Http {
        /// The path with its query.
        path: String,
        /// The `Host` header; the backend's own address without it.
        host: Option<String>,
        /// The right status codes; without any, 200 to 399.
        status: Vec<u16>,
    },
    /// Calls `grpc.health.v1.Health/Check`, by HTTP/2 without TLS.
    Grpc {
        /// The service that is asked for; empty for the server as a whole.
        service: String,
    },
}

/// What the checks of one backend have found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// `None` before the first result.
    is_up: Option<bool>,
    /// How many results in a row contradict that.
    row: u32,
    /// The last failure, if the last check failed.
    why: Option<String>,
}

impl Checked {
    /// Whether it may be used. A backend that was not checked yet may.
    pub fn is_up(&self) -> bool {
        self.is_up != Some(false)
    }

    /// Why the last check failed, if it did.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Takes a result. Returns whether the backend went up or down by it.
    pub fn observe(&mut self, result: Result<(), String>, checking: &Checking) -> bool {
        let succeeded = result.is_ok();
        self.why = result.err();
        let needed = match self.is_up {
            None => 1,
            Some(is_up) if is_up == succeeded => {
                self.row = 0;
                return false;
            }
            Some(true) => checking.fall,
            Some(false) => checking.rise,
        };
        self.row += 1;
        if self.row < needed {
            return false;
        }
        let was_up = self.is_up();
        self.row = 0;
        self.is_up = Some(succeeded);
        was_up != succeeded
    }
}

/// Checks a backend at `address`, a host and a port, once. `named` is the address as the settings name it.
pub async fn check(checking: &Checking, address: &str, named: &str) -> Result<(), String> {
    let probing = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| why(&error))?;
        if let Some(version) = checking.send {
            // Otherwise a backend that wants the header would take the check for a mistake.
            stream.write_all(&header(version, None)).await.map_err(|error| why(&error))?;
        }
        match &checking.probe {
            Probe::Tcp => Ok(()),
            Probe::Http { path, host, status } => {
                let host = host.as_deref().unwrap_or(named);
                let request = format!(
                    "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: coterie-check\r\n\
                     accept: */*\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await.map_err(|error| why(&error))?;
                let found = status_of(&mut stream).await?;
                let is_right =
                    if status.is_empty() { (200..400).contains(&found) } else { status.contains(&found) };
                if is_right { Ok(()) } else { Err(format!("answers {found}")) }
            }
            Probe::Grpc { service } => grpc::check(stream, service, named).await,
        }
    };
    let slow = || Err(format!("does not answer within {:?}", checking.timeout));
    timeout(checking.timeout, probing).await.unwrap_or_else(|_elapsed| slow())
}

/// The status code of an answer, from its first line.
async fn status_of(stream: &mut TcpStream) -> Result<u16, String> {
    let no_http = || "does not answer with HTTP/1.1".to_owned();
    let mut line = Vec::new();
    while !line.contains(&b'\n') {
        let room = STATUS_LINE.saturating_sub(line.len()) as u64;
        let read =
            AsyncReadExt::take(&mut *stream, room).read_buf(&mut line).await.map_err(|error| why(&error))?;
        if read == 0 {
            return Err(if line.is_empty() { "closes the connection".to_owned() } else { no_http() });
        }
    }
    parse_status(&line).ok_or_else(no_http)
}

/// `HTTP/1.1 200 OK`.
fn parse_status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [b'0' | b'1', b' ', a, b, c, b' ' | b'\r' | b'\n', ..] = rest else { return None };
    let digits = [*a, *b, *c];
    let is_number = digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u16::from(*digit - b'0')))
}

/// The cause of a failed connection, in words that stay the same from time to time.
pub fn why(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => "refuses connections",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            "breaks off connections"
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "is unreachable",
        io::ErrorKind::TimedOut => "does not answer",
        io::ErrorKind::PermissionDenied => "is forbidden to this process",
        _ if is_our_own(error) => "needs a descriptor or a port that this process can't get",
        // The resolver's errors are not the system's.
        _ if error.raw_os_error().is_none() => "has a name that is not found",
        _ => "can't be reached",
    };
    text.to_owned()
}

/// Whether this process lacks a resource that a connection needs: a descriptor (`ENFILE`, `EMFILE`) or a local port.
pub fn is_our_own(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24)) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn checking(probe: Probe) -> Checking {
        let timeout = Duration::from_secs(20);
        Checking { probe, every: Duration::from_secs(2), rise: 2, fall: 3, timeout, send: None }
    }

    #[test]
    fn the_first_result_decides_and_later_several_in_a_row_are_needed() {
        let checking = checking(Probe::Tcp);
        let failed = || Err("refuses connections".to_owned());
        let mut checked = Checked::default();
        assert!(checked.is_up(), "before the first check");
        assert!(checked.observe(failed(), &checking) && !checked.is_up());
        assert_eq!(checked.why(), Some("refuses connections"));
        assert!(!checked.observe(Ok(()), &checking));
        assert!(!checked.observe(failed(), &checking));
        assert!(!checked.observe(Ok(()), &checking), "the row was broken");
        assert!(checked.observe(Ok(()), &checking) && checked.is_up());
        for _ in 0..2 {
            assert!(!checked.observe(failed(), &checking) && checked.is_up());
        }
        assert!(checked.observe(failed(), &checking) && !checked.is_up());
        let mut other = Checked::default();
        assert!(!other.observe(Ok(()), &checking), "it counted as up");
    }

    #[test]
    fn a_status_is_read_from_the_first_line() {
        for (line, status) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Some(200)),
            (b"HTTP/1.0 503\r\n", Some(503)),
            (b"HTTP/1.1 204\n", Some(204)),
            (b"HTTP/2 200 OK\r\n", None),
            (b"HTTP/1.1 2000\r\n", None),
            (b"HTTP/1.1 2x0 \r\n", None),
            (b"SSH-2.0-OpenSSH\r\n", None),
            (b"\n", None),
        ] {
            assert_eq!(parse_status(line), status, "{}", String::from_utf8_lossy(line));
        }
    }

    #[tokio::test]
    async fn a_backend_is_asked_and_its_answer_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let http = |status: &[u16]| {
            let path = "/up?x".to_owned();
            checking(Probe::Http { path, host: Some("shop.example".to_owned()), status: status.to_vec() })
        };
        let answer = async |answer: &str| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(head).unwrap()
        };
        for (status, answered, wanted) in [
            (&[][..], "HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
            (&[], "HTTP/1.1 500 Oh\r\n\r\n", Err("answers 500")),
            (&[500, 501], "HTTP/1.1 500 Oh\r\n\r\n", Ok(())),
            (&[], "no", Err("does not answer with HTTP/1.1")),
            (&[], "", Err("closes the connection")),
        ] {
            let checking = http(status);
            let (found, head) = tokio::join!(check(&checking, &address, "n"), answer(answered));
            assert_eq!(found, wanted.map_err(ToOwned::to_owned), "{answered}");
            assert!(head.starts_with("GET /up?x HTTP/1.1\r\nhost: shop.example\r\n"), "{head}");
        }
        let checking = Checking { send: Some(ProxyVersion::V1), ..http(&[]) };
        let proxied = check(&checking, &address, "n");
        let (found, head) = tokio::join!(proxied, answer("HTTP/1.1 200 OK\r\n\r\n"));
        assert_eq!(found, Ok(()));
        assert!(head.starts_with("PROXY UNKNOWN\r\nGET /up?x"), "{head}");
        drop(listener);
        let refused = check(&checking, &address, "n").await;
        assert_eq!(refused, Err("refuses connections".to_owned()));
    }
}
