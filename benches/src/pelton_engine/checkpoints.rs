//! The keyed workloads with checkpoints, as their process runs them.

use super::{Tally, at, failed, window, window_result};
use crate::checkpoint::keyed::{KeyedConfig, KeyedReport, warm_up};
use crate::child::{peak_rss_bytes, shard_seconds, written_bytes};
use crate::engine::BenchError;
use crate::events::{EVENTS_PER_MS, Moving, ev_among};
use crate::report::median;
use pelton::{
    Checkpointing, Checkpoints, Job, JobHandle, Spans, Tumbling, Watermarks, Windowed, sink,
    sources,
};
use std::thread;
use std::time::{Duration, Instant};

/// How often a running job is looked at: seldom enough to cost it nothing, while both cores are busy.
const LOOK: Duration = Duration::from_millis(20);

fn job(config: &KeyedConfig, tally: &Tally) -> Job {
    let job = Job::new("checkpoints");
    if let Some((interval_ms, folder)) = &config.checkpoints {
        job.checkpoints(Checkpointing::in_folder(folder).every((*interval_ms as i64).millis()));
    }
    let mut tally = tally.clone();
    let (events, partitions, keys) = (config.events, config.shards, config.keys);
    match config.dirty_percent {
        None => job
            .source(sources::generate("events", events, partitions, move |id| {
                ev_among(id, EVENTS_PER_MS, keys)
            }))
            .event_time(|e| at(e.ts), Watermarks::monotonous())
            .key_by(|e| e.key)
            .window(Tumbling::of(window()))
            .aggregate(|a| (a.count(), a.sum(|e| e.value), a.max(|e| e.value)))
            .sink(sink::callback("tally", move |w: Windowed<u64, _>, _| {
                tally.add(window_result(w.value, w.key, w.window.end).checksum());
            })),
        Some(percent) => {
            let moving = Moving::new(keys, percent / 100.0);
            let count = move |update: pelton::Keyed<u64, (u64, f64, f64)>, _| {
                // Which sum a count goes with depends on how the shards' records meet.
                let counted = (update.value.0, 0.0, 0.0);
                tally.add(window_result(counted, update.key, at(0)).checksum());
            };
            job.source(sources::generate("events", events, partitions, move |id| {
                moving.ev(id, EVENTS_PER_MS)
            }))
            .key_by(|e| e.key)
            .running(|a| (a.count(), a.sum(|e| e.value), a.max(|e| e.value)))
            .sink(sink::callback("tally", count).updates());
        }
    }
    job
}

/// What is known of a job at a time.
#[derive(Clone)]
struct Look {
    at: Instant,
    events: u64,
    checkpoints: Checkpoints,
    disk_bytes: u64,
    shard_seconds: f64,
}

impl Look {
    fn at(handle: &JobHandle) -> Self {
        Look {
            at: Instant::now(),
            events: handle.counters().records_in,
            checkpoints: handle.checkpoints().unwrap_or_default(),
            disk_bytes: written_bytes(),
            shard_seconds: shard_seconds(),
        }
    }
}

/// Runs a keyed workload to its end.
pub fn keyed(config: &KeyedConfig) -> Result<KeyedReport, BenchError> {
    let runtime = super::runtime(config.shards, false)?;
    let tally = Tally::default();
    let job = job(config, &tally);
    let handle = runtime.submit(&job).map_err(failed)?;
    let mut began = Look::at(&handle);
    let mut ended = began.clone();
    let mut epochs_us = Vec::new();
    // The last look before the end counts: what comes after 95 of a hundred is another's.
    while !handle.is_over() && ended.events < config.events / 100 * 95 {
        thread::sleep(LOOK);
        ended = Look::at(&handle);
        if began.events < warm_up(config) {
            began = ended.clone();
        } else if ended.checkpoints.last != began.checkpoints.last {
            epochs_us.push(ended.checkpoints.last_ns as f64 / 1e3);
        }
    }
    let report = handle.wait().map_err(failed)?;
    if report.counters.records_in != config.events || report.counters.late != 0 {
        let what = format!("records were lost: {:?}", report.counters);
        return Err(BenchError::failed(what));
    }
    if began.at == ended.at {
        return Err(BenchError::usage(
            "the run is too short: give more --events",
        ));
    }
    let totals = tally.totals();
    let (from, to) = (began.checkpoints, ended.checkpoints);
    let epoch_p50_us = median(&mut epochs_us);
    Ok(KeyedReport {
        seconds: (ended.at - began.at).as_secs_f64(),
        shard_seconds: ended.shard_seconds - began.shard_seconds,
        events: ended.events - began.events,
        epochs: to.completed - from.completed,
        entries: to.entries - from.entries,
        log_bytes: to.bytes - from.bytes,
        disk_bytes: ended.disk_bytes - began.disk_bytes,
        epoch_p50_us: if epochs_us.is_empty() {
            0.0
        } else {
            epoch_p50_us
        },
        epoch_max_us: epochs_us.last().copied().unwrap_or(0.0),
        given_up: report.checkpoints.unwrap_or_default().given_up,
        longest_step_us: report.longest_step.us,
        peak_rss_bytes: peak_rss_bytes(),
        results: totals.results,
        checksum: format!("{:016x}", totals.checksum),
    })
}
