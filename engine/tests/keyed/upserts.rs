//! Upserts, sinks by key and tables, against models that keep all changes; with crashes, and on other numbers of shards.

use crate::{Record, config, partitions, run, time, wide_runs};
use pelton::change::{Change, Kind};
use pelton::checkpoint::Epoch;
use pelton::sink::{self, CommitError, Table, Upserts};
use pelton::testing::{
    self, Driver, FaultyDisk, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper, collect, conformance,
};
use pelton::{Checkpointing, Job, Keyed, Spans, Upsert, Watermarks, sources};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

fn applied<K: Ord, T>(upserts: impl IntoIterator<Item = Upsert<K, T>>) -> BTreeMap<K, T> {
    let mut rows = BTreeMap::new();
    for Upsert { key, row } in upserts {
        match row {
            Some(row) => rows.insert(key, row),
            None => rows.remove(&key),
        };
    }
    rows
}

/// By key, how often it came and the greatest number.
fn counts(records: &[Record]) -> BTreeMap<u8, (u64, u64)> {
    let mut counts = BTreeMap::<u8, (u64, u64)>::new();
    for r in records {
        let of = counts.entry(r.0).or_default();
        *of = (of.0 + 1, of.1.max(r.2));
    }
    counts
}

proptest! {
    #![proptest_config(config())]

    /// By the key of the changes; by one that changes with the row; and where a filter has taken out rows that others replaced, or were replaced by.
    #[test]
    fn what_upserts_leave_is_what_changes_leave(records in partitions(), how in wide_runs(), modulus in 2u64..4) {
        let (plain, plain_sink) = collect();
        let (moved, moved_sink) = collect();
        let (some, some_sink) = collect();
        let (ranked, ranked_sink) = collect();
        let job = Job::new("upserts");
        let [one, two] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(5.seconds()))
            .fork();
        let [a, b, c] = one.key_by(|r| r.0).changelog().running(|a| (a.count(), a.max(|r| r.2))).fork();
        a.key_by(|c| c.row.key).upserts().sink(plain_sink);
        b.key_by(move |c| (c.row.key, c.row.value.0 % modulus)).upserts().sink(moved_sink);
        c.filter(move |c| !c.row.value.0.is_multiple_of(modulus)).key_by(|c| c.row.key).upserts().sink(some_sink);
        two.key_by(|r| r.0).top_with_rank(3, |r| r.2).key_by(|c| (c.row.row.0, c.row.rank)).upserts().sink(ranked_sink);
        run(&job, how).unwrap();
        let all = records.concat();
        let counts = counts(&all);
        let expected: BTreeMap<_, _> = counts.iter().map(|(k, c)| (*k, Keyed { key: *k, value: *c })).collect();
        prop_assert_eq!(&applied(plain.take()), &expected);
        let by_parity = expected.iter().map(|(k, row)| ((*k, row.value.0 % modulus), row.clone()));
        prop_assert_eq!(applied(moved.take()), by_parity.collect());
        let odd = expected.iter().filter(|(_, row)| row.value.0 % modulus != 0);
        prop_assert_eq!(applied(some.take()), odd.map(|(k, row)| (*k, row.clone())).collect());
        let mut best = BTreeMap::new();
        for key in 0..5 {
            let mut numbers: Vec<_> = all.iter().filter(|r| r.0 == key).map(|r| r.2).collect();
            numbers.sort_unstable_by(|a, b| b.cmp(a));
            best.extend((1..).zip(numbers).take(3).map(|(rank, n)| ((key, rank), n)));
        }
        let ranked = applied(ranked.take()).into_iter().map(|(k, row)| (k, row.row.2));
        prop_assert_eq!(ranked.collect::<BTreeMap<_, _>>(), best);
    }
}

/// A change by its kind.
fn change(kind: Kind, key: u8, value: u64) -> Change<(u8, u64)> {
    Change::new(kind, (key, value))
}

/// One for one: a `-U` goes with its `+U`, and is a deletion without it.
#[test]
fn kinds_become_upserts() {
    use Kind::{Delete, Insert, UpdateAfter, UpdateBefore};
    let changes = [
        change(Insert, 1, 10),
        change(UpdateBefore, 1, 10),
        change(UpdateAfter, 1, 11),
        change(UpdateBefore, 1, 11),
        change(UpdateAfter, 2, 20),
        change(UpdateBefore, 2, 20),
        change(Insert, 2, 21),
        change(Delete, 2, 21),
        change(UpdateAfter, 3, 30),
        change(UpdateBefore, 3, 30),
    ];
    let (upserts, sink) = collect();
    let job = Job::new("kinds");
    job.source(sources::items(changes))
        .key_by(|c| c.row.0)
        .upserts()
        .map(|u| (u.key, u.row.map(|r| r.1)))
        .sink(sink);
    Stepper::new(&job, 1).unwrap().run().unwrap();
    let expected = [
        (1, Some(10)),
        (1, Some(11)),
        (1, None),
        (2, Some(20)),
        (2, None),
        (2, Some(21)),
        (2, None),
        (3, Some(30)),
        (3, None),
    ];
    assert_eq!(upserts.take(), expected);
}

/// Somewhere that outlives the process.
#[derive(Debug, Default)]
struct Database {
    prepared: BTreeMap<u64, Vec<(u64, Option<u64>)>>,
    rows: BTreeMap<u64, u64>,
    next: u64,
    /// How many changes it was told.
    told: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    /// Visible when it is told.
    Early,
    /// Deletions do nothing.
    NeverDeletes,
    /// What was prepared is lost at a recovery that comes before its commit.
    Idle,
}

#[derive(Clone, Debug)]
struct ToDatabase {
    database: Arc<Mutex<Database>>,
    changes: Vec<(u64, Option<u64>)>,
    wrong: Wrong,
}

impl Upserts<u64, u64> for ToDatabase {
    fn upsert(&mut self, key: u64, row: u64) -> Result<(), String> {
        let mut database = self.database.lock().unwrap();
        database.told += 1;
        if self.wrong == Wrong::Early {
            database.rows.insert(key, row);
        }
        self.changes.push((key, Some(row)));
        Ok(())
    }
    fn delete(&mut self, key: u64) -> Result<(), String> {
        self.database.lock().unwrap().told += 1;
        if self.wrong != Wrong::NeverDeletes {
            self.changes.push((key, None));
        } else {
            self.changes.push((key, Some(0)));
        }
        Ok(())
    }
    fn pre_commit(&mut self, _: Epoch) -> Result<Vec<u8>, String> {
        let mut database = self.database.lock().unwrap();
        database.next += 1;
        let number = database.next;
        let changes = std::mem::take(&mut self.changes);
        database.prepared.insert(number, changes);
        Ok(number.to_le_bytes().to_vec())
    }
    fn commit(&mut self, _: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        if self.wrong == Wrong::Idle {
            return Ok(());
        }
        let mut database = self.database.lock().unwrap();
        let number = u64::from_le_bytes(prepared.try_into().unwrap());
        for (key, row) in database.prepared.remove(&number).unwrap_or_default() {
            match row {
                Some(row) => database.rows.insert(key, row),
                None => database.rows.remove(&key),
            };
        }
        Ok(())
    }
    fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
        self.database.lock().unwrap().prepared.clear();
        Ok(())
    }
}

fn to(database: Arc<Mutex<Database>>, wrong: Wrong) -> ToDatabase {
    ToDatabase {
        database,
        changes: vec![],
        wrong,
    }
}

fn check(wrong: Wrong) -> Result<(), String> {
    let databases = RefCell::new(BTreeMap::<u64, Arc<Mutex<Database>>>::new());
    let database = |trial| databases.borrow_mut().entry(trial).or_default().clone();
    conformance::upserts(
        |trial| to(database(trial), wrong),
        |trial| {
            let rows = database(trial).lock().unwrap().rows.clone();
            rows.into_iter().collect()
        },
    )
}

#[test]
fn a_sink_by_key_keeps_the_laws_of_two_phases_and_a_wrong_one_is_caught() {
    check(Wrong::Nothing).unwrap();
    for (wrong, law) in [
        (Wrong::Early, "law 1"),
        (Wrong::NeverDeletes, "law 1"),
        (Wrong::Idle, "law 2"),
    ] {
        let what = check(wrong).expect_err(&format!("{wrong:?}"));
        assert!(what.contains(law), "{wrong:?}: {what}");
    }
}

/// Of a batch's changes of a key the last is told, and no other.
#[test]
fn changes_of_a_key_are_compacted() {
    let database = Arc::<Mutex<Database>>::default();
    let job = Job::new("counts");
    job.checkpoints(Checkpointing::in_folder("in memory"));
    job.source(sources::items((0..1_000u64).map(|n| n % 2)))
        .key_by(|n| *n)
        .changelog()
        .running(|a| a.count())
        .key_by(|c| c.row.key)
        .upserts()
        .map(|Upsert { key, row }| Upsert {
            key,
            row: row.map(|row| row.value),
        })
        .sink(sink::upserts(
            "database",
            to(database.clone(), Wrong::Nothing),
        ));
    let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let on = OnDisk::small(&disk);
    let mut stepper = Stepper::on_disk(&job, Sizes::shards(1), &on).unwrap();
    stepper.run().unwrap();
    let database = database.lock().unwrap();
    assert_eq!(database.rows, BTreeMap::from([(0, 500), (1, 500)]));
    assert!(database.told < 20, "{} of 1,000 were told", database.told);
}

/// Transfers between accounts: both sides of one are changes of keys that lie on different shards. So the sum of what readers see is 0 at
/// every moment, whatever dies, and at the end it is what the model says.
#[test]
fn a_table_shows_whole_epochs_of_all_shards_across_crashes() {
    type Transfer = (u8, u8, i64);
    let deaths = Cell::new(0);
    let looks = Cell::new(0);
    let transfer = (0u8..6, 0u8..6, 1i64..100);
    let script = prop::collection::vec(transfer, 1..60);
    let check = |(transfers, seed): (Vec<Transfer>, u64)| {
        let mut state = seed | 1;
        let mut below = |n: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) as usize) % n.max(1)
        };
        let (feed, _) = testing::feed(1);
        transfers.iter().for_each(|&t| feed.push(0, t));
        feed.close(0);
        let mut table = Table::<u8, (u8, i64)>::new("balances");
        let mut disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
        let mut lives = 0;
        loop {
            let job = Job::new("transfers");
            job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
            job.source(feed.source())
                .flat_map(|(from, to, amount): Transfer| [(from, -amount), (to, amount)])
                .key_by(|t| t.0)
                .changelog()
                .running(|a| a.sum(|t| t.1))
                // An account without money has no row.
                .filter(|c| c.row.value != 0)
                .map(|c| c.map(|row| (row.key, row.value)))
                .key_by(|c| c.row.0)
                .materialize(&table);
            let sizes = Sizes {
                batch_size: 1 + below(8),
                ring_capacity: 2,
                ..Sizes::shards([1, 2, 3, 8][below(4)])
            };
            let mut stepper = Stepper::on_disk(&job, sizes, &OnDisk::small(&disk)).unwrap();
            let most = 1 << (6 + below(6));
            let mut left = match lives {
                4 => usize::MAX,
                _ => below(most),
            };
            while !stepper.all_done() && left > 0 {
                left -= 1;
                stepper.step(below(stepper.actors())).unwrap();
                if below(16) == 0 {
                    stepper.advance_clock(1.millis());
                }
                let view = table.read();
                assert_eq!(view.iter().map(|(_, row)| row.1).sum::<i64>(), 0);
                assert_eq!(view.len(), view.iter().count());
                looks.set(looks.get() + u32::from(!view.is_empty()));
            }
            if stepper.all_done() {
                break;
            }
            drop(stepper);
            lives += 1;
            disk = SharedDisk::new(FaultyDisk::new(disk.crash(|_| below(2) == 0)));
            if below(2) == 0 {
                // Another process.
                table = Table::new("balances");
            }
        }
        deaths.set(deaths.get() + lives);
        let mut balances = BTreeMap::<u8, i64>::new();
        for (from, to, amount) in transfers {
            *balances.entry(from).or_default() -= amount;
            *balances.entry(to).or_default() += amount;
        }
        balances.retain(|_, sum| *sum != 0);
        let found: BTreeMap<u8, i64> = table.read().iter().map(|(k, row)| (*k, row.1)).collect();
        assert_eq!(found, balances);
        Ok(())
    };
    let mut runner = proptest::test_runner::TestRunner::new(config());
    runner.run(&(script, any::<u64>()), check).unwrap();
    assert!(deaths.get() > 0, "none died");
    assert!(looks.get() > 0, "nothing was seen on the way");
}

/// What is read before the first commit of a new process, and of a job that begins anew.
#[test]
fn a_table_is_filled_again_from_the_checkpoint() {
    let table = Rc::new(RefCell::new(Table::<u8, (u8, u64)>::new("sums")));
    let mut t = Driver::new().shards(2);
    let input = t.input::<(u8, u64)>("input");
    let (from, to) = (input.clone(), table.clone());
    t.job(move |job| {
        job.source(from.source())
            .key_by(|r| r.0)
            .changelog()
            .running(|a| a.sum(|r| r.1))
            .map(|c| c.map(|row| (row.key, row.value)))
            .key_by(|c| c.row.0)
            .materialize(&to.borrow());
    })
    .unwrap();
    let rows = || {
        let table = table.borrow().clone();
        let view = table.read();
        let rows: BTreeMap<u8, u64> = view.iter().map(|(k, row)| (*k, row.1)).collect();
        rows
    };
    input.push_all((0..20).map(|k| (k, 1)));
    t.settle().unwrap();
    assert_eq!(
        (table.borrow().len(), table.borrow().epoch()),
        (0, None),
        "nothing is committed"
    );
    t.checkpoint().unwrap();
    let all: BTreeMap<u8, u64> = (0..20).map(|k| (k, 1)).collect();
    assert_eq!(rows(), all);
    assert_eq!(table.borrow().get(&7), Some((7, 1)));
    assert_eq!(table.borrow().get(&77), None);
    input.push((7, 5));
    t.settle().unwrap();
    t.crash_and_restore_on(3).unwrap();
    t.settle().unwrap();
    assert_eq!(rows(), all, "what this process has committed stays");
    *table.borrow_mut() = Table::new("sums");
    t.crash_and_restore_on(1).unwrap();
    t.settle().unwrap();
    assert!(
        table.borrow().is_empty(),
        "another process has seen nothing"
    );
    t.checkpoint().unwrap();
    let mut all = all;
    all.insert(7, 6);
    assert_eq!(rows(), all, "all rows, not those that have changed since");
}

#[test]
fn a_table_is_one_streams() {
    let table = Table::<u8, (u8, u64)>::new("shared");
    let job = Job::new("two");
    job.checkpoints(Checkpointing::in_folder("in memory"));
    let changes = [change(Kind::Insert, 1, 1)];
    for _ in 0..2 {
        job.source(sources::items(changes))
            .key_by(|c| c.row.0)
            .materialize(&table);
    }
    let error = Stepper::new(&job, 1).map(drop).unwrap_err().to_string();
    let what = "table 'shared' is kept by another stream of this job";
    assert!(error.contains(what), "{error}");
    // Without checkpoints nothing is ever shown.
    let job = Job::new("one");
    job.source(sources::items(changes))
        .key_by(|c| c.row.0)
        .materialize(&table);
    let error = Stepper::new(&job, 1).map(drop).unwrap_err().to_string();
    assert!(error.contains("the job takes none"), "{error}");
}
