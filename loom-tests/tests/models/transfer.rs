//! Values arrive once, in order, complete; also across the wrap of slots and of positions.

use crate::check;
use loom::thread;
use pelton_ring::{Consumer, ring, ring_starting_at};

/// Everything left, after the other thread has been joined.
fn rest(consumer: &mut Consumer<usize>) -> Vec<usize> {
    consumer.drain(usize::MAX).collect()
}

/// Boxed, so that a read that races with the write is a read of a wild pointer to anyone who looks.
#[test]
fn one_value_is_complete() {
    check(|| {
        let (mut producer, mut consumer) = ring(2).unwrap();
        let pushing = thread::spawn(move || producer.push(Box::new(7)).unwrap());
        if let Ok(value) = consumer.pop() {
            assert_eq!(*value, 7);
        }
        pushing.join().unwrap();
    });
}

#[test]
fn peek_sees_what_pop_takes() {
    check(|| {
        let (mut producer, mut consumer) = ring(2).unwrap();
        let pushing = thread::spawn(move || {
            producer.push(1).unwrap();
            producer.push(2).unwrap();
        });
        if let Some(&seen) = consumer.peek() {
            assert_eq!(seen, 1);
            assert_eq!(consumer.pop(), Ok(1));
        }
        pushing.join().unwrap();
    });
}

/// Three values through two slots: the third waits for the first to be read out of its slot.
#[test]
fn single_values_wrap() {
    check(|| {
        // The second value sits at the last position before the positions themselves wrap.
        let (mut producer, mut consumer) = ring_starting_at(2, usize::MAX - 1).unwrap();
        let pushing =
            thread::spawn(move || (0..4).take_while(|&v| producer.push(v).is_ok()).count());
        let mut got = Vec::new();
        for _ in 0..3 {
            got.extend(consumer.pop().ok());
        }
        let pushed = pushing.join().unwrap();
        got.extend(rest(&mut consumer));
        assert!(got.iter().copied().eq(0..pushed), "{got:?} of {pushed}");
    });
}

#[test]
fn batches_wrap() {
    check(|| {
        let (mut producer, mut consumer) = ring_starting_at(2, usize::MAX).unwrap();
        let pushing = thread::spawn(move || {
            let mut values = 0..5;
            for _ in 0..3 {
                producer.push_batch(&mut values);
            }
            values.start
        });
        let mut got = Vec::new();
        for _ in 0..2 {
            got.extend(consumer.drain(2));
        }
        let pushed = pushing.join().unwrap();
        got.extend(rest(&mut consumer));
        assert!(got.iter().copied().eq(0..pushed), "{got:?} of {pushed}");
    });
}

/// All of a claim is seen, or nothing.
#[test]
fn claims_are_published_whole() {
    check(|| {
        let (mut producer, mut consumer) = ring(4).unwrap();
        let pushing = thread::spawn(move || {
            for first in [0, 2] {
                let mut claim = producer.claim(3).or_else(|| None);
                if let Some(claim) = &mut claim {
                    claim.write(first).unwrap();
                    claim.write(first + 1).unwrap();
                } else {
                    return first;
                }
            }
            4
        });
        let mut got = Vec::new();
        for _ in 0..2 {
            let batch: Vec<_> = consumer.drain(4).collect();
            assert!(batch.len() % 2 == 0, "half a claim: {batch:?}");
            got.extend(batch);
        }
        let pushed = pushing.join().unwrap();
        got.extend(rest(&mut consumer));
        assert!(got.iter().copied().eq(0..pushed), "{got:?} of {pushed}");
    });
}

/// A drain hands its slots back together, and what it did not take stays.
#[test]
fn an_early_end_of_a_drain_loses_nothing() {
    check(|| {
        let (mut producer, mut consumer) = ring(2).unwrap();
        producer.push_batch(&mut (0..2));
        let pushing =
            thread::spawn(move || (2..4).take_while(|&v| producer.push(v).is_ok()).count());
        assert_eq!(consumer.drain(2).next(), Some(0));
        let mut got = vec![0];
        got.extend(consumer.drain(2));
        let pushed = pushing.join().unwrap();
        got.extend(rest(&mut consumer));
        assert!(got.iter().copied().eq(0..2 + pushed), "{got:?} of {pushed}");
    });
}
