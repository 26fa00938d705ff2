//! What sliding windows keep of all keys, and when each of them is next visited.

use super::entry::{NO_SLICE, Rest, Rests, SlidingKey};
use super::overdue::Overdue;
use super::slicing::Slicing;
use super::stacks::{Keep, Part, Stacks};
use super::{NEVER, SPARE_MIN, VISIT, emit};
use crate::aggregate::Aggregate;
use crate::checkpoint::Kept;
use crate::key::Key;
use crate::push::{Cx, OpId, Push, blame};
use crate::table::KeyTable;
use crate::time::EventTime;
use crate::window::{Firing, Windowed};

/// Why all keys are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The window fires.
    Fire,
    /// The window is corrected.
    Correct,
    /// Nothing fires soon, and something may be forgotten.
    Forget,
}

/// A visit to all keys, under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    pub(super) reason: Reason,
    /// End of the window; the time that has been reached, if all is about forgetting.
    pub(super) end: i64,
    /// Start of the window, and of the next one.
    pub(super) start: i64,
    pub(super) next_start: i64,
    /// Start of the oldest slice that a behind record may still need once this pass is over.
    pub(super) kept_from: i64,
    /// The key to visit.
    pub(super) id: u32,
    /// It has been emitted; what remains is forgetting.
    pub(super) emitted: bool,
    /// Some key has a closed slice in the next window too.
    pub(super) again: bool,
    /// The oldest open slice of those visited.
    pub(super) open: i64,
    /// The next window end that a behind record wants fired (or corrected).
    pub(super) behind: i64,
    /// The oldest slice kept for behind records.
    pub(super) kept: i64,
}

/// Results of one key that are to be emitted because of behind records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes {
    pub(super) id: u32,
    /// End of the next window to emit, and of the last.
    pub(super) next: i64,
    pub(super) last: i64,
    pub(super) firing: Firing,
    /// How many of the key's closed slices have been taken into the scratch stacks, or passed over.
    pub(super) cursor: usize,
}

/// All but what the user gave.
pub(super) struct State<K, A> {
    /// Where the job takes checkpoints.
    pub(super) kept: Option<Kept>,
    pub(super) op: OpId,
    pub(super) slicing: Slicing,
    /// Allowed lateness.
    pub(super) allowed: i64,
    /// One correction instead of updates.
    pub(super) corrects: bool,
    pub(super) keep: Keep,
    pub(super) table: KeyTable<K, SlidingKey<A>>,
    pub(super) rests: Rests<A>,
    /// Accumulators that all rests have together.
    pub(super) parts: usize,
    /// Stacks for the windows that a behind record changes.
    pub(super) scratch: Stacks<A>,
    /// The slice last written to, and its length.
    pub(super) current: i64,
    pub(super) current_length: u64,
    /// The most parts that a key in order has.
    pub(super) most_parts: usize,
    /// M.
    pub(super) watermark: EventTime,
    /// End of the last window that has a record.
    pub(super) last_end: i64,
    /// End of the next window to fire. No later than that of any that has a record.
    pub(super) fire_at: i64,
    /// End of the next window to correct.
    pub(super) correct_at: i64,
    /// When to forget what is kept for behind records, should nothing fire until then.
    pub(super) forget_at: i64,
    /// After a restore, until they have caught up.
    pub(super) overdue: Option<Box<Overdue>>,
}

impl<K: Key, A: Clone + crate::state::State> State<K, A> {
    /// Notes that a record on time goes to this time's slice; its start.
    #[inline(never)]
    pub(super) fn enter(&mut self, time: i64) -> i64 {
        let slice = self.slicing.slice_of(time);
        self.current = slice.start;
        self.current_length = (slice.end - slice.start) as u64;
        self.fire_at = self.fire_at.min(self.slicing.first_end(slice.start));
        self.last_end = self.last_end.max(self.slicing.last_end(slice.start));
        slice.start
    }

    /// What `parts` is.
    pub(super) fn count_parts(&self) -> usize {
        let ids = 0..self.table.id_end();
        ids.map(|id| self.rests.get(id).parts()).sum()
    }

    /// The id of a key, which most likely is a new one.
    #[inline(never)]
    pub(super) fn find_or_insert<T, G: Aggregate<T, Acc = A>>(
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
    pub(super) fn forget_after(&self, last_end: i64) -> i64 {
        last_end + self.allowed + self.slicing.step()
    }

    /// What is due next, if M has reached it.
    pub(super) fn next_pass(&self) -> Option<Pass> {
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
    pub(super) fn passed(&mut self, pass: &Pass) {
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
    pub(super) fn visit<T, G: Aggregate<T, Acc = A>, O: Push<Windowed<K, G::Out>>>(
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
    pub(super) fn visit_key<T, G: Aggregate<T, Acc = A>, O: Push<Windowed<K, G::Out>>>(
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
    pub(super) fn changes_in(&self, pass: &Pass) -> bool {
        let (slice, rest) = (self.table.value(pass.id).slice, self.rests.get(pass.id));
        let fires = pass.reason == Reason::Fire
            && (slice < pass.end || rest.stacks.changes(pass.end, pass.next_start));
        let oldest = rest.kept.as_ref().and_then(|kept| kept.oldest());
        fires || oldest.is_some_and(|slice| slice < pass.kept_from)
    }

    /// Emits what behind records have changed, as far as `work` goes; `true` when done, else call again.
    pub(super) fn emit_changes<T, G: Aggregate<T, Acc = A>, O: Push<Windowed<K, G::Out>>>(
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
    pub(super) fn changes(&self, id: u32, next: i64, last: i64, firing: Firing) -> Changes {
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
pub(super) fn other_slot<'a, T, G: Aggregate<T>>(
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
