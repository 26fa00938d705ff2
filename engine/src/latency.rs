//! Where time goes, by cause: always on, recorded once a batch or step and never for each record.
//!
//! Laws
//! 1. A value is a batch's or step's, weighted by its records: what its oldest record waited counts for all of it, so a
//!    quantile errs upwards, by less than a step.
//! 2. Nothing is allocated after the start; recording takes a few nanoseconds.
//! 3. Causes do not overlap, and need not add up to `end_to_end_ns`: a record may pass several rings and steps, and a
//!    result's end-to-end time begins with the arrival that let it go, not with the time it was held before.

use crate::time::{EventTime, Span};
use hdrhistogram::Histogram;
use std::fmt;
use std::time::Duration;

/// Histograms of nanoseconds, one for each cause.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// Waiting in the source: from a record's arrival to the step that read it. Only sources that know when records
    /// arrived have it ([`crate::source::Emit::emit_arrived`]).
    pub source_ns: Histogram<u64>,
    /// Waiting in a ring: from the publication of a batch to the step that took it.
    pub ring_ns: Histogram<u64>,
    /// In an operator: how long the steps took that handled records. Not measured by a stepper, whose time stands still.
    pub operator_ns: Histogram<u64>,
    /// Waiting for an answer from outside: from when an async map or a lookup join took a record to the step that let it go, those before it that it
    /// waited for included. Of a record that was known at once, or restored, nothing is counted.
    pub answer_ns: Histogram<u64>,
    /// Held on purpose: results that an event-time operator gave when the watermark allowed it, from the arrival of the
    /// newest record that they hold to the step that gave them.
    ///
    /// That arrival is known by batches: it is taken from the newest batch whose last record lies before the result's
    /// end and was not behind the watermark; of long holds it is known to an eighth of them, upwards. With a session whose gap differs by record, the longest gap counts.
    pub window_ns: Histogram<u64>,
    /// From arrival in the source to the sink's step. For a window's result the arrival is that of the record which let
    /// the watermark pass.
    pub end_to_end_ns: Histogram<u64>,
}

impl Latencies {
    /// Empty histograms: 1 ns to 1 hour, two significant digits (about 36 KiB each, allocated here and never later).
    pub fn new() -> Self {
        let histogram = || match Histogram::new_with_bounds(1, 3_600_000_000_000, 2) {
            Ok(h) => h,
            Err(_) => unreachable!("constant bounds are valid"),
        };
        Latencies {
            source_ns: histogram(),
            ring_ns: histogram(),
            operator_ns: histogram(),
            answer_ns: histogram(),
            window_ns: histogram(),
            end_to_end_ns: histogram(),
        }
    }

    /// Each with what it measures, in the order in which a record meets them; end to end comes last.
    pub fn causes(&self) -> [(&'static str, &Histogram<u64>); 6] {
        [
            ("waiting in the source", &self.source_ns),
            ("waiting in a ring", &self.ring_ns),
            ("in an operator", &self.operator_ns),
            ("waiting for an answer", &self.answer_ns),
            ("held by a window", &self.window_ns),
            ("source to sink", &self.end_to_end_ns),
        ]
    }

    /// Adds another's values.
    pub(crate) fn add(&mut self, other: &Latencies) {
        let mine = [
            &mut self.source_ns,
            &mut self.ring_ns,
            &mut self.operator_ns,
            &mut self.answer_ns,
            &mut self.window_ns,
            &mut self.end_to_end_ns,
        ];
        for (mine, (_, theirs)) in mine.into_iter().zip(other.causes()) {
            // Bounds are the same constants everywhere, so adding cannot fail.
            let _ = mine.add(theirs);
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// A line for each cause that has values: p50, p99, p99.9 and the greatest.
impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (cause, values) in self.causes() {
            if values.is_empty() {
                continue;
            }
            let at = |q: f64| Short::nanos(values.value_at_quantile(q));
            writeln!(
                f,
                "latency, {cause}: p50 {}, p99 {}, p99.9 {}, max {}",
                at(0.5),
                at(0.99),
                at(0.999),
                Short::nanos(values.max())
            )?;
        }
        Ok(())
    }
}

/// A time in the unit that suits it: `12.3 us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Short(pub Duration);

impl Short {
    fn nanos(ns: u64) -> Self {
        Short(Duration::from_nanos(ns))
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos() as f64;
        match ns {
            _ if ns < 1e6 => write!(f, "{:.1} us", ns / 1e3),
            _ if ns < 1e9 => write!(f, "{:.1} ms", ns / 1e6),
            _ => write!(f, "{:.2} s", ns / 1e9),
        }
    }
}

/// When the newest batch arrived that ended before a given event time: what a stage knows of the records in a result.
///
/// Batches as (time of the last record, arrival). One that ends earlier than those before it is newer than they, so it is
/// the answer wherever they were: it takes their place, and both columns ascend.
///
/// ```text
///   (10, a1) (20, a2) (30, a3)  and then a batch that ends at 15:  (10, a1) (15, a4)
/// ```
#[derive(Debug)]
pub(crate) struct Arrivals {
    points: Vec<(EventTime, u64)>,
}

impl Arrivals {
    /// Room for points: more than thinning leaves, so that it comes seldom.
    const MAX: usize = 512;
    /// An arrival may be told too early by so much, and by an eighth of its age.
    const FINE_NS: u64 = 1_000;

    pub fn new() -> Self {
        Arrivals {
            points: Vec::with_capacity(Self::MAX),
        }
    }

    /// A batch has come. O(1), amortised.
    #[inline]
    pub fn batch(&mut self, last: EventTime, arrival_ns: u64) {
        let mut arrival_ns = arrival_ns;
        while let Some(&(time, earlier_ns)) = self.points.last() {
            // Batches of several producers need not arrive in the order of their stamps.
            arrival_ns = arrival_ns.max(earlier_ns);
            if time < last {
                break;
            }
            self.points.pop();
        }
        if self.points.len() == Self::MAX {
            self.thin();
        }
        self.points.push((last, arrival_ns));
    }

    /// Drops points whose neighbours are near for their age. What is left ascends in steps that grow with age, so it is some
    /// hundred points whatever the time they span, and a point's error does not grow from one thinning to the next.
    #[cold]
    fn thin(&mut self) {
        let points = &mut self.points;
        let now_ns = points[points.len() - 1].1;
        // What is kept moves to the back: `points[kept..]`.
        let mut kept = points.len() - 1;
        for at in (1..kept).rev() {
            let (newer_ns, older_ns) = (points[kept].1, points[at - 1].1);
            if newer_ns - older_ns > Self::FINE_NS + (now_ns - newer_ns) / 8 {
                kept -= 1;
                points[kept] = points[at];
            }
        }
        // Should all of them be far apart, the oldest goes: there must be room.
        if kept > 1 {
            kept -= 1;
            points[kept] = points[0];
        }
        points.drain(..kept);
    }

    /// The arrival of the newest batch whose last record has at most this time. O(log n).
    pub fn newest(&self, time: EventTime) -> Option<u64> {
        let end = time + Span::from_micros(1);
        let after = self.points.partition_point(|(last, _)| *last < end);
        Some(self.points[after.checked_sub(1)?].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(time: i64) -> EventTime {
        EventTime::from_micros(time)
    }

    proptest! {
        #[test]
        fn arrivals_answer_as_a_list_of_all_batches_does(
            batches in prop::collection::vec((0..1000i64, 0..50u64), 0..Arrivals::MAX),
        ) {
            let (mut arrivals, mut all, mut now) = (Arrivals::new(), vec![], 0);
            for (last, later) in batches {
                now += later;
                arrivals.batch(at(last), now);
                all.push((last, now));
                for time in [0, last - 1, last, last + 1, 500, 1000] {
                    let newest = all.iter().filter(|b| b.0 <= time).map(|b| b.1).max();
                    prop_assert_eq!(arrivals.newest(at(time)), newest, "at {}", time);
                }
            }
        }

        #[test]
        fn arrivals_are_bounded_and_err_by_an_eighth_at_most(
            spread in 1..200i64,
            every_ns in prop::sample::select(vec![1u64, 700, 50_000]),
        ) {
            let mut arrivals = Arrivals::new();
            let room = arrivals.points.capacity();
            let last = |n: i64| at(n * 10 + n * 7 % spread * 10);
            let count = 20_000;
            for n in 0..count {
                arrivals.batch(last(n), n as u64 * every_ns);
            }
            prop_assert_eq!(arrivals.points.capacity(), room, "it has not grown");
            for back in [1, 10, 100, 1_000, 10_000] {
                let time = at((count - back) * 10);
                let held_ns = |n: i64| (count - n) as u64 * every_ns;
                let held = held_ns((0..count).rev().find(|&n| last(n) <= time).unwrap_or(0));
                let told = count as u64 * every_ns - arrivals.newest(time).unwrap_or(0);
                let most = held + held / 8 + Arrivals::FINE_NS;
                prop_assert!((held..=most).contains(&told), "{told} of {held}, back {back}");
            }
        }
    }

    #[test]
    fn batches_stamped_out_of_order_keep_both_columns_ascending() {
        let mut arrivals = Arrivals::new();
        arrivals.batch(at(10), 100);
        arrivals.batch(at(20), 90);
        assert_eq!(arrivals.newest(at(20)), Some(100));
        arrivals.batch(at(5), 95);
        assert_eq!(arrivals.newest(at(5)), Some(100));
        assert_eq!(arrivals.newest(at(4)), None);
    }

    #[test]
    fn only_causes_with_values_are_told() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.to_string(), "");
        latencies.ring_ns.saturating_record_n(1_500, 7);
        latencies.window_ns.saturating_record_n(3_000_000_000, 1);
        let text = latencies.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("latency, waiting in a ring: p50 1.5 us, p99 1.5 us"));
        assert!(
            lines[1].starts_with("latency, held by a window: p50 3.0"),
            "{text}"
        );
        let mut sum = Latencies::new();
        sum.add(&latencies);
        sum.add(&latencies);
        assert_eq!((sum.ring_ns.len(), sum.window_ns.len()), (14, 2));
    }
}
