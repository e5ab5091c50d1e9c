//! The part of a listener's plan that only the HTTP mode has, and settings that are for the other mode.

use std::time::Duration;

use ipnet::IpNet;
use mesh::{Limits, MinRate, is_named_after_proxy, proxy_refusal};
use plugin::http::Hosts;
use plugin::http_listener::HttpProtocol;
use plugin::retry::Retries;
use plugin::{CertificateFiles, ClientAuth, ServeLimits, Size, WantedTls};
use types::ServiceName;
use types::range::DurationIn;

use super::{GATEWAY, ListenerPlan, Mistakes};
use crate::settings::{Ejection, Listener, Mode};

/// What a listener needs for HTTP.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HttpPlan {
    /// The certificates; none if it speaks plain HTTP.
    pub(crate) certificates: Vec<CertificateFiles>,
    /// How clients identify themselves, if they do.
    pub(crate) client_auth: Option<ClientAuth>,
    pub(crate) http1: bool,
    pub(crate) http2: bool,
    /// The proxies whose forwarding headers are believed.
    pub(crate) trust: Vec<IpNet>,
    /// The service whose API is the target, and the hosts under which it may be requested. Without it the target has
    /// addresses.
    pub(crate) service: Option<(ServiceName, Hosts)>,
    pub(crate) limits: Limits,
    /// How long a client's connection may be idle between requests.
    pub(crate) keep_alive: Duration,
    /// How long a client may take nothing of an answer.
    pub(crate) send_timeout: Duration,
    /// Which failed requests are sent again.
    pub(crate) retries: Retries,
}

impl HttpPlan {
    pub(crate) fn is_tls(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// The scheme of the listener's URL.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }
}

impl ListenerPlan {
    /// The TLS that it wants.
    pub(crate) fn tls(&self) -> Option<WantedTls<'_>> {
        let http = self.http.as_ref().filter(|http| http.is_tls())?;
        Some(WantedTls {
            listener: &self.name,
            certificates: &http.certificates,
            client_auth: http.client_auth.as_ref(),
            http1: http.http1,
            http2: http.http2,
        })
    }
}

/// The service whose API is the target of a listener in HTTP mode.
pub(super) fn service(listener: &Listener) -> Option<&str> {
    let is_api = listener.mode == Mode::Http && listener.listener.is_none();
    listener.service.as_deref().filter(|_| is_api)
}

/// The plan; `None` in TCP mode, or after a mistake.
pub(super) fn plan(
    place: &str,
    listener: &Listener,
    trust: &[IpNet],
    mistakes: &mut Mistakes,
) -> Option<HttpPlan> {
    for (key, message, hint) in of_other_mode(listener) {
        mistakes.add(format!("{place}/{key}"), message, hint);
    }
    if listener.mode == Mode::Tcp {
        return None;
    }
    let service = service(listener).and_then(|text| match text.parse::<ServiceName>() {
        Ok(service) if is_named_after_proxy(&service) => {
            let is_gateway = service.default_type().is_some_and(|of| of.as_str() == "api_gateway");
            let hint = match is_gateway {
                true => format!("write `listener: {GATEWAY}`, or the name of another one"),
                false => "write the name of one of its listeners, like `listener: web`".to_owned(),
            };
            mistakes.add(format!("{place}/service"), proxy_refusal(&service), hint);
            None
        }
        Ok(service) => Some((service, listener.hosts.clone().unwrap_or_default())),
        Err(error) => {
            mistakes.add(format!("{place}/service"), error.to_string(), "write it like `storage`");
            None
        }
    });
    let protocols = listener.protocols.as_deref().unwrap_or(&[HttpProtocol::Http1, HttpProtocol::Http2]);
    if protocols.is_empty() {
        let hint = "write `[http1, http2]`, or leave it out";
        mistakes.add(format!("{place}/protocols"), "there is no protocol", hint);
    }
    let certificates = match &listener.tls {
        Some(tls) => tls.files(&format!("{place}/tls/certificates"), &mut mistakes.0),
        None => Vec::new(),
    };
    let tls = listener.tls.as_ref();
    let client_auth = tls.and_then(|tls| tls.client_auth(&format!("{place}/tls"), &mut mistakes.0));
    let (defaults, serving) = (Limits::default(), ServeLimits::of_service_listener());
    let retries = listener.retry.clone().unwrap_or_default();
    let retries = retries.plan(&format!("{place}/retry"), &mut mistakes.0);
    Some(HttpPlan {
        certificates,
        client_auth,
        http1: protocols.contains(&HttpProtocol::Http1),
        http2: protocols.contains(&HttpProtocol::Http2),
        trust: trust.to_vec(),
        service,
        limits: Limits {
            connect: listener.timeouts.connect.get(),
            head: listener.timeouts.answer.map_or(defaults.head, DurationIn::get),
            idle: listener.timeouts.idle.map_or(defaults.idle, DurationIn::get),
            min_rate: MinRate::new(listener.limits.min_rate.map_or(0, Size::get)),
            wait: listener.limits.wait.get(),
            attempts: retries.attempts.unwrap_or(defaults.attempts),
            ..defaults
        },
        keep_alive: listener.timeouts.keep_alive.map_or(serving.keep_alive, DurationIn::get),
        send_timeout: listener.timeouts.send.map_or(serving.send_timeout, DurationIn::get),
        retries,
    })
}

/// Settings without an effect in the mode of the listener: the key, why, and what to do.
fn of_other_mode(listener: &Listener) -> Vec<(&'static str, &'static str, &'static str)> {
    let in_http = "it has no effect in HTTP mode";
    let in_tcp = "it has no effect in TCP mode";
    let leave = "leave it out";
    let all = match listener.mode {
        Mode::Http => vec![
            (
                listener.sni.is_some(),
                "sni",
                "in HTTP mode there is one target",
                "write `mode: tcp`, or give `tls` a certificate for each name",
            ),
            (
                listener.send_proxy_protocol.is_some(),
                "send_proxy_protocol",
                in_http,
                "leave it out; `X-Forwarded-For` has the client's address",
            ),
            (
                listener.limits.per_backend.is_some(),
                "limits/per_backend",
                in_http,
                "leave it out; `connections` limits all requests",
            ),
            (listener.splice, "splice", in_http, leave),
            (listener.ejection != Ejection::default(), "ejection", in_http, leave),
            (listener.slow_start != crate::settings::slow_start(), "slow_start", in_http, leave),
            (
                listener.hosts.is_some() && (listener.service.is_none() || listener.listener.is_some()),
                "hosts",
                "it has no effect on this target: the backends check their hosts themselves",
                leave,
            ),
        ],
        Mode::Tcp => vec![
            (
                listener.tls.is_some(),
                "tls",
                in_tcp,
                "write `mode: http`, or let the backends have the certificates",
            ),
            (listener.ca.is_some(), "ca", in_tcp, leave),
            (listener.protocols.is_some(), "protocols", in_tcp, leave),
            (listener.hosts.is_some(), "hosts", in_tcp, leave),
            (listener.retry.is_some(), "retry", in_tcp, leave),
            (listener.timeouts.answer.is_some(), "timeouts/answer", in_tcp, leave),
            (listener.timeouts.websocket.is_some(), "timeouts/websocket", in_tcp, leave),
            (listener.timeouts.keep_alive.is_some(), "timeouts/keep_alive", in_tcp, leave),
            (listener.timeouts.send.is_some(), "timeouts/send", in_tcp, leave),
            (listener.limits.min_rate.is_some(), "limits/min_rate", in_tcp, leave),
        ],
    };
    all.into_iter()
        .filter(|(is_given, ..)| *is_given)
        .map(|(_, key, message, hint)| (key, message, hint))
        .collect()
}
