//! Handing over gives what `append` gives, whatever the size, the alignment and the length; nothing is dropped or kept twice.

use crate::hand_over;
use proptest::prelude::*;
use std::rc::Rc;

fn check<T: Clone + PartialEq + std::fmt::Debug>(
    head: usize,
    count: usize,
    make: impl Fn(usize) -> T,
) {
    let mut from: Vec<T> = (0..count).map(&make).collect();
    let mut to: Vec<T> = (0..head).map(&make).collect();
    let (mut expected, mut gone) = (to.clone(), from.clone());
    expected.append(&mut gone);
    let room = from.capacity();
    hand_over(&mut from, &mut to);
    assert_eq!(to, expected);
    assert!(from.is_empty() && from.capacity() == room);
}

proptest! {
    #[test]
    fn as_append(head in 0usize..70, count in 0usize..3000) {
        check(head, count, |i| i as u8);
        check(head, count, |i| [i as u8; 3]);
        check(head, count, |i| (i as u8, i as u64));
        check(head, count, |i| [i as u64; 3]);
        check(head, count, |i| i.to_string());
        check(head, count, |_| ());
    }
}

#[test]
fn what_is_handed_over_is_dropped_once() {
    let value = Rc::new(());
    let (mut from, mut to) = (vec![value.clone(); 2000], vec![value.clone(); 3]);
    hand_over(&mut from, &mut to);
    assert_eq!(Rc::strong_count(&value), 2004);
    drop(from);
    assert_eq!(Rc::strong_count(&value), 2004);
    drop(to);
    assert_eq!(Rc::strong_count(&value), 1);
}

/// Stores past the cache are seen by who takes the buffer from a ring.
#[test]
fn another_thread_sees_all_of_it() {
    let (mut producer, mut consumer) = crate::ring::<Vec<u64>>(2).expect("a power of two");
    let (mut back, mut spare) = crate::ring::<Vec<u64>>(4).expect("a power of two");
    let rounds = if cfg!(miri) { 10u64 } else { 20_000 };
    let reader = std::thread::spawn(move || {
        for round in 0..rounds {
            let mut batch = loop {
                match consumer.pop() {
                    Ok(batch) => break batch,
                    Err(_) => std::thread::yield_now(),
                }
            };
            // From the end: what was stored last is looked at first.
            assert!(batch.iter().rev().all(|&value| value == round));
            assert_eq!(batch.len(), 600);
            batch.clear();
            let _ = back.push(batch);
        }
    });
    let mut gathered = Vec::with_capacity(600);
    for round in 0..rounds {
        gathered.extend([round; 600]);
        let mut batch = spare.pop().unwrap_or_default();
        hand_over(&mut gathered, &mut batch);
        while let Err(crate::PushError::Full(full)) = producer.push(batch) {
            batch = full;
            std::thread::yield_now();
        }
    }
    reader.join().expect("the reader saw every batch whole");
}
