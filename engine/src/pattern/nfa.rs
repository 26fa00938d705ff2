//! A pattern as it is run: what may follow each element, and what may not come before that.
//!
//! Laws
//! 1. After each event that a match takes there are a few things that it may wait for ([`Target`]): a further event of the element,
//!    if that is a loop; the next element; where that is optional, the one behind it as well, and so on. What has been reached when
//!    all that is left is optional is a match.
//! 2. Each of these waits apart from the others, by the contiguity of what it waits for: strict ends with the first event that it
//!    does not take, relaxed passes events by that it would not take, non-deterministic passes by any.
//! 3. An element that must not come is no place of a match but a *guard* of what waits behind it: the wait ends when the guard holds,
//!    before anything else is asked. `not_next` guards against the next event alone.
//! 4. A greedy loop is a *rival* of what waits behind it: as long as the loop could take an event, that wait ends with such an event, for
//!    the loop has it.

use super::condition::Condition;
use super::policy::AfterMatch;
use std::sync::Arc;

/// The end of the pattern, as what is waited for.
pub(crate) const END: u32 = u32::MAX;

/// Elements of a pattern at most: guards and rivals are a bit each.
pub(crate) const ELEMENTS_MAX: usize = 64;

/// How far an event may lie behind the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contiguity {
    Strict,
    Relaxed,
    Any,
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It takes events.
    Takes,
    /// Its condition must not hold for the next event.
    NotNext,
    /// Its condition must not hold until the next element takes its first.
    NotFollowedBy,
}

/// An element, compiled.
#[allow(missing_debug_implementations)]
pub(crate) struct Element<T> {
    pub kind: Kind,
    pub takes: Condition<T>,
    pub until: Option<Condition<T>>,
    /// To what is before it, and among its own events.
    pub entry: Contiguity,
    pub inner: Contiguity,
    pub least: u32,
    pub most: u32,
    pub optional: bool,
    pub greedy: bool,
    /// What may be waited for when it has enough.
    pub after: Vec<Target>,
}

impl<T> Clone for Element<T> {
    fn clone(&self) -> Self {
        Element {
            takes: self.takes.clone(),
            until: self.until.clone(),
            after: self.after.clone(),
            ..*self
        }
    }
}

/// What may be waited for: an element or the end, with guards and rivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub element: u32,
    pub guards: u64,
    pub rivals: u64,
}

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct Nfa<T> {
    pub names: Arc<[String]>,
    pub elements: Vec<Element<T>>,
    /// What the first event of a match may be.
    pub begin: Vec<Target>,
    /// Microseconds from the first event; the last one lies before that.
    pub within: Option<i64>,
    pub skip: AfterMatch,
    /// Hash of what the elements are: state of another pattern means nothing here.
    pub print: u64,
}

impl<T> Clone for Nfa<T> {
    fn clone(&self) -> Self {
        Nfa {
            names: self.names.clone(),
            elements: self.elements.clone(),
            begin: self.begin.clone(),
            within: self.within,
            skip: self.skip.clone(),
            print: self.print,
        }
    }
}

impl<T> Nfa<T> {
    /// Finds what may follow what (law 1).
    pub fn link(&mut self) {
        self.begin = self.targets(0, 0);
        for at in 0..self.elements.len() {
            let rivals = u64::from(self.elements[at].greedy) << at;
            self.elements[at].after = self.targets(at + 1, rivals);
        }
    }

    fn targets(&self, from: usize, mut rivals: u64) -> Vec<Target> {
        let (mut targets, mut guards) = (vec![], 0);
        for (at, element) in self.elements.iter().enumerate().skip(from) {
            let bit = 1 << at;
            if element.kind != Kind::Takes {
                guards |= bit;
                continue;
            }
            targets.push(Target {
                element: at as u32,
                guards,
                rivals,
            });
            if !element.optional {
                return targets;
            }
            rivals |= bit * u64::from(element.greedy);
        }
        targets.push(Target {
            element: END,
            guards,
            rivals,
        });
        targets
    }

    /// Whether a place of this element, with so many events in it, ends a match at once.
    pub fn completes(&self, (element, count): (u32, u32)) -> bool {
        let element = &self.elements[element as usize];
        let ends = |t: &Target| t.element == END && t.guards == 0;
        count >= element.least && element.after.iter().any(ends)
    }

    /// Those of `guards` that hold for longer than the next event.
    pub fn lasting(&self, guards: u64) -> u64 {
        bits(guards)
            .filter(|&at| self.elements[at].kind == Kind::NotFollowedBy)
            .fold(0, |lasting, at| lasting | 1 << at)
    }
}

/// The numbers of the bits that are set.
pub(crate) fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(first)
    })
}
