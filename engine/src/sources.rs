//! Sources made in memory: items, and generators.

mod paced;

pub use paced::{Paced, PacedReader, paced};

use crate::port::Ports;
use crate::source::{Emit, Position, Read, ReadError, Reader, Source};

/// Every item of `items`, in order, as one partition. Offsets count from 0.
pub fn items<I>(items: I) -> Items<I::IntoIter>
where
    I: IntoIterator,
    I::IntoIter: Send + 'static,
    I::Item: Send + 'static,
{
    Items {
        partitions: vec![items.into_iter()],
    }
}

/// Items of several partitions: each is a sequence of its own, with its own watermark.
pub fn partitions<I>(partitions: impl IntoIterator<Item = I>) -> Items<I::IntoIter>
where
    I: IntoIterator,
    I::IntoIter: Send + 'static,
    I::Item: Send + 'static,
{
    Items {
        partitions: partitions
            .into_iter()
            .map(IntoIterator::into_iter)
            .collect(),
    }
}

/// See [`items`].
#[derive(Debug)]
pub struct Items<I> {
    partitions: Vec<I>,
}

/// A partition of [`Items`].
#[derive(Debug)]
pub struct ItemsReader<I> {
    items: I,
    number: usize,
    offset: u64,
}

impl<I> Source for Items<I>
where
    I: Iterator + Send + 'static,
    I::Item: Send + 'static,
{
    type Item = I::Item;
    type Reader = ItemsReader<I>;
    fn name(&self) -> String {
        "items".into()
    }
    fn may_fall_silent(&self) -> bool {
        false
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<ItemsReader<I>>, String> {
        let partitions = std::mem::take(&mut self.partitions);
        Ok(partitions
            .into_iter()
            .enumerate()
            .map(|(number, items)| ItemsReader {
                items,
                number,
                offset: 0,
            })
            .collect())
    }
}

impl<I: Iterator + Send + 'static> Reader for ItemsReader<I> {
    type Item = I::Item;
    fn name(&self) -> String {
        self.number.to_string()
    }
    fn offset_step(&self) -> Option<u64> {
        Some(1)
    }
    fn position(&self) -> Option<Position> {
        Some(Position::at(self.offset))
    }
    fn is_through(&mut self) -> bool {
        self.items.size_hint().1 == Some(0)
    }
    /// Passes over the items before it: as many calls of the iterator.
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        while self.offset < position.offset {
            if self.items.next().is_none() {
                return Err(format!(
                    "it ends at item {}, and the position is {}: give it the same items as before",
                    self.offset, position.offset
                ));
            }
            self.offset += 1;
        }
        Ok(())
    }
    fn read<E: Emit<I::Item>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        for _ in 0..max {
            let Some(item) = self.items.next() else {
                return Ok(Read::End);
            };
            out.emit(self.offset, item);
            self.offset += 1;
        }
        Ok(Read::More)
    }
}

/// A deterministic generator: `partitions` partitions share the ids `0..count`; partition p makes p, p + partitions, ..
/// Each record is a pure function of its id, so a run can be repeated and any part of it made again.
pub fn generate<T, F>(
    name: impl Into<String>,
    count: u64,
    partitions: usize,
    make: F,
) -> Generate<F>
where
    F: Fn(u64) -> T + Clone + Send + 'static,
{
    Generate {
        name: name.into(),
        count,
        partitions: partitions.max(1),
        make,
    }
}

/// See [`generate`].
#[derive(Clone, Debug)]
pub struct Generate<F> {
    name: String,
    count: u64,
    partitions: usize,
    make: F,
}

/// A partition of [`Generate`].
#[derive(Clone, Debug)]
pub struct GenerateReader<F> {
    make: F,
    number: usize,
    next: u64,
    step: u64,
    count: u64,
}

impl<T: Send + 'static, F: Fn(u64) -> T + Clone + Send + 'static> Source for Generate<F> {
    type Item = T;
    type Reader = GenerateReader<F>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn may_fall_silent(&self) -> bool {
        false
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<GenerateReader<F>>, String> {
        let step = self.partitions as u64;
        Ok((0..self.partitions)
            .map(|number| GenerateReader {
                make: self.make.clone(),
                number,
                next: number as u64,
                step,
                count: self.count,
            })
            .collect())
    }
}

impl<T, F: Fn(u64) -> T + Send + 'static> Reader for GenerateReader<F> {
    type Item = T;
    fn name(&self) -> String {
        self.number.to_string()
    }
    fn offset_step(&self) -> Option<u64> {
        Some(self.step)
    }
    fn position(&self) -> Option<Position> {
        Some(Position::at(self.next))
    }
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        if position.offset % self.step != self.number as u64 {
            return Err(format!(
                "id {} is not of partition {} of {}: give it as many partitions as before",
                position.offset, self.number, self.step
            ));
        }
        self.next = position.offset;
        Ok(())
    }
    #[inline]
    fn read<E: Emit<T>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let left = self.count.saturating_sub(self.next).div_ceil(self.step);
        let n = left.min(max as u64);
        let (next, step, make) = (self.next, self.step, &self.make);
        out.emit_run(
            next,
            step,
            (0..n as usize).map(|i| make(next + i as u64 * step)),
        );
        self.next = next + n * step;
        Ok(if n == left { Read::End } else { Read::More })
    }
}
