//! The shared buffer: the events that partial matches have taken, each once, and who took them after whom. One of it serves all keys
//! of a shard.
//!
//! Laws
//! 1. An event is held once, however many matches have taken it, and goes with the last place that names it.
//! 2. A *place* is an event in an element behind the places before it. Partial matches that began alike share the places of what they
//!    have in common; a place goes when nothing waits behind it and no place follows it.
//! 3. What goes leaves its room to whatever comes next, of any key: nothing is allocated once as much lives as ever lived, and what a
//!    key once had is nowhere kept, neither here nor in its entry of a checkpoint.
//! 4. Going from a place back to the first one gives the one match that it ends. (SASE+ shares places between matches that differ
//!    before them and tells these apart by versions on its edges; here what a version tells apart is two places of 24 bytes.)
//! 5. Where something lies depends on other keys. So nothing that can be observed may: events are ordered by their numbers, which
//!    ascend within each key.
//!
//! Idea: Agrawal, Diao, Gyllstrom and Immerman, "Efficient pattern matching over event streams" (SIGMOD 2008).

use super::slab::{NONE, Slab, Vacant};
use crate::budget::Size;
use crate::state::State;
use std::cell::Cell;
use std::cmp::Ordering;

/// No place: before the first one.
pub(crate) const NO_PLACE: u32 = NONE;

/// An event, or room for one.
#[derive(Debug)]
enum Event<T> {
    Free(u32),
    Held {
        /// Places that name it, and one while it is being taken.
        refs: u32,
        /// Event time, microseconds.
        time: i64,
        /// Greater than that of its key's events before it.
        number: u64,
        record: T,
    },
}

impl<T> Vacant for Event<T> {
    fn vacant(next: u32) -> Self {
        Event::Free(next)
    }
    fn next_vacant(&self) -> u32 {
        match self {
            Event::Free(next) => *next,
            Event::Held { .. } => unreachable!("what is in the chain is free"),
        }
    }
}

/// Law 2.
#[derive(Debug)]
struct Place {
    event: u32,
    /// Of a free one, the next free one.
    before: u32,
    /// Events that this match has in this element up to here.
    count: u32,
    /// Places behind it and what waits behind it.
    refs: u32,
    /// What whoever goes through places has noted; 0 when nobody does.
    mark: Cell<u32>,
    /// Below [`ELEMENTS_MAX`](super::nfa::ELEMENTS_MAX).
    element: u8,
}

impl Vacant for Place {
    fn vacant(next: u32) -> Self {
        Place {
            event: NONE,
            before: next,
            count: 0,
            refs: 0,
            mark: Cell::new(0),
            element: 0,
        }
    }
    fn next_vacant(&self) -> u32 {
        self.before
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    events: Slab<Event<T>>,
    places: Slab<Place>,
    /// The number of the next event.
    next: u64,
}

impl<T: State> Buffer<T> {
    pub fn new() -> Self {
        Buffer {
            events: Slab::new(),
            places: Slab::new(),
            next: 0,
        }
    }

    /// Events that are held, and their bytes and those of places. O(1).
    pub fn size(&self) -> Size {
        let held = Size::of::<Event<T>>(self.events.len(), 0);
        let places = Size::of::<Place>(self.places.len(), 0);
        Size {
            bytes: held.bytes + places.bytes,
            ..held
        }
    }

    /// Places that are held.
    #[cfg(test)]
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Takes in an event, which gets the next number; to be let go with [`Buffer::let_go`] when all places that name it have been made.
    #[inline]
    pub fn take_in(&mut self, record: T, time: i64) -> u32 {
        let number = self.next;
        self.next += 1;
        self.events.put(Event::Held {
            refs: 1,
            time,
            number,
            record,
        })
    }

    /// One name of an event less.
    #[inline]
    pub fn let_go(&mut self, event: u32) {
        if let Event::Held { refs, .. } = &mut self.events[event] {
            *refs -= 1;
            if *refs == 0 {
                drop(self.events.take(event));
            }
        }
    }

    /// The event itself.
    #[inline]
    pub fn record(&self, event: u32) -> &T {
        match &self.events[event] {
            Event::Held { record, .. } => record,
            Event::Free(_) => unreachable!("law 1: what a place names is held"),
        }
    }

    /// Time and number of an event.
    #[inline]
    pub fn moment(&self, event: u32) -> (i64, u64) {
        match self.events[event] {
            Event::Held { time, number, .. } => (time, number),
            Event::Free(_) => unreachable!("law 1: what a place names is held"),
        }
    }

    /// Makes a place behind `before`, with one reference.
    #[inline]
    pub fn place(&mut self, event: u32, before: u32, element: u32, count: u32) -> u32 {
        if let Event::Held { refs, .. } = &mut self.events[event] {
            *refs += 1;
        }
        if before != NO_PLACE {
            self.places[before].refs += 1;
        }
        self.places.put(Place {
            event,
            before,
            count,
            refs: 1,
            mark: Cell::new(0),
            element: element as u8,
        })
    }

    /// One more that waits behind a place.
    #[inline]
    pub fn keep(&mut self, place: u32) {
        self.places[place].refs += 1;
    }

    /// One less; how many places went. O(1) and O(1) for each of these.
    #[inline]
    pub fn release(&mut self, mut place: u32) -> usize {
        let mut went = 0;
        while place != NO_PLACE {
            let at = &mut self.places[place];
            at.refs -= 1;
            if at.refs > 0 {
                break;
            }
            went += 1;
            let (event, before) = (at.event, at.before);
            self.places.take(place);
            self.let_go(event);
            place = before;
        }
        went
    }

    /// What was noted of a place.
    pub fn mark(&self, place: u32) -> u32 {
        self.places[place].mark.get()
    }

    /// Notes something of a place. To be set to 0 before anybody else goes through places.
    pub fn set_mark(&self, place: u32, mark: u32) {
        self.places[place].mark.set(mark);
    }

    /// The element of a place, and how many events the match has in it.
    #[inline]
    pub fn element(&self, place: u32) -> (u32, u32) {
        let at = &self.places[place];
        (at.element.into(), at.count)
    }

    /// The event of a place.
    #[inline]
    pub fn event(&self, place: u32) -> u32 {
        self.places[place].event
    }

    /// The place before a place, or [`NO_PLACE`].
    #[inline]
    pub fn before(&self, place: u32) -> u32 {
        self.places[place].before
    }

    /// Time and number of a place's event.
    pub fn when(&self, place: u32) -> (i64, u64) {
        self.moment(self.event(place))
    }

    /// What a place's element took.
    pub fn taken(&self, place: u32) -> &T {
        self.record(self.event(place))
    }

    /// The places of the match that ends at `place`, first to last.
    #[inline]
    pub fn path(&self, mut place: u32, into: &mut Vec<u32>) {
        into.clear();
        while place != NO_PLACE {
            into.push(place);
            place = self.places[place].before;
        }
        into.reverse();
    }

    /// Which of two matches comes first: the one with the earlier event, or the earlier element, where they first differ; a longer one
    /// before what it begins with. Also how many places were gone along.
    pub fn compare(&self, a: u32, b: u32) -> (Ordering, usize) {
        let (of_a, of_b) = (self.length(a), self.length(b));
        let skip = |mut place: u32, by: usize| {
            for _ in 0..by {
                place = self.places[place].before;
            }
            place
        };
        let mut order = of_b.cmp(&of_a);
        let mut one = skip(a, of_a.saturating_sub(of_b));
        let mut other = skip(b, of_b.saturating_sub(of_a));
        // The last difference on the way back is the first one.
        while one != other {
            let of = |place: u32| (self.when(place).1, self.element(place).0);
            order = of(one).cmp(&of(other)).then(order);
            (one, other) = (self.before(one), self.before(other));
        }
        (order, of_a + of_b)
    }

    /// How many places a match has.
    fn length(&self, mut place: u32) -> usize {
        let mut length = 0;
        while place != NO_PLACE {
            length += 1;
            place = self.places[place].before;
        }
        length
    }
}
