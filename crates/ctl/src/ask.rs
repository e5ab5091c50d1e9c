//! Asks a person at a terminal. Without a terminal there is no answer.

use std::io::{self, BufRead, IsTerminal, Write};

/// Whether the person confirms by typing the word; `None` without a terminal.
pub(crate) fn yes(question: &str, word: &str) -> Option<bool> {
    Some(line(question)? == word)
}

/// The index of the item that the person chooses by number or name; `None` without a terminal or without a choice.
pub(crate) fn choice(question: &str, items: &[&str]) -> Option<usize> {
    let list: Vec<_> = (1..).zip(items).map(|(number, item)| format!("  {number}  {item}")).collect();
    chosen(&line(&format!("{}\n{question}", list.join("\n")))?, items)
}

fn chosen(answer: &str, items: &[&str]) -> Option<usize> {
    let by_number = answer.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    items.iter().position(|item| *item == answer).or(by_number.filter(|index| *index < items.len()))
}

fn line(question: &str) -> Option<String> {
    let (stdin, stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return None;
    }
    // If the question can't be written to the terminal, the answer still counts.
    let _ = write!(stderr.lock(), "{question}: ");
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).ok()?;
    Some(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_chosen_by_its_number_or_its_name() {
        for (answer, expected) in [
            ("1", Some(0)),
            ("2", Some(1)),
            ("b", Some(1)),
            ("3", None),
            ("0", None),
            ("", None),
            ("c", None),
        ] {
            assert_eq!(chosen(answer, &["a", "b"]), expected, "{answer}");
        }
    }
}
