//! Open loop. renoir's Source trait cannot be implemented outside of it, so an iterator polls the clock and an
//! operator behind it turns its idle ticks into flushed batches.

use crate::custom;
use peers_common::events::{self, Ev, LATENCY_WINDOW_MS, WindowResult};
use peers_common::tumbling::Tumbling;
use peers_common::{Clock, Latencies, Options, due_ns, opener_due_ns, route, usage};
use renoir::operator::{ElementGenerator, StreamElement};
use renoir::prelude::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Clone)]
enum Tick {
    Event(u64, u64),
    Watermark(u64),
    Idle,
}

struct OpenLoop {
    shards: u64,
    next: u64,
    events: u64,
    rate: u64,
    clock: Clock,
    with_watermarks: bool,
    watermark: u64,
    flushed: bool,
    flushes: bool,
}

impl Iterator for OpenLoop {
    type Item = Tick;

    #[inline]
    fn next(&mut self) -> Option<Tick> {
        while self.next < self.events {
            let now = self.clock.now_ns();
            let due = due_ns(self.next, self.rate);
            let ms = now.min(due) / 1_000_000;
            if self.with_watermarks && ms > self.watermark {
                self.watermark = ms;
                self.flushed = false;
                return Some(Tick::Watermark(ms));
            }
            if due <= now {
                self.flushed = false;
                let event = Tick::Event(due, events::mix(self.next));
                self.next += self.shards;
                return Some(event);
            }
            if self.flushes && !self.flushed {
                self.flushed = true;
                return Some(Tick::Idle);
            }
            std::thread::yield_now();
        }
        None
    }
}

/// One replica's latencies, added to the sum when the replica goes.
struct Seen {
    own: Latencies,
    sum: Arc<Mutex<Latencies>>,
}

impl Seen {
    /// A method, so that a closure captures the whole and not the field, and the drop takes place.
    fn record(&mut self, due_ns: u64, now_ns: u64, from_ns: u64) {
        self.own.record(due_ns, now_ns, from_ns);
    }
}

impl Clone for Seen {
    fn clone(&self) -> Self {
        Seen {
            own: Latencies::default(),
            sum: self.sum.clone(),
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.sum.lock().unwrap().merge(&self.own);
    }
}

pub fn run(options: Options) {
    let (batch, flushes) = match options.get("batching", 0) {
        0 => (BatchMode::fixed(1024), true),
        1 => (BatchMode::single(), false),
        2 => (BatchMode::adaptive(1024, Duration::from_millis(1)), false),
        _ => (BatchMode::default(), false),
    };
    let rate = options.get("rate", 1_000_000);
    let events = rate * options.amount;
    let sum = Arc::new(Mutex::new(Latencies::default()));
    let mut seen = Seen {
        own: Latencies::default(),
        sum: sum.clone(),
    };
    let config = RuntimeConfig::local(options.shards as u64);
    let context = StreamContext::new(config.unwrap_or_else(|e| usage(&e.to_string())));
    let clock = Clock(Instant::now() + Duration::from_millis(50));
    let with_watermarks = options.workload == "keyed-window";
    let records = context
        .stream_par_iter(move |shard, shards| OpenLoop {
            shards,
            next: shard,
            events,
            rate,
            clock,
            with_watermarks,
            watermark: 0,
            flushed: false,
            flushes,
        })
        .batch_mode(batch)
        .rich_map_custom(|mut input: ElementGenerator<_>| match input.next() {
            StreamElement::Item(Tick::Event(due, random)) => {
                StreamElement::Timestamped((due, random), (due / 1_000_000) as i64)
            }
            StreamElement::Item(Tick::Watermark(ms)) => StreamElement::Watermark(ms as i64),
            StreamElement::Item(Tick::Idle) => StreamElement::FlushBatch,
            StreamElement::FlushAndRestart => StreamElement::FlushAndRestart,
            StreamElement::Terminate => StreamElement::Terminate,
            _ => unreachable!("the iterator's elements carry no time"),
        });
    match options.workload.as_str() {
        "passthrough" => records
            .map(|(due, random)| (due, random ^ 1))
            .repartition_by(Replication::Unlimited, |record: &(u64, u64)| {
                route(record.1)
            })
            .map(|(due, random)| (due, random.wrapping_mul(3)))
            .for_each(move |(due, random)| {
                std::hint::black_box(random);
                seen.record(due, clock.now_ns(), 1_000_000_000);
            }),
        "keyed-window" => {
            let keyed = records
                .map(|(due, random)| Ev {
                    ts: due / 1_000_000,
                    key: events::uniform_key(random),
                    value: events::small_value(random),
                })
                .repartition_by(Replication::Unlimited, |event: &Ev| route(event.key));
            let windows = custom::windows(
                keyed,
                Tumbling::new(LATENCY_WINDOW_MS),
                |state, event| state.update(event),
                |state, watermark, results: &mut VecDeque<WindowResult>| {
                    state.advance(watermark, |result| results.push_back(result));
                },
            );
            windows.for_each(move |result| {
                let due = opener_due_ns(result.window_end, rate);
                // The windows that the end of the input closes have no opener.
                if due < due_ns(events, rate) {
                    seen.record(due, clock.now_ns(), 4_000_000_000);
                }
            });
        }
        _ => usage("passthrough or keyed-window"),
    }
    context.execute_blocking();
    sum.lock().unwrap().report("renoir", &options, rate);
}
