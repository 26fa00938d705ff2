//! Whether what a sink writes counts exactly once.
//!
//! Laws
//! 1. Nothing that is not decided can be seen, whatever has been written, flushed and prepared.
//! 2. What a commit was told of can be seen when it returns, once; committing it again changes nothing.
//! 3. Whenever the process ends, between any two calls, a recovery leaves to be seen what was decided, all of it, once, and nothing
//!    else; so does a recovery that begins again because the process ended in the first one.
//! 4. After a recovery, and after the end of the input, the sink takes epochs as before.
//! 5. It takes, prepares and is told of further epochs while earlier ones are decided and not committed yet.

use super::{Dice, cases};
use crate::batch::Stamp;
use crate::checkpoint::{Epoch, Lineage};
use crate::port::{Ports, Start};
use crate::sink::{Committer, PreCommit, Sink, Writer};
use std::collections::BTreeSet;

/// Calls after which a writer that is blocked, or pending, is taken to be stuck.
const PATIENCE: u32 = 1000;

/// Whether a sink of two phases keeps the laws of `Writer::pre_commit` and of `Committer`. Each trial has a target of its own, by
/// number: `make` makes a sink for it, again after each crash (the one before has been dropped); `read_visible` reads all that
/// others see there, in any order. The sink takes the numbers that are written, each a record: `S: Sink<u64>`.
///
/// For each 16 of the kit's trials there is a script of some 40 calls, which is run once for each of them, to crash there.
/// Ports serve inline, as in a [`Stepper`](crate::testing::Stepper).
///
/// # Errors
/// Which law is broken, and where.
pub fn sink<S: Sink<u64>>(
    mut make: impl FnMut(u64) -> S,
    mut read_visible: impl FnMut(u64) -> Vec<u64>,
) -> Result<(), String> {
    let mut trial = 0;
    for script in 0..cases().div_ceil(16) {
        for crash_at in 1.. {
            let mut make = || make(trial);
            let mut world = World::new(script, crash_at, Box::new(|| read_visible(trial)));
            let result = world.run(&mut make);
            let crashed = match result {
                Ok(()) => false,
                Err(Stop::Crash) => true,
                Err(Stop::Broken(what)) => return Err(world.told(trial, &what)),
            };
            drop(world);
            trial += 1;
            if !crashed {
                break;
            }
        }
    }
    Ok(())
}

/// Why a run stops before its end.
enum Stop {
    Crash,
    Broken(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Stop::Broken(what)
    }
}

/// A writer's share of an epoch, and the records in it.
#[derive(Clone)]
struct Share {
    epoch: Epoch,
    prepared: Vec<u8>,
    records: Vec<u64>,
}

/// What outlives a crash, and the script.
struct World<'a> {
    script: u64,
    dice: Dice,
    /// Calls until the process ends.
    left: u64,
    calls: Vec<String>,
    read_visible: Box<dyn FnMut() -> Vec<u64> + 'a>,
    next_record: u64,
    /// The last epoch begun: none is used twice.
    epoch: Epoch,
    last: Option<Epoch>,
    /// What the last decision named: what was not committed before it, in order, of several epochs perhaps.
    decided: Vec<Share>,
    /// What may be seen, by all decisions.
    allowed: BTreeSet<u64>,
    /// What must be seen.
    committed: BTreeSet<u64>,
}

/// A sink that is open. Dropped by a crash.
struct Opened<W> {
    writers: Vec<W>,
    committer: Box<dyn Committer>,
    /// By shard: written since the last barrier.
    written: Vec<Vec<u64>>,
    /// Of epochs that were given up.
    carried: Vec<Share>,
    /// Decided and not committed, in order.
    left: Vec<Share>,
}

impl<'a> World<'a> {
    fn new(script: u64, crash_at: u64, read_visible: Box<dyn FnMut() -> Vec<u64> + 'a>) -> Self {
        World {
            script,
            dice: Dice(script),
            left: crash_at,
            calls: vec![],
            read_visible,
            next_record: 0,
            epoch: Epoch(0),
            last: None,
            decided: vec![],
            allowed: BTreeSet::new(),
            committed: BTreeSet::new(),
        }
    }

    fn told(&self, trial: u64, what: &str) -> String {
        let from = self.calls.len().saturating_sub(12);
        format!(
            "script {}, trial {trial}, after {} calls (the last: {}): {what}",
            self.script,
            self.calls.len(),
            self.calls[from..].join(", ")
        )
    }

    /// Before each call: the process may end here.
    fn call(&mut self, what: impl Into<String>) -> Result<(), Stop> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.calls.push("crash".into());
            // Not again, until the script says so.
            self.left = u64::MAX;
            return Err(Stop::Crash);
        }
        self.calls.push(what.into());
        Ok(())
    }

    /// The script up to its crash, then the recovery, then some more epochs; `Crash`: it did crash, and all is well.
    fn run<S: Sink<u64>>(&mut self, make: &mut impl FnMut() -> S) -> Result<(), Stop> {
        let shards = 1 + self.dice.below(3);
        let ended = self
            .recover(make, shards)
            .and_then(|mut sink| self.epochs(&mut sink));
        let Err(Stop::Crash) = ended else {
            return ended;
        };
        self.check()?;
        // As many shards as before, or not.
        let shards = 1 + self.dice.below(3);
        if self.dice.coin() {
            self.left = 1 + self.dice.below(5) as u64;
        }
        let mut sink = loop {
            match self.recover(make, shards) {
                Err(Stop::Crash) => self.check()?,
                other => break other?,
            }
        };
        self.left = u64::MAX;
        self.committed.clone_from(&self.allowed);
        self.check()?;
        self.epochs(&mut sink)?;
        Err(Stop::Crash)
    }

    /// Opens the sink as a job that starts does.
    fn recover<S: Sink<u64>>(
        &mut self,
        make: &mut impl FnMut() -> S,
        shards: usize,
    ) -> Result<Opened<S::Writer>, Stop> {
        self.call("open")?;
        let mut ports = Ports::inline(shards);
        let mut sink = make();
        let writers = sink
            .open(&mut ports)
            .map_err(|e| format!("it does not open: {e}"))?;
        let Some(mut committer) = sink.committer() else {
            return Err("it has no committer, and is not of two phases"
                .to_string()
                .into());
        };
        if !sink.in_two_phases() {
            return Err("it has a committer, and `in_two_phases` says no"
                .to_string()
                .into());
        }
        let start = Start {
            lineage: Some(Lineage([7; 16])),
            went_on_from: self.last,
        };
        for (_, at_start) in ports.take_starts() {
            at_start(&start).map_err(|e| format!("it does not start: {e}"))?;
        }
        for share in self.decided.clone() {
            self.commit(&mut *committer, &share)?;
        }
        for _ in 0..1 + self.dice.below(2) {
            self.call(format!("recover {:?}", self.last))?;
            committer
                .recover(self.last)
                .map_err(|e| format!("it does not recover: {e}"))?;
        }
        self.check()?;
        Ok(Opened {
            written: vec![vec![]; writers.len()],
            writers,
            committer,
            carried: vec![],
            left: vec![],
        })
    }

    fn epochs<W: Writer<u64>>(&mut self, sink: &mut Opened<W>) -> Result<(), Stop> {
        for _ in 0..1 + self.dice.below(3) {
            for shard in 0..sink.writers.len() {
                self.write(sink, shard)?;
            }
            let given_up = self.dice.below(4) == 0;
            self.pass(sink, given_up)?;
        }
        for shard in 0..sink.writers.len() {
            let mut patience = 0;
            self.call(format!("finish {shard}"))?;
            while !sink.writers[shard].finish(0)? {
                wait(&mut patience, "finish")?;
            }
        }
        // The last barrier comes behind the end.
        self.pass(sink, false)?;
        self.commit_some(sink, sink.left.len())?;
        self.check()
    }

    /// Some records, seldom very many.
    fn write<W: Writer<u64>>(&mut self, sink: &mut Opened<W>, shard: usize) -> Result<(), Stop> {
        let n = match self.dice.below(40) {
            0 => 5000,
            n => n % 5,
        };
        if n == 0 {
            return Ok(());
        }
        self.call(format!("write {n} to {shard}"))?;
        let writer = &mut sink.writers[shard];
        for _ in 0..n {
            let mut patience = 0;
            while writer.blocked() {
                writer.flush(0)?;
                wait(&mut patience, "blocked")?;
            }
            writer.write(self.next_record, Stamp::NONE);
            sink.written[shard].push(self.next_record);
            self.next_record += 1;
        }
        if self.dice.coin() {
            self.call(format!("flush {shard}"))?;
            sink.writers[shard].flush(0)?;
        }
        self.check()
    }

    /// A barrier passes, and what came before it is decided, unless the epoch is given up.
    fn pass<W: Writer<u64>>(&mut self, sink: &mut Opened<W>, given_up: bool) -> Result<(), Stop> {
        self.epoch = Epoch(self.epoch.0 + 1 + self.dice.below(2) as u64);
        let epoch = self.epoch;
        let mut before = vec![];
        for shard in 0..sink.writers.len() {
            self.call(format!("barrier {epoch} of {shard}"))?;
            sink.writers[shard].flush(0)?;
            sink.writers[shard].barrier(epoch);
            before.push(std::mem::take(&mut sink.written[shard]));
            if given_up && self.dice.coin() {
                // Of the next epoch, whose barrier is yet to come.
                self.write(sink, shard)?;
            }
        }
        for (shard, records) in before.into_iter().enumerate() {
            self.call(format!("pre_commit {shard}"))?;
            let mut patience = 0;
            let prepared = loop {
                match sink.writers[shard].pre_commit(0)? {
                    PreCommit::Ready(prepared) => break prepared,
                    PreCommit::Pending => wait(&mut patience, "pending")?,
                }
            };
            match prepared {
                Some(prepared) => sink.carried.push(Share {
                    epoch,
                    prepared,
                    records,
                }),
                None if records.is_empty() => {}
                None => {
                    return Err(format!(
                        "law 2: shard {shard} was given {} records and prepared nothing",
                        records.len()
                    )
                    .into());
                }
            }
        }
        self.check()?;
        if given_up {
            return Ok(());
        }
        self.decide(sink)
    }

    fn decide<W>(&mut self, sink: &mut Opened<W>) -> Result<(), Stop> {
        self.call("decide")?;
        self.last = Some(self.epoch);
        sink.left.append(&mut sink.carried);
        self.decided.clone_from(&sink.left);
        for share in &self.decided {
            self.allowed.extend(&share.records);
        }
        self.check()?;
        // All of it, or some: what is left the next decision names too, whose epoch is written and prepared meanwhile.
        let most = match self.dice.below(3) {
            0 => self.dice.below(sink.left.len() + 1),
            _ => sink.left.len(),
        };
        self.commit_some(sink, most)
    }

    /// Commits the first `most` shares of those that are left, in order.
    fn commit_some<W>(&mut self, sink: &mut Opened<W>, most: usize) -> Result<(), Stop> {
        let shares: Vec<Share> = sink.left.drain(..most).collect();
        for share in &shares {
            self.commit(&mut *sink.committer, share)?;
            if self.dice.coin() {
                self.commit(&mut *sink.committer, share)?;
            }
        }
        if self.dice.coin() {
            for share in &shares {
                self.commit(&mut *sink.committer, share)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, committer: &mut dyn Committer, share: &Share) -> Result<(), Stop> {
        self.call(format!("commit {}", share.epoch))?;
        committer
            .commit(share.epoch, &share.prepared)
            .map_err(|e| format!("law 2: it does not commit: {e}"))?;
        self.committed.extend(&share.records);
        self.check()
    }

    /// Laws 1 to 3, as of now.
    fn check(&mut self) -> Result<(), Stop> {
        let visible = (self.read_visible)();
        let seen: BTreeSet<u64> = visible.iter().copied().collect();
        if let Some(early) = seen.difference(&self.allowed).next() {
            return Err(format!("law 1: record {early} can be seen and was not decided").into());
        }
        if let Some(lost) = self.committed.difference(&seen).next() {
            return Err(format!("law 2: record {lost} was committed and cannot be seen").into());
        }
        if seen.len() < visible.len() {
            return Err(format!(
                "law 2: of {} records only {} are different ones: some can be seen twice",
                visible.len(),
                seen.len()
            )
            .into());
        }
        Ok(())
    }
}

fn wait(patience: &mut u32, what: &str) -> Result<(), Stop> {
    *patience += 1;
    match *patience {
        PATIENCE.. => Err(format!("it is {what} for ever").into()),
        _ => Ok(()),
    }
}
