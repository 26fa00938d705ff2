//! The partial matches of keys, and what an event or the end of their time does to those of one.
//!
//! Laws
//! 1. What waits is ordered by the first event of its match: what an event makes of a wait takes its place. So times end from the
//!    front, and the oldest and newest are at the ends.
//! 2. An event goes to each wait in turn, then begins a match of its own. What a match needs of time has been seen to before: those
//!    whose time is over by then have gone ([`Matching::expire`]), whenever the watermark came. So nothing depends on it.
//! 3. Matches that one event completes are told in the order of their places: the one with the earlier event where they first differ.
//!    A strategy that skips is followed after each of them. What times out together is told in the order in which it waits.
//! 4. However many waits there are, an event makes at most so many of each as the pattern has elements, and two more; after it there are
//!    at most [`Bounds::waits`] of them and [`Bounds::places`] places.
//! 5. A match has its last event less than `within` after its first. What waits for the end of the pattern behind a lasting guard is a
//!    match when its time is over.
//! 6. A key has no memory of its own but [`Runs`]: its waits are a chain through the waits of all keys. A wait that an event does not
//!    change is not written.
//! 7. A condition that does not look at the match is asked once of an event, however many waits want to know.

use super::buffer::{Buffer, NO_PLACE};
use super::condition::Condition;
use super::kept::Writing;
use super::matches::Matched;
use super::nfa::{Contiguity, END, Element, Nfa, bits};
use super::policy::{AfterMatch, WhenFull};
use super::slab::{NONE, Slab, Vacant};
use crate::budget::Size;
use crate::state::State;

/// A partial match and one thing that it waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub guards: u64,
    pub rivals: u64,
    /// Its last event.
    pub place: u32,
    /// The first event of its match.
    pub first: u32,
    /// The element that it waits for, or [`END`].
    pub element: u32,
    /// The next one of its key, or [`NONE`]; of a free one, the next free one.
    pub next: u32,
}

impl Vacant for Wait {
    fn vacant(next: u32) -> Self {
        Wait {
            guards: 0,
            rivals: 0,
            place: NO_PLACE,
            first: NONE,
            element: END,
            next,
        }
    }
    fn next_vacant(&self) -> u32 {
        self.next
    }
}

/// What a key has: where its waits begin. What they are, and the events behind them, is [`Matching`]'s.
#[derive(Debug)]
pub(crate) struct Runs {
    /// The time of the first event of the first wait, if there is one.
    oldest: i64,
    pub(super) head: u32,
    pub(super) waits: u32,
    pub(super) places: u32,
    /// Whether whoever has it has set a timer for it.
    pub has_timer: bool,
}

impl Runs {
    pub fn new() -> Self {
        Runs {
            oldest: 0,
            head: NONE,
            waits: 0,
            places: 0,
            has_timer: false,
        }
    }

    /// Whether there is nothing to keep.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// What waits, and places that are held.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        (self.waits as usize, self.places as usize)
    }

    /// When the time of the oldest partial match is over.
    #[inline(always)]
    pub fn over(&self, within: i64) -> Option<i64> {
        (!self.is_empty()).then(|| self.oldest + within)
    }
}

/// How much a key may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub waits: usize,
    pub places: usize,
    pub full: WhenFull,
}

/// Who is told what becomes of matches.
pub(crate) trait Tell<T> {
    /// A match, and its event time.
    fn matched(&mut self, matched: &Matched<'_, T>, time: i64);
    /// A partial match whose time was over then.
    fn timed_out(&mut self, matched: &Matched<'_, T>, over: i64);
}

/// A match that is complete and has not been told.
#[derive(Clone, Copy, Debug)]
struct Complete {
    /// Its last place, and its first event.
    place: u32,
    first: u32,
    /// Which it was of those that one event completed.
    nth: u32,
}

/// The partial matches of a shard's keys.
#[derive(Debug)]
pub(crate) struct Matching<T> {
    pub(super) buffer: Buffer<T>,
    pub(super) waits: Slab<Wait>,
    complete: Vec<Complete>,
    /// Room for the places of a match.
    path: Vec<u32>,
    /// Room for what is gone through backwards.
    chain: Vec<u32>,
    pub(super) writing: Writing,
    /// What has been done since it was set to 0: partial matches that were looked at or went, places that were gone along or went.
    pub work: usize,
}

impl<T: State> Matching<T> {
    pub fn new() -> Self {
        Matching {
            buffer: Buffer::new(),
            waits: Slab::new(),
            complete: vec![],
            path: vec![],
            chain: vec![],
            writing: Writing::default(),
            work: 0,
        }
    }

    /// Whether no key has anything.
    pub fn is_empty(&self) -> bool {
        self.waits.len() == 0
    }

    /// Events that are held, and the bytes of all. O(1).
    pub fn size(&self) -> Size {
        let waits = Size::of::<Wait>(self.waits.len(), 0);
        let held = self.buffer.size();
        Size {
            bytes: held.bytes + waits.bytes,
            ..held
        }
    }

    /// Waits, events and places that are held, of all keys.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize, usize) {
        let events = self.buffer.size().entries as usize;
        (self.waits.len(), events, self.buffer.places())
    }

    /// Asks the cache for what a key's next event will look at first.
    #[inline(always)]
    pub fn prefetch(&self, runs: &Runs) {
        self.waits.prefetch(runs.head);
    }

    /// Whether an event may begin a match.
    #[inline]
    pub fn may_begin(&self, nfa: &Nfa<T>, event: &T) -> bool {
        let begin = nfa.begin.iter();
        let mut elements = begin.filter_map(|target| nfa.elements.get(target.element as usize));
        elements.any(|element| element.takes.holds(event, &self.seen(nfa, &[])))
    }

    /// When the time of the newest partial match of a key is over. O(its waits).
    pub fn over_last(&self, runs: &Runs, within: i64) -> Option<i64> {
        let (mut at, mut last) = (runs.head, None);
        while at != NONE {
            last = Some(self.waits[at].first);
            at = self.waits[at].next;
        }
        last.map(|first| self.buffer.moment(first).0 + within)
    }

    /// Takes an event whose time is not below that of the ones before, when what is over by then has been ended.
    pub fn event(
        &mut self,
        runs: &mut Runs,
        nfa: &Nfa<T>,
        bounds: &Bounds,
        (record, time): (T, i64),
        tell: &mut impl Tell<T>,
    ) -> Outcome {
        debug_assert!(
            nfa.within
                .is_none_or(|w| runs.over(w).is_none_or(|over| over > time))
        );
        let head = runs.head;
        let mut one = Event {
            at: self,
            nfa,
            record: Some(record),
            event: NONE,
            time,
            before: NONE,
            now: runs.head,
            runs,
            knows_path: false,
            takes: Asked::default(),
            untils: Asked::default(),
        };
        one.at.work += one.runs.waits as usize + 1;
        while one.now != NONE {
            one.knows_path = false;
            one.comes_to_wait();
        }
        one.knows_path = false;
        let waits = one.runs.waits;
        one.begins();
        let began = one.runs.waits > waits;
        let event = one.event;
        if event == NONE && self.complete.is_empty() {
            // It has taken nothing and completed nothing: waits can only have gone.
            if runs.head != head {
                self.head_has_moved(runs);
            }
            return Outcome { began, dropped: 0 };
        }
        if event != NONE {
            self.buffer.let_go(event);
        }
        let go_on = match self.complete.is_empty() {
            true => 0,
            false => self.tell(runs, nfa, time, tell),
        };
        self.skip_to(runs, go_on);
        let dropped = self.bound(runs, bounds);
        self.head_has_moved(runs);
        Outcome { began, dropped }
    }

    /// The first wait may be another one than it was.
    #[inline]
    pub(super) fn head_has_moved(&self, runs: &mut Runs) {
        if runs.head != NONE {
            runs.oldest = self.buffer.moment(self.waits[runs.head].first).0;
        }
    }

    /// Ends what is over at `time`, oldest first (law 5), until `work` has come to `most`; whether none is left. What one event
    /// has begun is not parted.
    pub fn expire(
        &mut self,
        runs: &mut Runs,
        nfa: &Nfa<T>,
        time: i64,
        most: usize,
        tell: &mut impl Tell<T>,
    ) -> bool {
        let Some(within) = nfa.within else {
            return true;
        };
        while let Some(over) = runs.over(within).filter(|&over| over <= time) {
            if self.work >= most {
                return false;
            }
            self.expire_first(runs, nfa, over, tell);
        }
        true
    }

    /// Ends what one event has begun, the oldest.
    fn expire_first(&mut self, runs: &mut Runs, nfa: &Nfa<T>, over: i64, tell: &mut impl Tell<T>) {
        const TOLD: u32 = 1;
        // They leave the key at once, and are freed when they have been told.
        let head = runs.head;
        let first = self.waits[head].first;
        let mut end = head;
        while end != NONE && self.waits[end].first == first {
            let wait = self.waits[end];
            if wait.element == END {
                self.buffer.keep(wait.place);
                self.completes(wait.place, first);
            }
            runs.waits -= 1;
            self.work += 1;
            end = wait.next;
        }
        runs.head = end;
        let go_on = match self.complete.is_empty() {
            true => 0,
            false => self.tell(runs, nfa, over, tell),
        };
        let is_told = self.buffer.moment(first).1 >= go_on;
        let mut at = head;
        while is_told && at != end {
            // What has been told as a match is no partial one.
            let wait = self.waits[at];
            if wait.element == END || nfa.completes(self.buffer.element(wait.place)) {
                self.buffer.set_mark(wait.place, TOLD);
            }
            at = wait.next;
        }
        at = head;
        while is_told && at != end {
            let wait = self.waits[at];
            if self.buffer.mark(wait.place) != TOLD {
                self.buffer.set_mark(wait.place, TOLD);
                self.buffer.path(wait.place, &mut self.path);
                self.work += self.path.len();
                tell.timed_out(&self.seen(nfa, &self.path), over);
            }
            at = wait.next;
        }
        at = head;
        while at != end {
            let wait = self.waits.take(at);
            // It may live on before a place of another wait.
            self.buffer.set_mark(wait.place, 0);
            self.release(runs, wait.place);
            at = wait.next;
        }
        self.skip_to(runs, go_on);
        self.head_has_moved(runs);
    }

    /// One name of a place less.
    #[inline]
    fn release(&mut self, runs: &mut Runs, place: u32) {
        let went = self.buffer.release(place);
        runs.places -= went as u32;
        self.work += went;
    }

    /// A match is complete. Its place has been kept for that.
    #[inline]
    fn completes(&mut self, place: u32, first: u32) {
        let nth = self.complete.len() as u32;
        self.complete.push(Complete { place, first, nth });
    }

    fn seen<'a>(&'a self, nfa: &'a Nfa<T>, path: &'a [u32]) -> Matched<'a, T> {
        Matched {
            names: &nfa.names,
            buffer: &self.buffer,
            path,
        }
    }

    /// Tells what is complete (law 3); the number of the event with which matching goes on.
    fn tell(&mut self, runs: &mut Runs, nfa: &Nfa<T>, time: i64, tell: &mut impl Tell<T>) -> u64 {
        let mut complete = std::mem::take(&mut self.complete);
        // They have come in the order of their first events (law 1).
        for alike in complete.chunk_by_mut(|a, b| a.first == b.first) {
            alike.sort_unstable_by(|a, b| {
                let (order, work) = self.buffer.compare(a.place, b.place);
                self.work += work;
                order.then(a.nth.cmp(&b.nth))
            });
        }
        let mut go_on = 0;
        for Complete { place, .. } in complete.drain(..) {
            let mut path = std::mem::take(&mut self.path);
            self.buffer.path(place, &mut path);
            self.work += path.len();
            let starts = path.first().map(|&p| self.buffer.when(p).1);
            if starts.is_some_and(|starts| starts >= go_on) {
                tell.matched(&self.seen(nfa, &path), time);
                go_on = go_on.max(self.goes_on(nfa, &path));
            }
            self.path = path;
            self.release(runs, place);
        }
        self.complete = complete;
        go_on
    }

    /// Where matching goes on after the match of these places: [`AfterMatch`].
    fn goes_on(&self, nfa: &Nfa<T>, path: &[u32]) -> u64 {
        let number = |place: Option<&u32>| place.map(|&p| self.buffer.when(p).1);
        let is_of = |name: &str, place: u32| {
            let element = self.buffer.element(place).0;
            nfa.names[element as usize] == name
        };
        let found = match &nfa.skip {
            AfterMatch::NoSkip => None,
            AfterMatch::ToNext => number(path.first()).map(|n| n + 1),
            AfterMatch::PastLast => number(path.last()).map(|n| n + 1),
            AfterMatch::ToFirst(name) => number(path.iter().find(|&&p| is_of(name, p))),
            AfterMatch::ToLast(name) => number(path.iter().rfind(|&&p| is_of(name, p))),
        };
        found.unwrap_or(0)
    }

    /// Whatever began before this event goes.
    fn skip_to(&mut self, runs: &mut Runs, number: u64) {
        while number > 0
            && runs.head != NONE
            && self.buffer.moment(self.waits[runs.head].first).1 < number
        {
            self.work += 1;
            self.drop_first(runs);
        }
    }

    fn drop_first(&mut self, runs: &mut Runs) {
        let wait = self.waits.take(runs.head);
        runs.head = wait.next;
        runs.waits -= 1;
        self.release(runs, wait.place);
    }

    /// Whatever a key has goes, and nothing is told.
    pub fn clear(&mut self, runs: &mut Runs) {
        while runs.head != NONE {
            self.drop_first(runs);
        }
    }

    /// Law 4: how many had to go.
    #[inline]
    fn bound(&mut self, runs: &mut Runs, bounds: &Bounds) -> u64 {
        let is_full = |runs: &Runs| {
            runs.waits as usize > bounds.waits || runs.places as usize > bounds.places
        };
        match is_full(runs) {
            true => self.drop_what_is_too_much(runs, bounds.full, is_full),
            false => 0,
        }
    }

    #[cold]
    fn drop_what_is_too_much(
        &mut self,
        runs: &mut Runs,
        full: WhenFull,
        is_full: impl Fn(&Runs) -> bool,
    ) -> u64 {
        let before = runs.waits;
        if full == WhenFull::DropOldest {
            while is_full(runs) {
                self.work += 1;
                self.drop_first(runs);
            }
            return u64::from(before - runs.waits);
        }
        let mut chain = std::mem::take(&mut self.chain);
        let mut at = runs.head;
        while at != NONE {
            chain.push(at);
            at = self.waits[at].next;
        }
        self.work += chain.len();
        while is_full(runs)
            && let Some(newest) = chain.pop()
        {
            let wait = self.waits.take(newest);
            runs.waits -= 1;
            self.release(runs, wait.place);
            match chain.last() {
                Some(&last) => self.waits[last].next = NONE,
                None => runs.head = NONE,
            }
        }
        chain.clear();
        self.chain = chain;
        u64::from(before - runs.waits)
    }
}

/// What an event has done to a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// It has begun a match that is not complete.
    pub began: bool,
    /// How many partial matches had to go.
    pub dropped: u64,
}

/// Law 7: which elements' conditions have been asked, and which hold.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    known: u64,
    held: u64,
}

/// An event on its way through the waits of its key.
struct Event<'a, T> {
    at: &'a mut Matching<T>,
    nfa: &'a Nfa<T>,
    runs: &'a mut Runs,
    /// As long as nothing has taken it.
    record: Option<T>,
    /// Where it lies since something has; or [`NONE`].
    event: u32,
    time: i64,
    /// The wait before the one in hand, and that one. [`NONE`] where there is none.
    before: u32,
    now: u32,
    /// Whether the path is that of the wait in hand.
    knows_path: bool,
    takes: Asked,
    untils: Asked,
}

impl<T: State> Event<'_, T> {
    fn asks(&mut self, place: u32, condition: &Condition<T>) -> bool {
        if condition.looks_back && !self.knows_path {
            self.at.buffer.path(place, &mut self.at.path);
            self.at.work += self.at.path.len();
            self.knows_path = true;
        }
        let path: &[u32] = match condition.looks_back {
            true => &self.at.path,
            false => &[],
        };
        let record = match &self.record {
            Some(record) => record,
            None => self.at.buffer.record(self.event),
        };
        condition.holds(record, &self.at.seen(self.nfa, path))
    }

    /// Whether an element takes the event behind `place`.
    #[inline]
    fn holds(&mut self, place: u32, at: usize) -> bool {
        let bit = 1 << at;
        if self.takes.known & bit == 0 {
            let condition = &self.nfa.elements[at].takes;
            let holds = self.asks(place, condition);
            if condition.looks_back {
                return holds;
            }
            self.takes.known |= bit;
            self.takes.held |= bit * u64::from(holds);
        }
        self.takes.held & bit != 0
    }

    /// Whether the event ends an element's loop.
    #[inline]
    fn ends(&mut self, place: u32, at: usize) -> bool {
        let Some(until) = &self.nfa.elements[at].until else {
            return false;
        };
        let bit = 1 << at;
        if self.untils.known & bit == 0 {
            let holds = self.asks(place, until);
            if until.looks_back {
                return holds;
            }
            self.untils.known |= bit;
            self.untils.held |= bit * u64::from(holds);
        }
        self.untils.held & bit != 0
    }

    /// The element of a place, if it is one.
    fn element(&self, place: u32) -> Option<(u32, u32)> {
        (place != NO_PLACE).then(|| self.at.buffer.element(place))
    }

    /// Comes to the wait in hand, and takes the next one in hand.
    fn comes_to_wait(&mut self) {
        let wait = self.at.waits[self.now];
        match self.what_stays(wait) {
            Some((guards, rivals)) => {
                if (guards, rivals) != (wait.guards, wait.rivals) {
                    let stays = &mut self.at.waits[self.now];
                    (stays.guards, stays.rivals) = (guards, rivals);
                }
                self.before = self.now;
            }
            None => {
                self.at.waits.take(self.now);
                self.runs.waits -= 1;
                self.follows(wait.next);
                self.at.release(self.runs, wait.place);
            }
        }
        self.now = wait.next;
    }

    /// What comes behind the last wait that has been gone by.
    fn follows(&mut self, next: u32) {
        match self.before {
            NONE => self.runs.head = next,
            before => self.at.waits[before].next = next,
        }
    }

    /// The guards and rivals with which a wait stays that the event has come to, if it does. What it begins is added.
    fn what_stays(&mut self, wait: Wait) -> Option<(u64, u64)> {
        let (nfa, place) = (self.nfa, wait.place);
        for guard in bits(wait.guards) {
            if self.holds(place, guard) {
                return None;
            }
        }
        let guards = nfa.lasting(wait.guards);
        let rivals = self.rivals(place, wait.rivals)?;
        if wait.element == END {
            if guards == 0 {
                self.at.buffer.keep(place);
                self.at.completes(place, wait.first);
                return None;
            }
            return Some((guards, rivals));
        }
        let at = wait.element as usize;
        if self.ends(place, at) {
            return None;
        }
        let takes = self.holds(place, at);
        if takes {
            self.take(place, wait.element, wait.first);
        }
        let element = &nfa.elements[at];
        let contiguity = match element.inner == element.entry {
            true => element.entry,
            false if self.at.buffer.element(place).0 == wait.element => element.inner,
            false => element.entry,
        };
        match contiguity {
            Contiguity::Strict => None,
            Contiguity::Relaxed => (!takes).then_some((guards, rivals)),
            Contiguity::Any => Some((guards, rivals)),
        }
    }

    /// The rivals that are left behind the event; `None` where one of them has taken it.
    fn rivals(&mut self, place: u32, rivals: u64) -> Option<u64> {
        let nfa = self.nfa;
        let mut left = rivals;
        for at in bits(rivals) {
            if self.ends(place, at) {
                left &= !(1 << at);
                continue;
            }
            if self.holds(place, at) {
                return None;
            }
            let rival = &nfa.elements[at];
            let contiguity = match self.element(place) {
                Some((element, _)) if element as usize == at => rival.inner,
                _ => rival.entry,
            };
            if contiguity == Contiguity::Strict {
                left &= !(1 << at);
            }
        }
        Some(left)
    }

    /// The event as the first of a match.
    fn begins(&mut self) {
        let nfa = self.nfa;
        for target in nfa.begin.iter().filter(|target| target.element != END) {
            let at = target.element as usize;
            if self.rivals(NO_PLACE, target.rivals).is_some()
                && !self.ends(NO_PLACE, at)
                && self.holds(NO_PLACE, at)
            {
                self.take(NO_PLACE, target.element, NONE);
            }
        }
    }

    /// An element takes the event behind `before`, in a match whose first event is `first`: itself where that is [`NONE`].
    fn take(&mut self, before: u32, element: u32, first: u32) {
        if let Some(record) = self.record.take() {
            self.event = self.at.buffer.take_in(record, self.time);
        }
        let first = if first == NONE { self.event } else { first };
        let count = match self.element(before) {
            Some((last, count)) if last == element => count + 1,
            _ => 1,
        };
        let place = self.at.buffer.place(self.event, before, element, count);
        self.runs.places += 1;
        let at: &Element<T> = &self.nfa.elements[element as usize];
        if count < at.most {
            self.waits_for(place, first, element, (0, 0));
        }
        for target in at.after.iter().filter(|_| count >= at.least) {
            if target.element == END && target.guards == 0 {
                self.at.buffer.keep(place);
                self.at.completes(place, first);
                continue;
            }
            // A loop that is full is nobody's rival.
            let rivals = match count < at.most {
                true => target.rivals,
                false => target.rivals & !(1 << element),
            };
            self.waits_for(place, first, target.element, (target.guards, rivals));
        }
        self.at.release(self.runs, place);
    }

    /// Adds a wait before the one in hand.
    fn waits_for(&mut self, place: u32, first: u32, element: u32, (guards, rivals): (u64, u64)) {
        self.at.buffer.keep(place);
        let wait = self.at.waits.put(Wait {
            guards,
            rivals,
            place,
            first,
            element,
            next: self.now,
        });
        self.runs.waits += 1;
        self.follows(wait);
        self.before = wait;
    }
}
