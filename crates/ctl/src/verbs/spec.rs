//! `ctl spec`: what each service type runs with, as the store says.

use types::api::Specs;

use crate::exit::Exit;
use crate::out::{OutputArg, say};
use crate::reach::Cx;
use crate::render;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl spec
  ctl spec -o yaml

`ctl up` writes it from the manifest. A node runs with it from the next start of its role; `ctl up --reset` \
starts those anew that run with an older one.")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let specs = cx.reach().await?.client.specs().await?;
    cx.out.data(args.output.output, &specs, table, |specs| {
        specs.specs.keys().map(ToString::to_string).collect()
    })?;
    say(&format!("store {} at {}", specs.store.id, specs.store.url));
    Ok(Exit::Ok)
}

fn table(specs: &Specs) -> String {
    let rows: Vec<_> = specs
        .specs
        .iter()
        .map(|(service, numbered)| {
            let shards = numbered.spec.shards.map_or_else(|| "-".to_owned(), |shards| shards.to_string());
            vec![service.to_string(), numbered.number.to_string(), shards, numbered.spec.settings.to_string()]
        })
        .collect();
    render::table(&["TYPE", "NUMBER", "SHARDS", "SETTINGS"], &rows)
}
