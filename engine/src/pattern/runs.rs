//! The partial matches of a key, and what an event or the end of their time does to them.
//!
//! Laws
//! 1. What waits is ordered by the first event of its match: what an event makes of a wait takes its place. So times end from the
//!    front, and the oldest and newest are at the ends.
//! 2. An event goes to each wait in turn, then begins a match of its own. What a match needs of time has been seen to before: those
//!    whose time is over by then have gone ([`Runs::expire`]), whenever the watermark came. So nothing depends on it.
//! 3. Matches that one event completes are told in the order of their places: the one with the earlier event where they first differ.
//!    A strategy that skips is followed after each of them.
//! 4. However many waits there are, an event makes at most so many of each as the pattern has elements, and two more; after it there are
//!    at most [`Bounds::waits`] of them and [`Bounds::places`] places.
//! 5. A match has its last event less than `within` after its first. What waits for the end of the pattern behind a lasting guard is a
//!    match when its time is over.

use super::buffer::{Buffer, NO_PLACE};
use super::condition::Condition;
use super::matches::Matched;
use super::nfa::{Contiguity, END, Element, Nfa, bits};
use super::policy::{AfterMatch, WhenFull};
use crate::budget::Size;
use crate::state::State;

/// A partial match and one thing that it waits for.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// Its last event.
    place: u32,
    /// The element that it waits for, or [`END`].
    element: u32,
    guards: u64,
    rivals: u64,
    /// Number and time of its first event.
    start: u64,
    start_time: i64,
}

/// See the module.
#[crate::state(version = 1)]
#[derive(Debug)]
pub(crate) struct Runs<T> {
    /// Of the pattern: [`Nfa::print`].
    pub print: u64,
    /// The number of the key's next event.
    next: u64,
    waits: Vec<Wait>,
    buffer: Buffer<T>,
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

/// Room for what one event does.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    waits: Vec<Wait>,
    /// Last places of matches, and the numbers of their first events.
    complete: Vec<(u32, u64)>,
    path: Vec<u32>,
    /// Where places are now, while a buffer is closed up.
    to: Vec<u32>,
    /// What has been done since it was set to 0: partial matches that were looked at or went, places that were gone along or went.
    pub work: usize,
}

/// Partial matches that a key has room for besides four times those that it has.
const SPARE: usize = 32;

impl<T: State> Runs<T> {
    pub fn new(print: u64) -> Self {
        Runs {
            print,
            next: 0,
            waits: vec![],
            buffer: Buffer::default(),
        }
    }

    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// What waits.
    #[cfg(test)]
    pub fn waits(&self) -> usize {
        self.waits.len()
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

    /// Events and places that are held.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        (self.buffer.size().entries as usize, self.buffer.places())
    }

    /// How long the lists of events and places are, and how many partial matches there is room for.
    #[cfg(test)]
    pub fn room(&self) -> (usize, usize, usize) {
        let (events, places) = self.buffer.lengths();
        (events, places, self.waits.capacity())
    }

    /// When the time of the oldest partial match is over.
    pub fn over(&self, within: i64) -> Option<i64> {
        self.waits.first().map(|w| w.start_time + within)
    }

    /// When the time of the newest one is.
    pub fn over_last(&self, within: i64) -> Option<i64> {
        self.waits.last().map(|w| w.start_time + within)
    }

    /// Takes an event whose time is not below that of the ones before; how many partial matches had to go.
    pub fn event(
        &mut self,
        nfa: &Nfa<T>,
        bounds: &Bounds,
        (record, time): (T, i64),
        scratch: &mut Scratch,
        tell: &mut impl Tell<T>,
    ) -> u64 {
        self.expire(nfa, time, usize::MAX, scratch, tell);
        let event = self.buffer.take_in(record, time, self.next);
        let mut one = Event {
            nfa,
            buffer: &mut self.buffer,
            event,
            start: (self.next, time),
            scratch,
            knows_path: false,
        };
        let mut waits = std::mem::take(&mut self.waits);
        one.scratch.work += waits.len() + 1;
        for wait in waits.drain(..) {
            one.knows_path = false;
            one.comes_to(wait);
        }
        one.knows_path = false;
        one.begins();
        self.next += 1;
        // Its own again, not the scratch's, which has room for the most that any key had.
        waits.append(&mut scratch.waits);
        self.waits = waits;
        self.buffer.let_go(event);
        let go_on = self.tell(nfa, time, scratch, tell);
        self.skip_to(go_on, scratch);
        let dropped = self.bound(bounds, scratch);
        self.close_up(scratch);
        dropped
    }

    /// Nothing is kept for what there once was: [`Buffer::close_up`].
    fn close_up(&mut self, scratch: &mut Scratch) {
        if self.buffer.is_sparse() {
            self.buffer.close_up(&mut scratch.to);
            for wait in &mut self.waits {
                wait.place = scratch.to[wait.place as usize];
            }
            scratch.work += scratch.to.len();
        }
        if self.waits.capacity() > 4 * self.waits.len() + SPARE {
            self.waits.shrink_to(2 * self.waits.len());
        }
    }

    /// Whether an event may begin a match.
    pub fn may_begin(nfa: &Nfa<T>, record: &T) -> bool {
        let matched = Matched {
            names: &nfa.names,
            buffer: &Buffer::default(),
            path: &[],
        };
        let takes = |e: &Element<T>| e.takes.holds(record, &matched);
        nfa.begin
            .iter()
            .filter_map(|target| nfa.elements.get(target.element as usize))
            .any(takes)
    }

    /// Ends what is over at `time`, oldest first (law 5), until `scratch.work` has come to `most`; whether none is left. What one event
    /// has begun is not parted.
    pub fn expire(
        &mut self,
        nfa: &Nfa<T>,
        time: i64,
        most: usize,
        scratch: &mut Scratch,
        tell: &mut impl Tell<T>,
    ) -> bool {
        let Some(within) = nfa.within else {
            return true;
        };
        while let Some(over) = self.over(within).filter(|&over| over <= time) {
            if scratch.work >= most {
                return false;
            }
            // Taking out the first moves the others: some bytes each.
            scratch.work += self.waits.len() / 16;
            let start = self.waits[0].start;
            let count = self.waits.partition_point(|w| w.start <= start);
            let mut group: Vec<Wait> = self.waits.drain(..count).collect();
            scratch.work += count;
            for wait in group.iter().filter(|w| w.element == END) {
                self.buffer.keep(wait.place);
                scratch.complete.push((wait.place, start));
            }
            let go_on = self.tell(nfa, over, scratch, tell);
            if start >= go_on {
                group.sort_by_key(|w| (w.place, w.element != END));
                let mut last = NO_PLACE;
                for wait in &group {
                    // What has been told as a match is no partial one.
                    let is_match =
                        wait.element == END || nfa.completes(self.buffer.element(wait.place));
                    if wait.place != last && !is_match {
                        self.buffer.path(wait.place, &mut scratch.path);
                        scratch.work += scratch.path.len();
                        tell.timed_out(&self.seen(nfa, &scratch.path), over);
                    }
                    last = wait.place;
                }
            }
            for wait in group {
                scratch.work += self.buffer.release(wait.place);
            }
            self.skip_to(go_on, scratch);
            self.close_up(scratch);
        }
        true
    }

    fn seen<'a>(&'a self, nfa: &'a Nfa<T>, path: &'a [u32]) -> Matched<'a, T> {
        Matched {
            names: &nfa.names,
            buffer: &self.buffer,
            path,
        }
    }

    /// Tells what is complete (law 3); the number of the event with which matching goes on.
    fn tell(
        &mut self,
        nfa: &Nfa<T>,
        time: i64,
        scratch: &mut Scratch,
        tell: &mut impl Tell<T>,
    ) -> u64 {
        let Scratch {
            complete,
            path,
            work,
            ..
        } = scratch;
        if complete.len() > 1 {
            complete.sort_by_cached_key(|&(place, _)| {
                self.buffer.path(place, path);
                *work += path.len();
                let places = path.iter();
                let mut key: Vec<_> = places
                    .map(|&p| (self.buffer.when(p).1, self.buffer.element(p).0))
                    .collect();
                // The longer one before what it begins with.
                key.push((u64::MAX, 0));
                key
            });
        }
        let mut go_on = 0;
        for (place, start) in complete.drain(..) {
            if start >= go_on {
                self.buffer.path(place, path);
                *work += path.len();
                tell.matched(&self.seen(nfa, path), time);
                go_on = go_on.max(self.goes_on(nfa, path));
            }
            *work += self.buffer.release(place);
        }
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
    fn skip_to(&mut self, number: u64, scratch: &mut Scratch) {
        let count = self.waits.partition_point(|w| w.start < number);
        for wait in self.waits.drain(..count) {
            scratch.work += 1 + self.buffer.release(wait.place);
        }
    }

    /// Law 4: how many had to go.
    fn bound(&mut self, bounds: &Bounds, scratch: &mut Scratch) -> u64 {
        let mut oldest = 0;
        let mut newest = self.waits.len();
        while newest - oldest > bounds.waits || self.buffer.places() > bounds.places {
            let goes = match bounds.full {
                WhenFull::DropOldest => {
                    oldest += 1;
                    oldest - 1
                }
                WhenFull::DropNewest => {
                    newest -= 1;
                    newest
                }
            };
            scratch.work += 1 + self.buffer.release(self.waits[goes].place);
        }
        let dropped = self.waits.len() - (newest - oldest);
        self.waits.truncate(newest);
        self.waits.drain(..oldest);
        dropped as u64
    }
}

/// An event on its way through the waits of its key.
struct Event<'a, T> {
    nfa: &'a Nfa<T>,
    buffer: &'a mut Buffer<T>,
    event: u32,
    /// Its number and time: where a match of its own starts.
    start: (u64, i64),
    scratch: &'a mut Scratch,
    /// Whether `scratch.path` is that of the wait in hand.
    knows_path: bool,
}

impl<T: State> Event<'_, T> {
    fn holds(&mut self, place: u32, condition: &Condition<T>) -> bool {
        if condition.looks_back && !self.knows_path {
            self.buffer.path(place, &mut self.scratch.path);
            self.scratch.work += self.scratch.path.len();
            self.knows_path = true;
        }
        let matched = Matched {
            names: &self.nfa.names,
            buffer: self.buffer,
            path: match condition.looks_back {
                true => &self.scratch.path,
                false => &[],
            },
        };
        condition.holds(self.buffer.record(self.event), &matched)
    }

    fn ends(&mut self, place: u32, element: &Element<T>) -> bool {
        let until = element.until.as_ref();
        until.is_some_and(|until| self.holds(place, until))
    }

    /// The element of a place, if it is one.
    fn element(&self, place: u32) -> Option<(u32, u32)> {
        (place != NO_PLACE).then(|| self.buffer.element(place))
    }

    fn comes_to(&mut self, wait: Wait) {
        let place = wait.place;
        match self.what_stays(wait) {
            Some(stays) => self.scratch.waits.push(stays),
            None => self.scratch.work += self.buffer.release(place),
        }
    }

    /// What is left of a wait that the event has come to. What it begins is added.
    fn what_stays(&mut self, wait: Wait) -> Option<Wait> {
        let (nfa, place) = (self.nfa, wait.place);
        for guard in bits(wait.guards) {
            if self.holds(place, &nfa.elements[guard].takes) {
                return None;
            }
        }
        let stays = Wait {
            guards: nfa.lasting(wait.guards),
            rivals: self.rivals(place, wait.rivals)?,
            ..wait
        };
        if wait.element == END {
            if stays.guards == 0 {
                self.buffer.keep(place);
                self.scratch.complete.push((place, wait.start));
                return None;
            }
            return Some(stays);
        }
        let element = &nfa.elements[wait.element as usize];
        if self.ends(place, element) {
            return None;
        }
        let takes = self.holds(place, &element.takes);
        let is_loop = self.buffer.element(place).0 == wait.element;
        if takes {
            self.take(place, wait.element, (wait.start, wait.start_time));
        }
        let contiguity = match is_loop {
            true => element.inner,
            false => element.entry,
        };
        match contiguity {
            Contiguity::Strict => None,
            Contiguity::Relaxed => (!takes).then_some(stays),
            Contiguity::Any => Some(stays),
        }
    }

    /// The rivals that are left behind the event; `None` where one of them has taken it.
    fn rivals(&mut self, place: u32, rivals: u64) -> Option<u64> {
        let nfa = self.nfa;
        let mut left = rivals;
        for at in bits(rivals) {
            let rival = &nfa.elements[at];
            if self.ends(place, rival) {
                left &= !(1 << at);
                continue;
            }
            if self.holds(place, &rival.takes) {
                return None;
            }
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
        for target in &nfa.begin {
            let Some(element) = nfa.elements.get(target.element as usize) else {
                continue;
            };
            if self.rivals(NO_PLACE, target.rivals).is_some()
                && !self.ends(NO_PLACE, element)
                && self.holds(NO_PLACE, &element.takes)
            {
                self.take(NO_PLACE, target.element, self.start);
            }
        }
    }

    /// An element takes the event behind `before`.
    fn take(&mut self, before: u32, element: u32, start: (u64, i64)) {
        let count = match self.element(before) {
            Some((last, count)) if last == element => count + 1,
            _ => 1,
        };
        let place = self.buffer.place(self.event, before, element, count);
        let at = &self.nfa.elements[element as usize];
        if count < at.most {
            self.waits_for(place, start, element, (0, 0));
        }
        for target in at.after.iter().filter(|_| count >= at.least) {
            if target.element == END && target.guards == 0 {
                self.buffer.keep(place);
                self.scratch.complete.push((place, start.0));
                continue;
            }
            // A loop that is full is nobody's rival.
            let rivals = match count < at.most {
                true => target.rivals,
                false => target.rivals & !(1 << element),
            };
            self.waits_for(place, start, target.element, (target.guards, rivals));
        }
        self.scratch.work += self.buffer.release(place);
    }

    fn waits_for(
        &mut self,
        place: u32,
        (start, start_time): (u64, i64),
        element: u32,
        (guards, rivals): (u64, u64),
    ) {
        self.buffer.keep(place);
        self.scratch.waits.push(Wait {
            place,
            element,
            guards,
            rivals,
            start,
            start_time,
        });
    }
}
