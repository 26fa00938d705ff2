//! What leaves when: in order, between watermarks, when nothing more comes, and after a restore.

use crate::world::{Dice, Ev, Scripted, timed};
use pelton::calls::Async;
use pelton::testing::{self, FaultyDisk, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper};
use pelton::{Checkpointing, EventTime, Job, Spans, Tumbling, Watermarks};

/// Numbers 0.. of one partition, answered as the test says.
fn numbers(
    options: Async,
) -> (
    Scripted<u64>,
    testing::Feed<u64>,
    testing::Collected<u64>,
    Stepper,
) {
    let client = Scripted::new(8);
    let (feed, source) = testing::feed(1);
    let (rows, sink) = testing::collect();
    let job = Job::new("numbers");
    job.source(source)
        .event_time(
            |n| EventTime::from_seconds(*n as i64),
            Watermarks::monotonous(),
        )
        .async_map(
            client.clone(),
            options.capacity(8).time_out(1.hours()),
            |n| *n,
        )
        .results(|n, _| *n)
        .key_by(|_| 0u8)
        .exchange()
        .sink(sink);
    let stepper = Stepper::new(&job, 1).unwrap();
    (client, feed, rows, stepper)
}

#[test]
fn ordered_results_wait_for_those_before() {
    let (client, feed, rows, mut stepper) = numbers(Async::ordered());
    (0..4).for_each(|n| feed.push(0, n));
    stepper.until_idle().unwrap();
    for n in [2, 1, 3] {
        client.take(n).send(Ok(n));
        stepper.until_idle().unwrap();
        assert!(rows.take().is_empty());
    }
    client.take(0).send(Ok(0));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [0, 1, 2, 3]);
}

#[test]
fn unordered_results_overtake_one_another_up_to_a_watermark() {
    let (client, feed, rows, mut stepper) = numbers(Async::unordered());
    (0..3).for_each(|n| feed.push(0, n));
    // What was read by now is behind one watermark, what follows behind another.
    stepper.until_idle().unwrap();
    (3..5).for_each(|n| feed.push(0, n));
    stepper.until_idle().unwrap();
    client.take(4).send(Ok(4));
    client.take(2).send(Ok(2));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [2]);
    client.take(0).send(Ok(0));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [0]);
    client.take(1).send(Ok(1));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [1, 4]);
    client.take(3).send(Ok(3));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [3]);
}

/// A full operator takes no more, and goes on where there is room.
#[test]
fn the_stream_waits_at_the_bound() {
    for options in [Async::ordered(), Async::unordered()] {
        let (client, feed, rows, mut stepper) = numbers(options);
        (0..50).for_each(|n| feed.push(0, n));
        feed.close(0);
        stepper.until_idle().unwrap();
        for n in 0..50 {
            assert_eq!(client.requests(), (n..50.min(n + 8)).collect::<Vec<_>>());
            client.take(n).send(Ok(n));
            stepper.until_idle().unwrap();
            assert_eq!(rows.take(), [n]);
        }
        stepper.until_idle().unwrap();
        assert!(stepper.all_done());
    }
}

/// Windows behind fire when the watermark passes, and it passes when the records before it have: at the end, and when all is silent.
#[test]
fn windows_behind_have_all_their_records() {
    let client = Scripted::<u64>::new(16);
    let (feed, source) = testing::feed::<Ev>(2);
    let (counts, sink) = testing::collect();
    let job = Job::new("windows");
    job.source(source)
        .event_time(
            |e| EventTime::from_seconds(e.2),
            Watermarks::monotonous()
                .idle_after(1.seconds())
                .close_after_idle(2.seconds()),
        )
        .async_map(
            client.clone(),
            Async::unordered().capacity(16).time_out(1.hours()),
            |e: &Ev| u64::from(e.1),
        )
        .results(|e, _| *e)
        .key_by(|e| e.0)
        .window(Tumbling::of(10.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    for partition in 0..2 {
        for n in 0..3 {
            feed.push(partition, (7, (partition * 10 + n) as u32, n as i64));
        }
        feed.push(partition, (7, (partition * 10 + 3) as u32, 15));
    }
    stepper.until_idle().unwrap();
    for request in [0, 1, 3, 10, 11, 12, 13] {
        client.take(request).send(Ok(0));
        stepper.until_idle().unwrap();
    }
    assert!(counts.take().is_empty(), "one of the window waits");
    // All is silent, and says so: the record that waits still counts.
    stepper.advance_clock(5.seconds());
    stepper.until_idle().unwrap();
    stepper.advance_clock(5.seconds());
    stepper.until_idle().unwrap();
    assert!(
        counts.take().iter().all(|w| w.value != 5),
        "closed without it"
    );
    client.take(2).send(Ok(0));
    stepper.until_idle().unwrap();
    stepper.advance_clock(5.seconds());
    stepper.until_idle().unwrap();
    let fired: Vec<u64> = counts.take().iter().map(|w| w.value).collect();
    assert_eq!(fired, [6, 2], "the second one by silence");
    assert_eq!(stepper.counters().late, 0);
    assert_eq!(stepper.counters().invariant_broken, 0);
}

/// What was in hand is asked for again, first, and in order: on as many shards as before and on others. A checkpoint passes meanwhile.
#[test]
fn what_was_in_hand_is_asked_for_again() {
    for (before, after) in [(1, 1), (3, 3), (1, 3), (3, 1), (2, 8), (8, 2)] {
        let mut dice = Dice(before as u64 * 31 + after as u64);
        let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
        let (feed, _) = testing::feed::<Ev>(3);
        let write = |client: &Scripted<u64>, sink| {
            let job = Job::new("again");
            job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
            timed(&job, feed.source())
                .async_map(
                    client.clone(),
                    Async::ordered().capacity(64).time_out(1.hours()),
                    |e: &Ev| u64::from(e.1),
                )
                .uid("asked")
                .results(|e, _| *e)
                .sink(sink);
            job
        };
        let (client, (rows, sink)) = (Scripted::new(64), testing::collect());
        let job = write(&client, sink);
        let mut stepper =
            Stepper::on_disk(&job, Sizes::shards(before), &OnDisk::small(&disk)).unwrap();
        for n in 0..30 {
            feed.push(n as usize % 3, (0, n, 100));
        }
        stepper.until_idle().unwrap();
        assert_eq!(client.requests().len(), 30);
        // Some leave before the barrier, some are answered and cannot leave yet.
        for n in 0..30 {
            if !(9..15).contains(&n) && dice.below(2) == 0 {
                client.take(n).send(Ok(0));
            }
        }
        stepper.until_idle().unwrap();
        while stepper.checkpoints().completed < 2 {
            stepper.checkpoint();
            stepper.advance_clock(2.millis());
            feed.push(
                0,
                (1, 1_000 + 3 * stepper.checkpoints().completed as u32, 100),
            );
            stepper.until_idle().unwrap();
        }
        let left: Vec<Ev> = rows.take();
        drop(stepper);
        let (client, (rows, sink)) = (Scripted::new(64), testing::collect());
        let job = write(&client, sink);
        let mut stepper =
            Stepper::on_disk(&job, Sizes::shards(after), &OnDisk::small(&disk)).unwrap();
        assert!(stepper.from().is_some());
        let in_flight = stepper.state_sizes();
        let in_flight = in_flight.iter().find(|s| s.state == "in flight").unwrap();
        assert!(in_flight.entries >= 30 - left.len() as u64, "{left:?}");
        for partition in 0..3 {
            feed.push(partition, (2, 2_000 + partition as u32, 200));
        }
        feed.close(0);
        feed.close(1);
        feed.close(2);
        while !stepper.all_done() {
            stepper.until_idle().unwrap();
            for at in (0..client.len()).rev() {
                let n = client.len().min(at + 1);
                let asked = client.asked.lock().unwrap().swap_remove(dice.below(n));
                asked.answer.send(Ok(0));
            }
        }
        let came: Vec<Ev> = rows.take();
        for partition in 0..3 {
            let of = |rows: &[Ev]| -> Vec<u32> {
                let of = rows
                    .iter()
                    .filter(|e| e.1 as usize % 1_000 % 3 == partition && e.0 == 0);
                of.map(|e| e.1).collect()
            };
            let all = [of(&left), of(&came)].concat();
            let expected: Vec<u32> = (0..30).filter(|n| *n as usize % 3 == partition).collect();
            assert_eq!(all, expected, "{before} to {after}");
        }
        let news: Vec<u32> = came.iter().filter(|e| e.0 == 2).map(|e| e.1).collect();
        assert_eq!(news.len(), 3, "{came:?}");
        for new in came.iter().filter(|e| e.0 == 2) {
            let at = came.iter().position(|e| e == new).unwrap();
            let same = |e: &Ev| e.0 == 0 && e.1 % 3 == new.1 % 1_000;
            assert!(
                !came[at..].iter().any(same),
                "{new:?} has overtaken: {came:?}"
            );
        }
    }
}
