//! Every record to every shard.
//!
//! Laws
//! 1. Each shard gets the records of one producer in their order, and those of an epoch before its barrier. Where those of a key are all of
//!    one producer, what shards make of them is the same on each at a barrier.
//! 2. A *quiet* edge says nothing of time: the first that it tells is the end of time, so it holds no watermark back, and its records carry no
//!    mark of being behind.

use super::EdgeWriter;
use crate::batch::Stamp;
use crate::push::{Control, Cx, OpId, Push, blame};
use crate::time::EventTime;

/// See the module.
pub(crate) struct BroadcastLink<S, W> {
    pub writer: EdgeWriter<S>,
    /// What travels, made of a record.
    pub wrap: W,
    pub op: OpId,
    /// Law 2.
    pub quiet: bool,
    /// The end of time has been told.
    pub told: bool,
}

impl<T: Clone, S: 'static, W: Fn(T) -> S> Push<T> for BroadcastLink<S, W> {
    fn push(&mut self, record: T, mut stamp: Stamp, cx: &mut Cx) {
        if self.quiet {
            stamp.behind = None;
        }
        let last = self.writer.lanes.len() - 1;
        for lane in 0..last {
            let copy = blame(self.op, || record.clone());
            self.writer.add(lane, (self.wrap)(copy), stamp, cx);
        }
        self.writer.add(last, (self.wrap)(record), stamp, cx);
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        if self.quiet {
            if !std::mem::replace(&mut self.told, true) {
                self.writer.control(Control::Watermark(EventTime::END), cx);
            }
            if let Control::Watermark(_) | Control::Idle { .. } = event {
                return;
            }
        }
        self.writer.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}
