//! Session windows: the open sessions of each key, one lazy timer a key.
//!
//! A record at t is the closed interval [t, t + gap], with its own gap where records say theirs. A session is a connected
//! piece of the union of its key's intervals (closed, so sessions that touch are one); its window is
//! [first t, greatest t + gap).
//!
//! Laws
//! 1. Whether r counts is decided by V(r) alone, so the final sessions are a function of the input (SEMANTICS, time, 5):
//!    - append: iff t >= V(r);
//!    - update: iff t + gap + lateness > V(r);
//!    - one correction: iff t + lateness >= V(r); it is *on time* iff t >= V(r), else *parked*.
//! 2. A session fires on time once M > end. Not M >= end: a record with t = V(r) = M = end is on time and touches it. No
//!    later one does: r counts on time only if t >= V(r) >= M > end.
//! 3. What has fired is kept while a record that may still count can touch it, that is as long as some t <= end passes law 1
//!    for a V(r) >= M: with updates up to M = end + longest gap + lateness, with one correction as long as
//!    M <= end + lateness. So no accepted record misses a session that it touches.
//! 4. With one correction the on-time sessions are exactly those of append mode: parked records stand apart until the
//!    end. On-time sessions and parked ones that touch one another are a *group*; it is final once M > end of group +
//!    lateness. If a parked record is in it, each on-time session whose window is not the group's is retracted, and the
//!    whole comes as the correction. Groups and their contents follow from law 1, so all rows do: class ROWS.
//! 5. With updates, a record that is behind and changes what has fired retracts each fired session that it touches, unless
//!    the merged one has the same window. The merged one comes at once as an update if M > its end; else it is open again
//!    and comes on time.
//! 6. Results come in the order of (time at which they are due, key's words), in bounded pieces. A result has the last time
//!    of its window, a retraction that of what replaces it. Neither lies before the watermark that has been passed on, which
//!    trails M by the time for which a result may still come.
//! 7. A key has one timer, set no later than its first true deadline. A record that prolongs a session does not touch it.
//! 8. With early firing, open sessions that changed are told as they stand, within the interval; what was told of a session
//!    under another window is taken back before ([`early`]). What fires does not depend on it.
//! 9. Keys without sessions stay for their return, up to four times as many as have sessions, and go a few a step beyond
//!    that: no allocation in steady state for keys that recur, no growth for those that do not.
//! 10. In a checkpoint an entry is known by its key and has all its sessions ([`kept`]).
//!
//! Cost: a record of the key's newest session one probe and one entry; a timer a few moves a gap; other records O(log n + n / 512) in
//! the n sessions kept of their key and what merging takes (`parts.rs`), and a group is corrected in one piece. Class: ROWS; NET with
//! allowed lateness in update mode; EXEMPT with early firing, except its final values. Late records go to the late output. Merging windows on a timer a key: Akidau et al.,
//! "The Dataflow Model" (2015); lazy timers are of the TCP kind (Varghese and Lauck 1987, section 5).

mod early;
mod kept;
mod parts;
mod state;
mod store;

use crate::aggregate::{Aggregate, At};
use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Kept, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::late::{Late, LateTo};
use crate::pipeline::MakeOperator;
use crate::plan::{OpInfo, Origins, Results, ShardBuild, StageSpec};
use crate::push::{Control, Cx, DeadLetter, OpId, Push, blame_at};
use crate::session::{GapOf, Session};
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::table::{Home, NONE};
use crate::time::{EventTime, Span};
use crate::wheel::Popped;
use crate::window::{
    Lateness, WindowAssigner, Windowed, check_early, check_lateness, check_positive, results_of,
    said_early,
};
use state::{Core, Mode, Out};
use store::Phase;

/// Moves of timers in one step; a firing counts as [`FIRING`].
const PIECE: u32 = 2048;
const FIRING: u32 = 3;
/// Records whose probes are under way together.
const CHUNK: usize = 64;

#[allow(private_interfaces)]
impl<T: Send + 'static, G: GapOf<T>> WindowAssigner<T> for Session<G> {
    type Make<K: KeyOf<T>, A: Aggregate<T>> = MakeSession<T, K, A, G>;
    fn describe(&self) -> String {
        format!("session, {}{}", self.gap.describe(), said_early(self.early))
    }
    fn check(&self, op: &OpInfo) -> Result<(), BuildError> {
        check_positive(op, "session gap", self.gap.longest())?;
        check_early(op, self.early)?;
        check_lateness(op, self.lateness)
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
    ) -> MakeSession<T, K, A, G> {
        MakeSession {
            gap: self.gap,
            lateness: self.lateness,
            early: self.early,
            key,
            aggregate,
            late,
            op,
        }
    }
}

/// Makes [`SessionOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeSession<T, K, A, G> {
    gap: G,
    lateness: Lateness,
    early: Option<Span>,
    key: K,
    aggregate: A,
    late: Option<LateTo<T>>,
    op: OpId,
}

#[allow(private_interfaces)]
impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>, G: GapOf<T>> MakeOperator<T>
    for MakeSession<T, K, A, G>
{
    type Op = SessionOp<T, K, A, G>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(SessionOp {
            key: self.key.clone(),
            gap: self.gap.clone(),
            late: LateTo::open(&self.late, build),
            core: Core::new(
                self.aggregate.clone(),
                self.op,
                self.lateness,
                self.gap.longest().micros(),
                self.early,
                Kept::of::<kept::Entry<K::Key, A::Acc>>(build, self.op),
            ),
        })
    }
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        LateTo::stages(&mut self.late)
    }
    /// A record's gap may be none.
    fn refuses(&self) -> bool {
        true
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
pub struct SessionOp<T, K: KeyOf<T>, A: Aggregate<T>, G> {
    key: K,
    gap: G,
    late: Late<T>,
    core: Core<T, K::Key, A>,
}

impl<T, K: KeyOf<T>, A: Aggregate<T>, G: GapOf<T>> SessionOp<T, K, A, G> {
    /// Adds on-time records `from..to`, as [`crate::operators::tumbling`] does: a large table is worked in three passes over
    /// a chunk, so that the cache misses of different records overlap.
    #[inline(always)]
    fn add_chunk<O: Push<Windowed<K::Key, A::Out>>, const KEEPS: bool>(
        &mut self,
        batch: &Batch<T>,
        from: usize,
        to: usize,
        out: &mut Out<'_, O>,
    ) {
        let (key_of, op) = (&self.key, self.core.op);
        let records = &batch.records[from..to];
        let mut hashes = [0u64; CHUNK];
        let mut homes = [Home::default(); CHUNK];
        let mut found = [NONE; CHUNK];
        let count = records.len().min(CHUNK);
        let records = &records[..count];
        let table = &self.core.store.table;
        for i in 0..count {
            hashes[i] = blame_at(
                op,
                from + i,
                #[inline(always)]
                || key_of.with(&records[i], |key| table.hash(key)),
            );
            homes[i] = table.home(hashes[i]);
            homes[i].prefetch();
        }
        for i in 0..count {
            found[i] = homes[i].candidate(hashes[i]);
            table.prefetch_entry(found[i]);
        }
        for i in 0..count {
            blame_at(
                op,
                from + i,
                #[inline(always)]
                || {
                    self.add_one::<O, KEEPS>(batch, from + i, hashes[i], found[i], out);
                },
            );
        }
    }

    /// Adds one on-time record, to the entry that `candidate` very likely is. `KEEPS`: the job takes checkpoints.
    #[inline(always)]
    fn add_one<O: Push<Windowed<K::Key, A::Out>>, const KEEPS: bool>(
        &mut self,
        batch: &Batch<T>,
        index: usize,
        hash: u64,
        candidate: u32,
        out: &mut Out<'_, O>,
    ) {
        let (record, time) = (&batch.records[index], batch.times[index]);
        let core = &mut self.core;
        let Some(gap) = self.gap.of(record) else {
            return malformed(batch, index, core.op, out.cx);
        };
        let t = time.micros();
        let end = t + gap;
        core.latest = core.latest.max(end);
        let origin = if A::NEEDS_ORIGINS {
            batch.origin(index)
        } else {
            Origin::default()
        };
        let at = At { time, origin };
        self.key.with(
            record,
            #[inline(always)]
            |key| {
                if KEEPS && core.is_newest(candidate, key, t) {
                    core.touch(candidate);
                }
                if let Some(keyed) = core.store.table.verified(candidate, key)
                    && keyed.phase == Phase::Open
                    && keyed.start <= t
                    && t <= keyed.end
                {
                    // The newest of its key: nothing lies above it to be touched.
                    keyed.end = keyed.end.max(end);
                    core.aggregate.add(&mut keyed.acc, record, at);
                    return;
                }
                let id = core.entry(hash, key);
                core.join(id, (t, end), record, at, out);
            },
        );
    }

    fn on_time<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        batch: &Batch<T>,
        from: usize,
        to: usize,
        out: &mut Out<'_, O>,
    ) {
        let mut at = from;
        while at < to {
            let stop = (at + CHUNK).min(to);
            match self.core.kept.is_some() {
                true => self.add_chunk::<O, true>(batch, at, stop, out),
                false => self.add_chunk::<O, false>(batch, at, stop, out),
            }
            at = stop;
        }
        if self.core.early.is_some() {
            self.mark(batch, from, to, out.cx);
        }
    }

    /// Marks what records `from..to`, which have been added, have changed.
    #[inline(never)]
    fn mark(&mut self, batch: &Batch<T>, from: usize, to: usize, cx: &Cx) {
        let table = &self.core.store.table;
        let Some(early) = &mut self.core.early else {
            return;
        };
        for (n, record) in batch.records[from..to].iter().enumerate() {
            blame_at(self.core.op, from + n, || {
                // Malformed ones have not been added.
                if self.gap.of(record).is_some() {
                    let id = self
                        .key
                        .with(record, |key| table.find(table.hash(key), key));
                    early.mark(id, batch.times[from + n].micros(), cx.now_ns);
                }
            });
        }
    }

    /// Adds a record that is behind its watermark `v`; whether it is not too late.
    #[cold]
    fn behind<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        batch: &Batch<T>,
        index: usize,
        v: EventTime,
        out: &mut Out<'_, O>,
    ) -> bool {
        let (key_of, gap_of, core) = (&self.key, &self.gap, &mut self.core);
        let op = core.op;
        let record = &batch.records[index];
        let t = batch.times[index].micros();
        blame_at(op, index, || {
            let Some(gap) = gap_of.of(record) else {
                malformed(batch, index, op, out.cx);
                return true;
            };
            let end = t + gap;
            if !core.store.rule.accepts(t, end, v) {
                return false;
            }
            let at = At::of(batch, index);
            key_of.with(record, |key| {
                let id = core.entry(core.store.table.hash(key), key);
                if core.store.rule.mode == Mode::OneCorrection {
                    core.park(id, (t, end), record, at);
                } else {
                    core.latest = core.latest.max(end);
                    core.join(id, (t, end), record, at, out);
                    if let Some(early) = &mut core.early {
                        early.mark(id, t, out.cx.now_ns);
                    }
                }
            });
            true
        })
    }
}

/// A record whose gap is not one.
#[cold]
fn malformed<T>(batch: &Batch<T>, index: usize, op: OpId, cx: &mut Cx) {
    let origin = if batch.origins.is_empty() {
        batch.last
    } else {
        batch.origin(index)
    };
    cx.malformed(|| DeadLetter {
        at: format!("session window, operator {}", op.0),
        partition: origin.partition_name(),
        offset: origin.offset,
        line: None,
        reason: format!("no session gap for the record at {}", batch.times[index]),
        payload: vec![],
    });
}

impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>, G: GapOf<T>> Operator<T>
    for SessionOp<T, K, A, G>
{
    type Out = Windowed<K::Key, A::Out>;

    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        let behind = std::mem::take(&mut batch.behind);
        let mut late: Vec<(usize, Stamp)> = Vec::new();
        let mut to = Out { out, cx };
        let mut from = 0;
        for b in &behind {
            let index = b.index as usize;
            self.on_time(batch, from, index, &mut to);
            if !self.behind(batch, index, b.watermark, &mut to) {
                let stamp = Stamp {
                    time: batch.times[index],
                    behind: Some(b.watermark),
                };
                late.push((index, stamp));
            }
            from = index + 1;
        }
        self.on_time(batch, from, batch.len(), &mut to);
        batch.behind = behind;
        if !late.is_empty() {
            self.late.take(batch, &late, cx);
        }
        batch.clear();
    }

    fn watermark<O: Push<Self::Out>>(&mut self, watermark: EventTime, _: &mut O, _: &mut Cx) {
        self.core.watermark = self.core.watermark.max(watermark.micros());
    }

    fn resume<O: Push<Self::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        let core = &mut self.core;
        let mut to = Out { out, cx };
        if core.early.is_some() && !core.tell(&mut to) {
            return false;
        }
        let mut budget = PIECE;
        loop {
            match core.wheel.pop(core.watermark, &core.store, &mut budget) {
                Popped::Due { time, value: id } => {
                    core.fire(id, time, &mut to);
                    budget = budget.saturating_sub(FIRING);
                }
                rest => {
                    core.sweep();
                    return rest == Popped::Nothing;
                }
            }
        }
    }

    /// At M = end a session has not fired (law 2), and what has fired may change up to M = end + keep (law 3). Results have
    /// the last microsecond of their window as their time: the windows behind must still be open then.
    fn output_watermark(&self, watermark: EventTime) -> EventTime {
        watermark - Span::from_micros(1 + self.core.keep())
    }

    /// A session ends a gap after its last record.
    fn newest_record(&self, result: EventTime) -> EventTime {
        result + Span::from_micros(1) - self.gap.longest()
    }

    fn tick<O: Push<Self::Out>>(&mut self, _: &mut O, _: &mut Cx) {
        if let Some(early) = &mut self.core.early {
            early.begin();
        }
    }

    fn wake_at(&self) -> Option<u64> {
        self.core.early.as_ref().and_then(|early| early.wake_at())
    }

    fn next_due(&self) -> Option<EventTime> {
        self.core.wheel.next_at().map(EventTime::from_micros)
    }

    fn close_idle(&mut self) -> Option<EventTime> {
        // Law 2: beyond the end. Nothing that is open ends later than the latest.
        (self.core.open > 0).then(|| EventTime::from_micros(self.core.latest + 1))
    }

    fn begin_epoch(&mut self, cut: Cut) {
        self.core.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.core.op, "keyed", self.core.store.table.size()));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.core.save(to)
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.core.load(frame)
    }

    fn loaded(&mut self) {
        self.core.loaded();
    }

    fn restored_watermark(&self) -> EventTime {
        EventTime::from_micros(self.core.watermark)
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        self.late.control(event, cx);
    }

    fn side_blocked(&self) -> bool {
        self.late.blocked()
    }
}

#[cfg(test)]
mod tests;
