//! `ctl set-service`: gives a node another role.

use client::IfMatch;
use types::api::{Receipt, Wait};
use types::{Generation, NodeId, Role, RoleError, ShardId};

use crate::complete;
use crate::exit::{Exit, Failure};
use crate::out::{OutputArg, say};
use crate::reach::Cx;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl set-service standby-1 api_gateway
  ctl set-service n3 storage --shard 2
  ctl set-service n3 storage/2 --take --wait=local
  ctl set-service gateway-2 standby -o json")]
pub(crate) struct Args {
    /// The node, by its id
    #[arg(add = complete::nodes())]
    node: NodeId,
    /// A service, `standby`, or type/shard
    #[arg(add = complete::services())]
    service: String,
    /// The shard, for sharded types, 0 to 65535
    #[arg(long, value_name = "N")]
    shard: Option<ShardId>,
    /// Move the shard here from the node that owns it
    #[arg(long)]
    take: bool,
    /// Change only if the node's generation and revision are still these: GENERATION.REVISION
    #[arg(long, value_name = "G.R", value_parser = parse_if_match)]
    if_match: Option<IfMatch>,
    #[command(flatten)]
    wait: WaitArg,
    #[command(flatten)]
    output: OutputArg,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct WaitArg {
    /// Until the node itself is done, or until every live member has seen it
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    wait: WaitChoice,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum WaitChoice {
    Local,
    #[default]
    All,
}

impl From<WaitArg> for Wait {
    fn from(arg: WaitArg) -> Self {
        match arg.wait {
            WaitChoice::Local => Self::Local,
            WaitChoice::All => Self::All,
        }
    }
}

fn parse_if_match(text: &str) -> Result<IfMatch, String> {
    let parts = text
        .split_once('.')
        .and_then(|(generation, revision)| Some((generation.parse().ok()?, revision.parse().ok()?)));
    let (generation, revision) = parts.ok_or("two whole numbers with a dot between them are needed")?;
    Ok(IfMatch { generation: Generation(generation), revision })
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let role = role(&args.service, args.shard)?;
    let reached = cx.reach().await?;
    let (wait, if_match) = (args.wait.into(), args.if_match);
    let changed = reached.commands().set_service(&args.node, &role, wait, args.take, if_match).await;
    match changed {
        Ok(receipt) => show(&receipt, args.wait, args.output, cx),
        Err(error) => Err(reached.explain_unknown(&args.node, Some(&role), error).await),
    }
}

fn role(service: &str, shard: Option<ShardId>) -> Result<Role, Failure> {
    let wrong = |error: RoleError| Failure::new(Exit::Usage, error.to_string());
    if !service.contains('/') {
        return Role::new(service, shard).map_err(wrong);
    }
    let role: Role = service.parse().map_err(wrong)?;
    if shard.is_some_and(|shard| role.shard() != Some(shard)) {
        return Err(Failure::new(Exit::Usage, format!("`{service}` and --shard name two shards"))
            .hint("leave --shard out"));
    }
    Ok(role)
}

/// Prints a receipt: the change on stdout, its steps on stderr.
pub(crate) fn show(receipt: &Receipt, wait: WaitArg, output: OutputArg, cx: &Cx) -> anyhow::Result<Exit> {
    let is_seen_by_all = matches!(wait.wait, WaitChoice::All);
    let said = |receipt: &Receipt| sentence(receipt, is_seen_by_all);
    cx.out.data(output.output, receipt, said, |receipt| vec![receipt.node.to_string()])?;
    if output.output == crate::out::Format::Table {
        let steps: Vec<_> =
            receipt.steps.iter().map(|step| format!("{} {:.1} ms", step.name, step.ms)).collect();
        if !steps.is_empty() {
            say(&steps.join(", "));
        }
    }
    // Without `--wait all`, members were not waited for, so none is missing.
    for missing in receipt.seen.missing.iter().filter(|_| is_seen_by_all) {
        say(&format!("warning: {} {}", missing.id, missing.why));
    }
    Ok(Exit::Ok)
}

fn sentence(receipt: &Receipt, is_seen_by_all: bool) -> String {
    let state = &receipt.state;
    let mut text = if !receipt.changed {
        format!("{}: is {} already, {}", receipt.node, receipt.to, state.phase)
    } else if receipt.from == receipt.to {
        format!("{}: {}, {}", receipt.node, receipt.to, state.phase)
    } else {
        format!("{}: {} -> {}, {}", receipt.node, receipt.from, receipt.to, state.phase)
    };
    if receipt.changed {
        text.push_str(&format!(" in {:.0} ms", receipt.took_ms));
    }
    if receipt.in_flight > 0 {
        text.push_str(&format!(", {} in flight finished", receipt.in_flight));
    }
    if is_seen_by_all && receipt.seen.of > 0 {
        text.push_str(&format!(", seen by {}/{}", receipt.seen.by, receipt.seen.of));
    }
    for (name, url) in &state.endpoints {
        text.push_str(&format!(", {name} at {url}"));
    }
    crate::render::clean(&text)
}

#[cfg(test)]
mod tests {
    use types::api::Seen;
    use types::{Phase, RoleState};

    use super::*;

    #[test]
    fn a_role_is_named_with_its_shard_or_by_a_flag() {
        let shard = |n: u32| Some(ShardId::try_from(n).unwrap());
        for (service, flag, expected) in [
            ("standby", None, Some("standby")),
            ("api-gateway", None, Some("api-gateway")),
            ("storage", shard(2), Some("storage/2")),
            ("storage/2", None, Some("storage/2")),
            ("storage/2", shard(2), Some("storage/2")),
            ("storage/2", shard(3), None),
            ("standby", shard(0), None),
            ("No Such", None, None),
            ("storage/99999", None, None),
        ] {
            match (role(service, flag), expected) {
                (Ok(role), Some(expected)) => assert_eq!(role.to_string(), expected),
                (Err(failure), None) => assert_eq!(failure.exit(), Exit::Usage),
                (got, _) => panic!("{service}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_receipt_is_a_sentence() {
        let to: Role = "api_gateway".parse().unwrap();
        let mut receipt = Receipt {
            node: "n1".parse().unwrap(),
            generation: Generation(1),
            version: 2,
            from: Role::Standby,
            to: to.clone(),
            state: RoleState { phase: Phase::Ready, ..RoleState::starting(to.clone()) },
            changed: true,
            steps: Vec::new(),
            took_ms: 23.4,
            in_flight: 2,
            seen: Seen { by: 5, of: 5, missing: Vec::new() },
        };
        assert_eq!(
            sentence(&receipt, true),
            "n1: standby -> api_gateway, ready in 23 ms, 2 in flight finished, seen by 5/5"
        );
        assert_eq!(
            sentence(&receipt, false),
            "n1: standby -> api_gateway, ready in 23 ms, 2 in flight finished"
        );
        receipt.from = to;
        receipt.changed = false;
        receipt.in_flight = 0;
        receipt.seen = Seen::default();
        assert_eq!(sentence(&receipt, true), "n1: is api_gateway already, ready");
    }

    #[test]
    fn a_condition_has_two_numbers() {
        assert_eq!(parse_if_match("7.2").unwrap().to_string(), "\"7.2\"");
        assert!(parse_if_match("7").is_err());
    }
}
