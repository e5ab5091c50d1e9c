//! `ctl validate`: every mistake in a manifest at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use manifest::{Manifest, Mistakes};
use types::ClusterId;

use crate::agent_bin;
use crate::exit::Exit;
use crate::manifest_file;
use crate::out::{Format, OutputArg, say};
use crate::reach::Cx;
use crate::render;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl validate
  ctl validate manifests/demo.yaml -o yaml
  ctl validate --schema > coterie.schema.json

It also reads the certificates that settings name, and warns of those that can't be used or have expired, and of hosts \
of routes that no certificate covers.

With -o json or yaml it prints a valid manifest with all defaults filled in, or the mistakes of an invalid one.")]
pub(crate) struct Args {
    /// The manifest, or - for standard input [default: coterie.yaml, else manifests/demo.yaml]
    file: Option<PathBuf>,
    /// Print the JSON Schema of manifests, for editors, with the settings of each service type and their ranges
    #[arg(long, conflicts_with = "file")]
    schema: bool,
    /// The agent that checks the settings [default: the one that the cluster was started with, else beside ctl, else on
    /// the PATH]
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let agent = |cx: &Cx, cluster: Option<&ClusterId>, without: &str| {
        agent_bin::or_warn(args.agent_bin.as_deref(), cx, cluster, without)
    };
    if args.schema {
        let settings = match agent(cx, None, "settings of services are not in the schema")? {
            Some(agent) => agent_bin::settings_schema(&agent).await?,
            None => BTreeMap::new(),
        };
        cx.out.line(&serde_json::to_string_pretty(&manifest::json_schema(&settings))?)?;
        return Ok(Exit::Ok);
    }
    let file = manifest_file::choose(args.file.as_deref())?;
    let format = args.output.output;
    match manifest_file::load(&file, |cluster| agent(cx, cluster, "settings are not checked")).await {
        Ok(loaded) => {
            let manifest = &loaded.checked.manifest;
            cx.out.data(format, manifest, table, names)?;
            loaded.warn();
            say(&format!(
                "{} is right: cluster {}, {}",
                file.display(),
                manifest.cluster,
                render::count(manifest.nodes.len(), "node")
            ));
            Ok(Exit::Ok)
        }
        Err(error) => match error.downcast_ref::<Mistakes>() {
            Some(mistakes) if matches!(format, Format::Json | Format::Yaml) => {
                let list = serde_json::json!({ "mistakes": mistakes });
                cx.out.data(format, &list, |_| String::new(), |_| Vec::new())?;
                Ok(Exit::Usage)
            }
            _ => Err(error),
        },
    }
}

fn table(manifest: &Manifest) -> String {
    let rows: Vec<_> = manifest
        .nodes
        .iter()
        .map(|node| {
            let address = |address: Option<std::net::SocketAddr>| {
                address.map_or_else(|| "any free port".to_owned(), |address| address.to_string())
            };
            vec![node.id.to_string(), node.role.to_string(), address(node.listen), address(node.gossip)]
        })
        .collect();
    render::table(&["NODE", "ROLE", "LISTEN", "GOSSIP"], &rows)
}

fn names(manifest: &Manifest) -> Vec<String> {
    manifest.nodes.iter().map(|node| node.id.to_string()).collect()
}
