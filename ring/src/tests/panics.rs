//! User code that panics inside a batch neither leaks nor drops twice, and leaves a ring that works.

use super::census::{Census, Token};
use crate::ring;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn panics(f: impl FnOnce()) {
    catch_unwind(AssertUnwindSafe(f)).expect_err("this was to panic");
}

fn values(tokens: impl Iterator<Item = Token>) -> Vec<u64> {
    tokens.map(|token| token.value).collect()
}

#[test]
fn an_iterator_that_panics_publishes_what_it_had_yielded() {
    let census = Census::default();
    let (mut producer, mut consumer) = ring(8).unwrap();
    panics(|| {
        producer.push_batch(&mut (0..8).map(|value| {
            assert!(value < 3);
            census.token(value)
        }));
    });
    assert_eq!(census.alive(), 3);
    assert_eq!(producer.push_batch(&mut (3..9).map(|v| census.token(v))), 5);
    assert_eq!(values(consumer.drain(8)), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_panic_between_writes_publishes_those_before_it() {
    let census = Census::default();
    let (mut producer, mut consumer) = ring(4).unwrap();
    panics(|| {
        let mut claim = producer.claim(4).unwrap();
        drop(claim.write(census.token(0)));
        panic!("between two writes");
    });
    assert_eq!(producer.free(), 3);
    assert_eq!(values(consumer.drain(4)), [0]);
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_panic_in_a_drain_loses_only_the_value_at_hand() {
    let census = Census::default();
    let (mut producer, mut consumer) = ring(4).unwrap();
    producer.push_batch(&mut (0..4).map(|value| census.token(value)));
    panics(|| {
        for token in consumer.drain(4) {
            assert!(token.value < 1);
        }
    });
    assert_eq!((census.alive(), producer.free()), (2, 2));
    assert_eq!(values(consumer.drain(4)), [2, 3]);
    assert_eq!(census.alive(), 0);
}

/// Panics when dropped, if it is told to.
struct Bomb(
    bool,
    #[expect(dead_code, reason = "counted by its drop")] Token,
);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "boom");
    }
}

#[test]
fn a_value_that_panics_in_drop_keeps_no_other_from_being_dropped() {
    for producer_first in [true, false] {
        let census = Census::default();
        let (mut producer, consumer) = ring(4).unwrap();
        producer.push_batch(&mut (0..4).map(|v| Bomb(v == 1, census.token(v))));
        let producer = (!producer_first).then_some(producer);
        panics(|| drop(consumer));
        drop(producer);
        assert_eq!(census.alive(), 0);
    }
}

#[test]
fn a_value_that_panics_in_drop_with_the_last_end() {
    let census = Census::default();
    let (mut producer, consumer) = ring(4).unwrap();
    let mut claim = producer.claim(4).unwrap();
    drop(consumer);
    // Written after the consumer has emptied the ring on its way out, so that the last end finds them.
    for value in 0..4 {
        assert!(claim.write(Bomb(value == 1, census.token(value))).is_ok());
    }
    claim.commit();
    assert_eq!(census.alive(), 4);
    panics(|| drop(producer));
    assert_eq!(census.alive(), 0);
}
