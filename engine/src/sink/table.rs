//! A table in memory that a job keeps and other threads read.
//!
//! Laws
//! 1. What readers see is as of a barrier that passed all shards, and committed: all of an epoch is shown at once, with the first of its
//!    shares that is committed, since by then all of them have been prepared.
//! 2. A life of the job tells all rows with its first epoch (`operators/materialize.rs`), which takes the place of all that was there. Until it is
//!    committed readers see what the last life in this process committed; nothing, if there was none or the job begins anew.
//! 3. Who has taken the table last writes to it. What a job before left on its way is dropped.

use super::{CommitError, Upserts};
use crate::checkpoint::Epoch;
use crate::error::BuildError;
use crate::key::Key;
use crate::plan::{Plan, SharedPlan};
use crate::push::OpId;
use crate::table::{KeyTable, NONE};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

/// A table in memory that a job keeps by [`KeyedStream::materialize`](crate::KeyedStream::materialize): one row a key. A clone is the same
/// table, for any thread.
///
/// What is read is as of the last commit, of all shards at once, and no later: an epoch's changes are seen together or not at all, and what
/// a crash takes back was never seen. It is as old as the job's checkpoints are apart. For what a shard has right now see
/// [`JobHandle::query`](crate::JobHandle::query).
///
/// Cost: a read takes a lock that readers share and that a commit waits for, for as long as its changes take to apply (some 100 ns each). Shards never
/// wait for it, unless readers hold it for so long that commits pile up ([`Checkpointing::max_uncommitted`](crate::Checkpointing::max_uncommitted)).
/// Memory: the rows, a second time on the shards, and what is prepared and not committed.
pub struct Table<K, T> {
    name: Arc<str>,
    shared: Arc<Shared<K, T>>,
}

struct Shared<K, T> {
    shown: RwLock<Shown<K, T>>,
    staged: Mutex<Staged<K, T>>,
}

/// What readers see.
struct Shown<K, T> {
    rows: KeyTable<K, Option<T>>,
    epoch: Option<Epoch>,
}

/// What is on its way.
struct Staged<K, T> {
    /// Those who took the table before have a lower number: law 3.
    owner: u64,
    plan: Weak<Mutex<Plan>>,
    /// Prepared and not shown, in the order in which they were.
    shares: Vec<(Epoch, Changes<K, T>)>,
    /// The next that is shown is the whole table: law 2.
    is_whole: bool,
}

type Changes<K, T> = Vec<(K, Option<T>)>;

impl<K, T> Clone for Table<K, T> {
    fn clone(&self) -> Self {
        Table {
            name: self.name.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<K, T> fmt::Debug for Table<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.name)
    }
}

impl<K: Key, T: Clone> Table<K, T> {
    /// An empty table. The name stands in errors and plans.
    pub fn new(name: impl Into<String>) -> Self {
        Table {
            name: Arc::from(name.into()),
            shared: Arc::new(Shared {
                shown: RwLock::new(Shown {
                    rows: KeyTable::new(),
                    epoch: None,
                }),
                staged: Mutex::new(Staged {
                    owner: 0,
                    plan: Weak::new(),
                    shares: vec![],
                    is_whole: true,
                }),
            }),
        }
    }

    /// A key's row, as of the last commit.
    pub fn get(&self, key: &K) -> Option<T> {
        self.read().get(key).cloned()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// The epoch whose commit changed it last; `None` before the first. One in which no row changed leaves it as it is.
    pub fn epoch(&self) -> Option<Epoch> {
        self.read().epoch()
    }

    /// To read several rows as of one commit. Commits wait until it is dropped: see [`Table`]. A thread that holds one must not ask the
    /// [`Table`] itself: a commit may wait between the two, and then neither goes on. Ask the view.
    pub fn read(&self) -> TableView<'_, K, T> {
        TableView(self.shared.shown())
    }

    /// Operator `op` of this plan is to write it; under which name, and by what.
    pub(crate) fn taken(&self, plan: &SharedPlan, op: OpId) -> (String, TableWriter<K, T>) {
        let mut staged = self.shared.staged();
        if plan.is_known_by(&staged.plan) {
            let mut plan = plan.lock();
            let e = BuildError::argument(
                plan.info(op),
                format!(
                    "table '{}' is kept by another stream of this job",
                    self.name
                ),
                "give each stream a table of its own",
            );
            plan.errors.push(e);
        }
        staged.plan = plan.downgrade();
        staged.owner += 1;
        let writer = TableWriter {
            shared: self.shared.clone(),
            owner: staged.owner,
            changes: vec![],
        };
        (self.name.to_string(), writer)
    }
}

impl<K, T> Shared<K, T> {
    fn shown(&self) -> RwLockReadGuard<'_, Shown<K, T>> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn staged(&self) -> MutexGuard<'_, Staged<K, T>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`Table`] as of one commit: see [`Table::read`].
pub struct TableView<'a, K, T>(RwLockReadGuard<'a, Shown<K, T>>);

impl<K, T> fmt::Debug for TableView<'_, K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableView({:?})", self.0.epoch)
    }
}

impl<K: Key, T> TableView<'_, K, T> {
    /// A key's row.
    pub fn get(&self, key: &K) -> Option<&T> {
        let rows = &self.0.rows;
        match rows.find(rows.hash(key), key) {
            NONE => None,
            id => rows.value(id).as_ref(),
        }
    }

    /// All rows, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        let rows = &self.0.rows;
        let live = (0..rows.id_end()).filter(|&id| rows.is_live(id));
        live.filter_map(|id| Some((rows.key(id), rows.value(id).as_ref()?)))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }

    /// See [`Table::epoch`].
    pub fn epoch(&self) -> Option<Epoch> {
        self.0.epoch
    }
}

/// Writes a [`Table`].
pub(crate) struct TableWriter<K, T> {
    shared: Arc<Shared<K, T>>,
    owner: u64,
    /// Since the last barrier.
    changes: Changes<K, T>,
}

impl<K, T> Clone for TableWriter<K, T> {
    fn clone(&self) -> Self {
        TableWriter {
            shared: self.shared.clone(),
            owner: self.owner,
            changes: vec![],
        }
    }
}

impl<K: Key + Sync, T: Send + Sync + 'static> Upserts<K, T> for TableWriter<K, T> {
    fn upsert(&mut self, key: K, row: T) -> Result<(), String> {
        self.changes.push((key, Some(row)));
        Ok(())
    }

    fn delete(&mut self, key: K) -> Result<(), String> {
        self.changes.push((key, None));
        Ok(())
    }

    fn pre_commit(&mut self, epoch: Epoch) -> Result<Vec<u8>, String> {
        let changes = std::mem::take(&mut self.changes);
        let mut staged = self.shared.staged();
        if staged.owner != self.owner {
            return Err("another job keeps this table now; give each a table of its own".into());
        }
        staged.shares.push((epoch, changes));
        // What is decided is known by its epoch.
        Ok(vec![])
    }

    fn commit(&mut self, epoch: Epoch, _: &[u8]) -> Result<(), CommitError> {
        // First of both: it may wait for readers, and whoever prepares the next epoch must not.
        let mut shown = self.shared.shown.write();
        let mut staged = self.shared.staged();
        if staged.owner != self.owner {
            return Ok(());
        }
        let is_due = |(of, _): &mut (Epoch, _)| *of <= epoch;
        let due: Vec<_> = staged.shares.extract_if(.., is_due).collect();
        if due.is_empty() {
            // Another share has brought it along, or it was committed before the crash: law 2.
            return Ok(());
        }
        let shown = shown.as_mut().unwrap_or_else(|e| e.get_mut());
        if std::mem::take(&mut staged.is_whole) {
            shown.rows = KeyTable::new();
        }
        for (key, row) in due.into_iter().flat_map(|(_, changes)| changes) {
            match row {
                Some(row) => {
                    shown.rows.replace(&key, Some(row));
                }
                None => match shown.rows.find(shown.rows.hash(&key), &key) {
                    NONE => {}
                    id => drop(shown.rows.remove(id, None)),
                },
            }
        }
        shown.epoch = Some(epoch);
        Ok(())
    }

    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        let mut shown = self.shared.shown.write();
        let mut staged = self.shared.staged();
        if staged.owner != self.owner {
            return Ok(());
        }
        staged.shares.clear();
        staged.is_whole = true;
        if last.is_none() {
            let shown = shown.as_mut().unwrap_or_else(|e| e.get_mut());
            (shown.rows, shown.epoch) = (KeyTable::new(), None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(writer: &mut TableWriter<u8, i64>, epoch: u64, rows: &[(u8, Option<i64>)]) {
        for &(key, row) in rows {
            match row {
                Some(row) => writer.upsert(key, row).unwrap(),
                None => writer.delete(key).unwrap(),
            }
        }
        writer.pre_commit(Epoch(epoch)).unwrap();
    }

    fn rows(table: &Table<u8, i64>) -> Vec<(u8, i64)> {
        let view = table.read();
        let mut rows: Vec<_> = view.iter().map(|(k, row)| (*k, *row)).collect();
        rows.sort_unstable();
        rows
    }

    /// Law 1: between the commits of two shares of an epoch nobody sees one of them alone, nor anything of the next epoch.
    #[test]
    fn the_first_share_that_is_committed_shows_all_of_its_epoch() {
        let table = Table::new("table");
        let plan = SharedPlan::new("job".into());
        let (_, mut committer) = table.taken(&plan, OpId(0));
        let (mut one, mut two) = (committer.clone(), committer.clone());
        committer.recover(None).unwrap();
        told(&mut one, 1, &[(1, Some(-5))]);
        told(&mut two, 1, &[(2, Some(5))]);
        told(&mut one, 2, &[(1, None)]);
        assert_eq!((rows(&table), table.epoch()), (vec![], None));
        committer.commit(Epoch(1), &[]).unwrap();
        assert_eq!(rows(&table), [(1, -5), (2, 5)]);
        assert_eq!(table.epoch(), Some(Epoch(1)));
        // The other share, and again after a crash.
        committer.commit(Epoch(1), &[]).unwrap();
        told(&mut two, 2, &[(2, None)]);
        assert_eq!(rows(&table), [(1, -5), (2, 5)]);
        committer.commit(Epoch(2), &[]).unwrap();
        assert_eq!((rows(&table), table.epoch()), (vec![], Some(Epoch(2))));
    }

    /// Law 3: what a job before has on its way is neither shown nor in the way.
    #[test]
    fn who_took_the_table_last_writes_it() {
        let table = Table::new("table");
        let take = |name: &str| table.taken(&SharedPlan::new(name.into()), OpId(0)).1;
        let mut old = take("old");
        told(&mut old, 1, &[(1, Some(1))]);
        let mut new = take("new");
        new.recover(None).unwrap();
        old.commit(Epoch(1), &[]).unwrap();
        assert_eq!(rows(&table), []);
        old.upsert(2, 2).unwrap();
        assert!(
            old.pre_commit(Epoch(2))
                .unwrap_err()
                .contains("another job")
        );
        told(&mut new, 1, &[(3, Some(3))]);
        old.recover(None).unwrap();
        old.commit(Epoch(9), &[]).unwrap();
        assert_eq!(rows(&table), [], "the new one's are not its own to show");
        new.commit(Epoch(1), &[]).unwrap();
        assert_eq!(rows(&table), [(3, 3)]);
    }
}
