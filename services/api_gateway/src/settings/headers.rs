//! The header fields that a route asks for or changes.

use http::{HeaderName, HeaderValue};
use mesh::head::reserved;

use super::check::{Checked, token};
use super::route::HeaderEdits;
use crate::edits::Edits;

/// Fields that only trusted proxies send, for which a route may ask nevertheless.
const OF_PROXIES: [&str; 3] = ["forwarded", "x-real-ip", "x-request-id"];

/// Whether only trusted proxies send it.
pub(super) fn is_of_proxies(header: &HeaderName) -> bool {
    header.as_str().starts_with("x-forwarded-") || OF_PROXIES.contains(&header.as_str())
}

impl Checked<'_> {
    pub(super) fn asked_headers(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, value) in &self.route.headers {
            let key = format!("headers/{}", token(name));
            let Some(header) = self.header_name(&key, name) else { continue };
            if header == http::header::HOST {
                self.wrong(&key, "a route asks for a host with `hosts`", "write `hosts: [shop.example]`");
            } else if let Some(reason) = reserved(&header).filter(|_| !is_of_proxies(&header)) {
                self.wrong(&key, format!("a route can't ask for `{name}`: {reason}"), "leave it out");
            } else if headers.iter().any(|(known, _)| *known == header) {
                self.wrong(
                    &key,
                    format!("`{name}` is there twice: case does not count"),
                    "leave one of them out",
                );
            } else if let Some(value) = self.header_value(&key, value) {
                headers.push((header, value));
            }
        }
        headers
    }

    /// The name of a header field, if it is one.
    pub(super) fn header_name(&mut self, key: &str, name: &str) -> Option<HeaderName> {
        let parsed = name.parse().ok();
        if parsed.is_none() {
            self.wrong(key, format!("`{name}` is no name of a header"), "write it like `x-version`");
        }
        parsed
    }

    /// The value of a header field, if it is one.
    fn header_value(&mut self, key: &str, value: &str) -> Option<HeaderValue> {
        let parsed = HeaderValue::from_bytes(value.as_bytes()).ok().filter(|_| value.trim() == value);
        if parsed.is_none() {
            let message = "this is no value of a header: it is one line, without spaces around it";
            self.wrong(key, message, "write it on one line");
        }
        parsed
    }

    pub(super) fn edits(&mut self, key: &str, edits: &HeaderEdits) -> Edits {
        let mut checked = Edits::default();
        let mut names: Vec<HeaderName> = Vec::new();
        let lists = [("set", &edits.set, &mut checked.set), ("add", &edits.add, &mut checked.add)];
        for (list, pairs, into) in lists {
            for (name, value) in pairs {
                let key = format!("{key}/{list}/{}", token(name));
                let name = self.edited(&key, name, &mut names);
                if let (Some(name), Some(value)) = (name, self.header_value(&key, value)) {
                    into.push((name, value));
                }
            }
        }
        for (at, name) in edits.remove.iter().enumerate() {
            checked.remove.extend(self.edited(&format!("{key}/remove/{at}"), name, &mut names));
        }
        checked
    }

    /// The name of a field that settings may change, each only once.
    fn edited(&mut self, key: &str, name: &str, names: &mut Vec<HeaderName>) -> Option<HeaderName> {
        let header = self.header_name(key, name)?;
        if let Some(reason) = reserved(&header) {
            let hint =
                if header == http::header::HOST { "use `rewrite: {host: …}`" } else { "leave it out" };
            self.wrong(key, format!("`{name}` can't be changed: {reason}"), hint);
            return None;
        }
        if names.contains(&header) {
            self.wrong(key, format!("`{name}` is changed twice"), "leave one of the changes out");
            return None;
        }
        names.push(header.clone());
        Some(header)
    }
}
