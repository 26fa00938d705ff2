//! A flight as the file tells it, and a result.

use pelton::{EventTime, Firing, Key, KeyWords, Windowed};
use pelton_connectors::timestamp;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// An airport's or airline's code: 1 to 4 ASCII characters, zeros behind. No allocation for it.
#[pelton::state(version = 1)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code([u8; 4]);

impl Code {
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(4);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl Key for Code {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        out.word(u64::from(u32::from_le_bytes(self.0)));
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Code;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a code of 1 to 4 letters or digits")
            }
            #[inline]
            fn visit_str<E: Error>(self, text: &str) -> Result<Code, E> {
                let bytes = text.as_bytes();
                if !(1..=4).contains(&bytes.len()) || !bytes.iter().all(u8::is_ascii_alphanumeric) {
                    return Err(E::invalid_value(serde::de::Unexpected::Str(text), &self));
                }
                let mut code = [0; 4];
                code[..bytes.len()].copy_from_slice(bytes);
                Ok(Code(code))
            }
        }
        de.deserialize_str(Text)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// A flight. Fields of the file that nothing here needs are passed over.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "Fields")]
pub struct Flight {
    pub carrier: Code,
    flight: u32,
    pub origin: Code,
    dest: Code,
    #[serde(with = "timestamp::rfc3339")]
    pub scheduled: EventTime,
    /// `None` if it was cancelled.
    #[serde(rename = "dep_delay_min")]
    pub delay_min: Option<i32>,
    cancelled: bool,
}

#[derive(Deserialize)]
struct Fields {
    carrier: Code,
    flight: u32,
    origin: Code,
    dest: Code,
    #[serde(with = "timestamp::rfc3339")]
    scheduled: EventTime,
    dep_delay_min: Option<i32>,
    cancelled: bool,
}

impl TryFrom<Fields> for Flight {
    type Error = &'static str;
    #[inline]
    fn try_from(f: Fields) -> Result<Self, &'static str> {
        match (f.cancelled, f.dep_delay_min) {
            (true, Some(_)) => return Err("a cancelled flight has a departure delay"),
            (false, None) => return Err("a flight that left has no departure delay"),
            _ => {}
        }
        Ok(Flight {
            carrier: f.carrier,
            flight: f.flight,
            origin: f.origin,
            dest: f.dest,
            scheduled: f.scheduled,
            delay_min: f.dep_delay_min,
            cancelled: f.cancelled,
        })
    }
}

/// An hour of one carrier at one airport.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    #[serde(with = "timestamp::rfc3339")]
    pub hour: EventTime,
    pub origin: Code,
    pub carrier: Code,
    pub departures: u64,
    pub cancelled: u64,
    pub mean_delay_min: Option<f64>,
    pub worst_delay_min: Option<i32>,
    #[serde(serialize_with = "firing")]
    pub firing: Firing,
}

/// What the windows compute: flights, cancellations, minutes of delay, the worst delay (the least number if none left).
pub type Sums = (u64, u64, i64, i32);

impl From<Windowed<(Code, Code), Sums>> for Row {
    fn from(w: Windowed<(Code, Code), Sums>) -> Self {
        let (flights, cancelled, delay_min, worst) = w.value;
        let departures = flights - cancelled;
        let left = departures > 0;
        Row {
            hour: w.window.start,
            origin: w.key.0,
            carrier: w.key.1,
            departures,
            cancelled,
            mean_delay_min: left.then(|| delay_min as f64 / departures as f64),
            worst_delay_min: left.then_some(worst),
            firing: w.firing,
        }
    }
}

fn firing<S: Serializer>(firing: &Firing, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(match firing {
        Firing::Early => "early",
        Firing::OnTime => "on_time",
        Firing::Update => "update",
        Firing::Correction => "correction",
        Firing::Retraction => "retraction",
    })
}
