//! Services that settings name as targets: whether the manifest has them, with the listener that is meant. Pure.

use std::collections::BTreeMap;

use plugin::{ListenSetting, SettingsMistake, TargetListener, TargetSetting, is_proxy, proxy_refusal};
use types::{ServiceName, ServiceType, did_you_mean};

use super::mismatch::mismatches;

/// The services of a manifest.
pub(super) type Services = BTreeMap<ServiceName, Known>;

/// What is known of a service of a manifest.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) service_type: Option<ServiceType>,
    /// Its listeners; `None` if they are not known.
    pub(super) listeners: Option<Vec<ListenSetting>>,
    /// Whether a node of the manifest runs it, or could.
    pub(super) is_run: bool,
}

/// What is wrong with a target.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It can't work.
    Mistake(SettingsMistake),
    /// It works only if a member of the cluster beyond this manifest provides it.
    Warning(SettingsMistake),
}

/// What is wrong with a target of the service `own`. `is_local`: all members are on this machine and use its loopback addresses.
pub(super) fn judge(
    own: &ServiceName,
    target: &TargetSetting,
    services: &Services,
    is_local: bool,
) -> Vec<Verdict> {
    let TargetSetting { pointer, service, .. } = target;
    let at = |message: String, hint: String| SettingsMistake::new(pointer, message).hint(hint);
    if service == own {
        let message = format!("`{own}` would forward to itself for ever");
        return vec![Verdict::Mistake(at(message, "name another service".to_owned()))];
    }
    let others = || services.keys().filter(|other| *other != own).map(ServiceName::as_str);
    let nobody = format!("no node of this manifest runs `{service}`");
    let Some(known) = services.get(service) else {
        let hint = match did_you_mean(service.as_str(), others()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "until a member of the cluster does, there is no backend".to_owned(),
        };
        return vec![Verdict::Warning(at(nobody, hint))];
    };
    let is_gateway = services.get(own).and_then(|own| own.service_type.as_ref());
    let is_gateway = is_gateway.is_some_and(|own| own.as_str() == "api_gateway");
    let mistakes = match &target.listener {
        None => api(target, known, is_gateway).into_iter().collect(),
        Some(wanted) => listener(target, wanted, known, is_local),
    };
    if mistakes.is_empty() && !known.is_run {
        let hint =
            format!("add a node with `service: {service}`; until a member runs it, there is no backend");
        return vec![Verdict::Warning(at(nobody, hint))];
    }
    mistakes.into_iter().map(Verdict::Mistake).collect()
}

/// What is wrong with the API of a service's members as the target. `is_gateway`: the settings are those of a gateway.
fn api(target: &TargetSetting, known: &Known, is_gateway: bool) -> Option<SettingsMistake> {
    known.service_type.as_ref().filter(|service_type| is_proxy(service_type))?;
    let names = names(known.listeners.as_deref().unwrap_or_default());
    let hint = match names.first() {
        _ if is_gateway => {
            "let DNS or a load balancer lead to its listeners, or write what its routes lead to".to_owned()
        }
        Some(name) => format!("write `listener: {name}`; its listeners: {}", names.join(", ")),
        None => "write the name of one of its listeners, like `listener: web`".to_owned(),
    };
    Some(SettingsMistake::new(&target.pointer, proxy_refusal(&target.service)).hint(hint))
}

/// What is wrong with a listener of a service's members as the target.
fn listener(
    target: &TargetSetting,
    wanted: &TargetListener,
    known: &Known,
    is_local: bool,
) -> Vec<SettingsMistake> {
    let TargetSetting { pointer, service, .. } = target;
    let Some(listeners) = &known.listeners else { return Vec::new() };
    if let Some(listener) = listeners.iter().find(|listener| listener.name == wanted.name) {
        let is_proxy = known.service_type.as_ref().is_some_and(is_proxy);
        return mismatches(target, wanted, listener, is_proxy, is_local);
    }
    let names = names(listeners);
    if names.is_empty() {
        let message =
            format!("`{service}` has no listener of its own, so connections can't be forwarded to it");
        let hint = match wanted.may_be_api {
            true => format!(
                "with `mode: http` and without `listener`, requests reach it below /svc/{service} of its nodes"
            ),
            false => format!(
                "name a service with listeners; a listener with `mode: http` and `service: {service}` reaches its API"
            ),
        };
        return vec![SettingsMistake::new(pointer, message).hint(hint)];
    }
    let hint = match did_you_mean(&wanted.name, names.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write `listener: {}`; its listeners: {}", names[0], names.join(", ")),
    };
    let message = format!("`{service}` has no listener `{}`", wanted.name);
    vec![SettingsMistake::new(wanted.pointer.as_deref().unwrap_or(pointer), message).hint(hint)]
}

fn names(listeners: &[ListenSetting]) -> Vec<&str> {
    listeners.iter().map(|listener| listener.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use plugin::{Expects, Sends, SentContent};

    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn services() -> Services {
        let known = |service: &str, service_type: &str, listeners: Option<&[&str]>, is_run| {
            let listener = |name: &&str| ListenSetting {
                pointer: String::new(),
                name: (*name).to_owned(),
                address: "127.0.0.1:0".parse().unwrap(),
                expects: Expects::default(),
            };
            let listeners = listeners.map(|names| names.iter().map(listener).collect());
            (name(service), Known { service_type: service_type.parse().ok(), listeners, is_run })
        };
        [
            known("front", "load_balancer", Some(&["web"]), true),
            known("edge", "api_gateway", Some(&["web", "inner"]), true),
            known("second", "api_gateway", None, true),
            known("idle", "storage", Some(&[]), false),
            known("storage", "storage", Some(&[]), true),
            known("strange", "strange", None, true),
        ]
        .into()
    }

    /// What a verdict on a target of `own` says. `listener` is its name, and whether the settings have it.
    fn judged(own: &str, service: &str, listener: Option<(&str, bool)>) -> Option<[String; 4]> {
        let listener = listener.map(|(text, is_given)| TargetListener {
            name: text.to_owned(),
            pointer: is_given.then(|| "/l".to_owned()),
            may_be_api: !is_given,
            sends: Sends { place: String::new(), proxy_protocol: false, content: SentContent::Bytes },
        });
        let target = TargetSetting { pointer: "/s".to_owned(), service: name(service), listener };
        let (kind, found) = match judge(&name(own), &target, &services(), true).pop()? {
            Verdict::Mistake(found) => ("mistake", found),
            Verdict::Warning(found) => ("warning", found),
        };
        Some([kind.to_owned(), found.pointer, found.message, found.hint.unwrap_or_default()])
    }

    #[test]
    fn a_target_that_works_has_no_verdict() {
        for (own, service, listener) in [
            ("front", "edge", Some(("inner", true))),
            ("front", "strange", Some(("x", true))),
            ("front", "storage", None),
            ("front", "strange", None),
            ("edge", "storage", None),
        ] {
            assert_eq!(judged(own, service, listener), None, "{own} {service} {listener:?}");
        }
    }

    #[test]
    fn a_target_that_cannot_work_is_a_mistake_and_one_that_others_may_provide_a_warning() {
        for (own, service, listener, expected) in [
            ("front", "front", None, ["mistake", "/s", "forward to itself", "another service"]),
            (
                "front",
                "front",
                Some(("web", true)),
                ["mistake", "/s", "forward to itself", "another service"],
            ),
            ("front", "edge", None, ["mistake", "/s", "for operators", "`listener: web`"]),
            ("front", "second", None, ["mistake", "/s", "for operators", "one of its listeners"]),
            ("edge", "front", None, ["mistake", "/s", "for operators", "let DNS"]),
            ("edge", "second", None, ["mistake", "/s", "for operators", "let DNS"]),
            ("edge", "storge", None, ["warning", "/s", "runs `storge`", "did you mean `storage`?"]),
            ("front", "nope", Some(("x", true)), ["warning", "/s", "runs `nope`", "there is no backend"]),
            ("front", "idle", None, ["warning", "/s", "runs `idle`", "a node with `service: idle`"]),
            (
                "front",
                "idle",
                Some(("x", true)),
                ["mistake", "/s", "no listener of its own", "reaches its API"],
            ),
            (
                "front",
                "storage",
                Some(("gateway", false)),
                ["mistake", "/s", "no listener of its own", "with `mode"],
            ),
            (
                "front",
                "storage",
                Some(("x", true)),
                ["mistake", "/s", "no listener of its own", "a service with"],
            ),
            (
                "front",
                "edge",
                Some(("gateway", false)),
                ["mistake", "/s", "no listener `gateway`", "`listener: web`"],
            ),
            (
                "front",
                "edge",
                Some(("iner", true)),
                ["mistake", "/l", "no listener `iner`", "did you mean `inner`?"],
            ),
        ] {
            let found = judged(own, service, listener).unwrap();
            let is_as_expected = found.iter().zip(expected).all(|(found, words)| found.contains(words));
            assert!(is_as_expected, "{own} {service} {listener:?}: {found:?}");
        }
    }
}
