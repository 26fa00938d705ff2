//! Sources in memory keep the laws, and what breaks one is caught.

use pelton::port::Ports;
use pelton::source::{Emit, Position, Read, ReadError, Reader, Source};
use pelton::sources::{self, Generate, GenerateReader};
use pelton::testing::{conformance, feed};

#[test]
fn sources_in_memory_keep_the_laws() {
    conformance::source(|| sources::items(0..50u8)).unwrap();
    conformance::source(|| sources::partitions([0..3, 5..5, 9..40])).unwrap();
    for partitions in 1..5 {
        conformance::source(|| sources::generate("ids", 50, partitions, |id| id * id)).unwrap();
    }
}

#[test]
fn a_feed_keeps_the_laws_closed_or_not() {
    for close in [false, true] {
        let (feed, _) = feed(3);
        for n in 0..40 {
            feed.push(n % 2, n);
        }
        if close {
            feed.close(1);
        }
        conformance::source(|| feed.source()).unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// Its position is that of what was read ahead.
    Ahead,
    /// Its position is that of the batch before.
    Behind,
    /// It seeks and does not go there.
    Deaf,
    /// Its offsets count from where it was sought.
    FromZero,
    Nothing,
}

/// A source with a wrong in it.
struct Faulty<F>(Generate<F>, Wrong);

struct FaultyReader<F> {
    reader: GenerateReader<F>,
    wrong: Wrong,
    before: Option<Position>,
    sought: u64,
}

impl<F: Fn(u64) -> u64 + Clone + Send + 'static> Source for Faulty<F> {
    type Item = u64;
    type Reader = FaultyReader<F>;
    fn name(&self) -> String {
        "faulty".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Reader>, String> {
        let readers = self.0.open(ports)?.into_iter();
        Ok(readers
            .map(|reader| FaultyReader {
                before: reader.position(),
                reader,
                wrong: self.1,
                sought: 0,
            })
            .collect())
    }
}

struct FromZero<'a, E>(&'a mut E, u64);

impl<E: Emit<u64>> Emit<u64> for FromZero<'_, E> {
    fn emit(&mut self, offset: u64, record: u64) {
        self.0.emit(offset - self.1, record);
    }
    fn emit_arrived(&mut self, offset: u64, _: u64, record: u64) {
        self.emit(offset, record);
    }
    fn malformed(&mut self, _: u64, _: Option<u64>, _: &str, _: &[u8]) {}
    fn now_ns(&self) -> u64 {
        0
    }
    fn wall(&self) -> pelton::EventTime {
        self.0.wall()
    }
}

impl<F: Fn(u64) -> u64 + Send + 'static> Reader for FaultyReader<F> {
    type Item = u64;
    fn name(&self) -> String {
        self.reader.name()
    }
    fn position(&self) -> Option<Position> {
        match self.wrong {
            Wrong::Ahead => self.reader.position().map(|p| Position::at(p.offset + 3)),
            Wrong::Behind => self.before.clone(),
            _ => self.reader.position(),
        }
    }
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        if self.wrong == Wrong::Deaf {
            return Ok(());
        }
        self.before = Some(position.clone());
        self.sought = position.offset;
        self.reader.seek(position)
    }
    fn read<E: Emit<u64>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        self.before = self.reader.position();
        let zero = match self.wrong {
            Wrong::FromZero => self.sought,
            _ => 0,
        };
        self.reader.read(max, &mut FromZero(out, zero))
    }
}

#[test]
fn a_wrong_source_is_caught() {
    let check = |wrong| {
        let make = move || Faulty(sources::generate("ids", 30, 3, |id| id), wrong);
        conformance::source(make)
    };
    check(Wrong::Nothing).unwrap();
    for wrong in [Wrong::Ahead, Wrong::Behind, Wrong::Deaf, Wrong::FromZero] {
        let what = check(wrong).expect_err(&format!("{wrong:?}"));
        assert!(what.contains("law "), "{what}");
    }
}

/// Cannot be gone back to at all.
struct NoWayBack;

impl Source for NoWayBack {
    type Item = u8;
    type Reader = NoWayBack;
    fn name(&self) -> String {
        "no way back".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<NoWayBack>, String> {
        Ok(vec![NoWayBack])
    }
}

impl Reader for NoWayBack {
    type Item = u8;
    fn name(&self) -> String {
        "0".into()
    }
    fn read<E: Emit<u8>>(&mut self, _: usize, _: &mut E) -> Result<Read, ReadError> {
        Ok(Read::End)
    }
}

#[test]
fn a_source_without_positions_is_told() {
    let what = conformance::source(|| NoWayBack).unwrap_err();
    assert!(what.contains("not replayable"), "{what}");
}
