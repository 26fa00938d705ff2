//! What a checkpoint has of a key: what lives of it and nothing else, whatever there once was, and wherever it lies.
//!
//! ```text
//! print: 8 bytes | places | waits | number of events: 8 bytes | time: 8 bytes, event | time, event | ..
//! ```
//!
//! Laws
//! 1. Events are in the order of their numbers, which are given anew when they are loaded. A place names its event, and a wait its
//!    first one, by its place in that order.
//! 2. A place comes behind the one before it, and names it by its number in the list.
//! 3. References are not written: a place that nothing leads to was not held, so who loads counts those that there are.

use super::buffer::NO_PLACE;
use super::nfa::{END, Nfa};
use super::runs::{Matching, Runs, Wait};
use super::slab::NONE;
use crate::checkpoint::{Parts, Stored, Value};
use crate::state::{LoadError, State};
use std::cell::RefCell;

/// An event in an element behind another place.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedPlace {
    event: u32,
    /// Among the places before it in the list; `u32::MAX` for the first of a match.
    before: u32,
    element: u32,
    /// Events that the match has in this element up to here.
    count: u32,
}

/// A partial match and one thing that it waits for.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedWait {
    place: u32,
    /// The first event of its match.
    first: u32,
    /// `u32::MAX` for the end of the pattern.
    element: u32,
    guards: u64,
    rivals: u64,
}

/// What an entry's value looks like, for the state's shape: the pattern's print, places, waits, events with their times.
pub(crate) type Entry<T> = (u64, (Vec<SavedPlace>, (Vec<SavedWait>, Vec<(i64, T)>)));

/// Room for writing entries.
#[derive(Debug, Default)]
pub(crate) struct Writing(RefCell<Lists>);

#[derive(Debug, Default)]
struct Lists {
    places: Vec<SavedPlace>,
    waits: Vec<SavedWait>,
    /// Where the places lie.
    lie: Vec<u32>,
    /// Numbers of events, and where they lie.
    events: Vec<(u64, u32)>,
    path: Vec<u32>,
}

/// A key's runs, to be stored.
#[derive(Debug)]
pub(crate) struct KeptRuns<'a, T> {
    pub runs: &'a Runs,
    pub matching: &'a Matching<T>,
    pub print: u64,
}

impl<T: State> Stored for KeptRuns<'_, T> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        let (buffer, waits) = (&self.matching.buffer, &self.matching.waits);
        let lists = &mut *self.matching.writing.0.borrow_mut();
        let Lists {
            places,
            waits: saved,
            lie,
            events,
            path,
        } = lists;
        places.clear();
        saved.clear();
        lie.clear();
        events.clear();
        let mut at = self.runs.head;
        while at != NONE {
            let wait = &waits[at];
            // Up to where another wait has been already: marked by their numbers in the list and 1.
            let mut place = wait.place;
            path.clear();
            while place != NO_PLACE && buffer.mark(place) == 0 {
                path.push(place);
                place = buffer.before(place);
            }
            let mut before = match place {
                NO_PLACE => NO_PLACE,
                place => buffer.mark(place) - 1,
            };
            for &place in path.iter().rev() {
                let (element, count) = buffer.element(place);
                let event = buffer.event(place);
                events.push((buffer.moment(event).1, event));
                places.push(SavedPlace {
                    event,
                    before,
                    element,
                    count,
                });
                lie.push(place);
                before = lie.len() as u32 - 1;
                buffer.set_mark(place, lie.len() as u32);
            }
            saved.push(SavedWait {
                place: buffer.mark(wait.place) - 1,
                first: wait.first,
                element: wait.element,
                guards: wait.guards,
                rivals: wait.rivals,
            });
            at = wait.next;
        }
        for &place in &*lie {
            buffer.set_mark(place, 0);
        }
        events.sort_unstable();
        events.dedup();
        let rank = |event: u32| {
            let number = buffer.moment(event).1;
            events.partition_point(|e| e.0 < number) as u32
        };
        for place in &mut *places {
            place.event = rank(place.event);
        }
        for wait in &mut *saved {
            wait.first = rank(wait.first);
        }
        to.number(self.print as i64);
        to.part(places);
        to.part(saved);
        to.number(events.len() as i64);
        for &(_, event) in &*events {
            to.number(buffer.moment(event).0);
            to.part(buffer.record(event));
        }
    }
}

/// Whether an entry is of another pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Own,
    /// Nothing of it has been taken.
    Others,
}

impl<T: State> Matching<T> {
    /// Puts an entry's value, as it was stored, where the runs have nothing.
    pub fn load(
        &mut self,
        runs: &mut Runs,
        nfa: &Nfa<T>,
        bytes: &[u8],
    ) -> Result<Whose, LoadError> {
        debug_assert!(runs.is_empty());
        let mut from = Parts::of(bytes);
        if from.number()? as u64 != nfa.print {
            return Ok(Whose::Others);
        }
        let places: Vec<SavedPlace> = from.part()?;
        let waits: Vec<SavedWait> = from.part()?;
        let count = from.count()?;
        let mut events: Vec<(i64, T)> = Vec::with_capacity(count);
        for _ in 0..count {
            events.push((from.number()?, from.part()?));
        }
        from.end()?;
        check(nfa, &places, &waits, &events)?;
        let buffer = &mut self.buffer;
        let events: Vec<u32> = events
            .into_iter()
            .map(|(time, record)| buffer.take_in(record, time))
            .collect();
        let mut lie: Vec<u32> = Vec::with_capacity(places.len());
        for place in &places {
            let before = lie.get(place.before as usize).copied().unwrap_or(NO_PLACE);
            let event = events[place.event as usize];
            lie.push(buffer.place(event, before, place.element, place.count));
        }
        let mut next = NONE;
        for wait in waits.iter().rev() {
            let place = lie[wait.place as usize];
            buffer.keep(place);
            next = self.waits.put(Wait {
                guards: wait.guards,
                rivals: wait.rivals,
                place,
                first: events[wait.first as usize],
                element: wait.element,
                next,
            });
        }
        // Law 3: what is held now for having been made is not held by anything else.
        runs.head = next;
        runs.waits = waits.len() as u32;
        runs.places = lie.len() as u32;
        for &place in lie.iter().rev() {
            runs.places -= self.buffer.release(place) as u32;
        }
        for event in events {
            self.buffer.let_go(event);
        }
        self.head_has_moved(runs);
        Ok(Whose::Own)
    }
}

/// Whether what was loaded can be what a key had.
fn check<T>(
    nfa: &Nfa<T>,
    places: &[SavedPlace],
    waits: &[SavedWait],
    events: &[(i64, T)],
) -> Result<(), LoadError> {
    let elements = nfa.elements.len();
    let is_element = |element: u32| (element as usize) < elements;
    let is_mask = |mask: u64| elements == 64 || mask >> elements == 0;
    let is_event = |event: u32| (event as usize) < events.len();
    let places_fit = places.iter().zip(0..).all(|(place, at)| {
        let is_behind = place.before == NO_PLACE || place.before < at;
        is_behind && is_event(place.event) && is_element(place.element)
    });
    let waits_fit = waits.iter().all(|wait| {
        let what = wait.element == END || is_element(wait.element);
        let is_place = (wait.place as usize) < places.len();
        is_place && is_event(wait.first) && what && is_mask(wait.guards) && is_mask(wait.rivals)
    });
    match places_fit && waits_fit {
        true => Ok(()),
        false => Err(LoadError::new(
            "the partial matches of a key name what is not there",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;
    use super::super::tests::compiled;
    use super::*;

    #[test]
    fn what_names_something_that_is_not_there_is_an_error() {
        let nfa = compiled(Pattern::begin("a").followed_by("b"));
        let place = SavedPlace {
            event: 0,
            before: NO_PLACE,
            element: 0,
            count: 1,
        };
        let wait = SavedWait {
            place: 0,
            first: 0,
            element: 1,
            guards: 0,
            rivals: 0,
        };
        let fits = |place, wait| check(&nfa, &[place], &[wait], &[(0, String::new())]).is_ok();
        assert!(fits(place, wait));
        let ends = SavedWait {
            element: END,
            ..wait
        };
        assert!(fits(place, ends));
        assert!(!fits(SavedPlace { event: 1, ..place }, wait));
        assert!(!fits(SavedPlace { before: 0, ..place }, wait));
        assert!(!fits(
            SavedPlace {
                element: 2,
                ..place
            },
            wait
        ));
        assert!(!fits(place, SavedWait { place: 1, ..wait }));
        assert!(!fits(place, SavedWait { first: 1, ..wait }));
        assert!(!fits(place, SavedWait { element: 2, ..wait }));
        assert!(!fits(place, SavedWait { guards: 4, ..wait }));
        assert!(!fits(place, SavedWait { rivals: 4, ..wait }));
    }
}
