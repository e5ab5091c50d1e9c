use std::ops::Bound;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::ast::{Leaf, Matches, Piece, Span};
use super::*;

fn parsed(text: &str) -> String {
    parse(text, &ParseOptions::default()).unwrap().to_string()
}

fn all_words() -> ParseOptions {
    ParseOptions { all_words: true, ..ParseOptions::default() }
}

fn refused(text: &str) -> QueryError {
    parse(text, &ParseOptions::default()).expect_err(text)
}

#[test]
fn every_form_is_understood() {
    let table = [
        ("", "*"),
        ("  \t", "*"),
        ("*", "*"),
        ("*:*", "*"),
        ("nginx", "nginx"),
        ("http proxy", "(http OR proxy)"),
        ("http OR proxy", "(http OR proxy)"),
        ("http AND proxy", "(+http +proxy)"),
        ("a b AND c", "(a OR (+b +c))"),
        ("a OR b AND c", "(a OR (+b +c))"),
        ("a OR b c", "((a OR b) OR c)"),
        ("a AND NOT b", "(+a -b)"),
        ("a NOT b", "(a -b)"),
        ("a OR -b", "(a OR (-b))"),
        ("NOT a", "(-a)"),
        ("NOT NOT a", "(-(-a))"),
        ("NOT (a b)", "(-(a OR b))"),
        ("NOT(a)", "(-a)"),
        ("+a -b c", "(+a -b c)"),
        ("+a", "a"),
        ("((a))", "a"),
        ("and or not", "(and OR or OR not)"),
        ("ANDROID NOTE", "(ANDROID OR NOTE)"),
        ("\\AND", "\\AND"),
        ("title:nginx", "title:nginx"),
        ("author.name:ada", "author.name:ada"),
        ("title:\"http proxy\"~2", "title:\"http proxy\"~2"),
        ("title:(a b body:c)", "(title:a OR title:b OR body:c)"),
        ("title:(+a -b)^2", "(+title:a -title:b)^2"),
        ("title:AND", "title:\\AND"),
        ("at:2024-01-01T10:00:00Z", "at:2024\\-01\\-01T10\\:00\\:00Z"),
        ("size:[1 TO 10]", "size:[\"1\" TO \"10\"]"),
        ("size:{1 TO 10}", "size:{\"1\" TO \"10\"}"),
        ("size:[1 TO 10}", "size:[\"1\" TO \"10\"}"),
        ("size:[ 1  TO * ]", "size:[\"1\" TO *]"),
        ("size:[* TO *]", "size:*"),
        ("size:>100", "size:{\"100\" TO *]"),
        ("size:>=100", "size:[\"100\" TO *]"),
        ("size:<-1.5^2", "size:[* TO \"-1.5\"}^2"),
        ("size:<=\"a b\"", "size:[* TO \"a b\"]"),
        ("size:(>1 <5)", "(size:{\"1\" TO *] OR size:[* TO \"5\"})"),
        ("at:[2024-01-01T00:00:00Z TO 2025-01-01]", "at:[\"2024-01-01T00:00:00Z\" TO \"2025-01-01\"]"),
        ("size:-5", "size:\\-5"),
        ("size:*", "size:*"),
        ("ngin*", "ngin*"),
        ("title:ngin**", "title:ngin*"),
        ("te?t", "te?t"),
        ("*proxy", "*proxy"),
        ("a\\*b", "a\\*b"),
        ("ngnix~", "ngnix~"),
        ("ngnix~1 title:ngnix~2", "(ngnix~1 OR title:ngnix~2)"),
        ("a^2 b^0.5", "(a^2 OR b^0.5)"),
        ("(a^2)^3", "a^6"),
        ("wi-fi C++ a - b", "(wi\\-fi OR C\\+\\+ OR a OR \\- OR b)"),
        ("\"a\"\"b\"(c)d", "(\"a\" OR \"b\" OR c OR d)"),
        ("\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\""),
        ("usr/bin/x", "usr/bin/x"),
        ("\u{fc}ber \u{65e5}\u{672c}", "(\u{fc}ber OR \u{65e5}\u{672c})"),
    ];
    for (text, tree) in table {
        assert_eq!(parsed(text), tree, "{text}");
        assert_eq!(parsed(tree), tree, "{text}");
    }
}

#[test]
fn with_all_words_every_word_must_match_except_where_or_is_written() {
    for (text, tree) in [
        ("http proxy", "(+http +proxy)"),
        ("http -proxy", "(+http -proxy)"),
        ("a (b OR c) d", "(+a +(b OR c) +d)"),
        ("a b OR c", "(+a +(b OR c))"),
        ("title:(a b)", "(+title:a +title:b)"),
    ] {
        let ast = parse(text, &all_words()).unwrap();
        assert_eq!(ast.to_string(), tree, "{text}");
        assert_eq!(parse(tree, &all_words()).unwrap(), ast);
    }
}

#[test]
fn a_malformed_query_is_refused_with_its_position() {
    for (text, at, message) in [
        ("a \"b c", 2, "closing quote is missing"),
        ("(a", 0, "closing parenthesis is missing"),
        ("a)", 1, "closes nothing"),
        (")", 0, "closes nothing"),
        ("a ()", 2, "nothing between the parentheses"),
        ("title:()", 6, "nothing between the parentheses"),
        ("title:", 0, "a value is missing after `title:`"),
        ("title: a", 0, "a value is missing after `title:`"),
        ("a :b", 2, "the name of a field is missing"),
        ("ti*:b", 0, "can't have wildcards"),
        ("size:[]", 5, "a side of the range is missing"),
        ("size:[1 TO]", 5, "a side of the range is missing"),
        ("size:[TO 5]", 5, "a side of the range is missing"),
        ("size:[1 5]", 8, "`TO` is missing"),
        ("size:[1 TO 5", 5, "not closed"),
        ("[1 TO 5]", 0, "a range needs a field"),
        ("size:>", 6, "a value is missing after the comparison"),
        ("AND a", 0, "missing before `AND`"),
        ("a OR", 2, "missing after `OR`"),
        ("a AND OR b", 6, "missing before `OR`"),
        ("(a AND)", 3, "missing after `AND`"),
        ("NOT", 0, "missing after `NOT`"),
        ("+NOT a", 1, "can't follow a sign"),
        ("+a OR b", 0, "can't be combined"),
        ("a^", 1, "needs a number"),
        ("a^-1", 1, "needs a number"),
        ("a^x", 1, "needs a number"),
        ("a^1e9", 3, "not expected"),
        ("a^9999999", 1, "needs a number"),
        ("a~3", 1, "is 0, 1 or 2"),
        ("a~0.8", 1, "is 0, 1 or 2"),
        ("a*~", 2, "needs a word or a phrase"),
        ("~", 0, "needs a word or a phrase"),
        ("^2", 0, "not expected"),
        ("\"a b\"~", 6, "needs a number"),
        ("\"a b\"*", 5, "can't have wildcards"),
        ("a]", 1, "not expected"),
        ("a\\", 1, "missing after the backslash"),
    ] {
        let error = refused(text);
        assert_eq!(error.at, Some(at), "{text}: {error:?}");
        assert!(error.message.contains(message), "{text}: {error:?}");
    }
}

#[test]
fn positions_count_characters_not_bytes() {
    assert_eq!(refused("\u{fc}\u{65e5} (").at, Some(3));
}

#[test]
fn leaves_are_numbered_in_the_order_of_the_text() {
    let ast = parse("a (b c:d) -e", &ParseOptions::default()).unwrap();
    let leaves = ast.leaves();
    assert_eq!(leaves.iter().map(|leaf| leaf.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let spans: Vec<_> = leaves.iter().map(|leaf| (leaf.span.start, leaf.span.end)).collect();
    assert_eq!(spans, [(0, 1), (3, 4), (7, 8), (11, 12)]);
}

#[test]
fn limits_hold() {
    let clauses = |n: usize| "a ".repeat(n);
    assert!(parse(&clauses(1024), &ParseOptions::default()).is_ok());
    assert!(refused(&clauses(1025)).message.contains("1024 clauses"));
    assert!(refused(&"* ".repeat(1025)).message.contains("1024 clauses"));
    let nested = |n: usize| "(".repeat(n) + "a" + &")".repeat(n);
    assert!(parse(&nested(50), &ParseOptions::default()).is_ok());
    assert!(refused(&nested(51)).message.contains("nested"));
    assert!(refused(&("NOT ".repeat(51) + "a")).message.contains("nested"));
    assert!(refused(&"x".repeat(65_537)).message.contains("65537 bytes"));
    assert!(refused(&("?".repeat(101))).message.contains("100 bytes"));
    assert!(refused(&("a".repeat(101) + "~")).message.contains("100 characters"));
    assert!(refused("((a^1000000)^1000000)").message.contains("needs a number"));
}

#[test]
fn the_longest_hostile_texts_are_refused_or_parsed_at_once() {
    for piece in [
        "(", ")", "\"", "\\", "a^2", "NOT ", "a:", "+", "-", "[", "a:[", "*", "?", "~", "AND ", "(a OR ",
        "^1", " ",
    ] {
        let text = piece.repeat(65_536 / piece.len());
        let start = Instant::now();
        let _ = parse(&text, &ParseOptions::default());
        assert!(start.elapsed() < Duration::from_secs(2), "{piece}");
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a".to_owned()),
        Just("title".to_owned()),
        Just("NOT".to_owned()),
        Just("AND".to_owned()),
        Just("OR".to_owned()),
        Just("TO".to_owned()),
        Just(" ".to_owned()),
        Just(" ".to_owned()),
        Just(" ".to_owned()),
        "[-+(){}\\[\\]\":~^*?\\\\<>=.0-9]",
        "\\PC",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zé]{1,8}",
        "\\PC{1,6}",
        "[-+(){}\":~^*?\\\\<>= .A-Z]{1,4}",
        Just("AND".to_owned()),
        Just("NOT".to_owned())
    ]
}

fn leaf() -> impl Strategy<Value = (Option<String>, Matches)> {
    let bound = || {
        prop_oneof![
            word().prop_map(Bound::Included),
            word().prop_map(Bound::Excluded),
            Just(Bound::Unbounded),
        ]
    };
    let anywhere = prop_oneof![
        word().prop_map(Matches::Word),
        (word(), 0..4_u32).prop_map(|(text, slop)| Matches::Phrase { text, slop }),
        word().prop_map(Matches::Prefix),
        (word(), word()).prop_map(|(a, b)| Matches::Wildcard(vec![
            Piece::One,
            Piece::Text(a),
            Piece::Many,
            Piece::Text(b)
        ])),
        (word(), proptest::option::of(0..3_u8))
            .prop_map(|(word, distance)| Matches::Fuzzy { word, distance }),
    ];
    let fielded = prop_oneof![
        anywhere.boxed(),
        (bound(), bound()).prop_map(|(lower, upper)| match (lower, upper) {
            (Bound::Unbounded, Bound::Unbounded) => Matches::Exists,
            (lower, upper) => Matches::Range { lower, upper },
        }),
    ];
    (proptest::option::of(word()), fielded).prop_map(|(field, matches)| match matches {
        Matches::Range { .. } | Matches::Exists => (field.or(Some("size".to_owned())), matches),
        matches => (field, matches),
    })
}

fn tree() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        1 => Just(Node::All),
        9 => leaf().prop_map(|(field, matches)| Node::Leaf(Leaf { number: 0, field, matches, span: Span::default() })),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let occur = prop_oneof![Just(Occur::Should), Just(Occur::Must), Just(Occur::MustNot)];
        prop_oneof![
            3 => proptest::collection::vec((occur, inner.clone()), 1..5).prop_map(|clauses| {
                Node::boolean(clauses.into_iter().map(|(occur, node)| Clause { occur, node }).collect())
            }),
            1 => (inner, 0..400_u16).prop_map(|(node, boost)| match node {
                Node::Boosted(node, _) => Node::Boosted(node, f32::from(boost) / 7.0),
                node => Node::Boosted(Box::new(node), f32::from(boost) / 7.0),
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in "\\PC{0,80}", made in pieces()) {
        for options in [ParseOptions::default(), all_words()] {
            for text in [&text, &made] {
                match parse(text, &options) {
                    Ok(ast) => prop_assert_eq!(parse(&ast.to_string(), &options).unwrap(), ast),
                    Err(error) => prop_assert!(error.at.is_some_and(|at| at <= text.chars().count())),
                }
            }
        }
    }

    #[test]
    fn a_printed_tree_parses_to_the_same_tree(root in tree()) {
        let ast = Ast::of_tree(root);
        prop_assert_eq!(parse(&ast.to_string(), &ast.options).unwrap(), ast);
    }
}
