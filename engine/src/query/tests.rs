//! Reads against models: at a barrier under any schedule, and now.

use super::*;
use crate::checkpoint::Checkpointing;
use crate::process::{Ttl, list, reducing, value};
use crate::stream::Job;
use crate::testing::{self, Driver, FaultyDisk, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper};
use crate::{EventTime, Spans, Watermarks, sink};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;

type Transfer = (u8, u8, i64);

/// A query of a stepper, asked by hand: nothing is stepped for it.
struct ByHand<'a>(&'a [Answered]);

fn entries(answers: &[Answered], state: &Queryable) -> BTreeMap<u8, i64> {
    let query = Query::<u8, i64, ByHand<'_>> {
        way: ByHand(answers),
        state: state.clone(),
        space: KeySpace::new(1, 1),
        types: PhantomData,
    };
    let of = |answer| query.decoded::<u8>(answer).unwrap();
    answers.iter().flat_map(of).collect()
}

#[allow(private_interfaces)]
impl Way for ByHand<'_> {
    fn job(&self) -> &str {
        "by hand"
    }
    fn shards(&self) -> usize {
        self.0.len()
    }
    fn ask(
        &self,
        _: &Queryable,
        _: Vec<(usize, Asked, usize)>,
        _: ReadAt,
    ) -> Result<Vec<Answered>, QueryError> {
        unreachable!("nothing is asked")
    }
}

/// Law 3: shards take note of an ask at any moments, barriers of the job's own pass between, and what comes back is the balances after some
/// whole number of transfers, of each partition as many as its barrier lay behind; so they sum up to 0, and a model has them.
#[test]
fn at_a_barrier_all_shards_tell_of_the_same_records() {
    let (answered, midway) = (Cell::new(0), Cell::new(0));
    let script = prop::collection::vec((0u8..6, 0u8..6, 1i64..100), 1..80);
    let mut runner = proptest::test_runner::TestRunner::new(testing_config());
    let check = |(transfers, seed): (Vec<Transfer>, u64)| {
        let mut state = seed | 1;
        let mut below = |n: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) as usize) % n.max(1)
        };
        let shards = [1, 2, 3, 8][below(4)];
        let (feed, source) = testing::feed(1);
        transfers.iter().for_each(|&t| feed.push(0, t));
        feed.close(0);
        let job = Job::new("transfers");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        job.source(source)
            .flat_map(|(from, to, amount): Transfer| [(from, -amount), (to, amount)])
            .key_by(|t| t.0)
            .fold(0, |sum: &mut i64, t| *sum += t.1)
            .uid("balances")
            .sink(sink::callback("none", |_, _| {}).updates());
        let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
        let sizes = Sizes {
            batch_size: 1 + below(4),
            ring_capacity: 2,
            ..Sizes::shards(shards)
        };
        let mut stepper = Stepper::on_disk(&job, sizes, &OnDisk::small(&disk)).unwrap();
        let balances = stepper.queryable()[0].clone();
        // After each of the transfers, by their number.
        let mut models = vec![BTreeMap::<u8, i64>::new()];
        for (from, to, amount) in &transfers {
            let mut next = models[models.len() - 1].clone();
            *next.entry(*from).or_default() -= amount;
            *next.entry(*to).or_default() += amount;
            models.push(next);
        }
        while !stepper.all_done() {
            let mut some_steps = |stepper: &mut Stepper, most: usize| {
                for _ in 0..below(most) {
                    stepper.step(below(stepper.actors())).unwrap();
                    if below(8) == 0 {
                        stepper.advance_clock(1.millis());
                    }
                }
            };
            some_steps(&mut stepper, 200);
            let number = stepper.next_ask();
            let asks = (0..shards).map(|shard| {
                let asked = Asked::Scan { from: 0, most: 100 };
                (shard, asked, 4 << 10)
            });
            let (desk, asks) = asks_of(&balances, asks.collect(), number);
            for (shard, ask) in asks {
                stepper.ask(shard, ask);
                some_steps(&mut stepper, 40);
            }
            assert_eq!(desk.noted(), shards);
            stepper.asked(number.unwrap());
            let mut answers = vec![];
            while answers.len() < shards && !stepper.all_done() {
                some_steps(&mut stepper, 20);
                answers.extend(std::iter::from_fn(|| desk.take()));
            }
            if answers.len() < shards {
                break;
            }
            let epochs: Vec<_> = answers.iter().map(|a| a.epoch).collect();
            prop_assert!(epochs.iter().all(|e| *e == epochs[0]), "{epochs:?}");
            prop_assert!(answers.iter().all(|a| a.is_answered && a.is_all));
            let found = entries(&answers, &balances);
            let model = models.iter().position(|m| *m == found);
            prop_assert!(model.is_some(), "{found:?}");
            answered.set(answered.get() + 1);
            let is_midway = (1..transfers.len()).contains(&model.unwrap_or(0));
            midway.set(midway.get() + u32::from(is_midway));
        }
        Ok(())
    };
    runner.run(&(script, any::<u64>()), check).unwrap();
    assert!(answered.get() > 0 && midway.get() > 0, "none was midway");
}

fn testing_config() -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|c| c.parse().ok()).unwrap_or(64),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A driven job with each kind of state that can be asked, and some that cannot.
fn driven(shards: usize) -> (Driver, testing::Input<(u32, i64)>) {
    let mut t = Driver::new().shards(shards);
    let input = t.input::<(u32, i64)>("input");
    let (from, out) = (input.clone(), t.output("out"));
    t.job(move |job| {
        let [folded, told, kept, processed] = job
            .source(from.source())
            .event_time(|r| EventTime::from_seconds(r.1), Watermarks::monotonous())
            .fork();
        folded
            .key_by(|r| r.0)
            .fold(0u64, |n, _| *n += 1)
            .uid("counts")
            .map(|_| ())
            .sink(out.sink());
        told.key_by(|r| r.0)
            .changelog()
            .reduce(|sum, r| sum.1 += r.1)
            .uid("sums")
            .map(|_| ())
            .sink(out.sink());
        let texts = kept.map(|r| crate::Change::new(crate::change::Kind::UpdateAfter, r));
        let table = sink::Table::new("last");
        // Its uid is derived.
        texts.key_by(|c| c.row.0).materialize(&table);
        let states = (
            value::<String>("seen").ttl(Ttl::event_time(10.seconds())),
            list::<i64>("all"),
            reducing("most", |most: &mut i64, r: i64| *most = (*most).max(r)),
        );
        processed
            .key_by(|r| r.0)
            .process("watch", states)
            .each(|r, (seen, all, most), cx| {
                seen.set(format!("at {}", r.1));
                all.push(r.1);
                most.add(r.1);
                cx.emit(());
            })
            .sink(out.sink());
    })
    .unwrap();
    (t, input)
}

#[test]
fn each_kind_of_value_is_read() {
    for (shards, at) in [
        (1, ReadAt::Now),
        (2, ReadAt::Epoch),
        (3, ReadAt::Now),
        (8, ReadAt::Epoch),
    ] {
        let (mut t, input) = driven(shards);
        input.push_all([(1, 5), (2, 6), (1, 7), (3, 20)]);
        t.settle().unwrap();
        let keys = [1, 2, 3, 4];
        let counts = t.query::<u32, u64>("counts", "keyed").unwrap();
        assert_eq!(counts.get(&1), Ok(Some(2)));
        assert_eq!(counts.get(&4), Ok(None));
        let all = counts.get_all(&keys, at).unwrap();
        assert_eq!(all.of, [Some(2), Some(1), Some(1), None]);
        assert_eq!(all.epoch > Epoch(0), at == ReadAt::Epoch);
        let sums = t.query::<u32, (u32, i64)>("sums", "keyed").unwrap();
        let all = sums.get_all(&keys, at).unwrap().of;
        assert_eq!(all, [Some((1, 12)), Some((2, 6)), Some((3, 20)), None]);
        let uid = t.queryable_uid("materialize");
        let rows = t.query::<u32, (u32, i64)>(&uid, "rows").unwrap();
        assert_eq!(rows.get(&1), Ok(Some((1, 7))));
        let mut scan = rows.scan(10, at).unwrap().of;
        scan.entries.sort_unstable();
        assert_eq!(scan.entries, [(1, (1, 7)), (2, (2, 6)), (3, (3, 20))]);
        assert!(scan.is_complete);
        let most = t.query::<u32, i64>("watch", "most").unwrap();
        assert_eq!(most.get_all(&keys[..2], at).unwrap().of, [Some(7), Some(6)]);
        t.advance_watermark(EventTime::from_seconds(17)).unwrap();
        let seen = t.query::<u32, String>("watch", "seen").unwrap();
        assert_eq!(seen.get(&2), Ok(None), "it has lived its time");
        assert_eq!(seen.get(&3), Ok(Some("at 20".into())));
    }
}

/// An operator that has another within hands its asks on.
#[test]
fn what_lies_behind_an_order_or_beside_a_broadcast_is_read() {
    for at in [ReadAt::Now, ReadAt::Epoch] {
        let mut t = Driver::new().shards(2);
        let (input, rules) = (
            t.input::<(u32, i64)>("input"),
            t.input::<(u32, i64)>("rules"),
        );
        let (from, beside, out) = (input.clone(), rules.clone(), t.output("out"));
        t.job(move |job| {
            let [ordered, ruled] = job
                .source(from.source())
                .event_time(|r| EventTime::from_seconds(r.1), Watermarks::monotonous())
                .fork();
            ordered
                .key_by(|r| r.0)
                .in_event_time_order()
                .fold(0u64, |n, _| *n += 1)
                .uid("ordered")
                .map(|_| ())
                .sink(out.sink());
            let states = (
                value::<u64>("times"),
                crate::process::broadcast_map::<u32, i64>("rules"),
            );
            ruled
                .key_by(|r| r.0)
                .process("ruled", states)
                .connect_broadcast(job.source(beside.source()), |r, ((), rules)| {
                    rules.insert(r.0, r.1);
                })
                .each(|_, (times, _), cx| {
                    *times.or_default() += 1;
                    cx.emit(());
                })
                .sink(out.sink());
        })
        .unwrap();
        rules.push_all([(1, 1)]);
        input.push_all([(1, 5), (2, 6), (1, 7), (3, 20)]);
        t.settle().unwrap();
        t.advance_watermark(EventTime::from_seconds(30)).unwrap();
        let ordered = t.query::<u32, u64>("ordered", "keyed").unwrap();
        let all = ordered.get_all(&[1, 2, 4], at).unwrap().of;
        assert_eq!(all, [Some(2), Some(1), None]);
        let times = t.query::<u32, u64>("ruled", "times").unwrap();
        let all = times.get_all(&[1, 3, 4], at).unwrap().of;
        assert_eq!(all, [Some(2), Some(1), None]);
    }
}

#[test]
fn what_cannot_be_read_is_told() {
    let (mut t, _) = driven(2);
    let none = t.query::<u32, u64>("counts", "lost").map(drop).unwrap_err();
    let text = none.to_string();
    assert_eq!(none.code(), "PLT-0301");
    assert!(text.contains("no state 'lost' of 'counts'"), "{text}");
    for there in [
        "counts/keyed, materialize-",
        "/rows, sums/keyed, watch/most, watch/seen.",
    ] {
        assert!(text.contains(there), "{text}");
    }
    let other = t.query::<u32, u64>("watch", "seen").map(drop).unwrap_err();
    let text = other.to_string();
    assert!(
        text.contains("as (u32, u64), and it holds (u32, string)"),
        "{text}"
    );
    let keys = t.query::<u64, u64>("counts", "keyed").map(drop);
    let text = keys.unwrap_err().to_string();
    assert!(
        text.contains("as (u64, u64), and it holds (u32, u64)"),
        "{text}"
    );
    let counts = t.query::<u32, u64>("counts", "keyed").unwrap();
    let keys: Vec<u32> = (0..10_000).collect();
    let many = counts.get_all(&keys, ReadAt::Epoch).unwrap_err();
    assert_eq!(many.code(), "PLT-0304");
    let many = counts.scan(2_000, ReadAt::Epoch).unwrap_err();
    assert!(many.to_string().contains("2000 entries"), "{many}");
}

/// Texts by key, each as long as the lengths that came together.
fn driven_texts() -> (Driver, testing::Input<(u32, usize)>) {
    let mut t = Driver::new().shards(2);
    let input = t.input::<(u32, usize)>("input");
    let (from, out) = (input.clone(), t.output("out"));
    t.job(move |job| {
        job.source(from.source())
            .key_by(|r| r.0)
            .fold(String::new(), |text, r| text.push_str(&"x".repeat(r.1)))
            .uid("texts")
            .map(|_| ())
            .sink(out.sink());
    })
    .unwrap();
    (t, input)
}

/// More entries than a piece has, values longer than the room for one, and all of them longer than the room for many.
#[test]
fn what_is_large_is_read_in_pieces() {
    let (mut t, input) = driven_texts();
    let length = |key: u32| match key {
        7 => 600_000,
        _ => key as usize % 300,
    };
    input.push_all((0..5_000).map(|key| (key, length(key))));
    t.settle().unwrap();
    let texts = t.query::<u32, String>("texts", "keyed").unwrap();
    assert_eq!(texts.get(&7).unwrap().unwrap().len(), 600_000);
    let keys: Vec<u32> = (0..5_001).rev().collect();
    let all = texts.get_all(&keys, ReadAt::Now).unwrap().of;
    for (key, text) in keys.iter().zip(&all) {
        let expected = (*key < 5_000).then_some(length(*key));
        assert_eq!(text.as_ref().map(String::len), expected, "{key}");
    }
    let scan = texts.scan(10_000, ReadAt::Now).unwrap().of;
    let found: BTreeMap<u32, usize> = scan.entries.iter().map(|(k, v)| (*k, v.len())).collect();
    assert_eq!((scan.entries.len(), scan.is_complete), (5_000, true));
    assert_eq!(found, (0..5_000).map(|key| (key, length(key))).collect());
    let some = texts.scan(1_500, ReadAt::Now).unwrap().of;
    assert_eq!((some.entries.len(), some.is_complete), (1_500, false));
    // As of an epoch there is one piece.
    let (mut t, input) = driven_texts();
    input.push_all((0..100).map(|key| (key, 20_000)));
    t.settle().unwrap();
    let texts = t.query::<u32, String>("texts", "keyed").unwrap();
    let some = texts.scan(1_000, ReadAt::Epoch).unwrap().of;
    let most = 2 * ROOM / 20_000;
    assert_eq!((some.entries.len(), some.is_complete), (most, false));
    let keys: Vec<u32> = (0..100).collect();
    let large = texts.get_all(&keys, ReadAt::Epoch).unwrap_err();
    assert_eq!(large.code(), "PLT-0304");
    let few = texts.get_all(&keys[..10], ReadAt::Epoch).unwrap().of;
    assert!(
        few.iter()
            .all(|text| text.as_ref().is_some_and(|t| t.len() == 20_000))
    );
}

impl Driver {
    /// The uid of an operator of this kind, which was derived.
    fn queryable_uid(&mut self, kind: &str) -> String {
        let there = self.stepper().unwrap().queryable();
        let its = |q: &&Queryable| q.uid.starts_with(kind);
        there.iter().find(its).unwrap().uid.clone()
    }
}
