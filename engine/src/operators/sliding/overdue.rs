//! Keys that a checkpoint has as of a lower M than is restored: their shard stood behind another one (silence, clocks).
//!
//! Laws
//! 1. Before anything else comes, each such key is visited alone for all that is due between its own M and that of all: it fires,
//!    is corrected and forgets as it would have on its shard, in that order. So each window of each key is fired once.
//! 2. Results come key by key, and not in the order of window ends: no watermark is passed on between them.
//! 3. What is next due of all other keys stands aside meanwhile.

use super::{NEVER, Pass, SlidingOp, State, WORK};
use crate::aggregate::Aggregate;
use crate::key::{Key, KeyOf};
use crate::push::{Cx, Push};
use crate::state;
use crate::window::Windowed;

/// See the module.
#[derive(Debug)]
pub(super) struct Overdue {
    /// By id, with the M of their shard; the next one last.
    pub keys: Vec<(u32, i64)>,
    /// What is due of all other keys (law 3): to fire, to correct, to forget.
    others: [i64; 3],
    /// The visit to the last of `keys`, if it has begun.
    pass: Option<Pass>,
    begun: bool,
}

impl Default for Overdue {
    fn default() -> Self {
        Overdue {
            keys: vec![],
            others: [NEVER; 3],
            pass: None,
            begun: false,
        }
    }
}

impl<K: Key, A: Clone + state::State> State<K, A> {
    fn due(&mut self) -> [&mut i64; 3] {
        [&mut self.fire_at, &mut self.correct_at, &mut self.forget_at]
    }

    /// Takes out what is due.
    fn take_due(&mut self) -> [i64; 3] {
        self.due().map(|due| std::mem::replace(due, NEVER))
    }

    /// What is due is no later than this.
    fn add_due(&mut self, others: [i64; 3]) {
        for (due, other) in self.due().into_iter().zip(others) {
            *due = (*due).min(other);
        }
    }
}

impl<T, K: KeyOf<T>, A: Aggregate<T>> SlidingOp<T, K, A> {
    /// Goes on with the keys that are overdue; `true` when none is left.
    pub(super) fn catch_up<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        let Some(mut overdue) = self.state.overdue.take() else {
            return true;
        };
        let mut work = WORK;
        while let Some(&(id, stood)) = overdue.keys.last() {
            if work <= 0 {
                self.state.overdue = Some(overdue);
                return false;
            }
            if !overdue.begun {
                overdue.begun = true;
                overdue.others = self.state.take_due();
                self.state.arm(id, stood);
                overdue.pass = self.state.next_pass();
            }
            let Some(mut pass) = overdue.pass else {
                // It is as if it had been visited with all others: up to M.
                self.state.add_due(overdue.others);
                overdue.begun = false;
                overdue.keys.pop();
                continue;
            };
            pass.id = id;
            if !self.visit(&mut pass, &mut work, out, cx) {
                overdue.pass = Some(pass);
                continue;
            }
            self.state.passed(&pass);
            // It may have gone with its last slice.
            let live = self.state.table.is_live(id);
            overdue.pass = self.state.next_pass().filter(|_| live);
            work -= 1;
        }
        true
    }
}
