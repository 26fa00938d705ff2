//! Values by key whose changes are told as rows ([`mod@crate::change`]): what stands behind changelogs and continuous top-N.
//!
//! Laws
//! 1. A record's changes have its time, behind mark and origin (numbered below it) and come before those of the next one; no record is
//!    ever too late.
//! 2. Changes of a key lead from what it told before to what it tells now: applied in order, they never take away what does not stand.
//! 3. What stands for a key depends on the records that came before, in the order in which they came (class NET if that order does not matter
//!    in the end). Behind `.in_event_time_order()` each change is fixed (class ROWS).
//!
//! State: what a key told last, for ever (a warning says so), in a checkpoint as well; one entry a key. A record costs one probe besides what
//! it changes.

use crate::aggregate::At;
use crate::batch::{Batch, Origin};
use crate::budget::Sizes;
use crate::change::Change;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot, Touch, Untracked};
use crate::error::BuildError;
use crate::key::{Key, KeyOf};
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::operators::values::Values;
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::push::{Cx, OpId, Push, blame_at};
use crate::query::{Ask, Asks};
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::KeyTable;
use crate::time::EventTime;
use std::marker::PhantomData;

/// What is kept for a key, and what changes with a record.
pub trait Changing<T, K: Key>: Clone + Send + 'static {
    /// What is kept, in checkpoints as well.
    type State: State;
    /// A row that is told.
    type Row: Send + 'static;
    /// Whether it breaks ties by origin.
    const NEEDS_ORIGINS: bool;
    /// What the state is called: another name where what an earlier version of the job kept is of no use.
    fn state_name(&self) -> String {
        "keyed".into()
    }
    /// The state after a key's first record.
    fn first(
        &self,
        key: &K,
        record: &T,
        at: At,
        changes: &mut Vec<Change<Self::Row>>,
    ) -> Self::State;
    /// Whether a state holds memory apart, which is worth asking for.
    const LIES_APART: bool = false;
    /// Asks the cache for what a further record will look at there.
    #[inline(always)]
    fn ask_for(&self, _state: &Self::State) {}
    /// Takes a further record. `touch` is called before the state changes; where nothing changes it is not, and then that is no change to a
    /// checkpoint, either.
    fn add(
        &self,
        key: &K,
        state: &mut Self::State,
        record: &T,
        at: At,
        touch: impl FnOnce(&Self::State),
        changes: &mut Vec<Change<Self::Row>>,
    );
}

/// Makes [`ChangingOp`] on each shard.
#[derive(Debug)]
pub struct MakeChanging<T, K, C> {
    pub(crate) key: K,
    pub(crate) changing: C,
    pub(crate) op: OpId,
    pub(crate) record: PhantomData<fn(T)>,
}

#[allow(private_interfaces)]
impl<T, K, C> MakeOperator<T> for MakeChanging<T, K, C>
where
    T: Send + 'static,
    K: KeyOf<T>,
    C: Changing<T, K::Key>,
{
    type Op = ChangingOp<T, K, C>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        let name = self.changing.state_name();
        build.can_be_asked::<K::Key, C::State>(self.op, &name);
        Ok(ChangingOp {
            values: Values::of_named(&name, build, self.op),
            key: self.key.clone(),
            changing: self.changing.clone(),
            op: self.op,
            changes: vec![],
            done: 0,
        })
    }
    fn origins(&self) -> Origins {
        match C::NEEDS_ORIGINS {
            true => Origins::Needs,
            false => Origins::Keeps,
        }
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct ChangingOp<T, K: KeyOf<T>, C: Changing<T, K::Key>> {
    key: K,
    changing: C,
    op: OpId,
    values: Values<K::Key, C::State>,
    /// Of the record in hand; empty between two.
    changes: Vec<Change<C::Row>>,
    /// Records of the batch in hand that have been taken; 0 between batches.
    done: usize,
}

/// What records are taken with, and where they go: the table apart from what tells of it.
struct Taking<'a, K, S, C, R, U> {
    user: (&'a K, &'a C, OpId),
    table: &'a mut KeyTable<S, R>,
    changes: &'a mut Vec<U>,
}

impl<K, S, C, R, U> Taking<'_, K, S, C, R, Change<U>>
where
    S: Key,
    R: State,
{
    /// Takes records `from..to`, at most a chunk, and as many as there is room for; how far it came.
    #[inline(always)]
    fn chunk<T, O: Push<Change<U>>, H: Touch<S, R>>(
        &mut self,
        batch: &Batch<T>,
        (from, to): (usize, usize),
        touch: &mut H,
        out: &mut O,
        cx: &mut Cx,
    ) -> usize
    where
        K: KeyOf<T, Key = S>,
        C: Changing<T, S, State = R, Row = U>,
    {
        let (key_of, changing, op) = self.user;
        let (table, changes) = (&mut *self.table, &mut *self.changes);
        let probes = probe(table, key_of, op, &batch.records[from..to]);
        if C::LIES_APART {
            for (_, candidate) in &probes[..to - from] {
                if let Some(state) = table.get(*candidate) {
                    changing.ask_for(state);
                }
            }
        }
        let mut stamps = Stamps::from(batch, from);
        for (index, (hash, candidate)) in (from..to).zip(probes) {
            let record = &batch.records[index];
            let at = match C::NEEDS_ORIGINS {
                true => At::of(batch, index),
                false => At {
                    time: batch.times[index],
                    origin: Origin::default(),
                },
            };
            blame_at(op, index, || {
                key_of.with(record, |key| {
                    let id = match table.verified(candidate, key) {
                        Some(_) => candidate,
                        None => {
                            let (id, new) = table.find_or_insert(hash, key, || {
                                changing.first(key, record, at, changes)
                            });
                            if new {
                                touch.touch(id, key, table.value(id));
                                return;
                            }
                            id
                        }
                    };
                    let told = |state: &R| touch.touch(id, key, state);
                    let state = table.value_mut(id);
                    changing.add(key, state, record, at, told, changes);
                });
            });
            if changes.is_empty() {
                stamps.pass(index, batch);
                continue;
            }
            let stamp = stamps.of(batch, index, cx);
            let parent = cx.origin.emission;
            for (n, change) in changes.drain(..).enumerate() {
                cx.origin.emission = Origin::below(parent, n as u64);
                out.push(change, stamp, cx);
            }
            // A record may make many.
            if out.blocked() {
                return index + 1;
            }
        }
        to
    }
}

impl<T, K, C> Operator<T> for ChangingOp<T, K, C>
where
    T: Send + 'static,
    K: KeyOf<T>,
    C: Changing<T, K::Key>,
{
    type Out = Change<C::Row>;

    #[inline]
    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        let (table, mut kept) = self.values.parts();
        let mut taking = Taking {
            user: (&self.key, &self.changing, self.op),
            table,
            changes: &mut self.changes,
        };
        while self.done < batch.len() {
            let part = (self.done, (self.done + CHUNK).min(batch.len()));
            self.done = match &mut kept {
                None => taking.chunk(batch, part, &mut Untracked, out, cx),
                Some(kept) => taking.chunk(batch, part, &mut kept.tracked(), out, cx),
            };
            if out.blocked() && self.done < batch.len() {
                return;
            }
        }
        self.done = 0;
        batch.clear();
    }

    fn watermark<O: Push<Self::Out>>(&mut self, _: EventTime, _: &mut O, _: &mut Cx) {}

    fn begin_epoch(&mut self, cut: Cut) {
        self.values.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        self.values.sizes(to);
    }

    fn answer(&self, ask: &mut Ask) {
        self.values.answer(ask);
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.values.save(to)
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.values.load(frame, || None)
    }

    fn loaded(&mut self) {
        self.values.loaded();
    }
}
