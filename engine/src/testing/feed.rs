//! A source that yields what it is fed.

use crate::port::Ports;
use crate::source::{Emit, Position, Read, ReadError, Reader, Source};
use crate::time::EventTime;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A source with `partitions` partitions and the other end of it.
///
/// All that it is fed is kept, so that a job that is built again can go on from a checkpoint: give it [`Feed::source`].
pub fn feed<T: Clone + Send + 'static>(partitions: usize) -> (Feed<T>, FeedSource<T>) {
    let fed: Arc<Vec<_>> = Arc::new((0..partitions).map(|_| Mutex::default()).collect());
    let source = FeedSource {
        fed: fed.clone(),
        name: "feed".into(),
    };
    (Feed { fed }, source)
}

/// What a partition has been fed.
#[derive(Debug)]
struct Fed<T> {
    /// The first has offset 0.
    records: Vec<T>,
    /// How far event time has come, and how many records lie before that was said.
    marks: Vec<(usize, EventTime)>,
    closed: bool,
}

impl<T> Default for Fed<T> {
    fn default() -> Self {
        Fed {
            records: vec![],
            marks: vec![],
            closed: false,
        }
    }
}

type Partitions<T> = Arc<Vec<Mutex<Fed<T>>>>;

fn lock<T>(fed: &Mutex<Fed<T>>) -> MutexGuard<'_, Fed<T>> {
    fed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Feeds a [`FeedSource`]. Dropping it ends all partitions.
#[derive(Debug)]
pub struct Feed<T> {
    fed: Partitions<T>,
}

impl<T> Feed<T> {
    /// Adds a record to a partition.
    pub fn push(&self, partition: usize, record: T) {
        lock(&self.fed[partition]).records.push(record);
    }

    /// Says that no record with a time below `time` follows in a partition: its watermark rises to that, whatever its generator makes
    /// of the records, and is told again to a job that goes on from before it. Nothing where the stream has no event times.
    pub fn watermark(&self, partition: usize, time: EventTime) {
        let mut fed = lock(&self.fed[partition]);
        let at = fed.records.len();
        fed.marks.push((at, time));
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> usize {
        self.fed.len()
    }

    /// Ends a partition, after what it has been fed.
    pub fn close(&self, partition: usize) {
        lock(&self.fed[partition]).closed = true;
    }

    /// The same source once more, from its beginning: for a job that is built again.
    pub fn source(&self) -> FeedSource<T> {
        self.named("feed")
    }

    /// The same, with a name for errors and reports.
    pub fn named(&self, name: impl Into<String>) -> FeedSource<T> {
        FeedSource {
            fed: self.fed.clone(),
            name: name.into(),
        }
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        for fed in self.fed.iter() {
            lock(fed).closed = true;
        }
    }
}

/// See [`feed`].
#[derive(Debug)]
pub struct FeedSource<T> {
    fed: Partitions<T>,
    name: String,
}

/// A partition of a [`FeedSource`].
#[derive(Debug)]
pub struct FeedReader<T> {
    fed: Partitions<T>,
    number: usize,
    /// Of the next record.
    offset: usize,
    /// The next mark, and the last one.
    mark: usize,
    watermark: Option<EventTime>,
}

impl<T: Clone + Send + 'static> Source for FeedSource<T> {
    type Item = T;
    type Reader = FeedReader<T>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<FeedReader<T>>, String> {
        Ok((0..self.fed.len())
            .map(|number| FeedReader {
                fed: self.fed.clone(),
                number,
                offset: 0,
                mark: 0,
                watermark: None,
            })
            .collect())
    }
}

impl<T: Clone + Send + 'static> Reader for FeedReader<T> {
    type Item = T;
    fn name(&self) -> String {
        self.number.to_string()
    }
    fn position(&self) -> Option<Position> {
        Some(Position::at(self.offset as u64))
    }
    /// At once, wherever it is.
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        let fed = lock(&self.fed[self.number]);
        let (marks, fed) = (&fed.marks, fed.records.len());
        match usize::try_from(position.offset) {
            Ok(offset) if offset <= fed => {
                self.offset = offset;
                // Those at this very place may have been told before the barrier or not: told again they change nothing.
                self.mark = marks.partition_point(|(at, _)| *at < offset);
                Ok(())
            }
            _ => Err(format!(
                "it was fed {fed} records, and the position is {}: build the job with the same feed",
                position.offset
            )),
        }
    }
    fn is_through(&mut self) -> bool {
        let fed = lock(&self.fed[self.number]);
        fed.closed && self.offset == fed.records.len() && self.mark == fed.marks.len()
    }
    fn watermark(&self) -> Option<EventTime> {
        self.watermark
    }
    fn read<E: Emit<T>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let fed = lock(&self.fed[self.number]);
        let mark = fed.marks.get(self.mark);
        let until = mark.map_or(fed.records.len(), |(at, _)| *at);
        let there = &fed.records[self.offset..until];
        let n = there.len().min(max);
        for record in &there[..n] {
            out.emit(self.offset as u64, record.clone());
            self.offset += 1;
        }
        // A mark ends the read: it counts behind the records before it, and before those behind it.
        if let Some((_, time)) = mark.filter(|(at, _)| *at == self.offset) {
            self.mark += 1;
            self.watermark = self.watermark.max(Some(*time));
            return Ok(Read::More);
        }
        Ok(match (n == max, fed.closed) {
            (true, _) => Read::More,
            (false, true) => Read::End,
            (false, false) => Read::Pending { until_ns: None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance;

    #[test]
    fn a_feed_can_be_gone_back_to() {
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

    #[test]
    fn a_position_beyond_what_was_fed_is_refused() {
        let (feed, mut source) = feed(1);
        feed.push(0, 'a');
        let mut reader = source.open(&mut Ports::inline(1)).unwrap().remove(0);
        assert_eq!(reader.seek(&Position::at(1)), Ok(()));
        let refused = reader.seek(&Position::at(2)).unwrap_err();
        assert!(refused.contains("fed 1 records"), "{refused}");
    }
}
