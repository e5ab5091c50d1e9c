//! `ctl spec`: what each service type runs with, as the store says.

use serde::Serialize;
use types::api::{NumberedSpec, Specs, StoreInfo};
use types::{ServiceType, Spec};

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

/// As all lists are in JSON: an object with the list in it.
#[derive(Serialize)]
struct Listed<'a> {
    store: &'a StoreInfo,
    specs: Vec<ListedSpec<'a>>,
}

#[derive(Serialize)]
struct ListedSpec<'a> {
    service: &'a ServiceType,
    number: u64,
    #[serde(flatten)]
    spec: &'a Spec,
}

impl<'a> From<&'a Specs> for Listed<'a> {
    fn from(specs: &'a Specs) -> Self {
        let one = |(service, numbered): (&'a ServiceType, &'a NumberedSpec)| ListedSpec {
            service,
            number: numbered.number,
            spec: &numbered.spec,
        };
        Self { store: &specs.store, specs: specs.specs.iter().map(one).collect() }
    }
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let specs = cx.reach().await?.client.specs().await?;
    let list = Listed::from(&specs);
    cx.out.data(
        args.output.output,
        &list,
        |_| table(&specs),
        |list| list.specs.iter().map(|listed| listed.service.to_string()).collect(),
    )?;
    say(&format!("store {} at {}", specs.store.id, specs.store.url));
    Ok(Exit::Ok)
}

fn table(specs: &Specs) -> String {
    let rows: Vec<_> = specs
        .specs
        .iter()
        .map(|(service, numbered)| {
            let shards = numbered.spec.shards.map_or_else(|| "-".to_owned(), |shards| shards.to_string());
            // Copies are of shards.
            let replicas =
                numbered.spec.shards.map_or_else(|| "-".to_owned(), |_| numbered.spec.replicas.to_string());
            let number = numbered.number.to_string();
            vec![service.to_string(), number, shards, replicas, numbered.spec.settings.to_string()]
        })
        .collect();
    render::table(&["TYPE", "NUMBER", "SHARDS", "REPLICAS", "SETTINGS"], &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shards_and_their_replicas_are_shown_of_types_that_have_some() {
        let specs = json!({
            "store": { "id": "01a209b4-6f86-77d4-8835-3e907514f96d", "url": "file:///s" },
            "specs": {
                "api_gateway": { "number": 3, "spec": { "settings": { "a": 1 } } },
                "storage": { "number": 3, "spec": { "settings": {}, "shards": 2, "replicas": 1 } },
            },
        });
        assert_eq!(
            table(&serde_json::from_value(specs).unwrap()),
            "\
TYPE         NUMBER  SHARDS  REPLICAS  SETTINGS
api_gateway  3       -       -         {\"a\":1}
storage      3       2       1         {}"
        );
    }
}
