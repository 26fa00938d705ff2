//! Windows that overlap (sliding, cumulating): one table of keys, each with a rolling aggregate over its slices.
//!
//! Laws
//! 1. Windows fire in the order of their ends, once M has reached them: all keys that have a record in them, by id, in bounded pieces.
//!    A record on time is added to its slice alone, so its cost does not depend on size / slide. At each window end every live key is
//!    visited: its slice closes, its total is emitted, what no later window holds is forgotten ([`stacks`]).
//! 2. A behind record r counts in the windows with end + allowed lateness > V(r), fired or not. Where these are all windows of its slice and
//!    the slice is open it is an ordinary record; else it lies beside the slice, marked with the first window that it counts in. Late in some
//!    windows: partly late, counted once. Late in all: late output (SEMANTICS, time, 4).
//! 3. With one correction, what an on-time result holds is decided by V(r) < end and never by M, so it is fixed. Corrections
//!    come in the order of end + allowed lateness, before the windows that fire at that time.
//! 4. The watermark handed on is M less the allowed lateness: no result's time lies below it.
//! 5. With early firing, unfired windows that changed are told within the interval, and nothing else depends on it ([`early`]).
//! 6. A key whose slices are all gone is removed; in a checkpoint a key is one entry ([`kept`]). No allocation in steady state: entries and what hangs on them are used again.
//!
//! Class: ROWS; NET with allowed lateness in update mode; EXEMPT with early firing, except its final values. State: for each key
//! an accumulator for each slice that has records, until
//! M has reached the end of the last window that holds it; with allowed lateness a second one, until M has reached that end + allowed lateness.
//! Cost: O(1) amortised merges for each key and slide; a behind record O(slices of the windows that it changes); records out of
//! order over many open slices O(log of these), a key's first record in one O(these).
//!
//! Slices shared by windows: Li, Maier, Tufte, Papadimos, Tucker, "No pane, no gain" (2005).

mod early;
pub(crate) mod entry;
mod kept;
mod keys;
mod operator;
mod overdue;
pub(crate) mod slicing;
pub(crate) mod stacks;
#[cfg(test)]
mod tests;

use self::early::{Early, Stretch};
use self::entry::{NO_SLICE, Rests};
use self::keys::{Changes, Pass, Reason, State, other_slot};
use self::slicing::Slicing;
use self::stacks::{Keep, Stacks};
use crate::aggregate::{Aggregate, At};
use crate::batch::{Batch, Origin, Stamp};
use crate::checkpoint::Kept;
use crate::error::BuildError;
use crate::key::{Key, KeyOf, stable_hash};
use crate::operators::late::{Late, LateTo};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild, StageSpec};
use crate::push::{Cx, OpId, Push, blame_at};
use crate::table::{CACHED, Home, KeyTable, NONE};
use crate::time::{EventTime, Span};
use crate::window::{Firing, LateMode, Lateness, Window, Windowed};

/// Records of a batch that are looked up together: enough to hide the misses of one another.
const MANY: usize = 64;
/// The same of what is left, and of small batches.
const FEW: usize = 8;
/// Merges, or the like, done in one step.
const WORK: i64 = 4096;
/// What a visit to a key counts for.
const VISIT: i64 = 4;
/// Later than every window end: nothing is due.
const NEVER: i64 = i64::MAX;
/// Removed keys may keep their memory for others if they are so few, or fewer than the live ones.
const SPARE_MIN: usize = 1024;
/// How many ids ahead of a visit the cache is asked.
const IDS_AHEAD: u32 = 8;

/// Makes [`SlidingOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeSliding<T, K, A> {
    pub(crate) slicing: Slicing,
    pub(crate) lateness: Lateness,
    pub(crate) early: Option<Span>,
    pub(crate) key: K,
    pub(crate) aggregate: A,
    pub(crate) late: Option<LateTo<T>>,
    pub(crate) op: OpId,
}

#[allow(private_interfaces)]
impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>> MakeOperator<T> for MakeSliding<T, K, A> {
    type Op = SlidingOp<T, K, A>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        let keep = match self.slicing.cumulates {
            true => Keep::Sum,
            false if A::GROWS => Keep::Slices,
            false => Keep::TwoStacks,
        };
        let scratch = Stacks::new(self.aggregate.create());
        let early = self
            .early
            .map(|every| Box::new(Early::new(every, self.aggregate.create())));
        Ok(SlidingOp {
            key: self.key.clone(),
            aggregate: self.aggregate.clone(),
            late: LateTo::open(&self.late, build),
            late_records: vec![],
            taken: 0,
            behind_taken: 0,
            changes: None,
            early,
            state: State {
                kept: Kept::of::<kept::Entry<K::Key, A::Acc>>(build, self.op),
                op: self.op,
                slicing: self.slicing,
                allowed: self.lateness.allowed.micros(),
                corrects: self.lateness.mode == LateMode::OneCorrection,
                keep,
                table: KeyTable::new(),
                rests: Rests::new(),
                parts: 0,
                scratch,
                current: 0,
                current_length: 0,
                most_parts: self.slicing.slices(),
                watermark: EventTime::BEGINNING,
                last_end: i64::MIN,
                fire_at: NEVER,
                correct_at: NEVER,
                forget_at: NEVER,
                overdue: None,
            },
            pass: None,
        })
    }
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        LateTo::stages(&mut self.late)
    }
    fn origins(&self) -> Origins {
        if A::NEEDS_ORIGINS {
            Origins::Needs
        } else {
            Origins::Makes
        }
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct SlidingOp<T, K: KeyOf<T>, A: Aggregate<T>> {
    key: K,
    aggregate: A,
    late: Late<T>,
    /// Of the batch being taken: the late ones, and how far it has been taken.
    late_records: Vec<(usize, Stamp)>,
    taken: usize,
    behind_taken: usize,
    state: State<K::Key, A::Acc>,
    pass: Option<Pass>,
    changes: Option<Changes>,
    early: Option<Box<Early<A::Acc>>>,
}

/// Emits a result. Its event time is the last of its window; its origin is the operator and the key's hash.
#[inline(always)]
fn emit<K: Key, V, O: Push<Windowed<K, V>>>(
    key: &K,
    value: V,
    (start, end): (i64, i64),
    firing: Firing,
    op: OpId,
    out: &mut O,
    cx: &mut Cx,
) {
    let window = Window {
        start: EventTime::from_micros(start),
        end: EventTime::from_micros(end),
    };
    cx.origin = Origin::derived(op, stable_hash(key));
    let result = Windowed {
        key: key.clone(),
        window,
        value,
        firing,
    };
    out.push(result, Stamp::at(window.end - Span::from_micros(1)), cx);
}

impl<T, K: KeyOf<T>, A: Aggregate<T>> SlidingOp<T, K, A> {
    /// Adds records `from..to`.
    fn on_time(&mut self, batch: &Batch<T>, from: usize, to: usize, cx: &Cx) {
        match self.state.kept.is_some() {
            true => self.add_all::<true>(batch, from, to),
            false => self.add_all::<false>(batch, from, to),
        }
        if self.early.is_some() {
            self.mark(batch, from, to, cx);
        }
    }

    /// Marks the windows that records `from..to`, which are on time and have been added, have changed.
    #[inline(never)]
    fn mark(&mut self, batch: &Batch<T>, from: usize, to: usize, cx: &Cx) {
        let (state, key_of) = (&self.state, &self.key);
        let Some(early) = &mut self.early else {
            return;
        };
        let mut slice = 0..0;
        let mut windows = Stretch { from: 0, last: 0 };
        for (n, record) in batch.records[from..to].iter().enumerate() {
            let time = batch.times[from + n].micros();
            if !slice.contains(&time) {
                slice = state.slicing.slice_of(time);
                windows.from = state.slicing.first_end(slice.start);
                windows.last = state.slicing.last_end(slice.start);
            }
            let id = blame_at(state.op, from + n, || {
                key_of.with(record, |key| state.table.find(state.table.hash(key), key))
            });
            early.mark(id, windows, state.watermark.micros(), cx.now_ns);
        }
    }

    /// Adds records `from..to` to their slices. `KEEPS`: the job takes checkpoints.
    fn add_all<const KEEPS: bool>(&mut self, batch: &Batch<T>, from: usize, to: usize) {
        let mut at = from;
        if self.state.table.len() < CACHED {
            for index in at..to {
                let hash = self.hash(&batch.records[index], index);
                let candidate = self.state.table.candidate(hash);
                self.add::<KEEPS>(batch, index, hash, candidate);
            }
            return;
        }
        while to - at >= MANY {
            self.add_some::<KEEPS, MANY>(batch, at, at + MANY);
            at += MANY;
        }
        while at < to {
            let end = to.min(at + FEW);
            self.add_some::<KEEPS, FEW>(batch, at, end);
            at = end;
        }
    }

    /// Adds records `from..to`, no more than N, to a large table. In three passes: hash, look the entry up, add. What one record needs is
    /// asked of the cache in the pass before, so that misses overlap. A candidate may be stale when its turn comes, since
    /// records before it add keys: it is verified.
    #[inline(always)]
    fn add_some<const KEEPS: bool, const N: usize>(
        &mut self,
        batch: &Batch<T>,
        from: usize,
        to: usize,
    ) {
        let records = &batch.records[from..to];
        let mut hashes = [0u64; N];
        let mut found = [NONE; N];
        let table = &self.state.table;
        let mut homes = [Home::default(); N];
        for (n, ((record, hash), home)) in
            records.iter().zip(&mut hashes).zip(&mut homes).enumerate()
        {
            *hash = self.hash(record, from + n);
            *home = table.home(*hash);
            home.prefetch();
        }
        let looks = hashes.iter().zip(&homes).zip(&mut found);
        for ((hash, home), found) in looks.take(records.len()) {
            *found = home.candidate(*hash);
            table.prefetch_entry(*found);
        }
        for (n, (hash, found)) in hashes.into_iter().zip(found).enumerate().take(to - from) {
            self.add::<KEEPS>(batch, from + n, hash, found);
        }
    }

    #[inline(always)]
    fn hash(&self, record: &T, index: usize) -> u64 {
        let table = &self.state.table;
        blame_at(self.state.op, index, || {
            self.key.with(record, |key| table.hash(key))
        })
    }

    /// Adds a record on time whose entry very likely is `candidate`.
    #[inline(always)]
    fn add<const KEEPS: bool>(
        &mut self,
        batch: &Batch<T>,
        index: usize,
        hash: u64,
        candidate: u32,
    ) {
        let (record, time) = (&batch.records[index], batch.times[index]);
        let (state, key_of, aggregate) = (&mut self.state, &self.key, &self.aggregate);
        let mut slice = state.current;
        if time.micros().wrapping_sub(slice) as u64 >= state.current_length {
            slice = state.enter(time.micros());
        }
        let origin = if A::NEEDS_ORIGINS {
            batch.origin(index)
        } else {
            Origin::default()
        };
        blame_at(
            state.op,
            index,
            #[inline(always)]
            || {
                key_of.with(
                    record,
                    #[inline(always)]
                    |key| {
                        let mut id = candidate;
                        if KEEPS {
                            if state.table.verified(id, key).is_none() {
                                id = state.find_or_insert(hash, key, aggregate);
                            }
                            state.touch(id);
                        }
                        let entry = match state.table.verified(id, key) {
                            Some(entry) => entry,
                            None => {
                                id = state.find_or_insert(hash, key, aggregate);
                                state.table.value_mut(id)
                            }
                        };
                        // A choice and a store, not a branch that the processor could not guess.
                        let newest = entry.slice;
                        let newest = if newest == NO_SLICE { slice } else { newest };
                        entry.slice = newest;
                        let acc = if newest == slice {
                            &mut entry.acc
                        } else {
                            let rest = state.rests.get_mut(id);
                            other_slot(entry, rest, slice, aggregate, &mut state.parts)
                        };
                        aggregate.add(acc, record, At { time, origin });
                    },
                )
            },
        );
    }

    /// Adds a record that is behind its watermark `v` (law 2); whether it is not too late.
    #[cold]
    fn behind(&mut self, batch: &Batch<T>, index: usize, v: EventTime, cx: &mut Cx) -> bool {
        let state = &mut self.state;
        let (slicing, allowed) = (state.slicing, state.allowed);
        let slice = slicing.slice_of(batch.times[index].micros()).start;
        let (first, last) = (slicing.first_end(slice), slicing.last_end(slice));
        let v = v.micros();
        if last + allowed <= v {
            return false;
        }
        if first + allowed <= v {
            cx.counters.partly_late += 1;
        }
        let from = first.max(slicing.end_after(v - allowed));
        let on_time = if state.corrects {
            first.max(slicing.end_after(v))
        } else {
            from
        };
        let m = state.watermark.micros();
        if on_time == first && first > m {
            self.on_time(batch, index, index + 1, cx);
            return true;
        }
        state.last_end = state.last_end.max(last);
        state.forget_at = state.forget_at.min(state.forget_after(last));
        let fires = if on_time > m {
            on_time
        } else {
            slicing.end_after(m)
        };
        if fires <= last {
            state.fire_at = state.fire_at.min(fires);
        }
        if from < on_time {
            state.correct_at = state.correct_at.min(from);
        }
        let (key_of, aggregate) = (&self.key, &self.aggregate);
        let id = blame_at(state.op, index, || {
            key_of.with(&batch.records[index], |key| {
                let id = state.find_or_insert(state.table.hash(key), key, aggregate);
                state.touch(id);
                let kept = state.rests.get_mut(id).kept.get_or_insert_default();
                let side = kept.side(slice, from, on_time, || {
                    state.parts += 1;
                    aggregate.create()
                });
                aggregate.add(side, &batch.records[index], At::of(batch, index));
                id
            })
        });
        if let Some(early) = &mut self.early
            && on_time.max(m + 1) <= last
        {
            let from = on_time;
            early.mark(id, Stretch { from, last }, m, cx.now_ns);
        }
        if !state.corrects && from <= m {
            self.changes = Some(state.changes(id, from, last.min(m), Firing::Update));
        }
        true
    }

    /// Goes on with the changes under way; `true` when there are none left. Asked at each visit to a key, and there are seldom any.
    #[inline(always)]
    fn change<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        work: &mut i64,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        self.changes.is_none() || self.change_on(work, out, cx)
    }

    #[cold]
    #[inline(never)]
    fn change_on<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        work: &mut i64,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        if let Some(changes) = &mut self.changes
            && !self
                .state
                .emit_changes(changes, &self.aggregate, work, out, cx)
        {
            return false;
        }
        self.changes = None;
        true
    }

    /// Visits the key whose turn it is; `true` when done with it, else call again.
    #[inline(always)]
    fn visit<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        pass: &mut Pass,
        work: &mut i64,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        if pass.reason == Reason::Correct && !pass.emitted {
            let start = pass.start;
            if let Some(kept) = &self.state.rests.get(pass.id).kept
                && kept.is_parked(start, pass.end)
            {
                let changes = self
                    .state
                    .changes(pass.id, pass.end, pass.end, Firing::Correction);
                self.changes = Some(changes);
            }
            pass.emitted = true;
        }
        self.change(work, out, cx) && self.state.visit(pass, &self.aggregate, work, out, cx)
    }
}
