//! The hand-written loops against a naive computation that keeps everything, written without them.

use pelton_bench::cores;
use pelton_bench::engine::{
    BenchError, Engine, LatencyConfig, LatencyWorkload, LimitVariant, ThroughputConfig, Workload,
};
use pelton_bench::events::{self, EVENTS_PER_MS, Ev, SessionResult, Totals, WindowResult};
use pelton_bench::limit::Limit;
use pelton_bench::limit::sessions::Sessions;
use std::collections::BTreeMap;

/// Not a multiple of any step, and past the first windows' ends.
const EVENTS: u64 = 10_234_567;

fn totals(workload: Workload, shards: usize, events: u64, variant: LimitVariant) -> Totals {
    let config = ThroughputConfig {
        shards,
        events,
        variant,
    };
    Limit.throughput(workload, &config).unwrap().totals
}

/// One shard and, where there are cores for it, two.
fn agree(workload: Workload, events: u64, expected: Totals) {
    for shards in 1..=cores::available().min(2) {
        assert_eq!(
            totals(workload, shards, events, LimitVariant::Plain),
            expected,
            "{workload} on {shards} shards"
        );
    }
}

fn aggregate(window_end: u64, key: u64, values: &[f64]) -> WindowResult {
    WindowResult {
        window_end,
        key,
        count: values.len() as u64,
        sum: values.iter().sum(),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

fn naive_windows(events: u64, size: u64, slide: u64) -> Totals {
    let mut panes: BTreeMap<(u64, u64), Vec<f64>> = BTreeMap::new();
    for id in 0..events {
        let event = events::ev(id, EVENTS_PER_MS);
        let pane = event.ts / slide * slide;
        panes
            .entry((pane, event.key))
            .or_default()
            .push(event.value);
    }
    let mut windows: BTreeMap<(u64, u64), Vec<f64>> = BTreeMap::new();
    for ((pane, key), values) in &panes {
        for n in 0..size / slide {
            let window = windows.entry((pane + slide * (n + 1), *key)).or_default();
            window.extend(values);
        }
    }
    let mut totals = Totals::default();
    for ((end, key), values) in windows {
        totals.add(aggregate(end, key, &values).checksum());
    }
    totals
}

#[test]
fn keyed_window() {
    let expected = naive_windows(EVENTS, 10_000, 10_000);
    agree(Workload::KeyedWindow, EVENTS, expected);
    let prefetch = totals(Workload::KeyedWindow, 1, EVENTS, LimitVariant::Prefetch);
    assert_eq!(prefetch, expected);
}

#[test]
fn sliding_window() {
    let events = 2_345_678;
    agree(
        Workload::SlidingWindow,
        events,
        naive_windows(events, 10_000, 1000),
    );
}

fn naive_sessions(events: impl Iterator<Item = Ev>, gap: u64) -> Vec<SessionResult> {
    let mut by_key: BTreeMap<u64, Vec<(u64, f64)>> = BTreeMap::new();
    for event in events {
        by_key
            .entry(event.key)
            .or_default()
            .push((event.ts, event.value));
    }
    let mut results = Vec::new();
    for (key, mut records) in by_key {
        records.sort_by_key(|(ts, _)| *ts);
        for session in records.chunk_by(|a, b| b.0 - a.0 <= gap) {
            let values: Vec<f64> = session.iter().map(|(_, value)| *value).collect();
            let whole = aggregate(session[session.len() - 1].0 + gap, key, &values);
            results.push(SessionResult {
                start: session[0].0,
                end: whole.window_end,
                key,
                count: whole.count,
                sum: whole.sum,
                max: whole.max,
            });
        }
    }
    results
}

#[test]
fn session_window() {
    // More than a cycle of the keys.
    let count = 4_567_891;
    let events = (0..count).map(|id| events::session_ev(id, EVENTS_PER_MS));
    let results = naive_sessions(events, 200);
    let mut expected = Totals::default();
    let mut short = 0;
    for result in &results {
        expected.add(result.checksum());
        short += usize::from(result.count < 4);
    }
    // What the generator promises: sessions open and close all the time, some of them short.
    let per_second = results.len() as f64 / (count as f64 / 1e6);
    assert!(
        (25_000.0..45_000.0).contains(&per_second),
        "{per_second} sessions a second"
    );
    let short = short as f64 / results.len() as f64;
    assert!(
        (0.05..0.5).contains(&short),
        "{short} of the sessions are short"
    );
    agree(Workload::SessionWindow, count, expected);
}

/// Records up to 900 ms out of order, over few keys, so that sessions are bridged and extended backwards.
#[test]
fn sessions_out_of_order() {
    let gap = 50;
    let make = |id: u64| Ev {
        ts: id / 2 + events::mix(id) % 900,
        key: events::mix(id ^ 7) % 40,
        value: (id % 1000) as f64,
    };
    let mut expected = naive_sessions((0..100_000).map(make), gap);
    let mut sessions = Sessions::new(gap, 1000);
    let mut seen = Vec::new();
    for id in 0..100_000 {
        sessions.update(&make(id));
        if id.is_multiple_of(77) {
            let watermark = id / 2;
            sessions.advance(watermark, |result| {
                assert!(result.end < watermark);
                seen.push(result);
            });
        }
    }
    sessions.advance(u64::MAX, |result| seen.push(result));
    let order = |r: &SessionResult| (r.key, r.start);
    seen.sort_by_key(order);
    expected.sort_by_key(order);
    assert!(expected.len() > 5000, "only {} sessions", expected.len());
    assert_eq!(seen, expected);
}

#[test]
fn ysb() {
    let table: BTreeMap<u64, u64> = events::ad_campaigns().collect();
    let mut counts: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for id in 0..EVENTS {
        let event = events::ad_event(id, EVENTS_PER_MS);
        if event.event_type == 0 {
            let end = event.ts - event.ts % 10_000 + 10_000;
            *counts.entry((end, table[&event.ad])).or_default() += 1;
        }
    }
    let mut expected = Totals::default();
    for ((window_end, key), count) in counts {
        let result = WindowResult {
            window_end,
            key,
            count,
            ..WindowResult::default()
        };
        expected.add(result.checksum());
    }
    agree(Workload::Ysb, EVENTS, expected);
}

#[test]
fn map_filter() {
    let count = 1_234_567;
    let mut expected = Totals::default();
    for id in 0..count {
        let event = events::ev(id, EVENTS_PER_MS);
        let amount = event.value * 0.908;
        if amount >= 128.0 {
            let record = events::Priced {
                ts: event.ts,
                bucket: event.key / 100,
                cents: (amount * 100.0) as u64,
            };
            expected.add(record.checksum());
        }
    }
    agree(Workload::MapFilter, count, expected);
}

/// The sums of a key in the order of its events; on two shards they come in any.
#[test]
fn running_totals() {
    let count = 1_234_567;
    let mut by_key = BTreeMap::<u64, (u64, f64)>::new();
    let mut expected = Totals::default();
    for id in 0..count {
        let event = events::deposit_ev(id, EVENTS_PER_MS);
        let (count, sum) = by_key.entry(event.key).or_default();
        *count += 1;
        *sum += event.value;
        let total = events::RunningTotal {
            key: event.key,
            count: *count,
            sum: *sum,
        };
        expected.add(total.checksum());
    }
    assert!(by_key.len() > 99_000, "{} keys", by_key.len());
    agree(Workload::RunningTotal, count, expected);
    agree(Workload::Process, count, expected);
}

/// Fewer events than a step, than shards, and odd numbers of them.
#[test]
fn few_events() {
    for events in [1, 2, 3, 1001, 100_001] {
        agree(
            Workload::KeyedWindow,
            events,
            naive_windows(events, 10_000, 10_000),
        );
    }
}

#[test]
fn more_shards_than_cores_are_refused() {
    let config = ThroughputConfig {
        shards: cores::available() + 1,
        events: 10,
        variant: LimitVariant::Plain,
    };
    let refused = Limit.throughput(Workload::Ysb, &config);
    assert!(matches!(refused, Err(BenchError::Usage(_))), "{refused:?}");
    let config = LatencyConfig {
        checkpoints: None,
        shards: 1000,
        rate: 1000,
        seconds: 2,
        park: false,
    };
    let refused = Limit.latency(LatencyWorkload::Passthrough, &config);
    assert!(matches!(refused, Err(BenchError::Usage(_))));
}
