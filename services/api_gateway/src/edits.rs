//! Changes of a message's header fields, as a route's settings have them.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The changes: fields are removed, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    pub(crate) remove: Vec<HeaderName>,
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    pub(crate) add: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_removed_set_and_added() {
        let name = HeaderName::from_static;
        let value = HeaderValue::from_static;
        let edits = Edits {
            remove: vec![name("a"), name("none")],
            set: vec![(name("b"), value("new")), (name("c"), value("1"))],
            add: vec![(name("d"), value("2"))],
        };
        let mut headers = HeaderMap::new();
        for (field, text) in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("d", "1"), ("e", "1")] {
            headers.append(field, value(text));
        }
        edits.apply(&mut headers);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(lines, ["b: new", "c: 1", "d: 1", "d: 2", "e: 1"]);
    }
}
