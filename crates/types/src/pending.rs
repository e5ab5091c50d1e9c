//! A later spec of its service that a member does not run with, and why.

use serde::{Deserialize, Serialize};

/// A later spec of its service that a member has read and does not run with. It runs with its old settings, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PendingSpec {
    /// The number of that spec.
    pub spec: u64,
    /// The settings that need a restart of the role, as JSON pointers: `/listeners/0/protocols`. Empty if that is not the
    /// reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
    /// Why it could not be applied, in words; absent if it needs a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl PendingSpec {
    /// The most settings that are listed; gossip carries them.
    pub const MOST: usize = 12;
    /// The longest pointer that is listed, in characters.
    const LONGEST: usize = 80;

    /// A spec that needs a restart. Of many settings, the first are listed, and how many more there are.
    pub fn needs_restart(spec: u64, mut settings: Vec<String>) -> Self {
        let more = settings.len().saturating_sub(Self::MOST);
        settings.truncate(Self::MOST);
        for setting in &mut settings {
            if let Some((end, _)) = setting.char_indices().nth(Self::LONGEST) {
                setting.truncate(end);
                setting.push('…');
            }
        }
        if more > 0 {
            settings.push(format!("{more} more"));
        }
        Self { spec, needs_restart: settings, why: None }
    }

    /// The settings that need a restart, and the verb: `settings.listeners[1].address needs a restart`.
    pub fn restart_in_words(&self) -> String {
        let listed: Vec<_> = self.needs_restart.iter().map(|pointer| setting_path(pointer)).collect();
        let verb = if listed.len() == 1 { "needs" } else { "need" };
        match listed.as_slice() {
            [] => "they need a restart".to_owned(),
            [one] => format!("{one} {verb} a restart"),
            [first @ .., last] => format!("{} and {last} {verb} a restart", first.join(", ")),
        }
    }

    /// A spec that could not be applied.
    pub fn failed(spec: u64, why: impl Into<String>) -> Self {
        Self { spec, needs_restart: Vec::new(), why: Some(why.into()) }
    }
}

/// A JSON pointer below the settings as people write it: `/listeners/1/address` is `settings.listeners[1].address`. A text
/// that is no pointer stays.
pub fn setting_path(pointer: &str) -> String {
    let Some(tokens) = pointer.strip_prefix('/') else { return pointer.to_owned() };
    let mut path = "settings".to_owned();
    for token in tokens.split('/') {
        if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()) {
            path += &format!("[{token}]");
        } else {
            path += &format!(".{}", token.replace("~1", "/").replace("~0", "~"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_as_in_a_manifest_and_the_verb_agrees() {
        let words = |settings: &[&str]| {
            let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
            PendingSpec::needs_restart(1, settings).restart_in_words()
        };
        assert_eq!(words(&["/listeners/1/address"]), "settings.listeners[1].address needs a restart");
        assert_eq!(words(&["/listen", "/keys/a~1b"]), "settings.listen and settings.keys.a/b need a restart");
        assert_eq!(words(&["/a", "/b/0", "2 more"]), "settings.a, settings.b[0] and 2 more need a restart");
        assert_eq!(words(&[]), "they need a restart");
    }

    #[test]
    fn many_settings_are_counted_and_long_ones_are_cut() {
        let few = PendingSpec::needs_restart(7, vec!["/a".to_owned(), "/ä".repeat(100)]);
        assert_eq!(few.needs_restart[0], "/a");
        assert_eq!(few.needs_restart[1].chars().count(), PendingSpec::LONGEST + 1);
        let many = PendingSpec::needs_restart(7, (0..40).map(|n| format!("/routes/{n}")).collect());
        assert_eq!(many.needs_restart.len(), PendingSpec::MOST + 1);
        assert_eq!(many.needs_restart.last().map(String::as_str), Some("28 more"));
        let text = serde_json::to_string(&many).unwrap();
        assert!(text.len() < 400, "{text}");
        let read: PendingSpec = serde_json::from_str(r#"{"spec": 3}"#).unwrap();
        assert_eq!(read, PendingSpec { spec: 3, needs_restart: Vec::new(), why: None });
    }
}
