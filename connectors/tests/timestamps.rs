//! Times in files, against jiff.

#![cfg(feature = "files")]

use jiff::Timestamp;
use pelton::EventTime;
use pelton_connectors::timestamp;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct All {
    #[serde(with = "timestamp::rfc3339")]
    text: EventTime,
    #[serde(with = "timestamp::seconds")]
    seconds: EventTime,
    #[serde(with = "timestamp::millis")]
    millis: EventTime,
    #[serde(with = "timestamp::micros")]
    micros: EventTime,
    #[serde(default, with = "timestamp::rfc3339::option")]
    maybe: Option<EventTime>,
}

#[test]
fn all_forms_of_a_time_are_read_and_written() {
    let line = r#"{"text":"2013-01-01T05:15:00-05:00","seconds":1357035300,"millis":1357035300000,"micros":1357035300000000,"maybe":"2013-01-01T10:15:00Z"}"#;
    let all: All = serde_json::from_str(line).unwrap();
    let at = EventTime::from_seconds(1_357_035_300);
    assert_eq!([all.text, all.seconds, all.millis, all.micros], [at; 4]);
    assert_eq!(all.maybe, Some(at));
    let written = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<All>(&written).unwrap(), all);
    for nothing in [r#","maybe":null"#, ""] {
        let line = format!(
            r#"{{"text":"2013-01-01T10:15:00Z","seconds":-1,"millis":-1,"micros":-1{nothing}}}"#
        );
        assert_eq!(serde_json::from_str::<All>(&line).unwrap().maybe, None);
    }
}

#[test]
fn what_is_no_time_is_told() {
    let refuse = |text: &str| timestamp::parse(text).unwrap_err();
    for text in [
        "",
        "x",
        "2013-01-01",
        "2013-01-01T10:15:00",
        "2013-02-29T00:00:00Z",
        "2013-13-01T00:00:00Z",
        "2013-00-01T00:00:00Z",
        "2013-01-00T00:00:00Z",
        "2013-01-01T24:00:00Z",
        "2013-01-01T00:60:00Z",
        "2013-01-0:T00:00:00Z",
        "2013-01-01T00:00:00z ",
    ] {
        assert!(refuse(text).starts_with("not a time of RFC 3339"), "{text}");
    }
    let e = serde_json::from_str::<All>(r#"{"text":"yesterday"}"#).unwrap_err();
    assert!(
        e.to_string()
            .starts_with("\"yesterday\" is not a time of RFC 3339"),
        "{e}"
    );
    let e = serde_json::from_str::<All>(
        r#"{"text":"2013-01-01T10:15:00Z","seconds":9223372036854775807}"#,
    )
    .unwrap_err();
    assert!(
        e.to_string()
            .contains("expected a whole number since the Unix epoch"),
        "{e}"
    );
    let e = serde_json::from_str::<All>(
        r#"{"text":"2013-01-01T10:15:00Z","seconds":18446744073709551615}"#,
    )
    .unwrap_err();
    assert!(e.to_string().contains("18446744073709551615"), "{e}");
}

fn micros(text: &str) -> i64 {
    let nanos = text.parse::<Timestamp>().unwrap().as_nanosecond();
    i64::try_from(nanos.div_euclid(1000)).unwrap()
}

#[test]
fn odd_forms_are_those_of_jiff() {
    for text in [
        "2016-12-31T23:59:60Z",
        "1969-12-31T23:59:59.9999999Z",
        "2000-02-29T12:00:00.5+00:30",
        "2000-02-29 12:00:00Z",
        "2000-02-29T12:00:00z",
        "0000-02-29T00:00:00Z",
        "9999-12-30T22:00:00Z",
    ] {
        assert_eq!(
            timestamp::parse(text).unwrap().micros(),
            micros(text),
            "{text}"
        );
    }
    assert_eq!(
        timestamp::parse("1969-12-31T23:59:59.9999999Z")
            .unwrap()
            .micros(),
        -1
    );
}

proptest! {
    #[test]
    fn plain_times_are_those_of_jiff(seconds in -62_167_219_200i64..=253_402_207_200) {
        let time = Timestamp::from_second(seconds).unwrap();
        let text = time.to_string();
        prop_assert_eq!(text.len(), 20);
        prop_assert_eq!(timestamp::parse(&text).unwrap(), EventTime::from_seconds(seconds));
        prop_assert_eq!(EventTime::from_seconds(seconds).to_string(), text);
    }

    #[test]
    fn one_changed_byte_means_what_jiff_says(seconds in 0i64..4_000_000_000, at in 0usize..20, byte in 0x20u8..0x7f) {
        let mut text = Timestamp::from_second(seconds).unwrap().to_string().into_bytes();
        text[at] = byte;
        let text = String::from_utf8(text).unwrap();
        let theirs = text.parse::<Timestamp>().ok().map(|t| t.as_microsecond());
        prop_assert_eq!(timestamp::parse(&text).ok().map(EventTime::micros), theirs);
    }
}
