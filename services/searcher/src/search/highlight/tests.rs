use super::*;

fn find_in(text: &str, words: &[&str], options: &HighlightOptions) -> Vec<String> {
    let words: BTreeSet<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let mut analyzer = IndexSchema::analyzer(Analyzer::Default);
    find(&mut analyzer, text, &[&words], options).into_iter().map(|(_, fragment)| fragment).collect()
}

#[test]
fn words_are_marked_as_they_are_written() {
    let options = HighlightOptions::default();
    for (text, words, fragments) in [
        ("A HTTP proxy", vec!["http"], vec!["A <em>HTTP</em> proxy"]),
        ("Caf\u{e9} au lait", vec!["cafe"], vec!["<em>Caf\u{e9}</em> au lait"]),
        ("a < b & \"c\"", vec!["b"], vec!["a &lt; <em>b</em> &amp; &quot;c&quot;"]),
        ("nothing here", vec!["else"], vec![]),
        ("", vec!["else"], vec![]),
    ] {
        assert_eq!(find_in(text, &words, &options), fragments, "{text}");
    }
    let plain = HighlightOptions { pre: "\u{1b}[1m".to_owned(), post: "\u{1b}[0m".to_owned(), ..options };
    assert_eq!(find_in("a < b", &["b"], &plain), ["a < \u{1b}[1mb\u{1b}[0m"]);
}

#[test]
fn long_text_is_cut_into_fragments_at_words() {
    let text = format!(
        "{}needle in the middle {}needle again {}",
        "hay ".repeat(50),
        "straw ".repeat(50),
        "end ".repeat(50)
    );
    let options = HighlightOptions { fragment_size: 40, ..HighlightOptions::default() };
    let fragments = find_in(&text, &["needle"], &options);
    assert_eq!(fragments.len(), 2);
    for fragment in &fragments {
        let plain = fragment.replace("<em>", "").replace("</em>", "");
        assert!(fragment.contains("<em>needle</em>") && plain.chars().count() <= 40, "{fragment}");
        assert!(plain.split(' ').all(|word| text.split(' ').any(|whole| whole == word)), "{fragment}");
    }
    let whole = HighlightOptions { number_of_fragments: 0, ..options };
    let fragments = find_in(&text, &["needle"], &whole);
    assert_eq!(fragments.len(), 1);
    assert_eq!(fragments[0].matches("<em>").count(), 2);
}

#[test]
fn a_word_longer_than_a_fragment_is_shown_whole() {
    let long = "x".repeat(200);
    let options = HighlightOptions { fragment_size: 10, ..HighlightOptions::default() };
    let fragments = find_in(&format!("a {long} b"), &[&long], &options);
    assert_eq!(fragments, [format!("<em>{long}</em>")]);
}

mod any_text {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fragments_are_parts_of_the_text(text in "[a-c\u{e9}\u{1f600}\u{65e5} ,.<]{0,200}", size in 10..60_usize) {
            let options = HighlightOptions { pre: "[".to_owned(), post: "]".to_owned(), fragment_size: size, ..HighlightOptions::default() };
            for fragment in find_in(&text, &["a", "b", "ab", "\u{65e5}"], &options) {
                let plain = fragment.replace(['[', ']'], "");
                prop_assert!(text.contains(&plain), "{:?} {:?}", text, fragment);
                prop_assert!(fragment.contains('['));
            }
        }
    }
}
