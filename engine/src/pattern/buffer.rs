//! The shared buffer of a key: the events that its partial matches have taken, each once, and who took them after whom.
//!
//! Laws
//! 1. An event is held once, however many matches have taken it, and goes with the last place that names it.
//! 2. A *place* is an event in an element behind the places before it. Partial matches that began alike share the places of what they
//!    have in common; a place goes when nothing waits behind it and no place follows it.
//! 3. Neither list is longer than twice what lives in it and [`SPARE`]: what is longer is closed up, in the order of places, and takes no more memory
//!    than that. So a checkpoint has what lives, whatever there once was ([`Buffer::close_up`]).
//! 4. Going from a place back to the first one gives the one match that it ends. (SASE+ shares places between matches that differ
//!    before them and tells these apart by versions on its edges; here what a version tells apart is two places of 20 bytes.)
//!
//! Idea: Agrawal, Diao, Gyllstrom and Immerman, "Efficient pattern matching over event streams" (SIGMOD 2008).

use crate::budget::Size;
use crate::state::State;

/// No place: before the first one.
pub(crate) const NO_PLACE: u32 = u32::MAX;
/// Free ones that there may be besides as many as live: law 3.
const SPARE: usize = 8;

/// An event that is held.
#[crate::state(version = 1)]
#[derive(Debug)]
struct Held<T> {
    record: T,
    /// Event time, microseconds.
    time: i64,
    /// Among its key's events.
    number: u64,
    /// Places that name it, and one while it is being taken.
    refs: u32,
}

/// Law 2.
#[crate::state(version = 1)]
#[derive(Debug)]
struct Place {
    event: u32,
    before: u32,
    element: u32,
    /// Events that this match has in this element up to here.
    count: u32,
    /// Places behind it and what waits behind it; 0 is a free one.
    refs: u32,
}

/// See the module.
#[crate::state(version = 1)]
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    events: Vec<Option<Held<T>>>,
    free_events: Vec<u32>,
    places: Vec<Place>,
    free_places: Vec<u32>,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Buffer {
            events: vec![],
            free_events: vec![],
            places: vec![],
            free_places: vec![],
        }
    }
}

impl<T: State> Buffer<T> {
    /// Events that are held, and their bytes and those of places. O(1).
    pub fn size(&self) -> Size {
        let events = self.events.len() - self.free_events.len();
        let held = Size::of::<Option<Held<T>>>(events, 0);
        let places = Size::of::<Place>(self.places(), 0);
        Size {
            bytes: held.bytes + places.bytes,
            ..held
        }
    }

    /// Places that are held.
    pub fn places(&self) -> usize {
        self.places.len() - self.free_places.len()
    }

    /// Takes in an event; to be let go with [`Buffer::let_go`] when all places that name it have been made.
    pub fn take_in(&mut self, record: T, time: i64, number: u64) -> u32 {
        let held = Some(Held {
            record,
            time,
            number,
            refs: 1,
        });
        match self.free_events.pop() {
            Some(at) => {
                self.events[at as usize] = held;
                at
            }
            None => {
                self.events.push(held);
                self.events.len() as u32 - 1
            }
        }
    }

    /// One name of an event less.
    pub fn let_go(&mut self, event: u32) {
        let slot = &mut self.events[event as usize];
        if let Some(held) = slot {
            held.refs -= 1;
            if held.refs == 0 {
                *slot = None;
                self.free_events.push(event);
            }
        }
    }

    fn held(&self, event: u32) -> &Held<T> {
        match &self.events[event as usize] {
            Some(held) => held,
            None => unreachable!("law 1: what a place names is held"),
        }
    }

    /// The event itself.
    pub fn record(&self, event: u32) -> &T {
        &self.held(event).record
    }

    /// Makes a place behind `before`, with one reference.
    pub fn place(&mut self, event: u32, before: u32, element: u32, count: u32) -> u32 {
        if let Some(held) = &mut self.events[event as usize] {
            held.refs += 1;
        }
        if before != NO_PLACE {
            self.places[before as usize].refs += 1;
        }
        let place = Place {
            event,
            before,
            element,
            count,
            refs: 1,
        };
        match self.free_places.pop() {
            Some(at) => {
                self.places[at as usize] = place;
                at
            }
            None => {
                self.places.push(place);
                self.places.len() as u32 - 1
            }
        }
    }

    /// One more that waits behind a place.
    pub fn keep(&mut self, place: u32) {
        self.places[place as usize].refs += 1;
    }

    /// One less; how many places went. O(1) and O(1) for each of these.
    pub fn release(&mut self, mut place: u32) -> usize {
        let mut went = 0;
        while place != NO_PLACE {
            let at = &mut self.places[place as usize];
            at.refs -= 1;
            if at.refs > 0 {
                break;
            }
            went += 1;
            let (event, before) = (at.event, at.before);
            self.free_places.push(place);
            self.let_go(event);
            place = before;
        }
        went
    }

    /// Whether law 3 asks for closing up. It depends on what came and went alone.
    pub fn is_sparse(&self) -> bool {
        let sparse = |all: usize, free: usize| free > all - free + SPARE;
        sparse(self.events.len(), self.free_events.len())
            || sparse(self.places.len(), self.free_places.len())
    }

    /// Takes out what is free. `to` says then where each place that lives is now. O(all), after as many as half of these have gone.
    pub fn close_up(&mut self, to: &mut Vec<u32>) {
        numbers_of(self.events.iter().map(Option::is_some), to);
        self.events.retain(Option::is_some);
        self.events.shrink_to(2 * self.events.len() + SPARE);
        for place in self.places.iter_mut().filter(|place| place.refs > 0) {
            place.event = to[place.event as usize];
        }
        numbers_of(self.places.iter().map(|place| place.refs > 0), to);
        self.places.retain(|place| place.refs > 0);
        self.places.shrink_to(2 * self.places.len() + SPARE);
        for place in &mut self.places {
            if place.before != NO_PLACE {
                place.before = to[place.before as usize];
            }
        }
        self.free_events = vec![];
        self.free_places = vec![];
    }

    /// How long both lists are, free ones among them.
    #[cfg(test)]
    pub fn lengths(&self) -> (usize, usize) {
        (self.events.len(), self.places.len())
    }

    /// The element of a place, and how many events the match has in it.
    pub fn element(&self, place: u32) -> (u32, u32) {
        let at = &self.places[place as usize];
        (at.element, at.count)
    }

    /// Time and number of a place's event.
    pub fn when(&self, place: u32) -> (i64, u64) {
        let held = self.held(self.places[place as usize].event);
        (held.time, held.number)
    }

    /// What a place's element took.
    pub fn taken(&self, place: u32) -> &T {
        self.record(self.places[place as usize].event)
    }

    /// The places of the match that ends at `place`, first to last.
    pub fn path(&self, mut place: u32, into: &mut Vec<u32>) {
        into.clear();
        while place != NO_PLACE {
            into.push(place);
            place = self.places[place as usize].before;
        }
        into.reverse();
    }
}

/// The numbers of those that live when the others are taken out.
fn numbers_of(live: impl Iterator<Item = bool>, to: &mut Vec<u32>) {
    to.clear();
    let mut next = 0;
    to.extend(live.map(|lives| {
        let own = next;
        next += u32::from(lives);
        own
    }));
}
