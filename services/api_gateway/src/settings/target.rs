//! The destination of a route, from what an operator writes.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use mesh::BaseUrl;
use plugin::http::{Guard, HostPattern, Hosts};

use super::check::Checked;
use super::route::{AnswerSettings, RedirectSettings, SchemeSettings};
use crate::host::HostRule;
use crate::redirect::{Redirect, Template};
use crate::rule::Scheme;
use crate::table::Target;

/// The longest body of a fixed answer.
const LONGEST_BODY: usize = 64 * 1024;
/// The statuses of a redirect.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// How to allow another host, as a hint.
const HOSTS: &str = "add it to `hosts` of the route or of the gateway";

/// The first destination that is given.
pub(super) fn check(route: &mut Checked<'_>) -> Option<Target> {
    let given = route.route;
    if let Some(service) = &given.service {
        self::service(route, service)
    } else if let Some(to) = &given.to {
        let urls = to.iter().enumerate().map(|(at, text)| (format!("to/{at}"), text.as_str())).collect();
        addresses(route, "to", urls).map(|urls| Target::Addresses { urls, weights: Vec::new() })
    } else if let Some(backends) = &given.backends {
        let urls = (backends.iter().enumerate())
            .map(|(at, backend)| (format!("backends/{at}/url"), backend.url.as_str()))
            .collect();
        let urls = addresses(route, "backends", urls)?;
        let weights = backends.iter().map(|backend| u32::try_from(backend.weight.get()).unwrap_or(u32::MAX));
        Some(Target::Addresses { urls, weights: weights.collect() })
    } else if let Some(redirect) = &given.redirect {
        self::redirect(route, redirect).map(Target::Redirect)
    } else {
        answer(route, given.answer.as_ref()?)
    }
}

/// A service and the hosts under which it may be requested: those of the gateway and of the route.
fn service(route: &mut Checked<'_>, text: &str) -> Option<Target> {
    let hosts = match &route.settings.hosts {
        Hosts::Any => Hosts::Any,
        Hosts::Listed(listed) => {
            let own = route.route.hosts.iter().filter_map(|host| host.parse::<HostPattern>().ok());
            Hosts::Listed(listed.iter().cloned().chain(own).collect())
        }
    };
    match text.parse() {
        Ok(service) if mesh::is_named_after_proxy(&service) => {
            let hint = "let DNS or a load balancer lead to its listeners, or write what its routes lead to";
            route.wrong("service", mesh::proxy_refusal(&service), hint);
            None
        }
        Ok(service) => Some(Target::Service(service, Guard::new(hosts, HOSTS))),
        Err(error) => {
            let error: types::IdError = error;
            route.wrong("service", error.to_string(), "`ctl members` shows the names of the services");
            None
        }
    }
}

/// Addresses without mistakes and duplicates; at least one.
fn addresses(route: &mut Checked<'_>, key: &str, texts: Vec<(String, &str)>) -> Option<Vec<BaseUrl>> {
    if texts.is_empty() {
        route.wrong(key, "there is no address", "write at least one, like `http://127.0.0.1:8000`");
    }
    let number = texts.len();
    let mut urls: Vec<BaseUrl> = Vec::new();
    for (key, text) in texts {
        match text.parse::<BaseUrl>() {
            Ok(url) if urls.contains(&url) => {
                route.wrong(&key, format!("`{url}` is there twice"), "leave one of them out");
            }
            Ok(url) => urls.push(url),
            Err(error) => route.wrong(
                &key,
                error.to_string(),
                "write it like `http://127.0.0.1:8000` or `https://shop.example`",
            ),
        }
    }
    if let Some(ca) = &route.route.ca {
        let has_mistake = urls.len() < number;
        if !has_mistake && !urls.iter().any(BaseUrl::is_https) {
            let message = "it has no effect: no address of this route begins with `https://`";
            route.wrong("ca", message, "leave it out, or write `https://`");
        }
        if ca.is_empty() {
            route.wrong("ca", "this is no path", "write it like `tls/ca.crt`, or leave it out");
        }
        urls = urls.into_iter().map(|url| url.trusting(Path::new(ca))).collect();
    }
    (number > 0 && urls.len() == number).then_some(urls)
}

fn redirect(route: &mut Checked<'_>, given: &RedirectSettings) -> Option<Redirect> {
    if given.scheme.is_none() && given.host.is_none() && given.port.is_none() && given.to.is_none() {
        let hint = "give at least one of `scheme`, `host`, `port` and `to`";
        route.wrong("redirect", "it leads to the URL that was requested", hint);
        return None;
    }
    let status = given.status.unwrap_or(302);
    let has_status = REDIRECTS.contains(&status);
    if !has_status {
        let hint = "write 301, 302, 303, 307 or 308";
        route.wrong("redirect/status", format!("{status} is no status of a redirect"), hint);
    }
    let host = given.host.as_ref().map(|text| match text.parse() {
        Ok(HostRule::Exact(host)) => Some(host),
        Ok(HostRule::Any | HostRule::Below(_)) | Err(_) => {
            let hint = "write it like `shop.example`; the port has its own key";
            route.wrong("redirect/host", format!("`{text}` is no host"), hint);
            None
        }
    });
    let to = given.to.as_ref().map(|text| match text.parse::<Template>() {
        Ok(template) => Some(template),
        Err(error) => {
            route.wrong("redirect/to", error.to_string(), "write it like `/new{rest}`");
            None
        }
    });
    Some(Redirect {
        status: StatusCode::from_u16(status).ok().filter(|_| has_status)?,
        scheme: given.scheme.map(|scheme| match scheme {
            SchemeSettings::Http => Scheme::Http,
            SchemeSettings::Https => Scheme::Https,
        }),
        host: host.map_or(Some(None), |host| host.map(Some))?,
        port: given.port.and_then(|port| u16::try_from(port.get()).ok()),
        to: to.map_or(Some(None), |to| to.map(Some))?,
    })
}

fn answer(route: &mut Checked<'_>, given: &AnswerSettings) -> Option<Target> {
    let status =
        u16::try_from(given.status.get()).ok().and_then(|status| StatusCode::from_u16(status).ok())?;
    let has_no_body =
        matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if has_no_body && !given.body.is_empty() {
        let message = format!("an answer with the status {} has no body", status.as_u16());
        route.wrong("answer/body", message, "leave it out");
        return None;
    }
    if given.body.len() > LONGEST_BODY {
        let message = format!("the body has {} bytes; 64 KiB are the most", given.body.len());
        route.wrong("answer/body", message, "serve it with a web server and a route `to` it");
        return None;
    }
    let Ok(content_type) = HeaderValue::from_str(&given.content_type) else {
        route.wrong(
            "answer/content_type",
            "this is no media type",
            "write it like `text/html; charset=utf-8`",
        );
        return None;
    };
    Some(Target::Answer { status, body: Bytes::from(given.body.clone()), content_type })
}
