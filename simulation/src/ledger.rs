//! A sink in memory that commits in two phases, and the ledger behind it that outlives the jobs that write to it.
//!
//! Laws
//! 1. What a writer holds dies with it. What it has said to be ready is staged in the ledger, and only that survives.
//! 2. What is staged is visible once it has been committed, and once only. What is committed and neither staged nor visible, or
//!    is staged and given up though it was decided, is a fault of the engine's, and is noted.
//! 3. Commits come in the order of epochs; one that does not is a fault too.
//! 4. Without checkpoints a record is visible when it is written.

use crate::random::Random;
use pelton::Epoch;
use pelton::batch::Stamp;
use pelton::port::Ports;
use pelton::sink::{CommitError, Committer, PreCommit, Sink, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The name of what one writer prepared in one epoch.
type Name = (Epoch, usize);

#[derive(Debug)]
struct Book<T> {
    staged: BTreeMap<Name, Vec<(T, i64)>>,
    committed: BTreeSet<Name>,
    /// The epoch of what was committed last, in this life.
    last: Option<Epoch>,
    /// With the epochs by which it became so: 0 where another job's did, and without checkpoints.
    visible: Vec<(Epoch, (T, i64))>,
    /// Draws when a writer is not ready yet, and when a commit has to be tried again.
    random: Random,
    /// One commit in so many is put off: where it is many of them, epochs wait for each other.
    refuses_one_in: u64,
    refused: u64,
    faults: Vec<String>,
}

/// See the module. A clone is the same ledger.
#[derive(Debug)]
pub struct Ledger<T> {
    book: Arc<Mutex<Book<T>>>,
    two_phases: bool,
}

impl<T> Clone for Ledger<T> {
    fn clone(&self) -> Self {
        Ledger {
            book: self.book.clone(),
            two_phases: self.two_phases,
        }
    }
}

impl<T> Ledger<T> {
    /// An empty one. With a seed it commits in two phases, now and then late, else records are visible at once.
    pub fn new(two_phases: Option<u64>) -> Self {
        let mut random = Random::new(two_phases.unwrap_or_default());
        let refuses_one_in = random.pick(&[12, 12, 4, 2]);
        Ledger {
            book: Arc::new(Mutex::new(Book {
                staged: BTreeMap::new(),
                committed: BTreeSet::new(),
                last: None,
                visible: vec![],
                random,
                refuses_one_in,
                refused: 0,
                faults: vec![],
            })),
            two_phases: two_phases.is_some(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book<T>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits that it put off so far.
    pub fn refused(&self) -> u64 {
        self.book().refused
    }

    /// What was found to be wrong (law 2).
    pub fn faults(&self) -> Vec<String> {
        self.book().faults.clone()
    }
}

impl<T: Clone> Ledger<T> {
    /// What others see, with event times, in the order in which it became visible.
    pub fn visible(&self) -> Vec<(T, i64)> {
        let book = self.book();
        book.visible
            .iter()
            .map(|(_, timed)| timed.clone())
            .collect()
    }

    /// Another ledger, for a job that starts from this one's as it was after an epoch: it shows what was visible by then, and knows of
    /// nothing that was prepared.
    pub fn as_of(&self, epoch: Epoch, seed: u64) -> Self {
        let ledger = Ledger::new(Some(seed));
        let book = self.book();
        let by_then = book.visible.iter().filter(|(by, _)| *by <= epoch);
        ledger.book().visible = by_then.map(|(_, v)| (Epoch(0), v.clone())).collect();
        ledger
    }
}

impl<T: Send + 'static> Sink<T> for Ledger<T> {
    type Writer = LedgerWriter<T>;
    fn name(&self) -> String {
        "ledger".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<LedgerWriter<T>>, String> {
        // Another life: it begins with what the last one may have committed already.
        self.book().last = None;
        let writer = |shard| LedgerWriter {
            ledger: self.clone(),
            shard,
            written: vec![],
            cut: None,
        };
        Ok((0..ports.shards()).map(writer).collect())
    }
    fn takes_updates(&self) -> bool {
        true
    }
    fn in_two_phases(&self) -> bool {
        self.two_phases
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        self.two_phases
            .then(|| Box::new(self.clone()) as Box<dyn Committer>)
    }
}

/// One shard's writer of a [`Ledger`].
#[derive(Debug)]
pub struct LedgerWriter<T> {
    ledger: Ledger<T>,
    shard: usize,
    written: Vec<(T, i64)>,
    /// What lies before the last barrier, until it is staged.
    cut: Option<(Epoch, Vec<(T, i64)>)>,
}

impl<T: Send + 'static> Writer<T> for LedgerWriter<T> {
    fn write(&mut self, record: T, stamp: Stamp) {
        let timed = (record, stamp.time.micros());
        match self.ledger.two_phases {
            true => self.written.push(timed),
            false => self.ledger.book().visible.push((Epoch(0), timed)),
        }
    }

    fn barrier(&mut self, epoch: Epoch) {
        let written = std::mem::take(&mut self.written);
        if let Some((before, _)) = self.cut.replace((epoch, written)) {
            let fault = format!("barrier {epoch} came before {before} was asked for");
            self.ledger.book().faults.push(fault);
        }
    }

    fn pre_commit(&mut self, _: u64) -> Result<PreCommit, String> {
        let mut book = self.ledger.book();
        if book.random.one_in(3) {
            return Ok(PreCommit::Pending);
        }
        let Some((epoch, records)) = self.cut.take() else {
            return Ok(PreCommit::Ready(None));
        };
        if records.is_empty() {
            return Ok(PreCommit::Ready(None));
        }
        let name = (epoch, self.shard);
        if book.staged.insert(name, records).is_some() || book.committed.contains(&name) {
            book.faults.push(format!("{name:?} was prepared twice"));
        }
        let bytes = [epoch.0.to_le_bytes(), (self.shard as u64).to_le_bytes()];
        Ok(PreCommit::Ready(Some(bytes.concat())))
    }
}

impl<T: Send + 'static> Committer for Ledger<T> {
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        let mut book = self.book();
        let (_, shard) = prepared.split_at(8);
        let shard = u64::from_le_bytes(shard.try_into().unwrap_or_default());
        let name = (epoch, shard as usize);
        let one_in = book.refuses_one_in;
        // Not what is done: else many shares would keep a restart from ever being through with them.
        if !book.committed.contains(&name) && book.random.one_in(one_in) {
            book.refused += 1;
            return Err(CommitError {
                what: "not now".into(),
                is_retryable: true,
            });
        }
        let last = book.last.replace(epoch);
        if last > Some(epoch) {
            let fault = format!("{name:?} was committed after {last:?}");
            book.faults.push(fault);
        }
        if let Some(records) = book.staged.remove(&name) {
            let by = |timed| (epoch, timed);
            book.visible.extend(records.into_iter().map(by));
            book.committed.insert(name);
        } else if !book.committed.contains(&name) {
            let fault = format!("{name:?} was committed and never prepared");
            book.faults.push(fault);
        }
        Ok(())
    }

    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        let mut book = self.book();
        let staged = std::mem::take(&mut book.staged);
        for name in staged.into_keys().filter(|(epoch, _)| Some(*epoch) <= last) {
            let fault = format!("{name:?} was not committed, and {last:?} was decided");
            book.faults.push(fault);
        }
        let visible = book.committed.last().copied();
        if visible.is_some_and(|(epoch, _)| Some(epoch) > last) {
            let fault = format!("{visible:?} was committed, and only {last:?} is decided");
            book.faults.push(fault);
        }
        Ok(())
    }
}
