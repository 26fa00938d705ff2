//! What conditions, `select` and the timed-out output see of a match.

use super::buffer::Buffer;
use crate::state::State;
use crate::time::EventTime;

/// The events that a match, or a partial one, has taken, in their order.
#[allow(missing_debug_implementations)]
pub struct Matched<'a, T> {
    pub(super) names: &'a [String],
    pub(super) buffer: &'a Buffer<T>,
    /// Places, first to last.
    pub(super) path: &'a [u32],
}

impl<'a, T: State> Matched<'a, T> {
    /// The events of an element, in their order: none where it is optional and was left out, or has not been reached. O(events of
    /// the match).
    ///
    /// # Panics
    ///
    /// Where the pattern has no element of that name.
    #[track_caller]
    pub fn of(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a T> + use<'a, T> {
        let Some(element) = self.names.iter().position(|n| n == name) else {
            panic!(
                "the pattern has no element '{name}'; it has '{}'",
                self.names.join("', '")
            )
        };
        let (buffer, path) = (self.buffer, self.path);
        let of_element = move |&&place: &&u32| buffer.element(place).0 as usize == element;
        path.iter()
            .filter(of_element)
            .map(|&place| buffer.taken(place))
    }

    /// The first event of an element. See [`Matched::of`].
    #[track_caller]
    pub fn first_of(&self, name: &str) -> Option<&'a T> {
        self.of(name).next()
    }

    /// The last event of an element. See [`Matched::of`].
    #[track_caller]
    pub fn last_of(&self, name: &str) -> Option<&'a T> {
        self.of(name).next_back()
    }

    /// All events, each with the name of its element and its time.
    pub fn events(
        &self,
    ) -> impl DoubleEndedIterator<Item = (&'a str, EventTime, &'a T)> + use<'a, T> {
        let (names, buffer, path) = (self.names, self.buffer, self.path);
        path.iter().map(move |&place| {
            let name = &*names[buffer.element(place).0 as usize];
            let time = EventTime::from_micros(buffer.when(place).0);
            (name, time, buffer.taken(place))
        })
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.path.len()
    }

    /// Whether there are none: so a condition finds it that is asked for a match's first event.
    pub fn is_empty(&self) -> bool {
        self.path.is_empty()
    }

    /// Event time of the first event.
    pub fn start(&self) -> Option<EventTime> {
        self.events().next().map(|(_, time, _)| time)
    }

    /// Event time of the last event.
    pub fn end(&self) -> Option<EventTime> {
        self.events().next_back().map(|(_, time, _)| time)
    }
}

/// A partial match that `within` has ended.
#[crate::state(version = 1)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedOut<T> {
    /// When it was over: the time of its first event and the span of `within`.
    pub over: EventTime,
    /// What it had, in its order: names of elements, and their events.
    pub events: Vec<(String, T)>,
}

impl<T: State> TimedOut<T> {
    pub(crate) fn of(matched: &Matched<'_, T>, over: i64, clone: fn(&T) -> T) -> Self {
        let events = matched.events();
        TimedOut {
            over: EventTime::from_micros(over),
            events: events
                .map(|(name, _, event)| (name.into(), clone(event)))
                .collect(),
        }
    }
}
