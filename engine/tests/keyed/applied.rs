//! Operators that apply changes, against a bag of rows that is recomputed after each.

use crate::{Run, config, run, time, wide_runs};
use pelton::change::{Change, Kind};
use pelton::testing::{OnDisk, Sizes, Stepper, collect, feed};
use pelton::{
    BuildError, Checkpointing, EventTime, Job, Keyed, Ranked, Spans, Watermarks, sink, sources,
};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// A row: its key and a value.
type Row = (u8, i64);

/// How random changes come to be.
#[derive(Clone, Copy, Debug)]
struct Draw {
    key: u8,
    value: i64,
    kind: u8,
}

fn draws() -> impl Strategy<Value = Vec<Vec<Draw>>> {
    let draw = (0u8..3, 0i64..12, 0u8..8).prop_map(|(key, value, kind)| Draw { key, value, kind });
    prop::collection::vec(prop::collection::vec(draw, 0..200), 1..4)
}

/// Changes of which a good part takes away what does not stand. Of each key all come in one partition.
fn with_strays(draws: &[Vec<Draw>]) -> Vec<Vec<Change<Row>>> {
    let change = |partition: usize, d: &Draw| {
        let kind = match d.kind {
            0..3 => Kind::Insert,
            3 => Kind::UpdateAfter,
            4 => Kind::UpdateBefore,
            _ => Kind::Delete,
        };
        Change::new(kind, (d.key * 4 + partition as u8, d.value))
    };
    let partitions = draws.iter().enumerate();
    partitions
        .map(|(n, draws)| draws.iter().map(|d| change(n, d)).collect())
        .collect()
}

/// Changes of rows that stand, each row's in one partition; keys meet from all.
fn without_strays(draws: &[Vec<Draw>]) -> Vec<Vec<Change<Row>>> {
    let partitions = draws.iter().enumerate();
    let changes = partitions.map(|(n, draws)| {
        let mut standing: Vec<Row> = vec![];
        let change = |d: &Draw| match d.kind {
            0..4 => {
                standing.push((d.key, d.value * 4 + n as i64));
                standing.last().map(|row| Change::new(Kind::Insert, *row))
            }
            _ if standing.is_empty() => None,
            _ => {
                let row = standing.remove(d.value as usize % standing.len());
                Some(Change::new(Kind::Delete, row))
            }
        };
        draws.iter().filter_map(change).collect()
    });
    changes.collect()
}

/// The rows of a key that stand.
#[derive(Clone, Debug, Default)]
struct Bag(Vec<Row>);

impl Bag {
    /// Whether the change was taken.
    fn apply(&mut self, change: &Change<Row>) -> bool {
        if change.is_addition() {
            self.0.push(change.row);
            return true;
        }
        let at = self.0.iter().position(|row| *row == change.row);
        at.map(|at| self.0.swap_remove(at)).is_some()
    }

    /// The n best.
    fn best(&self, n: usize) -> Vec<Row> {
        let mut rows = self.0.clone();
        rows.sort_by_key(|row| (Reverse(score(row)), *row));
        rows.truncate(n);
        rows
    }

    fn value(&self) -> Option<Value> {
        let values = || self.0.iter().map(|row| row.1);
        let (count, sum) = (self.0.len() as u64, values().sum::<i64>());
        let mean = sum as f64 / count as f64;
        let halves = values().map(|v| v as f64 / 2.0);
        let max = halves.fold(f64::NEG_INFINITY, f64::max);
        Some(((count, sum, mean), values().min()?, max))
    }
}

/// Count, sum, mean, least value, greatest half.
type Value = ((u64, i64, f64), i64, f64);

fn score(row: &Row) -> i64 {
    row.1 * 7 % 5
}

/// What must be told of a key that has had one value and now has another.
fn told<V: Clone + PartialEq>(before: Option<V>, after: Option<V>) -> Vec<Change<V>> {
    match (before, after) {
        (Some(b), Some(a)) if b != a => {
            vec![
                Change::new(Kind::UpdateBefore, b),
                Change::new(Kind::UpdateAfter, a),
            ]
        }
        (None, Some(a)) => vec![Change::new(Kind::Insert, a)],
        (Some(b), None) => vec![Change::new(Kind::Delete, b)],
        _ => vec![],
    }
}

/// The same between two rankings, with ranks.
fn told_by_rank(before: &[Row], after: &[Row]) -> Vec<Change<Ranked<Row>>> {
    let ranks = before.len().max(after.len());
    let changes = (0..ranks).flat_map(|at| {
        let row = |rows: &[Row]| {
            let rank = at as u32 + 1;
            rows.get(at).map(|&row| Ranked { rank, row })
        };
        told(row(before), row(after))
    });
    changes.collect()
}

/// The same without ranks: what left, what came.
fn told_bare(before: &[Row], after: &[Row]) -> Vec<Change<Row>> {
    let less = |a: &[Row], b: &[Row]| {
        let mut left = a.to_vec();
        for row in b {
            if let Some(at) = left.iter().position(|r| r == row) {
                left.remove(at);
            }
        }
        left
    };
    let gone = less(before, after);
    let came = less(after, before);
    let gone = gone.into_iter().map(|row| Change::new(Kind::Delete, row));
    let came = came.into_iter().map(|row| Change::new(Kind::Insert, row));
    gone.chain(came).collect()
}

fn of_key<T: Clone>(changes: &[Change<T>], key: u8, key_of: impl Fn(&T) -> u8) -> Vec<Change<T>> {
    let of_key = changes.iter().filter(|c| key_of(&c.row) == key);
    of_key.cloned().collect()
}

/// What stands after all changes, none of which takes away what does not stand.
fn stands<T: PartialOrd + Debug + Clone>(changes: &[Change<T>]) -> Vec<T> {
    let mut rows: Vec<T> = vec![];
    for change in changes {
        if change.is_addition() {
            rows.push(change.row.clone());
            continue;
        }
        let at = rows.iter().position(|row| *row == change.row);
        let at = at.unwrap_or_else(|| panic!("{change:?} of nothing"));
        rows.swap_remove(at);
    }
    rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
    rows
}

macro_rules! aggregates {
    () => {
        |a| {
            let max = a.map(a.max(|r: &Row| r.1), |max| max as f64 / 2.0);
            (
                (a.count(), a.sum(|r| r.1), a.avg(|r| r.1)),
                a.min(|r| r.1),
                max,
            )
        }
    };
}

proptest! {
    #![proptest_config(config())]

    /// Each change of each key is that between two bags, and what does not stand is counted.
    #[test]
    fn changes_follow_from_what_stands(draws in draws(), how in wide_runs(), n in 1usize..5) {
        let partitions = with_strays(&draws);
        let (values, values_sink) = collect();
        let (sums, sums_sink) = collect();
        let (bare, bare_sink) = collect();
        let (ranked, ranked_sink) = collect();
        let job = Job::new("applied");
        let [one, rest] = job.source(sources::partitions(partitions.clone())).fork();
        let [two, rest] = rest.fork();
        let [three, four] = rest.fork();
        one.key_by(|c| c.row.0).apply_changes().running(aggregates!()).sink(values_sink);
        two.key_by(|c| c.row.0).apply_changes().running(|a| (a.count(), a.sum(|r| r.1 as u8))).sink(sums_sink);
        three.key_by(|c| c.row.0).apply_changes().top(n, score).sink(bare_sink);
        four.key_by(|c| c.row.0).apply_changes().top_with_rank(n, score).sink(ranked_sink);
        let counters = run(&job, how).unwrap();
        let (values, sums, bare, ranked) = (values.take(), sums.take(), bare.take(), ranked.take());
        let mut strays = 0;
        for key in 0..12 {
            let (mut bag, mut rows, mut sum) = (Bag::default(), 0u64, 0i64);
            let [mut of_values, mut of_sums, mut of_bare, mut of_ranked] = [(); 4].map(|()| (vec![], vec![], vec![], vec![]));
            for change in partitions.concat().iter().filter(|c| c.row.0 == key) {
                let before = bag.clone();
                strays += 3 * u64::from(!bag.apply(change));
                let row = |value| Keyed { key, value };
                of_values.0.extend(told(before.value().map(row), bag.value().map(row)));
                of_bare.2.extend(told_bare(&before.best(n), &bag.best(n)));
                of_ranked.3.extend(told_by_rank(&before.best(n), &bag.best(n)));
                // Sums know of no rows: only of how many.
                let value = |rows: u64, sum: i64| (rows > 0).then_some(Keyed { key, value: (rows, sum.max(0) as u64) });
                let before = value(rows, sum);
                match change.is_addition() {
                    true => (rows, sum) = (rows + 1, sum + change.row.1),
                    false if rows == 0 => strays += 1,
                    false => (rows, sum) = (rows - 1, sum - change.row.1),
                }
                if rows == 0 {
                    sum = 0;
                }
                of_sums.1.extend(told(before, value(rows, sum)));
            }
            prop_assert_eq!(of_key(&values, key, |k: &Keyed<u8, Value>| k.key), of_values.0);
            prop_assert_eq!(of_key(&sums, key, |k| k.key), of_sums.1);
            prop_assert_eq!(of_key(&bare, key, |r| r.0), of_bare.2);
            prop_assert_eq!(of_key(&ranked, key, |r| r.row.0), of_ranked.3);
        }
        prop_assert_eq!(counters.stray_retractions, strays);
    }

    /// Rows of a key come from all partitions, in any order: what stands in the end does not depend on it, and nothing is stray.
    #[test]
    fn what_stands_does_not_depend_on_the_order(draws in draws(), how in wide_runs(), n in 1usize..5) {
        let partitions = without_strays(&draws);
        let (values, values_sink) = collect();
        let (bare, bare_sink) = collect();
        let (ranked, ranked_sink) = collect();
        let job = Job::new("applied");
        let [one, rest] = job.source(sources::partitions(partitions.clone())).fork();
        let [two, three] = rest.fork();
        one.key_by(|c| c.row.0).apply_changes().running(aggregates!()).sink(values_sink);
        two.key_by(|c| c.row.0).apply_changes().top(n, score).sink(bare_sink);
        three.key_by(|c| c.row.0).apply_changes().top_with_rank(n, score).sink(ranked_sink);
        let counters = run(&job, how).unwrap();
        let (values, bare, ranked) = (values.take(), bare.take(), ranked.take());
        for key in 0..3 {
            let mut bag = Bag::default();
            for change in partitions.concat().iter().filter(|c| c.row.0 == key) {
                prop_assert!(bag.apply(change));
            }
            let expected = bag.value().map(|value| Keyed { key, value });
            prop_assert_eq!(stands(&of_key(&values, key, |k: &Keyed<u8, Value>| k.key)), Vec::from_iter(expected));
            let mut best = bag.best(n);
            prop_assert_eq!(stands(&of_key(&ranked, key, |r| r.row.0)), told_by_rank(&[], &best).into_iter().map(|c| c.row).collect::<Vec<_>>());
            best.sort();
            prop_assert_eq!(stands(&of_key(&bare, key, |r| r.0)), best);
        }
        prop_assert_eq!(counters.stray_retractions, 0);
    }

    /// Changes of changes: a changelog by one key, its values by another, the best of these. Nothing that it says is stray, on any shards.
    #[test]
    fn changes_go_from_operator_to_operator(partitions in crate::partitions(), how in wide_runs(), n in 1usize..4) {
        let (levels, levels_sink) = collect();
        let (best, best_sink) = collect();
        let job = Job::new("levels");
        let [one, two] = job
            .source(sources::partitions(partitions.clone()))
            .key_by(|r: &crate::Record| (r.0, r.2 % 3))
            .changelog()
            .running(|a| a.count())
            .key_by(|c| c.row.value % 5)
            .apply_changes()
            .running(|a| (a.count(), a.max(|r| r.key)))
            .fork();
        one.sink(levels_sink);
        two.key_by(|_| 'a').apply_changes().top_with_rank(n, |level| level.value.0).sink(best_sink);
        let counters = run(&job, how).unwrap();
        let mut counts: BTreeMap<(u8, u64), u64> = BTreeMap::new();
        for r in partitions.concat() {
            *counts.entry((r.0, r.2 % 3)).or_default() += 1;
        }
        let mut expected: BTreeMap<u64, (u64, (u8, u64))> = BTreeMap::new();
        for (key, count) in counts {
            let level = expected.entry(count % 5).or_insert((0, key));
            *level = (level.0 + 1, level.1.max(key));
        }
        let mut expected: Vec<_> = expected.into_iter().map(|(key, value)| Keyed { key, value }).collect();
        prop_assert_eq!(stands(&levels.take()), expected.clone());
        expected.sort_by_key(|level| (Reverse(level.value.0), level.clone()));
        expected.truncate(n);
        let rows: Vec<_> = stands(&best.take()).into_iter().map(|r| r.row).collect();
        prop_assert_eq!(rows, expected);
        prop_assert_eq!(counters.stray_retractions, 0);
    }

    /// Behind an order all changes are fixed, however they are run.
    #[test]
    fn changes_in_order_are_fixed(partitions in crate::partitions(), how in wide_runs(), bound in 0i64..20) {
        let outcome = |how| {
            let (results, sink) = collect();
            let job = Job::new("in order");
            job.source(sources::partitions(partitions.clone()))
                .event_time(time, Watermarks::bounded(bound.seconds()))
                .key_by(|r| r.0)
                .in_event_time_order()
                .changelog()
                .running(|a| a.sum(|r| r.2))
                .key_by(|c| c.row.value % 3)
                .in_event_time_order()
                .apply_changes()
                .running(|a| (a.count(), a.sum(|k| k.value), a.min(|k| k.key)))
                .sink(sink);
            let counters = run(&job, how).unwrap();
            assert_eq!(counters.stray_retractions, 0);
            let results = results.take();
            (0..3).map(|key| of_key(&results, key, |k| k.key as u8)).collect::<Vec<_>>()
        };
        let alone = Run { shards: 1, batch_size: 64, seed: 1 };
        let (found, expected) = (outcome(how), outcome(alone));
        for of_key in &found {
            stands(of_key);
        }
        prop_assert_eq!(found, expected);
    }
}

fn refusal(job: &Job) -> String {
    Stepper::new(job, 1).map(drop).unwrap_err().to_string()
}

#[test]
fn a_ranking_has_a_size() {
    for n in [0, 1_001] {
        let (_, sink) = collect();
        let job = Job::new("wrong");
        job.source(sources::items([Change::new(Kind::Insert, 1u64)]))
            .key_by(|_| 0)
            .apply_changes()
            .top(n, |r| *r)
            .sink(sink);
        assert!(refusal(&job).contains(&format!("the {n} best rows")));
    }
}

/// Behind changes whose number is not fixed these operators are accepted, and no others; what they tell is of that kind itself.
#[test]
fn exactly_these_follow_changes() {
    let job = Job::new("counted");
    let (_, sink) = collect();
    let changes = job
        .source(sources::items([1u64]))
        .key_by(|r| *r)
        .changelog()
        .running(|a| a.count())
        .key_by(|c| c.row.value)
        .apply_changes()
        .running(|a| a.count());
    assert!(
        job.explain().contains("NET, may be replaced"),
        "{}",
        job.explain()
    );
    let [one, two] = changes.fork();
    one.key_by(|c| c.row.value)
        .running(|a| a.count())
        .sink(sink);
    two.key_by(|c| c.row.value)
        .apply_changes()
        .top(1, |k| k.value)
        .sink(collect().1);
    let refused = refusal(&job);
    assert!(
        refused.contains("PLT-0011") && refused.contains("apply_changes"),
        "{refused}"
    );

    // In the order of time a change may come before the one that it takes back.
    let job = Job::new("reordered");
    let (_, sink) = collect();
    job.source(sources::items([(1, 1, 1)]))
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .changelog()
        .running(|a| a.count())
        .key_by(|c| c.row.value)
        .in_event_time_order()
        .apply_changes()
        .running(|a| a.count())
        .sink(sink);
    assert!(refusal(&job).contains("PLT-0011"));

    // Final rows become changes that are not.
    for in_order in [false, true] {
        let job = Job::new("append");
        let keyed = job
            .source(sources::items([Change::new(Kind::Insert, 7i64)]))
            .event_time(|c| EventTime::from_seconds(c.row), Watermarks::monotonous())
            .key_by(|c| c.row);
        let sink = sink::callback("append", |_, _| {});
        match in_order {
            true => keyed
                .in_event_time_order()
                .apply_changes()
                .running(|a| a.count())
                .sink(sink),
            false => keyed.apply_changes().running(|a| a.count()).sink(sink),
        };
        let warnings = job.warnings();
        assert!(
            warnings.iter().any(|w| w.what.contains("what stands")),
            "{warnings:?}"
        );
        let error = Stepper::new(&job, 1).map(drop).unwrap_err();
        assert!(
            matches!(error, BuildError::AppendOnReplaced { .. }),
            "{error}"
        );
    }
}

/// One row at the top moves a thousand ranks: a step takes a few such, not a batch of them.
#[test]
fn a_step_is_bounded() {
    let (results, sink) = collect();
    let job = Job::new("long rankings");
    job.source(sources::items(
        (0..2_500u64).map(|n| Change::new(Kind::Insert, n)),
    ))
    .key_by(|_| 0)
    .apply_changes()
    .top_with_rank(1_000, |n| *n)
    .sink(sink);
    let mut stepper = Stepper::with(&job, Sizes::shards(1)).unwrap();
    let (mut all, mut most) = (0, 0);
    while !stepper.all_done() {
        for tasklet in 0..stepper.tasklets() {
            stepper.step(tasklet).unwrap();
            let told = results.take().len();
            (all, most) = (all + told, most.max(told));
        }
    }
    assert!(
        all > 3_000_000 && most < 20_000,
        "{most} of {all} in one step"
    );
}

/// What stood and what was counted before a restart stands and counts on, on another number of shards; with another n the job is another.
#[test]
fn a_job_goes_on_with_what_stands() {
    let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let (feed, first) = feed::<Change<Row>>(1);
    let start = |source, shards, n| {
        let (values, values_sink) = collect();
        let (best, best_sink) = collect();
        let job = Job::new("goes on");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        let [one, two] = job.source(source).fork();
        one.key_by(|c: &Change<Row>| c.row.0)
            .apply_changes()
            .running(|a| (a.count(), a.max(|r| r.1)))
            .uid("values")
            .sink(values_sink);
        two.key_by(|c: &Change<Row>| c.row.0)
            .apply_changes()
            .top(n, |r| r.1)
            .uid("best")
            .sink(best_sink);
        let stepper = Stepper::on_disk(&job, Sizes::shards(shards), &OnDisk::small(&disk));
        (stepper, values, best)
    };
    let give = |kind, rows: std::ops::Range<i64>| {
        for row in rows {
            feed.push(0, Change::new(kind, ((row % 4) as u8, row)));
        }
    };
    let (stepper, ..) = start(first, 1, 2);
    let mut stepper = stepper.unwrap();
    give(Kind::Insert, 0..40);
    // 4 of them do not stand.
    give(Kind::Delete, 36..44);
    stepper.until_idle().unwrap();
    let before = stepper.checkpoints().completed;
    while stepper.checkpoints().completed == before {
        stepper.checkpoint();
        stepper.advance_clock(2.millis());
        stepper.until_idle().unwrap();
    }
    assert_eq!(stepper.counters().stray_retractions, 8);
    drop(stepper);
    assert!(
        start(feed.source(), 3, 3).0.is_err(),
        "another ranking is another state"
    );
    // What looks alike and is of another aggregate is of no use: the greatest of rows that only were counted is not known.
    let other = Job::new("goes on");
    other.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
    let [one, two] = other.source(feed.source()).fork();
    let (_, sink) = collect();
    one.key_by(|c: &Change<Row>| c.row.0)
        .apply_changes()
        .running(|a| (a.max(|r| r.1), a.count()))
        .uid("values")
        .sink(sink);
    let (_, sink) = collect();
    two.key_by(|c: &Change<Row>| c.row.0)
        .apply_changes()
        .top(2, |r| r.1)
        .uid("best")
        .sink(sink);
    let refused = Stepper::on_disk(&other, Sizes::shards(1), &OnDisk::small(&disk));
    assert!(refused.is_err(), "another aggregate is another state");
    let (stepper, values, best) = start(feed.source(), 3, 2);
    let mut stepper = stepper.unwrap();
    assert_eq!(stepper.from().unwrap().1.counters.stray_retractions, 8);
    // The greatest of key 3 goes, and one that has gone before.
    give(Kind::Delete, 35..37);
    drop(feed);
    stepper.run().unwrap();
    assert_eq!(stepper.counters().stray_retractions, 10);
    let key = 3;
    let row = |count, max| Keyed {
        key,
        value: (count, max),
    };
    let expected = told(Some(row(9, 35)), Some(row(8, 31)));
    assert_eq!(values.take(), expected);
    let expected = told_bare(&[(key, 35), (key, 31)], &[(key, 31), (key, 27)]);
    assert_eq!(best.take(), expected);
}
