//! Whether a source can be gone back to.
//!
//! Laws, of each partition
//! 1. Read anew it gives the same: records, offsets, lines, what is malformed, and where it is said to lie.
//! 2. Whatever has been read, in batches of any size, its position is what has been handed on and no more: a new reader that seeks
//!    it gives exactly the rest, and gives that position too before it has read.
//! 3. A position's offset lies behind what has been handed on, and not behind what comes next.
//! 4. So it stays when a partition has been gone back to before.

use super::{Dice, cases};
use crate::port::Ports;
use crate::source::{Emit, Position, Read, ReadError, Reader, Source};
use crate::time::EventTime;
use std::fmt::Debug;

/// Reads without a record after which a partition that is pending is taken to have no more.
const PATIENCE: u32 = 1000;

/// What a partition gave, and its place as people are told.
#[derive(Clone, Debug, PartialEq)]
struct Given<T> {
    offset: u64,
    place: (String, u64),
    line: Option<u64>,
    what: What<T>,
}

#[derive(Clone, Debug, PartialEq)]
enum What<T> {
    Record(T),
    Malformed { reason: String, payload: Vec<u8> },
}

struct Taker<T>(Vec<Given<T>>);

impl<T> Taker<T> {
    fn take(&mut self, offset: u64, line: Option<u64>, what: What<T>) {
        let place = (String::new(), 0);
        self.0.push(Given {
            offset,
            place,
            line,
            what,
        });
    }
}

impl<T> Emit<T> for Taker<T> {
    fn emit(&mut self, offset: u64, record: T) {
        self.take(offset, None, What::Record(record));
    }
    fn emit_from(
        &mut self,
        offset: u64,
        line: Option<u64>,
        _: &[u8],
        record: T,
    ) -> Result<(), ReadError> {
        self.take(offset, line, What::Record(record));
        Ok(())
    }
    fn emit_arrived(&mut self, offset: u64, _: u64, record: T) {
        self.emit(offset, record);
    }
    fn malformed(&mut self, offset: u64, line: Option<u64>, reason: &str, payload: &[u8]) {
        let (reason, payload) = (reason.to_string(), payload.to_vec());
        self.take(offset, line, What::Malformed { reason, payload });
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn wall(&self) -> EventTime {
        EventTime::from_micros(0)
    }
}

/// Whether a source keeps the laws of `Reader::position`, `Reader::seek` and `Reader::is_through`. `make` makes the same source each time, with
/// all that it will ever have; each of its partitions is read whole some 64 times, so let it be small.
///
/// Ports serve inline, as in a [`Stepper`](crate::testing::Stepper). A partition may end or stay pending.
///
/// # Errors
/// Which law is broken, and where.
pub fn source<S>(mut make: impl FnMut() -> S) -> Result<(), String>
where
    S: Source,
    S::Item: Clone + Debug + PartialEq,
{
    let mut dice = Dice(1);
    let mut readers = open(&mut make)?;
    let wholes: Vec<_> = readers
        .iter_mut()
        .map(|reader| read(reader, usize::MAX, || 1024))
        .collect::<Result<_, String>>()?;
    for trial in 0..cases() {
        let mut readers = open(&mut make)?;
        if readers.len() != wholes.len() {
            return Err(format!(
                "opened anew it has {} partitions, and had {}",
                readers.len(),
                wholes.len()
            ));
        }
        let mut given = vec![0; wholes.len()];
        // Gone back to again and again, each time further on.
        for round in 0..=3 {
            let mut positions = vec![];
            for (at, reader) in readers.iter_mut().enumerate() {
                let rest = &wholes[at][given[at]..];
                let most = match round {
                    3 => usize::MAX,
                    _ => dice.below(rest.len() + 1),
                };
                let found = go_on(reader, rest, most, &mut dice);
                let (n, position) = found.map_err(|what| {
                    let name = reader.name();
                    let before = given[at];
                    format!(
                        "trial {trial}, partition {name}, after {before} records and {round} restarts: {what}"
                    )
                })?;
                given[at] += n;
                positions.push(position);
            }
            readers = open(&mut make)?;
            for (reader, position) in readers.iter_mut().zip(positions) {
                seek(reader, &position).map_err(|what| {
                    format!("trial {trial}, partition {}: {what}", reader.name())
                })?;
            }
        }
    }
    Ok(())
}

fn open<S: Source>(make: &mut impl FnMut() -> S) -> Result<Vec<S::Reader>, String> {
    let mut ports = Ports::inline(1);
    make()
        .open(&mut ports)
        .map_err(|e| format!("it does not open: {e}"))
}

/// Reads `most` records in batches of these sizes, fewer only if the partition has no more.
fn read<R: Reader>(
    reader: &mut R,
    most: usize,
    mut batch: impl FnMut() -> usize,
) -> Result<Vec<Given<R::Item>>, String> {
    let mut taker = Taker(vec![]);
    let mut still = 0;
    while taker.0.len() < most {
        let before = taker.0.len();
        let is_through = reader.is_through();
        let result = reader.read(batch().min(most - before), &mut taker);
        for given in &mut taker.0[before..] {
            given.place = reader.place(given.offset);
        }
        if is_through && (taker.0.len() > before || !matches!(result, Ok(Read::End))) {
            return Err("it said that it was through, and was not".into());
        }
        match result {
            Ok(Read::End) => return Ok(taker.0),
            Ok(_) if taker.0.len() > before => still = 0,
            Ok(_) if still < PATIENCE => still += 1,
            Ok(_) => return Ok(taker.0),
            Err(e) => return Err(format!("reading failed: {}", e.what)),
        }
    }
    Ok(taker.0)
}

/// Reads at most `most` of what must be `rest`; how many, and the position behind them.
fn go_on<R: Reader>(
    reader: &mut R,
    rest: &[Given<R::Item>],
    most: usize,
    dice: &mut Dice,
) -> Result<(usize, Position), String>
where
    R::Item: Clone + Debug + PartialEq,
{
    let got = read(reader, most, || 1 + dice.below(7))?;
    let n = got.len();
    if let Some(at) = (0..n.max(rest.len().min(most))).find(|&i| got.get(i) != rest.get(i)) {
        return Err(format!(
            "law 2: the {}. record is to be {:?}, and is {:?}",
            at + 1,
            rest.get(at),
            got.get(at)
        ));
    }
    let Some(position) = reader.position() else {
        return Err("it has no position, and is not replayable".into());
    };
    if got.last().is_some_and(|last| last.offset > position.offset)
        || rest
            .get(n)
            .is_some_and(|next| next.offset < position.offset)
    {
        return Err(format!(
            "law 3: its position is {}, and lies not between {:?} and {:?}",
            position.offset,
            got.last().map(|g| g.offset),
            rest.get(n).map(|g| g.offset)
        ));
    }
    Ok((n, position))
}

fn seek<R: Reader>(reader: &mut R, position: &Position) -> Result<(), String> {
    reader
        .seek(position)
        .map_err(|e| format!("it cannot go back to {position:?}: {e}"))?;
    match reader.position() {
        Some(p) if p == *position => Ok(()),
        other => Err(format!(
            "law 2: it went to {position:?} and says {other:?} before it has read"
        )),
    }
}
