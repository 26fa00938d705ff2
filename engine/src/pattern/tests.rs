//! Small sequences whose matches are known, and what is refused.

use super::matches::Matched;
use super::nfa::Nfa;
use super::runs::{Bounds, Matching, Runs, Tell};
use super::sieve::Sieve;
use super::{AfterMatch, Pattern, WhenFull};
use crate::plan::{Plan, Results};
use crate::time::{Span, Spans};
use std::panic::Location;

type P = Pattern<String>;

/// What was told: matches, and partial ones that were over, each with its time in seconds.
#[derive(Default)]
pub(super) struct Told {
    pub matches: Vec<(String, i64)>,
    pub timed_out: Vec<(String, i64)>,
    pub dropped: u64,
    pub passed_by: usize,
}

fn text(matched: &Matched<'_, String>) -> String {
    let events: Vec<&str> = matched.events().map(|(_, _, e)| &**e).collect();
    events.join(" ")
}

impl Tell<String> for Told {
    fn matched(&mut self, matched: &Matched<'_, String>, time: i64) {
        self.matches.push((text(matched), time / 1_000_000));
    }
    fn timed_out(&mut self, matched: &Matched<'_, String>, over: i64) {
        self.timed_out.push((text(matched), over / 1_000_000));
    }
}

pub(super) const BOUNDS: Bounds = Bounds {
    waits: 1000,
    places: 10_000,
    full: WhenFull::DropOldest,
};

pub(super) fn compiled(pattern: P) -> Nfa<String> {
    let mut plan = Plan::default();
    let op = plan.op("pattern", Results::ROWS, Location::caller());
    let (nfa, errors) = pattern.compile(plan.info(op));
    assert!(errors.is_empty(), "{errors:?}");
    nfa
}

/// A key's events, as its operator gives them: what is over before one is ended first.
fn event(
    matching: &mut Matching<String>,
    runs: &mut Runs,
    (nfa, bounds): (&Nfa<String>, &Bounds),
    one: (String, i64),
    told: &mut Told,
) {
    assert!(matching.expire(runs, nfa, one.1, usize::MAX, told));
    told.dropped += matching.event(runs, nfa, bounds, one, told).dropped;
    let ((waits, places), held) = (runs.held(), matching.held());
    assert!(waits <= bounds.waits && places <= bounds.places);
    // It is the only key. An event is held once, and nothing is held that nothing waits behind.
    assert_eq!((waits, places), (held.0, held.2));
    assert!(held.1 <= places);
    assert_eq!(runs.is_empty(), held == (0, 0, 0));
}

/// Gives a key's events to a pattern, and then the end of time. Nothing may be left of a pattern that has `within`.
pub(super) fn told(pattern: P, bounds: Bounds, events: &[(&str, i64)]) -> Told {
    told_of(&compiled(pattern), bounds, events, false)
}

/// The same, perhaps with what the pattern's sieve keeps alone.
pub(super) fn told_of(
    nfa: &Nfa<String>,
    bounds: Bounds,
    events: &[(&str, i64)],
    is_sifted: bool,
) -> Told {
    let (mut matching, mut runs, mut told) = (Matching::new(), Runs::new(), Told::default());
    let sieve = Sieve::of(nfa).filter(|_| is_sifted);
    for &(letter, second) in events {
        let one = (letter.to_string(), second * 1_000_000);
        if sieve.as_ref().is_none_or(|sieve| sieve.keeps(&one.0)) {
            event(&mut matching, &mut runs, (nfa, &bounds), one, &mut told);
        } else {
            told.passed_by += 1;
        }
    }
    assert!(matching.expire(&mut runs, nfa, i64::MAX, usize::MAX, &mut told));
    assert!(nfa.within.is_none() || matching.held() == (0, 0, 0));
    matching.clear(&mut runs);
    assert_eq!(matching.held(), (0, 0, 0));
    told
}

/// Events a second apart.
fn seconds(events: &str) -> Vec<(&str, i64)> {
    events.split_whitespace().zip(0..).collect()
}

#[track_caller]
fn finds(pattern: P, events: &str, expected: &[&str]) {
    let told = told(pattern, BOUNDS, &seconds(events));
    let mut found: Vec<_> = told.matches.iter().map(|m| &*m.0).collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn is(letters: &'static str) -> impl Fn(&String) -> bool + Clone + Send + 'static {
    move |event| event.starts_with(|c| letters.contains(c))
}

fn a() -> P {
    P::begin("a").where_(is("a"))
}

/// The three contiguities: "a b" in the events a, c, b1, b2.
#[test]
fn contiguity() {
    let events = "a c b1 b2";
    finds(a().next("b").where_(is("b")), events, &[]);
    finds(a().followed_by("b").where_(is("b")), events, &["a b1"]);
    let any = a().followed_by_any("b").where_(is("b"));
    finds(any, events, &["a b1", "a b2"]);
    finds(a().next("b").where_(is("b")), "a b1 b2", &["a b1"]);
}

/// "a b+ c" in the events a, b1, d1, b2, d2, b3, c.
#[test]
fn contiguity_within_loops() {
    let events = "a b1 d1 b2 d2 b3 c";
    let pattern = || a().followed_by_any("b").where_(is("b")).one_or_more();
    let then_c = |p: P| p.followed_by("c").where_(is("c")).within(1.hours());
    let strict = ["a b1 c", "a b2 c", "a b3 c"];
    finds(then_c(pattern().consecutive()), events, &strict);
    let mut relaxed = strict.to_vec();
    relaxed.extend(["a b1 b2 c", "a b1 b2 b3 c", "a b2 b3 c"]);
    finds(then_c(pattern()), events, &relaxed);
    relaxed.push("a b1 b3 c");
    finds(then_c(pattern().allow_combinations()), events, &relaxed);
}

/// A loop between two others, in the events c, d, a1, a2, a3, d, a4, b.
#[test]
fn loops_that_are_consecutive_or_combine() {
    let events = "c d a1 a2 a3 d a4 b";
    let pattern = || {
        P::begin("c")
            .where_(is("c"))
            .followed_by("a")
            .where_(is("a"))
            .one_or_more()
    };
    let then_b = |p: P| p.followed_by("b").where_(is("b")).within(1.hours());
    let mut all = vec!["c a1 b", "c a1 a2 b", "c a1 a2 a3 b"];
    finds(then_b(pattern().consecutive()), events, &all);
    all.push("c a1 a2 a3 a4 b");
    finds(then_b(pattern()), events, &all);
    all.extend(["c a1 a3 b", "c a1 a4 b", "c a1 a2 a4 b", "c a1 a3 a4 b"]);
    finds(then_b(pattern().allow_combinations()), events, &all);
    // A greedy loop has all that it can take before what follows.
    finds(then_b(pattern().greedy()), events, &all[3..4]);
}

#[test]
fn counts() {
    let events = "a b1 b2 b3 b4";
    let b = || a().next("b").where_(is("b"));
    finds(b().times(2), events, &["a b1 b2"]);
    finds(b().times_between(2..=3), events, &["a b1 b2", "a b1 b2 b3"]);
    let more = b().times_or_more(3).within(1.hours());
    finds(more, events, &["a b1 b2 b3", "a b1 b2 b3 b4"]);
    let c = |p: P| p.next("c").where_(is("c"));
    finds(
        c(b().times(2).optional()),
        "a c1 a b1 c2 a b2 b3 c3",
        &["a c1", "a b2 b3 c3"],
    );
    finds(c(b().optional()), "a c1 a b1 c2", &["a c1", "a b1 c2"]);
    let begin = P::begin("x")
        .where_(is("x"))
        .optional()
        .next("y")
        .where_(is("y"));
    finds(begin, "x1 y1 y2", &["x1 y1", "y1", "y2"]);
}

#[test]
fn a_greedy_loop_leaves_nothing_that_it_could_take() {
    let ab = || P::begin("a").where_(is("a")).times_between(1..=2);
    let then = |p: P| p.next("any").where_(is("ab"));
    finds(then(ab()), "a1 a2 b", &["a1 a2", "a1 a2 b", "a2 b"]);
    // It is full after two: then the third may be what follows.
    finds(then(ab().greedy()), "a1 a2 b", &["a1 a2 b", "a2 b"]);
    finds(then(ab().greedy()), "a1 a2 a3", &["a1 a2 a3"]);
    let relaxed = |p: P| p.followed_by("any").where_(is("ab")).within(1.hours());
    let many = || P::begin("a").where_(is("a")).one_or_more();
    finds(
        relaxed(many().greedy()),
        "a1 x a2 x b",
        &["a1 a2 b", "a2 b"],
    );
    // One that is consecutive is over with the gap.
    finds(
        relaxed(many().greedy().consecutive()),
        "a1 x a2 x b",
        &["a1 a2", "a2 b"],
    );
    let optional = |p: P| {
        p.next("b")
            .where_(is("b"))
            .one_or_more()
            .greedy()
            .optional()
    };
    let then_bc = |p: P| p.next("c").where_(is("bc")).within(1.hours());
    finds(then_bc(optional(a())), "a b c", &["a b c"]);
    finds(then_bc(optional(a())), "a c", &["a c"]);
}

#[test]
fn until_ends_a_loop() {
    let b = || {
        a().followed_by("b")
            .where_(is("bx"))
            .one_or_more()
            .until(is("x"))
    };
    finds(b(), "a b1 c b2 x b3", &["a b1", "a b1 b2"]);
    finds(b(), "a x b1", &[]);
    let then = b().followed_by("x").where_(is("x"));
    finds(then, "a b1 x", &["a b1 x"]);
}

#[test]
fn what_must_not_come() {
    let b = |p: P| p.followed_by("b").where_(is("b"));
    let not_next = || b(a().not_next("n").where_(is("n")));
    finds(not_next(), "a n b", &[]);
    finds(not_next(), "a c n b", &["a b"]);
    finds(not_next(), "a b", &["a b"]);
    let never = || b(a().not_followed_by("n").where_(is("n")));
    finds(never(), "a c n b", &[]);
    finds(never(), "a c b n", &["a b"]);
    // The event that both take is what must not come.
    finds(b(a().not_followed_by("n").where_(is("b"))), "a b", &[]);
    let many = a().one_or_more().not_followed_by("n").where_(is("n"));
    // Only what lies between the last of the loop and what follows.
    finds(b(many).within(1.hours()), "a1 n a2 b", &["a1 a2 b", "a2 b"]);
}

#[test]
fn what_must_not_come_at_the_end() {
    let events = [("a1", 0), ("a2", 4), ("n", 12), ("x", 30)];
    let pattern = a()
        .not_followed_by("n")
        .where_(is("n"))
        .within(10.seconds());
    let told_of = |p| {
        let told = told(p, BOUNDS, &events);
        (told.matches, told.timed_out)
    };
    let found = told_of(pattern);
    assert_eq!(found, (vec![("a1".to_string(), 10)], vec![]));
    let pattern = a().not_next("n").where_(is("n"));
    assert_eq!(told_of(pattern).0, [("a1".to_string(), 4)]);
    let pattern = a().not_next("n").where_(is("n")).within(3.seconds());
    let both = [("a1".to_string(), 3), ("a2".to_string(), 7)];
    assert_eq!(told_of(pattern).0, both, "nothing came next in time");
}

#[test]
fn within_ends_what_is_not_complete() {
    let pattern = || {
        let p = a().followed_by("b").where_(is("b")).one_or_more();
        p.followed_by("c").where_(is("c")).within(10.seconds())
    };
    let found = told(
        pattern(),
        BOUNDS,
        &[("a1", 0), ("b1", 5), ("a2", 9), ("c1", 10), ("b2", 19)],
    );
    assert_eq!(found.matches, []);
    let over = |text: &str, at| (text.to_string(), at);
    assert_eq!(found.timed_out, [over("a1 b1", 10), over("a2", 19)]);
    let found = told(pattern(), BOUNDS, &[("a1", 0), ("b1", 5), ("c1", 9)]);
    assert_eq!(found.matches, [over("a1 b1 c1", 9)]);
    assert_eq!(
        found.timed_out,
        [over("a1 b1", 10)],
        "the loop might have gone on"
    );
}

#[test]
fn conditions_join_from_the_left() {
    let pattern = P::begin("x")
        .where_(is("a"))
        .where_(is("b"))
        .or_where(is("c"));
    finds(pattern, "a b c", &["c"]);
    let pattern = P::begin("x")
        .or_where(is("a"))
        .or_where(is("c"))
        .where_(is("c"));
    finds(pattern, "a b c", &["c"]);
}

/// A loop that rises: each event is compared with the one before, and the last with the number of all.
#[test]
fn conditions_see_what_was_taken() {
    let pattern = P::begin("rise")
        .where_matched(|e: &String, m| m.of("rise").next_back().is_none_or(|before| e > before))
        .one_or_more()
        .consecutive()
        .next("end")
        .where_matched(|e, m| e.starts_with('x') && m.of("rise").count() == 3 && m.len() == 3)
        .within(1.hours());
    finds(pattern, "c a b d x", &["a b d x"]);
}

#[test]
#[should_panic(expected = "no element 'c'; it has 'a', 'b'")]
fn a_name_that_is_not_there_is_told() {
    let pattern = a()
        .next("b")
        .where_matched(|_, m| m.first_of("c").is_some());
    finds(pattern, "a b", &[]);
}

/// "b+ c" in the events b1, b2, b3, c, and "a b+" in a, b1, b2, b3.
#[test]
fn skipping() {
    let events = "b1 b2 b3 c";
    let pattern = |skip| {
        let b = P::begin("b").where_(is("b")).one_or_more().consecutive();
        b.next("c").where_(is("c")).within(1.hours()).skip(skip)
    };
    let all = ["b1 b2 b3 c", "b2 b3 c", "b3 c"];
    finds(pattern(AfterMatch::NoSkip), events, &all);
    finds(pattern(AfterMatch::ToNext), events, &all);
    finds(pattern(AfterMatch::PastLast), events, &all[..1]);
    finds(pattern(AfterMatch::ToFirst("b".into())), events, &all);
    let last = ["b1 b2 b3 c", "b3 c"];
    finds(pattern(AfterMatch::ToLast("b".into())), events, &last);
    let pattern = |skip| {
        a().next("b")
            .where_(is("b"))
            .one_or_more()
            .within(1.hours())
            .skip(skip)
    };
    let events = "a b1 b2 b3";
    finds(
        pattern(AfterMatch::NoSkip),
        events,
        &["a b1", "a b1 b2", "a b1 b2 b3"],
    );
    finds(pattern(AfterMatch::ToNext), events, &["a b1"]);
    finds(
        pattern(AfterMatch::PastLast),
        "a b1 b2 a b3",
        &["a b1", "a b3"],
    );
}

/// (a | b | c) (b | c) c+ greedy d in the events a, b, c1, c2, c3, d.
#[test]
fn skipping_to_an_element() {
    let pattern = |skip| {
        P::begin("abc")
            .where_(is("abc"))
            .next("bc")
            .where_(is("bc"))
            .next("c")
            .where_(is("c"))
            .one_or_more()
            .greedy()
            .next("d")
            .where_(is("d"))
            .within(1.hours())
            .skip(skip)
    };
    let all = ["a b c1 c2 c3 d", "b c1 c2 c3 d", "c1 c2 c3 d"];
    let events = "a b c1 c2 c3 d";
    finds(pattern(AfterMatch::NoSkip), events, &all);
    let two = [all[0], all[2]];
    finds(pattern(AfterMatch::ToFirst("c".into())), events, &two);
}

/// Of matches that one event completes the one that took more is told first.
#[test]
fn the_fuller_match_is_first() {
    let b = a().followed_by("b").where_(is("b")).one_or_more();
    let pattern = b.followed_by("c").where_(is("c")).within(1.hours());
    let found = told(
        pattern.skip(AfterMatch::PastLast),
        BOUNDS,
        &seconds("a b1 b2 c"),
    );
    assert_eq!(found.matches, [("a b1 b2 c".to_string(), 3)]);
}

#[test]
fn too_many_go_and_are_counted() {
    let pattern = || a().followed_by("b").where_(is("b"));
    let bounds = |full| Bounds {
        waits: 2,
        places: 10,
        full,
    };
    let events = seconds("a1 a2 a3 a4 b");
    let found = told(pattern(), bounds(WhenFull::DropOldest), &events);
    let of = |found: &Told| {
        found
            .matches
            .iter()
            .map(|m| m.0.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (of(&found), found.dropped),
        (vec!["a3 b".into(), "a4 b".into()], 2)
    );
    let found = told(pattern(), bounds(WhenFull::DropNewest), &events);
    assert_eq!(
        (of(&found), found.dropped),
        (vec!["a1 b".into(), "a2 b".into()], 2)
    );
    // Events count too: one partial match of a loop without end takes any number.
    let endless = || {
        a().next("x")
            .where_(is("x"))
            .one_or_more()
            .next("b")
            .where_(is("b"))
    };
    let places = Bounds {
        waits: 100,
        places: 3,
        full: WhenFull::DropOldest,
    };
    let found = told(
        endless().unbounded_state(),
        places,
        &seconds("a x1 x2 b a x3 x4 x5 b"),
    );
    assert_eq!((of(&found), found.dropped), (vec!["a x1 x2 b".into()], 3));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |pattern: P, what: &str| {
        let mut plan = Plan::default();
        let op = plan.op("pattern", Results::ROWS, Location::caller());
        let errors = pattern.compile(plan.info(op)).1;
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(texts.iter().any(|t| t.contains(what)), "{what}: {texts:?}");
        assert_eq!(texts.len(), 1, "{texts:?}");
    };
    let b = || a().next("b").where_(is("b"));
    let n = || a().not_next("n").where_(is("n"));
    refused(b().next("a"), "two elements have the name 'a'");
    refused(b().times(0), "may come 0 times");
    #[allow(clippy::reversed_empty_ranges)]
    refused(b().times_between(3..=2), "from 3 to 2 times");
    refused(b().times(2).times(3), "told twice");
    refused(b().one_or_more(), "may go on for ever");
    refused(b().times_or_more(2), "may go on for ever");
    refused(b().greedy().next("c"), "greedy and takes one event");
    refused(
        b().times(1).consecutive(),
        "consecutive and takes one event",
    );
    refused(
        b().times(2).consecutive().allow_combinations(),
        "both consecutive and allow",
    );
    refused(b().times(2).greedy(), "nothing that is required follows");
    refused(
        b().times(2).greedy().next("c").optional(),
        "nothing that is required follows",
    );
    refused(
        b().times(2).greedy().allow_combinations().next("c"),
        "greedy and allows combinations",
    );
    refused(b().times(2).until(is("c")), "ends by itself");
    refused(n().optional().next("b"), "is optional");
    refused(n().times(2).next("b"), "is told how often");
    refused(a().not_next("n").next("b"), "has no condition");
    refused(
        b().optional().not_next("n").where_(is("n")).next("c"),
        "which is optional",
    );
    refused(
        n().next("b").optional(),
        "all that follows that is optional",
    );
    refused(a().not_followed_by("n").where_(is("n")), "has no `within`");
    refused(a().optional(), "all elements are optional");
    refused(b().skip(AfterMatch::ToFirst("c".into())), "skips to 'c'");
    refused(
        n().next("b").skip(AfterMatch::ToLast("n".into())),
        "skips to 'n'",
    );
    refused(b().within(Span::ZERO), "span of `within`");
    refused(b().within(Span::from_micros(-1)), "span of `within`");
    let many = (0..64).fold(a(), |p, n| p.next(n.to_string()));
    refused(many, "of 65 elements");
}

/// What has gone leaves nothing behind, and what is over at one time goes with the next event.
#[test]
fn a_key_holds_no_more_than_lives() {
    let b = P::begin("a")
        .where_(is("a"))
        .followed_by("b")
        .where_(is("b"));
    let nfa = compiled(b.within(10.seconds()));
    let (mut matching, mut runs, mut told) = (Matching::new(), Runs::new(), Told::default());
    let mut at = |letter: &str, time: i64, held: usize| {
        let one = (letter.into(), time);
        event(&mut matching, &mut runs, (&nfa, &BOUNDS), one, &mut told);
        assert_eq!(matching.held(), (held, held, held));
    };
    for time in 0..900 {
        at("a", time, time as usize + 1);
    }
    // All but the last ten are over; those match, and nothing else.
    at("a", 10_000_889, 11);
    at("b", 10_000_889, 0);
    assert_eq!((told.timed_out.len(), told.matches.len()), (890, 11));
}

/// What is over at one time is ended in pieces, and in the same order as at once.
#[test]
fn what_is_over_is_ended_in_pieces() {
    let b = P::begin("a")
        .where_(is("a"))
        .followed_by("b")
        .where_(is("b"));
    let b = b.one_or_more().followed_by("c").where_(is("c"));
    let nfa = compiled(b.within(10.seconds()));
    let run = |most: usize| {
        let (mut matching, mut runs, mut told) = (Matching::new(), Runs::new(), Told::default());
        for n in 0..60 {
            let letter = if n % 3 == 2 { "b" } else { "a" };
            let one = (format!("{letter}{n}"), 0);
            event(&mut matching, &mut runs, (&nfa, &BOUNDS), one, &mut told);
        }
        for piece in 1.. {
            matching.work = 0;
            let before = told.timed_out.len();
            let all = matching.expire(&mut runs, &nfa, 10_000_000, most, &mut told);
            assert!(most == usize::MAX || told.timed_out.len() - before <= most + 20);
            assert!(told.timed_out.len() > before, "each piece does something");
            if all {
                return (told.timed_out, piece);
            }
        }
        unreachable!()
    };
    let ((at_once, one), (parted, pieces)) = (run(usize::MAX), run(100));
    assert_eq!(at_once, parted);
    assert_eq!(one, 1);
    assert!(pieces > 20, "{pieces} pieces");
}

/// A condition that sees the event alone is asked once of it, however many wait.
#[test]
fn an_event_is_asked_once() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counts = asked.clone();
    let b = a().followed_by("b").where_(move |e: &String| {
        counts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        e == "b"
    });
    let found = told(b, BOUNDS, &seconds("a a a a a x b"));
    assert_eq!(found.matches.len(), 5);
    // The first has none that waits.
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 6);
}

/// What the sieve may not pass by.
#[test]
fn only_what_no_condition_notices_is_passed_by() {
    let keeps = |pattern: P, event: &str| {
        Sieve::of(&compiled(pattern)).map(|sieve| sieve.keeps(&event.into()))
    };
    let b = || a().followed_by("b").where_(is("b"));
    assert_eq!(
        [keeps(b(), "a"), keeps(b(), "b"), keeps(b(), "x")],
        [Some(true), Some(true), Some(false)]
    );
    let any = || a().followed_by_any("b").where_(is("b"));
    assert_eq!(keeps(any(), "x"), Some(false));
    let never = || {
        let n = b().not_followed_by("n").where_(is("n"));
        n.followed_by("c").where_(is("c"))
    };
    assert_eq!(
        [keeps(never(), "n"), keeps(never(), "x")],
        [Some(true), Some(false)]
    );
    let until = || b().one_or_more().until(is("u"));
    assert_eq!(
        [keeps(until(), "u"), keeps(until(), "x")],
        [Some(true), Some(false)]
    );
    // What sees the match may hold, as far as what sees the event alone allows.
    let sees = |p: P| p.where_matched(|_, m| !m.is_empty());
    assert_eq!(
        [keeps(sees(b()), "b"), keeps(sees(b()), "x")],
        [Some(true), Some(false)]
    );
    assert_eq!(keeps(sees(a().followed_by("b")), "x"), Some(true));
    assert_eq!(
        keeps(sees(a().followed_by("b")).or_where(is("b")), "x"),
        Some(true)
    );
    // Strict contiguity notices every event, and so does an element that takes any.
    assert_eq!(keeps(a().next("b").where_(is("b")), "x"), None);
    assert_eq!(keeps(a().times(2).consecutive(), "x"), None);
    assert_eq!(keeps(a().followed_by("b"), "x"), None);
    let next = a()
        .not_next("n")
        .where_(is("n"))
        .followed_by("b")
        .where_(is("b"));
    assert_eq!(keeps(next, "x"), None);
}
