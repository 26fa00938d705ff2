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

/// Checks a model in full.
fn check(model: impl Fn() + Send + Sync + 'static) {
    check_within(None, model);
}

/// Checks a model in every order with at most so many preemptions.
///
/// And asserts that there were several orders. loom looks only at the *last* access to an atomic for a conflict, so a thread
/// that loads what it is about to store hides the loads of others, and orders are missed, in the worst case all but
/// one. (That is why each side of the ring keeps the truth about its own index in its handle, and why a model may need
/// another atomic as a signpost.)
fn check_within(
    preemptions_max: impl Into<Option<usize>>,
    model: impl Fn() + Send + Sync + 'static,
) {
    let orders = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions_max.into();
    builder.check({
        let orders = Arc::clone(&orders);
        move || {
            orders.fetch_add(1, Relaxed);
            model();
        }
    });
    let orders = orders.load(Relaxed);
    println!("{orders} executions");
    assert!(
        orders >= 4,
        "explored no more than {orders}: does this model check anything?"
    );
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
            alive: Arc::clone(&self.alive),
        }
    }

    fn alive(&self) -> usize {
        self.alive.load(Relaxed)
    }
}

#[derive(Debug)]
struct Token {
    value: usize,
    alive: Arc<AtomicUsize>,
}

impl Drop for Token {
    fn drop(&mut self) {
        let before = self.alive.fetch_sub(1, Relaxed);
        assert!(before > 0, "a value was dropped twice");
    }
}
