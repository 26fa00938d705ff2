//! The coordinator on a disk in memory, with shards and sinks that are played: whatever comes when, and whenever it all ends.
//!
//! Each share of an epoch may have something to commit: a number, in the order in which shares come. Then the laws are short. Numbers are
//! committed in their order, none before an epoch that has it is durable, and after a crash what is seen is what the last durable
//! epoch and all before it had.

use super::*;
use crate::aggregate::scramble::Dice;
use crate::checkpoint::uncommitted::Committed;
use crate::sink::CommitError;
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk, StateId, StoreConfig};

const MS: u64 = 1_000_000;
const SHARDS: usize = 2;

fn pace(max_uncommitted: usize) -> Pace {
    Pace {
        interval_ns: MS,
        timeout_ns: 8 * MS,
        end_timeout_ns: u64::MAX / 4,
        max_uncommitted,
        sweeps: Sweeps::of_segments(1 << 20),
    }
}

/// What happened, so that a test can say that something did.
#[derive(Debug, Default)]
struct Happened {
    crashes: u64,
    /// With several epochs uncommitted.
    crashes_behind: u64,
    /// Steps after which several were.
    overlaps: u64,
    waits: u64,
    given_up: u64,
    refused: u64,
    savepoints: u64,
    /// That had to wait for earlier epochs than their own.
    savepoints_behind: u64,
}

/// A process.
struct Life {
    coordinator: Coordinator,
    told: Arc<Told>,
    /// The coordinator's.
    handle: SharedDisk,
    /// The epoch whose shares are being given, and shards that have not.
    giving: (Epoch, Vec<usize>),
    /// What was asked for, and how many of it have been made.
    to_commit: Option<(ToCommit, usize)>,
    /// The number that was committed last.
    last: Option<u64>,
    /// Decided when savepoints were asked for that have not come.
    asked: VecDeque<Option<Epoch>>,
}

/// What outlives processes.
struct World {
    dice: Dice,
    k: usize,
    disk: SharedDisk,
    now_ns: u64,
    /// By number, the epoch whose share it came with.
    numbers: Vec<Epoch>,
    visible: BTreeMap<u64, ()>,
    /// One commit in so many is refused; none, if 0.
    refuses: usize,
    /// Each share has one number.
    plain: bool,
    happened: Happened,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        World {
            k: 1 + dice.below(4),
            refuses: [2, 3, 10][dice.below(3)],
            plain: false,
            dice,
            disk: SharedDisk::new(FaultyDisk::new(MemoryDisk::new())),
            now_ns: 0,
            numbers: vec![],
            visible: BTreeMap::new(),
            happened: Happened::default(),
        }
    }

    /// Numbers that came with epochs up to this one.
    fn up_to(&self, epoch: Option<Epoch>) -> Vec<u64> {
        let numbers = (0..).zip(&self.numbers);
        let of = numbers.filter(|(_, e)| Some(**e) <= epoch);
        of.map(|(n, _)| n).collect()
    }

    fn seen(&self) -> Vec<u64> {
        self.visible.keys().copied().collect()
    }

    /// A process starts: what the last durable epoch names is committed, and all else is gone.
    fn start(&mut self) -> Life {
        let mut handle = self.disk.handle();
        let config = StoreConfig {
            owner: 0,
            retained: 1 + self.dice.below(2),
            lineage_if_new: Lineage([7; 16]),
            direct: true,
        };
        let store = Store::open(&mut handle, config).unwrap();
        let last = store.last().cloned();
        let epoch = last.as_ref().map(|c| c.epoch);
        // Law 1: nothing was committed that could still be taken back.
        let seen = self.seen();
        assert!(seen.iter().all(|n| self.up_to(epoch).contains(n)));
        let mut before = None;
        for prepared in last.iter().flat_map(|c| Sections::prepared(c).unwrap()) {
            let number = number(&prepared);
            assert!(before < Some(number), "they are named in their order");
            before = Some(number);
            self.visible.insert(number, ());
        }
        // Law 2: what is named and what was committed before is all of it.
        assert_eq!(self.seen(), self.up_to(epoch), "after a restart");
        // What nobody decided on is discarded: it is as if it had come with an epoch that never is.
        for e in &mut self.numbers {
            if Some(*e) > epoch {
                *e = Epoch(u64::MAX);
            }
        }
        let told = Arc::new(Told::default());
        let sections = BTreeMap::new();
        let coordinator = Coordinator::new(
            store,
            told.clone(),
            pace(self.k),
            SHARDS,
            sections,
            self.now_ns,
        );
        Life {
            coordinator,
            told,
            handle,
            giving: (Epoch(0), vec![]),
            to_commit: None,
            last: None,
            asked: VecDeque::new(),
        }
    }

    fn step(&mut self, life: &mut Life) {
        let before = (life.coordinator.cut.epoch, life.told.holds());
        life.coordinator
            .step(self.now_ns, &mut life.handle)
            .unwrap();
        let coordinator = &life.coordinator;
        if coordinator.cut.epoch != before.0 {
            life.giving = (coordinator.cut.epoch, (0..SHARDS).collect());
        }
        let uncommitted = coordinator.uncommitted.len();
        assert!(uncommitted <= self.k, "law 9");
        self.happened.overlaps += u64::from(uncommitted > 1);
        self.happened.waits += u64::from(life.told.holds() && !before.1);
        if life.told.holds() {
            assert_eq!(uncommitted, self.k, "sources wait for nothing else");
            assert_eq!(coordinator.phase, Phase::Idle);
        } else if coordinator.phase == Phase::Idle && !coordinator.last {
            let due = self.now_ns >= coordinator.next_ns;
            assert!(!due || uncommitted < self.k, "law 9: sources wait");
        }
        self.take_savepoints(life);
    }

    fn take_savepoints(&mut self, life: &mut Life) {
        let decided = life.coordinator.store.last().map(|c| c.epoch);
        while let Some((pin, checkpoint, _)) = life.coordinator.take_savepoint() {
            let asked = life.asked.pop_front().expect("one for each");
            assert!(Some(checkpoint.epoch) >= asked, "it is of an earlier epoch");
            let seen = self.seen();
            let all = self.up_to(Some(checkpoint.epoch));
            assert!(all.iter().all(|n| seen.contains(n)), "law 7");
            self.happened.savepoints += 1;
            self.happened.savepoints_behind += u64::from(decided > Some(checkpoint.epoch));
            life.coordinator.unpin(pin);
        }
    }

    /// A shard's share of the epoch under way is durable.
    fn give(&mut self, life: &mut Life) {
        let Some(shard) = life.giving.1.pop() else {
            return;
        };
        let epoch = life.giving.0;
        let mut committables = vec![];
        let sinks = match self.plain {
            true => 1,
            false => self.dice.below(3) as u64,
        };
        for sink in 0..sinks {
            let number = self.numbers.len() as u64;
            self.numbers.push(epoch);
            committables.push((StateId(sink), number.to_le_bytes().to_vec()));
        }
        life.coordinator.event(Event::Sealed(Box::new(Share {
            shard,
            epoch,
            sealed: None,
            committables,
            swept: 0,
            bytes: 0,
            frames: 0,
            counted: vec![],
        })));
    }

    /// The thread of the commits does something: is asked, makes one commit, or tells what became of them.
    fn commit(&mut self, life: &mut Life) {
        let Some((what, done)) = life.to_commit.take() else {
            let asked = life.coordinator.next_commits(self.now_ns);
            life.to_commit = asked.map(|what| (what, 0));
            return;
        };
        let made = what.shares.get(done).map(|next| self.make(next, life));
        let failed = match made {
            Some(Ok(())) => {
                life.to_commit = Some((what, done + 1));
                return;
            }
            Some(Err(failed)) => Some(failed),
            None => None,
        };
        let outcome = Committed { done, failed };
        life.coordinator.committed(outcome, self.now_ns).unwrap();
    }

    fn make(&mut self, prepared: &Prepared, life: &mut Life) -> Result<(), (String, CommitError)> {
        let number = number(prepared);
        // Law 1. The store says what is durable.
        let decided = life.coordinator.store.last().map(|c| c.epoch);
        assert!(Some(prepared.epoch) <= decided, "law 1");
        if self.refuses > 0 && self.dice.below(self.refuses) == 0 {
            self.happened.refused += 1;
            let error = CommitError {
                what: "not now".into(),
                is_retryable: true,
            };
            return Err(("sink".into(), error));
        }
        assert!(life.last.replace(number) < Some(number), "law 2: in order");
        assert!(self.visible.insert(number, ()).is_none(), "once");
        Ok(())
    }

    /// Until a process ends; whether it came to its own end.
    fn live(&mut self, life: &mut Life, steps: usize) -> bool {
        for _ in 0..steps {
            match self.dice.below(16) {
                0..=3 => drop(self.disk.step()),
                4..=7 => self.step(life),
                8..=10 => self.give(life),
                11 | 12 => self.commit(life),
                13 => self.now_ns += [MS / 10, MS, 3 * MS, 60 * MS][self.dice.below(4)],
                14 if self.dice.below(4) == 0 => life.coordinator.want(),
                // Behind the last epoch no other comes that it could be of.
                15 if self.dice.below(8) == 0 && !life.coordinator.last => {
                    let decided = life.coordinator.store.last().map(|c| c.epoch);
                    life.asked.push_back(decided);
                    life.coordinator.savepoint();
                }
                _ => {}
            }
            if life.coordinator.is_over() {
                return true;
            }
        }
        false
    }

    /// The process dies, and the machine with it or not.
    fn crash(&mut self, life: Life) {
        self.happened.crashes += 1;
        self.happened.crashes_behind += u64::from(life.coordinator.uncommitted.len() > 1);
        self.happened.given_up += life.coordinator.figures.given_up;
        let left = match self.dice.below(3) {
            0 => self.disk.kill(),
            1 => self.disk.crash(|_| false),
            _ => self.disk.crash(|_| self.dice.below(2) == 0),
        };
        self.disk = SharedDisk::new(FaultyDisk::new(left));
    }
}

fn number(prepared: &Prepared) -> u64 {
    u64::from_le_bytes(prepared.bytes.as_slice().try_into().unwrap())
}

fn cases() -> u64 {
    let cases = std::env::var("PELTON_CASES").ok();
    cases.and_then(|c| c.parse().ok()).unwrap_or(FULL)
}

const FULL: u64 = 400;

#[test]
fn whatever_comes_when_epochs_are_decided_and_committed_in_order() {
    let mut all = Happened::default();
    for seed in 0..cases() {
        let mut world = World::new(seed);
        for _ in 0..1 + world.dice.below(4) {
            let mut life = world.start();
            let steps = world.dice.below(1500);
            world.live(&mut life, steps);
            world.crash(life);
        }
        let mut life = world.start();
        world.live(&mut life, 300);
        life.coordinator.stop(Stop::Keep, world.now_ns);
        assert!(world.live(&mut life, 200_000), "seed {seed}: it ends");
        let last = life.coordinator.store.last().map(|c| c.epoch);
        assert_eq!(world.seen(), world.up_to(last), "seed {seed}: all of it");
        assert!(life.asked.is_empty(), "seed {seed}: each savepoint came");
        assert!(life.coordinator.figures.uncommitted == 0 && !life.told.holds());
        let Happened {
            crashes,
            crashes_behind,
            overlaps,
            waits,
            given_up,
            refused,
            savepoints,
            savepoints_behind,
        } = world.happened;
        all.crashes += crashes;
        all.crashes_behind += crashes_behind;
        all.overlaps += overlaps;
        all.waits += waits;
        all.given_up += given_up;
        all.refused += refused;
        all.savepoints += savepoints;
        all.savepoints_behind += savepoints_behind;
    }
    println!("{all:?}");
    if cases() >= FULL {
        let each = [
            all.crashes,
            4 * all.crashes_behind,
            all.overlaps,
            all.waits,
            all.given_up,
            all.refused,
            all.savepoints,
            4 * all.savepoints_behind,
        ];
        assert!(each.iter().all(|n| *n >= FULL), "{all:?}");
    }
}

/// Steps until nothing moves but time.
fn settle(world: &mut World, life: &mut Life, commits: bool) {
    for _ in 0..50 {
        while world.disk.step() {}
        world.step(life);
        world.give(life);
        if commits {
            world.commit(life);
        }
    }
}

/// Law 9, and that a commit which does not come about keeps nobody from the epochs before that.
#[test]
fn epochs_go_on_without_their_commits_until_there_are_k() {
    for k in 1..=4 {
        let mut world = World::new(k as u64);
        (world.k, world.refuses, world.plain) = (k, 0, true);
        let mut life = world.start();
        for _ in 0..10 {
            world.now_ns += 2 * MS;
            settle(&mut world, &mut life, false);
        }
        let figures = &life.coordinator.figures;
        assert_eq!((figures.completed, figures.uncommitted as usize), (0, k));
        assert!(figures.waiting && life.told.holds() && figures.waits == 1);
        let Some(last) = life.coordinator.store.last() else {
            panic!("{k} are decided");
        };
        let named = Sections::prepared(last).unwrap();
        assert_eq!(named.len(), k * SHARDS, "law 2");
        // The sinks are back: all goes on.
        for _ in 0..10 {
            world.now_ns += 200 * MS;
            settle(&mut world, &mut life, true);
        }
        assert!(life.coordinator.figures.completed > k as u64);
        assert!(!life.told.holds());
    }
}

/// Law 3: what a commit waited for counts for nothing, what it took does.
#[test]
fn the_next_barrier_waits_for_what_commits_take_and_not_for_what_they_wait() {
    let mut world = World::new(1);
    (world.k, world.refuses, world.plain) = (8, 0, true);
    let mut life = world.start();
    world.now_ns = 2 * MS;
    settle(&mut world, &mut life, false);
    assert_eq!(life.coordinator.uncommitted.len(), 1);
    let began_ns = life.coordinator.began_ns;
    assert_eq!(life.coordinator.next_ns, began_ns + MS, "the interval");
    // It cannot be committed for long, and then takes a while.
    let asked = life.coordinator.next_commits(world.now_ns).unwrap();
    assert_eq!(asked.shares.len(), SHARDS);
    let not_now = CommitError {
        what: "not now".into(),
        is_retryable: true,
    };
    let refused = Committed {
        done: 1,
        failed: Some(("sink".into(), not_now)),
    };
    life.coordinator.committed(refused, world.now_ns).unwrap();
    assert!(life.coordinator.next_commits(world.now_ns).is_none());
    let again_ns = life.coordinator.uncommitted.ask_at().unwrap();
    let asked = life.coordinator.next_commits(again_ns).unwrap();
    assert_eq!(asked.shares.len(), SHARDS - 1, "what is done is done");
    assert!(life.coordinator.next_commits(again_ns).is_none(), "law 1");
    let done_ns = again_ns + 5 * MS;
    let done = Committed {
        done: 1,
        failed: None,
    };
    life.coordinator.committed(done, done_ns).unwrap();
    life.coordinator.take_committed(done_ns);
    assert_eq!(life.coordinator.next_ns, began_ns + 10 * MS);
}

/// Law 8: a sink that could not commit one epoch is not why another has not been written.
#[test]
fn what_is_late_is_not_laid_to_another_epoch() {
    let mut world = World::new(1);
    (world.k, world.refuses, world.plain) = (3, 0, true);
    let mut life = world.start();
    life.coordinator.pace.end_timeout_ns = 100 * MS;
    for _ in 0..2 {
        world.now_ns += 2 * MS;
        settle(&mut world, &mut life, false);
    }
    assert_eq!(life.coordinator.uncommitted.len(), 2);
    // The last epoch begins, and no share of it comes. The first one is committed meanwhile, and the second is refused.
    life.coordinator.stop(Stop::Keep, world.now_ns);
    world.step(&mut life);
    assert_eq!(life.coordinator.phase, Phase::Writing);
    world.now_ns += 60 * MS;
    let committed = |done, failed| Committed { done, failed };
    life.coordinator.next_commits(world.now_ns).unwrap();
    let all = committed(SHARDS, None);
    life.coordinator.committed(all, world.now_ns).unwrap();
    world.step(&mut life);
    life.coordinator.next_commits(world.now_ns).unwrap();
    let not_now = CommitError {
        what: "not now".into(),
        is_retryable: true,
    };
    let none = committed(0, Some(("sink".into(), not_now)));
    life.coordinator.committed(none, world.now_ns).unwrap();
    world.step(&mut life);
    assert!(life.coordinator.figures.retrying.is_some());
    world.now_ns += 60 * MS;
    let late = life.coordinator.step(world.now_ns, &mut life.handle);
    let Err(Failed::End { what, retrying, .. }) = late else {
        panic!("{late:?}");
    };
    assert_eq!((what, retrying), ("written", None));
}
