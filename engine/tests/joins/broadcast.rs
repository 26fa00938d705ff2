//! Broadcast joins.

use crate::support::Transactions;
use crate::world::{Ev, all_die, at, bound, dying, script};
use pelton::batch::Stamp;
use pelton::port::Ports;
use pelton::sink::{Sink, Writer};
use pelton::testing::{
    self, FaultyDisk, FeedSource, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper,
};
use pelton::{Checkpointing, Job, Spans, Tumbling, Watermarks};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// (key, number); a row whose number is a multiple of 5 removes its key.
type Row = (u8, u32);

fn removes(row: &Row) -> bool {
    row.1.is_multiple_of(5)
}

fn write(
    job: &Job,
    (records, table): (FeedSource<Row>, FeedSource<Row>),
    sink: impl Sink<(u8, u32, Option<u32>)>,
) {
    let records = job.source(records).uid("records");
    let table = job.source(table).uid("table");
    records
        .broadcast_join(table.key_by(|r| r.0), |r| r.0)
        .removes(removes)
        .uid("names")
        .left_outer(|l, r| (l.0, l.1, r.map(|r| r.1)))
        .sink(sink);
}

fn memory() -> SharedDisk {
    SharedDisk::new(FaultyDisk::new(MemoryDisk::new()))
}

/// Whatever number of shards each life has, each shard has the whole table as it was, with what a later life changed and removed.
#[test]
fn every_shard_has_the_table_again_after_a_restart() {
    for lives in [[1, 3, 1], [3, 1, 8], [3, 3, 3], [8, 2, 3], [2, 8, 8]] {
        let disk = memory();
        let (records, _) = testing::feed::<Row>(8);
        let (table, _) = testing::feed::<Row>(3);
        let ledger = Transactions::new();
        let mut model = BTreeMap::new();
        let mut number = 0;
        let mut asked = vec![];
        for (life, shards) in lives.into_iter().enumerate() {
            let job = Job::new("broadcast");
            job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
            write(&job, (records.source(), table.source()), ledger.clone());
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
                let row = ((n * 7 + life as u32 * 31) as u8 % 90, number);
                table.push(usize::from(row.0) % 3, row);
                match removes(&row) {
                    true => model.remove(&row.0),
                    false => model.insert(row.0, row.1),
                };
            }
            stepper.until_idle().unwrap();
            // Of every shard, each key.
            for (partition, key) in (0..8).flat_map(|p| (0..100u8).map(move |key| (p, key))) {
                number += 1;
                records.push(partition, (key, number));
                asked.push((key, number, model.get(&key).copied()));
            }
            stepper.until_idle().unwrap();
            let before = stepper.checkpoints().completed;
            while stepper.checkpoints().completed < before + 2 {
                stepper.checkpoint();
                stepper.advance_clock(2.millis());
                stepper.until_idle().unwrap();
                // Something changes, or there is no epoch.
                number += 1;
                records.push(0, (200, number));
                asked.push((200, number, None));
            }
        }
        let job = Job::new("broadcast");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        write(&job, (records.source(), table.source()), ledger.clone());
        drop((records, table));
        let mut stepper = Stepper::on_disk(&job, Sizes::shards(2), &OnDisk::small(&disk)).unwrap();
        stepper.run().unwrap();
        asked.sort();
        assert_eq!(ledger.visible(), asked, "{lives:?}");
    }
}

/// Each record comes out once, with what the table held at some time, whatever dies.
#[test]
fn each_record_once_whatever_dies() {
    all_die(script(), |script| {
        let (rows, deaths) = dying(script, |job, left, right, ledger: Transactions<_>| {
            let left = job.source(left).uid("records");
            let right = job.source(right).uid("table");
            left.broadcast_join(right.key_by(|r: &Ev| r.0), |l: &Ev| l.0)
                .uid("names")
                .left_outer(|l, r| (l.1, l.0, r.map(|r| (r.0, r.1))))
                .sink(ledger);
        });
        let mut numbers: Vec<u32> = script.of(0).iter().map(|e| e.1).collect();
        numbers.sort_unstable();
        prop_assert_eq!(rows.iter().map(|r| r.0).collect::<Vec<_>>(), numbers);
        for (_, key, held) in rows {
            prop_assert!(held.is_none_or(|(of, _)| of == key));
        }
        Ok(deaths)
    });
}

/// A table without event times that never ends holds no window back, and one with event times of long ago neither.
#[test]
fn a_table_holds_no_watermark_back() {
    for timed in [false, true] {
        let (records, source) = testing::feed::<Ev>(2);
        let (table, rows) = testing::feed::<Ev>(1);
        let (counts, sink) = testing::collect();
        let job = Job::new("windows");
        let source = job
            .source(source)
            .event_time(at, Watermarks::bounded(bound()));
        let joined = match timed {
            false => {
                let table = job.source(rows).key_by(|r| r.0);
                let joined = source.broadcast_join(table, |l| l.0);
                joined.inner(|l, r| (l.0, r.1)).rebalance()
            }
            true => {
                let table = job.source(rows).event_time(at, Watermarks::monotonous());
                let joined = source.broadcast_join(table.key_by(|r| r.0), |l| l.0);
                joined.inner(|l, r| (l.0, r.1)).rebalance()
            }
        };
        joined
            .key_by(|r| r.0)
            .window(Tumbling::of(10.seconds()))
            .aggregate(|a| a.count())
            .sink(sink);
        let mut stepper = Stepper::new(&job, 2).unwrap();
        table.push(0, (1, 7, 50));
        // Below the first: behind, if the table's time counted.
        table.push(0, (2, 8, 1));
        stepper.until_idle().unwrap();
        for partition in 0..2 {
            records.push(partition, (1, 1, 101));
            records.push(partition, (2, 1, 102));
            records.push(partition, (1, 1, 131));
        }
        stepper.until_idle().unwrap();
        let fired = counts.take();
        assert_eq!(fired.len(), 2, "{fired:?}");
        assert!(fired.iter().all(|w| w.value == 2));
        // A row that comes late holds nothing back either.
        table.push(0, (1, 9, 2));
        records.push(0, (1, 1, 161));
        records.push(1, (1, 1, 161));
        stepper.until_idle().unwrap();
        assert_eq!(counts.take().len(), 1);
        assert_eq!(stepper.counters().invariant_broken, 0);
    }
}

#[test]
fn what_is_broadcast_comes_to_every_shard() {
    let job = Job::new("all");
    let (seen, sink) = testing::collect();
    job.source(pelton::sources::items([1, 2, 3]))
        .broadcast()
        .sink(sink);
    Stepper::new(&job, 3).unwrap().run().unwrap();
    let mut seen = seen.take();
    seen.sort_unstable();
    assert_eq!(seen, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
}

/// When all else has ended, time has: what waits behind the join comes out although the table goes on.
#[test]
fn a_table_that_goes_on_keeps_no_window_open() {
    let (records, source) = testing::feed::<Ev>(1);
    let (table, rows) = testing::feed::<Ev>(1);
    let (counts, sink) = testing::collect();
    let job = Job::new("windows");
    job.source(source)
        .event_time(at, Watermarks::monotonous())
        .broadcast_join(job.source(rows).key_by(|r| r.0), |l| l.0)
        .inner(|l, _| *l)
        .key_by(|e| e.0)
        .window(Tumbling::of(10.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    table.push(0, (1, 7, 50));
    stepper.until_idle().unwrap();
    records.push(0, (1, 1, 101));
    records.close(0);
    stepper.until_idle().unwrap();
    assert_eq!(counts.take().len(), 1);
    assert_eq!(
        stepper.counters().behind,
        0,
        "the table's rows are not behind"
    );
    assert!(!stepper.all_done());
}

/// Keeps with each record the shard that it came to.
#[derive(Clone, Default)]
struct ByShard(Arc<Mutex<Seen>>);

type Seen = Vec<(usize, (u64, u64))>;

struct OfShard(ByShard, usize);

impl Sink<(u64, u64)> for ByShard {
    type Writer = OfShard;
    fn name(&self) -> String {
        "by shard".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<OfShard>, String> {
        let writer = |shard| OfShard(self.clone(), shard);
        Ok((0..ports.shards()).map(writer).collect())
    }
}

impl Writer<(u64, u64)> for OfShard {
    fn write(&mut self, record: (u64, u64), _: Stamp) {
        self.0.0.lock().unwrap().push((self.1, record));
    }
}

/// Records go where they are sent, by the number modulo the shards, and those of one number in their order.
#[test]
fn a_partitioner_of_ones_own() {
    for shards in [1usize, 2, 3] {
        let job = Job::new("own");
        let seen = ByShard::default();
        let records = (0..300u64).map(|n| (n % 7, n));
        job.source(pelton::sources::items(records))
            .partition_by(|r| r.0)
            .sink(seen.clone());
        Stepper::new(&job, shards).unwrap().run().unwrap();
        let seen = seen.0.lock().unwrap();
        assert_eq!(seen.len(), 300);
        for &(shard, (number, _)) in seen.iter() {
            assert_eq!(number as usize % shards, shard);
        }
        for number in 0..7 {
            let of = seen.iter().filter(|(_, r)| r.0 == number);
            assert!(of.map(|(_, r)| r.1).is_sorted());
        }
    }
}

/// (time, key, number)
type Timed = (i64, u32, u32);

/// Records whose times go back and forth, some of them late, of four partitions.
fn timed(keys: u32) -> Vec<Vec<Timed>> {
    let record = |p: u32, n: u32| {
        let r = (n * 4 + p).wrapping_mul(0x9E37_79B9) >> 8;
        (
            i64::from(n / 6) - i64::from(r % 13),
            r / 13 % keys,
            n * 4 + p,
        )
    };
    let partition = |p| (0..500).map(|n| record(p, n)).collect();
    (0..4).map(partition).collect()
}

/// The rows of a table of so many keys with records, in the order of event time, and those that are late for a window; and the same of the
/// records alone.
fn in_order(keys: u32, sizes: Sizes) -> [(Vec<Timed>, Vec<Timed>); 2] {
    [true, false].map(|is_joined| {
        let (ordered, ordered_sink) = testing::collect();
        let (late, late_sink) = testing::collect();
        let (counts, counts_sink) = testing::collect();
        let (feed, records) = testing::feed::<Timed>(4);
        let (table, rows) = testing::feed::<(u32, u32)>(2);
        let job = Job::new("marks and origins");
        let at = |r: &Timed| pelton::EventTime::from_micros(r.0);
        let records = job
            .source(records)
            .event_time(at, Watermarks::bounded(3.micros()));
        let rows = job.source(rows);
        macro_rules! rest {
            ($records:expr) => {{
                let [to_order, to_window] = $records.fork();
                to_order.in_event_time_order().records().sink(ordered_sink);
                to_window
                    .key_by(|r| r.1)
                    .window(Tumbling::of(4.micros()))
                    .late_to(late_sink)
                    .aggregate(|a| a.count())
                    .sink(counts_sink);
            }};
        }
        if is_joined {
            rest!(
                records
                    .broadcast_join(rows.key_by(|r| r.0), |r| r.1)
                    .left_outer(|r, row| {
                        // Every third key has no row.
                        let expected = (r.1 % 3 > 0).then(|| r.1 + 7);
                        assert_eq!(row.map(|row| row.1), expected);
                        *r
                    })
            );
        } else {
            rows.sink(pelton::sink::callback("none", |_, _| {}));
            rest!(records.map(|r| r));
        }
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        for key in (0..keys).filter(|key| key % 3 > 0) {
            table.push(key as usize % 2, (key, key + 7));
        }
        drop(table);
        stepper.until_idle().unwrap();
        for (p, records) in timed(keys).into_iter().enumerate() {
            records.into_iter().for_each(|r| feed.push(p, r));
        }
        drop(feed);
        stepper.run().unwrap();
        assert_eq!(stepper.counters().invariant_broken, 0);
        let mut late = late.take();
        late.sort();
        let counted: u64 = counts.take().iter().map(|w| w.value).sum();
        assert_eq!(counted as usize + late.len(), 4 * 500);
        (ordered.take(), late)
    })
}

/// Small tables are looked up as records come, large ones many at a time; either way a record's time, mark and origin go with it.
#[test]
fn marks_and_origins_go_along_whatever_the_size_of_the_table() {
    for keys in [1, 50, 20_000] {
        for shards in [1, 3] {
            for batch_size in [1, 7, 300] {
                let sizes = Sizes {
                    batch_size,
                    ..Sizes::shards(shards)
                };
                let [joined, alone] = in_order(keys, sizes);
                assert!(!alone.1.is_empty() && alone.0.len() < 4 * 500);
                assert_eq!(joined, alone, "{keys} keys, {shards} shards");
            }
        }
    }
}
