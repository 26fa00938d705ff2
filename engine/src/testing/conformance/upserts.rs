//! Whether a sink by key counts exactly once: the laws of the kit for sinks, with changes of keys instead of records.
//!
//! A record of the kit is a key whose row is replaced once, and beside it a key that comes and goes: what is seen of the first is its last row,
//! of the second nothing.

use crate::batch::Stamp;
use crate::checkpoint::Epoch;
use crate::port::Ports;
use crate::sink::{
    self, Committer, PreCommit, Sink, Transactional, TransactionalWriter, Upserting, Upserts,
    Writer,
};
use crate::upsert::Upsert;

/// Of a row that must not be seen.
const WRONG: u64 = u64::MAX;

/// Whether a handler of [`Upserts`] keeps the laws of two phases: see [`conformance::sink`](super::sink()), whose trials these are. `make` makes
/// the handler for a trial's target, again after each crash; `read_visible` reads all keys that others see there, with their rows.
///
/// # Errors
/// Which law is broken, and where. A row of a key that was deleted, or one that was replaced, is told as record 2^64 - 1.
pub fn upserts<H: Upserts<u64, u64>>(
    mut make: impl FnMut(u64) -> H,
    mut read_visible: impl FnMut(u64) -> Vec<(u64, u64)>,
) -> Result<(), String> {
    let visible = move |trial| {
        let rows = read_visible(trial).into_iter();
        let record = |(key, row)| if key == row { key } else { WRONG };
        rows.map(record).collect()
    };
    let numbers = |trial| Numbers(sink::upserts("upserts", make(trial)));
    super::sink::sink(numbers, visible)
}

/// Takes a number for several changes.
struct Numbers<H>(Transactional<Upserting<H, u64, u64>>);

impl<H: Upserts<u64, u64>> Sink<u64> for Numbers<H> {
    type Writer = NumbersWriter;
    fn name(&self) -> String {
        self.0.name()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<NumbersWriter>, String> {
        let writers = self.0.open(ports)?;
        Ok(writers.into_iter().map(NumbersWriter).collect())
    }
    fn in_two_phases(&self) -> bool {
        self.0.in_two_phases()
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        self.0.committer()
    }
}

struct NumbersWriter(TransactionalWriter<Upsert<u64, u64>>);

impl Writer<u64> for NumbersWriter {
    fn write(&mut self, number: u64, stamp: Stamp) {
        let replaced = (number, Some(!number));
        let gone = !number;
        let changes = [replaced, (gone, Some(number)), (gone, None)];
        for (key, row) in changes.into_iter().chain([(number, Some(number))]) {
            self.0.write(Upsert { key, row }, stamp);
        }
    }
    fn flush(&mut self, now_ns: u64) -> Result<(), String> {
        self.0.flush(now_ns)
    }
    fn blocked(&self) -> bool {
        self.0.blocked()
    }
    fn rings(&self) -> bool {
        self.0.rings()
    }
    fn barrier(&mut self, epoch: Epoch) {
        self.0.barrier(epoch);
    }
    fn pre_commit(&mut self, now_ns: u64) -> Result<PreCommit, String> {
        self.0.pre_commit(now_ns)
    }
    fn finish(&mut self, now_ns: u64) -> Result<bool, String> {
        self.0.finish(now_ns)
    }
}
