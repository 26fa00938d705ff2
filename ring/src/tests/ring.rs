//! The edges: sizes, the wrap of positions, odd types.

use super::census::Census;
use crate::{CapacityError, MAX_CAPACITY, PopError, PushError, ring, ring_starting_at};

#[test]
fn capacity_is_a_power_of_two_within_bounds() {
    for capacity in [0, 3, 12, MAX_CAPACITY - 1, MAX_CAPACITY + 1, usize::MAX] {
        let error = ring::<u8>(capacity).unwrap_err();
        assert_eq!(error, CapacityError::Unsupported { capacity });
    }
    #[cfg(target_pointer_width = "64")]
    assert!(matches!(
        ring::<u8>(MAX_CAPACITY << 1),
        Err(CapacityError::Unsupported { .. })
    ));
    for capacity in [1, 2, 4096] {
        let (producer, consumer) = ring::<u8>(capacity).unwrap();
        assert_eq!(
            (producer.capacity(), consumer.capacity()),
            (capacity, capacity)
        );
    }
}

#[test]
#[cfg(all(target_pointer_width = "64", not(miri)))]
fn slots_beyond_memory_are_an_error() {
    type Huge = [u8; 1 << 20]; // 2^51 bytes in all: no address space has that
    assert_eq!(
        ring::<Huge>(MAX_CAPACITY).unwrap_err(),
        CapacityError::OutOfMemory {
            capacity: MAX_CAPACITY
        }
    );
}

/// Positions ... MAX-1, MAX, 0, 1 ...: every operation steps over the wrap.
#[test]
fn positions_wrap() {
    for before in 0..6 {
        for limit in [usize::MAX, u32::MAX as usize] {
            let (mut producer, mut consumer) = ring_starting_at(4, limit - before).unwrap();
            for round in 0..5 {
                assert_eq!(producer.push_batch(&mut (round..)), 4);
                assert_eq!(producer.push(0), Err(PushError::Full(0)));
                assert_eq!((producer.free(), consumer.len()), (0, 4));
                assert_eq!(consumer.pop(), Ok(round));
                assert!(consumer.drain(9).eq(round + 1..round + 4));
                assert_eq!(consumer.pop(), Err(PopError::Empty));
                assert_eq!((producer.free(), consumer.len()), (4, 0));
            }
        }
    }
}

#[test]
fn one_slot_is_enough() {
    let (mut producer, mut consumer) = ring(1).unwrap();
    for value in 0..5 {
        assert_eq!(producer.push(value), Ok(()));
        assert_eq!(producer.push(9), Err(PushError::Full(9)));
        assert_eq!(consumer.pop(), Ok(value));
    }
}

#[test]
fn values_of_no_size() {
    let (mut producer, mut consumer) = ring(4).unwrap();
    assert_eq!(producer.push_batch(&mut std::iter::repeat(())), 4);
    assert_eq!(producer.push(()), Err(PushError::Full(())));
    assert_eq!(consumer.peek(), Some(&()));
    assert_eq!(consumer.drain(3).count(), 3);
    assert_eq!((consumer.len(), producer.free()), (1, 3));
}

#[test]
fn values_of_no_size_are_dropped_as_often_as_made() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Relaxed);
        }
    }

    let (mut producer, mut consumer) = ring(8).unwrap();
    producer.push_batch(&mut std::iter::repeat_with(|| Nothing).take(7));
    drop(consumer.pop());
    assert_eq!(DROPS.load(Relaxed), 1);
    drop((producer, consumer));
    assert_eq!(DROPS.load(Relaxed), 7);
}

#[test]
fn values_larger_than_a_page() {
    let (mut producer, mut consumer) = ring(2).unwrap();
    for round in 0..3u64 {
        producer.push([round; 1000]).unwrap();
        producer.push([round + 10; 1000]).unwrap();
        assert_eq!(consumer.pop().unwrap(), [round; 1000]);
        assert_eq!(consumer.pop().unwrap(), [round + 10; 1000]);
    }
}

#[test]
fn overaligned_values() {
    #[repr(align(256))]
    #[derive(Debug, PartialEq)]
    struct Wide(u8);
    let (mut producer, mut consumer) = ring(2).unwrap();
    producer.push(Wide(1)).unwrap();
    let seen = consumer.peek().unwrap();
    assert_eq!(std::ptr::from_ref(seen).addr() % 256, 0);
    assert_eq!(consumer.pop(), Ok(Wide(1)));
}

/// A consumer's going must set free what waits inside: here the producer of another ring.
#[test]
fn a_dropped_consumer_drops_what_is_inside_at_once() {
    let (mut requests, worker) = ring(2).unwrap();
    let (answer, mut answers) = ring::<u8>(1).unwrap();
    requests.push(answer).unwrap();
    assert_eq!(answers.pop(), Err(PopError::Empty));
    drop(worker);
    assert_eq!(answers.pop(), Err(PopError::Closed));
    assert!(requests.is_closed());
}

#[test]
fn values_survive_their_producer() {
    let census = Census::default();
    let (mut producer, mut consumer) = ring(4).unwrap();
    producer.push_batch(&mut (0..4).map(|value| census.token(value)));
    drop(producer);
    assert_eq!(consumer.pop().unwrap().value, 0);
    assert_eq!(census.alive(), 3);
    drop(consumer);
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_full_claim_hands_values_back() {
    let (mut producer, mut consumer) = ring(4).unwrap();
    assert!(producer.claim(5).is_none(), "more than there can ever be");
    producer.push(0).unwrap();
    assert!(producer.claim(4).is_none(), "more than there is");
    let mut claim = producer.claim(1).unwrap();
    assert_eq!((claim.write(1), claim.write(2)), (Ok(()), Err(2)));
    drop(claim);
    assert!(consumer.drain(4).eq([0, 1]));
}

#[test]
fn the_ends_are_send() {
    fn is_send<T: Send>(_: &T) {}
    // `Cell` is Send and not Sync, which is all a ring asks for.
    let (producer, consumer) = ring::<std::cell::Cell<u8>>(1).unwrap();
    is_send(&producer);
    is_send(&consumer);
}
