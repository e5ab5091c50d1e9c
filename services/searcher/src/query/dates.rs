//! Dates as Elasticsearch's queries write them: date math such as `now-1d/d`, formats, and time zones as offsets. Pure.

mod format;

#[cfg(test)]
mod tests;

use chrono::{
    DateTime, Datelike, Days, FixedOffset, Months, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Utc,
};

pub(crate) use self::format::Formats;

/// How dates in a query are read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DateReading {
    /// `now`, in milliseconds since 1970.
    pub(crate) now: i64,
    pub(crate) formats: Formats,
    /// The zone of dates that name none, and in which they are rounded.
    pub(crate) zone: FixedOffset,
}

/// The milliseconds that a date means, since 1970: the first and the last, which differ if it is a day or has been rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DateSpan {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl DateReading {
    /// Without a format and in UTC.
    pub(crate) fn plain(now: i64) -> Self {
        Self { now, formats: Formats::default(), zone: utc() }
    }

    /// Reads a date: `now` or a date, with math behind it; between a date and its math is `||`.
    pub(crate) fn read(&self, text: &str) -> Option<DateSpan> {
        if let Some(math) = text.strip_prefix("now") {
            return self.calculate(DateSpan { first: self.now, last: self.now }, math);
        }
        match text.split_once("||") {
            None => self.formats.read(text, self.zone),
            Some((date, math)) => {
                let first = self.formats.read(date, self.zone)?.first;
                self.calculate(DateSpan { first, last: first }, math)
            }
        }
    }

    /// Writes milliseconds since 1970 in the first format. `None` if no calendar has that date.
    pub(crate) fn write(&self, millis: i64) -> Option<String> {
        Some(self.formats.write(utc_date(millis)?.with_timezone(&self.zone)))
    }

    /// Applies math such as `+1M/d`.
    fn calculate(&self, mut span: DateSpan, math: &str) -> Option<DateSpan> {
        let mut rest = math.chars().peekable();
        while let Some(operator) = rest.next() {
            if operator == '/' {
                let unit = Unit::of(rest.next()?)?;
                span = DateSpan {
                    first: self.floor(span.first, unit)?,
                    last: self.add(self.floor(span.last, unit)?, unit, 1)?.checked_sub(1)?,
                };
                continue;
            }
            let sign = match operator {
                '+' => 1,
                '-' => -1,
                _ => return None,
            };
            let mut digits = String::new();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let number: i64 = if digits.is_empty() { 1 } else { digits.parse().ok()? };
            let unit = Unit::of(rest.next()?)?;
            span = DateSpan {
                first: self.add(span.first, unit, sign * number)?,
                last: self.add(span.last, unit, sign * number)?,
            };
        }
        Some(span)
    }

    fn local(&self, millis: i64) -> Option<NaiveDateTime> {
        Some(utc_date(millis)?.with_timezone(&self.zone).naive_local())
    }

    fn floor(&self, millis: i64, unit: Unit) -> Option<i64> {
        let at = self.local(millis)?;
        let (day, seconds) = (at.date(), at.and_utc().timestamp());
        let midnight = |date: NaiveDate| date.and_hms_opt(0, 0, 0);
        let floored = match unit {
            Unit::Year => midnight(day.with_ordinal(1)?)?,
            Unit::Month => midnight(day.with_day(1)?)?,
            Unit::Week => {
                midnight(day.checked_sub_days(Days::new(day.weekday().num_days_from_monday().into()))?)?
            }
            Unit::Day => midnight(day)?,
            Unit::Hour => DateTime::from_timestamp(seconds - seconds.rem_euclid(3_600), 0)?.naive_utc(),
            Unit::Minute => DateTime::from_timestamp(seconds - seconds.rem_euclid(60), 0)?.naive_utc(),
            Unit::Second => DateTime::from_timestamp(seconds, 0)?.naive_utc(),
        };
        in_zone(floored, self.zone)
    }

    fn add(&self, millis: i64, unit: Unit, number: i64) -> Option<i64> {
        let months = |number: i64| {
            let at = self.local(millis)?;
            let months = Months::new(u32::try_from(number.unsigned_abs()).ok()?);
            let moved =
                if number < 0 { at.checked_sub_months(months)? } else { at.checked_add_months(months)? };
            in_zone(moved, self.zone)
        };
        let length = match unit {
            Unit::Year => return months(number.checked_mul(12)?),
            Unit::Month => return months(number),
            Unit::Week => 7 * 24 * 3_600_000,
            Unit::Day => 24 * 3_600_000,
            Unit::Hour => 3_600_000,
            Unit::Minute => 60_000,
            Unit::Second => 1_000,
        };
        millis.checked_add(number.checked_mul(length)?)
    }
}

/// A date that every zone has.
fn utc_date(millis: i64) -> Option<DateTime<Utc>> {
    let date = DateTime::<Utc>::from_timestamp_millis(millis)?;
    (date.year().abs() < 200_000).then_some(date)
}

fn in_zone(local: NaiveDateTime, zone: FixedOffset) -> Option<i64> {
    Some(local.checked_sub_offset(zone)?.and_utc().timestamp_millis())
}

fn utc() -> FixedOffset {
    FixedOffset::east_opt(0).expect("no offset is an offset")
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

impl Unit {
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'y' => Self::Year,
            'M' => Self::Month,
            'w' => Self::Week,
            'd' => Self::Day,
            'h' | 'H' => Self::Hour,
            'm' => Self::Minute,
            's' => Self::Second,
            _ => return None,
        })
    }
}

/// Reads `time_zone`: an offset such as `+01:00`, or UTC. Names of regions are not known here.
pub(crate) fn zone(text: &str) -> Option<FixedOffset> {
    match text {
        "Z" | "UTC" | "GMT" | "Etc/UTC" => Some(utc()),
        text => format::offset(text).filter(|(_, rest)| rest.is_empty()).map(|(offset, _)| offset),
    }
}

/// Milliseconds since 1970 as the index's own dates are written.
pub(crate) fn written(millis: i64) -> Option<String> {
    let date = DateTime::<Utc>::from_timestamp_millis(millis)?;
    Some(date.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Reads a duration such as `10d`, in milliseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let length = match unit {
        "ms" => TimeDelta::milliseconds(1),
        "s" => TimeDelta::seconds(1),
        "m" => TimeDelta::minutes(1),
        "h" => TimeDelta::hours(1),
        "d" => TimeDelta::days(1),
        "w" => TimeDelta::weeks(1),
        _ => return None,
    };
    number.parse::<i64>().ok().filter(|number| *number >= 0)?.checked_mul(length.num_milliseconds())
}
