//! A source that yields what it is fed.

use crate::port::Ports;
use crate::source::{Emit, Read, ReadError, Reader, Source};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A source with `partitions` partitions and the other end of it.
pub fn feed<T: Send + 'static>(partitions: usize) -> (Feed<T>, FeedSource<T>) {
    let queues: Arc<Vec<_>> = Arc::new(
        (0..partitions)
            .map(|_| Mutex::new(Queue::default()))
            .collect(),
    );
    (
        Feed {
            queues: queues.clone(),
        },
        FeedSource { queues },
    )
}

#[derive(Debug)]
struct Queue<T> {
    records: VecDeque<T>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            records: VecDeque::new(),
            closed: false,
        }
    }
}

type Queues<T> = Arc<Vec<Mutex<Queue<T>>>>;

fn lock<T>(queue: &Mutex<Queue<T>>) -> MutexGuard<'_, Queue<T>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Feeds a [`FeedSource`]. Dropping it ends all partitions.
#[derive(Debug)]
pub struct Feed<T> {
    queues: Queues<T>,
}

impl<T> Feed<T> {
    /// Adds a record to a partition.
    pub fn push(&self, partition: usize, record: T) {
        lock(&self.queues[partition]).records.push_back(record);
    }

    /// Ends a partition, after what it has been fed.
    pub fn close(&self, partition: usize) {
        lock(&self.queues[partition]).closed = true;
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        for queue in self.queues.iter() {
            lock(queue).closed = true;
        }
    }
}

/// See [`feed`].
#[derive(Debug)]
pub struct FeedSource<T> {
    queues: Queues<T>,
}

/// A partition of a [`FeedSource`].
#[derive(Debug)]
pub struct FeedReader<T> {
    queues: Queues<T>,
    number: usize,
    offset: u64,
}

impl<T: Send + 'static> Source for FeedSource<T> {
    type Item = T;
    type Reader = FeedReader<T>;
    fn name(&self) -> String {
        "feed".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<FeedReader<T>>, String> {
        Ok((0..self.queues.len())
            .map(|number| FeedReader {
                queues: self.queues.clone(),
                number,
                offset: 0,
            })
            .collect())
    }
}

impl<T: Send + 'static> Reader for FeedReader<T> {
    type Item = T;
    fn name(&self) -> String {
        self.number.to_string()
    }
    fn read<E: Emit<T>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let mut queue = lock(&self.queues[self.number]);
        for _ in 0..max {
            let Some(record) = queue.records.pop_front() else {
                return Ok(if queue.closed {
                    Read::End
                } else {
                    Read::Pending { until_ns: None }
                });
            };
            out.emit(self.offset, record);
            self.offset += 1;
        }
        Ok(Read::More)
    }
}
