//! Unions of which one stream comes first.

use pelton::tasklet::Progress;
use pelton::testing::{self, Sizes, Stepper};
use pelton::{EventTime, Job, Spans, Tumbling, Watermarks};
use proptest::prelude::*;

/// Looks at the first stream that the second one waits for, as documented.
const PATIENCE: usize = 64;

/// (Of the first stream, number), one a batch, as they come out of a union stepped by hand. `turns`: 0 and 1 have a source give a
/// record, 2 has the union take one.
fn taken(turns: &[u8]) -> Result<(), TestCaseError> {
    let (first, first_source) = testing::feed::<(bool, u32)>(1);
    let (second, second_source) = testing::feed::<(bool, u32)>(1);
    let (results, sink) = testing::collect();
    let job = Job::new("union");
    let other = job.source(second_source);
    let stream = job.source(first_source);
    // The sources' stages are closed by the union: first the preferred one's, then the other's.
    stream.union_by_priority(other).sink(sink);
    let sizes = Sizes {
        batch_size: 1,
        ring_capacity: 1 << 10,
        ..Sizes::shards(1)
    };
    let mut stepper = Stepper::with(&job, sizes).unwrap();
    prop_assert_eq!(stepper.tasklets(), 3);
    let mut there = [0usize; 2];
    let mut given = [0u32; 2];
    let mut in_a_row = 0;
    for &turn in turns {
        match turn {
            2 => {
                stepper.step(2).unwrap();
                let out = results.take();
                prop_assert!(out.len() <= 1);
                let from = out.first().map(|(first, _)| usize::from(!*first));
                let expected = match there {
                    [0, 0] => None,
                    [0, _] => Some(1),
                    [_, 0] => Some(0),
                    _ if in_a_row == PATIENCE => Some(1),
                    _ => Some(0),
                };
                prop_assert_eq!(from, expected, "{:?} {}", there, in_a_row);
                // What had its turn and nothing to give has had it.
                in_a_row = match from {
                    Some(0) if in_a_row == PATIENCE => 0,
                    Some(0) => in_a_row + 1,
                    _ => 0,
                };
                if let Some(from) = from {
                    there[from] -= 1;
                }
            }
            side => {
                let side = usize::from(side);
                let feed = [&first, &second][side];
                feed.push(0, (side == 0, given[side]));
                given[side] += 1;
                prop_assert_eq!(stepper.step(side).unwrap(), Progress::Worked);
                there[side] += 1;
            }
        }
    }
    Ok(())
}

proptest! {
    /// The other stream is taken exactly when the first has nothing, or has had its looks in a row.
    #[test]
    fn the_first_comes_first(
        turns in proptest::collection::vec(prop_oneof![3 => Just(0u8), 2 => Just(1u8), 4 => Just(2u8)], 0..600),
    ) {
        taken(&turns)?;
    }
}

/// 64 of the first, then one of the other, for as long as both have any.
#[test]
fn the_other_does_not_starve() {
    let turns = [[0u8; 300].as_slice(), &[1; 20], &[2; 320]].concat();
    taken(&turns).unwrap();
}

/// Sums by window do not depend on who comes first, whatever is stepped when; the watermark is the lesser of both.
#[test]
fn windows_are_those_of_a_union() {
    let at = |e: &(u8, i64)| EventTime::from_seconds(e.1);
    let run = |by_priority: bool, seed: usize, shards: usize| {
        let (feeds, sources): (Vec<_>, Vec<_>) =
            (0..2).map(|_| testing::feed::<(u8, i64)>(3)).unzip();
        let (results, sink) = testing::collect();
        let job = Job::new("union");
        let mut streams = sources.into_iter().map(|source| {
            job.source(source)
                .event_time(at, Watermarks::bounded(5.seconds()))
        });
        let (one, two) = (streams.next().unwrap(), streams.next().unwrap());
        let stream = match by_priority {
            true => one.union_by_priority(two),
            false => one.union(two),
        };
        stream
            .key_by(|e| e.0)
            .window(Tumbling::of(10.seconds()))
            .aggregate(|a| (a.count(), a.sum(|e| e.1)))
            .sink(sink);
        let sizes = Sizes {
            batch_size: 3,
            ring_capacity: 2,
            ..Sizes::shards(shards)
        };
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        for n in 0..300i64 {
            let side = usize::from(n % 7 < 3);
            feeds[side].push(n as usize % 3, ((n * 13 % 5) as u8, n / 2 + n * 31 % 5));
        }
        drop(feeds);
        let mut next = seed;
        stepper
            .run_with(|n| {
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (next >> 33) % n
            })
            .unwrap();
        assert_eq!(stepper.counters().invariant_broken, 0);
        assert_eq!(stepper.counters().late, 0);
        let mut rows: Vec<_> = results
            .take()
            .into_iter()
            .map(|w| (w.window.start, w.key, w.value))
            .collect();
        rows.sort_unstable();
        rows
    };
    let expected = run(false, 1, 1);
    assert!(expected.len() > 50);
    for seed in 0..30 {
        for shards in [1, 2, 3] {
            assert_eq!(run(true, seed, shards), expected);
        }
    }
    // The less urgent stream holds windows back until it has come as far.
    let (feeds, sources): (Vec<_>, Vec<_>) = (0..2).map(|_| testing::feed::<(u8, i64)>(1)).unzip();
    let (results, sink) = testing::collect();
    let job = Job::new("union");
    let mut streams = sources
        .into_iter()
        .map(|source| job.source(source).event_time(at, Watermarks::monotonous()));
    let (one, two) = (streams.next().unwrap(), streams.next().unwrap());
    one.union_by_priority(two)
        .key_by(|e| e.0)
        .window(Tumbling::of(10.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    feeds[0].push(0, (1, 1));
    feeds[0].push(0, (1, 100));
    stepper.until_idle().unwrap();
    assert_eq!(results.take().len(), 0);
    feeds[1].push(0, (1, 50));
    stepper.until_idle().unwrap();
    assert_eq!(results.take().len(), 1);
}
