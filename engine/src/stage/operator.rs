//! An operator stage: takes frames from rings, gives them to one operator, pushes its results through a chain.
//!
//! Laws
//! 1. What an operator began (a firing window) is finished before the next frame is taken; each step does a bounded piece of it.
//! 2. A watermark goes on only when the operator has done all that it caused.
//! 3. Nothing is taken from a ring while the terminal is blocked.
//! 4. What is due by the clock comes before the next frame, and a frame before what is due after that: neither starves the other,
//!    also where each tick makes another one due.

use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Epoch, Frame, Saved, Snapshot};
use crate::dead_letters::Letters;
use crate::edge::{Arrival, Inbox};
use crate::error::JobError;
use crate::latency::Arrivals;
use crate::push::{Control, Cx, Push};
use crate::query::Ask;
use crate::stage::source::{RETRY_NS, earliest};
use crate::state::LoadError;
use crate::tasklet::{Now, Progress, Tasklet};
use crate::time::EventTime;
use pelton_storage::StateId;

/// Asks for a barrier that there is room for from the start. A job has one at a time, and those that nobody waits for any longer.
const ASKS: usize = 4;

/// What stands at the head of an operator stage: takes batches and watermarks, emits through `out`.
pub trait Operator<In>: Send + 'static {
    /// What it emits.
    type Out: 'static;

    /// Takes records of `batch`. It may leave some (by [`Batch::consume`]) when `out` is blocked: it is called again with the rest.
    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<In>, out: &mut O, cx: &mut Cx);

    /// M has risen to `watermark`: begin what it causes. The rest is done in [`Operator::resume`].
    fn watermark<O: Push<Self::Out>>(&mut self, watermark: EventTime, out: &mut O, cx: &mut Cx);

    /// Goes on with what was begun, a bounded piece; `true` when nothing is left.
    fn resume<O: Push<Self::Out>>(&mut self, _out: &mut O, _cx: &mut Cx) -> bool {
        true
    }

    /// The watermark to pass on when M is `watermark`: lower where results may trail it.
    fn output_watermark(&self, watermark: EventTime) -> EventTime {
        watermark
    }

    /// The greatest time that a record in a result with this event time can have: how long the result was held on purpose
    /// is counted from that record's arrival.
    fn newest_record(&self, result: EventTime) -> EventTime {
        result
    }

    /// Whether what leaves when a watermark comes was held until then, so that its time counts as held by a window.
    fn holds_for_time(&self) -> bool {
        true
    }

    /// All inputs are silent and the stated rule says that open windows are to close: the watermark to advance to.
    fn close_idle(&mut self) -> Option<EventTime> {
        None
    }

    /// Processing time has reached [`Operator::wake_at`] (the step's clock is in `cx`): early firing, time-outs. Called
    /// before the next frame is taken, however busy the stage is, but once between two frames. It, or the [`Operator::resume`] that follows, moves
    /// `wake_at` on unless more is due.
    fn tick<O: Push<Self::Out>>(&mut self, _out: &mut O, _cx: &mut Cx) {}

    /// Driver's nanoseconds at which [`Operator::tick`] wants to be called.
    fn wake_at(&self) -> Option<u64> {
        None
    }

    /// Whether records or watermarks are in hand that somebody outside has to say something of: that all is silent is told on when none
    /// is. Asked again after each [`Operator::tick`].
    fn is_holding(&self) -> bool {
        false
    }

    /// Whether what was begun goes on only once somebody outside has rung, or at [`Operator::wake_at`]. Asked where a batch was left in
    /// part, or [`Operator::resume`] was not done.
    fn waits(&self) -> bool {
        false
    }

    /// The next watermark that has something to do, unless records come: when to say so to windows that are told the clock
    /// instead. Not later than that, and above M once [`Operator::resume`] has done all.
    fn next_due(&self) -> Option<EventTime> {
        None
    }

    /// Where an operator that replays records stands: how many records its piece has, and the origin of the last.
    fn replaying(&self) -> Option<(usize, Origin)> {
        None
    }

    /// A barrier has passed: what is kept now is what its epoch is to have. Takes no time that grows with the state.
    fn begin_epoch(&mut self, _cut: Cut) {}

    /// Writes a piece of what was kept at the barrier that passed last. Between pieces batches and watermarks come as ever.
    fn save(&mut self, _to: &mut Snapshot<'_>) -> Saved {
        Saved::All
    }

    /// Takes an entry that was saved, before anything else; whether it was one of this operator's.
    fn load(&mut self, _frame: &Frame<'_>) -> Result<bool, LoadError> {
        Ok(false)
    }

    /// Everything has been loaded: whether it can go on from that. For what an entry alone does not tell, since a later one may replace it.
    fn check_loaded(&self) -> Result<(), LoadError> {
        Ok(())
    }

    /// Everything has been loaded: what follows from it (timers, what is next due) is made anew. [`Operator::resume`] comes
    /// next, before any frame: for what is overdue, where M is higher now than on the shard that wrote.
    fn loaded(&mut self) {}

    /// M as it was restored, asked after [`Operator::loaded`]: no record that comes may count as if it had been lower.
    fn restored_watermark(&self) -> EventTime {
        EventTime::BEGINNING
    }

    /// Adds how large its states are. O(its tables).
    fn sizes(&self, _to: &mut Sizes) {}

    /// Answers an ask about a state of its own, if it is one. Between two steps, perhaps in the midst of a batch; or right before
    /// [`Operator::begin_epoch`].
    fn answer(&self, _ask: &mut Ask) {}

    /// Control events for edges beside the chain: each as the chain is given it, and after what was made before it.
    fn side_control(&mut self, _event: Control, _cx: &mut Cx) {}

    /// Whether an edge beside the chain is blocked.
    fn side_blocked(&self) -> bool {
        false
    }
}

enum Doing<T> {
    /// Taking frames.
    Taking,
    /// A batch from a channel is being processed.
    Batch(usize, Box<Batch<T>>),
    /// The operator is doing what this watermark caused.
    Watermark(EventTime),
    /// The operator is finishing what was overdue when it was restored.
    Restored,
    /// The operator is finishing work begun by a tick.
    Ticked,
    /// Taking a frame, whatever is due: a tick was the last thing.
    TakingAfterTick,
    /// The end has been passed on; the terminal is draining.
    Ending,
}

/// The tasklet of an operator on one shard. Aligned, since those of all shards are made side by side and each record writes here.
#[repr(align(128))]
pub(crate) struct OperatorStage<In, Op, P> {
    stage: usize,
    job: String,
    inbox: Inbox<In>,
    op: Op,
    chain: P,
    letters: Letters,
    cx: Cx,
    doing: Doing<In>,
    /// Watermark last passed on.
    passed: EventTime,
    /// Length and last origin of the batch last taken: its place, if user code panics.
    taken: (usize, Origin),
    /// When the batches arrived.
    arrivals: Arrivals,
    /// The last epoch whose barrier has passed.
    reached: Epoch,
    /// Asks that wait for a barrier.
    asks: Vec<Ask>,
}

impl<In, Op: Operator<In>, P: Push<Op::Out>> OperatorStage<In, Op, P> {
    pub fn new(
        stage: usize,
        job: String,
        inbox: Inbox<In>,
        op: Op,
        chain: P,
        letters: Letters,
        cx: Cx,
    ) -> Self {
        OperatorStage {
            stage,
            job,
            inbox,
            op,
            chain,
            letters,
            cx,
            doing: Doing::Taking,
            passed: EventTime::BEGINNING,
            taken: (0, Origin::default()),
            arrivals: Arrivals::new(),
            reached: Epoch(0),
            asks: Vec::with_capacity(ASKS),
        }
    }

    fn control(&mut self, event: Control) {
        self.op.side_control(event, &mut self.cx);
        self.chain.control(event, &mut self.cx);
        self.letters.control(event, &mut self.cx);
    }

    fn blocked(&self) -> bool {
        self.chain.blocked() || self.op.side_blocked() || self.letters.blocked()
    }

    fn pass_watermark(&mut self, watermark: EventTime) {
        let out = self.op.output_watermark(watermark);
        if out > self.passed {
            self.passed = out;
            self.control(Control::Watermark(out));
        }
    }

    fn begin_watermark(&mut self, time: EventTime) -> Doing<In> {
        self.op.watermark(time, &mut self.chain, &mut self.cx);
        Doing::Watermark(time)
    }

    fn take(&mut self, now: Now, after_tick: bool) -> Result<(Doing<In>, Progress), JobError> {
        let is_due = self.op.wake_at().is_some_and(|at| at <= now.ns);
        if is_due && !after_tick {
            self.cx.arrived_at(now.ns);
            self.op.tick(&mut self.chain, &mut self.cx);
            return Ok((Doing::Ticked, Progress::Worked));
        }
        let arrival = match self.inbox.next(&mut self.cx) {
            Ok(arrival) => arrival,
            Err(_) => {
                return Err(JobError::RuntimeGone {
                    job: self.job.clone(),
                    what: "a stage of this job went away before it had ended".into(),
                });
            }
        };
        match arrival {
            Arrival::Batch(channel, batch) => {
                self.cx.arrival_ns = batch.arrival_newest_ns;
                self.cx.arrival_oldest_ns = batch.arrival_oldest_ns;
                self.note_arrival(&batch);
                let waited = now.ns.saturating_sub(batch.sent_ns).max(1);
                self.cx
                    .latencies
                    .ring_ns
                    .saturating_record_n(waited, batch.len() as u64);
                self.cx.counters.records_in += batch.len() as u64;
                self.taken = (batch.len(), batch.last);
                self.check_invariant(&batch);
                Ok((Doing::Batch(channel, batch), Progress::Worked))
            }
            Arrival::Watermark { time, arrival_ns } => {
                let nobody = arrival_ns == 0;
                self.cx.arrived_at(if nobody { now.ns } else { arrival_ns });
                Ok((self.begin_watermark(time), Progress::Worked))
            }
            Arrival::Idle { close } => {
                if close
                    && let Some(time) = self.op.close_idle()
                    && time > self.inbox.merged()
                {
                    self.cx.arrived_at(now.ns);
                    self.inbox.advance_to(time);
                    return Ok((self.begin_watermark(time), Progress::Worked));
                }
                if !self.op.is_holding() {
                    self.control(Control::Idle { close });
                }
                Ok((Doing::Taking, Progress::Worked))
            }
            Arrival::Barrier(cut) => {
                self.cut(cut);
                Ok((Doing::Taking, Progress::Worked))
            }
            Arrival::End => {
                self.pass_watermark(EventTime::END);
                self.control(Control::End);
                Ok((Doing::Ending, Progress::Worked))
            }
            Arrival::Again => Ok((Doing::Taking, Progress::Worked)),
            // No frame was kept waiting: what is due comes next.
            Arrival::Nothing if is_due => Ok((Doing::Taking, Progress::Worked)),
            Arrival::Nothing => {
                self.control(Control::Flush);
                let until_ns = earliest(self.op.wake_at(), self.chain.wake_at());
                Ok((Doing::Taking, Progress::Idle { until_ns }))
            }
        }
    }

    /// The barrier of an epoch passes. Nothing that was begun is left: law 1.
    fn cut(&mut self, cut: Cut) {
        self.reached = cut.epoch;
        for mut ask in self.asks.extract_if(.., |ask| ask.at <= Some(cut.asked)) {
            self.op.answer(&mut ask);
            ask.answered_at(cut.epoch);
        }
        self.op.begin_epoch(cut);
        self.control(Control::Barrier(cut));
        self.cx.barrier_passed();
    }

    /// Remembers when a batch arrived, for the results that will hold it. One that ends in a record behind the watermark
    /// says nothing of the windows still open.
    #[inline]
    fn note_arrival(&mut self, batch: &Batch<In>) {
        if let Some(&last) = batch.times.last()
            && last > EventTime::BEGINNING
            && last >= self.inbox.merged()
        {
            self.arrivals.batch(last, batch.arrival_newest_ns);
        }
    }

    /// SEMANTICS, time, 3: M <= V(r). Only behind records carry their V, so only they can be checked.
    fn check_invariant(&mut self, batch: &Batch<In>) {
        if batch.behind.is_empty() {
            return;
        }
        let merged = self.inbox.merged();
        self.cx.counters.behind += batch.behind.len() as u64;
        let broken = batch.behind.iter().filter(|b| b.watermark < merged).count() as u64;
        self.cx.counters.invariant_broken += broken;
        debug_assert_eq!(broken, 0, "M = {merged} above V of a record");
    }
}

impl<In: Send, Op: Operator<In>, P: Push<Op::Out> + Send> Tasklet for OperatorStage<In, Op, P> {
    fn step(&mut self, now: Now) -> Result<Progress, JobError> {
        self.cx.now_ns = now.ns;
        self.cx.wall = now.wall;
        let progress = self.step_once(now);
        // The letters of a batch that was taken in part, or of a piece: no control event went out after them.
        self.letters.control(Control::Flush, &mut self.cx);
        progress
    }

    fn cx(&mut self) -> &mut Cx {
        &mut self.cx
    }
    fn stage(&self) -> usize {
        self.stage
    }
    fn position(&self, index: Option<usize>) -> String {
        let (length, last) = self.op.replaying().unwrap_or(self.taken);
        let which = index.map_or_else(|| "one".to_string(), |i| format!("record {i}"));
        format!(
            "{which} of the {length} records that end at source {}, partition {}, offset {}; watermark {}",
            last.source,
            last.partition,
            last.offset,
            self.inbox.merged()
        )
    }
    fn watermark(&self) -> EventTime {
        self.inbox.merged()
    }
    fn is_under_way(&self) -> bool {
        let takes = matches!(self.doing, Doing::Taking | Doing::TakingAfterTick);
        !takes || self.blocked()
    }
    fn barrier(&mut self, cut: Cut) {
        self.cut(cut);
    }
    fn reached(&self) -> Epoch {
        self.reached
    }
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.op.save(to).and(self.chain.save(to))
    }
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        Ok(self.op.load(frame)? || self.chain.load(frame)?)
    }
    fn check_loaded(&self) -> Result<(), LoadError> {
        self.op.check_loaded()
    }
    fn sizes(&self, to: &mut Sizes) {
        self.op.sizes(to);
    }
    fn ask(&mut self, mut ask: Ask) {
        if ask.at.is_some() {
            ask.note();
            self.asks.push(ask);
            return;
        }
        self.op.answer(&mut ask);
        ask.answered_at(self.reached);
    }
    fn loaded(&mut self, _: &dyn Fn(StateId) -> bool) -> Result<(), JobError> {
        self.op.loaded();
        self.inbox.restored(self.op.restored_watermark());
        // What is overdue is done before a frame is taken.
        self.doing = Doing::Restored;
        Ok(())
    }
}

impl<In, Op: Operator<In>, P: Push<Op::Out>> OperatorStage<In, Op, P> {
    /// Goes on with what was begun, or takes a frame. One a step: taking all that has arrived empties the rings, and then a
    /// shard that fires a large window stops those that wait for its records (sliding and session windows lost a third on
    /// two shards).
    fn step_once(&mut self, now: Now) -> Result<Progress, JobError> {
        if self.blocked() {
            self.control(Control::Flush);
            if self.blocked() {
                // A full ring rings when there is room; a sink may free itself with time.
                let again = matches!(self.doing, Doing::Ending);
                let retry = again.then(|| now.ns + RETRY_NS);
                return Ok(Progress::Idle {
                    until_ns: earliest(retry, self.chain.wake_at()),
                });
            }
        }
        let doing = std::mem::replace(&mut self.doing, Doing::Taking);
        let after_tick = matches!(doing, Doing::TakingAfterTick);
        let (next, progress) = match doing {
            Doing::Taking | Doing::TakingAfterTick => match self.take(now, after_tick)? {
                // The first piece of a batch or watermark is done in the step that took it: one step a batch of one.
                (Doing::Batch(channel, batch), _) => (self.work(channel, batch), Progress::Worked),
                (Doing::Watermark(time), _) => {
                    (self.resume(Doing::Watermark(time)), Progress::Worked)
                }
                other => other,
            },
            Doing::Batch(channel, batch) => (self.work(channel, batch), Progress::Worked),
            Doing::Ending => return Ok(Progress::Done),
            begun => (self.resume(begun), Progress::Worked),
        };
        self.doing = next;
        if matches!(self.doing, Doing::Batch(..) | Doing::Watermark(_)) && self.op.waits() {
            return Ok(self.waiting());
        }
        Ok(progress)
    }

    /// What was begun waits for somebody outside: what has been made of it until then goes on.
    #[cold]
    fn waiting(&mut self) -> Progress {
        self.control(Control::Flush);
        Progress::Idle {
            until_ns: earliest(self.op.wake_at(), self.chain.wake_at()),
        }
    }

    fn work(&mut self, channel: usize, mut batch: Box<Batch<In>>) -> Doing<In> {
        self.op.batch(&mut batch, &mut self.chain, &mut self.cx);
        if !batch.is_empty() {
            return Doing::Batch(channel, batch);
        }
        self.inbox.recycle(channel, batch);
        self.control(Control::Flush);
        Doing::Taking
    }

    fn resume(&mut self, begun: Doing<In>) -> Doing<In> {
        let mut out = Fired {
            next: &mut self.chain,
            results: 0,
            first: EventTime::BEGINNING,
        };
        let done = self.op.resume(&mut out, &mut self.cx);
        let (results, first) = (out.results, out.first);
        if results > 0 && matches!(begun, Doing::Watermark(_)) && self.op.holds_for_time() {
            self.held(results, first);
        }
        if !done {
            return begun;
        }
        let is_tick = matches!(begun, Doing::Ticked);
        if let Doing::Watermark(time) = begun {
            self.pass_watermark(time);
            return Doing::Taking;
        }
        match self.inbox.told_idle() {
            // A result has woken the channels behind this stage, which is as idle as before.
            Some(close) if !self.op.is_holding() => self.control(Control::Idle { close }),
            _ => self.control(Control::Flush),
        }
        match is_tick {
            true => Doing::TakingAfterTick,
            false => Doing::Taking,
        }
    }

    /// Counts how long the `results` of a piece were held on purpose. They come in the order of time: the first was held longest.
    fn held(&mut self, results: u64, first: EventTime) {
        if let Some(arrival_ns) = self.arrivals.newest(self.op.newest_record(first)) {
            let held = self.cx.now_ns.saturating_sub(arrival_ns).max(1);
            let window_ns = &mut self.cx.latencies.window_ns;
            window_ns.saturating_record_n(held, results);
        }
    }
}

/// The chain behind an operator while it does what a watermark caused: counts the results.
struct Fired<'a, P> {
    next: &'a mut P,
    results: u64,
    /// Time of the first result, if there is one.
    first: EventTime,
}

impl<T, P: Push<T>> Push<T> for Fired<'_, P> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        if self.results == 0 {
            self.first = stamp.time;
        }
        self.results += 1;
        self.next.push(record, stamp, cx);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        if let Some(&first) = batch.times.first()
            && self.results == 0
        {
            self.first = first;
        }
        self.results += batch.len() as u64;
        self.next.push_batch(batch, cx);
    }
    fn takes_batches(&self) -> bool {
        self.next.takes_batches()
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.next.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.next.blocked()
    }
    fn wake_at(&self) -> Option<u64> {
        self.next.wake_at()
    }
}
