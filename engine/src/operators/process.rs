//! Process functions: a user's own operator, with states by key and timers ([`mod@crate::process`]).
//!
//! Laws
//! 1. A record's function sees its key's states as records and timers before it have left them. What it emits has the record's
//!    time, behind mark and origin, and comes before anything of the next one; no record is ever too late.
//! 2. A timer by event time for t fires once M > t, in the order of (time, key's words), and before M is passed on: what it
//!    emits has the time t. In event-time order it fires before the first record above t as well.
//! 3. A timer is set for no time before the one that has been reached: M, or in event-time order the record's own. So
//!    nothing it emits lies behind the watermark that was passed on, and in event-time order nothing depends on M.
//! 4. Timers by the clock fire by the driver's timer; what they emit has the time M. The clock never goes back. Those that stand
//!    at the end of the input do not fire. One that is set while another fires is due a millisecond later at the least, so that
//!    firing comes to an end.
//! 5. What has expired by M or by the clock is cleaned away after the timers, in pieces ([`crate::process::Ttl`]).
//! 6. What a function has cleared is taken out in pieces before anything else is done: no other call, no look at rows, no barrier
//!    comes between.
//!
//! Class: EXEMPT; ROWS in event-time order, unless it goes by the clock. State: a row for each key that has something, and what
//! it has. O(1) a record besides what the function does: one probe.

use crate::aggregate::At;
use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::{KeyOf, stable_hash};
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::process::{Ask, Context, KeptStates, Now, OnTimer, Rows, Standing, States, Table, Who};
use crate::push::{Cx, OpId, Push, blame, blame_at};
use crate::query;
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::time::{EventTime, Span};
use crate::wheel::Popped;
use std::marker::PhantomData;

/// Timers, expired entries and cleared ones of a step. Few where this is tested, so that much is done in several.
const PIECE: u32 = if cfg!(test) { 7 } else { 256 };
/// How far ahead a timer by the clock is set by another one at the least: law 4.
const LEAST_WAIT: Span = Span::from_micros(1_000);

/// The states of a key as a function sees them.
type Of<'a, K, S> = <<S as States<K>>::Kept as KeptStates<K>>::Of<'a>;
type Places<K, S> = <<S as States<K>>::Kept as KeptStates<K>>::Place;

/// Makes [`ProcessOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeProcess<T, K, S, O, F, G, C> {
    pub(crate) key: K,
    pub(crate) states: S,
    pub(crate) each: F,
    pub(crate) on_timer: G,
    pub(crate) on_clock: C,
    pub(crate) op: OpId,
    pub(crate) in_order: bool,
    pub(crate) by_clock: bool,
    pub(crate) types: PhantomData<fn(T) -> O>,
}

#[allow(private_interfaces)]
impl<T, K, S, O, F, G, C> MakeOperator<T> for MakeProcess<T, K, S, O, F, G, C>
where
    T: Send + 'static,
    K: KeyOf<T>,
    S: States<K::Key>,
    O: Send + 'static,
    F: Fn(&T, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>) + Clone + Send + 'static,
    G: OnTimer<K::Key, S, O>,
    C: OnTimer<K::Key, S, O>,
{
    type Op = ProcessOp<T, K, S, O, F, G, C>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(ProcessOp {
            key: self.key.clone(),
            each: self.each.clone(),
            on_timer: self.on_timer.clone(),
            on_clock: self.on_clock.clone(),
            op: self.op,
            in_order: self.in_order,
            by_clock: self.by_clock,
            timers: Standing::open::<K::Key>(build, self.op),
            states: self.states.open(build, self.op),
            rows: Table::new(),
            now: Now {
                event: i64::MIN,
                clock: EventTime::MIN.micros(),
            },
            target: i64::MIN,
            wake_ns: None,
            more: vec![],
            asks: vec![],
            done: 0,
            record: PhantomData,
        })
    }
    fn origins(&self) -> Origins {
        match S::NEEDS_ORIGINS {
            true => Origins::Needs,
            false => Origins::Keeps,
        }
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct ProcessOp<T, K: KeyOf<T>, S: States<K::Key>, O, F, G, C> {
    key: K,
    each: F,
    on_timer: G,
    on_clock: C,
    op: OpId,
    /// Records come in the order of event time.
    in_order: bool,
    /// The clock matters.
    by_clock: bool,
    rows: Table<K::Key, Places<K::Key, S>>,
    states: S::Kept,
    timers: Standing,
    /// M whose timers have all fired, and the clock as it was seen last.
    now: Now,
    /// M as it was told: above the other while its timers fire.
    target: i64,
    /// Driver's nanoseconds at which something may be due by the clock.
    wake_ns: Option<u64>,
    /// What the function has emitted, but for the first record, and asked for; empty between two calls.
    more: Vec<O>,
    asks: Vec<Ask>,
    /// Records of the batch in hand that have been taken; 0 between batches.
    done: usize,
    record: PhantomData<fn(T)>,
}

/// What a function is called with: a record, or a timer by event time or by the clock.
#[derive(Clone, Copy)]
enum Call<'a, T> {
    Record(&'a T, usize, At),
    Timer,
    ClockTimer(EventTime),
}

impl<T, K, S, O, F, G, C> ProcessOp<T, K, S, O, F, G, C>
where
    T: Send + 'static,
    K: KeyOf<T>,
    S: States<K::Key>,
    O: Send + 'static,
    F: Fn(&T, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>) + Clone + Send + 'static,
    G: OnTimer<K::Key, S, O>,
    C: OnTimer<K::Key, S, O>,
{
    /// Calls the function for row `id`, then does what it asked for and hands on what it emitted.
    #[inline(always)]
    fn call<P: Push<O>>(
        &mut self,
        id: u32,
        call: Call<'_, T>,
        stamp: Stamp,
        out: &mut P,
        cx: &mut Cx,
    ) {
        let (key, row) = self.rows.rows.entry_mut(id);
        // A timer's row had the timer, which has left it.
        let is_record = matches!(call, Call::Record(..));
        let had = !is_record || !row.is_empty(S::Kept::is_empty);
        let event = stamp.time.micros().max(self.now.event);
        let who = Who {
            key,
            id,
            event,
            clock: self.now.clock,
            at: match call {
                Call::Record(_, _, at) => at,
                _ => At {
                    time: stamp.time,
                    origin: Origin::default(),
                },
            },
        };
        let floor = match call {
            Call::Record(..) if !self.in_order => self.now.event,
            _ => event,
        };
        let mut context = Context {
            key,
            time: match call {
                Call::ClockTimer(time) => time,
                _ => stamp.time,
            },
            at: who.at,
            behind: stamp.behind,
            watermark: EventTime::from_micros(self.target),
            floor: EventTime::from_micros(floor),
            has_timer: G::IS_SOME,
            has_clock_timer: C::IS_SOME,
            clock: EventTime::from_micros(self.now.clock),
            by_clock: self.by_clock,
            least_wait: match call {
                Call::ClockTimer(_) => LEAST_WAIT,
                _ => Span::ZERO,
            },
            first: None,
            more: &mut self.more,
            asks: &mut self.asks,
        };
        let mut states = self.states.of(&mut row.states, who);
        match call {
            Call::Record(record, index, _) => blame_at(self.op, index, || {
                (self.each)(record, &mut states, &mut context);
            }),
            Call::Timer => blame(self.op, || {
                self.on_timer.call(stamp.time, &mut states, &mut context);
            }),
            Call::ClockTimer(time) => blame(self.op, || {
                self.on_clock.call(time, &mut states, &mut context);
            }),
        }
        let first = context.first;
        drop(states);
        let mut is_empty = row.is_empty(S::Kept::is_empty);
        if !self.asks.is_empty() {
            is_empty = self.answer(id);
        }
        if had && is_empty {
            Rows::lost(&mut self.rows, id);
        }
        let Some(first) = first else {
            return;
        };
        let parent = cx.origin.emission;
        cx.origin.emission = Origin::below(parent, 0);
        out.push(first, stamp, cx);
        if !self.more.is_empty() {
            for (n, record) in self.more.drain(..).enumerate() {
                cx.origin.emission = Origin::below(parent, n as u64 + 1);
                out.push(record, stamp, cx);
            }
        }
    }

    /// Its states.
    pub(crate) fn states(&mut self) -> &mut S::Kept {
        &mut self.states
    }

    /// Sets and deletes the timers that a function asked for; whether its row is empty then.
    fn answer(&mut self, id: u32) -> bool {
        for ask in self.asks.drain(..) {
            self.timers.asked(ask, id, &mut self.rows);
        }
        self.rows.rows.value(id).is_empty(S::Kept::is_empty)
    }

    /// Looks for rows that have nothing; whether none is left that may have lost its last thing.
    #[inline(always)]
    fn look_at_rows(&mut self) -> bool {
        let full = self.states.keys_at_least();
        self.rows.look_where(full, S::Kept::is_empty)
    }

    /// Law 6, a piece; whether nothing is left to be cleared.
    #[inline(always)]
    fn clear(&mut self, budget: &mut u32) -> bool {
        !self.states.is_clearing() || self.states.clear_some(&mut self.rows, budget)
    }

    /// Takes records `from..to`, at most a chunk; where it stopped: before a record that waits for timers, or for what was
    /// cleared, if there is more than `budget` of that.
    #[inline(always)]
    fn chunk<P: Push<O>>(
        &mut self,
        batch: &Batch<T>,
        (from, to): (usize, usize),
        budget: &mut u32,
        out: &mut P,
        cx: &mut Cx,
    ) -> usize {
        let probes = probe(
            &self.rows.rows,
            &self.key,
            self.op,
            &batch.records[from..to],
        );
        let mut stamps = Stamps::from(batch, from);
        for (index, (hash, candidate)) in (from..to).zip(probes) {
            let record = &batch.records[index];
            let before = batch.times[index].micros().saturating_sub(1);
            if self.in_order
                && self.timers.next_event() <= before
                && !self.fire(before, budget, out, cx)
            {
                return index;
            }
            let stamp = stamps.of(batch, index, cx);
            let rows = &mut self.rows;
            let id = self
                .key
                .with(record, |key| match rows.rows.verified(candidate, key) {
                    Some(_) => candidate,
                    None => rows.row_of(hash, key),
                });
            // An order has them in any case.
            let at = match S::NEEDS_ORIGINS || self.in_order {
                true => At::of(batch, index),
                false => At {
                    time: stamp.time,
                    origin: Origin::default(),
                },
            };
            self.call(id, Call::Record(record, index, at), stamp, out, cx);
            if !self.clear(budget) {
                return index + 1;
            }
        }
        to
    }

    /// Fires timers by event time up to and including `until`, a piece; whether none is left.
    fn fire<P: Push<O>>(&mut self, until: i64, budget: &mut u32, out: &mut P, cx: &mut Cx) -> bool {
        loop {
            match self.timers.pop(false, until, &mut self.rows, budget) {
                Popped::Due { time, value: id } => {
                    // Only of another shard's checkpoint can one lie below M.
                    let time = time.max(self.now.event);
                    cx.origin = Origin::derived(self.op, stable_hash(self.rows.rows.key(id)));
                    let stamp = Stamp::at(EventTime::from_micros(time));
                    self.call(id, Call::Timer, stamp, out, cx);
                }
                Popped::More => return false,
                Popped::Nothing => return true,
            }
            if !self.clear(budget) || out.blocked() {
                return false;
            }
        }
    }

    /// The same for timers by the clock (law 4).
    fn fire_by_clock<P: Push<O>>(&mut self, budget: &mut u32, out: &mut P, cx: &mut Cx) -> bool {
        loop {
            let until = self.now.clock;
            match self.timers.pop(true, until, &mut self.rows, budget) {
                Popped::Due { time, value: id } => {
                    cx.origin = Origin::derived(self.op, stable_hash(self.rows.rows.key(id)));
                    // Where there is no M yet, the least time that a record may have.
                    let event = EventTime::from_micros(self.now.event).max(EventTime::MIN);
                    let stamp = Stamp::at(event);
                    let time = EventTime::from_micros(time);
                    self.call(id, Call::ClockTimer(time), stamp, out, cx);
                }
                Popped::More => return false,
                Popped::Nothing => return true,
            }
            if !self.clear(budget) || out.blocked() {
                return false;
            }
        }
    }

    /// Looks at the clock.
    #[inline]
    fn look(&mut self, cx: &Cx) {
        if self.by_clock {
            let wall = cx.wall.max(EventTime::MIN).min(EventTime::MAX);
            self.now.clock = self.now.clock.max(wall.micros());
        }
    }

    /// Sets the driver's timer to where something may next be due by the clock. By the clock as it is now: with an older one
    /// each watermark would put the timer off.
    fn arm(&mut self, cx: &Cx) {
        if !self.by_clock {
            return;
        }
        self.look(cx);
        let next = [self.timers.next_clock(), self.states.next_by_clock()];
        self.wake_ns = next.into_iter().flatten().min().map(|due| {
            let wait = due.saturating_sub(self.now.clock).max(0);
            cx.now_ns.saturating_add(Span::from_micros(wait).nanos())
        });
    }
}

impl<T, K, S, O, F, G, C> Operator<T> for ProcessOp<T, K, S, O, F, G, C>
where
    T: Send + 'static,
    K: KeyOf<T>,
    S: States<K::Key>,
    O: Send + 'static,
    F: Fn(&T, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>) + Clone + Send + 'static,
    G: OnTimer<K::Key, S, O>,
    C: OnTimer<K::Key, S, O>,
{
    type Out = O;

    #[inline]
    fn batch<P: Push<O>>(&mut self, batch: &mut Batch<T>, out: &mut P, cx: &mut Cx) {
        self.look(cx);
        let mut budget = PIECE;
        if !self.clear(&mut budget) {
            return self.arm(cx);
        }
        // Also where each call leaves something to clear, and the look behind it is never reached.
        self.look_at_rows();
        while self.done < batch.len() {
            let to = (self.done + CHUNK).min(batch.len());
            self.done = self.chunk(batch, (self.done, to), &mut budget, out, cx);
            if self.states.is_clearing() {
                return self.arm(cx);
            }
            self.look_at_rows();
            if self.done < to || (out.blocked() && to < batch.len()) {
                return self.arm(cx);
            }
        }
        self.done = 0;
        batch.clear();
        self.arm(cx);
    }

    fn watermark<P: Push<O>>(&mut self, watermark: EventTime, _: &mut P, cx: &mut Cx) {
        self.look(cx);
        self.target = self.target.max(watermark.micros());
    }

    fn resume<P: Push<O>>(&mut self, out: &mut P, cx: &mut Cx) -> bool {
        let mut budget = PIECE;
        // Before the next timers take more from their rows.
        if !self.clear(&mut budget) || !self.look_at_rows() {
            return false;
        }
        if !self.fire(self.target.saturating_sub(1), &mut budget, out, cx) {
            return false;
        }
        self.now.event = self.target;
        if !self.fire_by_clock(&mut budget, out, cx)
            || !self.states.expire(&mut self.rows, self.now, &mut budget)
        {
            return false;
        }
        if !self.look_at_rows() {
            return false;
        }
        self.arm(cx);
        true
    }

    fn tick<P: Push<O>>(&mut self, _: &mut P, cx: &mut Cx) {
        self.look(cx);
    }

    fn wake_at(&self) -> Option<u64> {
        self.wake_ns
    }

    fn begin_epoch(&mut self, cut: Cut) {
        debug_assert!(!self.states.is_clearing(), "law 6");
        let clock = self.by_clock.then_some(self.now.clock);
        self.timers.begin_epoch(cut, self.now.event, clock);
        self.states.begin_epoch(cut, &mut self.rows);
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "keys", self.rows.rows.size()));
        self.timers.sizes(self.op, to);
        self.states.sizes(self.op, to);
    }

    fn answer(&self, ask: &mut query::Ask) {
        self.states.answer(ask, &self.rows.rows, self.now);
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let timers = self.timers.save(to, &mut self.rows);
        timers.and(self.states.save(to, &mut self.rows))
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        Ok(self.timers.load(frame, &mut self.rows, &mut self.now)?
            || self.states.load(frame, &mut self.rows)?)
    }

    fn loaded(&mut self) {
        self.target = self.now.event;
        self.timers.loaded(&mut self.rows);
        self.states.loaded(&mut self.rows);
        self.rows.loaded();
        // The clock has not been looked at yet.
        self.wake_ns = self.by_clock.then_some(0);
    }

    fn restored_watermark(&self) -> EventTime {
        EventTime::from_micros(self.now.event)
    }
}
