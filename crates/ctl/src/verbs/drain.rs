//! `ctl drain`: a node finishes its requests and refuses new ones.

use types::NodeId;

use super::set_service::{WaitArg, show};
use crate::complete;
use crate::exit::Exit;
use crate::out::OutputArg;
use crate::reach::Cx;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl drain gateway-2
  ctl drain gateway-2 --wait=local -o json

`ctl set-service` gives it a role again.")]
pub(crate) struct Args {
    /// The node, by its id
    #[arg(add = complete::nodes())]
    node: NodeId,
    #[command(flatten)]
    wait: WaitArg,
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = cx.reach().await?;
    match reached.commands().drain(&args.node, args.wait.into()).await {
        Ok(receipt) => show(&receipt, args.wait, args.output, cx),
        Err(error) => Err(reached.explain_unknown(&args.node, None, error).await),
    }
}
