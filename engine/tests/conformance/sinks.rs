//! A sink with transactions keeps the laws, and what breaks one is caught.

use pelton::checkpoint::Epoch;
use pelton::sink::{self, CommitError, Transactional, Transactions};
use pelton::testing::{OnDisk, Sizes, Stepper, conformance};
use pelton::{Checkpointing, Config, Driver, Job, JobError, sources};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// Visible when it is written.
    AtOnce,
    /// Visible when it is prepared: before the decision.
    Early,
    /// A second commit shows the same again.
    Twice,
    /// Recovery discards nothing, and the next transaction of the shard takes it along.
    KeepsAll,
    /// Recovery discards what was decided: commits after a restart find nothing.
    Forgets,
    /// The commit does nothing.
    Idle,
    Nothing,
}

/// Somewhere that outlives the process: what is prepared, by shard and number, and what all can see.
#[derive(Debug, Default)]
struct Table {
    prepared: BTreeMap<(usize, u64), Vec<u64>>,
    done: Vec<(usize, u64)>,
    /// What recovery should have discarded.
    left: Vec<(usize, u64)>,
    visible: Vec<u64>,
    next: u64,
}

#[derive(Clone, Debug)]
struct ToTable {
    table: Arc<Mutex<Table>>,
    wrong: Wrong,
    shard: usize,
    number: u64,
}

impl Transactions<u64> for ToTable {
    fn open(&mut self, shard: usize) -> Result<(), String> {
        self.shard = shard;
        Ok(())
    }
    fn begin(&mut self) -> Result<(), String> {
        let mut table = self.table.lock().unwrap();
        let own = |&&(shard, number): &&(usize, u64)| {
            shard == self.shard && !table.done.contains(&(shard, number))
        };
        let left = table.left.iter().find(own).copied();
        table.next += 1;
        self.number = table.next;
        let rows = left.and_then(|key| table.prepared.remove(&key));
        table
            .prepared
            .insert((self.shard, self.number), rows.unwrap_or_default());
        Ok(())
    }
    fn batch(&mut self, records: &mut Vec<u64>) -> Result<(), String> {
        let mut table = self.table.lock().unwrap();
        if self.wrong == Wrong::AtOnce {
            table.visible.append(records);
        }
        let rows = table.prepared.get_mut(&(self.shard, self.number));
        rows.ok_or("no transaction was begun")?.append(records);
        Ok(())
    }
    fn pre_commit(&mut self, _: Epoch) -> Result<Vec<u8>, String> {
        let mut table = self.table.lock().unwrap();
        if self.wrong == Wrong::Early {
            let rows = table.prepared.remove(&(self.shard, self.number));
            table.visible.extend(rows.unwrap_or_default());
        }
        Ok(format!("{} {}", self.shard, self.number).into_bytes())
    }
    fn commit(&mut self, _: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        let text = String::from_utf8(prepared.to_vec()).unwrap();
        let (shard, number) = text.split_once(' ').unwrap();
        let key = (shard.parse().unwrap(), number.parse().unwrap());
        let mut table = self.table.lock().unwrap();
        let rows = match self.wrong {
            Wrong::Idle => None,
            Wrong::Twice => table.prepared.get(&key).cloned(),
            _ => table.prepared.remove(&key),
        };
        table.done.push(key);
        table.visible.extend(rows.unwrap_or_default());
        Ok(())
    }
    fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
        let mut table = self.table.lock().unwrap();
        match self.wrong {
            Wrong::KeepsAll => table.left = table.prepared.keys().copied().collect(),
            Wrong::Forgets => {
                table.visible.pop();
                table.prepared.clear();
            }
            _ => table.prepared.clear(),
        }
        Ok(())
    }
}

fn to(table: Arc<Mutex<Table>>, wrong: Wrong) -> Transactional<ToTable> {
    let handler = ToTable {
        table,
        wrong,
        shard: 0,
        number: 0,
    };
    sink::transactional("table", handler)
}

fn check(wrong: Wrong) -> Result<(), String> {
    let tables = RefCell::new(BTreeMap::<u64, Arc<Mutex<Table>>>::new());
    let table = |trial| tables.borrow_mut().entry(trial).or_default().clone();
    conformance::sink(
        |trial| to(table(trial), wrong),
        |trial| table(trial).lock().unwrap().visible.clone(),
    )
}

#[test]
fn a_sink_with_transactions_keeps_the_laws() {
    check(Wrong::Nothing).unwrap();
}

#[test]
fn a_wrong_sink_is_caught() {
    let laws = [
        (Wrong::AtOnce, "law 1"),
        (Wrong::Early, "law 1"),
        (Wrong::Twice, "law 2"),
        (Wrong::KeepsAll, "law 1"),
        (Wrong::Forgets, "law 2"),
        (Wrong::Idle, "law 2"),
    ];
    for (wrong, law) in laws {
        let what = check(wrong).expect_err(&format!("{wrong:?}"));
        assert!(what.contains(law), "{wrong:?}: {what}");
    }
}

#[test]
fn a_sink_that_is_not_of_two_phases_is_told() {
    let what = conformance::sink(|_| sink::callback("plain", |_: u64, _| {}), |_| vec![]);
    assert!(what.unwrap_err().contains("no committer"));
}

/// Counts what it is asked, and fails when it is told to.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>, bool);

impl Transactions<u64> for Asked {
    fn open(&mut self, shard: usize) -> Result<(), String> {
        self.0.lock().unwrap().push(format!("open {shard}"));
        Ok(())
    }
    fn begin(&mut self) -> Result<(), String> {
        self.0.lock().unwrap().push("begin".into());
        Ok(())
    }
    fn batch(&mut self, records: &mut Vec<u64>) -> Result<(), String> {
        self.0.lock().unwrap().push(format!("batch {records:?}"));
        match self.1 {
            true => Err("the table is full".into()),
            false => Ok(()),
        }
    }
    fn pre_commit(&mut self, _: Epoch) -> Result<Vec<u8>, String> {
        Ok(vec![])
    }
    fn commit(&mut self, _: Epoch, _: &[u8]) -> Result<(), CommitError> {
        Ok(())
    }
    fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_shards_handler_is_opened_with_its_first_records() {
    let asked = Asked::default();
    let job = Job::new("numbers");
    job.source(sources::items(0..3u64))
        .sink(sink::transactional("asked", asked.clone()));
    let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    job.checkpoints(Checkpointing::in_folder("in memory"));
    let sizes = Sizes::shards(2);
    let on = OnDisk::small(&disk);
    Stepper::on_disk(&job, sizes, &on).unwrap().run().unwrap();
    let asked = asked.0.lock().unwrap();
    assert_eq!(asked[..3], ["open 0", "begin", "batch [0, 1, 2]"]);
    assert!(!asked.contains(&"open 1".into()), "{asked:?}");
}

#[test]
fn in_a_job_without_checkpoints_a_sink_of_two_phases_is_refused() {
    let job = Job::new("numbers");
    job.source(sources::items(0..3u64))
        .sink(sink::transactional("asked", Asked::default()));
    let error = Stepper::new(&job, 1).unwrap_err();
    assert!(error.to_string().contains("the job takes none"), "{error}");
}

#[test]
fn what_a_handler_cannot_do_ends_the_job() {
    let job = Job::new("numbers");
    let handler = Asked(Arc::default(), true);
    job.source(sources::generate("numbers", 1_000_000, 1, |id| id))
        .sink(sink::transactional("asked", handler.clone()));
    let folder = std::env::temp_dir().join(format!("pelton-asked-{}", std::process::id()));
    job.checkpoints(Checkpointing::in_folder(&folder));
    let config = Config::default().shards(1).driver(Driver::Threads);
    let error = job.run(config).unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(error, JobError::Sink { .. }), "{error}");
    assert!(error.to_string().contains("the table is full"), "{error}");
    let batches = handler.0.lock().unwrap().len() - 2;
    assert_eq!(batches, 1, "nothing comes behind a failure");
}
