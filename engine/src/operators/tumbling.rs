//! Tumbling windows: a table for each open window, fired and retired in the order of time.
//!
//! Laws
//! 1. A window fires once M has reached its end: all its keys, in the order of insertion, in bounded pieces. Windows fire in order.
//! 2. A behind record r counts iff end + allowed lateness > V(r), fired or not; else it is late (SEMANTICS, time, 4).
//! 3. With one correction, what the on-time result holds is decided by V(r) < end and never by M, so it is fixed.
//! 4. With early firing, keys of unfired windows that changed are told within the interval of processing time, in pieces;
//!    what the window tells when it fires does not depend on that.
//! 5. A retired window's table is cleared in pieces and used again: no allocation in steady state. What so many windows will
//!    not need again is freed in pieces (`spare.rs`).
//!
//! 6. In a checkpoint an entry is known by its window's start and its key. A retired window leaves one tombstone. If entries of it are
//!    still to be written for an epoch, its table waits aside until they have been, and the stage goes on: there are no more of
//!    these than windows were open at the barrier, since the next one comes after they have been written.
//! 7. After a restore M is the greatest of all shards'. What a key's own shard had not fired by then is fired before anything else
//!    comes, so each window of each key gives its on-time result once, whatever M the shards had.
//!
//! Class: ROWS; NET with allowed lateness in update mode; EXEMPT with early firing, except its final values. State: an accumulator for each (window, key) until M has
//! reached end + allowed lateness.

use crate::aggregate::{Aggregate, At};
use crate::batch::{Batch, Origin, Stamp};
use crate::checkpoint::{Keeping, Tracked, Tracker, Untracked};
use crate::error::BuildError;
use crate::key::{KeyOf, stable_hash};
use crate::operators::early::{Changed, EarlyTimer};
use crate::operators::late::{Late, LateTo};
use crate::pipeline::MakeOperator;
use crate::plan::{OpInfo, Origins, Results, ShardBuild, StageSpec};
use crate::push::{Cx, OpId, Push, blame, blame_at};
use crate::table::KeyTable;
use crate::time::{EventTime, Span};
use crate::window::{
    Firing, LateMode, Lateness, Tumbling, Window, WindowAssigner, Windowed, check_early,
    check_lateness, check_offset, check_positive, results_of, said_early,
};
use adding::{add_run, mark};
use kept::{ENTRY, PARKED, prefix};
use spare::Spare;
use std::collections::VecDeque;

mod adding;
mod kept;
mod operator;
mod spare;

/// Results emitted in one step.
const PIECE: u32 = 1024;

#[allow(private_interfaces)]
impl<T: Send + 'static> WindowAssigner<T> for Tumbling {
    type Make<K: KeyOf<T>, A: Aggregate<T>> = MakeTumbling<T, K, A>;
    fn describe(&self) -> String {
        format!("tumbling, {}{}", self.size, said_early(self.early))
    }
    fn check(&self, op: &OpInfo) -> Result<(), BuildError> {
        check_positive(op, "window size", self.size)?;
        check_lateness(op, self.lateness)?;
        check_early(op, self.early)?;
        check_offset(op, self.offset)
    }
    fn results(&self) -> Results {
        results_of(self.lateness, self.early)
    }
    fn make<K: KeyOf<T>, A: Aggregate<T>>(
        self,
        key: K,
        aggregate: A,
        late: Option<LateTo<T>>,
        op: OpId,
    ) -> MakeTumbling<T, K, A> {
        MakeTumbling {
            window: self,
            key,
            aggregate,
            late,
            op,
        }
    }
}

/// Makes [`TumblingOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeTumbling<T, K, A> {
    window: Tumbling,
    key: K,
    aggregate: A,
    late: Option<LateTo<T>>,
    op: OpId,
}

#[allow(private_interfaces)]
impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>> MakeOperator<T> for MakeTumbling<T, K, A> {
    type Op = TumblingOp<T, K, A>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(TumblingOp {
            key: self.key.clone(),
            aggregate: self.aggregate.clone(),
            keeping: Keeping::of_values::<K::Key, A::Acc>(build, self.op),
            late: LateTo::open(&self.late, build),
            op: self.op,
            size: self.window.size.micros(),
            // Within one window: the alignment is what counts, and the arithmetic stays far from the ends.
            offset: self
                .window
                .offset
                .micros()
                .rem_euclid(self.window.size.micros().max(1)),
            lateness: self.window.lateness,
            early: self.window.early.map(EarlyTimer::new),
            slices: VecDeque::new(),
            retired: VecDeque::new(),
            fired: 0,
            current: 0,
            watermark: EventTime::BEGINNING,
            due: EventTime::END,
            doing: Doing::Nothing,
            owed: vec![],
            spare: Spare::default(),
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

/// One window's state.
struct Slice<K, A> {
    start: i64,
    table: KeyTable<K, A>,
    /// What of the table a checkpoint has.
    tracker: Tracker,
    /// Late records that wait for the one correction.
    parked: Option<Box<KeyTable<K, A>>>,
    /// What of those a checkpoint has.
    parked_tracker: Tracker,
    /// With early firing: what has changed since it was last told; not looked at once the window has fired.
    changed: Changed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    /// Emitting what was overdue when it was loaded.
    Owed,
    /// Emitting the first slice that has not fired, from entry `id` on.
    Firing {
        id: u32,
    },
    /// Emitting the correction of the first slice, from parked entry `id` on.
    Correcting {
        id: u32,
    },
    /// Emitting what has changed in slice `at`, from word `word` of its marks on.
    Early {
        at: usize,
        word: usize,
    },
    /// Retiring the first slice.
    Retiring,
    /// Clearing the table of the first slice that has retired.
    Clearing {
        cursor: usize,
    },
    /// Giving back the memory of a spare table.
    Freeing,
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct TumblingOp<T, K: KeyOf<T>, A: Aggregate<T>> {
    key: K,
    aggregate: A,
    late: Late<T>,
    keeping: Option<Keeping>,
    op: OpId,
    size: i64,
    offset: i64,
    lateness: Lateness,
    early: Option<EarlyTimer>,
    /// Open windows in ascending order of start.
    slices: VecDeque<Box<Slice<K::Key, A::Acc>>>,
    /// Windows that have retired and are not cleared yet, in that order: of those that are still being written there is none
    /// before one that has been.
    retired: VecDeque<Box<Slice<K::Key, A::Acc>>>,
    /// How many of the open ones have fired: the first ones, since windows fire in order.
    fired: usize,
    /// Index of the slice last written to; may be stale, so it is checked.
    current: usize,
    /// M.
    watermark: EventTime,
    /// The earliest watermark at which some slice fires or retires.
    due: EventTime,
    doing: Doing,
    /// On-time results that some shard owed when a checkpoint was taken, of windows that have fired on others: the start of the
    /// window and the entry, the first one last.
    owed: Vec<(i64, u32)>,
    /// Cleared tables.
    spare: Spare<K::Key, A::Acc>,
}

impl<T, K: KeyOf<T>, A: Aggregate<T>> TumblingOp<T, K, A> {
    #[inline(always)]
    fn start_of(&self, time: EventTime) -> i64 {
        let t = time.micros();
        t - (t - self.offset).rem_euclid(self.size)
    }

    fn end_of(&self, start: i64) -> EventTime {
        EventTime::from_micros(start) + Span::from_micros(self.size)
    }

    /// The slice of the window that starts at `start`, made if need be.
    fn slice_at(&mut self, start: i64) -> usize {
        let at = self.slices.partition_point(|s| s.start < start);
        if self.slices.get(at).is_none_or(|s| s.start != start) {
            let end = self.end_of(start);
            let fired = end <= self.watermark;
            self.fired += usize::from(fired);
            let table = self.spare.take();
            let sweep = self.keeping.as_ref().map_or(0, |k| k.sweep);
            self.slices.insert(
                at,
                Box::new(Slice {
                    start,
                    table,
                    tracker: Tracker::new(sweep),
                    parked: None,
                    parked_tracker: Tracker::new(sweep),
                    changed: Changed::default(),
                }),
            );
            self.due = self.due.min(if fired {
                end + self.lateness.allowed
            } else {
                end
            });
        }
        at
    }

    /// Adds on-time records `from..to`.
    fn on_time(&mut self, batch: &Batch<T>, from: usize, to: usize) {
        let mut from = from;
        while from < to {
            let first = batch.times[from];
            let start = match self.slices.get(self.current) {
                Some(s) if (first.micros().wrapping_sub(s.start) as u64) < self.size as u64 => {
                    s.start
                }
                _ => {
                    let start = self.start_of(first);
                    self.current = self.slice_at(start);
                    start
                }
            };
            let size = self.size as u64;
            let end = from + run_within(&batch.times[from..to], start, size);
            let slice = &mut self.slices[self.current];
            let table = &mut slice.table;
            let (key, aggregate, op) = (&self.key, &self.aggregate, self.op);
            match &mut self.keeping {
                None => add_run(table, key, aggregate, op, batch, from, end, &mut Untracked),
                Some(keeping) => {
                    let mut tracked = Tracked {
                        tracker: &mut slice.tracker,
                        saver: &mut keeping.saver,
                        prefix: &prefix(ENTRY, start),
                    };
                    add_run(table, key, aggregate, op, batch, from, end, &mut tracked);
                }
            }
            if self.early.is_some() {
                mark(table, key, op, batch, from, end, &mut slice.changed);
            }
            from = end;
        }
    }

    /// Adds a record that is behind its watermark `v`; whether it is not too late.
    #[cold]
    fn behind<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        batch: &Batch<T>,
        index: usize,
        v: EventTime,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        let start = self.start_of(batch.times[index]);
        let end = self.end_of(start);
        if end + self.lateness.allowed <= v {
            return false;
        }
        let at = self.slice_at(start);
        self.current = at;
        let (key_of, aggregate, op) = (&self.key, &self.aggregate, self.op);
        let slice = &mut self.slices[at];
        let park = self.lateness.mode == LateMode::OneCorrection && end <= v;
        let (table, tracker, tag) = if park {
            let parked = &mut **slice.parked.get_or_insert_default();
            (parked, &mut slice.parked_tracker, PARKED)
        } else {
            (&mut slice.table, &mut slice.tracker, ENTRY)
        };
        let keeping = &mut self.keeping;
        let id = blame_at(op, index, || {
            key_of.with(&batch.records[index], |key| {
                let (id, _) = table.find_or_insert(table.hash(key), key, || aggregate.create());
                if let Some(keeping) = keeping
                    && tracker.touch(id)
                {
                    let prefix = prefix(tag, start);
                    keeping.saver.before(&prefix, key, table.value(id));
                }
                aggregate.add(
                    table.value_mut(id),
                    &batch.records[index],
                    At::of(batch, index),
                );
                id
            })
        });
        let fired = at < self.fired;
        if self.early.is_some() && !fired && !park {
            slice.changed.mark(id);
        }
        if fired && !park {
            let window = Window {
                start: EventTime::from_micros(start),
                end,
            };
            emit(
                &slice.table,
                id,
                aggregate,
                op,
                window,
                Firing::Update,
                out,
                cx,
            );
        }
        true
    }

    /// Looks for what is next due: a table to clear, the first slice to go, or the first to fire. O(1), however many have fired
    /// and are kept.
    fn next_work(&mut self) -> Doing {
        if self.may_clear() {
            return Doing::Clearing { cursor: 0 };
        }
        self.due = EventTime::END;
        if self.fired > 0 {
            let gone = self.end_of(self.slices[0].start) + self.lateness.allowed;
            if gone <= self.watermark {
                return match self.slices[0].parked {
                    Some(_) => Doing::Correcting { id: 0 },
                    None => Doing::Retiring,
                };
            }
            self.due = gone;
        }
        if let Some(next) = self.slices.get(self.fired) {
            let end = self.end_of(next.start);
            if end <= self.watermark {
                return Doing::Firing { id: 0 };
            }
            self.due = self.due.min(end);
        }
        Doing::Nothing
    }

    /// Emits a piece of what is owed.
    fn pay<O: Push<Windowed<K::Key, A::Out>>>(&mut self, out: &mut O, cx: &mut Cx) {
        for _ in 0..PIECE {
            let Some((start, id)) = self.owed.pop() else {
                self.owed = vec![];
                self.doing = self.next_work();
                return;
            };
            let at = self.slices.partition_point(|s| s.start < start);
            let window = self.window_of(at);
            let (table, aggregate) = (&self.slices[at].table, &self.aggregate);
            emit(
                table,
                id,
                aggregate,
                self.op,
                window,
                Firing::OnTime,
                out,
                cx,
            );
        }
    }

    /// What follows once a table has become spare, or has gone.
    fn after_retiring(&mut self) -> Doing {
        if self.spare.too_many(self.slices.len()) {
            Doing::Freeing
        } else {
            self.next_work()
        }
    }

    /// Emits at most a piece of what has changed in the unfired slices.
    fn fire_early<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        mut at: usize,
        mut word: usize,
        out: &mut O,
        cx: &mut Cx,
    ) -> Doing {
        if at == self.slices.len() {
            return Doing::Nothing;
        }
        let window = self.window_of(at);
        let (aggregate, op) = (&self.aggregate, self.op);
        let slice = &mut *self.slices[at];
        let table = &slice.table;
        let mut results = PIECE;
        let done = slice.changed.take(&mut word, &mut results, |id| {
            emit(table, id, aggregate, op, window, Firing::Early, out, cx);
        });
        if done {
            (at, word) = (at + 1, 0);
        }
        Doing::Early { at, word }
    }

    fn window_of(&self, at: usize) -> Window {
        let start = self.slices[at].start;
        Window {
            start: EventTime::from_micros(start),
            end: self.end_of(start),
        }
    }
}

/// How many times from the first on lie within `size` of `start`. In blocks, without a branch for each.
#[inline]
fn run_within(times: &[EventTime], start: i64, size: u64) -> usize {
    const BLOCK: usize = 16;
    let outside = |time: &EventTime| time.micros().wrapping_sub(start) as u64 >= size;
    let blocks = times.chunks(BLOCK);
    let any = |block: &[EventTime]| block.iter().fold(false, |any, time| any | outside(time));
    let whole = blocks.take_while(|block| !any(block)).count() * BLOCK;
    let rest = times.get(whole..).unwrap_or_default();
    let within = rest.iter().position(outside).unwrap_or(rest.len());
    whole.min(times.len()) + within
}

/// Emits one key's result. Its event time is the last of its window; its origin is the operator and the key's hash.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn emit<T, K: crate::key::Key, A: Aggregate<T>, O: Push<Windowed<K, A::Out>>>(
    table: &KeyTable<K, A::Acc>,
    id: u32,
    aggregate: &A,
    op: OpId,
    window: Window,
    firing: Firing,
    out: &mut O,
    cx: &mut Cx,
) {
    let key = table.key(id).clone();
    cx.origin = Origin::derived(op, stable_hash(&key));
    let value = blame(op, || aggregate.finish(table.value(id)));
    out.push(
        Windowed {
            key,
            window,
            value,
            firing,
        },
        Stamp::at(window.end - Span::from_micros(1)),
        cx,
    );
}

#[cfg(test)]
mod tests {
    use super::run_within;
    use crate::time::EventTime;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_run_ends_with_the_first_time_outside(
            start in prop_oneof![Just(-1i64 << 62), Just(0), Just(1i64 << 62), -1i64 << 62..1i64 << 62],
            size in 1u64..20,
            steps in prop::collection::vec(prop_oneof![40 => 0i64..20, 1 => any::<i64>()], 0..80),
        ) {
            let times = steps.iter().map(|step| EventTime::from_micros(start.wrapping_add(*step)));
            let times: Vec<_> = times.collect();
            let within = |t: &&EventTime| {
                let after = i128::from(t.micros()) - i128::from(start);
                (0..i128::from(size)).contains(&after)
            };
            let naive = times.iter().take_while(within).count();
            prop_assert_eq!(run_within(&times, start, size), naive);
        }
    }
}
