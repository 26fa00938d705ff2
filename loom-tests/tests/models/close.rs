//! Either side may leave at any moment; values in flight are dropped once, and what was published is not lost.

use crate::{Census, check};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use pelton_ring::{PopError, PushError, ring};

#[test]
fn closed_means_drained() {
    check(|| {
        let (mut producer, mut consumer) = ring(2).unwrap();
        let pushing = thread::spawn(move || {
            producer.push(0).unwrap();
            producer.push(1).unwrap();
            drop(producer);
        });
        let mut got = Vec::new();
        let mut closed = false;
        for _ in 0..3 {
            match consumer.pop() {
                Ok(value) => {
                    assert!(!closed, "a value after the end");
                    got.push(value);
                }
                Err(PopError::Empty) => assert!(!closed, "closed, then open again"),
                Err(PopError::Closed) => {
                    assert_eq!(got, [0, 1], "closed with values inside");
                    closed = true;
                }
            }
        }
        pushing.join().unwrap();
        got.extend(consumer.drain(2));
        assert_eq!(got, [0, 1]);
        assert_eq!(consumer.pop(), Err(PopError::Closed));
    });
}

#[test]
fn the_producer_leaves_values_behind() {
    check(|| {
        let census = Census::default();
        let (mut producer, mut consumer) = ring(2).unwrap();
        let (zero, one) = (census.token(0), census.token(1));
        let pushing = thread::spawn(move || {
            drop(producer.push(zero));
            drop(producer.push(one));
        });
        if let Ok(token) = consumer.pop() {
            assert_eq!(token.value, 0);
        }
        drop(consumer);
        pushing.join().unwrap();
        assert_eq!(census.alive(), 0);
    });
}

#[test]
fn the_consumer_leaves_while_values_arrive() {
    check(|| {
        let census = Census::default();
        let (mut producer, mut consumer) = ring(2).unwrap();
        producer.push(census.token(0)).unwrap();
        let consuming = thread::spawn(move || {
            assert_eq!(consumer.pop().unwrap().value, 0);
            drop(consumer);
        });
        let mut closed = false;
        for value in 1..4 {
            match producer.push(census.token(value)) {
                Ok(()) => assert!(!closed, "closed, then open again"),
                Err(PushError::Full(token)) => assert_eq!(token.value, value),
                Err(PushError::Closed(token)) => {
                    assert_eq!(token.value, value);
                    closed = true;
                }
            }
        }
        consuming.join().unwrap();
        assert!(producer.is_closed());
        drop(producer);
        assert_eq!(census.alive(), 0);
    });
}

/// Both go at once: the last one out drops the rest.
#[test]
fn both_leave_together() {
    check(|| {
        let census = Census::default();
        let (mut producer, consumer) = ring(4).unwrap();
        producer.push(census.token(0)).unwrap();
        let one = census.token(1);
        let consuming = thread::spawn(move || drop(consumer));
        drop(producer.push(one));
        drop(producer);
        consuming.join().unwrap();
        assert_eq!(census.alive(), 0);
    });
}

/// A producer that learns that its consumer is gone may read what the consumer's thread left for it elsewhere.
#[test]
fn what_the_consumer_did_has_happened() {
    check(|| {
        let (producer, consumer) = ring::<u8>(2).unwrap();
        let last_words = Arc::new(UnsafeCell::new(0));
        let consuming = {
            let last_words = Arc::clone(&last_words);
            thread::spawn(move || {
                // SAFETY: the other thread reads only once it has seen the consumer gone; loom checks just that.
                last_words.with_mut(|words| unsafe { *words = 7 });
                drop(consumer);
            })
        };
        if producer.is_closed() {
            // SAFETY: the only write came before the consumer was dropped.
            assert_eq!(last_words.with(|words| unsafe { *words }), 7);
        }
        consuming.join().unwrap();
    });
}
