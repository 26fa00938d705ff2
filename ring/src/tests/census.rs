//! Values that are counted.

use std::cell::Cell;
use std::rc::Rc;

/// Hands out tokens and knows how many are alive.
#[derive(Clone, Default)]
pub(super) struct Census {
    alive: Rc<Cell<usize>>,
}

impl Census {
    pub(super) fn token(&self, value: u64) -> Token {
        self.alive.set(self.alive.get() + 1);
        Token {
            value,
            census: self.clone(),
        }
    }

    pub(super) fn alive(&self) -> usize {
        self.alive.get()
    }
}

pub(super) struct Token {
    pub(super) value: u64,
    census: Census,
}

impl Drop for Token {
    fn drop(&mut self) {
        let before = self.census.alive.get();
        assert!(before > 0, "a token was dropped twice");
        self.census.alive.set(before - 1);
    }
}
