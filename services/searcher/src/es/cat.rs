//! `_cat`: tables, as text or as JSON.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use futures_util::future::join_all;
use http::Method;
use http::request::Parts;
use plugin::shard::ReadLevel;
use serde_json::{Map, Value};

use super::aliases::is_named;
use super::cluster::Health;
use super::error::EsError;
use super::names::Rule;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Media, Reply};
use crate::catalog::{Index, Indexes};
use crate::glob::matches;
use crate::http::Refusal;
use crate::service::SearcherService;

/// How many indexes are asked about at a time.
const AT_ONCE: usize = 8;

/// A column: its name, and its short names.
struct Column {
    name: &'static str,
    short: &'static [&'static str],
    /// Whether it is shown unless `h` says otherwise.
    is_default: bool,
    /// Whether it is aligned to the right.
    is_number: bool,
}

const fn column(name: &'static str, short: &'static [&'static str]) -> Column {
    Column { name, short, is_default: true, is_number: false }
}

const fn number(name: &'static str, short: &'static [&'static str]) -> Column {
    Column { name, short, is_default: true, is_number: true }
}

const INDICES: [Column; 11] = [
    column("health", &["h"]),
    column("status", &["s"]),
    column("index", &["i", "idx"]),
    column("uuid", &["id"]),
    number("pri", &["p", "shards.primary", "shardsPrimary"]),
    number("rep", &["r", "shards.replica", "shardsReplica"]),
    number("docs.count", &["dc", "docsCount"]),
    number("docs.deleted", &["dd", "docsDeleted"]),
    number("store.size", &["ss", "storeSize"]),
    number("pri.store.size", &[]),
    number("dataset.size", &[]),
];

const HEALTH: [Column; 14] = [
    number("epoch", &["t", "time"]),
    column("timestamp", &["ts", "hms", "hhmmss"]),
    column("cluster", &["cl"]),
    column("status", &["st"]),
    number("node.total", &["nt", "nodeTotal"]),
    number("node.data", &["nd", "nodeData"]),
    number("shards", &["t", "sh", "shards.total", "shardsTotal"]),
    number("pri", &["p", "shards.primary", "shardsPrimary"]),
    number("relo", &["r", "shards.relocating", "shardsRelocating"]),
    number("init", &["i", "shards.initializing", "shardsInitializing"]),
    number("unassign", &["u", "shards.unassigned", "shardsUnassigned"]),
    number("pending_tasks", &["pt", "pendingTasks"]),
    column("max_task_wait_time", &["mtwt", "maxTaskWaitTime"]),
    number("active_shards_percent", &["asp", "activeShardsPercent"]),
];

const ALIASES: [Column; 6] = [
    column("alias", &["a"]),
    column("index", &["i", "idx"]),
    column("filter", &["f", "fi"]),
    column("routing.index", &["ri", "routingIndex"]),
    column("routing.search", &["rs", "routingSearch"]),
    column("is_write_index", &["w", "isWriteIndex"]),
];

/// The parameters of every table.
const TABLE: [&str; 6] = ["format", "h", "v", "s", "help", "time"];

/// A cell: what is shown, and the number by which it is sorted.
#[derive(Debug, Clone, PartialEq)]
struct Cell(String, Option<u64>);

impl Cell {
    fn text(text: impl Into<String>) -> Self {
        Self(text.into(), None)
    }

    fn number(number: u64) -> Self {
        Self(number.to_string(), Some(number))
    }
}

/// A table, and which columns of it are wanted.
struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// As text, or as JSON.
    fn show(mut self, parameters: &Parameters, media: &Media) -> Answer {
        if parameters.flag("help")?.unwrap_or(false) {
            let rows =
                self.columns.iter().map(|column| format!("{} | {}\n", column.name, column.short.join(",")));
            return Ok(Reply::text(rows.collect()));
        }
        for key in parameters.list("s").unwrap_or_default().iter().rev() {
            let (name, is_down) = match key.split_once(':') {
                None => (*key, false),
                Some((name, "asc")) => (name, false),
                Some((name, "desc")) => (name, true),
                Some(_) => return Err(EsError::illegal(format!("[s={key}] has no order [asc] or [desc]"))),
            };
            let at = self.at(name)?;
            self.rows.sort_by(|one, other| {
                let (Cell(one, one_number), Cell(other, other_number)) = (&one[at], &other[at]);
                let order = (one_number, one).cmp(&(other_number, other));
                if is_down { order.reverse() } else { order }
            });
        }
        let mut wanted = Vec::new();
        match parameters.list("h") {
            None => wanted.extend((0..self.columns.len()).filter(|at| self.columns[*at].is_default)),
            Some(names) => {
                for name in names {
                    if name.contains('*') {
                        let columns = self.columns.iter().enumerate();
                        wanted.extend(
                            columns.filter(|(_, column)| matches(name, column.name)).map(|(at, _)| at),
                        );
                    } else {
                        wanted.push(self.at(name)?);
                    }
                }
            }
        }
        let is_json = match parameters.text("format") {
            None => media.prefers_json,
            Some("json") => true,
            Some("text" | "txt") => false,
            Some(other) => return Err(EsError::illegal(format!("[format={other}] is not supported"))),
        };
        if is_json {
            let row = |row: &Vec<Cell>| {
                let cells = wanted
                    .iter()
                    .map(|at| (self.columns[*at].name.to_owned(), Value::from(row[*at].0.clone())));
                Value::Object(cells.collect::<Map<_, _>>())
            };
            return Ok(Reply::json(&self.rows.iter().map(row).collect::<Vec<_>>()));
        }
        Ok(Reply::text(self.text(&wanted, parameters.flag("v")?.unwrap_or(false))))
    }

    /// The position of a column. Its full name counts before the short ones of others.
    fn at(&self, name: &str) -> Result<usize, EsError> {
        let by_name = self.columns.iter().position(|column| column.name == name);
        let found = by_name.or_else(|| self.columns.iter().position(|column| column.short.contains(&name)));
        found.ok_or_else(|| EsError::illegal(format!("there is no column [{name}]")))
    }

    fn text(&self, wanted: &[usize], has_head: bool) -> String {
        let head = wanted.iter().map(|at| self.columns[*at].name).collect::<Vec<_>>();
        let rows =
            self.rows.iter().map(|row| wanted.iter().map(|at| row[*at].0.as_str()).collect::<Vec<_>>());
        let lines: Vec<Vec<&str>> = has_head.then_some(head).into_iter().chain(rows).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..wanted.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().zip(&widths).zip(wanted).map(|((cell, width), at)| {
                if self.columns[*at].is_number {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            text.push_str(cells.collect::<Vec<_>>().join(" ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A size, in the unit that was asked for, or in a suitable one.
fn size(bytes: u64, unit: Option<&str>) -> Result<Cell, EsError> {
    const UNITS: [(&str, u64); 5] =
        [("b", 1), ("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30), ("tb", 1 << 40)];
    if let Some(unit) = unit {
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(EsError::illegal(format!("[bytes={unit}] is none of b, kb, mb, gb, tb")));
        };
        return Ok(Cell((bytes / factor).to_string(), Some(bytes)));
    }
    let (name, factor) = UNITS.iter().rev().find(|(_, factor)| bytes >= *factor).unwrap_or(&UNITS[0]);
    let tenths = u128::from(bytes) * 10 / u128::from(*factor);
    let (whole, tenth) = (tenths / 10, tenths % 10);
    let shown = if tenth == 0 { format!("{whole}{name}") } else { format!("{whole}.{tenth}{name}") };
    Ok(Cell(shown, Some(bytes)))
}

impl SearcherService {
    /// Answers `_cat` and what is below it.
    pub(crate) async fn es_cat(&self, rest: &[String], head: &Parts, media: &Media) -> Answer {
        allow(head, &[Method::GET, Method::HEAD])?;
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match rest.as_slice() {
            [] => Ok(Reply::text("=^.^=\n/_cat/aliases\n/_cat/aliases/{alias}\n/_cat/health\n/_cat/indices\n/_cat/indices/{index}\n".to_owned())),
            ["aliases"] => self.cat_aliases("*", head, media).await,
            ["aliases", alias] => self.cat_aliases(alias, head, media).await,
            ["indices"] => self.cat_indices(None, head, media).await,
            ["indices", name] => self.cat_indices(Some(name), head, media).await,
            ["health"] => {
                let parameters = Parameters::parse(head.uri.query(), &[&TABLE[..], &["ts"]].concat())?;
                let health = self.es_health(self.catalog.now().all().count());
                Table { columns: &HEALTH, rows: vec![health_row(&health)] }.show(&parameters, media)
            }
            [other, ..] => Err(EsError::unsupported(&format!("_cat/{other}"))),
        }
    }

    async fn cat_aliases(&self, expression: &str, head: &Parts, media: &Media) -> Answer {
        let parameters = Parameters::parse(head.uri.query(), &TABLE)?;
        let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
        let mut rows = Vec::new();
        for (alias, record) in indexes.aliases.iter().filter(|(alias, _)| is_named(expression, alias)) {
            rows.extend(record.indexes.iter().map(|(index, options)| {
                let is_write_index =
                    options.is_write_index.map_or("-", |flag| if flag { "true" } else { "false" });
                [alias.as_str(), index, "-", "-", "-", is_write_index].map(Cell::text).to_vec()
            }));
        }
        Table { columns: &ALIASES, rows }.show(&parameters, media)
    }

    async fn cat_indices(&self, name: Option<&str>, head: &Parts, media: &Media) -> Answer {
        let known = [&TABLE[..], &["bytes", "health", "pri", "include_unloaded_segments"]].concat();
        let parameters = Parameters::parse(head.uri.query(), &known)?;
        let unit = parameters.text("bytes");
        size(0, unit)?;
        let wanted = parameters.text("health");
        if let Some(wanted) = wanted.filter(|wanted| !matches!(*wanted, "green" | "yellow" | "red")) {
            return Err(EsError::illegal(format!("[health={wanted}] is none of green, yellow, red")));
        }
        if parameters.flag("pri")? == Some(true) {
            return Err(EsError::unsupported("pri"));
        }
        let (indexes, named) = self.es_indexes(name, Rule::of(&parameters)?).await?;
        let mut rows = Vec::with_capacity(named.len());
        for some in named.chunks(AT_ONCE) {
            let asked = some.iter().map(|index| self.index_row(&indexes, index, unit));
            for row in join_all(asked).await {
                rows.push(row?);
            }
        }
        if let Some(wanted) = wanted {
            rows.retain(|row| row[0].0 == wanted);
        }
        Table { columns: &INDICES, rows }.show(&parameters, media)
    }

    async fn index_row(
        &self,
        indexes: &Indexes,
        index: &Arc<Index>,
        unit: Option<&str>,
    ) -> Result<Vec<Cell>, EsError> {
        let (states, failures) = self.states(indexes, index, ReadLevel::Primary).await;
        let (mut documents, mut deleted, mut bytes) = (0, 0, 0);
        for (_, read) in &states {
            documents += read.value.documents;
            deleted += read.value.deleted;
            bytes += read.value.bytes;
        }
        let health = if failures.is_empty() { self.es_health(1).status.as_str() } else { "red" };
        let size = size(bytes, unit)?;
        let (primaries, replicas) = (u64::from(self.member.shards.get()), self.replicas());
        Ok(vec![
            Cell::text(health),
            Cell::text("open"),
            Cell::text(index.name.clone()),
            Cell::text(index.uuid.to_string()),
            Cell::number(primaries),
            Cell::number(replicas),
            Cell::number(documents),
            Cell::number(deleted),
            size.clone(),
            size.clone(),
            size,
        ])
    }
}

fn health_row(health: &Health) -> Vec<Cell> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = DateTime::from_timestamp(i64::try_from(seconds).unwrap_or(0), 0).unwrap_or_default();
    vec![
        Cell::number(seconds),
        Cell::text(now.format("%H:%M:%S").to_string()),
        Cell::text(health.cluster.clone()),
        Cell::text(health.status.as_str()),
        Cell::number(health.nodes),
        Cell::number(health.members),
        Cell::number(health.active()),
        Cell::number(health.primaries),
        Cell::number(0),
        Cell::number(0),
        Cell::number(health.unassigned),
        Cell::number(0),
        Cell::text("-"),
        Cell::text(format!("{:.1}%", health.percent())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(query: &str) -> Result<Reply, EsError> {
        let row = |index: &str, documents: u64| {
            let mut row = vec![Cell::text("x"); INDICES.len()];
            row[2] = Cell::text(index);
            row[6] = Cell::number(documents);
            row
        };
        let known = [&TABLE[..], &["bytes"]].concat();
        let parameters = Parameters::parse(Some(query), &known)?;
        let rows = vec![row("a", 9), row("bb", 10)];
        Table { columns: &INDICES, rows }.show(&parameters, &Media::default())
    }

    #[test]
    fn a_table_has_the_columns_and_the_order_that_are_wanted() {
        for (query, text) in [
            ("h=docs.count,index", " 9 a\n10 bb\n"),
            ("h=i,dc&v", "index docs.count\na              9\nbb            10\n"),
            ("h=index&s=docs.count:desc", "bb\na\n"),
            ("h=docs.c*", " 9\n10\n"),
        ] {
            let shown = format!("{:?}", shown(query).unwrap());
            assert!(shown.contains(&format!("{text:?}")), "{query}: {shown}");
        }
        for (query, words) in [
            ("h=nothing", "[nothing]"),
            ("s=index:up", "[s=index:up]"),
            ("format=yaml", "[format=yaml]"),
            ("b=b", "[b]"),
        ] {
            let error = shown(query).unwrap_err().to_json().to_string();
            assert!(error.contains(words), "{query}: {error}");
        }
    }

    #[test]
    fn sizes_have_a_suitable_unit() {
        for (bytes, unit, text) in [
            (0, None, "0b"),
            (1023, None, "1023b"),
            (1536, None, "1.5kb"),
            (3 << 20, None, "3mb"),
            (1536, Some("b"), "1536"),
            (1536, Some("kb"), "1"),
        ] {
            assert_eq!(size(bytes, unit).unwrap().0, text);
        }
        assert!(size(0, Some("x")).is_err());
    }
}
