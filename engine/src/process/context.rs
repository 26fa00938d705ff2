//! What a process function is told of the record or timer in hand, and what it can ask for.

use super::timers::Ask;
use crate::aggregate::At;
use crate::time::{EventTime, Span};

/// The record or timer in hand, and the way out.
#[derive(Debug)]
pub struct Context<'a, K, O> {
    pub(crate) key: &'a K,
    pub(crate) time: EventTime,
    /// Of the record in hand. Its origin is known in event-time order, and where a state asks for it.
    pub(crate) at: At,
    pub(crate) behind: Option<EventTime>,
    pub(crate) watermark: EventTime,
    /// Timers by event time are set for no earlier one.
    pub(crate) floor: EventTime,
    /// What event timers have nobody to call.
    pub(crate) has_timer: bool,
    pub(crate) has_clock_timer: bool,
    pub(crate) clock: EventTime,
    /// Whether the function goes by the clock at all.
    pub(crate) by_clock: bool,
    /// How far ahead timers by the clock are set at the least.
    pub(crate) least_wait: Span,
    /// The first record emitted: mostly the only one, so it does not go through memory.
    pub(crate) first: Option<O>,
    /// The others.
    pub(crate) more: &'a mut Vec<O>,
    pub(crate) asks: &'a mut Vec<Ask>,
}

impl<K, O> Context<'_, K, O> {
    /// The key.
    #[inline]
    pub fn key(&self) -> &K {
        self.key
    }

    /// The event time of the record; the time that a timer was set for.
    pub fn time(&self) -> EventTime {
        self.time
    }

    /// The place of the record in hand, behind an order.
    pub(crate) fn at(&self) -> At {
        self.at
    }

    /// V(r), if the record is behind it: the watermark of its own source partition just before it. No record is too late
    /// for a process function; what to do with one that others would drop is for the function to say.
    pub fn behind(&self) -> Option<EventTime> {
        self.behind
    }

    /// M, the watermark of the operator: [`EventTime::END`] in the last timers. How far it is when a record comes is not the
    /// same in every run.
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// The clock, as it was when the step in hand began: it never goes back.
    ///
    /// # Panics
    /// Where the function does not go by the clock: it has no `on_clock_timer` and no state with a time to live by the clock, and
    /// has not said so ([`Process::by_clock`](super::Process::by_clock)).
    pub fn clock(&self) -> EventTime {
        assert!(
            self.by_clock,
            "the clock was read by a function that does not go by it: say `.by_clock()` before `each`"
        );
        self.clock
    }

    /// Emits a record. It has the time of the record or timer in hand, and a record's behind mark; of a timer by the clock
    /// it has M.
    #[inline]
    pub fn emit(&mut self, record: O) {
        match self.first {
            None => self.first = Some(record),
            Some(_) => self.more.push(record),
        }
    }

    /// Sets a timer of this key for an event time: `on_timer` is called once all records up to and including that time
    /// have come (M > time). A key has one timer a time. The time that it is set for.
    ///
    /// A time that has passed is taken for the earliest that has not: M, which says that all below it has come; in event-time order, the record's
    /// own time; and in a timer, that timer's. So a timer in the past is not lost and not refused. It fires as soon as M rises, what it emits lies
    /// at or above the watermark that was passed on and is late for nobody, and several in the past are one. Who wants to know asks whether the
    /// time returned is the one that was given; by it the timer is deleted.
    ///
    /// What has no end (a timer that sets the next one, for ever) must look at [`Context::watermark`]: at the end of the
    /// input all timers fire, those among them that were set by others as well.
    ///
    /// # Panics
    /// Where the function has no `on_timer`.
    pub fn timer_at(&mut self, time: EventTime) -> EventTime {
        assert!(
            self.has_timer,
            "a timer was set, and there is no `on_timer`"
        );
        let time = time.max(self.floor).clamp(EventTime::MIN, EventTime::MAX);
        self.asks.push(Ask::Set((false, time.micros())));
        time
    }

    /// Deletes the timer of this key for an event time, if there is one: one that has fired, or was set for another time since this had passed, is not there.
    pub fn delete_timer(&mut self, time: EventTime) {
        self.asks.push(Ask::Delete((false, time.micros())));
    }

    /// Sets a timer of this key for so long after now by the clock (a wait below 0 is none): `on_clock_timer` is called then. The clock's time that it
    /// is set for. Timers by the clock that still stand when the input ends do not fire.
    ///
    /// While one fires the next is set for a millisecond later at the least: one that is always due would leave no time for
    /// records.
    ///
    /// # Panics
    /// Where the function has no `on_clock_timer`.
    pub fn clock_timer_after(&mut self, wait: Span) -> EventTime {
        assert!(
            self.has_clock_timer,
            "a timer by the clock was set, and there is no `on_clock_timer`"
        );
        let time = self.clock + wait.max(self.least_wait);
        self.asks.push(Ask::Set((true, time.micros())));
        time
    }

    /// Deletes the timer of this key for a time of the clock, if there is one.
    pub fn delete_clock_timer(&mut self, time: EventTime) {
        self.asks.push(Ask::Delete((true, time.micros())));
    }
}
