//! Two threads for real. They yield when they cannot go on, so this ends on one core as well.

use crate::{PopError, PushError, ring};
use std::thread;

const VALUES: u64 = if cfg!(miri) { 500 } else { 1_000_000 };

#[test]
fn a_million_single_values() {
    let (mut producer, mut consumer) = ring(64).unwrap();
    let pushing = thread::spawn(move || {
        for value in 0..VALUES {
            // Boxed: a slot read too early or twice is a wild or a double free.
            let mut value = Box::new(value);
            while let Err(error) = producer.push(value) {
                assert!(matches!(error, PushError::Full(_)));
                value = error.into_inner();
                thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    loop {
        match consumer.pop() {
            Ok(value) => {
                assert_eq!(*value, expected);
                expected += 1;
            }
            Err(PopError::Empty) => thread::yield_now(),
            Err(PopError::Closed) => break,
        }
    }
    assert_eq!(expected, VALUES);
    pushing.join().unwrap();
}

#[test]
fn a_million_values_in_batches() {
    let (mut producer, mut consumer) = ring(256).unwrap();
    let pushing = thread::spawn(move || {
        let mut values = 0..VALUES;
        let mut size = 1;
        while values.start < VALUES {
            if producer.push_batch(&mut values.by_ref().take(size)) == 0 {
                thread::yield_now();
            }
            size = size % 97 + 1;
        }
    });
    let mut expected = 0;
    loop {
        let closed = consumer.is_closed();
        let before = expected;
        for value in consumer.drain(64) {
            assert_eq!(value, expected);
            expected += 1;
        }
        if expected == before {
            if closed {
                break;
            }
            thread::yield_now();
        }
    }
    assert_eq!(expected, VALUES);
    pushing.join().unwrap();
}

#[test]
fn a_consumer_that_leaves_stops_its_producer() {
    let (mut producer, mut consumer) = ring(4).unwrap();
    let pushing = thread::spawn(move || {
        let mut pushed = 0u64;
        loop {
            match producer.push(vec![pushed]) {
                Ok(()) => pushed += 1,
                Err(PushError::Full(_)) => thread::yield_now(),
                Err(PushError::Closed(_)) => return pushed,
            }
        }
    });
    let mut popped = 0;
    while popped < 1000 {
        match consumer.pop() {
            Ok(value) => {
                assert_eq!(value, [popped]);
                popped += 1;
            }
            Err(PopError::Empty) => thread::yield_now(),
            Err(PopError::Closed) => panic!("the producer is still there"),
        }
    }
    drop(consumer);
    assert!(pushing.join().unwrap() >= popped);
}
