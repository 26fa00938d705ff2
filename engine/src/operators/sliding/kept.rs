//! What a checkpoint has of a key of overlapping windows, and the way back.
//!
//! Laws
//! 1. A key is one entry: its newest slice, its stacks as they are, and what is kept for behind records. The stacks are not made
//!    anew of raw slices, which the front no longer has: so what comes later is the same to the last bit, for floats too.
//! 2. Whatever a visit changes of a key, it has touched before. A visit that only emits changes nothing: a key is written
//!    when it had a record, or one of its slices was closed or forgotten.
//! 3. A key that is removed leaves a tombstone.
//! 4. At a barrier all windows up to M have fired, all corrections that are due have been made, and no turn of a stack is half
//!    done. So what is due next follows from M and the slices, and is not kept.
//!    Where the key's shard stood at a lower M than is restored, law 4 holds for that M, and the key catches up ([`super::overdue`]).
//! 5. With early firing, all windows above M that a slice lies in count as changed after a restore.

use super::early::{Early, Stretch};
use super::entry::{Kept as Behind, NO_SLICE, Rest, Side, SlidingKey};
use super::overdue::Overdue;
use super::stacks::Part;
use super::{NEVER, State};
use crate::checkpoint::{Cut, Frame, Loaded, Parts, Saved, Snapshot, Stored, Value};
use crate::key::Key;
use crate::state::{self, LoadError};
use crate::time::EventTime;

/// What an entry looks like, for the state's shape: the newest slice; front, closed and `back` of the stacks; their parts and
/// the closed slices; the sides.
pub(super) type Entry<K, Acc> = (
    K,
    (
        (i64, Option<Acc>),
        (i64, i64, Option<Acc>),
        [Vec<(i64, Acc)>; 2],
        Vec<((i64, i64, i64), Acc)>,
    ),
);

struct OfKey<'a, A> {
    newest: &'a SlidingKey<A>,
    rest: &'a Rest<A>,
}

impl<A: Clone + state::State> Stored for OfKey<'_, A> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.number(self.newest.slice);
        if self.newest.slice != NO_SLICE {
            to.part(&self.newest.acc);
        }
        self.rest.stacks.store(to);
        let kept = self.rest.kept.as_deref();
        to.number(kept.map_or(0, |k| k.closed.len()) as i64);
        for part in kept.iter().flat_map(|k| &k.closed) {
            part.store(to);
        }
        to.number(kept.map_or(0, |k| k.sides.len()) as i64);
        for side in kept.iter().flat_map(|k| &k.sides) {
            to.number(side.slice);
            to.number(side.from);
            to.number(side.on_time);
            to.part(&side.acc);
        }
    }
}

impl<K: Key, A: Clone + state::State> State<K, A> {
    /// A key is about to change.
    #[inline(always)]
    pub(super) fn touch(&mut self, id: u32) {
        let (table, rests) = (&self.table, &self.rests);
        if let Some(kept) = &mut self.kept {
            kept.touch(id, table.key(id), || OfKey {
                newest: table.value(id),
                rest: rests.get(id),
            });
        }
    }

    /// A key is about to be removed (law 3).
    pub(super) fn gone(&mut self, id: u32) {
        if let Some(kept) = &mut self.kept {
            kept.gone(id, self.table.key(id));
        }
    }

    pub(super) fn begin_epoch(&mut self, cut: Cut) {
        debug_assert_eq!(self.parts, self.count_parts());
        let table = &self.table;
        if let Some(kept) = &mut self.kept {
            kept.begin(cut, self.watermark, table.id_end(), |id| table.is_live(id));
        }
    }

    pub(super) fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let (table, rests) = (&self.table, &self.rests);
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| {
                let (newest, rest) = (table.value(id), rests.get(id));
                (table.key(id), OfKey { newest, rest })
            })
        })
    }

    pub(super) fn load(
        &mut self,
        frame: &Frame<'_>,
        nothing: impl Fn() -> A,
    ) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        match kept.load::<K>(frame)? {
            Loaded::Others => return Ok(false),
            Loaded::Nothing => {}
            Loaded::Watermark(watermark) => self.watermark = watermark,
            Loaded::Entry(key, value) => {
                let hash = self.table.hash(&key);
                let (id, _) = self
                    .table
                    .find_or_insert(hash, &key, || SlidingKey::new(nothing()));
                self.rests.issued(id, &nothing);
                if let Some(kept) = &mut self.kept {
                    kept.restored(id, value.is_some());
                }
                self.replace(id, value, &nothing)?;
            }
        }
        Ok(true)
    }

    /// Gives a key this value, whatever it had; without one it is removed.
    fn replace(
        &mut self,
        id: u32,
        value: Option<&[u8]>,
        nothing: &impl Fn() -> A,
    ) -> Result<(), LoadError> {
        let rest = self.rests.get_mut(id);
        rest.stacks.clear(nothing());
        rest.kept = None;
        let mut newest = SlidingKey::new(nothing());
        let Some(value) = value else {
            self.table.remove(id, newest);
            return Ok(());
        };
        let mut from = Parts::of(value);
        newest.slice = from.number()?;
        if newest.slice != NO_SLICE {
            newest.acc = from.part()?;
        }
        rest.stacks.load(&mut from)?;
        let mut behind = Behind::default();
        for _ in 0..from.count()? {
            behind.closed.push_back(Part::load(&mut from)?);
        }
        for _ in 0..from.count()? {
            behind.sides.push(Side {
                slice: from.number()?,
                from: from.number()?,
                on_time: from.number()?,
                acc: from.part()?,
            });
        }
        from.end()?;
        if !behind.is_empty() {
            rest.kept = Some(Box::new(behind));
        }
        *self.table.value_mut(id) = newest;
        Ok(())
    }

    /// Law 4.
    pub(super) fn loaded(&mut self, mut early: Option<&mut Early<A>>) {
        let m = self.watermark.micros();
        let lags = self.kept.as_ref().and_then(|kept| kept.keeping.lags());
        let mut overdue = Overdue::default();
        self.parts = self.count_parts();
        for id in 0..self.table.id_end() {
            if !self.table.is_live(id) {
                continue;
            }
            self.mark_changed(id, early.as_deref_mut());
            let stood = lags
                .as_ref()
                .map_or(m, |l| l.of(self.table.key(id)).micros());
            match stood < m {
                true => overdue.keys.push((id, stood)),
                false => self.arm(id, m),
            }
        }
        debug_assert!(self.fire_at > m || self.fire_at == NEVER, "law 4");
        if !overdue.keys.is_empty() {
            overdue.keys.reverse();
            self.overdue = Some(Box::new(overdue));
        }
    }

    /// A key's slices are known, and with early firing what of it may have changed (law 5).
    fn mark_changed(&mut self, id: u32, mut early: Option<&mut Early<A>>) {
        let (slicing, m) = (self.slicing, self.watermark.micros());
        let mut changed = |from: i64, slice: i64| {
            let last = slicing.last_end(slice);
            self.last_end = self.last_end.max(last);
            if last > m
                && let Some(early) = &mut early
            {
                early.mark(id, Stretch { from, last }, m, 0);
            }
        };
        let (newest, rest) = (self.table.value(id).slice, self.rests.get(id));
        let newest = (newest != NO_SLICE).then_some(newest);
        for slice in rest.stacks.slices().chain(newest) {
            changed(slicing.first_end(slice), slice);
        }
        let Some(kept) = &rest.kept else { return };
        for part in &kept.closed {
            changed(slicing.first_end(part.slice), part.slice);
        }
        for side in &kept.sides {
            changed(side.on_time, side.slice);
        }
    }

    /// What is next due of a key for which all that was due up to `m` has been done.
    pub(super) fn arm(&mut self, id: u32, m: i64) {
        let slicing = self.slicing;
        let bounded = |m: i64| m.clamp(EventTime::MIN.micros(), EventTime::MAX.micros());
        let next = slicing.end_after(bounded(m));
        let next_correction = slicing.end_after(bounded(m.saturating_sub(self.allowed)));
        let (newest, rest) = (self.table.value(id).slice, self.rests.get(id));
        let open = rest.stacks.oldest_open().unwrap_or(newest);
        if open != NO_SLICE {
            self.fire_at = self.fire_at.min(slicing.first_end(open));
        }
        if rest.stacks.has_closed() {
            self.fire_at = self.fire_at.min(next);
        }
        let Some(kept) = &rest.kept else { return };
        for side in &kept.sides {
            let last = slicing.last_end(side.slice);
            let fires = side.on_time.max(next);
            if fires <= last {
                self.fire_at = self.fire_at.min(fires);
            }
            let corrected = side.from.max(next_correction);
            if corrected <= last.min(side.on_time - slicing.step()) {
                self.correct_at = self.correct_at.min(corrected);
            }
        }
        if let Some(oldest) = kept.oldest() {
            let forgotten = self.forget_after(slicing.last_end(oldest));
            self.forget_at = self.forget_at.min(forgotten);
        }
    }
}
