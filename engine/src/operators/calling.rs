//! Asking outside: records wait for answers from a client's port, and leave with what was answered. Under async maps and lookup joins, which
//! say what is asked for a record and what comes of it ([`Asks`]).
//!
//! Laws
//! 1. No step waits. Records are taken while less than `capacity` are in hand; then the batch is left, and the stage says that it waits. A step does
//!    a bounded piece of everything, however many are in hand: what one answer completes, too ([`Asks::go_on`]).
//! 2. Each record leaves once, by a row, by none (an inner join), or as a dead letter, with its time, behind mark and origin. A watermark
//!    leaves behind all records that came before it ([`pending`]), so M <= V(r) holds behind the operator as before it. Silence is told on
//!    when nothing is in hand.
//! 3. A barrier waits for no answer to what is in hand: that is state ([`kept`]), without what was answered, and is asked for again after a restore.
//!    But it is a frame like others: it waits behind a batch that was left for want of room (law 1) until all of that is in hand, and behind the end
//!    of the input (law 4). A dead letter, too, belongs to the epoch in which its record left.
//! 4. The end of the input waits until all have left. Each attempt ends in time ([`requests`]), so it comes.
//! 5. A port that nobody serves any more ends the job, and so does a request that failed, unless the operator was told what to do.
//!
//! Class: EXEMPT; what comes of a record is the client's business. State: the records in hand. O(1) a record. Watermarks are held here, not in
//! the stage; after a restore they are those of the sources again.

pub(crate) mod kept;
pub(crate) mod pending;
pub(crate) mod requests;

use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::calls::{Async, CallError, CallFigures, Client, Opening};
use crate::checkpoint::{Cut, Frame, Keeping, Saved, Snapshot};
use crate::error::{BuildError, JobError};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::port::Apart;
use crate::push::{Control, Cx, DeadLetter, OpId, Push};
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::time::EventTime;
use kept::Kept;
use pending::{Done, Held, Next, Pending};
use requests::Requests;

/// Records taken, answers taken and records completed by them, time-outs looked after, and records let go in one step: of each so many.
const PIECE: usize = if cfg!(test) { 3 } else { 256 };

/// What is asked for records, and what comes of them.
#[allow(private_interfaces)]
pub trait Asks<T>: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    type Out: Send + 'static;

    /// Whether a record that was in hand among another number of shards is this shard's now.
    fn owns(&self, keeping: &Keeping, record: &T, origin: &Origin) -> bool;

    /// What comes of a record, where that is known without asking.
    fn known(&mut self, _record: &T, _now_ns: u64) -> Option<Done<Self::Out>> {
        None
    }

    /// The record in `slot` waits for a request: the number of a new one, or `None` where one is under way.
    fn begin(&mut self, slot: u32, pending: &mut Pending<T, Self::Out>) -> Option<u32>;

    /// What is asked by request `id`. Asked again for each attempt.
    fn request(&self, id: u32, pending: &Pending<T, Self::Out>) -> Self::Request;

    /// A record that waits for request `id`.
    fn waits_for(&self, id: u32) -> u32;

    /// Request `id` has ended: completes the record that waited for it, or begins to complete those that did.
    fn ended(
        &mut self,
        id: u32,
        result: Result<Self::Response, CallError>,
        pending: &mut Pending<T, Self::Out>,
        now_ns: u64,
    );

    /// Completes one more of those; whether there was one. Asked before another request is said to have ended.
    fn go_on(&mut self, _pending: &mut Pending<T, Self::Out>, _now_ns: u64) -> bool {
        false
    }

    /// Whether there is one.
    fn has_more(&self) -> bool {
        false
    }

    /// Adds what it holds itself.
    fn sizes(&self, _to: &mut Sizes) {}

    /// Adds what it has counted.
    fn tell(&mut self, _figures: &CallFigures) {}
}

/// What is done when a request has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Stop,
    DeadLetter,
    /// What comes of it is made of the failure.
    Told,
}

/// Where a source record that was in hand goes: to the shard that reads its partition, if it had come straight from there; records that an
/// operator derived are spread.
pub(crate) fn owns_by_origin(keeping: &Keeping, origin: &Origin) -> bool {
    let of = match origin.source >> 31 {
        0 => u64::from(origin.partition),
        _ => origin.offset,
    };
    of % u64::from(keeping.shards()) == keeping.shard() as u64
}

/// Makes [`Calling`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeCalling<C, A> {
    pub(crate) client: C,
    /// One of it for each shard.
    pub(crate) asks: A,
    pub(crate) options: Async,
    pub(crate) on_failure: OnFailure,
    pub(crate) op: OpId,
    /// The thread that hands the client its requests, once it was started.
    pub(crate) apart: Option<Apart>,
}

#[allow(private_interfaces)]
impl<T, C, A> MakeOperator<T> for MakeCalling<C, A>
where
    T: State,
    C: Client,
    A: Asks<T, Request = C::Request, Response = C::Response> + Clone,
{
    type Op = Calling<T, A>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        let name = build.op_name(self.op);
        let refused = |what: String| BuildError::Argument {
            op: name.clone(),
            what,
            advice: "mend that and start the job again".into(),
        };
        let apart = match &self.apart {
            Some(apart) => apart,
            None => self.apart.insert(build.ports.apart().map_err(refused)?),
        };
        let mut client = self.client.clone();
        let opening = Opening::new(build.shard, build.ports.is_simulated());
        client.open(&opening).map_err(refused)?;
        let call = Box::new(move |request, answer| client.call(request, answer));
        let capacity = self.options.capacity;
        let port = build.ports.calls(apart, build.shard, capacity, call);
        if build.shard + 1 == build.shards {
            // The ports hold it from here on: it ends with the last of them.
            self.apart = None;
        }
        Ok(Calling {
            asks: self.asks.clone(),
            pending: Pending::new(self.options.ordered, capacity),
            requests: Requests::new(port.map_err(refused)?, &self.options, build.shards),
            kept: Kept::of(build, self.op),
            capacity,
            on_failure: self.on_failure,
            figures: self.options.figures(),
            op: self.op,
            name,
            job: build.job.to_string(),
            ticked: true,
            ending: false,
            is_reversed: false,
        })
    }
    fn refuses(&self) -> bool {
        self.on_failure == OnFailure::DeadLetter
    }
    fn origins(&self) -> Origins {
        Origins::Needs
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct Calling<T, A: Asks<T>> {
    asks: A,
    pending: Pending<T, A::Out>,
    requests: Requests<A::Request, A::Response>,
    /// Where the job takes checkpoints.
    kept: Option<Kept<T>>,
    capacity: usize,
    on_failure: OnFailure,
    figures: CallFigures,
    op: OpId,
    name: String,
    job: String,
    /// Answers or time-outs are to be looked after in the next [`Operator::resume`].
    ticked: bool,
    /// The end of the input has come.
    ending: bool,
    /// The batch in hand has been begun: [`Batch::reverse`].
    is_reversed: bool,
}

impl<T: State, A: Asks<T>> Calling<T, A> {
    /// Takes what has been answered or takes too long, lets go what may leave, and makes the attempts that may be made. A bounded piece.
    fn turn<O: Push<A::Out>>(&mut self, out: &mut O, cx: &mut Cx) {
        if let Some(what) = self.requests.closed() {
            self.fail(what, cx);
            return;
        }
        for _ in 0..PIECE {
            let now_ns = cx.now_ns;
            if self.asks.go_on(&mut self.pending, now_ns) {
                continue;
            }
            let taken = self.requests.answered(now_ns);
            match taken.or_else(|| self.requests.expired(now_ns)) {
                None => break,
                Some(None) => {}
                Some(Some((id, Err(error)))) if self.on_failure == OnFailure::Stop => {
                    let origin = self.pending.get(self.asks.waits_for(id)).map(|h| h.origin);
                    let of = origin.unwrap_or_default().describe();
                    return self.fail(format!("{error}; it was asked for the record at {of}"), cx);
                }
                Some(Some((id, result))) => {
                    self.asks.ended(id, result, &mut self.pending, now_ns);
                }
            }
        }
        self.let_go(out, cx);
        self.send(cx);
    }

    fn fail(&mut self, what: String, cx: &mut Cx) {
        cx.failure.get_or_insert(JobError::Call {
            job: self.job.clone(),
            op: self.name.clone(),
            shard: cx.shard,
            what,
        });
    }

    fn send(&mut self, cx: &Cx) {
        let (asks, pending) = (&self.asks, &self.pending);
        self.requests
            .send(cx.now_ns, |id| asks.request(id, pending));
        self.figures.add(&mut self.requests.tally);
        self.asks.tell(&self.figures);
    }

    /// Lets go what may leave, a bounded piece.
    fn let_go<O: Push<A::Out>>(&mut self, out: &mut O, cx: &mut Cx) {
        let (mut asked_ns, mut answered) = (u64::MAX, 0);
        for _ in 0..PIECE {
            if out.blocked() {
                break;
            }
            match self.pending.next() {
                None => break,
                Some(Next::Watermark(time)) => {
                    self.pending.pass_watermark();
                    out.control(Control::Watermark(time), cx);
                }
                Some(Next::Record(slot)) => {
                    if let Some(kept) = &mut self.kept {
                        kept.leaves(slot, &self.pending);
                    }
                    if let Some((held, done)) = self.pending.take(slot) {
                        // What is handed on is as old as its oldest record; one that was restored came when the job did.
                        let arrived = held.arrival_ns;
                        if arrived > 0 {
                            cx.arrival_oldest_ns = cx.arrival_oldest_ns.min(arrived);
                            asked_ns = asked_ns.min(held.came_ns);
                            answered += 1;
                        }
                        self.leaves(done, held.stamp, held.origin, out, cx);
                    }
                }
            }
        }
        if answered > 0 {
            let waited = cx.now_ns.saturating_sub(asked_ns).max(1);
            let answer_ns = &mut cx.latencies.answer_ns;
            answer_ns.saturating_record_n(waited, answered);
        }
    }

    /// A record leaves.
    fn leaves<O: Push<A::Out>>(
        &self,
        done: Done<A::Out>,
        stamp: Stamp,
        origin: Origin,
        out: &mut O,
        cx: &mut Cx,
    ) {
        cx.origin = origin;
        match done {
            Done::Row(row) => out.push(row, stamp, cx),
            Done::Nothing => {}
            Done::Failed(error) => cx.malformed(|| DeadLetter {
                at: self.name.clone(),
                partition: origin.partition_name(),
                offset: origin.offset,
                line: None,
                reason: error.to_string(),
                payload: vec![],
            }),
        }
    }

    /// Takes a record.
    fn admit<O: Push<A::Out>>(
        &mut self,
        record: T,
        stamp: Stamp,
        origin: Origin,
        out: &mut O,
        cx: &mut Cx,
    ) {
        cx.origin = origin;
        let known = self.asks.known(&record, cx.now_ns);
        let known = match known {
            Some(done) if self.pending.lets_through() => {
                return self.leaves(done, stamp, origin, out, cx);
            }
            known => known,
        };
        let number = self.kept.as_mut().map_or((0, (0, 0)), Kept::number);
        let held = Held::new(record, stamp, origin, number, (cx.arrival_ns, cx.now_ns));
        let slot = self.pending.add(held);
        if let Some(kept) = &mut self.kept {
            kept.came(slot);
        }
        match known {
            Some(done) => self.pending.complete(slot, done),
            None => self.begin(slot),
        }
    }

    fn begin(&mut self, slot: u32) {
        if let Some(id) = self.asks.begin(slot, &mut self.pending) {
            self.requests.begin(id);
        }
    }
}

impl<T: State, A: Asks<T>> Operator<T> for Calling<T, A> {
    type Out = A::Out;

    fn batch<O: Push<A::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        self.turn(out, cx);
        if cx.failure.is_some() {
            return;
        }
        if self.pending.len() >= self.capacity || out.blocked() {
            return;
        }
        if !std::mem::replace(&mut self.is_reversed, true) {
            batch.reverse();
        }
        for _ in 0..PIECE {
            if self.pending.len() >= self.capacity || out.blocked() {
                break;
            }
            let Some((record, stamp, origin)) = batch.pop() else {
                break;
            };
            self.admit(record, stamp, origin, out, cx);
        }
        if batch.is_empty() {
            self.is_reversed = false;
            batch.clear();
        }
        self.send(cx);
    }

    fn watermark<O: Push<A::Out>>(&mut self, watermark: EventTime, _: &mut O, _: &mut Cx) {
        match watermark {
            EventTime::END => self.ending = true,
            time => self.pending.watermark(time),
        }
    }

    fn resume<O: Push<A::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        if std::mem::take(&mut self.ticked) || self.ending {
            self.turn(out, cx);
        } else {
            self.let_go(out, cx);
        }
        !self.ending || self.pending.next().is_none() && self.pending.len() == 0
    }

    /// Watermarks leave with the records: law 2.
    fn output_watermark(&self, watermark: EventTime) -> EventTime {
        match watermark {
            EventTime::END => watermark,
            _ => EventTime::BEGINNING,
        }
    }

    fn is_holding(&self) -> bool {
        self.pending.next().is_some() || self.pending.len() > 0
    }

    /// Nothing is held for time's sake: what waits, waits for an answer, and is counted as that.
    fn holds_for_time(&self) -> bool {
        false
    }

    fn waits(&self) -> bool {
        let is_stuck = self.ending || self.pending.len() >= self.capacity;
        is_stuck
            && self.pending.next().is_none()
            && !self.requests.has_answers()
            && !self.asks.has_more()
    }

    fn tick<O: Push<A::Out>>(&mut self, _: &mut O, _: &mut Cx) {
        self.ticked = true;
    }

    fn wake_at(&self) -> Option<u64> {
        match self.pending.next().is_some() || self.asks.has_more() {
            true => Some(0),
            false => self.requests.wake_at(),
        }
    }

    fn begin_epoch(&mut self, cut: Cut) {
        if let Some(kept) = &mut self.kept {
            kept.begin(cut, &self.pending);
        }
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let pending = &self.pending;
        self.kept
            .as_mut()
            .map_or(Saved::All, |kept| kept.save(to, pending))
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let asks = &self.asks;
        let owns =
            |keeping: &Keeping, record: &T, origin: &Origin| asks.owns(keeping, record, origin);
        self.kept
            .as_mut()
            .map_or(Ok(false), |kept| kept.load(frame, owns))
    }

    fn loaded(&mut self) {
        let slots = self
            .kept
            .as_mut()
            .map(|kept| kept.loaded(&mut self.pending));
        for slot in slots.unwrap_or_default() {
            self.begin(slot);
        }
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "in flight", self.pending.size()));
        to.push((self.op, "requests", self.requests.size()));
        self.asks.sizes(to);
    }
}
