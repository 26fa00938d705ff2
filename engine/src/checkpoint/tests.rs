//! Each operator against itself: never stopped, and going on from checkpoints (see [`super::rig`]).

use super::rig::{
    BEHIND, Compare, OP, Record, Step, check, check_uneven, entries_by_epoch, goes_on_unwritten,
    moved, script, shard_of,
};
use crate::aggregate::scramble::cases;
use crate::aggregate::{Aggregate, Aggs};
use crate::key::{Computed, KeyOf};
use crate::operators::global::Global;
use crate::operators::order::MakeInOrder;
use crate::operators::processing_time::ProcessingTime;
use crate::operators::running::{Fold, MakeRunning, Reduce, SoFar};
use crate::session::Session;
use crate::window::{Cumulate, Sliding, Tumbling, WindowAssigner};
use crate::{Span, Spans};
use proptest::prelude::*;
use std::fmt::Debug;
use std::marker::PhantomData;

fn key() -> impl KeyOf<Record, Key = u8> {
    Computed(|r: &Record| r.1)
}

/// Exact, by origin, and growing.
fn all() -> impl Aggregate<Record, Out: Debug> {
    let a = Aggs::<Record>::new();
    (
        a.count(),
        a.sum(|r| r.2),
        a.first(|r| r.2),
        a.collect(|r| r.2),
    )
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn running_values_go_on(seed: u64, keys in 1usize..60) {
        let script = script(seed, keys, 40);
        let sums = || MakeRunning { key: key(), running: SoFar(all()), op: OP, record: PhantomData };
        check(sums, &script, seed, Compare::Rows);
        let last = || MakeRunning { key: key(), running: Reduce(|a: &mut Record, b: &Record| a.2 = a.2 / 2 + b.2), op: OP, record: PhantomData };
        check(last, &script, seed, Compare::Rows);
        let fold = || MakeRunning { key: key(), running: Fold(vec![], |a: &mut Vec<i64>, b: &Record| a.push(b.2)), op: OP, record: PhantomData };
        check(fold, &script, seed, Compare::Rows);
    }

    #[test]
    fn tumbling_windows_go_on(seed: u64, keys in 1usize..60, lateness in 0i64..60, size in 1i64..80) {
        let script = script(seed, keys, 40);
        let window = Tumbling::of(size.micros());
        let late = window.allowed_lateness(lateness.micros());
        let make = |window: Tumbling| move || window.make(key(), all(), None, OP);
        check(make(window), &script, seed, Compare::Rows);
        check(make(late), &script, seed, Compare::Rows);
        check(make(late.one_correction()), &script, seed, Compare::Rows);
        check(make(late.early_firing(5.micros())), &script, seed, Compare::Net);
    }

    /// Each window of each key comes on time once, whichever shards had let it go when the checkpoint was taken.
    #[test]
    fn windows_go_on_from_shards_at_different_watermarks(seed: u64, keys in 1usize..40, lateness in 1i64..60, size in 1i64..60, slide in 1i64..15, lag in 1usize..200) {
        let script = script(seed, keys, 40);
        let tumbling = Tumbling::of(size.micros());
        let make = |window: Tumbling| move || window.make(key(), all(), None, OP);
        check_uneven(make(tumbling), &script, seed, lag, Compare::Rows);
        let lately = tumbling.allowed_lateness(lateness.micros());
        check_uneven(make(lately), &script, seed, lag, Compare::Net);
        check_uneven(make(lately.one_correction()), &script, seed, lag, Compare::Rows);
        let sliding = Sliding::of((slide + size).micros(), slide.micros());
        let make = |window: Sliding| move || window.make(key(), all(), None, OP);
        check_uneven(make(sliding), &script, seed, lag, Compare::Rows);
        let lately = sliding.allowed_lateness(lateness.micros());
        check_uneven(make(lately), &script, seed, lag, Compare::Net);
        check_uneven(make(lately.one_correction()), &script, seed, lag, Compare::Rows);
        let cumulate = Cumulate::of((slide * (1 + size / 8)).micros(), slide.micros());
        let make = |window: Cumulate| move || window.make(key(), all(), None, OP);
        check_uneven(make(cumulate), &script, seed, lag, Compare::Rows);
        let lately = cumulate.allowed_lateness(lateness.micros());
        check_uneven(make(lately), &script, seed, lag, Compare::Net);
        check_uneven(make(lately.one_correction()), &script, seed, lag, Compare::Rows);
        let session = Session::gap(slide.micros());
        let make = |window: Session| move || window.make(key(), all(), None, OP);
        check_uneven(make(session), &script, seed, lag, Compare::Rows);
        let lately = session.allowed_lateness(lateness.micros());
        check_uneven(make(lately), &script, seed, lag, Compare::Net);
        check_uneven(make(lately.one_correction()), &script, seed, lag, Compare::Rows);
    }

    #[test]
    fn session_windows_go_on(seed: u64, keys in 1usize..30, lateness in 1i64..60, gap in 1i64..30, pace in 10usize..60) {
        let script = script(seed, keys, pace);
        let window = Session::gap(gap.micros());
        let late = window.allowed_lateness(lateness.micros());
        let make = |window: Session| move || window.make(key(), all(), None, OP);
        check(make(window), &script, seed, Compare::Rows);
        check(make(late), &script, seed, Compare::Rows);
        check(make(late.one_correction()), &script, seed, Compare::Rows);
        check(make(window.early_firing(5.micros())), &script, seed, Compare::Net);
        check(make(late.early_firing(5.micros())), &script, seed, Compare::Net);
        check(make(late.one_correction().early_firing(5.micros())), &script, seed, Compare::Net);
    }

    #[test]
    fn sliding_windows_go_on(seed: u64, keys in 1usize..30, lateness in 1i64..60, slide in 1i64..15, more in 0i64..60) {
        let script = script(seed, keys, 40);
        let window = Sliding::of((slide + more).micros(), slide.micros());
        let late = window.allowed_lateness(lateness.micros());
        let make = |window: Sliding| move || window.make(key(), all(), None, OP);
        check(make(window), &script, seed, Compare::Rows);
        check(make(late), &script, seed, Compare::Rows);
        check(make(late.one_correction()), &script, seed, Compare::Rows);
        check(make(late.early_firing(5.micros())), &script, seed, Compare::Net);
        check(make(late.one_correction().early_firing(5.micros())), &script, seed, Compare::Net);
        // Two stacks, and floats: the same to the last bit.
        let exact = Aggs::<Record>::new();
        let small = (exact.count(), exact.sum(|r| r.2), exact.avg(|r| r.2 as f64 / 3.0));
        let make = |window: Sliding| move || window.make(key(), small, None, OP);
        check(make(window), &script, seed, Compare::Rows);
        check(make(late), &script, seed, Compare::Rows);
        check(make(late.one_correction()), &script, seed, Compare::Rows);
    }

    #[test]
    fn cumulating_windows_go_on(seed: u64, keys in 1usize..30, lateness in 1i64..60, step in 1i64..15, steps in 1i64..8) {
        let script = script(seed, keys, 40);
        let window = Cumulate::of((step * steps).micros(), step.micros());
        let late = window.allowed_lateness(lateness.micros());
        let make = |window: Cumulate| move || window.make(key(), all(), None, OP);
        check(make(window), &script, seed, Compare::Rows);
        check(make(late), &script, seed, Compare::Rows);
        check(make(late.one_correction()), &script, seed, Compare::Rows);
        check(make(late.early_firing(5.micros())), &script, seed, Compare::Net);
    }

    #[test]
    fn global_windows_go_on(seed: u64, keys in 1usize..30, count in 1u64..12, timeout in 1i64..400) {
        let script = script(seed, keys, 40);
        let make = |window: Global| move || window.make(key(), all(), None, OP);
        check(make(Global::count(count)), &script, seed, Compare::Rows);
        check(make(Global::count_or_timeout(count, timeout.micros())), &script, seed, Compare::Rows);
    }

    #[test]
    fn records_in_order_go_on(seed: u64, keys in 1usize..30, lateness in 0i64..40, count in 1u64..12, timeout in 1i64..400) {
        let script = script(seed, keys, 40);
        let lateness = Span::from_micros(lateness);
        let fold = || MakeInOrder {
            key: key(),
            inner: MakeRunning { key: key(), running: Fold(vec![], |a: &mut Vec<i64>, b: &Record| a.push(b.2)), op: BEHIND, record: PhantomData },
            op: OP,
            lateness,
            late: None,
            rank: None,
        };
        check(fold, &script, seed, Compare::Rows);
        let windows = |window: Global| move || MakeInOrder {
            key: key(),
            inner: window.make(key(), all(), None, BEHIND),
            op: OP,
            lateness,
            late: None,
            rank: None,
        };
        check(windows(Global::count(count)), &script, seed, Compare::Rows);
        check(windows(Global::count_or_timeout(count, timeout.micros())), &script, seed, Compare::Rows);
    }

    #[test]
    fn windows_by_the_clock_go_on(seed: u64, keys in 1usize..30, slide in 1i64..100, more in 0i64..300) {
        let script = script(seed, keys, 40);
        let (slide, size) = (slide.micros(), (slide + more).micros());
        let tumbling = ProcessingTime::tumbling(size);
        check(|| tumbling.make(key(), all(), None, OP), &script, seed, Compare::Rows);
        let sliding = ProcessingTime::sliding(size, slide);
        check(|| sliding.make(key(), all(), None, OP), &script, seed, Compare::Rows);
        let cumulate = ProcessingTime::cumulate(Span::from_micros(3 * slide.micros()), slide);
        check(|| cumulate.make(key(), all(), None, OP), &script, seed, Compare::Rows);
        let session = ProcessingTime::session(slide);
        check(|| session.make(key(), all(), None, OP), &script, seed, Compare::Rows);
    }
}

/// A record of each of these keys at one time.
fn batch(keys: std::ops::Range<u8>, time: i64) -> Step {
    Step::Batch(keys.map(|k| ((time, k, 1), None)).collect())
}

#[test]
fn an_epoch_has_what_has_changed() {
    let windows =
        |window: Sliding| move || window.make(key(), Aggs::<Record>::new().count(), None, OP);
    let steps = vec![
        batch(0..100, 5),
        // Slices close; then windows fire, and nothing changes.
        Step::Watermark(15),
        Step::Watermark(35),
        batch(0..3, 50),
        // Everything goes.
        Step::Watermark(5000),
        Step::Watermark(5001),
    ];
    let window = Sliding::of(1000.micros(), 10.micros());
    let found = entries_by_epoch(windows(window), steps.clone());
    assert_eq!(found, [100, 100, 0, 3, 100, 0]);
    let session = Session::gap(100.micros());
    let sessions = || session.make(key(), Aggs::<Record>::new().count(), None, OP);
    let found = entries_by_epoch(sessions, steps.clone());
    assert_eq!(found, [100, 0, 0, 3, 100, 0]);
    let in_order = || MakeInOrder {
        key: key(),
        inner: MakeRunning {
            key: key(),
            running: SoFar(Aggs::<Record>::new().count()),
            op: BEHIND,
            record: PhantomData,
        },
        op: OP,
        lateness: Span::ZERO,
        late: None,
        rank: None,
    };
    // They leave a tombstone each, and make a value each.
    let found = entries_by_epoch(in_order, steps);
    assert_eq!(found, [100, 200, 0, 3, 6, 0]);
}

/// The records of shard 0 go to shard 1 and all that shard 0 wrote goes; then more come to shard 0.
#[test]
fn numbers_of_arrival_are_not_given_twice() {
    let key_where = |of_two, of_three| {
        let fits = |k: &u8| shard_of(*k, 2) == of_two && shard_of(*k, 3) == of_three;
        (0..255).find(fits).unwrap()
    };
    let (moves, stays) = (key_where(0, 1), key_where(0, 0));
    let three = |key, time| Step::Batch((0..3).map(|n| ((time, key, n), None)).collect());
    let nothing = || Step::Batch(vec![]);
    let in_order = || MakeInOrder {
        key: key(),
        inner: MakeRunning {
            key: key(),
            running: SoFar(Aggs::<Record>::new().count()),
            op: BEHIND,
            record: PhantomData,
        },
        op: OP,
        lateness: Span::ZERO,
        late: None,
        rank: None,
    };
    let attempts = vec![
        (2, three(moves, 10), false),
        (3, nothing(), true),
        (3, three(stays, 10), false),
        (1, Step::Watermark(20), false),
    ];
    assert_eq!(moved(in_order, attempts).len(), 6);
}

/// A slow disk keeps no stage from its next records.
#[test]
fn a_window_that_goes_while_it_is_written_holds_up_nobody() {
    let make =
        |window: Tumbling| move || window.make(key(), Aggs::<Record>::new().count(), None, OP);
    let window = Tumbling::of(10.micros());
    assert!(goes_on_unwritten(make(window), batch(0..100, 5), 5000));
    let late = window.allowed_lateness(20.micros());
    assert!(goes_on_unwritten(make(late), batch(0..100, 5), 5000));
}
