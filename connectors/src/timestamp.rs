//! Event times in files: serde `with` modules.
//!
//! ```
//! use pelton::EventTime;
//! use pelton_connectors::timestamp;
//! #[derive(serde::Deserialize)]
//! struct Click {
//!     #[serde(with = "timestamp::rfc3339")]
//!     at: EventTime,
//!     #[serde(default, with = "timestamp::millis::option")]
//!     seen: Option<EventTime>,
//! }
//! let click: Click = serde_json::from_str(r#"{"at":"2013-01-01T10:15:00Z","seen":null}"#).unwrap();
//! assert_eq!(click.at, EventTime::from_seconds(1_357_035_300));
//! assert_eq!(click.seen, None);
//! ```

use pelton::EventTime;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// Reads a time of RFC 3339, with any offset: `2013-01-01T10:15:00Z`, `2013-01-01T05:15:00.25-05:00`. Digits beyond
/// the microsecond are cut off.
pub fn parse(text: &str) -> Result<EventTime, String> {
    if let Some(time) = parse_plain(text.as_bytes()) {
        return Ok(time);
    }
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|e: jiff::Error| format!("not a time of RFC 3339: {e}"))?;
    let micros = time.as_nanosecond().div_euclid(1_000);
    i64::try_from(micros)
        .map(EventTime::from_micros)
        .map_err(|_| "the time is out of range".into())
}

/// The form that files mostly hold, `YYYY-MM-DDTHH:MM:SSZ`; `None` for all others, wrong ones too.
#[inline]
fn parse_plain(b: &[u8]) -> Option<EventTime> {
    let b: &[u8; 20] = b.try_into().ok()?;
    let marks = [b[4], b[7], b[10], b[13], b[16], b[19]];
    if marks != *b"--T::Z" {
        return None;
    }
    let mut wrong = 0u8;
    let mut two = |i: usize| {
        let (tens, ones) = (b[i].wrapping_sub(b'0'), b[i + 1].wrapping_sub(b'0'));
        wrong |= u8::from(tens > 9) | u8::from(ones > 9);
        u32::from(tens) * 10 + u32::from(ones)
    };
    let year = two(0) * 100 + two(2);
    let (month, day) = (two(5), two(8));
    let (hour, minute, second) = (two(11), two(14), two(17));
    if wrong != 0 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if year == 0 || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    // Days since 1970-01-01, counted in years that begin on 1 March, so that the leap day is the last of its year.
    let years = year - u32::from(month <= 2);
    let from_march = (month + 9) % 12;
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * from_march + 2) / 5;
    let days = i64::from(days + day) - 719_469;
    let seconds = i64::from(hour * 3_600 + minute * 60 + second);
    Some(EventTime::from_seconds(days * 86_400 + seconds))
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

/// Deserializes text.
struct Text;

impl Visitor<'_> for Text {
    type Value = EventTime;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time of RFC 3339")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<EventTime, E> {
        parse(text).map_err(|e| E::custom(format_args!("{text:?} is {e}")))
    }
}

/// Deserializes a whole number of units of so many microseconds.
struct Units(i64);

impl Visitor<'_> for Units {
    type Value = EventTime;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number since the Unix epoch")
    }
    fn visit_i64<E: Error>(self, n: i64) -> Result<EventTime, E> {
        n.checked_mul(self.0)
            .map(EventTime::from_micros)
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(n), &self))
    }
    fn visit_u64<E: Error>(self, n: u64) -> Result<EventTime, E> {
        match i64::try_from(n) {
            Ok(n) => self.visit_i64(n),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(n), &self)),
        }
    }
}

/// Deserializes nothing, or what the inner visitor does.
struct Maybe<V>(V);

impl<'de, V: With<'de>> Visitor<'de> for Maybe<V> {
    type Value = Option<EventTime>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)?;
        f.write_str(", or nothing")
    }
    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        self.0.read(de).map(Some)
    }
}

/// A visitor that knows how its value is asked for.
trait With<'de>: Visitor<'de, Value = EventTime> {
    fn read<D: Deserializer<'de>>(self, de: D) -> Result<EventTime, D::Error>;
}

impl<'de> With<'de> for Text {
    fn read<D: Deserializer<'de>>(self, de: D) -> Result<EventTime, D::Error> {
        de.deserialize_str(self)
    }
}

impl<'de> With<'de> for Units {
    fn read<D: Deserializer<'de>>(self, de: D) -> Result<EventTime, D::Error> {
        de.deserialize_i64(self)
    }
}

macro_rules! with_modules {
    ($($(#[$doc:meta])* $name:ident = $visitor:expr, |$time:ident, $s:ident| $write:expr;)*) => { $(
        $(#[$doc])*
        pub mod $name {
            use super::*;
            /// Reads a time.
            pub fn deserialize<'de, D: Deserializer<'de>>(de: D) -> Result<EventTime, D::Error> {
                With::read($visitor, de)
            }
            /// Writes a time.
            pub fn serialize<S: Serializer>(time: &EventTime, s: S) -> Result<S::Ok, S::Error> {
                Written(*time).serialize(s)
            }
            struct Written(EventTime);
            impl Serialize for Written {
                fn serialize<S: Serializer>(&self, $s: S) -> Result<S::Ok, S::Error> {
                    let $time = self.0;
                    $write
                }
            }
            /// The same for a time that may be missing. With `#[serde(default)]` its field may be as well.
            pub mod option {
                use super::*;
                /// Reads a time, or nothing.
                pub fn deserialize<'de, D: Deserializer<'de>>(de: D) -> Result<Option<EventTime>, D::Error> {
                    de.deserialize_option(Maybe($visitor))
                }
                /// Writes a time, or nothing.
                pub fn serialize<S: Serializer>(time: &Option<EventTime>, s: S) -> Result<S::Ok, S::Error> {
                    time.map(Written).serialize(s)
                }
            }
        }
    )* };
}
with_modules! {
    /// Text of RFC 3339, see [`parse`].
    rfc3339 = Text, |t, s| s.collect_str(&t);
    /// Whole seconds since the Unix epoch. What is written is rounded down.
    seconds = Units(1_000_000), |t, s| s.serialize_i64(t.micros().div_euclid(1_000_000));
    /// Whole milliseconds since the Unix epoch. What is written is rounded down.
    millis = Units(1_000), |t, s| s.serialize_i64(t.micros().div_euclid(1_000));
    /// Microseconds since the Unix epoch.
    micros = Units(1), |t, s| s.serialize_i64(t.micros());
}
