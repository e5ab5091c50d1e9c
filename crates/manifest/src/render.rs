//! Prints mistakes with their lines.
//!
//! The text may be malicious, so control characters and long lines never reach the terminal.

use std::fmt::Write;

use crate::mistake::Mistake;
use crate::tree::Position;

/// Mistakes beyond this one are only counted.
const SHOWN: usize = 100;
/// How many columns of a line are shown.
const WIDTH: usize = 120;
/// How many columns before the mistake are shown if the line is too long.
const BEFORE: usize = 40;

/// All mistakes as one text, without a newline at the end.
pub(crate) fn render(file: &str, source: &str, list: &[Mistake]) -> String {
    let lines: Vec<&str> = lines(source).collect();
    let mut out = String::new();
    for mistake in list.iter().take(SHOWN) {
        let gutter = gutter(mistake);
        out.push_str(&format!("error: {}\n", printable(&mistake.message)));
        snippet(&mut out, file, &lines, mistake.at, gutter);
        for (at, note) in &mistake.related {
            out.push_str(&format!("note: {}\n", printable(note)));
            snippet(&mut out, file, &lines, *at, gutter);
        }
        if let Some(hint) = &mistake.hint {
            out.push_str(&format!("{:gutter$} = help: {}\n", "", printable(hint)));
        }
        out.push('\n');
    }
    if list.len() > SHOWN {
        out.push_str(&format!("… and {} more\n\n", list.len() - SHOWN));
    }
    let count = match list.len() {
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    out.push_str(&format!("{count} in {}", printable(file)));
    out
}

/// The lines of a file as YAML counts them: a lone carriage return ends a line too, and a byte order mark is skipped.
pub(crate) fn lines(source: &str) -> impl Iterator<Item = &str> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let ends = source.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    ends.flat_map(|line| line.split('\r'))
}

/// The width of the line numbers of one mistake.
fn gutter(mistake: &Mistake) -> usize {
    let related = mistake.related.iter().map(|(at, _)| at.line);
    let highest = related.chain([mistake.at.line]).max().unwrap_or(1);
    highest.to_string().len()
}

fn snippet(out: &mut String, file: &str, lines: &[&str], at: Position, gutter: usize) {
    let Position { line, column, len } = at;
    out.push_str(&format!("{:gutter$}--> {}:{line}:{column}\n", "", printable(file)));
    let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(text) = lines.get(index) else {
        return;
    };
    let column = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let (shown, before, marked) = excerpt(text, column, len);
    out.push_str(&format!("{:gutter$} |\n", ""));
    out.push_str(format!("{line:gutter$} | {shown}").trim_end());
    let marks = "^".repeat(marked);
    out.push_str(&format!("\n{:gutter$} | {:before$}{marks}\n", "", ""));
}

/// The shown part of a line, the number of columns before the mark, and the number of columns of the mark.
fn excerpt(text: &str, column: usize, len: usize) -> (String, usize, usize) {
    let total: usize = text.chars().take(WIDTH + 1).map(width).sum();
    let skipped = if total > WIDTH { column.saturating_sub(BEFORE) } else { 0 };
    let (mut shown, mut before, mut marked) = (String::new(), 0, 0);
    if skipped > 0 {
        shown.push('…');
        before += 1;
    }
    let mut columns = before;
    for (index, c) in text.chars().enumerate().skip(skipped) {
        let width = width(c);
        if columns + width > WIDTH {
            shown.push('…');
            break;
        }
        columns += width;
        if index < column {
            before += width;
        } else if index - column < len {
            marked += width;
        }
        match c {
            '\t' => shown.push_str("    "),
            c if is_unprintable(c) => shown.push(char::REPLACEMENT_CHARACTER),
            c => shown.push(c),
        }
    }
    (shown, before, marked.max(1))
}

/// The width of a character in a terminal, approximately: Unicode's wide ranges (UAX 11) and common combining marks.
fn width(c: char) -> usize {
    match u32::from(c) {
        0x09 => 4,
        0x0300..=0x036F | 0x200B..=0x200D | 0x20D0..=0x20FF | 0xFE00..=0xFE0F | 0xFE20..=0xFE2F => 0,
        0x1100..=0x115F
        | 0x2E80..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1F64F
        | 0x1F680..=0x1F6FF
        | 0x1F900..=0x1FAFF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

/// Whether this is a control character or one that changes the direction of text.
fn is_unprintable(c: char) -> bool {
    let turns =
        matches!(c, '\u{061C}' | '\u{200E}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// The text with unprintable characters escaped.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Text from a file as part of a message: in backticks, and shortened if it is long.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, line: u32, column: u32, len: u32) -> String {
        let at = Position { line, column, len };
        render("f.yaml", source, &[Mistake::new(at, "wrong")])
    }

    fn marked_columns(source: &str, column: u32, len: u32) -> (usize, usize) {
        let (_, before, marked) = excerpt(source, column as usize - 1, len as usize);
        (before, marked)
    }

    #[test]
    fn the_mark_is_below_the_mistake() {
        let expected = "error: wrong\n --> f.yaml:2:3\n  |\n2 | a b\n  |   ^\n\n1 mistake in f.yaml";
        assert_eq!(rendered("x\na b\n", 2, 3, 1), expected);
    }

    #[test]
    fn tabs_and_wide_characters_do_not_shift_the_mark() {
        assert_eq!(marked_columns("\tab", 2, 2), (4, 2));
        assert_eq!(marked_columns("日本: x", 5, 1), (6, 1));
        assert_eq!(marked_columns("🔑🔑", 2, 1), (2, 2));
        assert_eq!(marked_columns("e\u{301}x", 3, 1), (1, 1));
    }

    #[test]
    fn lines_end_as_in_yaml() {
        let found: Vec<&str> = lines("\u{feff}a\r\nb\rc\n\nd").collect();
        assert_eq!(found, ["a", "b", "c", "", "d"]);
    }

    #[test]
    fn a_long_line_is_cut_on_both_sides_and_keeps_the_mistake() {
        let source = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let (shown, before, marked) = excerpt(&source, 500, 1);
        assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
        assert_eq!(shown.chars().nth(before), Some('X'));
        assert_eq!(marked, 1);
        assert!(shown.chars().count() <= WIDTH + 1);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let at = Position::START;
        let mistake = Mistake::new(at, "bad \u{1b}[31m").hint("\u{202e}");
        let text = render("a\u{7}.yaml", "x\u{1b}[2J", &[mistake]);
        assert!(!text.chars().any(|c| c != '\n' && is_unprintable(c)), "{text:?}");
    }

    #[test]
    fn a_position_outside_the_file_is_still_shown() {
        assert!(rendered("", 7, 9, 3).contains("f.yaml:7:9"));
        assert!(rendered("ab", 1, 4_000_000_000, u32::MAX).contains("f.yaml:1:4000000000"));
    }

    #[test]
    fn mistakes_beyond_a_hundred_are_only_counted() {
        let list = vec![Mistake::new(Position::START, "wrong"); 130];
        let text = render("f.yaml", "x", &list);
        assert_eq!(text.matches("error:").count(), SHOWN);
        assert!(text.contains("… and 30 more"), "{text}");
        assert!(text.ends_with("130 mistakes in f.yaml"), "{text}");
    }
}
