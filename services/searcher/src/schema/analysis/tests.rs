use proptest::prelude::*;

use super::*;

/// Positions and terms of a text.
fn terms(name: Analyzer, side: Side, text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    analyzer(name, side)
        .token_stream(text)
        .process(&mut |token| terms.push(format!("{}:{}", token.position, token.text)));
    terms
}

#[test]
fn words_are_in_lower_case_and_without_diacritics() {
    let cases: [(&str, &[&str]); 9] = [
        ("The quick-Brown FOX's", &["0:the", "1:quick", "2:brown", "3:fox", "4:s"]),
        ("Crème BRÛLÉE", &["0:creme", "1:brulee"]),
        // The same, in Unicode's decomposed form.
        ("Cre\u{300}me", &["0:creme"]),
        ("Straße Łódź Ærø İstanbul", &["0:strasse", "1:lodz", "2:aero", "3:istanbul"]),
        ("Ｆｕｌｌ ﬁne", &["0:full", "1:fine"]),
        ("한국어 Йод Ἀθῆναι", &["0:한국어", "1:иод", "2:αθηναι"]),
        ("a\0b\u{1}c", &["0:a", "1:b", "2:c"]),
        (" … !? \u{301}", &[]),
        ("", &[]),
    ];
    for (text, wanted) in cases {
        for side in [Side::Document, Side::Query] {
            assert_eq!(terms(Analyzer::Default, side, text), wanted, "{text}");
        }
    }
}

#[test]
fn a_long_word_is_cut_and_not_lost() {
    for (letter, kept) in [("x", 255), ("ж", 127), ("字", 85)] {
        let text = letter.repeat(70_000);
        assert_eq!(terms(Analyzer::Default, Side::Document, &text), [format!("0:{}", letter.repeat(kept))]);
    }
}

#[test]
fn languages_stem_and_leave_out_stop_words() {
    let cases: [(Analyzer, &str, &[&str]); 8] = [
        (Analyzer::En, "The running of the proxies", &["1:run", "4:proxi"]),
        (Analyzer::De, "Die Häuser für den Käufer", &["1:haus", "4:kauf"]),
        (Analyzer::Fr, "à la recherche des élèves", &["2:recherch", "4:elev"]),
        (Analyzer::Ru, "для новых книг", &["1:нов", "2:книг"]),
        (Analyzer::Tr, "KAPILAR kapılar", &["0:kapi", "1:kapi"]),
        (Analyzer::El, "φορολογούμενε", &["0:φορολογουμεν"]),
        (Analyzer::Nl, "de boeken", &["1:boek"]),
        (Analyzer::Ta, "வீடுகள்", &["0:வீடு"]),
    ];
    for (name, text, wanted) in cases {
        assert_eq!(terms(name, Side::Document, text), wanted, "{text}");
    }
}

#[test]
fn ngrams_are_found_in_the_middle_of_words() {
    let document = terms(Analyzer::Ngram, Side::Document, "Ab-ß x");
    assert_eq!(document, ["0:ab", "0:ab-", "1:b-", "1:b-s", "2:-s", "2:-ss", "3:ss", "6:x"]);
    assert_eq!(terms(Analyzer::Ngram, Side::Query, "nginx é ab"), ["0:ngi", "1:gin", "2:inx", "6:e", "8:ab"]);
}

#[test]
fn cjk_text_becomes_pairs_and_other_text_words() {
    let query = |text| terms(Analyzer::Cjk, Side::Query, text);
    assert_eq!(query("東京都のABC café"), ["0:東京", "1:京都", "2:都の", "4:abc", "5:cafe"]);
    assert_eq!(query("東 한국"), ["0:東", "1:한국"]);
    assert_eq!(
        terms(Analyzer::Cjk, Side::Document, "東京都x東"),
        ["0:東", "0:東京", "1:京", "1:京都", "2:都", "3:x", "4:東"]
    );
}

#[test]
fn a_word_of_marks_alone_is_no_term() {
    for (text, expected) in [("\u{363} ", vec![]), ("\u{363}\u{36f} ab", vec!["1:ab"])] {
        for side in [Side::Document, Side::Query] {
            assert_eq!(terms(Analyzer::Default, side, text), expected, "{text:?}");
        }
    }
}

proptest! {
    #[test]
    fn tokens_of_any_text_are_in_order_not_empty_and_of_the_text(text in "(?s)(.|[a-zA-Zäß字東ー\u{301}\u{3099} -]){0,40}") {
        for name in Analyzer::ALL {
            for side in [Side::Document, Side::Query] {
                let mut last = 0;
                let mut failed = None;
                analyzer(name, side).token_stream(&text).process(&mut |token| {
                    let is_right = token.position >= last
                        && !token.text.is_empty()
                        && token.text.len() <= MAX_TERM
                        && text.get(token.offset_from..token.offset_to).is_some_and(|part| !part.is_empty());
                    last = token.position;
                    if !is_right {
                        failed = Some(token.clone());
                    }
                });
                prop_assert_eq!(failed, None, "{:?}", name);
            }
        }
    }

    /// What a query looks for in a text is what the text has, so a text finds itself.
    #[test]
    fn a_query_s_tokens_are_among_the_document_s(text in "(?s)(.|[a-z東京ア ]){0,40}") {
        for name in Analyzer::ALL {
            let document = terms(name, Side::Document, &text);
            for token in terms(name, Side::Query, &text) {
                prop_assert!(document.contains(&token), "{:?}: {} not in {:?}", name, token, document);
            }
        }
    }
}

proptest! {
    /// The stemmers of languages are code generated from another language; none may panic on words of its own letters.
    #[test]
    fn any_word_of_any_script_is_stemmed(
        word in "[a-zäöåéèàçñßıİğşąłőű]{1,20}|[а-яё]{1,20}|[α-ωάέήίόύώς]{1,20}|[ء-ي\u{64b}-\u{652}]{1,16}|[அ-ஹ\u{bbe}-\u{bcd}]{1,16}"
    ) {
        for name in Analyzer::ALL {
            let words = terms(name, Side::Document, &word);
            prop_assert!(words.len() <= 60, "{:?}", words);
        }
    }
}
