//! A sink of one's own for a table with one row a key: upserts and deletions in transactions.
//!
//! Laws
//! 1. Those of [`Transactions`], which it is made of: handlers run off the shards, each shard's writes its own keys, one more commits.
//! 2. Of what one batch says of a key only the last is told. A batch is what has come since the last one was written: up to
//!    some thousand, all of one epoch.
//! 3. What is told of different keys comes in the order of the last that was said of each.

use super::{CommitError, Transactional, Transactions, transactional};
use crate::checkpoint::Epoch;
use crate::key::Key;
use crate::upsert::Upsert;
use std::collections::HashSet;
use std::marker::PhantomData;

/// What a sink by key is to do: see [`upserts`]. It is cloned: one for each shard, which writes, and
/// one that commits and recovers. An epoch passes as that of [`Transactions`] does, and what is said there of crashes holds here:
///
/// ```text
/// a shard's   begin  upsert delete upsert ..  pre_commit(N) -> bytes               begin  upsert ..
/// the committer's                                 the checkpoint is durable: commit(N, bytes)
/// ```
///
/// Of the changes of a key within an epoch some come, the last of them always: those between are left out where they came in one batch. So an upsert may
/// be of a key that is there, and a deletion of one that is not. Keys of a shard are no other shard's.
///
/// ```
/// use pelton::checkpoint::Epoch;
/// use pelton::sink::{CommitError, Upserts};
/// use pelton::testing::conformance;
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// /// A database somewhere: what transactions are to change, and the rows that all may see.
/// #[derive(Default)]
/// struct Database {
///     prepared: BTreeMap<u64, Vec<(u64, Option<u64>)>>,
///     rows: BTreeMap<u64, u64>,
///     next: u64,
/// }
///
/// #[derive(Clone, Default)]
/// struct ToDatabase {
///     database: Arc<Mutex<Database>>,
///     changes: Vec<(u64, Option<u64>)>,
/// }
///
/// impl Upserts<u64, u64> for ToDatabase {
///     fn upsert(&mut self, key: u64, row: u64) -> Result<(), String> {
///         self.changes.push((key, Some(row)));
///         Ok(())
///     }
///     fn delete(&mut self, key: u64) -> Result<(), String> {
///         self.changes.push((key, None));
///         Ok(())
///     }
///     fn pre_commit(&mut self, _: Epoch) -> Result<Vec<u8>, String> {
///         let mut database = self.database.lock().unwrap();
///         database.next += 1;
///         let number = database.next;
///         database.prepared.insert(number, std::mem::take(&mut self.changes));
///         Ok(number.to_le_bytes().to_vec())
///     }
///     fn commit(&mut self, _: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
///         let mut database = self.database.lock().unwrap();
///         let number = u64::from_le_bytes(prepared.try_into().unwrap());
///         // Nothing there: it was committed before the crash.
///         for (key, row) in database.prepared.remove(&number).unwrap_or_default() {
///             match row {
///                 Some(row) => database.rows.insert(key, row),
///                 None => database.rows.remove(&key),
///             };
///         }
///         Ok(())
///     }
///     fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
///         self.database.lock().unwrap().prepared.clear();
///         Ok(())
///     }
/// }
///
/// // A database outlives the jobs that write to it. The kit wants one for each of its trials.
/// let databases = std::cell::RefCell::new(BTreeMap::<u64, Arc<Mutex<Database>>>::new());
/// let database = |trial| databases.borrow_mut().entry(trial).or_default().clone();
/// conformance::upserts(
///     |trial| ToDatabase { database: database(trial), changes: vec![] },
///     |trial| database(trial).lock().unwrap().rows.clone().into_iter().collect(),
/// )
/// .unwrap();
/// ```
pub trait Upserts<K, T>: Clone + Send + 'static {
    /// This one is to write the keys of `shard`: called once, with the first transaction.
    fn open(&mut self, shard: usize) -> Result<(), String> {
        let _ = shard;
        Ok(())
    }
    /// A transaction begins.
    fn begin(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// The key has this row from now on, unseen by others yet. An error ends the job.
    fn upsert(&mut self, key: K, row: T) -> Result<(), String>;
    /// The key has no row any more, unseen by others yet. It may have had none. An error ends the job.
    fn delete(&mut self, key: K) -> Result<(), String>;
    /// All that one batch says has been told: a place to send it on.
    fn batch_ends(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// See [`Transactions::pre_commit`].
    fn pre_commit(&mut self, epoch: Epoch) -> Result<Vec<u8>, String>;
    /// Makes a transaction visible; see [`Committer::commit`](super::Committer::commit).
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError>;
    /// Discards all transactions that are not committed, pre-committed or not; see [`Committer::recover`](super::Committer::recover).
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String>;
}

/// A sink for a table somewhere else, one row a key, in transactions of an epoch each: exactly once, for jobs with checkpoints; without them it is
/// refused. Its stream is that of [`KeyedStream::upserts`](crate::KeyedStream::upserts), which brings all of a key to one shard, in order.
///
/// State here: none. Records on their way to the handler are bounded, and a slow one holds the sources. Whatever the class of its input: upserts replace
/// rows.
pub fn upserts<H, K, T>(name: impl Into<String>, handler: H) -> Transactional<Upserting<H, K, T>>
where
    H: Upserts<K, T>,
{
    let upserting = Upserting {
        handler,
        is_last: vec![],
        types: PhantomData,
    };
    transactional(name, upserting).updates()
}

/// A handler of upserts as one of transactions (laws 2 and 3): see [`upserts`].
#[derive(Debug)]
pub struct Upserting<H, K, T> {
    handler: H,
    /// Of the batch in hand, whether each is the last of its key; empty between two.
    is_last: Vec<bool>,
    types: PhantomData<fn(K, T)>,
}

impl<H: Clone, K, T> Clone for Upserting<H, K, T> {
    fn clone(&self) -> Self {
        Upserting {
            handler: self.handler.clone(),
            is_last: vec![],
            types: PhantomData,
        }
    }
}

impl<H, K, T> Transactions<Upsert<K, T>> for Upserting<H, K, T>
where
    H: Upserts<K, T>,
    K: Key,
    T: Send + 'static,
{
    fn open(&mut self, shard: usize) -> Result<(), String> {
        self.handler.open(shard)
    }
    fn begin(&mut self) -> Result<(), String> {
        self.handler.begin()
    }
    fn batch(&mut self, upserts: &mut Vec<Upsert<K, T>>) -> Result<(), String> {
        let mut seen = HashSet::with_capacity(upserts.len());
        let from_behind = upserts.iter().rev();
        self.is_last.clear();
        self.is_last
            .extend(from_behind.map(|upsert| seen.insert(&upsert.key)));
        for (Upsert { key, row }, is_last) in upserts.drain(..).zip(self.is_last.drain(..).rev()) {
            match row {
                _ if !is_last => {}
                Some(row) => self.handler.upsert(key, row)?,
                None => self.handler.delete(key)?,
            }
        }
        self.handler.batch_ends()
    }
    fn pre_commit(&mut self, epoch: Epoch) -> Result<Vec<u8>, String> {
        self.handler.pre_commit(epoch)
    }
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        self.handler.commit(epoch, prepared)
    }
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        self.handler.recover(last)
    }
}
