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
//! 5. Each call does a bounded piece, however many are out; where that leaves something to do now, [`Requests::wake_at`] says so. Lines are in pages, so
//!    no step moves all of them to make room for one more.

use crate::budget::Size;
use crate::calls::{Answered, Async, CallError, Tally};
use crate::port::CallPort;
use crate::time::Span;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::{Index, IndexMut};

const NONE: u32 = u32::MAX;
/// Attempts made in one step at most, attempts handed over or passed over, and back-offs that end: law 5.
const PIECE: usize = if cfg!(test) { 3 } else { 256 };
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

/// Lines in a page.
const PAGE: usize = 256;

/// Lines by slot.
#[derive(Debug, Default)]
struct Lines(Vec<Box<[Line; PAGE]>>);

impl Lines {
    /// A line there may not be yet.
    fn get(&self, slot: u32) -> Option<&Line> {
        let page = self.0.get(slot as usize / PAGE)?;
        page.get(slot as usize % PAGE)
    }

    /// Makes pages up to that of a slot. As slots are given out in turn that is one at most.
    fn reach(&mut self, slot: u32) {
        while self.0.len() <= slot as usize / PAGE {
            self.0.push(Box::new([FREE; PAGE]));
        }
    }
}

impl Index<u32> for Lines {
    type Output = Line;
    #[inline]
    fn index(&self, slot: u32) -> &Line {
        &self.0[slot as usize / PAGE][slot as usize % PAGE]
    }
}

impl IndexMut<u32> for Lines {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Line {
        &mut self.0[slot as usize / PAGE][slot as usize % PAGE]
    }
}

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
    lines: Lines,
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
    /// The last piece left something to do.
    has_more: bool,
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
            lines: Lines::default(),
            calls: 0,
            ready: VecDeque::with_capacity(options.capacity),
            unsent: VecDeque::with_capacity(options.capacity),
            backing_off: BinaryHeap::with_capacity(options.capacity),
            oldest: NONE,
            newest: NONE,
            out: 0,
            with_client: 0,
            has_more: false,
            tally: Tally::default(),
        }
    }

    /// A request begins. Its slot is its own until it has ended.
    pub fn begin(&mut self, slot: u32) {
        self.lines.reach(slot);
        let line = &mut self.lines[slot];
        debug_assert_eq!(line.state, State::Free);
        (line.state, line.attempts) = (State::Ready, 0);
        self.ready.push_back(slot);
    }

    /// Takes an answer, if there is one: what it ends, if it ends a request.
    pub fn answered(&mut self, now_ns: u64) -> Option<Option<Ended<R>>> {
        let Answered { slot, call, result } = self.port.take()?;
        self.with_client -= 1;
        let line = self.lines.get(slot);
        if !line.is_some_and(|l| l.state == State::Out && l.call == call) {
            self.tally.stale += 1;
            return Some(None);
        }
        self.unlink(slot);
        let failure = match result {
            Ok(response) => {
                self.lines[slot].state = State::Free;
                return Some(Some((slot, Ok(response))));
            }
            Err(failure) => failure,
        };
        self.tally.refused += 1;
        let attempts = self.lines[slot].attempts;
        if !failure.is_final() && self.again(slot, now_ns) {
            return Some(None);
        }
        let what = failure.into_text();
        Some(Some(self.ended(slot, CallError::Failed { what, attempts })))
    }

    /// Gives up an attempt whose time is over, if there is one: what that ends, if it ends a request.
    pub fn expired(&mut self, now_ns: u64) -> Option<Option<Ended<R>>> {
        let line = self.lines.get(self.oldest)?;
        if line.deadline_ns > now_ns {
            return None;
        }
        let (slot, attempts) = (self.oldest, line.attempts);
        self.unlink(slot);
        self.tally.timed_out += 1;
        if self.again(slot, now_ns) {
            return Some(None);
        }
        let within = self.time_out;
        Some(Some(
            self.ended(slot, CallError::TimedOut { within, attempts }),
        ))
    }

    fn ended(&mut self, slot: u32, error: CallError) -> Ended<R> {
        self.tally.failed += 1;
        self.lines[slot].state = State::Free;
        (slot, Err(error))
    }

    /// Has a request whose attempt came to nothing wait for the next, if there is one left.
    fn again(&mut self, slot: u32, now_ns: u64) -> bool {
        let line = &mut self.lines[slot];
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
        let mut piece = 0;
        while piece < PIECE
            && let Some(&Reverse((at_ns, _, slot))) = self.backing_off.peek()
            && at_ns <= now_ns
        {
            piece += 1;
            self.backing_off.pop();
            self.lines[slot].state = State::Ready;
            self.ready.push_back(slot);
        }
        // What is left of back-offs and of what is ready is due by `wake_at` as it is.
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
        self.has_more = false;
        let mut piece = 0;
        while let Some(&(slot, call)) = self.unsent.front() {
            if piece == PIECE {
                self.has_more = true;
                return;
            }
            piece += 1;
            let line = &self.lines[slot];
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
        let line = &mut self.lines[slot];
        line.state = State::Out;
        line.attempts += 1;
        line.call = self.calls;
        line.deadline_ns = now_ns.saturating_add(self.time_out.nanos());
        (line.before, line.after) = (self.newest, NONE);
        self.tally.requests += 1;
        self.tally.retries += u64::from(line.attempts > 1);
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.lines[newest].after = slot,
        }
        self.newest = slot;
        self.unsent.push_back((slot, self.calls));
    }

    /// An attempt is out no longer.
    fn unlink(&mut self, slot: u32) {
        self.out -= 1;
        let Line { before, after, .. } = self.lines[slot];
        match before {
            NONE => self.oldest = after,
            before => self.lines[before].after = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.lines[after].before = before,
        }
    }

    /// Its lines, whether they are in use or not: as many as there were slots at once.
    pub fn size(&self) -> Size {
        Size::of::<Line>(self.lines.0.len() * PAGE, 0)
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
        if self.has_more || self.port.has_answers() || self.port.is_closed() {
            return Some(0);
        }
        let oldest = self.lines.get(self.oldest).map(|l| l.deadline_ns);
        let backing_off = self.backing_off.peek().map(|Reverse((at, _, _))| *at);
        let waits = !self.ready.is_empty() && self.out < self.capacity;
        let rate = waits.then(|| self.rate_ns().unwrap_or(0));
        [oldest, backing_off, rate].into_iter().flatten().min()
    }
}
