//! Change rows: changelogs and continuous top-N, against models that keep everything.

use crate::order::model;
use crate::{Record, config, partitions, run, time, wide_runs};
use pelton::change::{Change, Kind};
use pelton::testing::{Stepper, collect};
use pelton::{BuildError, Job, Keyed, Ranked, Spans, Watermarks, sink, sources};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// What stands after all changes, none of which takes away what does not stand; each `-U` is followed by its `+U`.
fn stands<T: Ord + Debug + Clone>(changes: &[Change<T>]) -> Vec<T> {
    let mut bag: BTreeMap<T, u32> = BTreeMap::new();
    for (n, change) in changes.iter().enumerate() {
        if change.is_addition() {
            *bag.entry(change.row.clone()).or_default() += 1;
        } else {
            let count = bag.get_mut(&change.row);
            let count = count.unwrap_or_else(|| panic!("{change:?} of nothing"));
            *count -= 1;
            if *count == 0 {
                bag.remove(&change.row);
            }
        }
        if change.kind == Kind::UpdateBefore {
            assert_eq!(changes[n + 1].kind, Kind::UpdateAfter, "after {change:?}");
        }
    }
    let rows = bag.into_iter();
    rows.flat_map(|(row, count)| vec![row; count as usize])
        .collect()
}

/// By score, then by place: numbers ascend by (partition, offset).
fn best_first(r: &Record) -> (Reverse<u64>, i64, u64) {
    (Reverse(r.2 * 7 % 5), r.1, r.2)
}

fn score(r: &Record) -> u64 {
    r.2 * 7 % 5
}

/// The n best of each key among these records.
fn ranking(records: &[Record], n: usize) -> Vec<Ranked<Record>> {
    let mut rows = vec![];
    for key in 0..5 {
        let mut of_key: Vec<_> = records.iter().filter(|r| r.0 == key).copied().collect();
        of_key.sort_by_key(best_first);
        rows.extend(
            (1..)
                .zip(of_key.into_iter().take(n))
                .map(|(rank, row)| Ranked { rank, row }),
        );
    }
    rows
}

fn of_key<T: Clone>(changes: &[Change<T>], key: u8, key_of: impl Fn(&T) -> u8) -> Vec<Change<T>> {
    let of_key = changes.iter().filter(|c| key_of(&c.row) == key);
    of_key.cloned().collect()
}

proptest! {
    #![proptest_config(config())]

    /// In the order of arrival: nothing is late, and what stands in the end does not depend on the order.
    #[test]
    fn what_stands_are_the_best(records in partitions(), how in wide_runs(), bound in 0i64..20, n in 1usize..5) {
        let (bare, bare_sink) = collect();
        let (ranked, ranked_sink) = collect();
        let job = Job::new("top");
        let [one, two] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .fork();
        one.key_by(|r| r.0).top(n, score).sink(bare_sink);
        two.key_by(|r| r.0).top_with_rank(n, score).sink(ranked_sink);
        run(&job, how).unwrap();
        let all: Vec<Record> = records.concat();
        let (bare, ranked) = (bare.take(), ranked.take());
        let mut expected = ranking(&all, n);
        let mut rows: Vec<_> = expected.iter().map(|r| r.row).collect();
        rows.sort();
        let found: Vec<Record> = (0..5).flat_map(|key| stands(&of_key(&bare, key, |r| r.0))).collect();
        prop_assert_eq!(found, rows);
        let mut found: Vec<_> = (0..5).flat_map(|key| stands(&of_key(&ranked, key, |r| r.row.0))).collect();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }

    /// In event-time order each change is that between two rankings.
    #[test]
    fn changes_in_order_are_fixed(records in partitions(), how in wide_runs(), bound in 0i64..20, n in 1usize..5) {
        let (bare, bare_sink) = collect();
        let (ranked, ranked_sink) = collect();
        let job = Job::new("top in order");
        let [one, two] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .fork();
        one.key_by(|r| r.0).in_event_time_order().top(n, score).sink(bare_sink);
        two.key_by(|r| r.0).in_event_time_order().top_with_rank(n, score).sink(ranked_sink);
        run(&job, how).unwrap();
        let (in_time, _) = model(&records, bound, 0);
        let (mut expected_bare, mut expected_ranked) = (vec![], vec![]);
        for (at, r) in in_time.iter().enumerate() {
            let of_key: Vec<_> = in_time[..=at].iter().filter(|o| o.0 == r.0).copied().collect();
            let (before, now) = (ranking(&of_key[..of_key.len() - 1], n), ranking(&of_key, n));
            let gone = before.iter().filter(|b| now.iter().all(|a| a.row != b.row));
            expected_bare.extend(gone.map(|b| Change::new(Kind::Delete, b.row)));
            let new = now.iter().filter(|a| before.iter().all(|b| a.row != b.row));
            expected_bare.extend(new.map(|a| Change::new(Kind::Insert, a.row)));
            for (rank, a) in now.iter().enumerate() {
                match before.get(rank) {
                    Some(b) if b == a => {}
                    Some(b) => expected_ranked.extend([Change::new(Kind::UpdateBefore, *b), Change::new(Kind::UpdateAfter, *a)]),
                    None => expected_ranked.push(Change::new(Kind::Insert, *a)),
                }
            }
        }
        let (bare, ranked) = (bare.take(), ranked.take());
        for key in 0..5 {
            prop_assert_eq!(of_key(&bare, key, |r| r.0), of_key(&expected_bare, key, |r| r.0));
            prop_assert_eq!(of_key(&ranked, key, |r| r.row.0), of_key(&expected_ranked, key, |r| r.row.0));
        }
    }

    #[test]
    fn a_changelog_takes_back_what_it_told(records in partitions(), how in wide_runs(), bound in 0i64..20) {
        let (sums, sums_sink) = collect();
        let (paths, paths_sink) = collect();
        let job = Job::new("changelog");
        let [one, two] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .fork();
        one.key_by(|r| r.0).changelog().running(|a| (a.count(), a.sum(|r| r.2))).sink(sums_sink);
        two.key_by(|r| r.0).in_event_time_order().changelog().fold(vec![], |path: &mut Vec<u64>, r| path.push(r.2)).sink(paths_sink);
        run(&job, how).unwrap();
        let sums = sums.take();
        let paths = paths.take();
        let (in_time, _) = model(&records, bound, 0);
        for key in 0..5 {
            let of_sums = of_key(&sums, key, |k: &Keyed<u8, (u64, u64)>| k.key);
            let mine: Vec<_> = records.concat().into_iter().filter(|r| r.0 == key).collect();
            let value = (mine.len() as u64, mine.iter().map(|r| r.2).sum());
            let expected = (!mine.is_empty()).then_some(Keyed { key, value });
            prop_assert_eq!(stands(&of_sums), Vec::from_iter(expected));
            prop_assert_eq!(of_sums.len(), (2 * mine.len()).saturating_sub(1));
            let numbers: Vec<_> = in_time.iter().filter(|r| r.0 == key).map(|r| r.2).collect();
            let mut expected = vec![];
            for n in 1..=numbers.len() {
                let row = |n| Keyed { key, value: numbers[..n].to_vec() };
                if n > 1 {
                    expected.push(Change::new(Kind::UpdateBefore, row(n - 1)));
                }
                let kind = if n > 1 { Kind::UpdateAfter } else { Kind::Insert };
                expected.push(Change::new(kind, row(n)));
            }
            prop_assert_eq!(of_key(&paths, key, |k| k.key), expected);
        }
    }
}

/// A ranking of nobody, or of too many.
#[test]
fn a_ranking_has_a_size() {
    for n in [0, 1_001] {
        let (_, sink) = collect();
        let job = Job::new("wrong");
        job.source(sources::items([1u64]))
            .key_by(|_| 0)
            .top(n, |r| *r)
            .sink(sink);
        let error = Stepper::new(&job, 1).map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("the {n} best records")), "{error}");
    }
}

/// Changes are no final rows, in no order: an append-only sink refuses them, and what counts them where their number is not fixed.
#[test]
fn changes_are_not_final() {
    for in_order in [false, true] {
        let job = Job::new("append");
        let keyed = job
            .source(sources::items([(1, 1, 1)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r: &Record| r.0);
        let sink = sink::callback("append", |_, _| {});
        match in_order {
            true => keyed.in_event_time_order().top(1, score).sink(sink),
            false => keyed.top(1, score).sink(sink),
        };
        let error = Stepper::new(&job, 1).map(drop).unwrap_err();
        assert!(
            matches!(error, BuildError::AppendOnReplaced { .. }),
            "{error}"
        );
    }
    let job = Job::new("counted");
    let (_, sink) = collect();
    job.source(sources::items([1u64]))
        .key_by(|r| *r)
        .changelog()
        .running(|a| a.count())
        .key_by(|c| c.row.value)
        .running(|a| a.count())
        .sink(sink);
    let error = Stepper::new(&job, 1).map(drop).unwrap_err();
    assert!(matches!(error, BuildError::CountsUpdates { .. }), "{error}");
}
