//! The broadcast join: records meet the rows of a table that every shard has whole.
//!
//! Laws
//! 1. Every shard takes the table's records, those of a key in one order, so at a barrier all have the same table. Each writes its own, since a shard
//!    that goes on reads what it wrote; where it reads what all wrote, it finds each row several times, and the same.
//! 2. A record meets the table as it is when it comes: class EXEMPT. What the table holds in the end is fixed.
//! 3. The table says nothing of time: its edge is quiet (`edge/broadcast.rs`).
//! 4. One record in, at most one out, with the record's time, behind mark and origin; no record is too late.
//!
//! State: a row for each key, until it is removed. O(1) a record.

use crate::batch::Batch;
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Kept, Saved, Snapshot, Whole};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::push::{Cx, OpId, Push, blame, blame_at};
use crate::sides::Sides;
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};
use crate::time::EventTime;
use std::hash::Hash;
use std::marker::PhantomData;

/// Makes [`BroadcastJoinOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeBroadcastJoin<L, R, O, K, D, F> {
    pub(crate) key: K,
    /// Whether a record of the table removes its key's row.
    pub(crate) removes: D,
    pub(crate) row: F,
    pub(crate) op: OpId,
    pub(crate) types: PhantomData<fn(L, R) -> O>,
}

#[allow(private_interfaces)]
impl<L, R, O, K, D, F> MakeOperator<Sides<L, R>> for MakeBroadcastJoin<L, R, O, K, D, F>
where
    L: Send + 'static,
    R: Clone + State,
    O: Send + 'static,
    K: KeyOf<Sides<L, R>>,
    D: Fn(&R) -> bool + Clone + Send + 'static,
    F: Fn(&L, Option<&R>) -> Option<O> + Clone + Send + 'static,
{
    type Op = BroadcastJoinOp<L, R, O, K, D, F>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(BroadcastJoinOp {
            kept: Kept::of_named::<K::Key, R>("table", build, self.op),
            key: self.key.clone(),
            removes: self.removes.clone(),
            row: self.row.clone(),
            op: self.op,
            table: KeyTable::new(),
            done: 0,
            types: PhantomData,
        })
    }
    fn origins(&self) -> Origins {
        Origins::Keeps
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct BroadcastJoinOp<L, R, O, K: KeyOf<Sides<L, R>>, D, F> {
    key: K,
    removes: D,
    row: F,
    op: OpId,
    /// Where the job takes checkpoints.
    kept: Option<Kept>,
    /// `None`: removed, and its id not reused yet.
    table: KeyTable<K::Key, Option<R>>,
    /// Records of the batch in hand that have been taken; 0 between batches.
    done: usize,
    types: PhantomData<fn(L) -> O>,
}

/// The row of an entry that is in the table.
fn held<K: Hash + Eq, R>(table: &KeyTable<K, Option<R>>, id: u32) -> Whole<'_, R> {
    match table.value(id) {
        Some(row) => Whole(row),
        None => unreachable!("an entry that was there at the barrier has a row"),
    }
}

impl<L, R, O, K, D, F> BroadcastJoinOp<L, R, O, K, D, F>
where
    R: Clone + State,
    K: KeyOf<Sides<L, R>>,
    D: Fn(&R) -> bool,
{
    /// A record of the table has come.
    fn update(&mut self, key: &K::Key, row: &R) {
        let hash = self.table.hash(key);
        if blame(self.op, || (self.removes)(row)) {
            let id = self.table.find(hash, key);
            if id == NONE {
                return;
            }
            if let Some(kept) = &mut self.kept {
                kept.touch(id, key, || held(&self.table, id));
                kept.gone(id, key);
            }
            self.table.remove(id, None);
            return;
        }
        let (id, _) = self.table.find_or_insert(hash, key, || None);
        if let Some(kept) = &mut self.kept {
            kept.touch(id, key, || held(&self.table, id));
        }
        *self.table.value_mut(id) = Some(row.clone());
    }
}

impl<L, R, O, K, D, F> Operator<Sides<L, R>> for BroadcastJoinOp<L, R, O, K, D, F>
where
    L: Send + 'static,
    R: Clone + State,
    O: Send + 'static,
    K: KeyOf<Sides<L, R>>,
    D: Fn(&R) -> bool + Clone + Send + 'static,
    F: Fn(&L, Option<&R>) -> Option<O> + Clone + Send + 'static,
{
    type Out = O;

    #[inline]
    fn batch<P: Push<O>>(&mut self, batch: &mut Batch<Sides<L, R>>, out: &mut P, cx: &mut Cx) {
        while self.done < batch.len() {
            let (from, to) = (self.done, (self.done + CHUNK).min(batch.len()));
            let probes = probe(&self.table, &self.key, self.op, &batch.records[from..to]);
            let mut stamps = Stamps::from(batch, from);
            for (index, (hash, candidate)) in (from..to).zip(probes) {
                let left = match &batch.records[index] {
                    Sides::Left(left) => left,
                    side @ Sides::Right(row) => {
                        let key = self.key.with(side, K::Key::clone);
                        self.update(&key, row);
                        continue;
                    }
                };
                let stamp = stamps.of(batch, index, cx);
                let row = blame_at(self.op, index, || {
                    self.key.with(&batch.records[index], |key| {
                        let id = match self.table.verified(candidate, key) {
                            Some(_) => candidate,
                            None => self.table.find(hash, key),
                        };
                        let held = match id {
                            NONE => None,
                            id => self.table.value(id).as_ref(),
                        };
                        (self.row)(left, held)
                    })
                });
                if let Some(row) = row {
                    out.push(row, stamp, cx);
                }
            }
            self.done = to;
            if out.blocked() && to < batch.len() {
                return;
            }
        }
        self.done = 0;
        batch.clear();
    }

    fn watermark<P: Push<O>>(&mut self, _: EventTime, _: &mut P, _: &mut Cx) {}

    fn begin_epoch(&mut self, cut: Cut) {
        let table = &self.table;
        if let Some(kept) = &mut self.kept {
            kept.begin_timeless(cut, table.id_end(), |id| table.is_live(id));
        }
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "table", self.table.size()));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let table = &self.table;
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| (table.key(id), held(table, id)))
        })
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        let Some((key, value)) = kept.load_any::<K::Key>(frame)? else {
            return Ok(frame.state == kept.keeping.saver.state());
        };
        let hash = self.table.hash(&key);
        match value {
            Some(value) => {
                let row = kept.keeping.saver.load_value::<K::Key, R>(frame, value)?;
                let (id, _) = self.table.find_or_insert(hash, &key, || None);
                *self.table.value_mut(id) = Some(row);
                kept.restored(id, true);
            }
            None => {
                let id = self.table.find(hash, &key);
                if id != NONE {
                    self.table.remove(id, None);
                    kept.restored(id, false);
                }
            }
        }
        Ok(true)
    }
}
