//! `ctl search`: the documents of an index that match a query, best first.

mod explanation;
mod table;
mod text;

use client::{Highlight, Search, SearchAnswer};
use types::ServiceName;
use types::range::NumberIn;

use crate::complete;
use crate::exit::Exit;
use crate::hints::{self, quoted};
use crate::out::{Format, OutputArg, say};
use crate::owner::Twice;
use crate::reach::Cx;
use crate::service::{self, INDEXES};
use crate::verbs::index::{IndexName, show};
use table::Shape;

/// What stands before and after a word that matched, in an answer for a table: Unicode never gives these two a meaning.
const TAGS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];
/// The length of a fragment in characters, where the table has no width.
const FRAGMENT: usize = 160;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl search packages http proxy
  ctl search packages 'description:\"web server\"'
  ctl search packages --typos postgers
  ctl search packages proxy --filter section:net --facet section
  ctl search packages --sort -installed_size --size 3
  ctl search packages proxy -o json | jq -r '.hits[].id'
  ctl search packages -- -apache proxy

A query has words, \"phrases\", field:word, field:[1 TO 9], prefix*, fuzzy~, +must, -not, AND, OR and parentheses. \
Without one, all documents are found. With -o json the answer is printed as the service gives it, with -o name the ids alone.

Exit code 1 if the answer is incomplete, because a shard did not answer or the time was up; no hits are no error.")]
pub(crate) struct Args {
    /// The index
    #[arg(add = complete::indexes())]
    index: IndexName,
    /// The query; several words are joined [default: all documents]
    query: Vec<String>,
    /// Only documents that match this query too, without an effect on the score; may be repeated
    #[arg(long, value_name = "QUERY")]
    filter: Vec<String>,
    /// Sort by these fields, - before one for descending [default: by score]
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', allow_hyphen_values = true)]
    sort: Vec<String>,
    /// Show at most N documents, up to 1000 [default: 10]
    #[arg(long, value_name = "N")]
    size: Option<NumberIn<0, 1_000>>,
    /// Leave the first N documents out, up to 10000 [default: 0]
    #[arg(long, value_name = "N")]
    from: Option<NumberIn<0, 10_000>>,
    /// Count the values of a field; may be repeated
    #[arg(long, value_name = "FIELD")]
    facet: Vec<String>,
    /// Find misspelled words too
    #[arg(long)]
    typos: bool,
    /// Find documents that have any of the words
    #[arg(long, conflicts_with = "all_words")]
    any_word: bool,
    /// Find only documents that have all words
    #[arg(long)]
    all_words: bool,
    /// Search these fields [default: the default fields of the index]
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    fields: Vec<String>,
    /// Explain the score of each document
    #[arg(long)]
    explain: bool,
    /// How current the answer must be: any (of a replica), primary or strong [default: primary]
    #[arg(long, value_name = "LEVEL", value_parser = ["any", "primary", "strong"], hide_possible_values = true)]
    consistency: Option<String>,
    /// The service, if several have the type searcher
    #[arg(long, value_name = "NAME", add = complete::services())]
    service: Option<ServiceName>,
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = service::reach(cx, args.service.as_ref(), &INDEXES).await?;
    let format = args.output.output;
    let search = args.search(format, cx.out.columns);
    let searching = async |member: &client::Client| member.search_json(args.index.as_str(), &search).await;
    let body = show::ask(&reached, &args.index, Twice::Harmless, searching).await?;
    let answer: SearchAnswer = serde_json::from_str(body.get())?;
    let shape = Shape { color: cx.out.color, columns: cx.out.columns, sort_keys: args.sort.len() };
    match format {
        Format::Json => cx.out.line(body.get())?,
        Format::Yaml => {
            let value: serde_json::Value = serde_json::from_str(body.get())?;
            cx.out.data(format, &value, |_| String::new(), |_| Vec::new())?;
        }
        Format::Name => answer.hits.iter().try_for_each(|hit| cx.out.line(&hit.id))?,
        Format::Table => {
            let text = table::answer(&answer, shape);
            if !text.is_empty() {
                cx.out.line(&text)?;
            }
        }
    }
    let from = args.from.map_or(0, NumberIn::get);
    say(&table::summary(&answer, from));
    if let Some(other) = answer.did_you_mean.as_deref().filter(|_| format == Format::Table) {
        say(&format!("did you mean: {}", hints::command(&args.command(other))));
    }
    let missing = table::missing(&answer);
    for line in &missing {
        say(line);
    }
    Ok(if missing.is_empty() { Exit::Ok } else { Exit::Error })
}

impl Args {
    /// The request. Pure.
    fn search(&self, format: Format, columns: Option<usize>) -> Search {
        let query = self.query.join(" ");
        Search {
            q: (!query.is_empty()).then_some(query),
            filter: self.filter.clone(),
            fields: self.fields.clone(),
            default_operator: match (self.any_word, self.all_words) {
                (true, _) => Some("or"),
                (false, true) => Some("and"),
                (false, false) => None,
            },
            typos: self.typos.then_some("auto"),
            sort: self.sort.clone(),
            size: self.size.map(NumberIn::get),
            from: self.from.map(NumberIn::get),
            search_after: None,
            highlight: match format {
                Format::Table => Some(Highlight {
                    pre: Some(TAGS[0].to_string()),
                    post: Some(TAGS[1].to_string()),
                    fragment_size: Some(columns.unwrap_or(FRAGMENT).clamp(40, 400)),
                    number_of_fragments: Some(1),
                }),
                Format::Json | Format::Yaml => Some(Highlight::default()),
                Format::Name => None,
            },
            facets: self.facet.clone(),
            explain: self.explain,
            source: (format == Format::Name).then_some(false),
            consistency: self.consistency.clone(),
            allow_partial: None,
            did_you_mean: (format == Format::Name).then_some(false),
        }
    }

    /// The command line for another query, without the program's name. Pure.
    fn command(&self, query: &str) -> String {
        let mut words = vec!["search".to_owned(), quoted(self.index.as_str())];
        if !query.starts_with('-') {
            words.push(quoted(query));
        }
        let mut option = |name: &str, value: &str| words.push(format!("--{name}={}", quoted(value)));
        self.filter.iter().for_each(|filter| option("filter", filter));
        if !self.sort.is_empty() {
            option("sort", &self.sort.join(","));
        }
        if let Some(size) = self.size {
            option("size", &size.to_string());
        }
        self.facet.iter().for_each(|field| option("facet", field));
        if !self.fields.is_empty() {
            option("fields", &self.fields.join(","));
        }
        if let Some(level) = &self.consistency {
            option("consistency", level);
        }
        if let Some(service) = &self.service {
            option("service", service.as_str());
        }
        for (name, is_given) in [
            ("--typos", self.typos),
            ("--any-word", self.any_word),
            ("--all-words", self.all_words),
            ("--explain", self.explain),
        ] {
            words.extend(is_given.then(|| name.to_owned()));
        }
        if query.starts_with('-') {
            words.extend(["--".to_owned(), quoted(query)]);
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Line::try_parse_from([&["search"], words].concat()).unwrap().args
    }

    #[test]
    fn the_request_has_what_the_command_line_says() {
        let words =
            ["packages", "http", "proxy", "--filter", "section:net", "--sort", "-size,name", "--all-words"];
        let search = args(&words).search(Format::Table, Some(100));
        assert_eq!(
            serde_json::to_value(&search).unwrap(),
            json!({ "q": "http proxy", "filter": ["section:net"], "sort": ["-size", "name"],
                    "default_operator": "and",
                    "highlight": { "pre": "\u{fdd0}", "post": "\u{fdd1}", "fragment_size": 100,
                                   "number_of_fragments": 1 } })
        );
        let search = args(&["packages", "--facet", "section", "--typos"]).search(Format::Json, None);
        assert_eq!(
            serde_json::to_value(&search).unwrap(),
            json!({ "facets": ["section"], "typos": "auto", "highlight": {} })
        );
        let search = args(&["packages", "--", "-apache"]).search(Format::Name, None);
        assert_eq!(
            serde_json::to_value(&search).unwrap(),
            json!({ "q": "-apache", "source": false, "did_you_mean": false })
        );
    }

    #[test]
    fn what_contradicts_itself_or_is_out_of_range_is_refused() {
        for words in [
            &["packages", "a", "--any-word", "--all-words"][..],
            &["packages", "a", "--size", "1001"],
            &["packages", "a", "--consistency", "weak"],
            &["..", "a"],
            &["", "a"],
            &[],
        ] {
            assert!(Line::try_parse_from([&["search"], words].concat()).is_err(), "{words:?}");
        }
    }

    #[test]
    fn another_spelling_is_a_command_that_works_as_typed() {
        let words = ["packages", "htpp", "--filter", "section:net OR a", "--typos", "--sort", "-size"];
        let command = args(&words).command("http proxy");
        assert_eq!(command, "search packages 'http proxy' --filter='section:net OR a' --sort=-size --typos");
        assert_eq!(args(&["packages", "x"]).command("-a b"), "search packages -- '-a b'");
        assert_eq!(args(&["packages", "x"]).command("it's"), r"search packages 'it'\''s'");
    }
}
