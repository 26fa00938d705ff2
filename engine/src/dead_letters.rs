//! A stage's way to the dead letters: an edge to the last stage of the plan, where the job has an output for them.
//!
//! Laws
//! 1. Letters are sent in the step that made them, and before any control event that the stage passes on after them.
//! 2. They are bounded as records are: a stage makes no more while its edge is blocked. Each may hold a few KiB, so the edge is
//!    a short one of small batches.
//! 3. The output ends last: when every stage that can refuse a record has ended, and with all their letters.
//! 4. The letter that stops its job is told by the error; it need not reach the output as well.

use crate::aside::Aside;
use crate::batch::Stamp;
use crate::edge::EdgeWriter;
use crate::push::{Control, Cx, DeadLetter};

/// Letters in a batch at most (law 2).
pub(crate) const BATCH: usize = 64;

/// Frames in a ring at most (law 2).
pub(crate) const RING: usize = 4;

/// See the module. Without an edge, letters are only counted.
#[derive(Debug)]
pub(crate) struct Letters(Option<Aside<DeadLetter>>);

impl Letters {
    pub fn new(edge: Option<EdgeWriter<DeadLetter>>) -> Self {
        Letters(edge.map(Aside::new))
    }

    /// Takes the letters of the context: they are as they are to be told.
    #[cold]
    pub fn take(&mut self, cx: &mut Cx) {
        let mut letters = std::mem::take(&mut cx.dead);
        match &mut self.0 {
            Some(edge) => {
                for letter in letters.drain(..) {
                    edge.push(letter, Stamp::NONE, cx);
                }
            }
            None => letters.clear(),
        }
        // Back with its capacity: a source of many bad records makes as many in the next step.
        cx.dead = letters;
    }

    /// Takes an event that the stage has passed on, behind the letters made until then (law 1).
    #[inline]
    pub fn control(&mut self, event: Control, cx: &mut Cx) {
        if !cx.dead.is_empty() {
            self.take(cx);
        }
        if let Some(edge) = &mut self.0 {
            edge.control(event, cx);
        }
    }

    /// Whether the stage is to make no more.
    #[inline]
    pub fn blocked(&self) -> bool {
        self.0.as_ref().is_some_and(Aside::blocked)
    }
}
