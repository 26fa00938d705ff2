//! Whatever ends the process and whenever, what two-phase sinks show is what an undisturbed run shows.

use pelton_simulation::cases::{each_drawn, numbers, some_numbers};
use pelton_simulation::spec::{Case, KindName};
use pelton_simulation::survive::{Faults, Manner, survive};
use std::ops::Range;

/// Cases in which something happened, to be held against how many there were: a suite in which nothing happens proves nothing.
struct Happened {
    all: Faults,
    cases: u64,
}

impl Happened {
    /// At least once in so many cases.
    fn least(&self, what: &str, n: u64, each: u64) {
        assert!(
            n >= self.cases / each,
            "only {n} {what} in {} cases",
            self.cases
        );
    }
}

/// Takes cases through lives of this manner; what happened, where enough were asked for to say so.
fn live_through(
    (test, default, seeds): (&str, u64, Range<u64>),
    draw: impl Fn(u64) -> Case,
    manner: Manner,
) -> Option<Happened> {
    let mut happened = Happened {
        all: Faults::default(),
        cases: seeds.end - seeds.start,
    };
    each_drawn(test, seeds, draw, |case| {
        happened.all.add(&survive(case, manner)?);
        Ok(())
    });
    println!("{:?}", happened.all);
    (happened.cases >= default).then_some(happened)
}

#[test]
fn crashes_leave_no_trace() {
    let kinds = [KindName::Tumbling];
    let suite = ("crashes_leave_no_trace", 200, numbers(200));
    let draw = |seed| Case::draw(seed, &kinds);
    let Some(happened) = live_through(suite, draw, Manner::Any) else {
        return;
    };
    let all = &happened.all;
    let least = |what: &str, n: u64, each: u64| happened.least(what, n, each);
    least("crashes", all.crashes, 2);
    least("halts", all.halts, 10);
    least("ends in recovery", all.in_recovery, 10);
    least("losses of power", all.power_losses, 3);
    least("stops", all.stops, 10);
    least("recoveries", all.recoveries, 1);
    least("recoveries with other shards", all.rescaled, 2);
    assert!(
        all.entries > 10 * happened.cases,
        "only {} entries were read back",
        all.entries
    );
    least("jobs started again", all.started_again, 10);
    least("epochs given up", all.given_up, 10);
    least("epochs", all.completed, 1);
    least("sweeps", all.sweeps, 4);
    least("lives with a sweep", all.swept_lives, 4);
    least("segments removed", all.segments_removed, 10);
    least("commits put off", all.refused, 2);
    least("lives with several uncommitted epochs", all.overlapped, 4);
    least("lives cut off with several", all.cut_behind, 20);
    least("waits of sources for commits", all.waits, 1);
}

/// The states and timers of process functions, judged by the naive model.
#[test]
fn process_functions_survive() {
    let kinds = [KindName::Process];
    let suite = ("process_functions_survive", 60, numbers(60));
    let draw = |seed| Case::draw(seed, &kinds);
    let Some(happened) = live_through(suite, draw, Manner::Any) else {
        return;
    };
    let all = &happened.all;
    happened.least("recoveries", all.recoveries, 2);
    happened.least("recoveries with other shards", all.rescaled, 2);
    happened.least("losses of power", all.power_losses, 3);
}

/// Joins, patterns, deduplication and running aggregates in order, judged by the naive model.
#[test]
fn joins_patterns_and_others_survive() {
    let kinds = [KindName::Operator];
    let suite = ("joins_patterns_and_others_survive", 100, some_numbers(100));
    let draw = |seed| Case::draw(seed, &kinds);
    let Some(happened) = live_through(suite, draw, Manner::Any) else {
        return;
    };
    let all = &happened.all;
    happened.least("recoveries", all.recoveries, 2);
    happened.least("recoveries with other shards", all.rescaled, 2);
    happened.least("losses of power", all.power_losses, 3);
}

/// Regular joins, changelogs, and what applies changes, judged by what stands in the end.
#[test]
fn tables_and_what_applies_their_changes_survive() {
    let kinds = [KindName::Changes];
    let name = "tables_and_what_applies_their_changes_survive";
    let suite = (name, 80, some_numbers(80));
    let draw = |seed| Case::draw(seed, &kinds);
    let Some(happened) = live_through(suite, draw, Manner::Any) else {
        return;
    };
    let all = &happened.all;
    happened.least("recoveries", all.recoveries, 2);
    happened.least("recoveries with other shards", all.rescaled, 2);
    happened.least("losses of power", all.power_losses, 3);
}

/// Windows whose entries are slices that several windows share, and sessions, which grow into one another.
#[test]
fn sliding_and_session_windows_survive() {
    let kinds = [KindName::Sliding, KindName::Session, KindName::Cumulate];
    let suite = (
        "sliding_and_session_windows_survive",
        100,
        some_numbers(100),
    );
    let draw = |seed| Case::draw(seed, &kinds);
    let Some(happened) = live_through(suite, draw, Manner::Any) else {
        return;
    };
    let all = &happened.all;
    happened.least("recoveries", all.recoveries, 2);
    happened.least("recoveries with other shards", all.rescaled, 2);
    happened.least("losses of power", all.power_losses, 3);
}

/// Old entries are written anew over several epochs, and what they were written to goes: they are still there after a crash.
#[test]
fn sweeps_lose_nothing() {
    let kinds = [
        KindName::Tumbling,
        KindName::Tumbling,
        KindName::Sliding,
        KindName::Session,
        KindName::Running,
        KindName::Process,
        KindName::Changes,
    ];
    let suite = ("sweeps_lose_nothing", 100, some_numbers(100));
    let draw = |seed| Case::long_lived(seed, &kinds);
    let Some(happened) = live_through(suite, draw, Manner::Patient) else {
        return;
    };
    let all = &happened.all;
    assert!(
        all.completed > 4 * all.lives,
        "{} epochs in {} lives",
        all.completed,
        all.lives
    );
    let swept = "recoveries behind a sweep";
    assert!(all.sweeps > happened.cases, "only {} sweeps", all.sweeps);
    happened.least(swept, all.swept_recoveries, 1);
    happened.least("segments removed", all.segments_removed, 1);
}

/// Jobs that are drained before they have read all, and jobs that start from another's savepoint, with other shards and in a lineage
/// of their own: each comes to the same end as one that nobody touched.
#[test]
fn savepoints_and_drains_leave_no_trace() {
    let kinds = [
        KindName::Tumbling,
        KindName::Sliding,
        KindName::Session,
        KindName::Running,
        KindName::Process,
        KindName::Operator,
        KindName::Changes,
    ];
    let suite = ("savepoints_and_drains_leave_no_trace", 60, some_numbers(60));
    let draw = |seed| Case::long_lived(seed, &kinds);
    let Some(happened) = live_through(suite, draw, Manner::Moving) else {
        return;
    };
    let all = &happened.all;
    let least = |what: &str, n: u64, each: u64| happened.least(what, n, each);
    least("savepoints", all.savepoints, 2);
    least("jobs that started from one", all.moved, 2);
    least("starts with other shards", all.moved_rescaled, 3);
    least("recoveries behind a start", all.moved_recoveries, 3);
    least("jobs drained", all.drained, 8);
    least("lives that died draining", all.died_draining, 20);
    least("losses of power", all.power_losses, 3);
}
