//! The models. See the crate's documentation for how to run them.
#![cfg(loom)]

mod close;
mod doorbell;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The weakened copies that exist, one a line, for `scripts/loom-mutants`.
#[test]
fn list_mutants() {
    for name in pelton_ring::mutants() {
        println!("mutant: {name}");
    }
}

/// Counts how many of its tokens are alive. Outside the model on purpose: it observes and must not synchronise.
#[derive(Clone, Default)]
struct Census {
    alive: Arc<AtomicUsize>,
}

impl Census {
    fn token(&self, value: usize) -> Token {
        self.alive.fetch_add(1, Relaxed);
        Token {
            value,
            // Allocated, so that a value read twice or never dropped is noticed by the allocator, too.
            alive: Box::new(Arc::clone(&self.alive)),
        }
    }

    fn alive(&self) -> usize {
        self.alive.load(Relaxed)
    }
}

#[derive(Debug)]
struct Token {
    value: usize,
    alive: Box<Arc<AtomicUsize>>,
}

impl Drop for Token {
    fn drop(&mut self) {
        let before = self.alive.fetch_sub(1, Relaxed);
        assert!(before > 0, "a value was dropped twice");
    }
}
