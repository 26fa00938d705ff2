//! Whatever ends the process and whenever, what two-phase sinks show is what an undisturbed run shows.

use pelton_simulation::cases::{each_by, numbers};
use pelton_simulation::spec::KindName;
use pelton_simulation::survive::{Faults, survive};

/// The operators that keep their states in checkpoints.
const KEEPING: [KindName; 1] = [KindName::Tumbling];

#[test]
fn crashes_leave_no_trace() {
    let default = 200;
    let mut all = Faults::default();
    each_by("crashes_leave_no_trace", &KEEPING, default, |case| {
        all.add(&survive(case)?);
        Ok(())
    });
    println!("{all:?}");
    let seeds = numbers(default);
    let cases = seeds.end - seeds.start;
    if cases < default {
        return;
    }
    // A suite in which nothing happens proves nothing.
    let least = |what: &str, n: u64, each: u64| {
        assert!(n >= cases / each, "only {n} {what} in {cases} cases");
    };
    least("crashes", all.crashes, 2);
    least("halts", all.halts, 10);
    least("ends in recovery", all.in_recovery, 10);
    least("losses of power", all.power_losses, 3);
    least("stops", all.stops, 10);
    least("recoveries", all.recoveries, 1);
    least("recoveries with other shards", all.rescaled, 2);
    assert!(
        all.entries > 10 * cases,
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
    let mut all = Faults::default();
    let default = 60;
    each_by(
        "process_functions_survive",
        &[KindName::Process],
        default,
        |case| {
            all.add(&survive(case)?);
            Ok(())
        },
    );
    println!("{all:?}");
    let seeds = numbers(default);
    let cases = seeds.end - seeds.start;
    if cases < default {
        return;
    }
    let least = |what: &str, n: u64, each: u64| {
        assert!(n >= cases / each, "only {n} {what} in {cases} cases");
    };
    least("recoveries", all.recoveries, 2);
    least("recoveries with other shards", all.rescaled, 2);
    least("losses of power", all.power_losses, 3);
}
