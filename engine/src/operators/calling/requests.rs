//! The life of requests: rate, time-outs, back-off, attempts. Whose they are (a record's, a key's) is the operator's business.
//!
//! ```text
//! begin -> ready --(rate, capacity)--> out --> answered
//!            ^                          |---> failed, timed out --(attempts left)--> backing off --+
//!            +-------------------------------------------------------------------------------------+
//! ```
//!
//! Laws
//! 1. At most `capacity` requests are out. An attempt that was given up still lies with the client until that answers: there are at most
//!    `capacity` of those and of the others together, and an attempt that finds no room there waits for it while its time runs.
//! 2. A request is known by a slot that its owner gave; an attempt by a number of its own, so an answer to one that was given up is known
//!    for stale.
//! 3. All attempts may take equally long, so those that are out form a list in the order of their deadlines: O(1) each. Those that back off
//!    sit in a heap, each once.
//! 4. Time is handed in.

use crate::calls::{Answered, Async, CallError, Tally};
use crate::port::CallPort;
use crate::time::Span;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const NONE: u32 = u32::MAX;
/// Attempts made in one step at most: as many as a batch has records, or all would be made at once after a restore.
const PIECE: usize = 1_024;
/// A shard that has rested makes the attempts of so long at once.
const BURST_NS: u64 = 100_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Ready,
    Out,
    BackingOff,
}

/// A request.
#[derive(Clone, Copy, Debug)]
struct Line {
    state: State,
    /// Made so far.
    attempts: u32,
    /// The number of the last attempt.
    call: u64,
    deadline_ns: u64,
    /// Neighbours in the list of those that are out.
    before: u32,
    after: u32,
}

const FREE: Line = Line {
    state: State::Free,
    attempts: 0,
    call: 0,
    deadline_ns: 0,
    before: NONE,
    after: NONE,
};

/// A request has come to its end.
pub(super) type Ended<R> = (u32, Result<R, CallError>);

/// See the module.
pub(super) struct Requests<Q, R> {
    port: CallPort<Q, R>,
    capacity: usize,
    time_out: Span,
    retries: u32,
    back_off_ns: (u64, u64),
    /// Between two attempts of this shard; 0: no bound.
    interval_ns: u64,
    /// When the next attempt would be due, had none come early.
    next_ns: u64,
    lines: Vec<Line>,
    calls: u64,
    ready: VecDeque<u32>,
    /// Attempts that are out and not handed over yet, the oldest first; one that has been given up since is passed over.
    unsent: VecDeque<(u32, u64)>,
    backing_off: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// Ends of the list of those that are out.
    oldest: u32,
    newest: u32,
    /// How many that are.
    out: usize,
    /// Attempts that lie with the client, given up or not.
    with_client: usize,
    pub tally: Tally,
}

impl<Q: Send + 'static, R: Send + 'static> Requests<Q, R> {
    pub fn new(port: CallPort<Q, R>, options: &Async, shards: usize) -> Self {
        let ns = |span: Span| span.nanos();
        let interval = |rate: u32| 1_000_000_000 * shards as u64 / u64::from(rate);
        Requests {
            port,
            capacity: options.capacity,
            time_out: options.time_out,
            retries: options.retries,
            back_off_ns: (ns(options.back_off.0), ns(options.back_off.1)),
            interval_ns: options.rate.map_or(0, |rate| interval(rate).max(1)),
            next_ns: 0,
            lines: vec![],
            calls: 0,
            ready: VecDeque::new(),
            unsent: VecDeque::new(),
            backing_off: BinaryHeap::new(),
            oldest: NONE,
            newest: NONE,
            out: 0,
            with_client: 0,
            tally: Tally::default(),
        }
    }

    /// A request begins. Its slot is its own until it has ended.
    pub fn begin(&mut self, slot: u32) {
        if slot as usize >= self.lines.len() {
            self.lines.resize(slot as usize + 1, FREE);
        }
        let line = &mut self.lines[slot as usize];
        debug_assert_eq!(line.state, State::Free);
        (line.state, line.attempts) = (State::Ready, 0);
        self.ready.push_back(slot);
    }

    /// Takes answers until one ends a request.
    pub fn answered(&mut self, now_ns: u64) -> Option<Ended<R>> {
        while let Some(Answered { slot, call, result }) = self.port.take() {
            self.with_client -= 1;
            let line = self.lines.get(slot as usize);
            if !line.is_some_and(|l| l.state == State::Out && l.call == call) {
                self.tally.stale += 1;
                continue;
            }
            self.unlink(slot);
            match result {
                Ok(response) => {
                    self.lines[slot as usize].state = State::Free;
                    return Some((slot, Ok(response)));
                }
                Err(failure) => {
                    self.tally.refused += 1;
                    let attempts = self.lines[slot as usize].attempts;
                    if failure.is_final() || !self.again(slot, now_ns) {
                        let what = failure.into_text();
                        return Some(self.ended(slot, CallError::Failed { what, attempts }));
                    }
                }
            }
        }
        None
    }

    /// Gives up attempts whose time is over, until one ends its request.
    pub fn expired(&mut self, now_ns: u64) -> Option<Ended<R>> {
        while let Some(line) = self.lines.get(self.oldest as usize)
            && line.deadline_ns <= now_ns
        {
            let (slot, attempts) = (self.oldest, line.attempts);
            self.unlink(slot);
            self.tally.timed_out += 1;
            if !self.again(slot, now_ns) {
                let within = self.time_out;
                return Some(self.ended(slot, CallError::TimedOut { within, attempts }));
            }
        }
        None
    }

    fn ended(&mut self, slot: u32, error: CallError) -> Ended<R> {
        self.tally.failed += 1;
        self.lines[slot as usize].state = State::Free;
        (slot, Err(error))
    }

    /// Has a request whose attempt came to nothing wait for the next, if there is one left.
    fn again(&mut self, slot: u32, now_ns: u64) -> bool {
        let line = &mut self.lines[slot as usize];
        if line.attempts > self.retries {
            return false;
        }
        line.state = State::BackingOff;
        let (first, most) = self.back_off_ns;
        let times = 1u64 << (line.attempts - 1).min(40);
        let at_ns = now_ns.saturating_add(first.saturating_mul(times).min(most));
        self.backing_off.push(Reverse((at_ns, line.call, slot)));
        true
    }

    /// Makes the attempts that may be made, a bounded piece of them; `request` says what is asked for a slot.
    pub fn send(&mut self, now_ns: u64, mut request: impl FnMut(u32) -> Q) {
        while let Some(&Reverse((at_ns, _, slot))) = self.backing_off.peek()
            && at_ns <= now_ns
        {
            self.backing_off.pop();
            self.lines[slot as usize].state = State::Ready;
            self.ready.push_back(slot);
        }
        let mut piece = 0;
        while self.out < self.capacity
            && piece < PIECE
            && self.rate_ns().is_none_or(|at| at <= now_ns)
            && let Some(slot) = self.ready.pop_front()
        {
            piece += 1;
            self.next_ns = self.next_ns.max(now_ns) + self.interval_ns;
            self.attempt(slot, now_ns);
        }
        while let Some(&(slot, call)) = self.unsent.front() {
            let line = &self.lines[slot as usize];
            if line.state == State::Out && line.call == call {
                if self.with_client >= self.capacity || !self.port.submit(slot, call, request(slot))
                {
                    return;
                }
                self.with_client += 1;
            }
            self.unsent.pop_front();
        }
    }

    /// When the rate lets the next attempt go; `None` where there is none.
    fn rate_ns(&self) -> Option<u64> {
        (self.interval_ns > 0).then(|| self.next_ns.saturating_sub(BURST_NS))
    }

    fn attempt(&mut self, slot: u32, now_ns: u64) {
        self.calls += 1;
        self.out += 1;
        let line = &mut self.lines[slot as usize];
        line.state = State::Out;
        line.attempts += 1;
        line.call = self.calls;
        line.deadline_ns = now_ns.saturating_add(self.time_out.nanos());
        (line.before, line.after) = (self.newest, NONE);
        self.tally.requests += 1;
        self.tally.retries += u64::from(line.attempts > 1);
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.lines[newest as usize].after = slot,
        }
        self.newest = slot;
        self.unsent.push_back((slot, self.calls));
    }

    /// An attempt is out no longer.
    fn unlink(&mut self, slot: u32) {
        self.out -= 1;
        let Line { before, after, .. } = self.lines[slot as usize];
        match before {
            NONE => self.oldest = after,
            before => self.lines[before as usize].after = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.lines[after as usize].before = before,
        }
    }

    pub fn has_answers(&self) -> bool {
        self.port.has_answers()
    }

    /// Why nobody answers any more, if so.
    pub fn closed(&self) -> Option<String> {
        self.port.closed()
    }

    /// When something is to be done although no answer comes.
    pub fn wake_at(&self) -> Option<u64> {
        if self.port.has_answers() || self.port.is_closed() {
            return Some(0);
        }
        let oldest = self.lines.get(self.oldest as usize).map(|l| l.deadline_ns);
        let backing_off = self.backing_off.peek().map(|Reverse((at, _, _))| *at);
        let waits = !self.ready.is_empty() && self.out < self.capacity;
        let rate = waits.then(|| self.rate_ns().unwrap_or(0));
        [oldest, backing_off, rate].into_iter().flatten().min()
    }
}
