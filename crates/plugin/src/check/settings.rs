//! An active check as an operator writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::{DurationIn, NumberIn};

use super::{Checking, Probe};
use crate::SettingsMistake;

/// The longest name of a gRPC service.
const LONGEST_SERVICE: usize = 200;

/// A number of results in a row.
type InRow = NumberIn<1, 1000>;

/// An active check: exactly one of `tcp`, `http` and `grpc`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSettings {
    /// The backend accepts connections: `tcp: {}`. Not used unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// The backend answers a GET request. Not used unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// The backend says by the gRPC health protocol that it serves: `grpc: {}`. Not used unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// The time between two checks of a backend. Default: `2s`.
    #[serde(default = "every")]
    pub every: DurationIn<10>,
    /// How many checks in a row must succeed before a backend is up again. Default: 2.
    #[serde(default = "rise")]
    pub rise: InRow,
    /// How many checks in a row must fail before a backend is down. The first check decides alone. Default: 3.
    #[serde(default = "fall")]
    pub fall: InRow,
    /// How long one check may take. Default: `2s`.
    #[serde(default = "limit")]
    pub timeout: DurationIn<1>,
}

/// A connection that is closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// A request with the method GET, by HTTP/1.1 without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// The path with its query. Default: `/`.
    #[serde(default = "root")]
    pub path: String,
    /// The `Host` header. The backend's own address unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The status codes that mean success; 200 to 399 when there are none.
    #[serde(default)]
    pub status: Vec<NumberIn<100, 599>>,
}

/// A call of `grpc.health.v1.Health/Check`, by HTTP/2 without TLS. The answer must be `SERVING`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcCheck {
    /// The name of the service whose health is asked for, such as `shop.v1.Orders`. The server as a whole unless given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
}

fn every() -> DurationIn<10> {
    DurationIn::of_millis::<2_000>()
}

fn rise() -> InRow {
    NumberIn::of::<2>()
}

fn fall() -> InRow {
    NumberIn::of::<3>()
}

fn limit() -> DurationIn<1> {
    DurationIn::of_millis::<2_000>()
}

fn root() -> String {
    "/".to_owned()
}

impl CheckSettings {
    /// The check; `None` after a mistake. `place` is the JSON pointer of these settings.
    pub fn plan(&self, place: &str, mistakes: &mut Vec<SettingsMistake>) -> Option<Checking> {
        let before = mistakes.len();
        let mut wrong = |key: &str, message: String, hint: &str| {
            mistakes.push(SettingsMistake::new(format!("{place}{key}"), message).hint(hint));
        };
        let probe = match (&self.tcp, &self.http, &self.grpc) {
            (Some(_), None, None) => Probe::Tcp,
            (None, Some(http), None) => {
                if !is_target(&http.path) {
                    let message = format!("`{}` is no path", http.path);
                    wrong("/http/path", message, "write it like `/healthz`, percent-encoded");
                }
                let is_host =
                    |host: &&String| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
                if let Some(host) = http.host.as_ref().filter(|host| !is_host(host)) {
                    wrong("/http/host", format!("`{host}` is no host"), "write it like `shop.example`");
                }
                let status = http.status.iter().filter_map(|status| u16::try_from(status.get()).ok());
                Probe::Http { path: http.path.clone(), host: http.host.clone(), status: status.collect() }
            }
            (None, None, Some(GrpcCheck { service })) => {
                let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
                if service.len() > LONGEST_SERVICE || !service.bytes().all(is_fine) {
                    let message = format!("`{service}` is no name of a gRPC service");
                    wrong("/grpc/service", message, "write it with its package, like `shop.v1.Orders`");
                }
                Probe::Grpc { service: service.clone() }
            }
            _ => {
                let hint = "write exactly one of `tcp: {}`, `http: {}` and `grpc: {}`";
                wrong("", "one kind of check is wanted".to_owned(), hint);
                return None;
            }
        };
        (mistakes.len() == before).then(|| Checking {
            probe,
            every: self.every.get(),
            rise: small(self.rise),
            fall: small(self.fall),
            timeout: self.timeout.get(),
            send: None,
        })
    }
}

fn is_target(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains('#')
}

fn small(number: InRow) -> u32 {
    u32::try_from(number.get()).unwrap_or(u32::MAX)
}
