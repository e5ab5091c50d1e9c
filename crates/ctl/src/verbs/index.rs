//! `ctl index`: the indexes of the cluster's search, and their documents.

mod create;
mod export;
mod import;
mod reindex;
pub(crate) mod show;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use client::{ClientError, IndexSummary};
use serde::Serialize;
use tokio::time::Instant;
use types::ServiceName;

use crate::ask;
use crate::complete;
use crate::exit::{Exit, Failure};
use crate::hints::quoted;
use crate::interrupt::Interrupt;
use crate::out::{OutputArg, Progress, say};
use crate::owner::{Twice, with_owner};
use crate::reach::{Cx, Reached};
use crate::render;
use crate::service::{self, INDEXES};

/// How long a merge of all segments may take.
const COMPACTION: Duration = Duration::from_secs(3_600);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl index ls
  ctl index show packages
  ctl index create books --field title:text:en --field year:i64 --id isbn
  ctl index import books books.ndjson
  ctl index export books --output books.ndjson
  ctl index reindex books books-2
  ctl index compact books
  ctl index delete books
  ctl index --service archive ls

`ctl search` searches an index.")]
pub(crate) struct Args {
    /// The service, if several have the type searcher
    #[arg(long, global = true, value_name = "NAME", add = complete::services())]
    service: Option<ServiceName>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the indexes
    #[command(after_help = "Examples:\n  ctl index ls\n  ctl index ls -o name")]
    Ls(OutputArg),
    /// Show the fields of an index, and the state of its shards
    #[command(after_help = "Examples:\n  ctl index show packages\n  ctl index show packages -o yaml")]
    Show {
        /// The index
        #[arg(add = complete::indexes())]
        index: IndexName,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Create an index, or add fields to it
    #[command(after_help = create::AFTER_HELP)]
    Create(create::Args),
    /// Delete an index with all of its documents
    #[command(after_help = "\
Examples:
  ctl index delete books
  ctl index delete books --yes

An index that is declared in the service's settings can't be deleted.")]
    Delete {
        /// The index
        #[arg(add = complete::indexes())]
        index: IndexName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Merge the segments of an index and drop deleted documents from them
    #[command(after_help = "\
Examples:
  ctl index compact packages

Searches go on meanwhile, and rank without regard to deleted documents afterwards. A large index takes minutes.")]
    Compact {
        /// The index
        #[arg(add = complete::indexes())]
        index: IndexName,
    },
    /// Copy the documents of an index into another one, which may define its fields otherwise
    #[command(after_help = reindex::AFTER_HELP)]
    Reindex(reindex::Args),
    /// Store documents, a line of JSON each; fast
    #[command(after_help = import::AFTER_HELP)]
    Import(import::Args),
    /// Write all documents, a line of JSON each
    #[command(after_help = export::AFTER_HELP)]
    Export(export::Args),
}

/// The name of an index. The service checks all rules; here it must only be fit for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexName(String);

impl IndexName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Give the name of an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no index can have this name; `ctl index ls` lists those that there are")]
pub(crate) struct IndexNameError;

impl FromStr for IndexName {
    type Err = IndexNameError;

    fn from_str(text: &str) -> Result<Self, IndexNameError> {
        // URL libraries remove dot segments.
        if matches!(text, "" | "." | "..") { Err(IndexNameError) } else { Ok(Self(text.to_owned())) }
    }
}

/// The indexes.
#[derive(Debug, Serialize)]
struct Listing {
    indexes: Vec<IndexSummary>,
}

pub(crate) async fn run(args: &Args, cx: &Cx, interrupt: &mut Interrupt) -> anyhow::Result<Exit> {
    match &args.verb {
        Verb::Import(of) => import::run(of, args.service.as_ref(), cx, interrupt).await,
        verb => interrupt.unless(dispatch(verb, args.service.as_ref(), cx)).await,
    }
}

async fn dispatch(verb: &Verb, service: Option<&ServiceName>, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = &service::reach(cx, service, &INDEXES).await?;
    match verb {
        Verb::Ls(output) => {
            let listing = async |member: &client::Client| member.indexes().await;
            let indexes = with_owner(reached, None, Twice::Harmless, listing).await?;
            let number = indexes.len();
            cx.out.data(output.output, &Listing { indexes }, table, |listing| {
                listing.indexes.iter().map(|index| index.name.clone()).collect()
            })?;
            say(&if number == 1 { "1 index".to_owned() } else { format!("{number} indexes") });
            Ok(Exit::Ok)
        }
        Verb::Show { index, output } => show::run(reached, index, output.output, cx).await,
        Verb::Create(args) => create::run(reached, args).await,
        Verb::Delete { index, yes } => delete(reached, index, *yes).await,
        Verb::Compact { index } => compact(reached, index).await,
        Verb::Reindex(args) => reindex::run(reached, args, cx).await,
        Verb::Export(args) => export::run(reached, args).await,
        Verb::Import(_) => unreachable!("handled by the caller"),
    }
}

/// Documents and bytes have a column if the service counts them, aliases and `delete_after` if an index has them.
fn table(listing: &Listing) -> String {
    let indexes = &listing.indexes;
    let has_documents = indexes.iter().any(|index| index.documents.is_some());
    let has_bytes = indexes.iter().any(|index| index.bytes.is_some());
    let has_aliases = indexes.iter().any(|index| !index.aliases.is_empty());
    let has_limits = indexes.iter().any(|index| index.delete_after.is_some());
    let mut header = vec!["INDEX", "FIELDS"];
    header.extend(has_documents.then_some("DOCUMENTS"));
    header.extend(has_bytes.then_some("SIZE"));
    header.extend(has_aliases.then_some("ALIASES"));
    header.extend(has_limits.then_some("DELETE AFTER"));
    header.push("DEFINED IN");
    let row = |index: &IndexSummary| {
        let mut row = vec![index.name.clone(), index.fields.to_string()];
        if has_documents {
            row.push(index.documents.map(|number| number.to_string()).unwrap_or_default());
        }
        if has_bytes {
            row.push(index.bytes.map(render::bytes).unwrap_or_default());
        }
        if has_aliases {
            row.push(index.aliases.join(", "));
        }
        if has_limits {
            row.push(index.delete_after.clone().unwrap_or_default());
        }
        row.push(if index.declared { "settings" } else { "catalog" }.to_owned());
        row
    };
    render::table(&header, &indexes.iter().map(row).collect::<Vec<_>>())
}

/// A member waits about a minute for a merge, which goes on without it: the next request waits for the rest.
async fn compact(reached: &Reached, index: &IndexName) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let mut progress = Progress::new();
    let compacting =
        async |member: &client::Client| member.within(COMPACTION).compact_index(index.as_str()).await;
    loop {
        let error = match show::ask(reached, index, Twice::Harmless, compacting).await {
            Ok(()) => break,
            Err(error) => error,
        };
        let problem = error.downcast_ref::<ClientError>().and_then(ClientError::problem);
        if problem.is_none_or(|problem| problem.status != 504) || began.elapsed() > COMPACTION {
            return Err(error);
        }
        progress.wait_for(&format!("compacting {index}, since {} s", began.elapsed().as_secs()));
    }
    progress.clear();
    say(&format!("compacted {index}"));
    Ok(Exit::Ok)
}

async fn delete(reached: &Reached, index: &IndexName, yes: bool) -> anyhow::Result<Exit> {
    let shown = show::fetch(reached, index).await?;
    say(&question(index, shown.get("documents").and_then(serde_json::Value::as_u64)));
    if !yes {
        let asked = format!("delete it permanently? type the name of the index, {index}, to agree");
        match ask::yes(&asked, index.as_str()) {
            Some(true) => {}
            Some(false) => return Err(Failure::new(Exit::Usage, "nothing was deleted").into()),
            None => {
                let message = "`ctl index delete` asks before it deletes, and there is no terminal";
                let yes =
                    format!("`ctl index delete {} --yes` deletes without asking", quoted(index.as_str()));
                return Err(Failure::new(Exit::Usage, message).hint(yes).into());
            }
        }
    }
    let deleting = async |member: &client::Client| member.delete_index(index.as_str()).await;
    // If the answer to the first request is lost, a second one would say that there is no such index.
    show::ask(reached, index, Twice::Differs, deleting).await?;
    say(&format!("deleted {index}"));
    Ok(Exit::Ok)
}

/// What will be deleted, in words. Pure.
fn question(index: &IndexName, documents: Option<u64>) -> String {
    let documents = documents.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    match documents {
        Some(number) => format!("this deletes {index} with {}", render::count(number, "document")),
        None => format!("this deletes {index} with all of its documents"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(name: &str, documents: Option<u64>, declared: bool) -> IndexSummary {
        let bytes = documents.map(|number| number * 1024);
        let (aliases, delete_after) = (Vec::new(), None);
        let (name, uuid) = (name.to_owned(), "u".to_owned());
        IndexSummary { name, uuid, fields: 3, documents, bytes, declared, aliases, delete_after }
    }

    #[test]
    fn aliases_and_when_an_index_is_deleted_are_shown_if_there_are_any() {
        let one = IndexSummary {
            aliases: vec!["logs".to_owned(), "now".to_owned()],
            delete_after: Some("30d".to_owned()),
            ..summary("logs-1", None, false)
        };
        assert_eq!(
            table(&Listing { indexes: vec![one, summary("packages", None, true)] }),
            "\
INDEX     FIELDS  ALIASES    DELETE AFTER  DEFINED IN
logs-1    3       logs, now  30d           catalog
packages  3                                settings"
        );
    }

    #[test]
    fn indexes_are_listed_with_what_the_service_counts() {
        let listing =
            Listing { indexes: vec![summary("books", Some(12), false), summary("packages", None, true)] };
        assert_eq!(
            table(&listing),
            "\
INDEX     FIELDS  DOCUMENTS  SIZE      DEFINED IN
books     3       12         12.0 KiB  catalog
packages  3                            settings"
        );
        let listing = Listing { indexes: vec![summary("books", None, false)] };
        assert_eq!(table(&listing), "INDEX  FIELDS  DEFINED IN\nbooks  3       catalog");
    }

    #[test]
    fn the_question_counts_what_is_deleted() {
        let books = "books".parse().unwrap();
        assert_eq!(question(&books, Some(1)), "this deletes books with 1 document");
        assert_eq!(question(&books, None), "this deletes books with all of its documents");
    }
}
