//! Which changes of a member are worth an event, and the event's message. Pure.
//!
//! A member's state is gossiped whenever anything in it changes. An event is for what people act on: the node's role,
//! whether it owns its shard or has a replica of it, its health, and its addresses.

use cluster::Change;
use types::api::{EventKind, Member};
use types::{Epoch, Phase, Post, Role, RoleState};

/// Whether a change is worth an event. A number that changes in a reason is not, nor is the end of a reason.
pub(super) fn is_news(change: &Change) -> bool {
    let (EventKind::Changed, Some(before)) = (change.kind, &change.before) else { return true };
    let after = &change.member;
    if (&before.http, &before.gossip) != (&after.http, &after.gossip) {
        return true;
    }
    match (&before.state, &after.state) {
        (Some(before), Some(after)) => {
            essence(before) != essence(after)
                || before.endpoints != after.endpoints
                || has_another_reason(before, after)
        }
        (before, after) => before.is_some() != after.is_some(),
    }
}

/// The parts of a state that every message has.
fn essence(state: &RoleState) -> (&Role, Phase, Option<Post>, Option<Epoch>, Option<Epoch>) {
    (&state.role, state.phase, state.duty, state.epoch, state.resigned)
}

fn has_another_reason(before: &RoleState, after: &RoleState) -> bool {
    let Some(now) = &after.reason else { return false };
    before.reason.as_ref().is_none_or(|before| without_numbers(before) != without_numbers(now))
}

/// What happened, in a sentence.
pub(super) fn message(change: &Change) -> String {
    let Change { kind, member, before } = change;
    let id = &member.id;
    match kind {
        EventKind::Present => format!("{id} is {}", described(member)),
        EventKind::Joined => format!("{id} joined as {}", described(member)),
        EventKind::Changed => format!("{id} {}", changed(before.as_ref(), member)),
        EventKind::Restarted => format!("{id} was restarted and is {}", described(member)),
        EventKind::Left => format!("{id} left"),
        EventKind::Lost => format!("{id} is lost: no sign of life"),
        EventKind::Gap => "events are missing here".to_owned(),
    }
}

/// What changed about a member. Parts that did not change are left out.
fn changed(before: Option<&Member>, after: &Member) -> String {
    let now = || format!("is now {}", described(after));
    let (Some(before), Some(state)) = (before, &after.state) else { return now() };
    let Some(old) = &before.state else { return now() };
    if (&old.role, old.phase) != (&state.role, state.phase) {
        return now();
    }
    let role = &state.role;
    let is_resigning = old.resigned != state.resigned && state.resigned.is_some();
    if (old.duty, old.epoch) != (state.duty, state.epoch) && !is_resigning {
        let words = match (state.duty, state.epoch) {
            (Some(Post::Primary), Some(epoch)) => format!("is the owner of {role} under epoch {epoch}"),
            (Some(Post::Primary), None) => format!("is the owner of {role}"),
            (Some(Post::Replica), _) => format!("has a replica of {role}"),
            (None, _) if old.duty == Some(Post::Replica) => format!("has no replica of {role} any more"),
            (None, _) => format!("does not own {role} any more"),
        };
        let reason = state.reason.as_ref().filter(|_| has_another_reason(old, state));
        return words + &reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    }
    if is_resigning || has_another_reason(old, state) {
        return now();
    }
    if old.endpoints != state.endpoints {
        let urls: Vec<_> = state.endpoints.iter().map(|(name, url)| format!("{name}={url}")).collect();
        return match urls.is_empty() {
            true => "has closed its listeners".to_owned(),
            false => format!("listens at {}", urls.join(", ")),
        };
    }
    format!("has other addresses: {}, gossip {}", after.http, after.gossip)
}

/// `storage/0 (owner, epoch 4), ready`, with the reason if there is one.
fn described(member: &Member) -> String {
    let Some(state) = &member.state else {
        return "in a role that this version does not know".to_owned();
    };
    let post = match (state.duty, state.epoch, state.resigned) {
        (Some(Post::Primary), Some(epoch), _) => format!(" (owner, epoch {epoch})"),
        (Some(Post::Primary), None, Some(epoch)) => format!(" (owner that resigned epoch {epoch})"),
        (Some(Post::Primary), None, None) => " (owner)".to_owned(),
        (Some(Post::Replica), _, _) => " (replica)".to_owned(),
        (None, _, _) => String::new(),
    };
    let reason = state.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{post}, {}{reason}", state.role, state.phase)
}

/// The words of a reason, without amounts and their units: `may be 19 s behind` and `may be 1m 4s behind` are the same.
/// Words that merely contain digits stay: names, addresses, versions.
fn without_numbers(reason: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut is_after_amount = false;
    for word in reason.split_whitespace() {
        let bare = word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '%');
        let is_amount = is_amount(bare);
        let is_unit = is_after_amount && UNITS.contains(&bare);
        if !is_amount && !is_unit {
            // `1 route`, `2 routes`
            words.push(if is_after_amount { bare.trim_end_matches('s') } else { bare });
        }
        is_after_amount = is_amount;
    }
    words
}

/// Units of time and size, as they are written here and in the libraries whose errors are shown.
const UNITS: [&str; 38] = [
    "ns", "us", "µs", "ms", "s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minute", "minutes",
    "h", "hr", "hour", "hours", "d", "day", "days", "w", "week", "weeks", "month", "months", "year", "years",
    "B", "KiB", "MiB", "GiB", "TiB", "KB", "MB", "GB", "bytes", "%",
];

/// Whether a word is a number, or numbers with units: `19`, `1.5s`, `1h30m`, `1,024`, `99%`.
fn is_amount(word: &str) -> bool {
    let mut rest = word;
    let mut has_number = false;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',')).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return false;
        }
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit);
        if !unit.is_empty() && !UNITS.contains(&unit) {
            return false;
        }
        (rest, has_number) = (next, true);
    }
    has_number
}

#[cfg(test)]
mod tests;
