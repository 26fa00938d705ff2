//! Every record to every shard.
//!
//! Laws
//! 1. Each shard gets the records of one producer in their order, and those of an epoch before its barrier. Where those of a key are all of
//!    one producer, what shards make of them is the same on each at a barrier.
//! 2. A *quiet* edge says nothing of time: its channels are idle but for the moment in which a record is among them, so they hold no
//!    watermark back. Who reads them does not ask whether they are behind.

use super::EdgeWriter;
use crate::batch::Stamp;
use crate::push::{Control, Cx, OpId, Push, blame};

/// See the module.
pub(crate) struct BroadcastLink<S, W> {
    pub writer: EdgeWriter<S>,
    /// What travels, made of a record.
    pub wrap: W,
    pub op: OpId,
    /// Law 2.
    pub quiet: bool,
    /// Idleness has not been told since the last record.
    pub spoke: bool,
}

impl<S, W> BroadcastLink<S, W> {
    fn tell_idle(&mut self, cx: &mut Cx) {
        if std::mem::replace(&mut self.spoke, false) {
            self.writer.control(Control::Idle { close: true }, cx);
        }
    }
}

impl<T: Clone, S: 'static, W: Fn(T) -> S> Push<T> for BroadcastLink<S, W> {
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        self.spoke = true;
        let last = self.writer.lanes.len() - 1;
        for lane in 0..last {
            let copy = blame(self.op, || record.clone());
            self.writer.add(lane, (self.wrap)(copy), stamp, cx);
        }
        self.writer.add(last, (self.wrap)(record), stamp, cx);
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        match event {
            Control::Watermark(_) | Control::Idle { .. } if self.quiet => self.tell_idle(cx),
            Control::Flush if self.quiet => {
                self.writer.control(event, cx);
                self.tell_idle(cx);
            }
            _ => self.writer.control(event, cx),
        }
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}
