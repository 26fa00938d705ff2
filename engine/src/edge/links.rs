//! What a stage pushes its records into: each link chooses the lane, or the edge, of a record.

use super::EdgeWriter;
use crate::batch::{Batch, Origin, Stamp};
use crate::key::{KeyOf, KeySpace};
use crate::push::{Control, Cx, OpId, Push, blame};

/// Sends records to the shard of their key.
pub(crate) struct ByKeyLink<T, F> {
    pub writer: EdgeWriter<T>,
    pub key: F,
    pub space: KeySpace,
    pub op: OpId,
}

impl<T: 'static, F: KeyOf<T>> Push<T> for ByKeyLink<T, F> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let origins = self.writer.origins;
        if let [only] = &mut self.writer.lanes[..] {
            return only.add(record, stamp, origins, cx);
        }
        let lane = blame(self.op, || {
            self.key.with(&record, |k| self.space.shard_of(k))
        });
        self.writer.add(lane, record, stamp, cx);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        if self.writer.lanes.len() == 1 {
            return self.writer.send_batch(0, batch, cx);
        }
        // Not on the steady path: with several lanes no batches are gathered.
        batch.fill_times();
        let (first, carried) = (cx.origin, !batch.origins.is_empty());
        let mut index = 0;
        batch.consume(|record, stamp, origin| {
            cx.origin = if carried {
                origin
            } else {
                cx.run_origin(first, index)
            };
            index += 1;
            self.push(record, stamp, cx);
            true
        });
    }
    // With several lanes each record is copied to its lane in any case: best straight from where it is made.
    fn takes_batches(&self) -> bool {
        self.writer.lanes.len() == 1
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.writer.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}

/// Keeps records on their shard.
pub(crate) struct LocalLink<T> {
    pub writer: EdgeWriter<T>,
}

impl<T: 'static> Push<T> for LocalLink<T> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        self.writer.add(0, record, stamp, cx);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        self.writer.send_batch(0, batch, cx);
    }
    fn takes_batches(&self) -> bool {
        true
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.writer.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}

/// Sends records to the shard that a function says.
pub(crate) struct PartitionLink<T, F> {
    pub writer: EdgeWriter<T>,
    pub choose: F,
    pub op: OpId,
}

impl<T: 'static, F: Fn(&T) -> u64> Push<T> for PartitionLink<T, F> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let number = blame(self.op, || (self.choose)(&record));
        let lane = (number % self.writer.lanes() as u64) as usize;
        self.writer.add(lane, record, stamp, cx);
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.writer.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}

/// Spreads records evenly over all shards, a batch at a time.
pub(crate) struct RebalanceLink<T> {
    pub writer: EdgeWriter<T>,
    pub next: usize,
}

impl<T: 'static> Push<T> for RebalanceLink<T> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let lane = self.next;
        self.writer.add(lane, record, stamp, cx);
        if self.writer.lanes[lane].open.is_empty() {
            self.next = (lane + 1) % self.writer.lanes();
        }
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.writer.control(event, cx);
        self.next = (self.next + 1) % self.writer.lanes();
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}

/// Gives each record to every edge: what a forked stream's consumers read. The branch is part of a record's origin, so
/// that ties are fixed where branches meet again.
pub(crate) struct ForkLink<T> {
    pub writers: Vec<EdgeWriter<T>>,
    pub op: OpId,
}

impl<T: Clone + 'static> Push<T> for ForkLink<T> {
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let Some((last, others)) = self.writers.split_last_mut() else {
            return;
        };
        let parent = cx.origin.emission;
        for (branch, writer) in (0..).zip(others.iter_mut()) {
            let record = blame(self.op, || record.clone());
            cx.origin.emission = Origin::below(parent, branch);
            writer.add(0, record, stamp, cx);
        }
        cx.origin.emission = Origin::below(parent, others.len() as u64);
        last.add(0, record, stamp, cx);
        cx.origin.emission = parent;
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        for writer in &mut self.writers {
            writer.control(event, cx);
        }
    }
    fn blocked(&self) -> bool {
        self.writers.iter().any(EdgeWriter::blocked)
    }
}

/// Gives each record to one of several local edges.
pub(crate) struct SplitLink<T, F> {
    pub writers: Vec<EdgeWriter<T>>,
    pub choose: F,
    pub op: OpId,
}

impl<T: 'static, F: Fn(&T) -> usize> Push<T> for SplitLink<T, F> {
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let to = blame(self.op, || (self.choose)(&record));
        match self.writers.get_mut(to) {
            Some(writer) => writer.add(0, record, stamp, cx),
            None => {
                let outputs = self.writers.len();
                blame(self.op, || panic!("split chose output {to} of {outputs}"));
            }
        }
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        for writer in &mut self.writers {
            writer.control(event, cx);
        }
    }
    fn blocked(&self) -> bool {
        self.writers.iter().any(EdgeWriter::blocked)
    }
}
