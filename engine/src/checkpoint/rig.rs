//! For tests: an operator on a few shards, driven by hand, that takes checkpoints, crashes and goes on from them.
//!
//! The same script goes to two worlds. One is never stopped and keeps nothing. The other passes barriers at random, has its
//! states written in random pieces, between records and in the middle of what a watermark causes, and now and then loses
//! everything but the frames of its last whole epoch: then new operators, maybe on another number of shards, are made from
//! these, what came out since that epoch's barrier is forgotten, and the script goes on from there. What has come out in the end
//! must be the same.

use super::frames::{PIECE_BYTES, TakeFrames};
use super::{Cut, Epoch, Frame, Saved, Snapshot};
use crate::aggregate::scramble::Dice;
use crate::batch::{Batch, Origin, Stamp};
use crate::change::Change;
use crate::key::KeySpace;
use crate::pipeline::MakeOperator;
use crate::plan::{Plan, PlanConfig, Results};
use crate::push::{Control, Cx, OpId, Push};
use crate::running::Keyed;
use crate::stage::operator::Operator;
use crate::time::EventTime;
use crate::window::{Firing, Windowed};
use pelton_storage::{BlockHead, Frames, Refused, Room, StateId};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::Location;

const GROUPS: u32 = 16;

/// (time, key, value)
pub(super) type Record = (i64, u8, i64);

/// What happens to an operator, whatever becomes of it.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Records, each with its V if it is behind that.
    Batch(Vec<(Record, Option<i64>)>),
    Watermark(i64),
}

/// A step, and the clock at it, microseconds.
pub(super) type Script = Vec<(i64, Step)>;

/// What records come, and when: the laws of time hold (M <= V, and who is below V says so).
pub(super) fn script(seed: u64, keys: usize, spread: usize) -> Script {
    let mut dice = Dice::new(seed);
    let (mut clock, mut m) = (1_000_000, 1_000);
    let mut script = vec![];
    for _ in 0..10 + dice.below(50) {
        clock += (dice.below(4) * dice.below(30)) as i64;
        let step = if dice.below(3) == 0 {
            let far = if dice.below(8) == 0 { 12 } else { 1 };
            m += dice.below(far * spread / 2 + 1) as i64;
            Step::Watermark(m)
        } else {
            let most = if dice.below(6) == 0 { 200 } else { 12 };
            let count = dice.below(most);
            Step::Batch(
                (0..count)
                    .map(|_| record(&mut dice, m, keys, spread))
                    .collect(),
            )
        };
        script.push((clock, step));
    }
    clock += 1_000_000;
    script.push((clock, Step::Watermark(m + 100 * spread as i64)));
    clock += 1_000_000;
    script.push((clock, Step::Watermark(EventTime::END.micros())));
    script
}

fn record(dice: &mut Dice, m: i64, keys: usize, spread: usize) -> (Record, Option<i64>) {
    let v = m + dice.below(spread / 4 + 1) as i64;
    let time = v + dice.below(2 * spread) as i64 - dice.below(spread) as i64;
    let record = (time, dice.below(keys) as u8, dice.below(100) as i64);
    (record, (time < v).then_some(v))
}

/// A result: key, window, value, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub key: u8,
    pub window: (i64, i64),
    pub value: String,
    pub firing: Firing,
    pub time: i64,
}

/// What can be told of a result of an operator.
pub(super) trait Told: 'static {
    fn row(self, time: i64) -> Row;
}

impl<V: Debug + 'static> Told for Keyed<u8, V> {
    fn row(self, time: i64) -> Row {
        Row {
            key: self.key,
            window: (0, 0),
            value: format!("{:?}", self.value),
            firing: Firing::Update,
            time,
        }
    }
}

impl Told for Record {
    fn row(self, time: i64) -> Row {
        let (key, value) = (self.1, self);
        Keyed { key, value }.row(time)
    }
}

impl<V: Debug + 'static> Told for (Record, V) {
    fn row(self, time: i64) -> Row {
        let (key, value) = (self.0.1, self);
        Keyed { key, value }.row(time)
    }
}

impl Told for Result<Record, Record> {
    fn row(self, time: i64) -> Row {
        let key = self.unwrap_or_else(|refused| refused).1;
        Keyed { key, value: self }.row(time)
    }
}

impl<V: Debug + 'static> Told for Change<V> {
    fn row(self, time: i64) -> Row {
        Keyed {
            key: 0,
            value: self,
        }
        .row(time)
    }
}

impl<V: Debug + 'static> Told for Windowed<u8, V> {
    fn row(self, time: i64) -> Row {
        Row {
            key: self.key,
            window: (self.window.start.micros(), self.window.end.micros()),
            value: format!("{:?}", self.value),
            firing: self.firing,
            time,
        }
    }
}

/// What comes out.
struct Rows<'a> {
    rows: &'a mut Vec<Row>,
    blocked: bool,
}

impl<T: Told> Push<T> for Rows<'_> {
    fn push(&mut self, record: T, stamp: Stamp, _: &mut Cx) {
        self.rows.push(record.row(stamp.time.micros()));
    }
    fn control(&mut self, _: Control, _: &mut Cx) {}
    fn blocked(&self) -> bool {
        self.blocked
    }
}

/// A frame that was written.
struct Written {
    epoch: Epoch,
    state: StateId,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// A log that takes so many more frames and is busy then.
struct Log<'a> {
    frames: &'a mut Vec<Written>,
    room: usize,
    /// What was written last: a frame, or nothing if there turned out to be too little room for it.
    last: Vec<u8>,
    end: usize,
    taken: u32,
    head: Option<BlockHead>,
}

impl Log<'_> {
    /// Reads what was written last.
    fn read(&mut self) {
        let Some(head) = self.head.take() else { return };
        for frame in Frames::of(&self.last[..self.end], self.taken, head.epoch) {
            let frame = frame.expect("what was written can be read");
            self.frames.push(Written {
                epoch: frame.epoch,
                state: head.state,
                key: frame.key.to_vec(),
                value: frame.value.map(<[u8]>::to_vec),
            });
        }
        (self.end, self.taken) = (0, 0);
    }
}

impl TakeFrames for Log<'_> {
    fn room(&mut self, head: &BlockHead, len: u64) -> Result<Room<'_>, Refused> {
        self.read();
        if self.room == 0 {
            return Err(Refused::Busy);
        }
        self.room -= 1;
        self.head = Some(*head);
        // What was there before does not matter.
        self.last = vec![0xA5; len as usize];
        Ok(Room::new(&mut self.last, &mut self.end, &mut self.taken))
    }
}

/// An operator on one shard.
struct Machine<Op> {
    op: Op,
    cx: Cx,
    frames: Vec<Written>,
    /// The epoch that is being written.
    writing: Option<Cut>,
    /// The sweep that it is through with: of the epoch under way, or of the last one.
    swept: u64,
}

impl<Op: Operator<Record, Out: Told>> Machine<Op> {
    fn barrier(&mut self, cut: Cut) {
        self.op.begin_epoch(cut);
        (self.writing, self.swept) = (Some(cut), cut.sweep);
    }

    /// Writes a piece of the epoch under way.
    fn save(&mut self, room: usize) {
        let Some(cut) = self.writing else { return };
        let mut log = Log {
            frames: &mut self.frames,
            room,
            last: vec![],
            end: 0,
            taken: 0,
            head: None,
        };
        let (mut failure, mut prepared) = (None, vec![]);
        let (left, now_ns) = (PIECE_BYTES, self.cx.now_ns);
        let mut to = Snapshot::new(cut, &mut log, &mut failure, &mut prepared, left, now_ns);
        let saved = self.op.save(&mut to);
        self.swept = self.swept.min(to.swept());
        log.read();
        if saved == Saved::All {
            self.writing = None;
        }
    }

    fn save_sometimes(&mut self, dice: &mut Dice) {
        if dice.below(3) == 0 {
            self.save(dice.below(6));
        }
    }

    fn resume(&mut self, rows: &mut Vec<Row>, dice: &mut Dice) {
        let mut pieces = 0;
        loop {
            let mut out = Rows {
                rows,
                blocked: false,
            };
            if self.op.resume(&mut out, &mut self.cx) {
                return;
            }
            self.save_sometimes(dice);
            pieces += 1;
            assert!(pieces < 100_000, "it comes to no end");
        }
    }

    fn tick(&mut self, rows: &mut Vec<Row>, dice: &mut Dice) {
        if self.op.wake_at().is_some_and(|at| at <= self.cx.now_ns) {
            let mut out = Rows {
                rows,
                blocked: false,
            };
            self.op.tick(&mut out, &mut self.cx);
            self.resume(rows, dice);
        }
    }

    fn batch(&mut self, mut batch: Batch<Record>, rows: &mut Vec<Row>, dice: &mut Dice) {
        while !batch.is_empty() {
            let blocked = dice.below(2) == 0;
            let mut out = Rows { rows, blocked };
            self.op.batch(&mut batch, &mut out, &mut self.cx);
            self.save_sometimes(dice);
        }
    }

    fn watermark(&mut self, time: i64, rows: &mut Vec<Row>, dice: &mut Dice) {
        let mut out = Rows {
            rows,
            blocked: false,
        };
        let time = EventTime::from_micros(time);
        self.op.watermark(time, &mut out, &mut self.cx);
        self.resume(rows, dice);
    }
}

/// What the shards of one attempt wrote that still counts.
struct Attempt {
    logs: Vec<Vec<Written>>,
}

/// Where the world stood at a barrier.
#[derive(Clone, Copy)]
struct Place {
    epoch: Epoch,
    step: usize,
    rows: usize,
}

struct World<'a, M: MakeOperator<Record>> {
    make: &'a dyn Fn() -> M,
    /// Its checkpoints; `None` where none are taken.
    keeps: bool,
    machines: Vec<Machine<M::Op>>,
    space: KeySpace,
    /// The clock when the machines were made: where their nanoseconds begin.
    since: i64,
    attempts: Vec<Attempt>,
    rows: Vec<Row>,
    step: usize,
    last_epoch: Epoch,
    /// The barrier of the epoch under way.
    begun: Option<Place>,
    /// The last whole epoch.
    whole: Option<Place>,
    /// How far a shard's watermark may stay behind the script's, until its last two steps.
    lag: usize,
    /// The last sweep of this attempt, the epoch with which it began, and whether what it frees is still there.
    sweep: (u64, Epoch, bool),
}

impl<'a, M> World<'a, M>
where
    M: MakeOperator<Record, Op: Operator<Record, Out: Told>>,
{
    fn new(make: &'a dyn Fn() -> M, keeps: bool, shards: usize, clock: i64) -> Self {
        let mut world = World {
            make,
            keeps,
            machines: vec![],
            space: KeySpace::new(GROUPS, 1),
            since: clock,
            attempts: vec![],
            rows: vec![],
            step: 0,
            last_epoch: Epoch(0),
            begun: None,
            whole: None,
            lag: 0,
            sweep: (0, Epoch(0), false),
        };
        world.make(shards);
        world
    }

    fn make(&mut self, shards: usize) {
        let config = PlanConfig {
            shards,
            ring_capacity: 4,
            batch_size: 16,
            key_groups: GROUPS,
            checkpoints: self.keeps,
        };
        self.space = KeySpace::new(GROUPS, shards as u32);
        self.machines.clear();
        let mut plan = Plan::default();
        for kind in ["one", "another"] {
            plan.op(kind, Results::ROWS, Location::caller());
        }
        // As in a job: one maker for all shards.
        let mut maker = (self.make)();
        for shard in 0..shards {
            let op = plan.alone(&config, shard, |build| maker.make(build));
            self.machines.push(Machine {
                op: op.unwrap(),
                cx: Cx::new(shard),
                frames: vec![],
                writing: None,
                swept: 0,
            });
        }
    }

    fn barrier(&mut self, sweep: bool) {
        self.last_epoch = Epoch(self.last_epoch.0 + 1);
        let is_full = sweep && !self.sweep.2;
        if is_full {
            self.sweep = (self.sweep.0 + 1, self.last_epoch, true);
        }
        let cut = Cut {
            epoch: self.last_epoch,
            sweep: self.sweep.0,
            is_full,
            // Every other sweep is through at once.
            is_whole: is_full && self.sweep.0.is_multiple_of(2),
            sweep_least: 3,
            is_last: false,
            asked: 0,
        };
        for machine in &mut self.machines {
            machine.barrier(cut);
        }
        self.begun = Some(Place {
            epoch: cut.epoch,
            step: self.step,
            rows: self.rows.len(),
        });
    }

    /// Decides the epoch under way once it has been written.
    fn decide(&mut self) {
        if self.begun.is_none() || self.machines.iter().any(|m| m.writing.is_some()) {
            return;
        }
        self.whole = self.begun.take();
        let (number, began, frees) = self.sweep;
        if frees && self.machines.iter().all(|m| m.swept >= number) {
            self.sweep.2 = false;
            self.attempts.clear();
            for machine in &mut self.machines {
                machine.frames.retain(|f| f.epoch >= began);
            }
        }
    }

    /// All is lost but the last whole epoch.
    fn crash(&mut self, shards: usize, backwards: bool, script: &Script, dice: &mut Dice) {
        let place = self.whole.unwrap_or(Place {
            epoch: Epoch(0),
            step: 0,
            rows: 0,
        });
        let kept = |mut frames: Vec<Written>| {
            frames.retain(|f| f.epoch <= place.epoch);
            frames
        };
        let logs = self.machines.drain(..).map(|m| kept(m.frames)).collect();
        self.attempts.push(Attempt { logs });
        (self.begun, self.sweep) = (None, (0, Epoch(0), false));
        self.step = place.step;
        self.rows.truncate(place.rows);
        self.since = script[self.step].0;
        self.make(shards);
        let same = self.attempts.iter().all(|a| a.logs.len() == shards);
        for (shard, machine) in self.machines.iter_mut().enumerate() {
            for attempt in &self.attempts {
                let logs = attempt.logs.iter().enumerate();
                let mut logs: Vec<_> = logs.filter(|(n, _)| !same || *n == shard).collect();
                if backwards {
                    logs.reverse();
                }
                for frame in logs.into_iter().flat_map(|(_, log)| log) {
                    let frame = Frame {
                        state: frame.state,
                        key: &frame.key,
                        value: frame.value.as_deref(),
                        stored: None,
                    };
                    assert!(machine.op.load(&frame).unwrap(), "nobody's frame");
                }
            }
            machine.op.loaded();
            // As the stage does it: in its first step, so with the time of that.
            machine.cx.wall = EventTime::from_micros(self.since);
            machine.resume(&mut self.rows, dice);
        }
    }

    fn go(&mut self, (clock, step): &(i64, Step), lag: usize, dice: &mut Dice) {
        for shard in 0..self.machines.len() {
            let (machine, rows) = (&mut self.machines[shard], &mut self.rows);
            machine.cx.now_ns = (clock - self.since) as u64 * 1000;
            machine.cx.wall = EventTime::from_micros(*clock);
            machine.tick(rows, dice);
            match step {
                Step::Watermark(time) => {
                    let lag = dice.below(lag + 1) as i64;
                    machine.watermark(*time - lag, rows, dice);
                }
                Step::Batch(records) => {
                    let mut batch = Batch::with_capacity(records.len());
                    for (n, (record, behind)) in records.iter().enumerate() {
                        if self.space.shard_of(&record.1) != shard {
                            continue;
                        }
                        let stamp = Stamp {
                            time: EventTime::from_micros(record.0),
                            behind: behind.map(EventTime::from_micros),
                        };
                        batch.origins.push(Origin {
                            offset: (self.step * 1000 + n) as u64,
                            ..Origin::default()
                        });
                        batch.push(*record, stamp);
                    }
                    machine.batch(batch, rows, dice);
                }
            }
        }
        self.step += 1;
    }

    fn run(&mut self, script: &Script, dice: &mut Dice) {
        let mut crashes = 0;
        while self.step < script.len() {
            if self.keeps {
                match dice.below(12) {
                    0..3 if self.begun.is_none() => self.barrier(dice.below(4) == 0),
                    3..6 => {
                        for machine in &mut self.machines {
                            machine.save(dice.below(40));
                        }
                    }
                    6 if crashes < 6 => {
                        crashes += 1;
                        let shards = match dice.below(2) {
                            0 => self.machines.len(),
                            _ => 1 + dice.below(3),
                        };
                        let backwards = dice.below(2) == 0;
                        self.crash(shards, backwards, script, dice);
                        continue;
                    }
                    _ => {}
                }
                self.decide();
            }
            let step = &script[self.step];
            let lag = if self.step + 2 < script.len() {
                self.lag
            } else {
                0
            };
            self.go(step, lag, dice);
            self.decide();
        }
    }
}

/// What must be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    /// All rows.
    Rows,
    /// What stands when all changes have been applied; each retraction takes back what stands.
    Net,
}

fn outcome(mut rows: Vec<Row>, compare: Compare) -> Vec<Row> {
    if compare == Compare::Rows {
        rows.sort();
        return rows;
    }
    let mut standing = BTreeMap::new();
    for mut row in rows {
        let place = (row.key, row.window);
        if row.firing == Firing::Retraction {
            let stood: Option<Row> = standing.remove(&place);
            assert_eq!(
                stood.map(|r| r.value),
                Some(row.value),
                "taken back at {place:?}"
            );
            continue;
        }
        row.firing = Firing::OnTime;
        standing.insert(place, row);
    }
    standing.into_values().collect()
}

/// Runs a script in both worlds and compares.
#[track_caller]
pub(super) fn check<M>(make: impl Fn() -> M, script: &Script, seed: u64, compare: Compare)
where
    M: MakeOperator<Record, Op: Operator<Record, Out: Told>>,
{
    check_uneven(make, script, seed, 0, compare);
}

/// The same where the shards' watermarks rise unevenly, up to `lag` apart: as behind idle partitions, or by clocks. No window of a
/// key may come on time twice then.
#[track_caller]
pub(super) fn check_uneven<M>(
    make: impl Fn() -> M,
    script: &Script,
    seed: u64,
    lag: usize,
    compare: Compare,
) where
    M: MakeOperator<Record, Op: Operator<Record, Out: Told>>,
{
    let mut dice = Dice::new(seed);
    let clock = script[0].0;
    let mut whole = World::new(&make, false, 1, clock);
    whole.run(script, &mut dice);
    let mut kept = World::new(&make, true, 1 + dice.below(3), clock);
    kept.lag = lag;
    kept.run(script, &mut dice);
    let mut on_time = BTreeMap::new();
    let rows = kept
        .rows
        .iter()
        .filter(|r| lag > 0 && r.firing == Firing::OnTime);
    for row in rows {
        let before = on_time.insert((row.key, row.window), &row.value);
        assert_eq!(before, None, "twice on time: {row:?}");
    }
    let (expected, found) = (
        outcome(whole.rows, compare),
        outcome(kept.rows.clone(), compare),
    );
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(found, expected, "the first that differs");
    }
    assert_eq!(found.len(), expected.len());
}

/// Some steps on so many shards each, with a whole epoch after each that makes a sweep if it is to, and a crash after that;
/// what came out.
pub(super) fn moved<M>(make: impl Fn() -> M, attempts: Vec<(usize, Step, bool)>) -> Vec<Row>
where
    M: MakeOperator<Record, Op: Operator<Record, Out: Told>>,
{
    let mut dice = Dice::new(1);
    let mut world = World::new(&make, true, attempts[0].0, 0);
    let script: Script = attempts.iter().map(|(_, s, _)| (0, s.clone())).collect();
    for (n, (shards, step, sweeps)) in attempts.into_iter().enumerate() {
        if n > 0 {
            world.step = n - 1;
            world.begun = None;
            world.crash(shards, false, &script, &mut dice);
        }
        world.step = n;
        world.go(&(0, step), 0, &mut dice);
        world.barrier(sweeps);
        world.machines.iter_mut().for_each(|m| m.save(usize::MAX));
        world.decide();
        assert!(world.begun.is_none(), "it fits into one piece");
        assert!(!world.sweep.2, "one barrier is a sweep of few entries");
        assert!(!sweeps || world.attempts.is_empty());
    }
    world.rows
}

/// Whether an operator has done all that a watermark causes although nothing of the epoch that began before it has been written.
pub(super) fn goes_on_unwritten<M>(make: impl Fn() -> M, step: Step, watermark: i64) -> bool
where
    M: MakeOperator<Record, Op: Operator<Record, Out: Told>>,
{
    let mut world = World::new(&make, true, 1, 0);
    world.go(&(0, step), 0, &mut Dice::new(1));
    world.barrier(false);
    let Machine { op, cx, .. } = &mut world.machines[0];
    let mut out = Rows {
        rows: &mut vec![],
        blocked: false,
    };
    op.watermark(EventTime::from_micros(watermark), &mut out, cx);
    (0..1000).any(|_| op.resume(&mut out, cx))
}

/// The shard of a key among so many.
pub(super) fn shard_of(key: u8, shards: u32) -> usize {
    KeySpace::new(GROUPS, shards).shard_of(&key)
}

/// Takes a checkpoint after each step; the frames of entries (not of times) that each has.
pub(super) fn entries_by_epoch<M>(make: impl Fn() -> M, steps: Vec<Step>) -> Vec<usize>
where
    M: MakeOperator<Record, Op: Operator<Record, Out: Told>>,
{
    let mut dice = Dice::new(1);
    let mut world = World::new(&make, true, 1, 0);
    let mut entries = vec![];
    for step in steps {
        world.go(&(0, step), 0, &mut dice);
        world.barrier(false);
        let machine = &mut world.machines[0];
        let before = machine.frames.len();
        machine.save(usize::MAX);
        world.decide();
        assert!(world.begun.is_none(), "it fits into one piece");
        let new = &world.machines[0].frames[before..];
        entries.push(new.iter().filter(|f| f.key.len() != 5).count());
    }
    entries
}

/// The number that operators have here, and that of one behind another in one stage.
pub(super) const OP: OpId = OpId(0);
pub(super) const BEHIND: OpId = OpId(1);
