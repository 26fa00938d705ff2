//! An edge beside a stage's chain: what falls aside of it (late records, dead letters) goes to a stage of its own, which is a
//! sink marked aside.
//!
//! Laws
//! 1. Control events reach it in the order of its records, as on every edge. What they say of event time and of partitions is
//!    kept from it: nothing behind it asks, so watermarks cost nothing.
//! 2. It is bounded as every edge is: a stage is to read nothing while it is [`Aside::blocked`].
//! 3. What goes over it is not counted as a record that left the stage: it is counted by its cause.

use crate::batch::Stamp;
use crate::edge::EdgeWriter;
use crate::push::{Control, Cx};

/// See the module.
#[derive(Debug)]
pub(crate) struct Aside<T> {
    writer: EdgeWriter<T>,
    /// Whether it was given a record since it last passed on a control event.
    gathered: bool,
}

impl<T> Aside<T> {
    /// Over an edge of one lane.
    pub fn new(writer: EdgeWriter<T>) -> Self {
        debug_assert_eq!(writer.lanes(), 1);
        Aside {
            writer,
            gathered: false,
        }
    }

    /// Takes a record; the next control event sends it.
    #[cold]
    pub fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        self.gathered = true;
        let out = cx.counters.records_out;
        self.writer.add(0, record, stamp, cx);
        cx.counters.records_out = out;
    }

    /// Takes an event of the stage. To be given what a chain is given, once all that the chain makes of the records before it
    /// has been pushed.
    #[inline]
    pub fn control(&mut self, event: Control, cx: &mut Cx) {
        let event = match event {
            Control::Watermark(_)
            | Control::Idle { .. }
            | Control::PartitionEnded { .. }
            | Control::PartitionPending { .. } => Control::Flush,
            other => other,
        };
        if event == Control::Flush && !self.gathered && !self.writer.blocked() {
            return;
        }
        self.gathered = false;
        let out = cx.counters.records_out;
        self.writer.control(event, cx);
        cx.counters.records_out = out;
    }

    /// Whether frames are waiting for room.
    #[inline]
    pub fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}
