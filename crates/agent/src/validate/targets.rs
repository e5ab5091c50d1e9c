//! Services that settings name as targets: whether the manifest has them, with the listener that is meant. Pure.

use std::collections::BTreeMap;

use plugin::{SettingsMistake, TargetSetting};
use types::{ServiceName, did_you_mean};

/// The names of the listeners of each service of a manifest; `None` if they are not known.
pub(super) type Listeners = BTreeMap<ServiceName, Option<Vec<String>>>;

/// What is wrong with a target.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It can't work.
    Mistake(SettingsMistake),
    /// It works only if a member of the cluster beyond this manifest provides it.
    Warning(SettingsMistake),
}

/// What is wrong with a target of the service `own`, if anything is.
pub(super) fn judge(own: &ServiceName, target: &TargetSetting, listeners: &Listeners) -> Option<Verdict> {
    let TargetSetting { pointer, service, listener } = target;
    let at = |pointer: &str, message: String, hint: String| SettingsMistake::new(pointer, message).hint(hint);
    if service == own {
        let message = format!("`{own}` would forward to itself for ever");
        return Some(Verdict::Mistake(at(pointer, message, "name another service".to_owned())));
    }
    let Some(names) = listeners.get(service) else {
        let others = || listeners.keys().filter(|other| *other != own).map(ServiceName::as_str);
        let hint = match did_you_mean(service.as_str(), others()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "until a member of the cluster does, there is no backend".to_owned(),
        };
        let message = format!("no node of this manifest runs `{service}`");
        return Some(Verdict::Warning(at(pointer, message, hint)));
    };
    let (wanted, names) = (listener.as_ref()?, names.as_ref()?);
    if names.contains(&wanted.name) {
        return None;
    }
    Some(Verdict::Mistake(if names.is_empty() {
        let message =
            format!("`{service}` has no listener of its own, so connections can't be forwarded to it");
        let hint = format!(
            "with `mode: http` and without `listener`, requests reach it below /svc/{service} of its nodes"
        );
        at(pointer, message, hint)
    } else {
        let hint = match did_you_mean(&wanted.name, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write `listener: {}`; its listeners: {}", names[0], names.join(", ")),
        };
        let message = format!("`{service}` has no listener `{}`", wanted.name);
        at(wanted.pointer.as_deref().unwrap_or(pointer), message, hint)
    }))
}

#[cfg(test)]
mod tests {
    use plugin::TargetListener;

    use super::*;

    #[test]
    fn a_target_that_cannot_work_is_a_mistake_and_one_that_others_may_provide_a_warning() {
        let name = |text: &str| text.parse::<ServiceName>().unwrap();
        let texts = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let listeners: Listeners = [
            (name("front"), texts(&["web"])),
            (name("edge"), texts(&["web", "inner"])),
            (name("storage"), texts(&[])),
            (name("strange"), None),
        ]
        .into();
        let judged = |service: &str, listener: Option<(&str, bool)>| {
            let listener = listener.map(|(text, is_given)| TargetListener {
                name: text.to_owned(),
                pointer: is_given.then(|| "/l".to_owned()),
            });
            let target = TargetSetting { pointer: "/s".to_owned(), service: name(service), listener };
            judge(&name("front"), &target, &listeners).map(|verdict| match verdict {
                Verdict::Mistake(found) => {
                    ("mistake", found.pointer, found.message, found.hint.unwrap_or_default())
                }
                Verdict::Warning(found) => {
                    ("warning", found.pointer, found.message, found.hint.unwrap_or_default())
                }
            })
        };
        for (service, listener) in [
            ("edge", Some(("inner", true))),
            ("strange", Some(("x", true))),
            ("storage", None),
            ("edge", None),
        ] {
            assert_eq!(judged(service, listener), None, "{service} {listener:?}");
        }
        for (service, listener, kind, place, message, hint) in [
            ("front", None, "mistake", "/s", "forward to itself", "another service"),
            ("front", Some(("web", true)), "mistake", "/s", "forward to itself", "another service"),
            (
                "storge",
                None,
                "warning",
                "/s",
                "no node of this manifest runs `storge`",
                "did you mean `storage`?",
            ),
            ("nope", Some(("x", true)), "warning", "/s", "runs `nope`", "there is no backend"),
            ("storage", Some(("gateway", false)), "mistake", "/s", "no listener of its own", "`mode: http`"),
            ("edge", Some(("gateway", false)), "mistake", "/s", "no listener `gateway`", "`listener: web`"),
            ("edge", Some(("iner", true)), "mistake", "/l", "no listener `iner`", "did you mean `inner`?"),
        ] {
            let found = judged(service, listener).unwrap();
            assert_eq!((found.0, found.1.as_str()), (kind, place), "{service} {listener:?}");
            assert!(found.2.contains(message) && found.3.contains(hint), "{found:?}");
        }
    }
}
