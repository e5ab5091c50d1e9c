//! `ctl index create`: an index from flags, or from a file with its definition.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use client::Created;
use manifest::Variables;
use serde_json::{Map, Value, json};

use super::IndexName;
use crate::aside::aside;
use crate::exit::{Exit, Failure};
use crate::out::say;
use crate::owner::{Twice, with_owner};
use crate::reach::Reached;
use crate::render;

pub(super) const AFTER_HELP: &str = "\
Examples:
  ctl index create books --field title:text:en --field year:i64 --id isbn
  ctl index create logs --field at:date --field message:text --dynamic strict
  ctl index create books --file books.yaml

Types are text, keyword, i64, f64, bool, date, ip and json. Text may name its analyzer: default, a language such as en or \
de, ngram or cjk. Fields can be added later: create the index again with more of them. A file in YAML or JSON has the \
same members as the settings: fields, dynamic, id, default_fields, synonyms; and delete_after.";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name of the index
    index: IndexName,
    /// A field with its type, and for text its analyzer: title:text:en; may be repeated
    #[arg(long, value_name = "FIELD:TYPE", conflicts_with = "file")]
    field: Vec<Field>,
    /// The field whose value is a document's id
    #[arg(long, value_name = "FIELD", conflicts_with = "file")]
    id: Option<String>,
    /// What happens to other fields: true (they are indexed), false (they are only stored) or strict (their document is
    /// refused) [default: true]
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = ["true", "false", "strict"],
        hide_possible_values = true,
        conflicts_with = "file"
    )]
    dynamic: Option<String>,
    /// Read the definition from a file in YAML or JSON, or - for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A field on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    name: String,
    field_type: String,
    analyzer: Option<String>,
}

/// Write a field with its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a field is written as NAME:TYPE, or NAME:text:ANALYZER, like `year:i64` or `title:text:en`")]
pub(super) struct FieldError;

impl FromStr for Field {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let parts: Vec<_> = text.split(':').collect();
        let (name, field_type, analyzer) = match parts[..] {
            [name, field_type] => (name, field_type, None),
            [name, "text", analyzer] if !analyzer.is_empty() => (name, "text", Some(analyzer.to_owned())),
            _ => return Err(FieldError),
        };
        if name.is_empty() || field_type.is_empty() {
            return Err(FieldError);
        }
        Ok(Self { name: name.to_owned(), field_type: field_type.to_owned(), analyzer })
    }
}

pub(super) async fn run(reached: &Reached, args: &Args) -> anyhow::Result<Exit> {
    let definition = match &args.file {
        Some(file) => of_file(file).await?,
        None => of_flags(args)?,
    };
    let index = &args.index;
    let done = create(reached, index, &definition).await?;
    let fields = definition.get("fields").and_then(Value::as_object).map_or(0, Map::len);
    say(&match done {
        Created { created: true, .. } => format!("created {index} with {}", render::count(fields, "field")),
        Created { extended: true, .. } => format!("added fields to {index}"),
        Created { .. } => format!("{index} exists with this definition"),
    });
    Ok(Exit::Ok)
}

/// Creates an index, or adds fields to it.
pub(super) async fn create(
    reached: &Reached,
    index: &IndexName,
    definition: &Value,
) -> anyhow::Result<Created> {
    let creating = async |member: &client::Client| member.create_index(index.as_str(), definition).await;
    with_owner(reached, None, Twice::Harmless, creating).await
}

/// The definition in the flags. What is not given is left out. Pure.
fn of_flags(args: &Args) -> Result<Value, Failure> {
    let mut fields = Map::new();
    for Field { name, field_type, analyzer } in &args.field {
        let mut field = json!({ "type": field_type });
        if let Some(analyzer) = analyzer {
            field["analyzer"] = Value::from(analyzer.as_str());
        }
        if fields.insert(name.clone(), field).is_some() {
            return Err(Failure::new(Exit::Usage, format!("the field `{name}` is given twice")));
        }
    }
    let mut definition = json!({ "fields": fields });
    match args.dynamic.as_deref() {
        None => {}
        Some("strict") => definition["dynamic"] = Value::from("strict"),
        Some(flag) => definition["dynamic"] = Value::from(flag == "true"),
    }
    if let Some(id) = &args.id {
        definition["id"] = Value::from(id.as_str());
    }
    Ok(definition)
}

async fn of_file(path: &Path) -> anyhow::Result<Value> {
    let is_stdin = path.as_os_str() == "-";
    let named = path.to_owned();
    let read = aside(move || {
        if is_stdin { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(named) }
    });
    let shown = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let text = read.await.with_context(|| format!("reading {shown}"))?;
    Ok(parsed(&shown, &text, &|name| std::env::var(name).ok())?)
}

/// JSON is YAML too. Pure.
fn parsed(name: &str, text: &str, variables: Variables<'_>) -> Result<Value, manifest::Mistakes> {
    Ok(manifest::read_tree(name, text, variables)?.to_json())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Result<Args, clap::Error> {
        Ok(Line::try_parse_from([&["create"], words].concat())?.args)
    }

    #[test]
    fn flags_become_a_definition() {
        let flags =
            ["books", "--field", "title:text:en", "--field=year:i64", "--id", "isbn", "--dynamic=strict"];
        assert_eq!(
            of_flags(&args(&flags).unwrap()).unwrap(),
            json!({ "fields": { "title": { "type": "text", "analyzer": "en" }, "year": { "type": "i64" } },
                    "id": "isbn", "dynamic": "strict" })
        );
        assert_eq!(of_flags(&args(&["books"]).unwrap()).unwrap(), json!({ "fields": {} }));
        let off = of_flags(&args(&["books", "--dynamic", "false"]).unwrap()).unwrap();
        assert_eq!(off["dynamic"], json!(false));
        let twice = of_flags(&args(&["books", "--field=a:i64", "--field=a:text"]).unwrap()).unwrap_err();
        assert_eq!(twice, Failure::new(Exit::Usage, "the field `a` is given twice"));
    }

    #[test]
    fn what_is_no_field_or_contradicts_itself_is_refused() {
        for words in [
            &["books", "--field", "title"][..],
            &["books", "--field", ":text"],
            &["books", "--field", "title:"],
            &["books", "--field", "year:i64:en"],
            &["books", "--field", "title:text:"],
            &["books", "--dynamic", "maybe"],
            &["books", "--file", "a.yaml", "--id", "isbn"],
            &["."],
        ] {
            assert!(args(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_file_may_be_in_yaml_or_json() {
        let expected = json!({ "fields": { "title": { "type": "text" } }, "dynamic": true });
        for text in [
            "fields:\n  title: {type: text}\ndynamic: true\n",
            r#"{"fields": {"title": {"type": "text"}}, "dynamic": true}"#,
        ] {
            assert_eq!(parsed("a.yaml", text, &|_| None).unwrap(), expected);
        }
        assert!(parsed("a.yaml", "fields: [", &|_| None).unwrap_err().to_string().contains("a.yaml:1"));
    }
}
