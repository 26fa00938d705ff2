//! Operators by key that apply changes ([`mod@crate::change`]) and tell their own: what stands behind aggregates and rankings of rows that come
//! and go.
//!
//! Laws
//! 1. A change's changes have its time, behind mark and origin (numbered below it) and come before those of the next one; none is ever too
//!    late.
//! 2. Changes of a key lead from what it told before to what it tells now: applied in order, they never take away what does not stand.
//! 3. What stands for a key depends on the rows that stand alone (class NET), and each change on the order of those that came (class ROWS
//!    behind `.in_event_time_order()`).
//! 4. A retraction of a row that does not stand changes nothing and is counted.
//! 5. A step takes changes until these have looked at [`WORK`] places in memory or so: a ranking of a thousand is gone through for one change.
//!
//! State: that of rows that stand; a key goes with its last one. In a checkpoint as well.

use crate::aggregate::At;
use crate::batch::{Batch, Origin};
use crate::budget::Sizes;
use crate::change::Change;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::{Key, KeyOf};
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::push::{Cx, OpId, Push, blame_at};
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::table::KeyTable;
use crate::time::EventTime;
use std::marker::PhantomData;

/// Places in memory that the changes of a step look at (law 5): some 150 us where none is in the cache.
const WORK: usize = 2048;

/// What is kept on a shard, and what changes with a change.
#[allow(private_interfaces)]
pub trait Applying<T, K: Key>: Send + 'static {
    /// A row that is told.
    type Row: Send + 'static;
    /// What the table of keys has of each.
    type Value;
    /// The keys that have rows.
    fn keys(&self) -> &KeyTable<K, Self::Value>;
    /// Takes a change of a key that has this id, or [`NONE`](crate::table::NONE); about how many places in memory it looked at, or `None` if it takes
    /// away what does not stand (law 4).
    fn apply(
        &mut self,
        key: &K,
        id: u32,
        change: &Change<T>,
        at: At,
        to: &mut Vec<Change<Self::Row>>,
    ) -> Option<usize>;
    /// See [`Operator::begin_epoch`].
    fn begin_epoch(&mut self, cut: Cut);
    /// See [`Operator::sizes`].
    fn sizes(&self, to: &mut Sizes);
    /// See [`Operator::save`].
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved;
    /// See [`Operator::load`].
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError>;
    /// See [`Operator::loaded`].
    fn loaded(&mut self);
}

/// Makes what is kept on each shard.
#[allow(private_interfaces)]
pub trait MakesApplying<T, K: Key>: Send + 'static {
    /// What it makes.
    type Applying: Applying<T, K>;
    /// Whether it goes by the origins of changes.
    const NEEDS_ORIGINS: bool;
    /// Makes it.
    fn make(&mut self, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self::Applying;
}

/// A row that is told by what `M` makes.
pub type RowOf<T, K, M> = <<M as MakesApplying<T, K>>::Applying as Applying<T, K>>::Row;

/// Makes [`ApplyingOp`] on each shard.
#[derive(Debug)]
pub struct MakeApplyingOp<T, K, M> {
    pub(crate) key: K,
    pub(crate) makes: M,
    pub(crate) op: OpId,
    pub(crate) row: PhantomData<fn(T)>,
}

#[allow(private_interfaces)]
impl<T, K, M> MakeOperator<Change<T>> for MakeApplyingOp<T, K, M>
where
    T: Send + 'static,
    K: KeyOf<Change<T>>,
    M: MakesApplying<T, K::Key>,
{
    type Op = ApplyingOp<T, K, M>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(ApplyingOp {
            applying: self.makes.make(build, self.op),
            key: self.key.clone(),
            op: self.op,
            changes: vec![],
            done: 0,
        })
    }
    fn origins(&self) -> Origins {
        match M::NEEDS_ORIGINS {
            true => Origins::Needs,
            false => Origins::Keeps,
        }
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct ApplyingOp<T, K, M>
where
    K: KeyOf<Change<T>>,
    M: MakesApplying<T, K::Key>,
{
    key: K,
    applying: M::Applying,
    op: OpId,
    /// Of the change in hand; empty between two.
    changes: Vec<Change<RowOf<T, K::Key, M>>>,
    /// Changes of the batch in hand that have been taken; 0 between batches.
    done: usize,
}

/// The id of a key that was perhaps found before what came since.
#[inline(always)]
fn id_of<K: Key, V>(table: &KeyTable<K, V>, hash: u64, candidate: u32, key: &K) -> u32 {
    // The key of what has gone stays in its place.
    match candidate < table.id_end() && table.is_live(candidate) && table.key(candidate) == key {
        true => candidate,
        false => table.find(hash, key),
    }
}

impl<T, K, M> ApplyingOp<T, K, M>
where
    T: Send + 'static,
    K: KeyOf<Change<T>>,
    M: MakesApplying<T, K::Key>,
{
    /// Takes changes `from..to`, at most a chunk, as many as there is room and work left for; how far it came.
    #[inline(always)]
    fn chunk<O: Push<<Self as Operator<Change<T>>>::Out>>(
        &mut self,
        batch: &Batch<Change<T>>,
        (from, to): (usize, usize),
        work: &mut usize,
        out: &mut O,
        cx: &mut Cx,
    ) -> usize {
        let (key_of, applying, op) = (&self.key, &mut self.applying, self.op);
        let changes = &mut self.changes;
        let probes = probe(applying.keys(), key_of, op, &batch.records[from..to]);
        let mut stamps = Stamps::from(batch, from);
        for (index, (hash, candidate)) in (from..to).zip(probes) {
            let change = &batch.records[index];
            let at = match M::NEEDS_ORIGINS {
                true => At::of(batch, index),
                false => At {
                    time: batch.times[index],
                    origin: Origin::default(),
                },
            };
            let looked = blame_at(op, index, || {
                key_of.with(change, |key| {
                    let id = id_of(applying.keys(), hash, candidate, key);
                    applying.apply(key, id, change, at, changes)
                })
            });
            cx.counters.stray_retractions += u64::from(looked.is_none());
            *work = work.saturating_sub(looked.unwrap_or(1));
            let stamp = stamps.of(batch, index, cx);
            let parent = cx.origin.emission;
            for (n, change) in changes.drain(..).enumerate() {
                cx.origin.emission = Origin::below(parent, n as u64);
                out.push(change, stamp, cx);
            }
            // A change may make many.
            if out.blocked() || *work == 0 {
                return index + 1;
            }
        }
        to
    }
}

impl<T, K, M> Operator<Change<T>> for ApplyingOp<T, K, M>
where
    T: Send + 'static,
    K: KeyOf<Change<T>>,
    M: MakesApplying<T, K::Key>,
{
    type Out = Change<RowOf<T, K::Key, M>>;

    #[inline]
    fn batch<O: Push<Self::Out>>(
        &mut self,
        batch: &mut Batch<Change<T>>,
        out: &mut O,
        cx: &mut Cx,
    ) {
        let mut work = WORK;
        while self.done < batch.len() {
            let part = (self.done, (self.done + CHUNK).min(batch.len()));
            self.done = self.chunk(batch, part, &mut work, out, cx);
            if (out.blocked() || work == 0) && self.done < batch.len() {
                return;
            }
        }
        self.done = 0;
        batch.clear();
    }

    fn watermark<O: Push<Self::Out>>(&mut self, _: EventTime, _: &mut O, _: &mut Cx) {}

    fn begin_epoch(&mut self, cut: Cut) {
        self.applying.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        self.applying.sizes(to);
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.applying.save(to)
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.applying.load(frame)
    }

    fn loaded(&mut self) {
        self.applying.loaded();
    }
}
