//! The workloads as jobs of this workspace's engine: the built-in operators, as a user would write them.

pub mod checkpoints;
mod exactly_once;
pub mod flat;
mod latency;
mod nexmark;
mod operators;
pub mod state;

use crate::alloc_count::HalfwayArm;
use crate::engine::{
    BenchError, Engine, LatencyConfig, LatencyWorkload, Outcome, ThroughputConfig, Workload,
};
use crate::events::{
    CampaignView, EVENTS_PER_MS, RunningTotal, SESSION_GAP_MS, SLIDE_MS, SessionResult, Totals,
    WINDOW_MS, WindowResult, ad_campaigns, ad_event, convert, deposit_ev, ev, is_dear, micros,
    price, session_ev,
};
use crate::latency::LatencyFigures;
use pelton::{
    Config, Driver, EventTime, Job, Keyed, Runtime, Session, Sliding, Span, Spans, Tumbling,
    Waiting, Watermarks, Window, Windowed, process, sink, sources,
};
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// This workspace's engine.
pub struct Pelton;

/// What all shards found, added up when their sinks are dropped.
#[derive(Clone, Default)]
struct Tally {
    mine: Totals,
    all: Arc<Mutex<Totals>>,
}

impl Tally {
    /// A method, so that a closure takes the whole tally in and drops it with its shard.
    fn add(&mut self, checksum: u64) {
        self.mine.add(checksum);
    }
    /// A row comes or goes.
    fn change(&mut self, comes: bool, checksum: u64) {
        if comes {
            self.mine.add(checksum);
        } else {
            self.mine.take_back(checksum);
        }
    }
    fn totals(&self) -> Totals {
        *self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.merged(self.mine);
    }
}

fn window() -> Span {
    (WINDOW_MS as i64).millis()
}

fn at(ts_ms: u64) -> EventTime {
    EventTime::from_micros(micros(ts_ms))
}

fn window_result((count, sum, max): (u64, f64, f64), key: u64, end: EventTime) -> WindowResult {
    WindowResult {
        window_end: end.micros() as u64 / 1000,
        key,
        count,
        sum,
        max,
    }
}

fn session_result((count, sum, max): (u64, f64, f64), window: &Window, key: u64) -> SessionResult {
    SessionResult {
        start: window.start.micros() as u64 / 1000,
        end: window.end.micros() as u64 / 1000,
        key,
        count,
        sum,
        max,
    }
}

/// Count and sum so far.
type Total = (u64, f64);

fn add((count, sum): &mut Total, value: f64) {
    *count += 1;
    *sum += value;
}

fn running_total((count, sum): Total, key: u64) -> RunningTotal {
    RunningTotal { key, count, sum }
}

/// Writes the job of a workload.
fn throughput_job(workload: Workload, config: &ThroughputConfig, tally: &Tally) -> Job {
    let job = Job::new(workload.to_string());
    let arm = HalfwayArm::new(config);
    let mut tally = tally.clone();
    let (events, partitions) = (config.events, config.shards);
    match workload {
        Workload::KeyedWindow => job
            .source(sources::generate("events", events, partitions, move |id| {
                arm.reached(id);
                ev(id, EVENTS_PER_MS)
            }))
            .event_time(|e| at(e.ts), Watermarks::monotonous())
            .key_by(|e| e.key)
            .window(Tumbling::of(window()))
            .aggregate(|a| (a.count(), a.sum(|e| e.value), a.max(|e| e.value)))
            .sink(sink::callback("tally", move |w: Windowed<u64, _>, _| {
                tally.add(window_result(w.value, w.key, w.window.end).checksum());
            })),
        Workload::Ysb => {
            let campaigns: FxHashMap<u64, u64> = ad_campaigns().collect();
            job.source(sources::generate("ads", events, partitions, move |id| {
                arm.reached(id);
                ad_event(id, EVENTS_PER_MS)
            }))
            .event_time(|e| at(e.ts), Watermarks::monotonous())
            .filter(|e| e.event_type == 0)
            .map(move |e| CampaignView {
                campaign: campaigns[&e.ad],
                ts: e.ts,
            })
            .key_by(|v| v.campaign)
            .window(Tumbling::of(window()))
            .aggregate(|a| a.count())
            .sink(sink::callback("tally", move |w: Windowed<u64, u64>, _| {
                tally.add(window_result((w.value, 0.0, 0.0), w.key, w.window.end).checksum());
            }));
        }
        Workload::MapFilter => job
            .source(sources::generate("events", events, partitions, move |id| {
                arm.reached(id);
                ev(id, EVENTS_PER_MS)
            }))
            .map(convert)
            .filter(is_dear)
            .map(price)
            .sink(sink::callback(
                "tally",
                move |p: crate::events::Priced, _| {
                    tally.add(p.checksum());
                },
            )),
        Workload::SessionWindow => job
            .source(sources::generate("events", events, partitions, move |id| {
                arm.reached(id);
                session_ev(id, EVENTS_PER_MS)
            }))
            .event_time(|e| at(e.ts), Watermarks::monotonous())
            .key_by(|e| e.key)
            .window(Session::gap((SESSION_GAP_MS as i64).millis()))
            .aggregate(|a| (a.count(), a.sum(|e| e.value), a.max(|e| e.value)))
            .sink(sink::callback("tally", move |w: Windowed<u64, _>, _| {
                tally.add(session_result(w.value, &w.window, w.key).checksum());
            })),
        Workload::SlidingWindow => job
            .source(sources::generate("events", events, partitions, move |id| {
                arm.reached(id);
                ev(id, EVENTS_PER_MS)
            }))
            .event_time(|e| at(e.ts), Watermarks::monotonous())
            .key_by(|e| e.key)
            .window(Sliding::of(window(), (SLIDE_MS as i64).millis()))
            .aggregate(|a| (a.count(), a.sum(|e| e.value), a.max(|e| e.value)))
            .sink(sink::callback("tally", move |w: Windowed<u64, _>, _| {
                tally.add(window_result(w.value, w.key, w.window.end).checksum());
            })),
        Workload::RunningTotal => job
            .source(sources::generate("events", events, partitions, move |id| {
                arm.reached(id);
                deposit_ev(id, EVENTS_PER_MS)
            }))
            .event_time(|e| at(e.ts), Watermarks::monotonous())
            .key_by(|e| e.key)
            .fold((0, 0.0), |total, e| add(total, e.value))
            .sink(
                sink::callback("tally", move |k: Keyed<u64, Total>, _| {
                    tally.add(running_total(k.value, k.key).checksum());
                })
                .updates(),
            ),
        Workload::Process => job
            .source(sources::generate("events", events, partitions, move |id| {
                arm.reached(id);
                deposit_ev(id, EVENTS_PER_MS)
            }))
            .event_time(|e| at(e.ts), Watermarks::monotonous())
            .key_by(|e| e.key)
            .process("totals", process::value::<Total>("total"))
            .each(|e, total, cx| {
                let total = total.or_default();
                add(total, e.value);
                let (key, value) = (*cx.key(), *total);
                cx.emit(Keyed { key, value });
            })
            .sink(sink::callback("tally", move |k: Keyed<u64, Total>, _| {
                tally.add(running_total(k.value, k.key).checksum());
            })),
        Workload::IntervalJoin => operators::interval_join(&job, config, tally),
        Workload::AsOfJoin => operators::as_of_join(&job, config, tally),
        Workload::BroadcastJoin => operators::broadcast_join(&job, config, tally),
        Workload::Deduplicate => operators::deduplicate(&job, config, tally),
        Workload::Top10 => operators::top(&job, config, tally),
        Workload::Pattern => operators::pattern(&job, config, tally),
        Workload::NexmarkQ3 => nexmark::q3(&job, config, tally),
        Workload::NexmarkQ5 => nexmark::q5(&job, config, tally),
        Workload::NexmarkQ7 => nexmark::q7(&job, config, tally),
        Workload::NexmarkQ8 => nexmark::q8(&job, config, tally),
        Workload::NexmarkQ18 => nexmark::q18(&job, config, tally),
        Workload::NexmarkQ19 => nexmark::q19(&job, config, tally),
        Workload::NexmarkQ20 => nexmark::q20(&job, config, tally),
    }
    job
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::failed(error.to_string())
}

/// A runtime as the harness measures it: one shard a core from the first, always looking unless it is to park.
fn runtime(shards: usize, park: bool) -> Result<Runtime, BenchError> {
    let waiting = if park {
        Waiting::Park { spin_us: 0 }
    } else {
        Waiting::Spin
    };
    let config = Config::default()
        .cores(0..shards)
        .driver(Driver::Threads)
        .waiting(waiting);
    Runtime::start(config).map_err(|e| BenchError::failed(e.to_string()))
}

impl Engine for Pelton {
    fn throughput(
        &self,
        workload: Workload,
        config: &ThroughputConfig,
    ) -> Result<Outcome, BenchError> {
        let runtime = runtime(config.shards, false)?;
        let tally = Tally::default();
        let job = throughput_job(workload, config, &tally);
        let start = Instant::now();
        let handle = runtime
            .submit(&job)
            .map_err(|e| BenchError::failed(e.to_string()))?;
        let report = handle
            .wait()
            .map_err(|e| BenchError::failed(e.to_string()))?;
        let elapsed = start.elapsed();
        if report.counters.records_in != config.events || report.counters.late != 0 {
            return Err(BenchError::failed(format!(
                "records were lost: {:?}",
                report.counters
            )));
        }
        Ok(Outcome::new(config, elapsed, tally.totals()))
    }

    fn latency(
        &self,
        workload: LatencyWorkload,
        config: &LatencyConfig,
    ) -> Result<LatencyFigures, BenchError> {
        latency::run(workload, config)
    }
}
