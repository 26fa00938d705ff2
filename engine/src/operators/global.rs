//! Global windows: the records of a key cut by their number, or by their number and a time-out.
//!
//! Laws
//! 1. A key's window fires with its n-th record and the next one starts empty: every record is in exactly one window.
//!    No record is too late; behind `.in_event_time_order()` the n records are n in the order of event time.
//! 2. With a time-out, a window fires at the latest when so much processing time has passed since its first record; at
//!    the end of the input the rest fires. Without one, what has not reached n at the end never fires, as in Flink.
//! 3. Open windows with a time-out stand in one list in the order of their first records, which is that of their
//!    deadlines. A window leaves it when it fires: the list is never longer than there are open windows.
//!
//! Class: EXEMPT, since the operator counts in the order of arrival (with one source partition that is fixed all the same);
//! by count behind `.in_event_time_order()`: ROWS. State: an accumulator for each open window; without a time-out that of a rare
//! key stays for ever (a warning says so). O(1) a record.
//! A result by count has the time and mark of its last record; one by time-out has M where that is later, so it is never late.

use crate::aggregate::Aggregate;
use crate::batch::{Batch, Stamp};
use crate::error::BuildError;
use crate::key::{KeyOf, stable_hash};
use crate::operators::late::LateTo;
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::operators::tumbling::{at_of, derived};
use crate::pipeline::MakeOperator;
use crate::plan::{Class, OpInfo, Origins, Results, ShardBuild};
use crate::push::{Cx, OpId, Push, blame, blame_at};
use crate::stage::operator::Operator;
use crate::table::{KeyTable, NONE};
use crate::time::{EventTime, Span};
use crate::window::{Firing, Window, WindowAssigner, Windowed, check_positive};
use std::marker::PhantomData;

/// Results emitted in one step.
const PIECE: usize = 1024;

/// Windows by the number of records of a key, whatever their times. Results carry [`Window::ALL`].
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
    /// the end of the input.
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
    fn pitfall(&self) -> Option<&'static str> {
        self.timeout.is_none().then_some(
            "state without TTL or time-out: a key that never reaches the count keeps its window for ever",
        )
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
    fn make(&mut self, _: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(GlobalOp {
            key: self.key.clone(),
            aggregate: self.aggregate.clone(),
            op: self.op,
            count: self.window.count,
            timeout_ns: self.window.timeout.map(Span::nanos),
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
    /// Driver's nanoseconds at which it fires at the latest.
    deadline_ns: u64,
    /// Its neighbours in the list of law 3.
    before: u32,
    after: u32,
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct GlobalOp<T, K: KeyOf<T>, A: Aggregate<T>> {
    key: K,
    aggregate: A,
    op: OpId,
    count: u64,
    timeout_ns: Option<u64>,
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
    /// Takes records `from..to`, at most a chunk.
    fn chunk<O: Push<Windowed<K::Key, A::Out>>>(
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
            let id = self.add(batch, index, hash, candidate, cx.now_ns);
            if self.table.value(id).count >= self.count {
                self.fire(id, stamp, out, cx);
            }
        }
    }

    /// Adds a record to its key's window, opened if need be; the window's id.
    #[inline(always)]
    fn add(
        &mut self,
        batch: &Batch<T>,
        index: usize,
        hash: u64,
        candidate: u32,
        now_ns: u64,
    ) -> u32 {
        let (key_of, aggregate, table) = (&self.key, &self.aggregate, &mut self.table);
        let (record, time) = (&batch.records[index], batch.times[index]);
        let (id, new) = blame_at(self.op, index, || {
            key_of.with(record, |key| {
                // A window that fired within this chunk has left the table, though its key may still lie there.
                let live = candidate != NONE && table.is_live(candidate);
                let (id, new) = if live && table.verified(candidate, key).is_some() {
                    (candidate, false)
                } else {
                    table.find_or_insert(hash, key, || Open {
                        acc: aggregate.create(),
                        count: 0,
                        latest: time,
                        deadline_ns: 0,
                        before: NONE,
                        after: NONE,
                    })
                };
                let open = table.value_mut(id);
                aggregate.add(&mut open.acc, record, at_of(batch, index));
                open.count += 1;
                open.latest = open.latest.max(time);
                (id, new)
            })
        });
        if new && let Some(timeout) = self.timeout_ns {
            self.append(id, now_ns.saturating_add(timeout));
        }
        id
    }

    /// Puts a window at the end of the list.
    fn append(&mut self, id: u32, deadline_ns: u64) {
        let before = std::mem::replace(&mut self.newest, id);
        match before {
            NONE => self.oldest = id,
            other => self.table.value_mut(other).after = id,
        }
        let open = self.table.value_mut(id);
        open.before = before;
        open.deadline_ns = deadline_ns;
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
        let (before, after) = (open.before, open.after);
        let value = blame(self.op, || self.aggregate.finish(&open.acc));
        if self.timeout_ns.is_some() {
            match before {
                NONE => self.oldest = after,
                other => self.table.value_mut(other).after = after,
            }
            match after {
                NONE => self.newest = before,
                other => self.table.value_mut(other).before = before,
            }
        }
        let empty = Open {
            acc: self.aggregate.create(),
            count: 0,
            latest: EventTime::BEGINNING,
            deadline_ns: 0,
            before: NONE,
            after: NONE,
        };
        self.table.remove(id, empty);
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
        self.oldest != NONE && (self.ending || self.table.value(self.oldest).deadline_ns <= now_ns)
    }
}

impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>> Operator<T> for GlobalOp<T, K, A> {
    type Out = Windowed<K::Key, A::Out>;

    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        while self.done < batch.len() {
            let to = (self.done + CHUNK).min(batch.len());
            self.chunk(batch, self.done, to, out, cx);
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
            cx.origin = derived(self.op, stable_hash(self.table.key(id)));
            self.fire(id, Stamp::at(time), out, cx);
        }
        false
    }

    fn tick<O: Push<Self::Out>>(&mut self, _: &mut O, _: &mut Cx) {
        self.expiring = true;
    }

    fn wake_at(&self) -> Option<u64> {
        (self.oldest != NONE).then(|| self.table.value(self.oldest).deadline_ns)
    }
}
