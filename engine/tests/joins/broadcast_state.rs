//! Process functions with a broadcast side.

use crate::support::Transactions;
use crate::world::{Ev, all_die, at, bound, cases, dying, script};
use pelton::process::{broadcast_map, value};
use pelton::testing::{
    self, FaultyDisk, FeedSource, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper,
};
use pelton::{Checkpointing, Job, Spans, Watermarks, sources};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// (key, number); a rule whose number is a multiple of 5 removes its key.
type Row = (u8, u32);
/// (key, number, times its key has come, what the map holds for the key, the map's keys).
type Told = (u8, u32, u32, Vec<u32>, Vec<u8>);

/// What a rule does to the map of a model.
fn rule(model: &mut BTreeMap<u8, Vec<u32>>, row: Row) {
    match row.1.is_multiple_of(5) {
        true => drop(model.remove(&row.0)),
        false => model.entry(row.0).or_default().push(row.1),
    }
}

fn write(
    job: &Job,
    (records, rules): (FeedSource<Row>, FeedSource<Row>),
    sink: impl pelton::sink::Sink<Told>,
) {
    let rules = job.source(rules).uid("rule source");
    job.source(records)
        .uid("records")
        .key_by(|r| r.0)
        .process(
            "ruled",
            (
                value::<u32>("times"),
                broadcast_map::<u8, Vec<u32>>("rules"),
            ),
        )
        .states_stay_few()
        // Each entry depends on all that have written it before, in their order.
        .connect_broadcast(rules, |row: &Row, ((), rules)| {
            if row.1.is_multiple_of(5) {
                rules.remove(&row.0);
                return;
            }
            let mut all = rules.get(&row.0).cloned().unwrap_or_default();
            all.push(row.1);
            rules.insert(row.0, all);
        })
        .each(|row, (times, rules), cx| {
            *times.or_default() += 1;
            let held = rules.get(&row.0).cloned().unwrap_or_default();
            assert_eq!(rules.contains(&row.0), !held.is_empty());
            let keys: Vec<u8> = rules.iter().map(|(key, _)| *key).collect();
            assert_eq!(
                (rules.len(), rules.is_empty()),
                (keys.len(), keys.is_empty())
            );
            let times = times.get().copied().unwrap_or_default();
            cx.emit((row.0, row.1, times, held, keys));
        })
        .sink(sink);
}

fn memory() -> SharedDisk {
    SharedDisk::new(FaultyDisk::new(MemoryDisk::new()))
}

/// Whatever number of shards each life has, each shard has the whole map as it was, with what a later life wrote and removed; and its
/// entries come in the order of their keys.
#[test]
fn every_shard_has_the_map_again_after_a_restart() {
    for lives in [[1, 3, 1], [3, 1, 8], [3, 3, 3], [8, 2, 3], [2, 8, 8]] {
        let disk = memory();
        let (records, _) = testing::feed::<Row>(8);
        let (rules, _) = testing::feed::<Row>(1);
        let ledger = Transactions::new();
        let (mut model, mut times) = (BTreeMap::new(), BTreeMap::new());
        let (mut number, mut expected) = (0, vec![]);
        for (life, shards) in lives.into_iter().enumerate() {
            let job = Job::new("broadcast");
            job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
            write(&job, (records.source(), rules.source()), ledger.clone());
            let on = OnDisk {
                sweep_bytes: 1 << 10,
                sweep_least: 3,
                ..OnDisk::small(&disk)
            };
            let mut stepper = Stepper::on_disk(&job, Sizes::shards(shards), &on).unwrap();
            assert_eq!(stepper.from().is_some(), life > 0);
            // Some keys a life, so that others are as an earlier one left them.
            for n in 0..60u32 {
                number += 1;
                let row = ((n * 7 + life as u32 * 31) as u8 % 40, number);
                rules.push(0, row);
                rule(&mut model, row);
            }
            stepper.until_idle().unwrap();
            let mut ask = |key: u8, number: &mut u32| {
                *number += 1;
                records.push(usize::from(key) % 8, (key, *number));
                let times = times.entry(key).or_insert(0);
                *times += 1;
                let held = model.get(&key).cloned().unwrap_or_default();
                let keys = model.keys().copied().collect();
                expected.push((key, *number, *times, held, keys));
            };
            // Keys on all shards.
            (0..50).for_each(|key| ask(key, &mut number));
            stepper.until_idle().unwrap();
            let before = stepper.checkpoints().completed;
            while stepper.checkpoints().completed < before + 2 {
                stepper.checkpoint();
                stepper.advance_clock(2.millis());
                stepper.until_idle().unwrap();
                // Something changes, or there is no epoch.
                ask(200, &mut number);
                stepper.until_idle().unwrap();
            }
        }
        let job = Job::new("broadcast");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        write(&job, (records.source(), rules.source()), ledger.clone());
        drop((records, rules));
        let mut stepper = Stepper::on_disk(&job, Sizes::shards(2), &OnDisk::small(&disk)).unwrap();
        stepper.run().unwrap();
        expected.sort();
        assert_eq!(ledger.visible(), expected, "{lives:?}");
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Rules of several partitions come in one order on every shard, those of a partition in theirs, whatever is stepped when.
    #[test]
    fn all_shards_have_one_order(
        shards in 1usize..5,
        batch_size in 1usize..9,
        turns in proptest::collection::vec(any::<u16>(), 1..200),
    ) {
        let (records, record_source) = testing::feed::<Row>(2);
        let (rules, rule_source) = testing::feed::<Row>(3);
        let (told, sink) = testing::collect();
        let job = Job::new("broadcast");
        write(&job, (record_source, rule_source), sink);
        let sizes = Sizes { batch_size, ring_capacity: 2, ..Sizes::shards(shards) };
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        // All write one entry; none removes it.
        let mut number = 0;
        for (step, turn) in turns.iter().enumerate() {
            if step % 3 == 0 {
                number += 1;
                rules.push(usize::from(*turn) % 3, (1, number * 5 + 1 + u32::from(*turn % 3)));
            }
            stepper.step(usize::from(*turn) % stepper.actors()).unwrap();
        }
        stepper.until_idle().unwrap();
        for key in 0..40 {
            records.push(0, (1 + 40 * (key % 6), u32::from(key)));
            records.push(1, (key, 100));
        }
        stepper.until_idle().unwrap();
        let told = told.take();
        let held: Vec<_> = told.iter().filter(|t| t.0 == 1).map(|t| t.3.clone()).collect();
        let first = &held[0];
        prop_assert!(held.iter().all(|h| h == first));
        prop_assert_eq!(first.len() as u32, number);
        for partition in 0..3 {
            let of = first.iter().filter(|n| (**n - 1) % 5 == partition);
            prop_assert!(of.is_sorted(), "{first:?}");
        }
        prop_assert!(told.iter().all(|t| t.4 == [1]), "each shard has it");
    }
}

/// Each shard has its own copy, and all are alike: the order that one entry was written in is told by keys of all shards.
#[test]
fn copies_are_alike_on_all_shards() {
    for seed in 0..20usize {
        let (records, record_source) = testing::feed::<Row>(1);
        let (rules, rule_source) = testing::feed::<u32>(4);
        let (told, sink) = testing::collect();
        let job = Job::new("broadcast");
        let rules_in = job.source(rule_source);
        job.source(record_source)
            .key_by(|r| r.0)
            .process("order", broadcast_map::<u8, Vec<u32>>("order"))
            .connect_broadcast(rules_in, |n: &u32, order| {
                let mut all = order.read().get(&0).cloned().unwrap_or_default();
                all.push(*n);
                order.insert(0, all);
            })
            .each(|_, order, cx| cx.emit(order.get(&0).cloned()))
            .sink(sink);
        let sizes = Sizes {
            batch_size: 2,
            ring_capacity: 2,
            ..Sizes::shards(4)
        };
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        let mut next = seed;
        for n in 0..80u32 {
            rules.push(n as usize % 4, n);
            next = (next * 31 + 17) % stepper.actors();
            stepper.step(next).unwrap();
        }
        stepper.until_idle().unwrap();
        (0..40).for_each(|key| records.push(0, (key, 0)));
        stepper.until_idle().unwrap();
        let told = told.take();
        assert_eq!(told.len(), 40);
        let first = told[0].clone().unwrap();
        assert_eq!(first.len(), 80);
        assert!(told.iter().all(|t| t.as_ref() == Some(&first)), "{seed}");
        for partition in 0..4 {
            assert!(first.iter().filter(|n| *n % 4 == partition).is_sorted());
        }
    }
}

/// Each record comes out once, with as many before it of its key as there were, and with what the map held at some time, whatever dies.
#[test]
fn each_record_once_whatever_dies() {
    all_die(script(), |script| {
        let (rows, deaths) = dying(script, |job, left, right, ledger: Transactions<_>| {
            let rules = job.source(right).uid("rule source");
            let states = (value::<u32>("times"), broadcast_map::<u8, u32>("rules"));
            job.source(left)
                .uid("records")
                .key_by(|l: &Ev| l.0)
                .process("ruled", states)
                .states_stay_few()
                .connect_broadcast(rules, |rule: &Ev, ((), rules)| {
                    rules.insert(rule.0, rule.1);
                })
                .each(|l, (times, rules), cx| {
                    *times.or_default() += 1;
                    let times = times.get().copied().unwrap_or_default();
                    cx.emit((l.1, l.0, times, rules.get(&l.0).copied()));
                })
                .sink(ledger);
        });
        let mut numbers: Vec<u32> = script.of(0).iter().map(|e| e.1).collect();
        numbers.sort_unstable();
        prop_assert_eq!(rows.iter().map(|r| r.0).collect::<Vec<_>>(), numbers);
        let mut times: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        for (_, key, time, held) in rows {
            times.entry(key).or_default().push(time);
            if let Some(held) = held {
                let known = script.of(1).iter().any(|r| r.0 == key && r.1 == held);
                prop_assert!(known, "{held} of {key}");
            }
        }
        for mut times in times.into_values() {
            times.sort_unstable();
            prop_assert!(
                times.iter().copied().eq(1..=times.len() as u32),
                "{times:?}"
            );
        }
        Ok(deaths)
    });
}

/// Timers fire although the stream of rules stands still, and its event times count for nothing.
#[test]
fn rules_hold_no_timer_back() {
    let (records, record_source) = testing::feed::<Ev>(1);
    let (rules, rule_source) = testing::feed::<Ev>(1);
    let (told, sink) = testing::collect();
    let job = Job::new("timers");
    let rules_in = job
        .source(rule_source)
        .event_time(at, Watermarks::monotonous());
    job.source(record_source)
        .event_time(at, Watermarks::bounded(bound()))
        .key_by(|r| r.0)
        .process("timers", broadcast_map::<u8, u32>("rules"))
        .on_timer(|_, rules, cx| cx.emit(rules.get(cx.key()).copied()))
        .connect_broadcast(rules_in, |r: &Ev, rules| rules.insert(r.0, r.1))
        .each(|_, _, cx| {
            cx.timer_at(cx.time() + 1.seconds());
        })
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    rules.push(0, (1, 7, 50));
    rules.push(0, (2, 8, 1));
    stepper.until_idle().unwrap();
    records.push(0, (1, 0, 100));
    records.push(0, (2, 0, 100));
    records.push(0, (3, 0, 100));
    records.push(0, (4, 0, 200));
    stepper.until_idle().unwrap();
    let mut fired = told.take();
    fired.sort_unstable();
    assert_eq!(fired, [None, Some(7), Some(8)]);
    assert_eq!(stepper.counters().invariant_broken, 0);
}

#[test]
fn the_builder_refuses_what_nobody_writes_or_reads() {
    let refused = |write: &dyn Fn(&Job)| {
        let job = Job::new("job");
        write(&job);
        let error = Stepper::new(&job, 1).map(drop).unwrap_err();
        assert_eq!(error.code(), "PLT-0001");
        error.to_string()
    };
    let keyed = |job: &Job| job.source(sources::items([(1u8, 1u32)])).key_by(|r| r.0);
    let error = refused(&|job| {
        keyed(job)
            .process::<_, ()>("p", broadcast_map::<u8, u32>("rules"))
            .each(|_, _, _| {})
            .sink(testing::collect().1);
    });
    assert!(
        error.contains("nothing writes its broadcast state 'rules'"),
        "{error}"
    );
    let error = refused(&|job| {
        let rules = job.source(sources::items([1u32]));
        keyed(job)
            .process::<_, ()>("p", value::<u32>("rules"))
            .connect_broadcast(rules, |_, ()| {})
            .each(|_, _, _| {})
            .sink(testing::collect().1);
    });
    assert!(error.contains("it has no broadcast state"), "{error}");
    let error = refused(&|job| {
        let rules = job.source(sources::items([1u32]));
        keyed(job)
            .connect(keyed(job))
            .process::<_, ()>("p", broadcast_map::<u8, u32>("rules"))
            .connect_broadcast(rules, |_, _| {})
            .each(|_, _, _| {})
            .sink(testing::collect().1);
    });
    assert!(error.contains("connected with another already"), "{error}");
    let error = refused(&|job| {
        let other = Job::new("other");
        let rules = other.source(sources::items([1u32]));
        keyed(job)
            .process::<_, ()>("p", broadcast_map::<u8, u32>("rules"))
            .connect_broadcast(rules, |_, _| {})
            .each(|_, _, _| {})
            .sink(testing::collect().1);
    });
    assert!(error.contains("streams of two jobs"), "{error}");
    let job = Job::new("job");
    let rules = job.source(sources::items([1u32]));
    keyed(&job)
        .process::<_, ()>("p", broadcast_map::<u8, u32>("rules"))
        .connect_broadcast(rules, |_, _| {})
        .each(|_, _, _| {})
        .sink(testing::collect().1);
    assert!(job.explain().contains("process 'p' at") && job.explain().contains("[EXEMPT]"));
}
