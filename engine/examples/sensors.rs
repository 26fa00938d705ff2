//! Sensor alerts: a spell in which a sensor stays hot, told once it is over.
//!
//! `cargo run --release -p pelton --example sensors`
//!
//! Readings above 80 degrees are gathered into sessions: a spell ends when nothing hot has been read for ten seconds. Three readings make
//! an alert. Readings may come two seconds out of order.

use pelton::sink::Sink;
use pelton::source::Source;
use pelton::{Config, EventTime, Job, Session, Span, Spans, Watermarks, sink, sources};

/// What a sensor says.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Which one.
    pub sensor: u32,
    /// When.
    pub at: EventTime,
    /// Degrees.
    pub celsius: f64,
}

/// A spell that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Whose.
    pub sensor: u32,
    /// Its first reading.
    pub from: EventTime,
    /// How many were hot.
    pub readings: u64,
    /// The greatest, degrees.
    pub hottest: f64,
}

const HOT: f64 = 80.0;

/// The job.
pub fn write(job: &Job, readings: impl Source<Item = Reading>, alerts: impl Sink<Alert>) {
    job.source(readings)
        .event_time(|r| r.at, Watermarks::bounded(2.seconds()))
        .filter(|r| r.celsius > HOT)
        .key_by(|r| r.sensor)
        .window(Session::gap(10.seconds()))
        .uid("hot spells")
        .aggregate(|a| (a.count(), a.max(|r| r.celsius)))
        .filter(|spell| spell.value.0 >= 3)
        .map(|spell| Alert {
            sensor: spell.key,
            from: spell.window.start,
            readings: spell.value.0,
            hottest: spell.value.1,
        })
        .sink(alerts);
}

/// A reading of every second sensor a millisecond; each is hot for five seconds of every minute, one later than another.
fn reading(id: u64) -> Reading {
    let (sensor, millis) = ((id % 100) as u32, id as i64 * 10);
    let phase = (millis / 1_000 + i64::from(sensor)) % 60;
    Reading {
        sensor,
        at: EventTime::from_micros(0) + Span::from_micros(millis * 1_000),
        celsius: if phase < 5 { 85.0 + phase as f64 } else { 60.0 },
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::new("sensors");
    let alerts = sink::callback("alerts", |alert: Alert, _| println!("{alert:?}"));
    write(
        &job,
        sources::generate("readings", 12_000, 1, reading),
        alerts,
    );
    let report = job.run(Config::default().shards(1))?;
    println!("{} readings", report.counters.records_in);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton::testing::{self, Stepper};

    #[test]
    fn a_spell_is_told_when_it_is_over() {
        let (feed, source) = testing::feed(1);
        let (alerts, sink) = testing::collect();
        let job = Job::new("sensors");
        write(&job, source, sink);
        let mut stepper = Stepper::new(&job, 2).unwrap();
        let read = |sensor, second, celsius| {
            let at = EventTime::from_seconds(second);
            feed.push(
                0,
                Reading {
                    sensor,
                    at,
                    celsius,
                },
            );
        };
        // Three of sensor 1, out of order; two of sensor 2, which are too few; cold ones between.
        for (sensor, second, celsius) in [
            (1, 12, 81.0),
            (1, 11, 90.0),
            (2, 12, 99.0),
            (1, 13, 20.0),
            (1, 19, 82.0),
            (2, 14, 99.0),
        ] {
            read(sensor, second, celsius);
        }
        stepper.until_idle().unwrap();
        assert_eq!(alerts.take(), []);
        read(3, 40, 0.0);
        stepper.until_idle().unwrap();
        let expected = Alert {
            sensor: 1,
            from: EventTime::from_seconds(11),
            readings: 3,
            hottest: 90.0,
        };
        assert_eq!(alerts.take(), [expected]);
    }
}
