//! Formats of dates: Elasticsearch's names, and a subset of Java's patterns.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, SecondsFormat, Timelike};

use super::{DateSpan, in_zone};

/// Formats, of which the first that fits is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Formats(Vec<Format>);

impl Default for Formats {
    fn default() -> Self {
        Self(vec![Format::Optional, Format::EpochMillis])
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    /// `2024`, `2024-05`, `2024-05-31`, and then a time of which parts may be missing.
    Optional,
    EpochMillis,
    EpochSecond,
    Pattern(Vec<Part>),
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// So many digits behind the second.
    Fraction(usize),
    Zone,
    Text(char),
}

const NAMED: [(&str, &str); 12] = [
    ("date", "yyyy-MM-dd"),
    ("basic_date", "yyyyMMdd"),
    ("year", "yyyy"),
    ("year_month", "yyyy-MM"),
    ("year_month_day", "yyyy-MM-dd"),
    ("date_time", "yyyy-MM-dd'T'HH:mm:ss.SSSXXX"),
    ("date_time_no_millis", "yyyy-MM-dd'T'HH:mm:ssXXX"),
    ("basic_date_time", "yyyyMMdd'T'HHmmss.SSSX"),
    ("basic_date_time_no_millis", "yyyyMMdd'T'HHmmssX"),
    ("date_hour_minute_second", "yyyy-MM-dd'T'HH:mm:ss"),
    ("date_hour_minute", "yyyy-MM-dd'T'HH:mm"),
    ("date_hour", "yyyy-MM-dd'T'HH"),
];

impl Formats {
    /// Reads `format`: names and patterns, separated by `||`. The error names what is not known.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        text.split("||").map(Format::parse).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn read(&self, text: &str, zone: FixedOffset) -> Option<DateSpan> {
        self.0.iter().find_map(|format| format.read(text, zone))
    }

    /// Writes a date in the first format.
    pub(super) fn write(&self, date: DateTime<FixedOffset>) -> String {
        match self.0.first() {
            None | Some(Format::Optional) => date.to_rfc3339_opts(SecondsFormat::Millis, true),
            Some(Format::EpochMillis) => date.timestamp_millis().to_string(),
            Some(Format::EpochSecond) => date.timestamp().to_string(),
            Some(Format::Pattern(parts)) => parts.iter().map(|part| part.write(date)).collect(),
        }
    }
}

impl Part {
    fn write(&self, date: DateTime<FixedOffset>) -> String {
        let two = |number: u32| format!("{number:02}");
        match self {
            Self::Year => format!("{:04}", date.year()),
            Self::Month => two(date.month()),
            Self::Day => two(date.day()),
            Self::Hour => two(date.hour()),
            Self::Minute => two(date.minute()),
            Self::Second => two(date.second()),
            Self::Fraction(count) => {
                format!("{:09}", date.timestamp_subsec_nanos()).chars().take(*count).collect()
            }
            Self::Zone if date.offset().local_minus_utc() == 0 => "Z".to_owned(),
            Self::Zone => date.offset().to_string(),
            Self::Text(letter) => letter.to_string(),
        }
    }
}

impl Format {
    fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("strict_").unwrap_or(text);
        match name {
            "date_optional_time" | "date_optional_time_nanos" => return Ok(Self::Optional),
            "epoch_millis" => return Ok(Self::EpochMillis),
            "epoch_second" => return Ok(Self::EpochSecond),
            _ => {}
        }
        let pattern = NAMED.iter().find(|(known, _)| *known == name).map_or(text, |(_, pattern)| pattern);
        let mut parts = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(letter) = rest.next() {
            if letter == '\'' {
                quoted(&mut rest, &mut parts).ok_or_else(|| format!("a quote is not closed in [{text}]"))?;
                continue;
            }
            if !letter.is_ascii_alphabetic() {
                if "[]{}#".contains(letter) {
                    return Err(format!("`{letter}` is not supported in [{text}]"));
                }
                parts.push(Part::Text(letter));
                continue;
            }
            let mut count = 1;
            while rest.next_if_eq(&letter).is_some() {
                count += 1;
            }
            parts.push(match letter {
                'y' | 'u' => Part::Year,
                'M' if count <= 2 => Part::Month,
                'd' => Part::Day,
                'H' => Part::Hour,
                'm' => Part::Minute,
                's' => Part::Second,
                'S' if count <= 9 => Part::Fraction(count),
                'X' | 'x' | 'Z' => Part::Zone,
                _ => return Err(format!("`{letter}` is not supported in [{text}]")),
            });
        }
        if parts.is_empty() { Err("it is empty".to_owned()) } else { Ok(Self::Pattern(parts)) }
    }

    fn read(&self, text: &str, zone: FixedOffset) -> Option<DateSpan> {
        let span = |first: i64, length: i64| Some(DateSpan { first, last: first.checked_add(length - 1)? });
        match self {
            Self::EpochMillis => span(text.parse().ok()?, 1),
            Self::EpochSecond => span(text.parse::<i64>().ok()?.checked_mul(1_000)?, 1_000),
            Self::Optional => optional(text, zone),
            Self::Pattern(parts) => {
                let mut found = Found { zone, ..Found::new(zone) };
                let mut rest = text;
                for (at, part) in parts.iter().enumerate() {
                    // Digits that follow each other have fixed widths.
                    let is_tight = matches!(parts.get(at + 1), Some(next) if !matches!(next, Part::Text(_) | Part::Zone));
                    rest = found.take(part, rest, is_tight)?;
                }
                if rest.is_empty() { found.span() } else { None }
            }
        }
    }
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, parts: &mut Vec<Part>) -> Option<()> {
    if rest.next_if_eq(&'\'').is_some() {
        parts.push(Part::Text('\''));
        return Some(());
    }
    loop {
        match rest.next()? {
            '\'' if rest.next_if_eq(&'\'').is_some() => parts.push(Part::Text('\'')),
            '\'' => return Some(()),
            letter => parts.push(Part::Text(letter)),
        }
    }
}

/// What has been found of a date.
struct Found {
    /// Year, month, day, hour, minute, second.
    numbers: [Option<u32>; 6],
    nanos: Option<u32>,
    zone: FixedOffset,
}

impl Found {
    fn new(zone: FixedOffset) -> Self {
        Self { numbers: [None; 6], nanos: None, zone }
    }

    fn take<'a>(&mut self, part: &Part, text: &'a str, is_tight: bool) -> Option<&'a str> {
        let place = match part {
            Part::Text(letter) => return text.strip_prefix(*letter),
            Part::Zone => {
                let (zone, rest) = offset(text)?;
                self.zone = zone;
                return Some(rest);
            }
            Part::Fraction(count) => {
                let (digits, rest) = digits(text, *count)?;
                self.nanos = nanos(digits);
                return (digits.len() == *count).then_some(rest);
            }
            Part::Year => 0,
            Part::Month => 1,
            Part::Day => 2,
            Part::Hour => 3,
            Part::Minute => 4,
            Part::Second => 5,
        };
        let width = if place == 0 { 4 } else { 2 };
        let (digits, rest) = digits(text, width)?;
        if (is_tight || place == 0) && digits.len() != width {
            return None;
        }
        self.numbers[place] = digits.parse().ok();
        Some(rest)
    }

    /// From the first to the last millisecond: what is missing may be anything.
    fn span(&self) -> Option<DateSpan> {
        let [year, month, day, hour, minute, second] = self.numbers;
        let year = i32::try_from(year.unwrap_or(1970)).ok()?;
        let date = |month: u32, day: u32| NaiveDate::from_ymd_opt(year, month, day);
        let first = date(month.unwrap_or(1), day.unwrap_or(1))?;
        let last_month = month.unwrap_or(12);
        let last_day = match day {
            Some(day) => day,
            None => (28..=31).rev().find(|day| date(last_month, *day).is_some())?,
        };
        let last = date(last_month, last_day)?;
        let millis = self.nanos.map(|nanos| nanos / 1_000_000);
        let at = |date: NaiveDate, or: [u32; 4]| {
            let time = date.and_hms_milli_opt(
                hour.unwrap_or(or[0]),
                minute.unwrap_or(or[1]),
                second.unwrap_or(or[2]),
                millis.unwrap_or(or[3]),
            )?;
            in_zone(time, self.zone)
        };
        Some(DateSpan { first: at(first, [0; 4])?, last: at(last, [23, 59, 59, 999])? })
    }
}

/// Some digits, at least one and at most so many.
fn digits(text: &str, most: usize) -> Option<(&str, &str)> {
    let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    (count > 0).then(|| text.split_at(count))
}

fn nanos(digits: &str) -> Option<u32> {
    format!("{digits:0<9}").parse().ok()
}

/// An offset at the start of a text: `Z`, `+01:00`, `+0100` or `+01`.
pub(super) fn offset(text: &str) -> Option<(FixedOffset, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((FixedOffset::east_opt(0)?, rest));
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, rest) = digits(&text[1..], 2).filter(|(hours, _)| hours.len() == 2)?;
    let (minutes, rest) = match digits(rest.strip_prefix(':').unwrap_or(rest), 2) {
        Some((minutes, rest)) if minutes.len() == 2 => (minutes.parse::<i32>().ok()?, rest),
        _ if rest.starts_with(':') => return None,
        _ => (0, rest),
    };
    let hours: i32 = hours.parse().ok()?;
    let is_offset = hours <= 18 && minutes < 60;
    Some((FixedOffset::east_opt(sign * (hours * 3_600 + minutes * 60)).filter(|_| is_offset)?, rest))
}

/// A date with a time of which parts may be missing.
fn optional(text: &str, zone: FixedOffset) -> Option<DateSpan> {
    let mut found = Found::new(zone);
    let mut rest = found.take(&Part::Year, text, true)?;
    for part in [Part::Month, Part::Day] {
        let Some(next) = rest.strip_prefix('-') else { break };
        rest = found.take(&part, next, true)?;
    }
    if let Some(time) = rest.strip_prefix(['T', 't']) {
        found.numbers[2]?;
        if time.is_empty() {
            return found.span();
        }
        rest = found.take(&Part::Hour, time, true)?;
        for part in [Part::Minute, Part::Second] {
            let Some(next) = rest.strip_prefix(':') else { break };
            rest = found.take(&part, next, true)?;
        }
        if let Some(fraction) = rest.strip_prefix(['.', ',']).filter(|_| found.numbers[5].is_some()) {
            let (digits, after) = digits(fraction, 9)?;
            found.nanos = nanos(digits);
            rest = after;
        }
        if !rest.is_empty() {
            let (zone, after) = offset(rest)?;
            (found.zone, rest) = (zone, after);
        }
    }
    if rest.is_empty() { found.span() } else { None }
}
