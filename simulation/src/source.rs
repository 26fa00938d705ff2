//! A source that hands its records over in random portions, with pauses.

use crate::random::Random;
use crate::record::Rec;
use pelton::port::Ports;
use pelton::source::{Emit, Read, ReadError, Reader, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Records of several partitions, read unevenly as `seed` says.
#[derive(Debug)]
pub struct Uneven {
    /// The records of each partition.
    pub partitions: Vec<Vec<Rec>>,
    /// Of the portions.
    pub seed: u64,
    /// Counts what has been read.
    pub read: Arc<AtomicU64>,
}

/// A partition of [`Uneven`].
#[derive(Debug)]
pub struct UnevenReader {
    number: usize,
    records: std::vec::IntoIter<Rec>,
    offset: u64,
    random: Random,
    /// Reads in portions this large at most; 0: as much as it may.
    portion: i64,
    /// Says that its offsets are regular, so that its records may travel as batches.
    regular: bool,
    read: Arc<AtomicU64>,
}

impl Source for Uneven {
    type Item = Rec;
    type Reader = UnevenReader;
    fn name(&self) -> String {
        "uneven".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<UnevenReader>, String> {
        let mut random = Random::new(self.seed);
        Ok(std::mem::take(&mut self.partitions)
            .into_iter()
            .enumerate()
            .map(|(number, records)| UnevenReader {
                number,
                records: records.into_iter(),
                offset: 0,
                portion: random.pick(&[0, 0, 1, 3, 30]),
                regular: random.one_in(2),
                random: Random::new(random.bits()),
                read: self.read.clone(),
            })
            .collect())
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
    fn read<E: Emit<Rec>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let mut portion = max;
        if self.portion > 0 {
            portion = portion.min(self.random.between(0, self.portion) as usize);
            if portion == 0 && self.random.one_in(2) {
                return Ok(Read::Pending { until_ns: None });
            }
        }
        for _ in 0..portion {
            let Some(record) = self.records.next() else {
                return Ok(Read::End);
            };
            self.read.fetch_add(1, Relaxed);
            out.emit(self.offset, record);
            self.offset += 1;
        }
        Ok(Read::More)
    }
}
