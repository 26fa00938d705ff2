//! The recorders against sorted vectors, and the rule of quiet windows.

use pelton_bench::events::mix;
use pelton_bench::latency::{Collector, OpenLoop, Plan, Schedule, Scheduled};

const SECOND: u64 = 1_000_000_000;

fn plan(seconds: u64, warm_up: u64) -> Plan {
    Plan {
        seconds,
        warm_up,
        gaps_disqualify: true,
    }
}

/// A distribution with a long tail, in nanoseconds.
fn latency_of(id: u64) -> u64 {
    let r = mix(id);
    let tail = if r.is_multiple_of(100) { 50 } else { 1 };
    100 + (r >> 40) % 20_000 * tail
}

#[test]
fn percentiles_agree_with_a_sorted_vector() {
    let collector = Collector::new(plan(4, 1));
    let first = collector.recorder();
    let second = first.clone();
    let mut sorted = Vec::new();
    for id in 0..400_000 {
        let due = id * 10_000;
        let recorder = if id % 2 == 0 { &first } else { &second };
        recorder.record(due, due + latency_of(id));
        if due >= SECOND {
            sorted.push(latency_of(id));
        }
    }
    drop(first);
    second.finish();
    let figures = collector.finish().unwrap();
    sorted.sort_unstable();
    assert_eq!(figures.samples, sorted.len() as u64);
    let checks = [
        (0.5, figures.p50_us),
        (0.9, figures.p90_us),
        (0.99, figures.p99_us),
        (0.999, figures.p999_us),
        (0.9999, figures.p9999_us),
        (1.0, figures.max_us),
    ];
    for (quantile, measured) in checks {
        let at = ((sorted.len() as f64 * quantile).ceil() as usize).max(1) - 1;
        let exact = sorted[at] as f64 / 1000.0;
        assert!(
            (measured - exact).abs() <= exact / 1000.0 + 0.001,
            "p{quantile}: {measured}, exactly {exact}"
        );
    }
}

#[test]
fn a_window_with_a_gap_is_not_kept() {
    let seconds = 30;
    let collector = Collector::new(plan(seconds, 1));
    let (recorder, gaps) = (collector.recorder(), collector.gap_meter());
    let mut now = 0;
    while now < seconds * SECOND {
        gaps.turn(now);
        recorder.record(now, now + 1000);
        // One stall within second 3, one from second 9 into second 10.
        let stalls = [3 * SECOND + SECOND / 2, 10 * SECOND - 80_000];
        let stalled = stalls
            .iter()
            .any(|stall| (*stall..stall + 80_000).contains(&now));
        now += if stalled { 150_000 } else { 80_000 };
    }
    drop((recorder, gaps));
    let figures = collector.finish().unwrap();
    assert_eq!(figures.windows, 29);
    // Stolen time is the machine's and may take further windows; here a run takes no time, so that is unlikely.
    assert!(figures.windows_kept <= 26, "{} kept", figures.windows_kept);
    assert!(
        (150.0..151.0).contains(&figures.largest_gap_us),
        "{}",
        figures.largest_gap_us
    );
    if figures.windows_kept >= 20 {
        assert!((0.99..1.01).contains(&figures.quiet_p999_us.unwrap()));
        assert_eq!(figures.quiet, "measured");
    }
}

#[test]
fn few_windows_are_not_measurable() {
    let collector = Collector::new(plan(5, 1));
    let recorder = collector.recorder();
    (0..5).for_each(|second| recorder.record(second * SECOND, second * SECOND + 7));
    drop(recorder);
    let figures = collector.finish().unwrap();
    assert_eq!(
        (figures.windows, figures.quiet.as_str()),
        (4, "not measurable here")
    );
    assert_eq!(figures.quiet_p99_us, None);
}

#[test]
fn a_recorder_left_over_is_an_error() {
    let collector = Collector::new(plan(2, 0));
    let recorder = collector.recorder();
    recorder.record(0, 5);
    assert!(collector.finish().is_err());
    drop(recorder);
}

#[test]
fn shards_share_a_schedule_without_gaps() {
    let schedule = Schedule::new(3_000_000, 2);
    let mut loops: Vec<_> = (0..3)
        .map(|shard| OpenLoop::new(schedule, shard, 3))
        .collect();
    let mut next = 0;
    while next < schedule.events() {
        let due_ns = schedule.due_ns(next);
        let from = &mut loops[(next % 3) as usize];
        if due_ns > 0 {
            assert_eq!(from.next_due(due_ns - 1), None);
        }
        assert_eq!(from.next_due(due_ns), Some(Scheduled { id: next, due_ns }));
        next += 1;
    }
    assert!(loops.iter().all(OpenLoop::is_done));
    for time in [0, 1, 333, 334, 1_000_000, 999_999_999] {
        let first = schedule.first_at(time);
        assert!(schedule.due_ns(first) >= time);
        assert!(first == 0 || schedule.due_ns(first - 1) < time);
    }
}
