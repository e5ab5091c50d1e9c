//! The parts of a route that change what is sent and how long it may take, as `GET /routes` shows them: only those that the
//! settings give it.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use plugin::check::{Checking, Probe};
use serde::Serialize;

use crate::edits::Edits;
use crate::rule::{shown, shown_of};
use crate::table::{Rewrite, Timeouts, Way};

/// What the address gets instead of what the client sent.
#[derive(Debug, Serialize)]
pub(super) struct RewriteView {
    /// What replaces the prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    /// The `Host` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
}

impl RewriteView {
    pub(super) fn new(way: &Way) -> Option<Self> {
        let prefix = match &way.rewrite {
            Rewrite::Replace(prefix) if prefix.is_empty() => Some("/".to_owned()),
            Rewrite::Replace(prefix) => Some(prefix.clone()),
            Rewrite::Strip | Rewrite::Keep => None,
        };
        let host = way.host.as_ref().map(shown);
        (prefix.is_some() || host.is_some()).then_some(Self { prefix, host })
    }
}

/// Changes of header fields; those that are set or added as `name: value`.
#[derive(Debug, Serialize)]
pub(super) struct EditsView {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remove: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    set: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    add: Vec<String>,
}

impl EditsView {
    pub(super) fn new(edits: &Edits) -> Option<Self> {
        let lines = |fields: &[(HeaderName, HeaderValue)]| fields.iter().map(line).collect();
        (*edits != Edits::default()).then(|| Self {
            remove: edits.remove.iter().map(ToString::to_string).collect(),
            set: lines(&edits.set),
            add: lines(&edits.add),
        })
    }
}

fn line((name, value): &(HeaderName, HeaderValue)) -> String {
    format!("{name}: {}", shown_of(name, value))
}

/// The time limits of a route.
#[derive(Debug, Serialize)]
pub(super) struct TimeoutsView {
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    websocket: Option<String>,
}

impl TimeoutsView {
    pub(super) fn new(timeouts: &Timeouts) -> Option<Self> {
        let text = |time: Option<Duration>| time.map(|time| format!("{time:?}"));
        (*timeouts != Timeouts::default()).then(|| Self {
            answer: text(timeouts.answer),
            idle: text(timeouts.idle),
            total: text(timeouts.total),
            websocket: text(timeouts.websocket),
        })
    }
}

/// An active check in words: `http /healthz every 2s, timeout 2s, rise 2, fall 3`.
pub(super) fn check(checking: &Checking) -> String {
    let Checking { probe, every, rise, fall, timeout, .. } = checking;
    let what = match probe {
        Probe::Tcp => "tcp".to_owned(),
        Probe::Http { path, host, status } => {
            let host = host.as_ref().map(|host| format!(" of {host}")).unwrap_or_default();
            let codes: Vec<_> = status.iter().map(ToString::to_string).collect();
            let codes =
                if codes.is_empty() { String::new() } else { format!(" expecting {}", codes.join(", ")) };
            format!("http {path}{host}{codes}")
        }
        Probe::Grpc { service } if service.is_empty() => "grpc".to_owned(),
        Probe::Grpc { service } => format!("grpc {service}"),
    };
    format!("{what} every {every:?}, timeout {timeout:?}, rise {rise}, fall {fall}")
}
