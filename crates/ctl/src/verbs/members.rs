//! `ctl members`: the members, as one agent sees them.

use types::api::Members;

use crate::exit::Exit;
use crate::out::{OutputArg, say};
use crate::reach::Cx;
use crate::render;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl members
  ctl members -o name
  ctl members --agent http://10.0.0.7:10000 -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let view = cx.reach().await?.client.members().await?;
    cx.out.data(args.output.output, &view, |view| table(view, cx), names)?;
    say(&format!("{}, as seen by {}", render::count(view.members.len(), "member"), view.viewed_by));
    Ok(Exit::Ok)
}

fn table(view: &Members, cx: &Cx) -> String {
    render::members_table(&view.members, render::now_ms(), cx.out.color, cx.out.columns)
}

fn names(view: &Members) -> Vec<String> {
    view.members.iter().map(|member| member.id.to_string()).collect()
}
