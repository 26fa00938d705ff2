//! A sink of one's own with transactions: what it writes counts exactly once.
//!
//! Laws
//! 1. Handlers run off the shards, on a thread of the sink's own, and may block. Each shard's writes its own records, in order.
//! 2. A handler is asked to pre-commit only what it began; an epoch without records needs nothing.
//! 3. One handler more commits and recovers, and never begins anything: while the job runs on the thread of its commits, at the start
//!    on the thread that submits the job.

use super::relay::{Output, Relay};
use super::{CommitError, Committer, PreCommit, Sink, Writer};
use crate::batch::Stamp;
use crate::checkpoint::Epoch;
use crate::port::Ports;
use std::marker::PhantomData;

/// Records of a full batch.
const BATCH: usize = 1024;

/// What a sink with transactions is to do: see [`transactional`]. It is cloned: one for each shard, which writes, and one that
/// commits and recovers. An epoch passes as
///
/// ```text
/// a shard's   begin  batch batch ..  pre_commit(N) -> bytes                begin  batch ..
/// the committer's                        the checkpoint is durable: commit(N, bytes)
/// ```
///
/// After a crash the committer's first calls are `commit` for whatever the last checkpoint decided, done already or not, and then
/// `recover`: all else is to be discarded. What is computed again for an epoch that was discarded may be other records.
///
/// ```
/// use pelton::checkpoint::Epoch;
/// use pelton::sink::{self, CommitError, Transactions};
/// use pelton::testing::conformance;
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// /// A table somewhere: rows by the transaction that wrote them, and those that all may see.
/// #[derive(Default)]
/// struct Table {
///     prepared: BTreeMap<u64, Vec<u64>>,
///     visible: Vec<u64>,
///     next: u64,
/// }
///
/// #[derive(Clone, Default)]
/// struct ToTable {
///     table: Arc<Mutex<Table>>,
///     rows: Vec<u64>,
/// }
///
/// impl Transactions<u64> for ToTable {
///     fn batch(&mut self, records: &mut Vec<u64>) -> Result<(), String> {
///         self.rows.append(records);
///         Ok(())
///     }
///     fn pre_commit(&mut self, _: Epoch) -> Result<Vec<u8>, String> {
///         let mut table = self.table.lock().unwrap();
///         table.next += 1;
///         let number = table.next;
///         table.prepared.insert(number, std::mem::take(&mut self.rows));
///         Ok(number.to_le_bytes().to_vec())
///     }
///     fn commit(&mut self, _: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
///         let mut table = self.table.lock().unwrap();
///         let number = u64::from_le_bytes(prepared.try_into().unwrap());
///         // Nothing there: it was committed before the crash.
///         let rows = table.prepared.remove(&number).unwrap_or_default();
///         table.visible.extend(rows);
///         Ok(())
///     }
///     fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
///         self.table.lock().unwrap().prepared.clear();
///         Ok(())
///     }
/// }
///
/// // A table outlives the jobs that write to it. The kit wants one for each of its trials.
/// let tables = std::cell::RefCell::new(BTreeMap::<u64, Arc<Mutex<Table>>>::new());
/// let table = |trial| tables.borrow_mut().entry(trial).or_default().clone();
/// conformance::sink(
///     |trial| sink::transactional("table", ToTable { table: table(trial), rows: vec![] }),
///     |trial| table(trial).lock().unwrap().visible.clone(),
/// )
/// .unwrap();
/// ```
pub trait Transactions<T>: Clone + Send + 'static {
    /// This one is to write the records of `shard`: called once, with the first transaction.
    fn open(&mut self, shard: usize) -> Result<(), String> {
        let _ = shard;
        Ok(())
    }
    /// A transaction begins: records follow.
    fn begin(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// Writes records, so that nobody else sees them. What it leaves in the vector is dropped. An error ends the job.
    fn batch(&mut self, records: &mut Vec<T>) -> Result<(), String>;
    /// Makes durable what has been written since `begin`, still unseen: a crash must not lose it from here on. The bytes tell
    /// [`Transactions::commit`] what to commit. The next batch begins another transaction, which may be before this one is committed:
    /// there are as many open or prepared as
    /// [`Checkpointing::max_uncommitted`](crate::Checkpointing::max_uncommitted) says, one more, and those of epochs that were given up.
    fn pre_commit(&mut self, epoch: Epoch) -> Result<Vec<u8>, String>;
    /// Makes a transaction visible; see [`Committer::commit`].
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError>;
    /// Discards all transactions that are not committed, pre-committed or not; see [`Committer::recover`].
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String>;
}

/// A sink that writes with `handler`. Append-only; see [`Transactional::updates`].
pub fn transactional<H>(name: impl Into<String>, handler: H) -> Transactional<H> {
    Transactional {
        name: name.into(),
        handler,
        updates: false,
    }
}

/// See [`transactional`].
#[derive(Clone, Debug)]
pub struct Transactional<H> {
    name: String,
    handler: H,
    updates: bool,
}

impl<H> Transactional<H> {
    /// Says that whoever reads the output copes with results that later ones replace: last value per key counts.
    pub fn updates(mut self) -> Self {
        self.updates = true;
        self
    }
}

/// Writer of [`Transactional`].
#[derive(Debug)]
pub struct TransactionalWriter<T>(Relay<T>);

impl<T: Send + 'static, H: Transactions<T>> Sink<T> for Transactional<H> {
    type Writer = TransactionalWriter<T>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        let apart = ports.apart()?;
        (0..ports.shards())
            .map(|shard| {
                let output = Handling {
                    handler: self.handler.clone(),
                    shard,
                    opened: false,
                    begun: false,
                    records: PhantomData,
                };
                Relay::open(ports, shard, Some(&apart), BATCH, output).map(TransactionalWriter)
            })
            .collect()
    }
    fn takes_updates(&self) -> bool {
        self.updates
    }
    fn in_two_phases(&self) -> bool {
        true
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        Some(Box::new(Committing {
            handler: self.handler.clone(),
            records: PhantomData,
        }))
    }
}

impl<T: Send + 'static> Writer<T> for TransactionalWriter<T> {
    #[inline]
    fn write(&mut self, record: T, _: Stamp) {
        self.0.buffer().push(record);
        self.0.filled();
    }
    fn flush(&mut self, _: u64) -> Result<(), String> {
        self.0.flush()
    }
    fn blocked(&self) -> bool {
        self.0.blocked()
    }
    fn rings(&self) -> bool {
        true
    }
    fn barrier(&mut self, epoch: Epoch) {
        self.0.barrier(epoch);
    }
    fn pre_commit(&mut self, _: u64) -> Result<PreCommit, String> {
        self.0.pre_commit()
    }
    fn finish(&mut self, _: u64) -> Result<bool, String> {
        self.0.finish()
    }
}

/// A shard's handler (law 2).
struct Handling<T, H> {
    handler: H,
    shard: usize,
    opened: bool,
    begun: bool,
    records: PhantomData<fn(T)>,
}

impl<T: Send + 'static, H: Transactions<T>> Output<T> for Handling<T, H> {
    fn write(&mut self, records: &mut Vec<T>) -> Result<(), String> {
        if !self.opened {
            self.handler.open(self.shard)?;
            self.opened = true;
        }
        if !self.begun {
            self.handler.begin()?;
            self.begun = true;
        }
        self.handler.batch(records)
    }
    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<Vec<u8>>, String> {
        match std::mem::take(&mut self.begun) {
            true => self.handler.pre_commit(epoch).map(Some),
            false => Ok(None),
        }
    }
}

/// The one that commits (law 3).
struct Committing<T, H> {
    handler: H,
    records: PhantomData<fn(T)>,
}

impl<T: 'static, H: Transactions<T>> Committer for Committing<T, H> {
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        self.handler.commit(epoch, prepared)
    }
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        self.handler.recover(last)
    }
}
