//! A pattern as it is written, and what is refused of it.

use super::condition::Condition;
use super::matches::Matched;
use super::nfa::{Contiguity, ELEMENTS_MAX, END, Element, Kind, Nfa};
use super::policy::AfterMatch;
use crate::error::BuildError;
use crate::key::stable_hash;
use crate::plan::OpInfo;
use crate::time::Span;
use crate::window::check_positive;
use std::ops::RangeInclusive;

/// An element as it is written.
struct Written<T> {
    name: String,
    element: Element<T>,
    /// It may take several events.
    is_loop: bool,
    /// What was said of its events among one another.
    inner: Option<&'static str>,
    quantified: bool,
}

/// A pattern: a sequence of elements, each with a name, a condition, how it follows the one before it, and how often it comes.
///
/// What is said behind an element's name is about that element.
///
/// - **Contiguity.** [`next`](Pattern::next): the very next event of the key. [`followed_by`](Pattern::followed_by): the next one that fits,
///   others are passed by. [`followed_by_any`](Pattern::followed_by_any): any later one that fits, also behind others that fit.
///   [`not_next`](Pattern::not_next) and [`not_followed_by`](Pattern::not_followed_by): what must not come.
/// - **Quantifiers.** [`one_or_more`](Pattern::one_or_more), [`times`](Pattern::times), [`times_between`](Pattern::times_between),
///   [`times_or_more`](Pattern::times_or_more), [`optional`](Pattern::optional). Events of a loop may have others between them, and take what
///   fits as it comes; [`consecutive`](Pattern::consecutive) and [`allow_combinations`](Pattern::allow_combinations) say otherwise.
///   A loop that has enough may go on or be left: both are tried, unless it is [`greedy`](Pattern::greedy).
/// - **Conditions.** [`where_`](Pattern::where_), [`or_where`](Pattern::or_where), and [`where_matched`](Pattern::where_matched), which sees
///   what the match has taken so far. An element without a condition takes every event.
/// - **Time.** [`within`](Pattern::within), in event time from the first event.
///
/// The model of contiguity is that of SASE+ (Agrawal et al., SIGMOD 2008) with the terms of Flink CEP. What differs: a greedy loop
/// is greedy also where other events lie between, and matches are told when they are complete, not held for ones that began earlier.
#[allow(missing_debug_implementations)]
pub struct Pattern<T> {
    written: Vec<Written<T>>,
    within: Option<Span>,
    skip: AfterMatch,
    unbounded: bool,
    /// What is wrong, and what to do.
    wrong: Vec<(String, &'static str)>,
}

impl<T: 'static> Pattern<T> {
    /// A pattern that begins with this element: every event of a key may begin a match.
    pub fn begin(name: impl Into<String>) -> Self {
        let pattern = Pattern {
            written: vec![],
            within: None,
            skip: AfterMatch::NoSkip,
            unbounded: false,
            wrong: vec![],
        };
        pattern.element(name, Kind::Takes, Contiguity::Strict)
    }

    /// An element that is the very next event of the key.
    pub fn next(self, name: impl Into<String>) -> Self {
        self.element(name, Kind::Takes, Contiguity::Strict)
    }

    /// An element that is the next event that fits; others are passed by.
    pub fn followed_by(self, name: impl Into<String>) -> Self {
        self.element(name, Kind::Takes, Contiguity::Relaxed)
    }

    /// An element that is any later event that fits: a match for each of them.
    pub fn followed_by_any(self, name: impl Into<String>) -> Self {
        self.element(name, Kind::Takes, Contiguity::Any)
    }

    /// What the very next event must not be. At the end of a pattern the next event of the key makes the match complete, or the end of
    /// [`within`](Pattern::within).
    pub fn not_next(self, name: impl Into<String>) -> Self {
        self.element(name, Kind::NotNext, Contiguity::Strict)
    }

    /// What must not come before the next element has its first event. At the end of a pattern it needs
    /// [`within`](Pattern::within), at whose end the match is complete: it has that event time.
    pub fn not_followed_by(self, name: impl Into<String>) -> Self {
        self.element(name, Kind::NotFollowedBy, Contiguity::Relaxed)
    }

    fn element(mut self, name: impl Into<String>, kind: Kind, entry: Contiguity) -> Self {
        self.written.push(Written {
            name: name.into(),
            element: Element {
                kind,
                takes: Condition::default(),
                until: None,
                entry,
                inner: Contiguity::Relaxed,
                least: 1,
                most: 1,
                optional: false,
                greedy: false,
                after: vec![],
            },
            is_loop: false,
            inner: None,
            quantified: false,
        });
        self
    }

    /// The element that is being written: `begin` has made the first.
    fn last(&mut self) -> &mut Written<T> {
        match self.written.last_mut() {
            Some(last) => last,
            None => unreachable!("a pattern begins with an element"),
        }
    }

    /// The element takes an event only if this holds, besides what was said before.
    pub fn where_(mut self, f: impl Fn(&T) -> bool + Clone + Send + 'static) -> Self {
        self.last().element.takes.and(f);
        self
    }

    /// The same for a condition that sees the events that the match has taken before: an element's by name ([`Matched::of`]), to compare
    /// with or to fold over. It is asked for each partial match that waits for the element: O(events of the match) each.
    pub fn where_matched(
        mut self,
        f: impl Fn(&T, &Matched<'_, T>) -> bool + Clone + Send + 'static,
    ) -> Self {
        self.last().element.takes.and_among(f);
        self
    }

    /// The element also takes an event if this holds, whatever was said before. What is said behind it must hold in any case.
    pub fn or_where(mut self, f: impl Fn(&T) -> bool + Clone + Send + 'static) -> Self {
        self.last().element.takes.or(f);
        self
    }

    /// One event or more.
    pub fn one_or_more(self) -> Self {
        self.quantified(1, u32::MAX)
    }

    /// So many events.
    pub fn times(self, times: u32) -> Self {
        self.quantified(times, times)
    }

    /// From so many to so many events.
    pub fn times_between(self, times: RangeInclusive<u32>) -> Self {
        self.quantified(*times.start(), *times.end())
    }

    /// So many events or more.
    pub fn times_or_more(self, times: u32) -> Self {
        self.quantified(times, u32::MAX)
    }

    fn quantified(mut self, least: u32, most: u32) -> Self {
        let last = self.last();
        let name = last.name.clone();
        let (was, is_not) = (last.quantified, last.element.kind != Kind::Takes);
        last.quantified = true;
        last.is_loop = most > 1;
        last.element.least = least;
        last.element.most = most;
        if was {
            self.refuse(
                format!("'{name}' is told twice how often it comes"),
                "say it once",
            );
        }
        if is_not {
            self.refuse(
                format!("'{name}' must not come, and is told how often it comes"),
                "drop the quantifier: it must not come even once",
            );
        }
        if least == 0 {
            self.refuse(
                format!("'{name}' may come 0 times"),
                "give at least 1, and `.optional()` where it may be missing",
            );
        }
        if most < least {
            self.refuse(
                format!("'{name}' comes from {least} to {most} times"),
                "give the lower number first",
            );
        }
        self
    }

    /// The element may be missing. All of its events: a loop of `times(3)` has three or none.
    pub fn optional(mut self) -> Self {
        self.last().element.optional = true;
        self
    }

    /// As long as the loop takes an event, what follows it does not: of events that both would take, the loop has them.
    pub fn greedy(mut self) -> Self {
        self.last().element.greedy = true;
        self
    }

    /// The loop's events follow each other directly.
    pub fn consecutive(self) -> Self {
        self.inner("consecutive", Contiguity::Strict)
    }

    /// The loop may leave out events that fit: a match for each choice. How many there are is exponential in the events that fit.
    pub fn allow_combinations(self) -> Self {
        self.inner("allow_combinations", Contiguity::Any)
    }

    fn inner(mut self, said: &'static str, contiguity: Contiguity) -> Self {
        let last = self.last();
        last.element.inner = contiguity;
        let name = last.name.clone();
        let before = last.inner.replace(said);
        if let Some(before) = before.filter(|&b| b != said) {
            self.refuse(
                format!("'{name}' is both {before} and {said}"),
                "say one of the two",
            );
        }
        self
    }

    /// The loop is over with the first event for which this holds. The loop does not take that event; what follows it may.
    pub fn until(mut self, f: impl Fn(&T) -> bool + Clone + Send + 'static) -> Self {
        let last = self.last();
        last.element
            .until
            .get_or_insert_with(Condition::default)
            .or(f);
        self
    }

    /// The last event of a match lies less than `span` of event time after its first. What is not complete by then goes
    /// ([`PatternStream::timed_out_to`](crate::pattern::PatternStream::timed_out_to)).
    pub fn within(mut self, span: Span) -> Self {
        self.within = Some(span);
        self
    }

    /// What goes when a match is complete. Default: nothing.
    pub fn skip(mut self, skip: AfterMatch) -> Self {
        self.skip = skip;
        self
    }

    /// A loop without end is meant: its partial matches grow with each event that it takes, and never go by themselves. What a key
    /// keeps is then bounded by [`PatternStream::events_max`](crate::pattern::PatternStream::events_max) alone.
    pub fn unbounded_state(mut self) -> Self {
        self.unbounded = true;
        self
    }

    fn refuse(&mut self, what: String, advice: &'static str) {
        self.wrong.push((what, advice));
    }

    /// Whether partial matches go by themselves.
    pub(super) fn is_within(&self) -> bool {
        self.within.is_some()
    }

    /// As text: for the plan, and for the hash by which its state is known.
    pub(super) fn describe(&self) -> String {
        let each = self.written.iter().enumerate().map(|(at, w)| {
            let e = &w.element;
            let joint = match (at, e.kind, e.entry) {
                (0, ..) => "",
                (_, Kind::NotNext, _) => " not next ",
                (_, Kind::NotFollowedBy, _) => " not followed by ",
                (_, _, Contiguity::Strict) => " next ",
                (_, _, Contiguity::Relaxed) => " followed by ",
                (_, _, Contiguity::Any) => " followed by any ",
            };
            let times = match (e.least, e.most) {
                (1, 1) => String::new(),
                (least, u32::MAX) => format!("{{{least},}}"),
                (least, most) => format!("{{{least},{most}}}"),
            };
            let inner = w.inner.map_or(String::new(), |inner| format!(" {inner}"));
            let optional = if e.optional { "?" } else { "" };
            let greedy = if e.greedy { " greedy" } else { "" };
            let until = if e.until.is_some() { " until" } else { "" };
            format!("{joint}{}{times}{optional}{inner}{greedy}{until}", w.name)
        });
        each.collect()
    }

    /// The pattern as it is run, and what is wrong with it.
    pub(crate) fn compile(mut self, op: &OpInfo) -> (Nfa<T>, Vec<BuildError>) {
        self.check_elements();
        self.check_nots();
        let print = stable_hash(&self.describe());
        self.written.truncate(ELEMENTS_MAX);
        let names: Vec<_> = self.written.iter().map(|w| w.name.clone()).collect();
        let mut nfa = Nfa {
            names: names.into(),
            elements: self.written.iter().map(|w| w.element.clone()).collect(),
            begin: vec![],
            within: self.within.map(Span::micros),
            skip: self.skip.clone(),
            print,
        };
        nfa.link();
        self.check_ends(&nfa);
        self.check_skip();
        let wrong = self.wrong.into_iter();
        let mut errors: Vec<_> = wrong
            .map(|(what, advice)| BuildError::argument(op, what, advice))
            .collect();
        if let Some(within) = self.within {
            errors.extend(check_positive(op, "span of `within`", within).err());
        }
        (nfa, errors)
    }

    fn check_elements(&mut self) {
        let mut wrong = vec![];
        if self.written.len() > ELEMENTS_MAX {
            let what = format!("a pattern of {} elements", self.written.len());
            wrong.push((what, "write at most 64, or two patterns in a row"));
        }
        for (at, w) in self.written.iter().enumerate() {
            let (name, e) = (&w.name, &w.element);
            let mut refuse = |what: String, advice| wrong.push((what, advice));
            if self.written[..at].iter().any(|other| other.name == *name) {
                refuse(
                    format!("two elements have the name '{name}'"),
                    "name each differently: matches know events by it",
                );
            }
            let of_loops = [
                (e.greedy, "greedy"),
                (w.inner == Some("consecutive"), "consecutive"),
                (w.inner == Some("allow_combinations"), "allow_combinations"),
            ];
            for (_, said) in of_loops.iter().filter(|(is, _)| *is && !w.is_loop) {
                refuse(
                    format!("'{name}' is {said} and takes one event"),
                    "say first how many it takes: `.one_or_more()`, `.times(n)`",
                );
            }
            if e.until.is_some() && e.most < u32::MAX {
                refuse(
                    format!("'{name}' has an `until` and ends by itself"),
                    "`until` is for `.one_or_more()` and `.times_or_more(n)`",
                );
            }
            if e.greedy && w.inner == Some("allow_combinations") {
                refuse(
                    format!("'{name}' is greedy and allows combinations"),
                    "a greedy loop takes whatever fits, combinations leave some out: say one of the two",
                );
            }
            if e.most == u32::MAX
                && e.until.is_none()
                && self.within.is_none()
                && !self.unbounded
                && w.is_loop
            {
                refuse(
                    format!(
                        "'{name}' may go on for ever: its partial matches, and the events in them, would grow with the stream"
                    ),
                    "give `.within(span)` or `.until(..)`, or say `.unbounded_state()`",
                );
            }
        }
        self.wrong.extend(wrong);
    }

    fn check_nots(&mut self) {
        let mut wrong = vec![];
        for (at, w) in self.written.iter().enumerate() {
            if w.element.kind == Kind::Takes {
                continue;
            }
            let name = &w.name;
            if w.element.optional {
                wrong.push((
                    format!("'{name}' must not come, and is optional"),
                    "drop `.optional()`, or the element",
                ));
            }
            if w.element.takes.is_empty() {
                wrong.push((
                    format!("'{name}' has no condition: no event at all may come"),
                    "give it a `where_`",
                ));
            }
            let before = &self.written[at.saturating_sub(1)];
            if before.element.optional && before.element.kind == Kind::Takes {
                wrong.push((
                    format!(
                        "'{name}' must not come behind '{}', which is optional",
                        before.name
                    ),
                    "write two patterns, one with the optional element and one without",
                ));
            }
        }
        let last = self.last();
        if last.element.kind == Kind::NotFollowedBy && self.within.is_none() {
            let what = format!(
                "the pattern ends with `not_followed_by`, '{}', and has no `within`",
                self.last().name
            );
            wrong.push((
                what,
                "give `.within(span)`: at its end it is known that the event has not come",
            ));
        }
        self.wrong.extend(wrong);
    }

    /// What could end with nothing, or nowhere.
    fn check_ends(&mut self, nfa: &Nfa<T>) {
        if nfa.begin.iter().any(|t| t.element == END) {
            self.refuse(
                "all elements are optional: nothing would be a match".into(),
                "let at least one be required",
            );
        }
        let last_takes = self.last().element.kind == Kind::Takes;
        for at in 0..nfa.elements.len() {
            let element = &nfa.elements[at];
            let name = self.written[at].name.clone();
            let end = element.after.iter().find(|t| t.element == END);
            if element.greedy && end.is_some_and(|t| t.guards == 0) {
                self.refuse(
                    format!("'{name}' is greedy, and nothing that is required follows it"),
                    "put a required element behind it: without one each length is a match",
                );
            }
            let is_taking = element.kind == Kind::Takes;
            if is_taking && last_takes && end.is_some_and(|t| t.guards != 0) {
                self.refuse(
                    format!("behind '{name}' something must not come, and all that follows that is optional"),
                    "put a required element behind it, or write two patterns",
                );
            }
        }
    }

    fn check_skip(&mut self) {
        let (AfterMatch::ToFirst(name) | AfterMatch::ToLast(name)) = &self.skip else {
            return;
        };
        let found = self.written.iter().find(|w| w.name == *name);
        if found.is_none_or(|w| w.element.kind != Kind::Takes) {
            let what = format!("it skips to '{name}', and no element of that name takes events");
            self.refuse(what, "skip to an element of the pattern");
        }
    }
}
