//! A source that hands its records over in random portions, with pauses.

use crate::meter::Meter;
use crate::random::Random;
use crate::record::Rec;
use pelton::port::Ports;
use pelton::source::{Emit, Position, Read, ReadError, Reader, Source};
use std::collections::VecDeque;

/// Records of several partitions, read unevenly as `seed` says.
#[derive(Debug)]
pub struct Uneven {
    /// The records of each partition.
    pub partitions: Vec<Vec<Rec>>,
    /// Of the portions.
    pub seed: u64,
    /// Its partitions are silent for a while now and then.
    pub naps: bool,
    /// What is read and may be.
    pub meter: Meter,
}

/// A partition of [`Uneven`].
#[derive(Debug)]
pub struct UnevenReader {
    number: usize,
    records: Vec<Rec>,
    /// Records taken from the partition, those among them that wait included.
    taken: u64,
    /// Read ahead: taken and not emitted.
    ahead: VecDeque<Rec>,
    random: Random,
    /// Reads in portions this large at most; 0: as much as it may.
    portion: i64,
    /// One read in so many begins a silence; 0: none does.
    naps_one_in: u64,
    /// Reads for which it is silent yet.
    nap: i64,
    /// Says that its offsets are regular, so that its records may travel as batches.
    regular: bool,
    meter: Meter,
}

impl Source for Uneven {
    type Item = Rec;
    type Reader = UnevenReader;
    fn name(&self) -> String {
        "uneven".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<UnevenReader>, String> {
        let mut random = Random::new(self.seed);
        let naps = self.naps;
        Ok(std::mem::take(&mut self.partitions)
            .into_iter()
            .enumerate()
            .map(|(number, records)| UnevenReader {
                number,
                records,
                taken: 0,
                ahead: VecDeque::new(),
                portion: random.pick(&[0, 0, 1, 3, 30]),
                regular: random.one_in(2),
                naps_one_in: if naps { random.pick(&[0, 5, 20]) } else { 0 },
                nap: 0,
                random: Random::new(random.bits()),
                meter: self.meter.clone(),
            })
            .collect())
    }
}

impl UnevenReader {
    /// The first record that has not been emitted.
    fn offset(&self) -> u64 {
        self.taken - self.ahead.len() as u64
    }

    /// Reads ahead.
    fn take_some(&mut self) {
        let from = self.taken as usize;
        let to = (from + self.random.between(1, 8) as usize).min(self.records.len());
        self.ahead.extend(self.records[from..to].iter().cloned());
        self.taken = to as u64;
    }
}

impl Reader for UnevenReader {
    type Item = Rec;
    fn name(&self) -> String {
        self.number.to_string()
    }
    fn offset_step(&self) -> Option<u64> {
        self.regular.then_some(1)
    }
    fn position(&self) -> Option<Position> {
        Some(Position::at(self.offset()))
    }
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        if position.offset > self.records.len() as u64 {
            return Err(format!("it has no offset {}", position.offset));
        }
        self.taken = position.offset;
        self.ahead.clear();
        self.meter.stands_at(self.number, position.offset);
        Ok(())
    }
    fn read<E: Emit<Rec>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        if self.nap > 0 {
            self.nap -= 1;
            return Ok(Read::Pending { until_ns: None });
        }
        if self.naps_one_in > 0 && self.random.one_in(self.naps_one_in) {
            self.nap = self.random.between(1, 100);
        }
        let mut portion = max;
        if self.portion > 0 {
            portion = portion.min(self.random.between(0, self.portion) as usize);
            if portion == 0 && self.random.one_in(2) {
                return Ok(Read::Pending { until_ns: None });
            }
        }
        for n in 0..portion {
            if self.ahead.is_empty() {
                self.take_some();
            }
            let offset = self.offset();
            if self.ahead.is_empty() {
                return Ok(Read::End);
            }
            if !self.meter.take() {
                return Ok(match n {
                    0 => Read::Pending { until_ns: None },
                    _ => Read::More,
                });
            }
            let Some(record) = self.ahead.pop_front() else {
                unreachable!("it was there");
            };
            self.meter.stands_at(self.number, offset + 1);
            out.emit(offset, record);
        }
        Ok(Read::More)
    }
}
