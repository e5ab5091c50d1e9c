//! `ctl version`: the version of ctl, and of each agent if a cluster is reached.

use std::collections::BTreeMap;

use serde::Serialize;
use types::NodeId;

use crate::exit::Exit;
use crate::out::OutputArg;
use crate::reach::Cx;
use crate::render;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl version
  ctl version -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Serialize)]
struct Versions {
    ctl: &'static str,
    agents: BTreeMap<NodeId, String>,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let versions = Versions { ctl: env!("CARGO_PKG_VERSION"), agents: agents(cx).await };
    cx.out.data(args.output.output, &versions, table, |versions| vec![versions.ctl.to_owned()])?;
    Ok(Exit::Ok)
}

/// It is not an error if there is no cluster.
async fn agents(cx: &Cx) -> BTreeMap<NodeId, String> {
    let Ok(reached) = cx.reach().await else {
        return BTreeMap::new();
    };
    let view = reached.client.members().await;
    let members = view.map(|view| view.members).unwrap_or_default();
    let versions = members.into_iter().map(|member| (member.id, member.about.version));
    versions.collect()
}

fn table(versions: &Versions) -> String {
    let mut text = format!("ctl {}", versions.ctl);
    for (id, version) in &versions.agents {
        text.push_str(&format!("\nagent {} on {id}", render::clean(version)));
    }
    text
}
