//! As many events a second as go through.
//!
//! renoir's own windows begin at each key's first event instead of at multiples of their length, so there results and
//! checksums differ from everyone else's; `engine=custom` does the same job as the others.

use crate::custom;
use peers_common::events::{
    self, CampaignView, EVENTS_PER_MS, Ev, SLIDE_MS, WATERMARK_STEP_MS, WINDOW_MS, WindowResult,
};
use peers_common::sliding::Sliding;
use peers_common::tally::Tally;
use peers_common::tumbling::Tumbling;
use peers_common::{Options, report, route, usage};
use renoir::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// A watermark whenever event time enters a further step.
fn stepped(step: u64) -> impl FnMut(u64) -> Option<i64> + Clone + Send + 'static {
    let mut next = step;
    move |ts| {
        (ts >= next).then(|| {
            next = (ts / step + 1) * step;
            ts as i64
        })
    }
}

type Accumulated = (u64, f64, f64);

fn accumulate(acc: &mut Accumulated, event: &Ev) {
    acc.0 += 1;
    acc.1 += event.value;
    acc.2 = acc.2.max(event.value);
}

fn checksum(key: u64, (count, sum, max): Accumulated) -> u64 {
    let result = WindowResult {
        window_end: 0,
        key,
        count,
        sum,
        max,
    };
    result.checksum()
}

pub fn run(options: Options) {
    let n = options.amount;
    let step = options.get("step_ms", WATERMARK_STEP_MS);
    let is_custom = options.get("custom", 0) > 0;
    let batch = BatchMode::fixed(options.get("batch", 16_384).max(1) as usize);
    // Each replica's clone adds to the sum when the replica goes.
    let tally = Tally::default();
    let sum = tally.sum();
    let config = RuntimeConfig::local(options.shards as u64);
    let context = StreamContext::new(config.unwrap_or_else(|e| usage(&e.to_string())));
    let plain = || {
        let mut watermarks = stepped(step);
        context
            .stream_par_iter(move |shard, shards| {
                let ids = (shard..n).step_by(shards as usize);
                ids.map(|id| events::ev(id, EVENTS_PER_MS))
            })
            .batch_mode(batch)
            .add_timestamps(
                |event: &Ev| event.ts as i64,
                move |_, ts| watermarks(*ts as u64),
            )
    };
    let by_key = || plain().repartition_by(Replication::Unlimited, |event: &Ev| route(event.key));
    let start: Accumulated = (0, 0.0, f64::NEG_INFINITY);
    match (options.workload.as_str(), is_custom) {
        ("keyed-window", false) => plain()
            .group_by(|event| event.key)
            .window(EventTimeWindow::tumbling(WINDOW_MS as i64))
            .fold(start, accumulate)
            .for_each(move |(key, acc)| tally.add(checksum(key, acc))),
        ("keyed-window", true) => custom::windows(
            by_key(),
            Tumbling::new(WINDOW_MS),
            |state, event| state.update(event),
            |state, watermark, results: &mut VecDeque<WindowResult>| {
                state.advance(watermark, |result| results.push_back(result));
            },
        )
        .for_each(move |result| tally.add(result.checksum())),
        ("sliding-window", false) => plain()
            .group_by(|event| event.key)
            .window(EventTimeWindow::sliding(WINDOW_MS as i64, SLIDE_MS as i64))
            .fold(start, accumulate)
            .for_each(move |(key, acc)| tally.add(checksum(key, acc))),
        ("sliding-window", true) => custom::windows(
            by_key(),
            Sliding::new(WINDOW_MS, SLIDE_MS),
            |state, event| state.update(event),
            |state, watermark, results: &mut VecDeque<WindowResult>| {
                state.advance(watermark, |result| results.push_back(result));
            },
        )
        .for_each(move |result| tally.add(result.checksum())),
        ("ysb", false) => {
            let campaign_of: HashMap<u64, u64> = events::ad_campaigns().collect();
            let mut watermarks = stepped(step);
            context
                .stream_par_iter(move |shard, shards| {
                    let ids = (shard..n).step_by(shards as usize);
                    ids.map(|id| events::ad_event(id, EVENTS_PER_MS))
                })
                .batch_mode(batch)
                .add_timestamps(
                    |event: &events::AdEvent| event.ts as i64,
                    move |_, ts| watermarks(*ts as u64),
                )
                .filter(|event| event.event_type == 0)
                .map(|event| (event.ad, event.ts))
                .map(move |(ad, ts)| CampaignView {
                    campaign: campaign_of[&ad],
                    ts,
                })
                .group_by(|view| view.campaign)
                .window(EventTimeWindow::tumbling(WINDOW_MS as i64))
                .count()
                .for_each(move |(key, count)| tally.add(checksum(key, (count as u64, 0.0, 0.0))));
        }
        ("map-filter", false) => plain()
            .map(events::convert)
            .filter(events::is_dear)
            .map(events::price)
            .for_each(move |record| tally.add(record.checksum())),
        _ => usage("keyed-window or sliding-window (also with custom=1), ysb, map-filter"),
    }
    let started = Instant::now();
    context.execute_blocking();
    let engine = if is_custom { "renoir-custom" } else { "renoir" };
    report(engine, &options, started, sum.totals());
}
