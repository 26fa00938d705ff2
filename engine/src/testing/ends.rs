//! The ends of a driven job that the test holds: what it pushes into, and what it reads from.
//!
//! Laws
//! 1. What an input was given outlives the job: a job that is started again reads on from its checkpoint's position.
//! 2. What an output was given stays with the test. At least once: after a crash it has once more what is computed again.
//! 3. A committed output stages what a writer prepared and shows it once it is committed, and once only. What a crash leaves
//!    uncommitted and undecided is discarded.

use super::feed::{Feed, FeedSource, feed};
use crate::batch::Stamp;
use crate::checkpoint::Epoch;
use crate::port::Ports;
use crate::sink::{CommitError, Committer, PreCommit, Sink, Writer};
use crate::time::EventTime;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An input of a driven job: see [`Driver::input`](super::Driver::input). A clone is the same input.
///
/// What it was given is kept for as long as the input or its driver lives, so that it can be read again after a crash.
#[derive(Debug)]
pub struct Input<T> {
    feed: Arc<Feed<T>>,
    name: Arc<str>,
}

impl<T> Clone for Input<T> {
    fn clone(&self) -> Self {
        Input {
            feed: self.feed.clone(),
            name: self.name.clone(),
        }
    }
}

impl<T: Clone + Send + 'static> Input<T> {
    pub(super) fn new(name: String, partitions: usize) -> Self {
        let (feed, _) = feed(partitions);
        Input {
            feed: Arc::new(feed),
            name: name.into(),
        }
    }

    /// The source for the job. Ask for it where the job is written, and so for another each time that it is written.
    pub fn source(&self) -> FeedSource<T> {
        self.feed.named(&*self.name)
    }
}

impl<T> Input<T> {
    /// Adds a record to the first partition. The job sees it at the next [`Driver::settle`](super::Driver::settle).
    pub fn push(&self, record: T) {
        self.push_to(0, record);
    }

    /// Adds a record to a partition; they are counted from 0.
    ///
    /// # Panics
    /// The input has no such partition.
    pub fn push_to(&self, partition: usize, record: T) {
        self.check(partition);
        self.feed.push(partition, record);
    }

    /// Adds records to the first partition, in their order.
    pub fn push_all(&self, records: impl IntoIterator<Item = T>) {
        for record in records {
            self.push(record);
        }
    }

    /// Says that no record with a time below `time` follows, in no partition: each one's watermark rises to that behind what it has
    /// been given. What comes below it all the same is behind, and late where windows have closed. Nothing where the job gives the
    /// input's records no event times.
    pub fn advance_watermark(&self, time: EventTime) {
        for partition in 0..self.feed.partitions() {
            self.feed.watermark(partition, time);
        }
    }

    /// The same of one partition.
    ///
    /// # Panics
    /// The input has no such partition.
    pub fn advance_watermark_of(&self, partition: usize, time: EventTime) {
        self.check(partition);
        self.feed.watermark(partition, time);
    }

    /// Nothing more comes. Once all inputs of a job have ended its windows fire, and it takes its last checkpoint.
    pub fn end(&self) {
        for partition in 0..self.feed.partitions() {
            self.feed.close(partition);
        }
    }

    /// Nothing more comes in one partition.
    ///
    /// # Panics
    /// The input has no such partition.
    pub fn end_partition(&self, partition: usize) {
        self.check(partition);
        self.feed.close(partition);
    }

    fn check(&self, partition: usize) {
        let (name, there) = (&self.name, self.feed.partitions());
        assert!(
            partition < there,
            "input '{name}' has no partition {partition}, it has {there}: ask for more by Driver::input_of"
        );
    }
}

/// What a driver can do with inputs of all types.
pub(super) trait AnyInput {
    fn advance_watermark(&self, time: EventTime);
}

impl<T> AnyInput for Input<T> {
    fn advance_watermark(&self, time: EventTime) {
        Input::advance_watermark(self, time);
    }
}

type Timed<T> = Vec<(T, EventTime)>;

/// What became of a sink's records.
#[derive(Debug)]
struct Book<T> {
    visible: Timed<T>,
    /// By the number that the writer's note in the checkpoint has.
    staged: BTreeMap<u64, Timed<T>>,
    next: u64,
}

/// An output of a driven job: see [`Driver::output`](super::Driver::output) and
/// [`Driver::committed_output`](super::Driver::committed_output). A clone is the same output.
#[derive(Debug)]
pub struct Output<T> {
    book: Arc<Mutex<Book<T>>>,
    name: Arc<str>,
    two_phases: bool,
}

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        Output {
            book: self.book.clone(),
            name: self.name.clone(),
            two_phases: self.two_phases,
        }
    }
}

impl<T> Output<T> {
    pub(super) fn new(name: String, two_phases: bool) -> Self {
        Output {
            book: Arc::new(Mutex::new(Book {
                visible: vec![],
                staged: BTreeMap::new(),
                next: 0,
            })),
            name: name.into(),
            two_phases,
        }
    }

    /// The sink for the job: of results, of late records, of dead letters. It takes results of every class. Ask for it where the job
    /// is written.
    pub fn sink(&self) -> OutputSink<T> {
        OutputSink(self.clone())
    }

    /// Takes what has come out since it was last asked, in the order in which it did. Between shards that order is the driver's,
    /// which is the same in every run.
    pub fn take(&self) -> Vec<T> {
        let timed = self.take_timed().into_iter();
        timed.map(|(record, _)| record).collect()
    }

    /// The same, with event times. Where the job gives none, each is [`EventTime::BEGINNING`].
    pub fn take_timed(&self) -> Vec<(T, EventTime)> {
        std::mem::take(&mut self.book().visible)
    }

    fn book(&self) -> MutexGuard<'_, Book<T>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sink of an [`Output`].
#[derive(Debug)]
pub struct OutputSink<T>(Output<T>);

impl<T: Send + 'static> Sink<T> for OutputSink<T> {
    type Writer = OutputWriter<T>;
    fn name(&self) -> String {
        self.0.name.to_string()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<OutputWriter<T>>, String> {
        let writer = |_| OutputWriter {
            output: self.0.clone(),
            open: vec![],
            prepared: vec![],
        };
        Ok((0..ports.shards()).map(writer).collect())
    }
    fn takes_updates(&self) -> bool {
        true
    }
    fn in_two_phases(&self) -> bool {
        self.0.two_phases
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        let output = self.0.clone();
        self.0
            .two_phases
            .then(|| Box::new(Committing(output)) as Box<dyn Committer>)
    }
}

/// One shard's writer of an [`OutputSink`].
#[derive(Debug)]
pub struct OutputWriter<T> {
    output: Output<T>,
    /// Of the open epoch; it dies with the process.
    open: Timed<T>,
    /// Before the last barrier.
    prepared: Timed<T>,
}

impl<T: Send + 'static> Writer<T> for OutputWriter<T> {
    fn write(&mut self, record: T, stamp: Stamp) {
        let timed = (record, stamp.time);
        match self.output.two_phases {
            true => self.open.push(timed),
            false => self.output.book().visible.push(timed),
        }
    }
    fn barrier(&mut self, _: Epoch) {
        self.prepared.append(&mut self.open);
    }
    fn pre_commit(&mut self, _: u64) -> Result<PreCommit, String> {
        if self.prepared.is_empty() {
            return Ok(PreCommit::Ready(None));
        }
        let mut book = self.output.book();
        let number = book.next;
        book.next += 1;
        book.staged
            .insert(number, std::mem::take(&mut self.prepared));
        Ok(PreCommit::Ready(Some(number.to_le_bytes().to_vec())))
    }
}

/// The second phase: law 3.
struct Committing<T>(Output<T>);

impl<T: Send + 'static> Committer for Committing<T> {
    fn commit(&mut self, _: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        let number = prepared.try_into().map(u64::from_le_bytes);
        let number = number.map_err(|_| CommitError {
            what: "what was prepared is a number of 8 bytes".into(),
            is_retryable: false,
        })?;
        let mut book = self.0.book();
        // Nothing there: it was committed before the crash.
        let records = book.staged.remove(&number).unwrap_or_default();
        book.visible.extend(records);
        Ok(())
    }
    fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
        self.0.book().staged.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance;
    use std::cell::RefCell;

    /// Law 3, with the process ending between any two calls.
    #[test]
    fn a_committed_output_is_a_sink_of_two_phases() {
        let outputs = RefCell::new(BTreeMap::<u64, Output<u64>>::new());
        let of = |trial| {
            let mut outputs = outputs.borrow_mut();
            let new = || Output::new("out".into(), true);
            outputs.entry(trial).or_insert_with(new).clone()
        };
        let visible = |trial| {
            let output: Output<u64> = of(trial);
            let book = output.book();
            book.visible.iter().map(|(n, _)| *n).collect()
        };
        conformance::sink(|trial| of(trial).sink(), visible).unwrap();
    }

    #[test]
    #[should_panic(expected = "input 'charges' has no partition 2, it has 2")]
    fn a_partition_that_is_not_there_is_told() {
        Input::new("charges".into(), 2).push_to(2, 'a');
    }
}
