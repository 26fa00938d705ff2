//! Global windows: the records of a key cut by their number, or by their number and a time-out.
//!
//! Laws
//! 1. A key's window fires with its n-th record and the next one starts empty: every record is in exactly one window.
//!    No record is too late; behind `.in_event_time_order()` the n records are n in the order of event time.
//! 2. With a time-out, a window fires at the latest when so much processing time has passed since its first record; at
//!    the end of the input the rest fires. Without one, what has not reached n at the end never fires, as in Flink.
//! 3. Open windows with a time-out stand in one list in the order of their first records, which is that of their
//!    deadlines. A window leaves it when it fires: the list is never longer than there are open windows.
//! 4. In a checkpoint a window has the wall clock's time at which it fires at the latest: while the job stands still, time
//!    passes. Within a process the driver's clock counts, which no adjustment moves; where the wall clock has gone back in between,
//!    a window waits no longer than its time-out from then on.
//!
//! Class: EXEMPT, since the operator counts in the order of arrival (with one source partition that is fixed all the same);
//! by count behind `.in_event_time_order()`: ROWS. State: an accumulator for each open window; without a time-out that of a rare
//! key stays for ever (a warning says so). O(1) a record.
//! A result by count has the time and mark of its last record; one by time-out has M where that is later, so it is never late.

use crate::aggregate::{Aggregate, At};
use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{
    Cut, Frame, Kept, Loaded, Parts, Saved, Snapshot, Stored, Touch, Value, Whole,
};
use crate::error::BuildError;
use crate::key::{KeyOf, stable_hash};
use crate::operators::late::LateTo;
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::pipeline::MakeOperator;
use crate::plan::{Class, OpInfo, Origins, Pitfall, Results, ShardBuild};
use crate::push::{Cx, OpId, Push, blame, blame_at};
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};
use crate::time::{EventTime, Span};
use crate::window::{Firing, Window, WindowAssigner, Windowed, check_positive};
use std::marker::PhantomData;

/// Results emitted in one step.
const PIECE: usize = 1024;

/// Windows by the number of records of a key, whatever their times. Results carry [`Window::ALL`].
///
/// Class EXEMPT, since records are counted as they come; by count behind [`OrderedStream::window`](crate::OrderedStream::window) ROWS. No record is too late. State: an
/// accumulator for each key whose window is open, in checkpoints. It goes when the window fires: by count alone that of a rare key stays for ever, and a
/// warning says so (PLT-0203); with a time-out none does. One probe a record.
///
/// ```
/// use pelton::{Global, Job, testing};
/// let (results, sink) = testing::collect();
/// let job = Job::new("pairs");
/// job.source(pelton::sources::items([('a', 1), ('a', 2), ('b', 9), ('a', 4), ('a', 3)]))
///    .key_by(|r| r.0)
///    .window(Global::count(2))
///    .aggregate(|a| a.max(|r| r.1))
///    .sink(sink);
/// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
/// let most: Vec<_> = results.take().into_iter().map(|w| (w.key, w.value)).collect();
/// assert_eq!(most, [('a', 2), ('a', 4)]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Global {
    count: u64,
    timeout: Option<Span>,
}

impl Global {
    /// Fires with every `n` records of a key. Fewer than that at the end of the input do not fire.
    pub fn count(n: u64) -> Self {
        Global {
            count: n,
            timeout: None,
        }
    }

    /// Fires with every `n` records of a key, or when `span` of processing time has passed since the first of them, or at
    /// the end of the input. Time during which a job stood still, until it went on from a checkpoint, counts.
    pub fn count_or_timeout(n: u64, span: Span) -> Self {
        Global {
            count: n,
            timeout: Some(span),
        }
    }

    /// The class where records come in the order of event time.
    pub(crate) fn class_in_order(&self) -> Class {
        match self.timeout {
            None => Class::Rows,
            Some(_) => Class::Exempt,
        }
    }
}

#[allow(private_interfaces)]
impl<T: Send + 'static> WindowAssigner<T> for Global {
    type Make<K: KeyOf<T>, A: Aggregate<T>> = MakeGlobal<T, K, A>;
    fn describe(&self) -> String {
        match self.timeout {
            None => format!("global, every {} records", self.count),
            Some(span) => format!("global, every {} records or {span}", self.count),
        }
    }
    fn check(&self, op: &OpInfo) -> Result<(), BuildError> {
        if self.count == 0 {
            return Err(BuildError::argument(
                op,
                "the count is 0",
                "give a count of at least 1",
            ));
        }
        self.timeout
            .map_or(Ok(()), |span| check_positive(op, "time-out", span))
    }
    fn needs_time(&self) -> bool {
        false
    }
    fn pitfall(&self) -> Option<(Pitfall, &'static str)> {
        self.timeout.is_none().then_some((
            Pitfall::StateGrows,
            "state without TTL or time-out: a key that never reaches the count keeps its window for ever",
        ))
    }
    fn results(&self) -> Results {
        Results::last(Class::Exempt)
    }
    fn make<K: KeyOf<T>, A: Aggregate<T>>(
        self,
        key: K,
        aggregate: A,
        _: Option<LateTo<T>>,
        op: OpId,
    ) -> MakeGlobal<T, K, A> {
        MakeGlobal {
            window: self,
            key,
            aggregate,
            op,
            record: PhantomData,
        }
    }
}

/// Makes [`GlobalOp`] on each shard.
#[derive(Debug)]
pub struct MakeGlobal<T, K, A> {
    window: Global,
    key: K,
    aggregate: A,
    op: OpId,
    record: PhantomData<fn(T)>,
}

#[allow(private_interfaces)]
impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>> MakeOperator<T> for MakeGlobal<T, K, A> {
    type Op = GlobalOp<T, K, A>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(GlobalOp {
            kept: Kept::of::<(K::Key, (u64, i64, i64, A::Acc))>(build, self.op),
            anchor: None,
            key: self.key.clone(),
            aggregate: self.aggregate.clone(),
            op: self.op,
            count: self.window.count,
            timeout: self.window.timeout,
            table: KeyTable::new(),
            oldest: NONE,
            newest: NONE,
            done: 0,
            watermark: EventTime::BEGINNING,
            ending: false,
            expiring: false,
        })
    }
    fn origins(&self) -> Origins {
        if A::NEEDS_ORIGINS {
            Origins::Needs
        } else {
            Origins::Keeps
        }
    }
}

/// An open window.
struct Open<A> {
    acc: A,
    count: u64,
    /// The latest time of its records.
    latest: EventTime,
    /// The same by the wall clock (law 4).
    deadline: EventTime,
    /// Driver's nanoseconds at which it fires at the latest; `None` for a window that has been restored.
    deadline_ns: Option<u64>,
    /// Its neighbours in the list of law 3.
    before: u32,
    after: u32,
}

impl<A> Open<A> {
    fn new(acc: A) -> Self {
        Open {
            acc,
            count: 0,
            latest: EventTime::BEGINNING,
            deadline: EventTime::BEGINNING,
            deadline_ns: None,
            before: NONE,
            after: NONE,
        }
    }
}

impl<A: State> Open<A> {
    fn load(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut from = Parts::of(bytes);
        let count = from.number()? as u64;
        let latest = EventTime::from_micros(from.number()?);
        let deadline = EventTime::from_micros(from.number()?);
        let acc = from.part()?;
        from.end()?;
        Ok(Open {
            count,
            latest,
            deadline,
            ..Open::new(acc)
        })
    }
}

impl<A: State> Stored for Open<A> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.number(self.count as i64);
        to.number(self.latest.micros());
        to.number(self.deadline.micros());
        to.part(&self.acc);
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct GlobalOp<T, K: KeyOf<T>, A: Aggregate<T>> {
    key: K,
    aggregate: A,
    op: OpId,
    count: u64,
    timeout: Option<Span>,
    /// Where the job takes checkpoints.
    kept: Option<Kept>,
    /// The driver's and the wall clock when restored windows were first looked at: what their deadlines count from.
    anchor: Option<(u64, EventTime)>,
    table: KeyTable<K::Key, Open<A::Acc>>,
    /// The ends of the list of law 3; empty without a time-out.
    oldest: u32,
    newest: u32,
    /// Records of the batch in hand that have been taken; 0 between batches.
    done: usize,
    /// M, as long as more may come.
    watermark: EventTime,
    /// The input has ended: what is in the list fires.
    ending: bool,
    /// A tick found windows due: they fire.
    expiring: bool,
}

impl<T, K: KeyOf<T>, A: Aggregate<T>> GlobalOp<T, K, A> {
    /// Takes records `from..to`, at most a chunk. `KEEPS`: the job takes checkpoints.
    fn chunk<O: Push<Windowed<K::Key, A::Out>>, const KEEPS: bool>(
        &mut self,
        batch: &Batch<T>,
        from: usize,
        to: usize,
        out: &mut O,
        cx: &mut Cx,
    ) {
        let probes = probe(&self.table, &self.key, self.op, &batch.records[from..to]);
        let mut stamps = Stamps::from(batch, from);
        for (index, (hash, candidate)) in (from..to).zip(probes) {
            let stamp = stamps.of(batch, index, cx);
            let id = self.add::<KEEPS>(batch, index, hash, candidate, cx);
            if self.table.value(id).count >= self.count {
                self.fire(id, stamp, out, cx);
            }
        }
    }

    /// Adds a record to its key's window, opened if need be; the window's id.
    #[inline(always)]
    fn add<const KEEPS: bool>(
        &mut self,
        batch: &Batch<T>,
        index: usize,
        hash: u64,
        candidate: u32,
        cx: &Cx,
    ) -> u32 {
        let (key_of, aggregate, table) = (&self.key, &self.aggregate, &mut self.table);
        let kept = &mut self.kept;
        let (record, time) = (&batch.records[index], batch.times[index]);
        let (id, new) = blame_at(self.op, index, || {
            key_of.with(record, |key| {
                // A window that fired within this chunk has left the table, though its key may still lie there.
                let live = candidate != NONE && table.is_live(candidate);
                let (id, new) = if live && table.verified(candidate, key).is_some() {
                    (candidate, false)
                } else {
                    table.find_or_insert(hash, key, || Open::new(aggregate.create()))
                };
                let open = table.value_mut(id);
                if KEEPS && let Some(kept) = kept {
                    kept.tracked().touch(id, key, open);
                }
                aggregate.add(&mut open.acc, record, At::of(batch, index));
                open.count += 1;
                open.latest = open.latest.max(time);
                (id, new)
            })
        });
        if new && let Some(timeout) = self.timeout {
            let open = self.table.value_mut(id);
            open.deadline = cx.wall + timeout;
            open.deadline_ns = Some(cx.now_ns.saturating_add(timeout.nanos()));
            self.append(id);
        }
        id
    }

    /// Puts a window at the end of the list.
    fn append(&mut self, id: u32) {
        let before = std::mem::replace(&mut self.newest, id);
        match before {
            NONE => self.oldest = id,
            other => self.table.value_mut(other).after = id,
        }
        self.table.value_mut(id).before = before;
    }

    /// Driver's nanoseconds at which a window fires at the latest. Of a restored one: 0, which is now, until the clocks have
    /// been looked at (law 4).
    fn deadline_ns(&self, id: u32) -> u64 {
        let open = self.table.value(id);
        match (open.deadline_ns, self.anchor) {
            (Some(deadline_ns), _) => deadline_ns,
            (None, None) => 0,
            (None, Some((now_ns, wall))) => {
                let longest = self.timeout.map_or(0, Span::micros);
                let left = open.deadline.micros().saturating_sub(wall.micros());
                let left = Span::from_micros(left.clamp(0, longest));
                now_ns.saturating_add(left.nanos())
            }
        }
    }

    /// Emits a window and forgets it.
    fn fire<O: Push<Windowed<K::Key, A::Out>>>(
        &mut self,
        id: u32,
        stamp: Stamp,
        out: &mut O,
        cx: &mut Cx,
    ) {
        let key = self.table.key(id).clone();
        let open = self.table.value(id);
        if let Some(kept) = &mut self.kept {
            kept.tracked().gone(id, &key, open);
        }
        let (before, after) = (open.before, open.after);
        let value = blame(self.op, || self.aggregate.finish(&open.acc));
        if self.timeout.is_some() {
            match before {
                NONE => self.oldest = after,
                other => self.table.value_mut(other).after = after,
            }
            match after {
                NONE => self.newest = before,
                other => self.table.value_mut(other).before = before,
            }
        }
        self.table.remove(id, Open::new(self.aggregate.create()));
        let result = Windowed {
            key,
            window: Window::ALL,
            value,
            firing: Firing::OnTime,
        };
        out.push(result, stamp, cx);
    }

    /// Whether the oldest window is to fire now.
    fn due(&self, now_ns: u64) -> bool {
        self.oldest != NONE && (self.ending || self.deadline_ns(self.oldest) <= now_ns)
    }
}

impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>> Operator<T> for GlobalOp<T, K, A> {
    type Out = Windowed<K::Key, A::Out>;

    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        while self.done < batch.len() {
            let to = (self.done + CHUNK).min(batch.len());
            match self.kept.is_some() {
                true => self.chunk::<O, true>(batch, self.done, to, out, cx),
                false => self.chunk::<O, false>(batch, self.done, to, out, cx),
            }
            self.done = to;
            if out.blocked() && to < batch.len() {
                return;
            }
        }
        self.done = 0;
        batch.clear();
    }

    fn watermark<O: Push<Self::Out>>(&mut self, watermark: EventTime, _: &mut O, _: &mut Cx) {
        if watermark == EventTime::END {
            self.ending = true;
        } else {
            self.watermark = watermark;
        }
    }

    fn resume<O: Push<Self::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        if !self.ending && !self.expiring {
            return true;
        }
        for _ in 0..PIECE {
            if !self.due(cx.now_ns) {
                self.expiring = false;
                return true;
            }
            let id = self.oldest;
            let time = self.table.value(id).latest.max(self.watermark);
            cx.origin = Origin::derived(self.op, stable_hash(self.table.key(id)));
            self.fire(id, Stamp::at(time), out, cx);
        }
        false
    }

    fn tick<O: Push<Self::Out>>(&mut self, _: &mut O, cx: &mut Cx) {
        self.anchor.get_or_insert((cx.now_ns, cx.wall));
        self.expiring = true;
    }

    fn wake_at(&self) -> Option<u64> {
        (self.oldest != NONE).then(|| self.deadline_ns(self.oldest))
    }

    fn begin_epoch(&mut self, cut: Cut) {
        let table = &self.table;
        if let Some(kept) = &mut self.kept {
            kept.begin(cut, self.watermark, table.id_end(), |id| table.is_live(id));
        }
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "keyed", self.table.size()));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let table = &self.table;
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| (table.key(id), Whole(table.value(id))))
        })
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        match kept.load::<K::Key>(frame)? {
            Loaded::Others => return Ok(false),
            Loaded::Nothing => {}
            Loaded::Watermark(watermark) => self.watermark = watermark,
            Loaded::Entry(key, Some(value)) => {
                let (id, _) = self.table.replace(&key, Open::load(value)?);
                kept.restored(id, true);
            }
            Loaded::Entry(key, None) => {
                let id = self.table.find(self.table.hash(&key), &key);
                if id != NONE {
                    kept.restored(id, false);
                    self.table.remove(id, Open::new(self.aggregate.create()));
                }
            }
        }
        Ok(true)
    }

    /// Law 3.
    fn loaded(&mut self) {
        if self.timeout.is_none() {
            return;
        }
        let table = &self.table;
        let live = (0..table.id_end()).filter(|&id| table.is_live(id));
        let mut open: Vec<u32> = live.collect();
        open.sort_by_key(|&id| (table.value(id).deadline, id));
        open.into_iter().for_each(|id| self.append(id));
    }
}
