use super::*;

fn read(text: &str) -> Option<(String, String)> {
    // 2024-05-15T12:34:56.789Z, a Wednesday.
    let span = DateReading::plain(1_715_776_496_789).read(text)?;
    Some((written(span.first)?, written(span.last)?))
}

#[test]
fn date_math_moves_and_rounds() {
    for (text, first, last) in [
        ("now", "2024-05-15T12:34:56.789Z", "2024-05-15T12:34:56.789Z"),
        ("now-1d", "2024-05-14T12:34:56.789Z", "2024-05-14T12:34:56.789Z"),
        ("now-1d/d", "2024-05-14T00:00:00.000Z", "2024-05-14T23:59:59.999Z"),
        ("now/w", "2024-05-13T00:00:00.000Z", "2024-05-19T23:59:59.999Z"),
        ("now/M", "2024-05-01T00:00:00.000Z", "2024-05-31T23:59:59.999Z"),
        ("now/y", "2024-01-01T00:00:00.000Z", "2024-12-31T23:59:59.999Z"),
        ("now+1h/h", "2024-05-15T13:00:00.000Z", "2024-05-15T13:59:59.999Z"),
        ("2024-01-31||+1M", "2024-02-29T00:00:00.000Z", "2024-02-29T00:00:00.000Z"),
        ("2024-01-31||+1M/M", "2024-02-01T00:00:00.000Z", "2024-02-29T23:59:59.999Z"),
        ("2024", "2024-01-01T00:00:00.000Z", "2024-12-31T23:59:59.999Z"),
        ("2024-02", "2024-02-01T00:00:00.000Z", "2024-02-29T23:59:59.999Z"),
        ("2024-02-03T04", "2024-02-03T04:00:00.000Z", "2024-02-03T04:59:59.999Z"),
        ("2024-02-03T04:05:06.7+01:00", "2024-02-03T03:05:06.700Z", "2024-02-03T03:05:06.700Z"),
        ("1715776496789", "2024-05-15T12:34:56.789Z", "2024-05-15T12:34:56.789Z"),
    ] {
        assert_eq!(read(text), Some((first.to_owned(), last.to_owned())), "{text}");
    }
    for text in [
        "",
        "now-",
        "now/x",
        "now-1",
        "nowx",
        "2024-13",
        "2024-02-30",
        "2024-02-03Tx",
        "x||/d",
        "now+99999999999999999999d",
        "now+9999999y",
        "2024-1-1",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn formats_are_named_or_java_patterns() {
    let read = |format: &str, text: &str, offset: &str| {
        let formats = Formats::parse(format).unwrap();
        let reading = DateReading { now: 0, formats, zone: zone(offset).unwrap() };
        reading.read(text).and_then(|span| written(span.first))
    };
    for (format, text, zone, date) in [
        ("yyyy|MM|dd 'T'HH:mm:ss.SSSSSS'Z'", "2015|02|01 T00:00:00.001999Z", "Z", "2015-02-01T00:00:00.001Z"),
        ("dd/MM/yyyy", "5/2/2015", "Z", "2015-02-05T00:00:00.000Z"),
        ("dd/MM/yyyy||yyyy", "2015", "+02:00", "2014-12-31T22:00:00.000Z"),
        ("basic_date", "20150201", "-01:00", "2015-02-01T01:00:00.000Z"),
        ("epoch_second", "1", "Z", "1970-01-01T00:00:01.000Z"),
        ("strict_date_time", "2015-02-01T00:00:00.001+01:00", "Z", "2015-01-31T23:00:00.001Z"),
        ("hh", "", "Z", ""),
        ("yyyy 'o''clock'", "2015 o'clock", "Z", "2015-01-01T00:00:00.000Z"),
    ] {
        if date.is_empty() {
            assert!(Formats::parse(format).is_err(), "{format}");
        } else {
            assert_eq!(read(format, text, zone).as_deref(), Some(date), "{format} {text}");
        }
    }
    assert!(zone("Europe/Paris").is_none() && zone("+25:00").is_none());
    assert_eq!(duration("10d"), Some(864_000_000));
    assert!(duration("10").is_none() && duration("d").is_none() && duration("-1d").is_none());
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(now|2024-01-01\\|\\||)[0-9yMwdhHms+/T:.Z-]{0,20}", format in "[yMdHmsSX' /|-]{0,20}") {
        let _ = DateReading::plain(0).read(&text);
        if let Ok(formats) = Formats::parse(&format) {
            let _ = DateReading { formats, ..DateReading::plain(0) }.read(&text);
        }
    }
}
