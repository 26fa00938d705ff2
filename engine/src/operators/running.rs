//! Running values: reduce, fold and aggregates per key that emit the new value for every record.
//!
//! Laws
//! 1. One record in, one result out, with the record's time, behind mark and origin; no record is ever too late.
//! 2. A value depends on the records that came before it at this operator, in the order in which they came. So the last
//!    value of a key is fixed only if the function is associative and commutative (class NET). Behind
//!    `.in_event_time_order()` the order itself is fixed and every value is (class ROWS).
//! 3. Results keep the order of their records; between two looks at whether the outputs are full there is one chunk.
//!
//! State: a value for each key, kept for ever (a warning says so), in a checkpoint as well. O(1) a record.

use crate::aggregate::{Aggregate, At};
use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot, Touch, Untracked};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::values::Values;
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::push::{Cx, OpId, Push, blame, blame_at};
use crate::query::{Ask, Asks};
use crate::running::Keyed;
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::{CACHED, Home, KeyTable, NONE};
use crate::time::EventTime;
use std::marker::PhantomData;

/// Records whose probes are under way together: enough to hide the misses of one another.
pub(crate) const CHUNK: usize = 64;

/// What is kept for a key, and what is told of it.
pub trait Running<T>: Clone + Send + 'static {
    /// What is kept, in checkpoints as well.
    type State: State;
    /// What is told.
    type Value: Send + 'static;
    /// Whether it breaks ties by origin.
    const NEEDS_ORIGINS: bool = false;
    /// The state after a key's first record.
    fn first(&self, record: &T, at: At) -> Self::State;
    /// Takes a further record.
    fn add(&self, state: &mut Self::State, record: &T, at: At);
    /// What is told now.
    fn value(&self, state: &Self::State) -> Self::Value;
}

/// `reduce`: the first record, changed by each that follows.
#[derive(Clone, Debug)]
pub struct Reduce<F>(pub(crate) F);

impl<T: Clone + State, F: Fn(&mut T, &T) + Clone + Send + 'static> Running<T> for Reduce<F> {
    type State = T;
    type Value = T;
    #[inline(always)]
    fn first(&self, record: &T, _: At) -> T {
        record.clone()
    }
    #[inline(always)]
    fn add(&self, state: &mut T, record: &T, _: At) {
        (self.0)(state, record);
    }
    #[inline(always)]
    fn value(&self, state: &T) -> T {
        state.clone()
    }
}

/// `fold`: an initial value, changed by each record.
#[derive(Clone, Debug)]
pub struct Fold<S, F>(pub(crate) S, pub(crate) F);

impl<T, S, F> Running<T> for Fold<S, F>
where
    S: Clone + State,
    F: Fn(&mut S, &T) + Clone + Send + 'static,
{
    type State = S;
    type Value = S;
    #[inline(always)]
    fn first(&self, record: &T, at: At) -> S {
        let mut state = self.0.clone();
        self.add(&mut state, record, at);
        state
    }
    #[inline(always)]
    fn add(&self, state: &mut S, record: &T, _: At) {
        (self.1)(state, record);
    }
    #[inline(always)]
    fn value(&self, state: &S) -> S {
        state.clone()
    }
}

/// `running`: an aggregate's value so far.
#[derive(Clone, Debug)]
pub struct SoFar<A>(pub(crate) A);

impl<T, A: Aggregate<T>> Running<T> for SoFar<A> {
    type State = A::Acc;
    type Value = A::Out;
    const NEEDS_ORIGINS: bool = A::NEEDS_ORIGINS;
    #[inline(always)]
    fn first(&self, record: &T, at: At) -> A::Acc {
        let mut acc = self.0.create();
        self.0.add(&mut acc, record, at);
        acc
    }
    #[inline(always)]
    fn add(&self, acc: &mut A::Acc, record: &T, at: At) {
        self.0.add(acc, record, at);
    }
    #[inline(always)]
    fn value(&self, acc: &A::Acc) -> A::Out {
        self.0.finish(acc)
    }
}

/// Makes [`RunningOp`] on each shard.
#[derive(Debug)]
pub struct MakeRunning<T, K, R> {
    pub(crate) key: K,
    pub(crate) running: R,
    pub(crate) op: OpId,
    pub(crate) record: PhantomData<fn(T)>,
}

#[allow(private_interfaces)]
impl<T: Send + 'static, K: KeyOf<T>, R: Running<T>> MakeOperator<T> for MakeRunning<T, K, R> {
    type Op = RunningOp<T, K, R>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        build.can_be_asked::<K::Key, R::State>(self.op, "keyed");
        Ok(RunningOp {
            values: Values::of_named("keyed", build, self.op),
            key: self.key.clone(),
            running: self.running.clone(),
            op: self.op,
            done: 0,
        })
    }
    fn origins(&self) -> Origins {
        if R::NEEDS_ORIGINS {
            Origins::Needs
        } else {
            Origins::Keeps
        }
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct RunningOp<T, K: KeyOf<T>, R: Running<T>> {
    key: K,
    running: R,
    op: OpId,
    values: Values<K::Key, R::State>,
    /// Records of the batch in hand that have been taken; 0 between batches.
    done: usize,
}

/// Looks up the keys of a chunk's records: each record's hash, and the entry that is very likely its key's. In a large
/// table first all slots are asked for, then all entries, so that the cache misses of different records overlap.
#[inline(always)]
pub(crate) fn probe<T, K: KeyOf<T>, V>(
    table: &KeyTable<K::Key, V>,
    key_of: &K,
    op: OpId,
    records: &[T],
) -> [(u64, u32); CHUNK] {
    let mut probes = [(0, NONE); CHUNK];
    let hash = |record| blame(op, || key_of.with(record, |key| table.hash(key)));
    if table.len() < CACHED {
        for (record, probe) in records.iter().zip(&mut probes) {
            let hash = hash(record);
            *probe = (hash, table.candidate(hash));
        }
        return probes;
    }
    let Some(pages) = table.several_pages() else {
        // All keys hash alike, or nearly so: each is looked for by itself.
        let hashed = records.iter().zip(&mut probes);
        hashed.for_each(|(record, probe)| probe.0 = hash(record));
        return probes;
    };
    let mut homes = [Home::default(); CHUNK];
    for ((record, probe), home) in records.iter().zip(&mut probes).zip(&mut homes) {
        probe.0 = hash(record);
        *home = pages.home(probe.0);
        home.prefetch();
    }
    for ((hash, found), home) in probes.iter_mut().zip(&homes).take(records.len()) {
        *found = home.candidate(*hash);
        table.prefetch_entry(*found);
    }
    probes
}

/// The stamps and origins of a batch's records, asked in ascending order.
pub(crate) struct Stamps {
    /// The next behind mark.
    mark: usize,
}

impl Stamps {
    /// From record `from` on.
    pub fn from<T>(batch: &Batch<T>, from: usize) -> Self {
        Stamps {
            mark: batch.behind.partition_point(|b| (b.index as usize) < from),
        }
    }

    /// The stamp of record `index`; its origin, or the best that is known of it, goes to `cx`.
    #[inline(always)]
    pub fn of<T>(&mut self, batch: &Batch<T>, index: usize, cx: &mut Cx) -> Stamp {
        cx.origin = match batch.origins.get(index) {
            Some(&origin) => origin,
            None => batch.last,
        };
        let mut stamp = Stamp::at(batch.times[index]);
        if let Some(b) = batch.behind.get(self.mark)
            && b.index as usize == index
        {
            stamp.behind = Some(b.watermark);
            self.mark += 1;
        }
        stamp
    }

    /// Record `index` has nothing to be stamped.
    #[inline(always)]
    pub fn pass<T>(&mut self, index: usize, batch: &Batch<T>) {
        if let Some(b) = batch.behind.get(self.mark)
            && b.index as usize == index
        {
            self.mark += 1;
        }
    }
}

impl<T: Send + 'static, K: KeyOf<T>, R: Running<T>> RunningOp<T, K, R> {
    /// Takes records `from..to`, at most a chunk.
    #[inline(always)]
    fn chunk<O: Push<Keyed<K::Key, R::Value>>, C: Touch<K::Key, R::State>>(
        (key_of, running, op): (&K, &R, OpId),
        table: &mut KeyTable<K::Key, R::State>,
        batch: &Batch<T>,
        (from, to): (usize, usize),
        touch: &mut C,
        out: &mut O,
        cx: &mut Cx,
    ) {
        let probes = probe(table, key_of, op, &batch.records[from..to]);
        let mut stamps = Stamps::from(batch, from);
        touch.touch_all(probes[..to - from].iter().map(|p| p.1), table);
        for (index, (hash, candidate)) in (from..to).zip(probes) {
            let record = &batch.records[index];
            let at = if R::NEEDS_ORIGINS {
                At::of(batch, index)
            } else {
                At {
                    time: batch.times[index],
                    origin: Origin::default(),
                }
            };
            let update = blame_at(op, index, || {
                key_of.with(record, |key| {
                    let value = if let Some(state) = table.verified(candidate, key) {
                        running.add(state, record, at);
                        running.value(state)
                    } else {
                        let (id, new) =
                            table.find_or_insert(hash, key, || running.first(record, at));
                        let state = table.value_mut(id);
                        touch.touch(id, key, state);
                        if !new {
                            running.add(state, record, at);
                        }
                        running.value(state)
                    };
                    Keyed {
                        key: key.clone(),
                        value,
                    }
                })
            });
            let stamp = stamps.of(batch, index, cx);
            out.push(update, stamp, cx);
        }
    }
}

impl<T: Send + 'static, K: KeyOf<T>, R: Running<T>> Operator<T> for RunningOp<T, K, R> {
    type Out = Keyed<K::Key, R::Value>;

    #[inline]
    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        while self.done < batch.len() {
            let to = (self.done + CHUNK).min(batch.len());
            let (user, part) = ((&self.key, &self.running, self.op), (self.done, to));
            let (table, kept) = self.values.parts();
            match kept {
                None => Self::chunk(user, table, batch, part, &mut Untracked, out, cx),
                Some(kept) => {
                    Self::chunk(user, table, batch, part, &mut kept.tracked(), out, cx);
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
