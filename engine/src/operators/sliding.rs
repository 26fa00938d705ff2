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
mod overdue;
pub(crate) mod slicing;
pub(crate) mod stacks;
#[cfg(test)]
mod tests;

use self::early::{Early, Stretch};
use self::entry::{NO_SLICE, Rest, Rests, SlidingKey};
use self::overdue::Overdue;
use self::slicing::Slicing;
use self::stacks::{Keep, Part, Stacks};
use crate::aggregate::{Aggregate, At};
use crate::batch::{Batch, Origin, Stamp};
use crate::budget::{Size, Sizes};
use crate::checkpoint::{Cut, Frame, Kept, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::{Key, KeyOf, stable_hash};
use crate::operators::late::{Late, LateTo};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild, StageSpec};
use crate::push::{Control, Cx, OpId, Push, blame, blame_at};
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::table::{CACHED, KeyTable, NONE};
use crate::time::{EventTime, Span};
use crate::window::{Firing, LateMode, Lateness, Window, Windowed};

/// Records between asking the cache and using what was asked for. A power of two.
const AHEAD: usize = 16;
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

/// Why all keys are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The window fires.
    Fire,
    /// The window is corrected.
    Correct,
    /// Nothing fires soon, and something may be forgotten.
    Forget,
}

/// A visit to all keys, under way.
#[derive(Clone, Copy, Debug)]
struct Pass {
    reason: Reason,
    /// End of the window; the time that has been reached, if all is about forgetting.
    end: i64,
    /// Start of the window, and of the next one.
    start: i64,
    next_start: i64,
    /// Start of the oldest slice that a behind record may still need once this pass is over.
    kept_from: i64,
    /// The key to visit.
    id: u32,
    /// It has been emitted; what remains is forgetting.
    emitted: bool,
    /// Some key has a closed slice in the next window too.
    again: bool,
    /// The oldest open slice of those visited.
    open: i64,
    /// The next window end that a behind record wants fired (or corrected).
    behind: i64,
    /// The oldest slice kept for behind records.
    kept: i64,
}

/// Results of one key that are to be emitted because of behind records.
#[derive(Clone, Copy, Debug)]
struct Changes {
    id: u32,
    /// End of the next window to emit, and of the last.
    next: i64,
    last: i64,
    firing: Firing,
    /// How many of the key's closed slices have been taken into the scratch stacks, or passed over.
    cursor: usize,
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

/// All but what the user gave.
struct State<K, A> {
    /// Where the job takes checkpoints.
    kept: Option<Kept>,
    op: OpId,
    slicing: Slicing,
    /// Allowed lateness.
    allowed: i64,
    /// One correction instead of updates.
    corrects: bool,
    keep: Keep,
    table: KeyTable<K, SlidingKey<A>>,
    rests: Rests<A>,
    /// Accumulators that all rests have together.
    parts: usize,
    /// Stacks for the windows that a behind record changes.
    scratch: Stacks<A>,
    /// The slice last written to, and its length.
    current: i64,
    current_length: u64,
    /// The most parts that a key in order has.
    most_parts: usize,
    /// M.
    watermark: EventTime,
    /// End of the last window that has a record.
    last_end: i64,
    /// End of the next window to fire. No later than that of any that has a record.
    fire_at: i64,
    /// End of the next window to correct.
    correct_at: i64,
    /// When to forget what is kept for behind records, should nothing fire until then.
    forget_at: i64,
    /// After a restore, until they have caught up.
    overdue: Option<Box<Overdue>>,
}

impl<K: Key, A: Clone + crate::state::State> State<K, A> {
    /// Notes that a record on time goes to this time's slice; its start.
    #[inline(never)]
    fn enter(&mut self, time: i64) -> i64 {
        let slice = self.slicing.slice_of(time);
        self.current = slice.start;
        self.current_length = (slice.end - slice.start) as u64;
        self.fire_at = self.fire_at.min(self.slicing.first_end(slice.start));
        self.last_end = self.last_end.max(self.slicing.last_end(slice.start));
        slice.start
    }

    /// What `parts` is.
    fn count_parts(&self) -> usize {
        let ids = 0..self.table.id_end();
        ids.map(|id| self.rests.get(id).parts()).sum()
    }

    /// The id of a key, which most likely is a new one.
    #[inline(never)]
    fn find_or_insert<T, G: Aggregate<T, Acc = A>>(
        &mut self,
        hash: u64,
        key: &K,
        aggregate: &G,
    ) -> u32 {
        let new = || SlidingKey::new(aggregate.create());
        let (id, _) = self.table.find_or_insert(hash, key, new);
        self.rests.issued(id, || aggregate.create());
        id
    }

    /// When slices may be forgotten that were last needed for a window with this end. A slide later than need be: by then a window has most likely fired.
    fn forget_after(&self, last_end: i64) -> i64 {
        last_end + self.allowed + self.slicing.step()
    }

    /// What is due next, if M has reached it.
    fn next_pass(&self) -> Option<Pass> {
        let now = self.watermark.micros().min(NEVER - 1);
        let correction = self.correct_at.saturating_add(self.allowed);
        let (reason, end) = if correction <= now && correction <= self.fire_at {
            (Reason::Correct, self.correct_at)
        } else if self.fire_at <= now {
            (Reason::Fire, self.fire_at)
        } else if self.forget_at <= now {
            let all = self.forget_after(self.last_end);
            (Reason::Forget, now.min(all))
        } else {
            return None;
        };
        let slicing = &self.slicing;
        let reached = match reason {
            Reason::Fire | Reason::Forget => end - self.allowed,
            Reason::Correct => end,
        };
        Some(Pass {
            reason,
            end,
            start: slicing.start_of(end),
            // At the end of time what is forgotten may lie within a step of the last number.
            next_start: slicing.start_of(end.saturating_add(slicing.step())),
            kept_from: slicing.start_of(slicing.end_after(reached)),
            id: 0,
            emitted: false,
            again: false,
            open: NEVER,
            behind: NEVER,
            kept: NEVER,
        })
    }

    /// All keys have been visited: when to do so again.
    fn passed(&mut self, pass: &Pass) {
        match pass.reason {
            Reason::Fire => {
                self.fire_at = pass.behind;
                if pass.again {
                    self.fire_at = self.fire_at.min(pass.end + self.slicing.step());
                }
                if pass.open != NEVER {
                    self.fire_at = self.fire_at.min(self.slicing.first_end(pass.open));
                }
            }
            Reason::Correct => self.correct_at = pass.behind,
            Reason::Forget => {}
        }
        self.forget_at = match pass.kept {
            NEVER => NEVER,
            oldest => self.forget_after(self.slicing.last_end(oldest)),
        };
    }

    /// Visits one key, and counts what it has; `true` when done, else call again.
    #[inline(always)]
    fn visit<T, G: Aggregate<T, Acc = A>, O: Push<Windowed<K, G::Out>>>(
        &mut self,
        pass: &mut Pass,
        aggregate: &G,
        work: &mut i64,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        let before = self.rests.get(pass.id).parts();
        let done = self.visit_key(pass, aggregate, work, out, cx);
        self.parts = self.parts + self.rests.get(pass.id).parts() - before;
        done
    }

    /// Closes, emits, forgets one key for the window that fires; `true` when done, else call again.
    #[inline(always)]
    fn visit_key<T, G: Aggregate<T, Acc = A>, O: Push<Windowed<K, G::Out>>>(
        &mut self,
        pass: &mut Pass,
        aggregate: &G,
        work: &mut i64,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        if self.kept.is_some() && self.changes_in(pass) {
            self.touch(pass.id);
        }
        let (key, entry) = self.table.entry_mut(pass.id);
        let rest = self.rests.get_mut(pass.id);
        let (end, keep) = (pass.end, self.keep);
        if pass.reason == Reason::Fire {
            let start = pass.start;
            if !pass.emitted {
                if entry.slice < end {
                    let acc = std::mem::replace(&mut entry.acc, aggregate.create());
                    let slice = std::mem::replace(&mut entry.slice, NO_SLICE);
                    rest.stacks.push(Part { slice, acc }, self.most_parts);
                }
                let kept = &mut rest.kept;
                blame(self.op, || {
                    rest.stacks.close(end, keep, aggregate, |part| {
                        if self.allowed > 0 {
                            kept.get_or_insert_default().closed.push_back(part.clone());
                        }
                    })
                });
                let value = blame(self.op, || {
                    let mut total = rest.stacks.total(keep, aggregate);
                    if let Some(kept) = kept {
                        total = kept.with_sides(total, (start, end), true, aggregate);
                    }
                    total.map(|t| aggregate.finish(&t))
                });
                *work -= rest.stacks.total_work(keep);
                if let Some(value) = value {
                    emit(key, value, (start, end), Firing::OnTime, self.op, out, cx);
                }
                pass.emitted = true;
            }
            let evict = || rest.stacks.evict(pass.next_start, keep, aggregate, work);
            if !blame(self.op, evict) {
                return false;
            }
            pass.again |= rest.stacks.has_closed();
            let open = rest.stacks.oldest_open().unwrap_or(entry.slice);
            pass.open = pass.open.min(open);
        }
        if let Some(kept) = &mut rest.kept {
            *work -= kept.forget(pass.kept_from);
            if let Some(oldest) = kept.oldest() {
                pass.kept = pass.kept.min(oldest);
            }
            for side in &kept.sides {
                let last = self.slicing.last_end(side.slice);
                let (next, last) = match pass.reason {
                    Reason::Correct => (side.from, last.min(side.on_time - self.slicing.step())),
                    _ => (side.on_time, last),
                };
                let next = next.max(end.saturating_add(self.slicing.step()));
                if next <= last {
                    pass.behind = pass.behind.min(next);
                }
            }
            *work -= kept.sides.len() as i64;
        }
        if entry.slice == NO_SLICE && rest.is_empty() {
            self.gone(pass.id);
            let rest = self.rests.get_mut(pass.id);
            self.table
                .remove(pass.id, SlidingKey::new(aggregate.create()));
            let (live, issued) = (self.table.len(), self.table.id_end() as usize);
            if issued - live > live.max(SPARE_MIN) {
                rest.free();
            }
        }
        true
    }

    /// Whether the visit changes the key.
    fn changes_in(&self, pass: &Pass) -> bool {
        let (slice, rest) = (self.table.value(pass.id).slice, self.rests.get(pass.id));
        let fires = pass.reason == Reason::Fire
            && (slice < pass.end || rest.stacks.changes(pass.end, pass.next_start));
        let oldest = rest.kept.as_ref().and_then(|kept| kept.oldest());
        fires || oldest.is_some_and(|slice| slice < pass.kept_from)
    }

    /// Emits what behind records have changed, as far as `work` goes; `true` when done, else call again.
    fn emit_changes<T, G: Aggregate<T, Acc = A>, O: Push<Windowed<K, G::Out>>>(
        &mut self,
        changes: &mut Changes,
        aggregate: &G,
        work: &mut i64,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        let key = self.table.key(changes.id);
        let Some(kept) = &self.rests.get(changes.id).kept else {
            unreachable!("changes come of behind records, which are kept");
        };
        let (scratch, keep) = (&mut self.scratch, self.keep);
        while changes.next <= changes.last {
            let end = changes.next;
            let start = self.slicing.start_of(end);
            while let Some(part) = kept.closed.get(changes.cursor) {
                if part.slice >= end {
                    break;
                }
                if *work <= 0 {
                    return false;
                }
                if part.slice >= start {
                    *work -= 1;
                    blame(self.op, || {
                        scratch.push(part.clone(), kept.closed.len());
                        scratch.close(end, keep, aggregate, |_| ());
                    });
                }
                changes.cursor += 1;
            }
            let value = blame(self.op, || {
                if !scratch.evict(start, keep, aggregate, work) {
                    return None;
                }
                let total = scratch.total(keep, aggregate);
                let total = kept.with_sides(total, (start, end), false, aggregate);
                total.map(|t| aggregate.finish(&t))
            });
            let Some(value) = value else {
                return false;
            };
            *work -= VISIT + scratch.total_work(keep) + kept.sides.len() as i64;
            emit(key, value, (start, end), changes.firing, self.op, out, cx);
            changes.next += self.slicing.step();
            if *work <= 0 && changes.next <= changes.last {
                return false;
            }
        }
        scratch.clear(aggregate.create());
        true
    }

    /// The changes of a key's windows that end from `next` to `last`.
    fn changes(&self, id: u32, next: i64, last: i64, firing: Firing) -> Changes {
        let start = self.slicing.start_of(next);
        let kept = &self.rests.get(id).kept;
        let cursor = kept
            .as_ref()
            .map_or(0, |k| k.closed.partition_point(|p| p.slice < start));
        Changes {
            id,
            next,
            last,
            firing,
            cursor,
        }
    }
}

/// The accumulator of a slice that is open, where the key's newest is another.
#[inline(never)]
fn other_slot<'a, T, G: Aggregate<T>>(
    entry: &'a mut SlidingKey<G::Acc>,
    rest: &'a mut Rest<G::Acc>,
    slice: i64,
    aggregate: &G,
    parts: &mut usize,
) -> &'a mut G::Acc {
    if slice < entry.slice {
        return rest.stacks.open(slice, || {
            *parts += 1;
            aggregate.create()
        });
    }
    *parts += 1;
    let acc = std::mem::replace(&mut entry.acc, aggregate.create());
    let slice = std::mem::replace(&mut entry.slice, slice);
    rest.stacks.push(Part { slice, acc }, 0);
    &mut entry.acc
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

    /// Adds records `from..to` to their slices.
    ///
    /// In a large table each record's slot and entry are asked of the cache well before they are used: a record is hashed
    /// two times [`AHEAD`] records before it is added, and looked up in between, so that misses overlap with one another and
    /// with the work on other records. A candidate may be stale when its turn comes, since records before it add keys: it is
    /// verified. `KEEPS`: the job takes checkpoints.
    fn add_all<const KEEPS: bool>(&mut self, batch: &Batch<T>, from: usize, to: usize) {
        let (records, times) = (&batch.records[from..to], &batch.times[from..to]);
        if self.state.table.len() < CACHED {
            for (n, (record, &time)) in records.iter().zip(times).enumerate() {
                let hash = self.hash(record, from + n);
                let candidate = self.state.table.candidate(hash);
                self.add::<KEEPS>(batch, from + n, record, time, hash, candidate);
            }
            return;
        }
        const RING: usize = 2 * AHEAD;
        let mut hashes = [0u64; RING];
        // First the page of each key's slot, then the candidate found there.
        let mut found = [NONE; RING];
        for n in 0..records.len() + RING {
            if let Some(n) = n.checked_sub(RING) {
                let (hash, candidate) = (hashes[n % RING], found[n % RING]);
                self.add::<KEEPS>(batch, from + n, &records[n], times[n], hash, candidate);
            }
            if let Some(record) = records.get(n) {
                hashes[n % RING] = self.hash(record, from + n);
                found[n % RING] = self.state.table.prefetch_slot(hashes[n % RING]);
            }
            if let Some(n) = n.checked_sub(AHEAD).filter(|n| *n < records.len()) {
                let candidate = self
                    .state
                    .table
                    .candidate_in(found[n % RING], hashes[n % RING]);
                found[n % RING] = candidate;
                self.state.table.prefetch_entry(candidate);
            }
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
        record: &T,
        time: EventTime,
        hash: u64,
        candidate: u32,
    ) {
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

    /// Goes on with the changes under way; `true` when there are none left.
    fn change<O: Push<Windowed<K::Key, A::Out>>>(
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

impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>> Operator<T> for SlidingOp<T, K, A> {
    type Out = Windowed<K::Key, A::Out>;

    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        let mut work = WORK;
        if !self.change(&mut work, out, cx) {
            return;
        }
        loop {
            let behind = batch.behind.get(self.behind_taken).copied();
            let to = behind.map_or(batch.len(), |b| b.index as usize);
            self.on_time(batch, self.taken, to, cx);
            self.taken = to;
            let Some(behind) = behind else {
                break;
            };
            if work <= 0 {
                return;
            }
            if !self.behind(batch, to, behind.watermark, cx) {
                let stamp = Stamp {
                    time: batch.times[to],
                    behind: Some(behind.watermark),
                };
                self.late_records.push((to, stamp));
            }
            work -= 1;
            self.taken += 1;
            self.behind_taken += 1;
            if !self.change(&mut work, out, cx) {
                return;
            }
        }
        self.late.take(batch, &self.late_records, cx);
        self.late_records.clear();
        (self.taken, self.behind_taken) = (0, 0);
        batch.clear();
    }

    fn watermark<O: Push<Self::Out>>(&mut self, watermark: EventTime, _: &mut O, _: &mut Cx) {
        self.state.watermark = self.state.watermark.max(watermark);
        self.pass = self.state.next_pass();
    }

    fn resume<O: Push<Self::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        if !self.catch_up(out, cx) {
            return false;
        }
        let Some(mut pass) = self.pass else {
            let early = self.early.as_mut();
            return early.is_none_or(|e| e.tell(&self.state, &self.aggregate, out, cx));
        };
        let mut work = WORK;
        while work > 0 {
            pass.id = self.state.table.next_live(pass.id);
            if pass.id >= self.state.table.id_end() {
                self.state.passed(&pass);
                self.pass = self.state.next_pass();
                return self.pass.is_none();
            }
            work -= VISIT;
            self.state.rests.prefetch(pass.id + IDS_AHEAD);
            if !self.visit(&mut pass, &mut work, out, cx) {
                break;
            }
            pass.id += 1;
            pass.emitted = false;
        }
        self.pass = Some(pass);
        false
    }

    /// A window may give results until M has reached its end + lateness, with its last microsecond as their time: the
    /// windows behind it must still be open then.
    fn output_watermark(&self, watermark: EventTime) -> EventTime {
        watermark - Span::from_micros(self.state.allowed)
    }

    fn tick<O: Push<Self::Out>>(&mut self, _: &mut O, _: &mut Cx) {
        if let Some(early) = &mut self.early {
            early.begin();
        }
    }

    fn wake_at(&self) -> Option<u64> {
        self.early.as_ref().and_then(|early| early.wake_at())
    }

    fn next_due(&self) -> Option<EventTime> {
        let state = &self.state;
        let correction = state.correct_at.saturating_add(state.allowed);
        let due = correction.min(state.fire_at).min(state.forget_at);
        (due != NEVER).then(|| EventTime::from_micros(due))
    }

    fn close_idle(&mut self) -> Option<EventTime> {
        let last = EventTime::from_micros(self.state.last_end);
        (last > self.state.watermark).then_some(last)
    }

    fn begin_epoch(&mut self, cut: Cut) {
        self.state.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        let state = &self.state;
        debug_assert_eq!(state.parts, state.count_parts());
        to.push((state.op, "keyed", state.table.size()));
        to.push((state.op, "slices", Size::of::<Part<A::Acc>>(state.parts, 0)));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.state.save(to)
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.state.load(frame, || self.aggregate.create())
    }

    fn loaded(&mut self) {
        self.state.loaded(self.early.as_deref_mut());
    }

    fn restored_watermark(&self) -> EventTime {
        self.state.watermark
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        self.late.control(event, cx);
    }

    fn side_blocked(&self) -> bool {
        self.late.blocked()
    }
}
