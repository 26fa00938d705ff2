//! The definition of a match, tried on every choice of events, against the automaton.

use super::tests::{BOUNDS, compiled, told, told_of};
use super::{AfterMatch, Matched, Nfa, Pattern};
use crate::aggregate::scramble::{Dice, cases};
use crate::plan::{Plan, Results};
use crate::state::State;
use crate::time::Span;
use proptest::prelude::*;
use std::panic::Location;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Takes,
    NotNext,
    NotFollowedBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Far {
    Strict,
    Relaxed,
    Any,
}

/// Of an element: letters that it takes, and all that is said of it.
#[derive(Clone, Debug)]
struct Spec {
    kind: Kind,
    letters: u8,
    /// Takes no letter that the match has had.
    fresh: bool,
    entry: Far,
    inner: Far,
    least: u32,
    most: u32,
    optional: bool,
    greedy: bool,
    until: u8,
}

/// A pattern.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    specs: Vec<Spec>,
    within: Option<i64>,
    skip: AfterMatch,
}

/// Microseconds.
const SECOND: i64 = 1_000_000;

/// A letter with its number, which is its place.
type Events = Vec<(u8, i64)>;

fn letter(event: u8) -> char {
    char::from(b'a' + event)
}

fn name(at: usize) -> String {
    format!("e{at}")
}

impl Spec {
    fn any(dice: &mut Dice, first: bool) -> Spec {
        let kind = match dice.below(8) {
            0 if !first => Kind::NotNext,
            1 if !first => Kind::NotFollowedBy,
            _ => Kind::Takes,
        };
        let takes = kind == Kind::Takes;
        let (least, most) = match dice.below(6) {
            0 if takes => (1, u32::MAX),
            1 if takes => (2, 2),
            2 if takes => (1, 1 + dice.below(3) as u32),
            3 if takes => (2, u32::MAX),
            _ => (1, 1),
        };
        let far = |n| [Far::Strict, Far::Relaxed, Far::Any][n];
        let inner = match most > 1 {
            true => far(dice.below(3)),
            false => Far::Relaxed,
        };
        Spec {
            kind,
            letters: 1 + dice.below(15) as u8,
            fresh: takes && dice.below(5) == 0,
            entry: far(dice.below(3)),
            inner,
            least,
            most,
            optional: takes && dice.below(4) == 0,
            greedy: most > 1 && dice.below(3) == 0,
            until: match most == u32::MAX && dice.below(2) == 0 {
                true => 1 << dice.below(4),
                false => 0,
            },
        }
    }
}

impl Whole {
    pub(crate) fn any(dice: &mut Dice) -> Whole {
        let specs: Vec<_> = (0..1 + dice.below(4))
            .map(|n| Spec::any(dice, n == 0))
            .collect();
        let element = name(dice.below(specs.len()));
        let skip = match dice.below(6) {
            0 => AfterMatch::ToNext,
            1 => AfterMatch::PastLast,
            2 => AfterMatch::ToFirst(element),
            3 => AfterMatch::ToLast(element),
            _ => AfterMatch::NoSkip,
        };
        let within = (dice.below(3) > 0).then(|| 1 + dice.below(12) as i64);
        Whole {
            specs,
            within,
            skip,
        }
    }

    /// As it is written for events whose letter is this, a second of `within` being so many microseconds.
    pub(crate) fn pattern<T: State>(&self, letter: fn(&T) -> u8, second: i64) -> Pattern<T> {
        let mut pattern: Option<Pattern<T>> = None;
        for (at, spec) in self.specs.iter().enumerate() {
            let (letters, until) = (spec.letters, spec.until);
            let of = |mask: u8| move |e: &T| mask >> letter(e) & 1 == 1;
            let next = match (pattern, spec.kind, spec.entry) {
                (None, ..) => Pattern::begin(name(at)),
                (Some(p), Kind::NotNext, _) => p.not_next(name(at)),
                (Some(p), Kind::NotFollowedBy, _) => p.not_followed_by(name(at)),
                (Some(p), _, Far::Strict) => p.next(name(at)),
                (Some(p), _, Far::Relaxed) => p.followed_by(name(at)),
                (Some(p), _, Far::Any) => p.followed_by_any(name(at)),
            };
            let mut next = next.where_(of(letters));
            if spec.fresh {
                next = next.where_matched(move |e: &T, m: &Matched<'_, T>| {
                    m.events().all(|(_, _, taken)| letter(taken) != letter(e))
                });
            }
            if (spec.least, spec.most) != (1, 1) {
                next = match spec.most {
                    u32::MAX => next.times_or_more(spec.least),
                    most => next.times_between(spec.least..=most),
                };
                next = match spec.inner {
                    Far::Strict => next.consecutive(),
                    Far::Relaxed => next,
                    Far::Any => next.allow_combinations(),
                };
            }
            if spec.optional {
                next = next.optional();
            }
            if spec.greedy {
                next = next.greedy();
            }
            if until != 0 {
                next = next.until(of(until));
            }
            pattern = Some(next);
        }
        let pattern = pattern.unwrap().skip(self.skip.clone()).unbounded_state();
        match self.within {
            Some(within) => pattern.within(Span::from_micros(within * second)),
            None => pattern,
        }
    }

    /// Ready to be run; `None` where it is refused.
    pub(crate) fn compiled<T: State>(&self, letter: fn(&T) -> u8, second: i64) -> Option<Nfa<T>> {
        let mut plan = Plan::default();
        let op = plan.op("pattern", Results::ROWS, Location::caller());
        let (nfa, errors) = self.pattern(letter, second).compile(plan.info(op));
        errors.is_empty().then_some(nfa)
    }
}

/// A choice of events: (place, element), ascending.
type Choice = Vec<(usize, usize)>;

struct Trial<'a> {
    whole: &'a Whole,
    events: &'a Events,
}

impl Trial<'_> {
    fn takes(&self, element: usize, event: usize, before: &[(usize, usize)]) -> bool {
        let (spec, letter) = (&self.whole.specs[element], self.events[event].0);
        let is_fresh = || before.iter().all(|&(at, _)| self.events[at].0 != letter);
        spec.letters >> letter & 1 == 1 && (!spec.fresh || is_fresh())
    }

    fn ends(&self, element: usize, event: usize) -> bool {
        self.whole.specs[element].until >> self.events[event].0 & 1 == 1
    }

    /// Whether what is before may go to `element` (or the end) although the events of `passed` came, the last of them the one that it
    /// goes there with: nothing that must not come has, and no greedy loop has taken one.
    fn may_go(
        &self,
        before: &[(usize, usize)],
        element: usize,
        passed: std::ops::Range<usize>,
    ) -> bool {
        let specs = &self.whole.specs;
        let last = before.last().map(|&(_, e)| e);
        if last == Some(element) {
            return true;
        }
        let between = last.map_or(0, |e| e + 1)..element;
        for at in between.clone() {
            let comes =
                |mut events: std::ops::Range<usize>| events.any(|e| self.takes(at, e, before));
            let first = passed.start..(passed.start + 1).min(passed.end);
            let is_broken = match specs[at].kind {
                Kind::Takes => false,
                Kind::NotNext => comes(first),
                Kind::NotFollowedBy => comes(passed.clone()),
            };
            if is_broken {
                return false;
            }
        }
        let taken = |e: usize| before.iter().filter(|b| b.1 == e).count() as u32;
        let own = last.filter(|&e| taken(e) < specs[e].most);
        for rival in own.into_iter().chain(between).filter(|&e| specs[e].greedy) {
            let far = match Some(rival) == last {
                true => specs[rival].inner,
                false => specs[rival].entry,
            };
            for event in passed.clone() {
                if self.ends(rival, event) {
                    break;
                }
                if self.takes(rival, event, before) {
                    return false;
                }
                if far == Far::Strict {
                    break;
                }
            }
        }
        true
    }

    /// Whether event `next` may be taken by `element` behind `before`.
    fn follows(&self, before: &[(usize, usize)], (next, element): (usize, usize)) -> bool {
        let spec = &self.whole.specs[element];
        if spec.kind != Kind::Takes
            || !self.takes(element, next, before)
            || self.ends(element, next)
        {
            return false;
        }
        let from = before.last().map_or(next, |&(at, _)| at + 1);
        let in_element = before.iter().filter(|b| b.1 == element).count() as u32;
        let is_loop = before.last().is_some_and(|b| b.1 == element);
        if in_element >= spec.most {
            return false;
        }
        // What is left behind has enough, and what is left out may be missing.
        let last = before.last().map(|b| b.1);
        if !is_loop && !self.is_enough(before, last.map_or(0, |e| e + 1)..element) {
            return false;
        }
        let far = match is_loop {
            true => spec.inner,
            false => spec.entry,
        };
        let fits = |event: usize| match far {
            Far::Strict => false,
            Far::Relaxed => !self.takes(element, event, before),
            Far::Any => true,
        };
        (from..next).all(|event| fits(event) && !self.ends(element, event))
            && self.may_go(before, element, from..next + 1)
    }

    /// Whether the last element has enough, and all of `left_out` may be missing.
    fn is_enough(&self, before: &[(usize, usize)], mut left_out: std::ops::Range<usize>) -> bool {
        let specs = &self.whole.specs;
        let has_enough = before.last().is_none_or(|&(_, e)| {
            before.iter().filter(|b| b.1 == e).count() as u32 >= specs[e].least
        });
        has_enough && left_out.all(|at| specs[at].kind != Kind::Takes || specs[at].optional)
    }

    /// When a choice is a match: (time, 0 at the end of its time or 1 by an event, and which).
    fn complete(&self, choice: &Choice) -> Option<(i64, u8, usize)> {
        let specs = &self.whole.specs;
        let &(last, element) = choice.last()?;
        if !self.is_enough(choice, element + 1..specs.len()) {
            return None;
        }
        let nots: Vec<_> = (element + 1..specs.len())
            .filter(|&e| specs[e].kind != Kind::Takes)
            .collect();
        if nots.is_empty() {
            return Some((self.events[last].1, 1, last));
        }
        let over = self.whole.within.map(|w| self.events[choice[0].0].1 + w);
        let in_time = |&e: &usize| over.is_none_or(|over| self.events[e].1 < over);
        let next = (last + 1..self.events.len()).take_while(in_time).count() + last + 1;
        let lasts = nots.iter().any(|&e| specs[e].kind == Kind::NotFollowedBy);
        let passed = match lasts {
            true => last + 1..next,
            false => last + 1..next.min(last + 2),
        };
        let goes = self.may_go(choice, specs.len(), passed.clone());
        match (lasts || passed.is_empty(), over) {
            _ if !goes => None,
            (true, over) => over.map(|over| (over, 0, 0)),
            (false, _) => Some((self.events[last + 1].1, 1, last + 1)),
        }
    }

    fn all(&self, choice: &mut Choice, found: &mut Vec<((i64, u8, usize), Choice)>) {
        if let Some(moment) = self.complete(choice) {
            found.push((moment, choice.clone()));
        }
        let from = choice.last().map_or(0, |c| c.0 + 1);
        for next in from..self.events.len() {
            let start = choice.first().map_or(next, |c| c.0);
            let in_time = |w: i64| self.events[next].1 - self.events[start].1 < w;
            if !self.whole.within.is_none_or(in_time) {
                break;
            }
            let least = choice.last().map_or(0, |c| c.1);
            for element in least..self.whole.specs.len() {
                if self.follows(choice, (next, element)) {
                    choice.push((next, element));
                    self.all(choice, found);
                    choice.pop();
                }
            }
        }
    }

    /// All matches that are told, in their order.
    fn told(&self) -> Vec<(String, i64)> {
        let mut found = vec![];
        self.all(&mut vec![], &mut found);
        // The longer one before what it begins with.
        let key = |choice: &Choice| {
            let mut key = choice.clone();
            key.push((usize::MAX, 0));
            key
        };
        found.sort_by_key(|(moment, choice)| {
            let start = if moment.1 == 0 { choice[0].0 } else { 0 };
            (*moment, start, key(choice))
        });
        let mut go_on = 0;
        let mut told = vec![];
        for ((time, ..), choice) in found {
            if choice[0].0 < go_on {
                continue;
            }
            let is_of = |n: &String, c: &(usize, usize)| name(c.1) == *n;
            let on = match &self.whole.skip {
                AfterMatch::NoSkip => None,
                AfterMatch::ToNext => Some(choice[0].0 + 1),
                AfterMatch::PastLast => choice.last().map(|c| c.0 + 1),
                AfterMatch::ToFirst(n) => choice.iter().find(|c| is_of(n, c)).map(|c| c.0),
                AfterMatch::ToLast(n) => choice.iter().rfind(|c| is_of(n, c)).map(|c| c.0),
            };
            go_on = go_on.max(on.unwrap_or(0));
            let text = choice
                .iter()
                .map(|&(at, _)| format!("{}{at}", letter(self.events[at].0)));
            told.push((text.collect::<Vec<_>>().join(" "), time));
        }
        told
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Random patterns over random events of four letters.
    #[test]
    fn the_automaton_finds_what_the_definition_says(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        for _ in 0..20 {
            let whole = Whole::any(&mut dice);
            let first = |e: &String| e.as_bytes()[0] - b'a';
            if whole.compiled(first, SECOND).is_none() {
                continue;
            }
            let mut time = 0;
            let events: Events = (0..1 + dice.below(8)).map(|_| {
                time += dice.below(4) as i64;
                (dice.below(4) as u8, time)
            }).collect();
            let texts: Vec<_> = (0..).zip(&events).map(|(n, e)| (format!("{}{n}", letter(e.0)), e.1)).collect();
            let texts: Vec<_> = texts.iter().map(|(t, time)| (&**t, *time)).collect();
            let found = told(whole.pattern(first, SECOND), BOUNDS, &texts).matches;
            let expected = Trial { whole: &whole, events: &events }.told();
            prop_assert_eq!(found, expected, "{:?} in {:?}", whole, texts);
        }
    }

    /// The sieve passes by nothing that matters: what is told without it is told with it.
    #[test]
    fn what_is_passed_by_changes_nothing(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let mut passed_by = 0;
        for _ in 0..200 {
            let whole = Whole::any(&mut dice);
            let first = |e: &String| e.as_bytes()[0] - b'a';
            if whole.compiled(first, SECOND).is_none() {
                continue;
            }
            let nfa = compiled(whole.pattern(first, SECOND));
            let mut time = 0;
            let texts: Vec<_> = (0..1 + dice.below(12)).map(|n| {
                time += dice.below(4) as i64;
                (format!("{}{n}", letter(dice.below(4) as u8)), time)
            }).collect();
            let texts: Vec<_> = texts.iter().map(|(t, time)| (&**t, *time)).collect();
            let all = told_of(&nfa, BOUNDS, &texts, false);
            let sifted = told_of(&nfa, BOUNDS, &texts, true);
            prop_assert_eq!(all.matches, sifted.matches, "{:?} in {:?}", whole, texts);
            prop_assert_eq!(all.timed_out, sifted.timed_out, "{:?} in {:?}", whole, texts);
            passed_by += sifted.passed_by;
        }
        prop_assert!(passed_by > 0);
    }
}
