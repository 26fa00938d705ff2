//! Event time: microseconds since the Unix epoch, and durations written `5.seconds()`.
//!
//! Laws
//! 1. A time that a record may carry lies in `[EventTime::MIN, EventTime::MAX]` = ±2^62 µs (about ±146,000 years).
//!    Anything outside is malformed, so sums of a time and a span never overflow in an operator.
//! 2. Two values outside that range are watermarks only: [`EventTime::BEGINNING`] (nothing is known) and
//!    [`EventTime::END`] (nothing more will come).

use std::fmt;
use std::ops::{Add, Neg, Sub};

/// A point in event time, in microseconds since the Unix epoch.
#[crate::state(version = 1)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord, Hash))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct EventTime(i64);

impl EventTime {
    /// The earliest time that a record may carry.
    pub const MIN: EventTime = EventTime(-(1 << 62));
    /// The latest time that a record may carry.
    pub const MAX: EventTime = EventTime(1 << 62);
    /// As a watermark: nothing is known about what will come.
    pub const BEGINNING: EventTime = EventTime(i64::MIN);
    /// As a watermark: nothing more will come.
    pub const END: EventTime = EventTime(i64::MAX);

    /// From microseconds since the Unix epoch. Whether the value may stand on a record is asked by [`EventTime::is_valid`].
    ///
    /// ```
    /// use pelton::EventTime;
    /// assert_eq!(EventTime::from_micros(1_500_000).to_string(), "1970-01-01T00:00:01.500000Z");
    /// ```
    #[inline]
    pub const fn from_micros(micros: i64) -> Self {
        EventTime(micros)
    }

    /// From milliseconds since the Unix epoch; saturates at the ends of the range.
    #[inline]
    pub const fn from_millis(millis: i64) -> Self {
        EventTime(millis.saturating_mul(1_000))
    }

    /// From seconds since the Unix epoch; saturates at the ends of the range.
    #[inline]
    pub const fn from_seconds(seconds: i64) -> Self {
        EventTime(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    #[inline]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whether a record may carry this time (law 1).
    #[inline]
    pub const fn is_valid(self) -> bool {
        // One comparison instead of two: shifted so that MIN is 0.
        (self.0.wrapping_sub(Self::MIN.0) as u64) <= (Self::MAX.0 as u64) << 1
    }
}

impl Add<Span> for EventTime {
    type Output = EventTime;
    /// Saturates, so that `BEGINNING` and `END` are fixed points in the direction that matters.
    #[inline]
    fn add(self, span: Span) -> EventTime {
        EventTime(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for EventTime {
    type Output = EventTime;
    #[inline]
    fn sub(self, span: Span) -> EventTime {
        if self == EventTime::END {
            self
        } else {
            EventTime(self.0.saturating_sub(span.0))
        }
    }
}

/// The same length the other way: a bound before instead of after. The least number of microseconds has no other and becomes the greatest.
///
/// ```
/// use pelton::{Span, Spans};
/// assert_eq!(-(5.seconds()), Span::from_micros(-5_000_000));
/// assert_eq!(-Span::from_micros(i64::MIN), Span::from_micros(i64::MAX));
/// ```
impl Neg for Span {
    type Output = Span;
    #[inline]
    fn neg(self) -> Span {
        Span(self.0.saturating_neg())
    }
}

impl fmt::Debug for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EventTime {
    /// RFC 3339 in UTC with microseconds where there are any; raw microseconds outside the years 0 to 9999.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EventTime::BEGINNING => return f.write_str("-inf"),
            EventTime::END => return f.write_str("+inf"),
            _ => {}
        }
        let (seconds, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let Some((year, month, day)) = civil_from_days(days) else {
            return write!(f, "{}us", self.0);
        };
        let (h, m, s) = (
            second_of_day / 3600,
            second_of_day / 60 % 60,
            second_of_day % 60,
        );
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}")?;
        if micros != 0 {
            write!(f, ".{micros:06}")?;
        }
        f.write_str("Z")
    }
}

/// Days since 1970-01-01 to a proleptic Gregorian date, `None` outside the years 0 to 9999.
/// Counts in 400-year eras that begin on 1 March, so that the leap day is the last of its year.
fn civil_from_days(days: i64) -> Option<(i64, i64, i64)> {
    if !(-719_528..=2_932_896).contains(&days) {
        return None;
    }
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Some((year, month, day))
}

/// A length of time in microseconds. May be negative (an offset); operators that need a positive one refuse others when the job is built.
#[crate::state(version = 1)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord, Hash))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// The longest span that an operator accepts: 2^60 µs, about 36,500 years.
    pub const MAX: Span = Span(1 << 60);

    /// A span of `micros` microseconds.
    #[inline]
    pub const fn from_micros(micros: i64) -> Self {
        Span(micros)
    }

    /// The span in microseconds.
    #[inline]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The span in nanoseconds of processing time, 0 if negative; saturates.
    #[inline]
    pub const fn nanos(self) -> u64 {
        if self.0 < 0 {
            0
        } else {
            (self.0 as u64).saturating_mul(1_000)
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Units of spans in microseconds, the largest first.
const UNITS: [(i64, &str); 6] = [
    (86_400_000_000, "d"),
    (3_600_000_000, "h"),
    (60_000_000, "min"),
    (1_000_000, "s"),
    (1_000, "ms"),
    (1, "us"),
];

impl std::str::FromStr for Span {
    type Err = String;
    /// A whole number and its unit, as spans are printed: `10ms`, `90s`, `2h`. Not negative.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("'{text}' is no span; give a whole number and a unit: us, ms, s, min, h or d")
        };
        let end = text.find(|c: char| !c.is_ascii_digit());
        let (number, name) = text.split_at(end.ok_or_else(wrong)?);
        let unit = UNITS.iter().find(|(_, unit)| *unit == name);
        let (unit, _) = unit.ok_or_else(wrong)?;
        let number: i64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(*unit).map(Span).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    /// In the largest unit that divides it: `90s`, `2h`, `1500us`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in UNITS {
            if self.0 != 0 && self.0 % unit == 0 {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        f.write_str("0s")
    }
}

impl From<std::time::Duration> for Span {
    /// Whole microseconds; saturates.
    fn from(d: std::time::Duration) -> Self {
        Span(i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Spans as one says them: `5.seconds()`, `1.minutes()`. Products saturate.
///
/// ```
/// use pelton::{Span, Spans};
/// assert_eq!(90.seconds(), Span::from_micros(90_000_000));
/// assert_eq!(2.hours().to_string(), "2h");
/// ```
pub trait Spans {
    /// That many microseconds.
    fn micros(self) -> Span;
    /// That many milliseconds.
    fn millis(self) -> Span;
    /// That many seconds.
    fn seconds(self) -> Span;
    /// That many minutes.
    fn minutes(self) -> Span;
    /// That many hours.
    fn hours(self) -> Span;
    /// That many days of 24 hours.
    fn days(self) -> Span;
}

impl Spans for i64 {
    fn micros(self) -> Span {
        Span(self)
    }
    fn millis(self) -> Span {
        Span(self.saturating_mul(1_000))
    }
    fn seconds(self) -> Span {
        Span(self.saturating_mul(1_000_000))
    }
    fn minutes(self) -> Span {
        Span(self.saturating_mul(60_000_000))
    }
    fn hours(self) -> Span {
        Span(self.saturating_mul(3_600_000_000))
    }
    fn days(self) -> Span {
        Span(self.saturating_mul(86_400_000_000))
    }
}

/// What an event-time function may return: a time, or nothing (`None` is a NULL time: the record is malformed).
pub trait IntoEventTime {
    /// The time, or `None` where there is none.
    fn into_event_time(self) -> Option<EventTime>;
}

impl IntoEventTime for EventTime {
    #[inline(always)]
    fn into_event_time(self) -> Option<EventTime> {
        Some(self)
    }
}

impl IntoEventTime for Option<EventTime> {
    #[inline(always)]
    fn into_event_time(self) -> Option<EventTime> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_rfc3339() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (1_357_034_400_000_000, "2013-01-01T10:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (-62_167_219_200_000_000, "0000-01-01T00:00:00Z"),
            (253_402_300_799_000_000, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(EventTime::from_micros(micros).to_string(), text);
        }
        assert_eq!(EventTime::END.to_string(), "+inf");
        assert_eq!(EventTime::MAX.to_string(), format!("{}us", 1i64 << 62));
    }

    #[test]
    fn spans_are_read_as_they_are_printed() {
        for span in [
            1.micros(),
            10.millis(),
            90.seconds(),
            1.minutes(),
            36.hours(),
            7.days(),
        ] {
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        for wrong in [
            "",
            "10",
            "ms",
            "-1s",
            "1.5s",
            "1 s",
            "1m",
            "9999999999999999d",
            "٣s",
        ] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_range_is_what_it_says() {
        for (micros, valid) in [
            (0, true),
            (1 << 62, true),
            (-(1 << 62), true),
            ((1 << 62) + 1, false),
            (-(1 << 62) - 1, false),
            (i64::MAX, false),
            (i64::MIN, false),
        ] {
            assert_eq!(EventTime::from_micros(micros).is_valid(), valid, "{micros}");
        }
    }

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(EventTime::END + Span::MAX, EventTime::END);
        assert_eq!(EventTime::END - Span::MAX, EventTime::END);
        assert_eq!(EventTime::BEGINNING - Span::MAX, EventTime::BEGINNING);
        assert!((EventTime::MAX + Span::MAX) > EventTime::MAX);
        assert_eq!(i64::MAX.days(), Span::from_micros(i64::MAX));
    }
}
