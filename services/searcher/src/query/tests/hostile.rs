//! Queries that are refused, and queries made to break things.

use super::*;

#[test]
fn what_a_field_can_not_have_is_refused() {
    let index = packages();
    for (query, at, message, hint) in [
        ("nginx size:abc", 11, "`abc` is no value of the field `size` of type i64", "write an integer"),
        ("size:1.5", 5, "`1.5` is no value of the field `size` of type i64", "write an integer"),
        ("free:maybe", 5, "`maybe` is no value of the field `free` of type bool", "write true or false"),
        ("at:yesterday", 3, "`yesterday` is no value of the field `at` of type date", "2024-05-31"),
        ("price:[a TO 5]", 6, "`a` or `5` is no value of the field `price` of type f64", "write a number"),
        ("title:[a TO b]", 6, "`title` is text, which has no ranges", "keyword"),
        ("size:1*", 5, "`size` is of type i64, which has no prefixes", "range"),
        ("at:2024-*", 3, "`at` is of type date, which has no prefixes", "range"),
        ("size:[5 TO 1]", 5, "the range is empty", ""),
        ("size:{5 TO 5]", 5, "the range is empty", ""),
        ("at:[2024-02-01 TO 2024-01-01]", 3, "the range is empty", ""),
        ("_seq:x", 5, "`x` is no value of the field `_seq` of type u64", "write an integer"),
    ] {
        let error = index.refused(query);
        assert_eq!(error.at, Some(at), "{query}: {error:?}");
        assert!(error.message.contains(message), "{query}: {error:?}");
        assert!(error.hint.unwrap_or_default().contains(hint), "{query}");
    }
}

#[test]
fn an_unknown_field_is_refused_with_a_similar_one() {
    let index = Indexed::new(json!({"fields": {"title": {"type": "text"}}, "dynamic": "strict"}), &[]);
    let error = index.refused("a titel:x");
    assert_eq!(error.message, "there is no field `titel`");
    assert_eq!((error.at, error.hint.as_deref()), (Some(8), Some("did you mean `title`?")));
    assert!(index.refused("http://x").hint.unwrap().contains("quotes"));
    let fields = BTreeMap::from([("titel".to_owned(), 1.0)]);
    let ast = parse("x", &ParseOptions { fields, ..ParseOptions::default() }).unwrap();
    assert_eq!(check(&ast, &index.schema).unwrap_err().hint.as_deref(), Some("did you mean `title`?"));
    for boost in [-1.0, f32::NAN, f32::INFINITY] {
        let fields = BTreeMap::from([("title".to_owned(), boost)]);
        let ast = parse("x", &ParseOptions { fields, ..ParseOptions::default() }).unwrap();
        assert!(check(&ast, &index.schema).unwrap_err().message.contains("boost"));
    }
}

#[test]
fn queries_that_would_do_too_much_are_refused() {
    let fields: serde_json::Map<_, _> = (0..20).map(|n| (format!("f{n}"), json!({"type": "text"}))).collect();
    let index = Indexed::new(json!({"fields": fields}), &[]);
    assert!(index.refused(&"a ".repeat(600)).message.contains("10000 searches"));
    assert!(index.refused(&"a* ".repeat(55)).message.contains("1000 searches"));
    assert!(index.refused(&"f1:a* ".repeat(65)).message.contains("64 prefixes"));
    assert!(index.refused(&format!("f1:\"{}\"", "a ".repeat(1025))).message.contains("1024 words"));
}

/// What a tree matches, by the sets of its leaves.
fn model(node: &Node, leaves: &BTreeMap<u32, BTreeSet<String>>, all: &BTreeSet<String>) -> BTreeSet<String> {
    match node {
        Node::All => all.clone(),
        Node::Leaf(leaf) => leaves[&leaf.number].clone(),
        Node::Boosted(node, _) => model(node, leaves, all),
        Node::Boolean(clauses) => {
            let of = |occur| {
                let clauses = clauses.iter().filter(move |clause| clause.occur == occur);
                clauses.map(|clause| model(&clause.node, leaves, all)).collect::<Vec<_>>()
            };
            let (must, should, must_not) = (of(Occur::Must), of(Occur::Should), of(Occur::MustNot));
            let mut matching = match (must.is_empty(), should.is_empty()) {
                (true, false) => should.into_iter().flatten().collect(),
                _ => all.clone(),
            };
            for set in must {
                matching.retain(|id| set.contains(id));
            }
            for set in must_not {
                matching.retain(|id| !set.contains(id));
            }
            matching
        }
        other => unreachable!("no native query becomes {other:?}"),
    }
}

#[test]
fn boolean_queries_match_what_their_leaves_say() {
    use proptest::prelude::*;
    let words = ["red", "green", "blue", "redder", "grey"];
    let source = |number: usize| {
        let text: Vec<_> =
            (0..1 + number % 4).map(|at| words[(number * 13 + at * 7 + number / 5) % 5]).collect();
        format!(r#"{{"t": "{}", "n": {}, "k": "{}"}}"#, text.join(" "), number % 9, words[number % 5])
    };
    let sources: Vec<_> = (0..200).map(source).collect();
    let sources: Vec<_> = sources.iter().map(String::as_str).collect();
    let index =
        Indexed::segments(json!({"fields": {"t": {"type": "text"}}}), &[&sources[..150], &sources[150..]]);
    let leaf = prop_oneof![
        Just("red"),
        Just("t:green"),
        Just("\"red green\""),
        Just("\"green red\"~2"),
        Just("red*"),
        Just("gr?y"),
        Just("n:3"),
        Just("n:[2 TO 5]"),
        Just("n:>7"),
        Just("k:blue"),
        Just("k:gr*"),
        Just("gren~"),
        Just("k:*"),
        Just("nothing"),
        Just("*"),
        Just("t:\"blue red\""),
        Just("\"red red\""),
    ];
    let tree = leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
        let clause = (prop_oneof![Just("+"), Just("-"), Just("")], inner.clone())
            .prop_map(|(sign, inner)| format!("{sign}{inner}"));
        prop_oneof![
            proptest::collection::vec(clause, 1..4).prop_map(|clauses| format!("({})", clauses.join(" "))),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" AND "))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR NOT {b})")),
            inner.prop_map(|inner| format!("(NOT {inner})^0.5")),
        ]
    });
    let all: BTreeSet<_> = (0..200).map(|number| number.to_string()).collect();
    let ids = |text: &str| -> BTreeSet<_> {
        index.ranked(text, &ParseOptions::default()).into_iter().map(|(id, _)| id).collect()
    };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        cases: 128,
        ..ProptestConfig::default()
    });
    runner
        .run(&tree, |text| {
            let ast = parse(&text, &ParseOptions::default()).unwrap();
            let leaves = ast.leaves().into_iter().map(|leaf| (leaf.number, ids(&leaf.to_string()))).collect();
            prop_assert_eq!(ids(&text), model(&ast.root, &leaves, &all));
            Ok(())
        })
        .unwrap();
}

#[test]
fn patterns_that_look_at_too_much_fail() {
    let sources: Vec<_> = (0..100).map(|number| format!(r#"{{"t": "word{number}"}}"#)).collect();
    let sources: Vec<_> = sources.iter().map(String::as_str).collect();
    let index = Indexed::new(json!({"fields": {"t": {"type": "text"}}}), &sources);
    let place = &index.schema.places("t").unwrap()[0];
    let ast = parse("t:word*", &ParseOptions::default()).unwrap();
    let selection = place::selection(ast.leaves()[0], &ast.options, &index.schema, place).unwrap();
    let budget = selected::Budget::new();
    let automaton = Arc::new(selection.automaton().unwrap());
    let query = selected::Selected { field: place.field, automaton, budget: budget.clone() };
    assert_eq!(index.searcher.search(&query, &Count).unwrap(), 100);
    budget.spend_all();
    assert!(index.searcher.search(&query, &Count).unwrap_err().to_string().contains("too much"));
}

#[test]
fn no_query_panics_in_an_index() {
    use proptest::prelude::*;
    let index = packages();
    let field = prop_oneof![
        Just(""),
        Just("title:"),
        Just("tag:"),
        Just("size:"),
        Just("price:"),
        Just("free:"),
        Just("at:"),
        Just("author.age:"),
        Just("n:"),
        Just("_id:"),
        Just("_seq:"),
        Just("note:"),
    ];
    let value = prop_oneof![
        Just("nginx"),
        Just("1"),
        Just("-1.5"),
        Just("true"),
        Just("2024-01-01"),
        Just("[1 TO 2.5]"),
        Just("[1 TO a]"),
        Just(">5"),
        Just("[true TO 5]"),
        Just("[2024-01-01 TO 3]"),
        Just("[\"\" TO b]"),
        Just("{-1 TO 18446744073709551615}"),
        Just("*"),
        Just("n*"),
        Just("?"),
        Just("*a*"),
        Just("ngnix~"),
        Just("\"a b\"~2"),
        Just("\"\""),
        Just("the"),
        Just("wi-fi"),
        Just("\u{1f600}*"),
    ];
    let clause = (prop_oneof![Just("+"), Just("-"), Just(""), Just("NOT ")], field, value)
        .prop_map(|(a, b, c)| format!("{a}{b}{c}"));
    let query = proptest::collection::vec(clause, 1..5).prop_map(|clauses| clauses.join(" "));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        cases: 128,
        ..ProptestConfig::default()
    });
    runner
        .run(&(query, any::<bool>(), any::<bool>()), |(text, all_words, typos)| {
            let options = ParseOptions { all_words, typos, ..ParseOptions::default() };
            if let Ok(ast) = parse(&text, &options)
                && check(&ast, &index.schema).is_ok()
            {
                index.ranked(&text, &options);
            }
            Ok(())
        })
        .unwrap();
}
