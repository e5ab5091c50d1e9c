//! `ctl spec rm`: removes a service that is no longer in the manifest, once the user has confirmed.

use types::api::{Members, NumberedSpec, Removed};
use types::{NodeId, ServiceName};

use crate::ask;
use crate::complete;
use crate::exit::{Exit, Failure};
use crate::out::say;
use crate::reach::Cx;
use crate::render;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl spec rm sessions
  ctl spec rm sessions --yes

Remove the service from the manifest and stop its nodes first. A node that has taken over a shard of it becomes a \
standby again.")]
pub(crate) struct Args {
    /// The service, by its name
    #[arg(add = complete::services())]
    service: ServiceName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = cx.reach().await?;
    let service = &args.service;
    let specs = reached.client.specs().await?;
    let Some(known) = specs.specs.get(service) else {
        let names: Vec<_> = specs.specs.keys().map(ServiceName::as_str).collect();
        let failure = Failure::new(Exit::Error, format!("no service is called {service}"));
        return Err(failure.hint(crate::suggest::hint(service.as_str(), &names)).into());
    };
    let recorded = reached.record.iter().flat_map(|record| &record.nodes);
    let own: Vec<_> = recorded.filter(|node| node.role.service() == Some(service)).collect();
    if let Some(first) = own.first() {
        let message = format!("{service} is in the manifest: {} is to run it", first.id);
        let hint = "take its nodes out of the manifest, then `ctl down` and `ctl up`, or give them other roles there";
        return Err(Failure::new(Exit::Conflict, message).hint(hint).into());
    }
    let runs = runs(&reached.client.members().await?, service);
    confirm(args, known, &runs)?;
    let removed = reached.commands().remove_service(service, known.number).await?;
    say(&format!("removed {service}: its spec, and {} of data", objects(&removed)));
    Ok(Exit::Ok)
}

fn objects(removed: &Removed) -> String {
    render::count(usize::try_from(removed.objects).unwrap_or(usize::MAX), "object")
}

/// The members that run a service.
fn runs(view: &Members, service: &ServiceName) -> Vec<NodeId> {
    let runs = |member: &&types::api::Member| {
        member.state.as_ref().is_some_and(|state| state.role.service() == Some(service))
    };
    view.members.iter().filter(runs).map(|member| member.id.clone()).collect()
}

/// Lists what will be removed, and asks.
fn confirm(args: &Args, known: &NumberedSpec, runs: &[NodeId]) -> Result<(), Failure> {
    let service = &args.service;
    say(&question(service, known, runs));
    if args.yes {
        return Ok(());
    }
    let asked = format!("delete it permanently? type the name of the service, {service}, to agree");
    match ask::yes(&asked, service.as_str()) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Exit::Usage, "nothing was deleted")),
        None => {
            Err(Failure::new(Exit::Usage, "`ctl spec rm` asks before it deletes, and there is no terminal")
                .hint(format!("`ctl spec rm {service} --yes` deletes without asking")))
        }
    }
}

/// What will be removed, in words. Pure.
fn question(service: &ServiceName, known: &NumberedSpec, runs: &[NodeId]) -> String {
    let titled = match known.spec.type_of(service) {
        Some(service_type) => service.with_type(&service_type),
        None => service.to_string(),
    };
    let shards = known.spec.shards.map(|shards| {
        let shards = render::count(usize::try_from(shards).unwrap_or(usize::MAX), "shard");
        format!(" and all data of its {shards}")
    });
    let mut text = format!("this deletes the spec of {titled}{}", shards.unwrap_or_default());
    if !runs.is_empty() {
        let names: Vec<_> = runs.iter().map(NodeId::as_str).collect();
        text.push_str(&format!("; {} stands by then", names.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use types::Spec;

    use super::*;

    #[test]
    fn the_question_lists_what_is_removed() {
        let known = |service_type: Option<&str>, shards| NumberedSpec {
            number: 3,
            spec: Spec {
                service_type: service_type.map(|text| text.parse().unwrap()),
                shards,
                ..Spec::default()
            },
        };
        let (sessions, edge) = ("sessions".parse().unwrap(), "edge".parse().unwrap());
        let spare = vec!["spare".parse().unwrap()];
        assert_eq!(
            question(&sessions, &known(Some("storage"), Some(2)), &spare),
            "this deletes the spec of sessions (storage) and all data of its 2 shards; spare stands by then"
        );
        assert_eq!(
            question(&edge, &known(Some("api_gateway"), None), &[]),
            "this deletes the spec of edge (api_gateway)"
        );
    }
}
