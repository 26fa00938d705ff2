//! Records that come too late for a join, of either side: counted, and sent on where an output is set.

use crate::batch::Stamp;
use crate::operators::late::Late;
use crate::push::{Control, Cx};
use crate::sides::Sides;

/// See the module. On one shard.
pub(super) struct LateSides<L, R> {
    pub left: Late<L>,
    pub right: Late<R>,
}

impl<L, R> LateSides<L, R> {
    /// A record is too late. To be asked for room after each: [`LateSides::blocked`].
    #[cold]
    pub fn record(&mut self, record: Sides<L, R>, stamp: Stamp, cx: &mut Cx) {
        match record {
            Sides::Left(record) => self.left.record(record, stamp, cx),
            Sides::Right(record) => self.right.record(record, stamp, cx),
        }
    }

    pub fn control(&mut self, event: Control, cx: &mut Cx) {
        self.left.control(event, cx);
        self.right.control(event, cx);
    }

    /// Whether an output has frames that wait for room.
    #[inline]
    pub fn blocked(&self) -> bool {
        self.left.blocked() || self.right.blocked()
    }
}
