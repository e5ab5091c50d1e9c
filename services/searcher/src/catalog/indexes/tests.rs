use uuid::Uuid;

use super::super::alias::AliasOptions;
use super::*;
use crate::definition::Definition;

/// The name of an alias, and its indexes with their `is_write_index`.
type Alias<'a> = (&'a str, &'a [(&'a str, Option<bool>)]);

fn indexes(names: &[&str], aliases: &[Alias]) -> Indexes {
    let index = |(number, name): (usize, &&str)| {
        let created = Definition::default();
        let schema = Arc::new(IndexSchema::new(&created, Arc::new(created.clone())));
        Arc::new(Index { name: (*name).to_owned(), uuid: Uuid::from_u128(number as u128), created, schema })
    };
    let alias = |(name, of): &Alias| {
        let of = of.iter().map(|(index, flag)| ((*index).to_owned(), AliasOptions { is_write_index: *flag }));
        ((*name).to_owned(), AliasRecord { indexes: of.collect() })
    };
    let aliases = aliases.iter().map(alias).collect();
    Indexes { aliases, ..Indexes::new(1, names.iter().enumerate().map(index)) }
}

fn shown(found: &[Arc<Index>]) -> String {
    found.iter().map(|index| index.name.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn lists_patterns_and_exclusions_name_indexes_once_also_by_their_aliases() {
    let indexes = indexes(
        &["a", "logs-1", "logs-2"],
        &[("all-logs", &[("logs-1", None), ("logs-2", None)]), ("second", &[("logs-2", None)])],
    );
    let rule = Rule { ignores_unavailable: false, allows_none: true };
    let named = |expression: &str, rule| indexes.resolve(expression, rule).map(|found| shown(&found));
    for (expression, names) in [
        ("a", "a"),
        ("", "a logs-1 logs-2"),
        ("_all", "a logs-1 logs-2"),
        ("logs-*", "logs-1 logs-2"),
        ("logs-2,logs-*,a", "a logs-1 logs-2"),
        ("logs-*,-logs-2", "logs-1"),
        ("logs-*,-*-2", "logs-1"),
        ("*,-*", ""),
        ("nothing-*", ""),
        ("all-logs", "logs-1 logs-2"),
        ("all-logs,second,a", "a logs-1 logs-2"),
        ("sec*", "logs-2"),
        ("logs-*,-second", "logs-1"),
        ("*,-all-*", "a"),
    ] {
        assert_eq!(named(expression, rule).as_deref(), Ok(names), "{expression}");
    }
    let missing = |found| matches!(found, Err(ResolveError::NoSuchIndex(_)));
    assert!(missing(named("a,b", rule)));
    assert_eq!(named("a,b", Rule { ignores_unavailable: true, ..rule }), Ok("a".to_owned()));
    assert!(missing(named("b*", Rule { allows_none: false, ..rule })));
    for wrong in ["A", "<logs-{now}>", "other:a", "-a"] {
        assert!(
            named(wrong, rule).is_err_and(|error| !matches!(error, ResolveError::NoSuchIndex(_))),
            "{wrong}"
        );
    }
    assert!(has_pattern("") && has_pattern("a,b*") && has_pattern("_all") && !has_pattern("a,b"));
}

#[test]
fn reads_of_an_alias_go_to_all_of_its_indexes_and_writes_to_one() {
    let indexes = indexes(
        &["a", "b"],
        &[
            ("one", &[("a", None)]),
            ("closed", &[("a", Some(false))]),
            ("both", &[("a", None), ("b", None)]),
            ("current", &[("a", Some(false)), ("b", Some(true))]),
        ],
    );
    for (name, read, write) in [
        ("a", "a", Some("a")),
        ("one", "a", Some("a")),
        ("closed", "a", None),
        ("both", "a b", None),
        ("current", "a b", Some("b")),
    ] {
        assert_eq!(shown(&indexes.read(name).unwrap()), read, "{name}");
        let index = indexes.to_write(name);
        assert_eq!(index.as_ref().ok().map(|index| index.name.as_str()), write, "{name}");
        assert!(index.is_ok() || matches!(index, Err(ResolveError::NoWriteIndex { .. })), "{name}");
        assert_eq!(indexes.one(name).is_ok(), !read.contains(' '), "{name}");
    }
    let error = indexes.one("both").unwrap_err();
    assert_eq!(error.to_string(), "the alias `both` has more than one index (a, b), and one is wanted here");
    assert_eq!(indexes.read("currant").unwrap_err().similar.as_deref(), Some("current"));
    assert!(indexes.has("a") && indexes.has("both") && !indexes.has("c"));
}
