//! Which service a command is about, if several have the same type.

use std::collections::BTreeSet;

use types::ServiceName;
use types::api::Members;

use crate::exit::{Exit, Failure};
use crate::reach::{Cx, Reached};

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The type of the services that have it, and the usual name of one.
    service_type: &'static str,
    /// What they have.
    have: &'static str,
    /// What stands before and after the name of a service in a command that shows it.
    named_by: (&'static str, &'static str),
    /// Other types that have it.
    also: &'static [&'static str],
}

/// The type of load balancers.
const BALANCER: &str = "load_balancer";

/// Keys.
pub(crate) const KEYS: Kind =
    Kind { service_type: "storage", have: "keys", named_by: ("kv --service", " ls"), also: &[] };
/// Indexes.
pub(crate) const INDEXES: Kind =
    Kind { service_type: "searcher", have: "indexes", named_by: ("index --service", " ls"), also: &[] };

/// Backends.
pub(crate) const GATEWAYS: Kind = Kind {
    service_type: "api_gateway",
    have: "backends",
    named_by: ("backends --service", ""),
    also: &[BALANCER],
};

/// Routes.
pub(crate) const ROUTES: Kind =
    Kind { service_type: "api_gateway", have: "routes", named_by: ("routes --service", ""), also: &[] };

impl Kind {
    /// Whether services of a type have what the command works with.
    fn allows(&self, service_type: &str) -> bool {
        service_type == self.service_type || self.also.contains(&service_type)
    }

    /// The command that shows what a service has, as it is typed.
    fn command(&self, service: &ServiceName) -> String {
        let (before, after) = self.named_by;
        format!("`ctl {before} {service}{after}`")
    }
}

/// Refuses a service whose members can't have what the command works with, because they are of another type. A service that no
/// member runs is left to the agent. Pure.
pub(crate) fn check_type(view: &Members, service: &ServiceName, kind: &Kind) -> Result<(), Failure> {
    let states = || view.members.iter().filter_map(|member| member.state.as_ref());
    let of_service = states().filter(|state| state.role.service() == Some(service));
    let of_service: Vec<_> = of_service.filter_map(types::RoleState::service_type).collect();
    let Some(other) = of_service.first().filter(|first| !kind.allows(first.as_str())) else { return Ok(()) };
    let message = format!("`{service}` has no {}: it is of the type {other}", kind.have);
    let failure = Failure::new(Exit::Usage, message);
    if other.as_str() == BALANCER {
        return Err(
            failure.hint(format!("`ctl backends --service {service}` shows where it sends connections"))
        );
    }
    let have: BTreeSet<_> = all_of(view, kind).into_iter().map(|service| kind.command(service)).collect();
    Err(match have.is_empty() {
        true => failure.hint(format!("no member runs a service of the type {}", kind.service_type)),
        false => failure.hint(format!("try {}", have.into_iter().collect::<Vec<_>>().join(" or "))),
    })
}

/// The services that have what the command works with. Pure.
pub(crate) fn all_of<'v>(view: &'v Members, kind: &Kind) -> BTreeSet<&'v ServiceName> {
    of_types(view, |service_type| kind.allows(service_type)).collect()
}

fn of_types(view: &Members, allowed: impl Fn(&str) -> bool) -> impl Iterator<Item = &ServiceName> {
    let states = view.members.iter().filter_map(|member| member.state.as_ref());
    let of_types = states.filter(move |state| state.service_type().is_some_and(|of| allowed(of.as_str())));
    of_types.filter_map(|state| state.role.service())
}

/// Reaches an agent for a service: the named one, else the one that is named after its type, else the only one of that
/// type.
pub(crate) async fn reach(cx: &Cx, service: Option<&ServiceName>, kind: &Kind) -> anyhow::Result<Reached> {
    let mut reached = cx.reach().await?;
    let view = reached.view().await?;
    let service = match service {
        Some(service) => service.clone(),
        None => only_one(&view, kind)?,
    };
    check_type(&view, &service, kind)?;
    reached.client = reached.client.with_service(service);
    Ok(reached)
}

/// The service to use if none is named. Pure.
pub(crate) fn only_one(view: &Members, kind: &Kind) -> Result<ServiceName, Failure> {
    let services: BTreeSet<_> = of_types(view, |of| of == kind.service_type).collect();
    let usual = kind.service_type.parse().expect("the name follows the rule");
    match services.iter().collect::<Vec<_>>().as_slice() {
        [] => Ok(usual),
        [one] => Ok((**one).clone()),
        _ if services.contains(&usual) => Ok(usual),
        several => {
            let names: Vec<_> = several.iter().map(|name| name.as_str()).collect();
            let message = format!("several services have {}: {}", kind.have, names.join(", "));
            Err(Failure::new(Exit::Usage, message).hint(format!(
                "name one with `--service`: {} shows the {} of one",
                kind.command(several[0]),
                kind.have
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render;

    #[test]
    fn the_service_must_be_named_only_if_several_have_keys() {
        let view = |roles: &[(&str, Option<&str>)]| {
            let members = roles.iter().map(|(role, service_type)| {
                let mut member = render::tests::member("n", role, types::Phase::Ready);
                let state = member.state.as_mut().unwrap();
                state.service_type = service_type.map(|text| text.parse().unwrap());
                member
            });
            Members {
                cluster: "demo".parse().unwrap(),
                viewed_by: "n".parse().unwrap(),
                members: members.collect(),
            }
        };
        let (sessions, users) = (("sessions/0", Some("storage")), ("users/0", Some("storage")));
        let (storage, edge) = (("storage/0", None), ("edge", Some("api_gateway")));
        for (roles, expected) in [
            (&[edge][..], Ok("storage")),
            (&[edge, storage], Ok("storage")),
            (&[edge, sessions, ("sessions/1", Some("storage"))], Ok("sessions")),
            (&[sessions, users, storage], Ok("storage")),
            (&[users, sessions], Err("several services have keys: sessions, users")),
        ] {
            let found = only_one(&view(roles), &KEYS)
                .map(|name| name.to_string())
                .map_err(|failure| failure.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{roles:?}");
        }
        let finder = [("finder/0", Some("searcher")), sessions];
        assert_eq!(only_one(&view(&finder), &INDEXES).unwrap().as_str(), "finder");
    }

    #[test]
    fn a_service_of_another_type_is_refused_and_those_that_have_it_are_named() {
        let member = |role: &str, service_type: Option<&str>| {
            let mut member = render::tests::member("n", role, types::Phase::Ready);
            member.state.as_mut().unwrap().service_type = service_type.map(|text| text.parse().unwrap());
            member
        };
        let members = vec![
            member("storage/0", None),
            member("edge", Some("api_gateway")),
            member("load_balancer", None),
            member("standby", None),
        ];
        let view = Members { cluster: "demo".parse().unwrap(), viewed_by: "n".parse().unwrap(), members };
        let check = |service: &str, kind: &Kind| {
            check_type(&view, &service.parse().unwrap(), kind).map_err(|failure| format!("{failure:?}"))
        };
        for (service, kind) in
            [("edge", &ROUTES), ("edge", &GATEWAYS), ("load_balancer", &GATEWAYS), ("none", &ROUTES)]
        {
            assert_eq!(check(service, kind), Ok(()), "{service}");
        }
        for (service, kind, words) in [
            (
                "storage",
                &ROUTES,
                ["`storage` has no routes: it is of the type storage", "`ctl routes --service edge`"],
            ),
            (
                "storage",
                &GATEWAYS,
                [
                    "`storage` has no backends",
                    "`ctl backends --service edge` or `ctl backends --service load_balancer`",
                ],
            ),
            (
                "load_balancer",
                &ROUTES,
                ["it is of the type load_balancer", "`ctl backends --service load_balancer`"],
            ),
            ("edge", &KEYS, ["`edge` has no keys", "try `ctl kv --service storage ls`"]),
            ("edge", &INDEXES, ["`edge` has no indexes", "no member runs a service of the type searcher"]),
        ] {
            let error = check(service, kind).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
