//! `ctl spec`: the spec of each service, as on the store, and the removal of services.

mod rm;

use serde::Serialize;
use serde_json::Value;
use types::api::{NumberedSpec, Specs, StoreInfo};
use types::{ServiceName, ServiceType};

use crate::exit::Exit;
use crate::out::{OutputArg, say};
use crate::reach::Cx;
use crate::render;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl spec
  ctl spec -o yaml
  ctl spec rm sessions     remove a service that is no longer in the manifest, with its data

`ctl up` writes it from the manifest, and nodes apply it while they run. `ctl status` shows those that run with an older \
one and why; `ctl up --reset` restarts their roles.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Remove a service: its spec and all of its data
    Rm(rm::Args),
}

/// An object that holds the list, like all lists in JSON.
#[derive(Serialize)]
struct Listed<'a> {
    store: &'a StoreInfo,
    specs: Vec<ListedSpec<'a>>,
}

#[derive(Serialize)]
struct ListedSpec<'a> {
    service: &'a ServiceName,
    /// Its type; absent where the name is no type's.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    service_type: Option<ServiceType>,
    number: u64,
    settings: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<u32>,
    replicas: u32,
}

impl<'a> From<&'a Specs> for Listed<'a> {
    fn from(specs: &'a Specs) -> Self {
        let one = |(service, numbered): (&'a ServiceName, &'a NumberedSpec)| ListedSpec {
            service,
            service_type: numbered.spec.type_of(service),
            number: numbered.number,
            settings: &numbered.spec.settings,
            shards: numbered.spec.shards,
            replicas: numbered.spec.replicas,
        };
        Self { store: &specs.store, specs: specs.specs.iter().map(one).collect() }
    }
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    if let Some(Verb::Rm(args)) = &args.verb {
        return rm::run(args, cx).await;
    }
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
            // Replicas are of shards.
            let replicas =
                numbered.spec.shards.map_or_else(|| "-".to_owned(), |_| numbered.spec.replicas.to_string());
            let number = numbered.number.to_string();
            let service_type =
                numbered.spec.type_of(service).map_or_else(|| "?".to_owned(), |of| of.to_string());
            vec![
                service.to_string(),
                service_type,
                number,
                shards,
                replicas,
                numbered.spec.settings.to_string(),
            ]
        })
        .collect();
    render::table(&["SERVICE", "TYPE", "NUMBER", "SHARDS", "REPLICAS", "SETTINGS"], &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shards_and_replicas_are_shown_for_types_that_have_some() {
        let specs = json!({
            "store": { "id": "01a209b4-6f86-77d4-8835-3e907514f96d", "url": "file:///s" },
            "specs": {
                "edge": { "number": 1, "spec": { "type": "api_gateway", "settings": {} } },
                "api_gateway": { "number": 3, "spec": { "settings": { "a": 1 } } },
                "storage": { "number": 3, "spec": { "settings": {}, "shards": 2, "replicas": 1 } },
            },
        });
        assert_eq!(
            table(&serde_json::from_value(specs).unwrap()),
            "\
SERVICE      TYPE         NUMBER  SHARDS  REPLICAS  SETTINGS
api_gateway  api_gateway  3       -       -         {\"a\":1}
edge         api_gateway  1       -       -         {}
storage      storage      3       2       1         {}"
        );
    }
}
