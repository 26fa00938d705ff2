//! A source held to a rate.
//!
//! Laws
//! 1. What it yields, where it is and where it goes on are the source's own: a job may go on from a checkpoint at another rate,
//!    or at none.
//! 2. Records have due times, counted from the first read. None comes before its own; after a pause, what was due meanwhile
//!    comes at once.
//! 3. It asks to be read again when something is due, and at most once a millisecond: a shard sleeps in between.

use crate::port::Ports;
use crate::source::{Emit, Position, Read, ReadError, Reader, Source};
use crate::time::EventTime;

/// Between two reads lies at least so much, nanoseconds.
const PAUSE_NS: u64 = 1_000_000;

/// The records of `source`, `per_second` of them a second of processing time, which its partitions share in equal parts. At
/// least one a second.
///
/// ```
/// use pelton::sources;
/// let slow = sources::paced(sources::items(0..1_000u64), 100);
/// ```
pub fn paced<S: Source>(source: S, per_second: u64) -> Paced<S> {
    Paced {
        source,
        per_second: per_second.max(1),
    }
}

/// See [`paced`].
#[derive(Clone, Debug)]
pub struct Paced<S> {
    source: S,
    per_second: u64,
}

/// A partition of [`Paced`].
#[derive(Debug)]
pub struct PacedReader<R> {
    reader: R,
    per_second: u64,
    partitions: u64,
    /// When it was first read.
    began_ns: Option<u64>,
    /// Records since then.
    emitted: u64,
}

impl<S: Source> Source for Paced<S> {
    type Item = S::Item;
    type Reader = PacedReader<S::Reader>;
    fn name(&self) -> String {
        self.source.name()
    }
    fn may_fall_silent(&self) -> bool {
        self.source.may_fall_silent()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Reader>, String> {
        let readers = self.source.open(ports)?;
        let partitions = readers.len() as u64;
        let paced = |reader| PacedReader {
            reader,
            per_second: self.per_second,
            partitions,
            began_ns: None,
            emitted: 0,
        };
        Ok(readers.into_iter().map(paced).collect())
    }
}

impl<R> PacedReader<R> {
    /// How many records are due `ns` after the first read.
    fn due(&self, ns: u64) -> u64 {
        let due = u128::from(ns) * u128::from(self.per_second);
        let due = due / (1_000_000_000 * u128::from(self.partitions));
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    /// When the next record is due, nanoseconds after the first read, rounded up.
    fn next_due(&self) -> u64 {
        let ns = (u128::from(self.emitted) + 1) * 1_000_000_000 * u128::from(self.partitions);
        u64::try_from(ns.div_ceil(u128::from(self.per_second))).unwrap_or(u64::MAX)
    }
}

impl<R: Reader> Reader for PacedReader<R> {
    type Item = R::Item;
    fn name(&self) -> String {
        self.reader.name()
    }
    fn offset_step(&self) -> Option<u64> {
        self.reader.offset_step()
    }
    fn place(&self, offset: u64) -> (String, u64) {
        self.reader.place(offset)
    }
    fn stops_on_malformed(&self) -> bool {
        self.reader.stops_on_malformed()
    }
    fn position(&self) -> Option<Position> {
        self.reader.position()
    }
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        self.reader.seek(position)
    }
    fn added(&mut self) -> Result<(), String> {
        self.reader.added()
    }
    fn is_through(&mut self) -> bool {
        self.reader.is_through()
    }
    fn read<E: Emit<R::Item>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let now_ns = out.now_ns();
        let began_ns = *self.began_ns.get_or_insert(now_ns);
        let due = self.due(now_ns.saturating_sub(began_ns));
        let left = due.saturating_sub(self.emitted);
        if left > 0 {
            let max = usize::try_from(left).unwrap_or(usize::MAX).min(max);
            let mut counted = Counted { out, emitted: 0 };
            let read = self.reader.read(max, &mut counted);
            self.emitted += counted.emitted;
            match read {
                Ok(Read::More) if self.emitted >= due => {}
                other => return other,
            }
        }
        let due_ns = began_ns.saturating_add(self.next_due());
        let until_ns = Some(due_ns.max(now_ns.saturating_add(PAUSE_NS)));
        Ok(Read::Pending { until_ns })
    }
}

/// Counts what passes, records and what is none.
struct Counted<'a, E> {
    out: &'a mut E,
    emitted: u64,
}

impl<T, E: Emit<T>> Emit<T> for Counted<'_, E> {
    #[inline]
    fn emit(&mut self, offset: u64, record: T) {
        self.emitted += 1;
        self.out.emit(offset, record);
    }
    #[inline]
    fn emit_run(&mut self, first: u64, step: u64, records: impl ExactSizeIterator<Item = T>) {
        self.emitted += records.len() as u64;
        self.out.emit_run(first, step, records);
    }
    #[inline]
    fn emit_from(
        &mut self,
        offset: u64,
        line: Option<u64>,
        bytes: &[u8],
        record: T,
    ) -> Result<(), ReadError> {
        self.emitted += 1;
        self.out.emit_from(offset, line, bytes, record)
    }
    #[inline]
    fn emit_arrived(&mut self, offset: u64, arrival_ns: u64, record: T) {
        self.emitted += 1;
        self.out.emit_arrived(offset, arrival_ns, record);
    }
    fn malformed(&mut self, offset: u64, line: Option<u64>, reason: &str, payload: &[u8]) {
        self.emitted += 1;
        self.out.malformed(offset, line, reason, payload);
    }
    fn now_ns(&self) -> u64 {
        self.out.now_ns()
    }
    fn wall(&self) -> EventTime {
        self.out.wall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::generate;

    /// Takes records at a time that the test says.
    #[derive(Default)]
    struct At {
        now_ns: u64,
        records: Vec<u64>,
    }

    impl Emit<u64> for At {
        fn emit(&mut self, _: u64, record: u64) {
            self.records.push(record);
        }
        fn emit_arrived(&mut self, offset: u64, _: u64, record: u64) {
            self.emit(offset, record);
        }
        fn malformed(&mut self, _: u64, _: Option<u64>, _: &str, _: &[u8]) {}
        fn now_ns(&self) -> u64 {
            self.now_ns
        }
        fn wall(&self) -> EventTime {
            EventTime::BEGINNING
        }
    }

    #[test]
    fn nothing_comes_before_it_is_due_and_everything_in_time() {
        for (rate, partitions) in [(1, 1), (1_000, 1), (1_000, 3), (7_777, 2), (2_000_000, 4)] {
            let count = rate * 2;
            let mut source = paced(generate("n", count, partitions, |id| id), rate);
            let mut readers = source.open(&mut Ports::inline(1)).unwrap();
            let reader = &mut readers[0];
            let mut out = At {
                now_ns: 5,
                ..At::default()
            };
            let mut reads = 0u64;
            loop {
                reads += 1;
                let read = reader.read(usize::MAX, &mut out).unwrap();
                let passed = out.now_ns - 5;
                let due = passed * rate / (1_000_000_000 * partitions as u64);
                assert!(
                    out.records.len() as u64 <= due,
                    "{rate}/s after {passed} ns"
                );
                match read {
                    Read::End => break,
                    Read::More => {}
                    Read::Pending { until_ns } => {
                        assert_eq!(out.records.len() as u64, due, "{rate}/s");
                        assert!(until_ns.unwrap() >= out.now_ns + PAUSE_NS);
                        out.now_ns = until_ns.unwrap();
                    }
                }
            }
            let seconds = (out.now_ns - 5) as f64 / 1e9;
            assert!(
                (1.9..2.1).contains(&seconds) || rate == 1,
                "{rate}/s: {seconds} s"
            );
            assert!(reads <= 2_100, "{rate}/s: {reads} reads in 2 s");
        }
    }

    #[test]
    fn after_a_pause_it_catches_up_a_batch_at_a_time() {
        let mut source = paced(generate("n", 1_000, 1, |id| id), 100);
        let mut readers = source.open(&mut Ports::inline(1)).unwrap();
        let mut out = At::default();
        assert!(matches!(
            readers[0].read(64, &mut out),
            Ok(Read::Pending { .. })
        ));
        out.now_ns = 1_000_000_000;
        assert_eq!(readers[0].read(64, &mut out), Ok(Read::More));
        assert!(matches!(
            readers[0].read(64, &mut out),
            Ok(Read::Pending { .. })
        ));
        assert_eq!(out.records, (0..100).collect::<Vec<_>>());
        assert_eq!(readers[0].position(), Some(Position::at(100)));
    }
}
