//! Which documents come first.

use super::*;

#[test]
fn the_word_itself_ranks_before_words_with_the_prefix_and_misspelled_ones() {
    // `ngnix` is rare, and would score high without its boost.
    let index = Indexed::new(
        json!({"fields": {"t": {"type": "text"}}}),
        &[
            r#"{"t": "nginx one"}"#,
            r#"{"t": "nginx two"}"#,
            r#"{"t": "nginx three"}"#,
            r#"{"t": "ngnix four"}"#,
            r#"{"t": "nginxes five"}"#,
            r#"{"t": "ngnxi six"}"#,
            r#"{"t": "other"}"#,
        ],
    );
    let text = ParseOptions {
        typos: true,
        fields: BTreeMap::from([("t".to_owned(), 1.0)]),
        ..ParseOptions::default()
    };
    assert_eq!(index.best("nginx", &text), "0 1 2 3");
    assert_eq!(index.best("nginx~2", &text), "0 1 2 3 4 5");
    assert_eq!(index.best("nginx*", &text), "0 1 2 4");
    let scores: Vec<_> = index.ranked("nginx~2", &text).into_iter().map(|(_, score)| score).collect();
    assert!((scores[3] / scores[0] - 0.6).abs() < 1e-5, "{scores:?}");
    assert!((scores[5] / scores[0] - 0.4).abs() < 1e-5, "{scores:?}");
}

#[test]
fn boosts_and_the_best_place_decide_the_score() {
    let index = Indexed::new(
        json!({"fields": {"a": {"type": "text"}, "b": {"type": "text"}}}),
        &[r#"{"a": "x y", "b": "z z"}"#, r#"{"a": "z z", "b": "x y"}"#, r#"{"a": "x y", "b": "x y"}"#],
    );
    let fields = |a, b| ParseOptions {
        fields: BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]),
        ..ParseOptions::default()
    };
    let same: Vec<_> = index.ranked("x", &fields(1.0, 1.0)).into_iter().map(|(_, score)| score).collect();
    assert!(same.iter().all(|score| (score - same[0]).abs() < 1e-6), "{same:?}");
    assert_eq!(index.best("x", &fields(1.0, 3.0)), "1 2 0");
    assert_eq!(index.best("x", &fields(3.0, 1.0)), "0 2 1");
    assert_eq!(index.best("a:x b:x^5", &ParseOptions::default()), "2 1 0");
    assert_eq!(index.ranked("*^2.5", &fields(1.0, 1.0))[0].1, 2.5);
}

#[test]
fn what_is_scored_is_known_and_what_is_excluded_is_not_scored() {
    let index = packages();
    let (ast, expansions) = index
        .parsed("title:ngin* title:\"universal bus\" tag:net size:5 -title:web", &ParseOptions::default());
    let compiled = compile(&ast, &index.schema, &expansions).unwrap();
    let place = &index.schema.places("title").unwrap()[0];
    let mut scored: BTreeSet<_> = ["ngin", "nginx", "universal", "bus"]
        .into_iter()
        .map(|word| index.schema.text_term(place, word))
        .collect();
    scored.insert(index.schema.text_term(&index.schema.places("tag").unwrap()[0], "net"));
    assert_eq!(compiled.scored, scored);
}

#[test]
fn documents_with_any_of_many_words_are_all_found() {
    let texts: Vec<_> = (0..300)
        .map(|number| {
            format!(r#"{{"t": "word{number:03} {}"}}"#, "word007 ".repeat(usize::from(number % 2 == 0)))
        })
        .collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let index = Indexed::new(json!({"fields": {"t": {"type": "text"}}}), &texts);
    let ranked = index.ranked("t:word*", &ParseOptions::default());
    assert_eq!(ranked.len(), 300);
    assert!(ranked[..150].iter().all(|(_, score)| *score > 0.0));
    let (ast, expansions) = index.parsed("t:word*", &ParseOptions::default());
    assert_eq!(expansions.leaves[&0].len(), 50);
    assert!(expansions.incomplete.contains(&0));
    assert_eq!(compile(&ast, &index.schema, &expansions).unwrap().scored.len(), 51);
}

/// The statistics of several shards.
struct Sums<'a>(&'a [Indexed]);

impl Sums<'_> {
    fn sum(&self, of: impl Fn(&Searcher) -> tantivy::Result<u64>) -> tantivy::Result<u64> {
        self.0.iter().map(|shard| of(&shard.searcher)).sum()
    }
}

impl tantivy::query::Bm25StatisticsProvider for Sums<'_> {
    fn total_num_tokens(&self, field: tantivy::schema::Field) -> tantivy::Result<u64> {
        self.sum(|searcher| tantivy::query::Bm25StatisticsProvider::total_num_tokens(searcher, field))
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        self.sum(tantivy::query::Bm25StatisticsProvider::total_num_docs)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        self.sum(|searcher| searcher.doc_freq(term))
    }
}

#[test]
fn shards_with_joint_expansions_and_statistics_rank_as_one_index() {
    let words = ["nginx", "nginy", "ngnix", "proxy", "proxies", "http", "server", "small"];
    let source = |number: usize| {
        let words: Vec<_> =
            (0..4 + number % 5).map(|at| words[(number * 7 + at * at * 3) % words.len()]).collect();
        format!(r#"{{"t": "{}", "d": "{}"}}"#, words.join(" "), words[0])
    };
    let sources: Vec<_> = (0..60).map(source).collect();
    let definition = || json!({"fields": {"t": {"type": "text"}}});
    let part = |shard: Option<usize>| {
        let sources =
            sources.iter().enumerate().filter(|(number, _)| shard.is_none_or(|shard| number % 3 == shard));
        sources.map(|(_, source)| source.as_str()).collect::<Vec<_>>()
    };
    let one = Indexed::new(definition(), &part(None));
    let shards: Vec<_> = (0..3).map(|shard| Indexed::new(definition(), &part(Some(shard)))).collect();
    for text in [
        "nginx",
        "ngin* proxy",
        "nginx~ AND pro*",
        "t:prox?",
        "\"nginx proxy\"~3 server",
        "d:nginx small^2",
        "(-http) OR proxi~",
    ] {
        let ast = parse(text, &typos()).unwrap();
        let expansions = Expansions::union(
            shards.iter().map(|shard| expand(&ast, &shard.schema, &shard.searcher).unwrap()),
        );
        assert_eq!(expansions, Expansions::union([expand(&ast, &one.schema, &one.searcher).unwrap()]));
        let compiled = compile(&ast, &one.schema, &expansions).unwrap();
        let mut expected: Vec<_> = one.top(&*compiled.query).into_iter().map(|(_, score)| score).collect();
        let mut scores = Vec::new();
        for shard in &shards {
            let top = TopDocs::with_limit(100).order_by_score();
            let found = shard
                .searcher
                .search_with_statistics_provider(&*compiled.query, &top, &Sums(&shards))
                .unwrap();
            scores.extend(found.into_iter().map(|(score, _)| score));
        }
        expected.sort_by(f32::total_cmp);
        scores.sort_by(f32::total_cmp);
        assert!(!scores.is_empty() && scores.len() == expected.len(), "{text}");
        assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{text}");
    }
}
