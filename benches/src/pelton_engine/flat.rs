//! A day of event time through one operator, and what its process and its states weigh meanwhile.

use super::operators::{rise, time};
use super::{Tally, failed, runtime};
use crate::child::resident_bytes;
use crate::engine::BenchError;
use crate::flat_memory::{
    FlatConfig, FlatOperator, FlatReport, KEPT_MS, Sample, StateSeen, event, hours,
};
use crate::operator_events::{Pair, Rise, Tick, is_left, sent_checksum};
use pelton::join::Between;
use pelton::{
    Job, JobHandle, Pipeline, Span, Spans, Stream, Tumbling, Watermarks, Windowed, sink, sources,
};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(2);

fn kept() -> Span {
    (KEPT_MS as i64).millis()
}

fn day(job: &Job, config: &FlatConfig) -> Stream<impl Pipeline<Item = Tick>> {
    let events = config.events;
    job.source(sources::generate("day", events, config.shards, move |id| {
        event(id, events)
    }))
    .event_time(time, Watermarks::monotonous())
}

/// The day as two streams.
fn sides(
    job: &Job,
    config: &FlatConfig,
) -> (
    Stream<impl Pipeline<Item = Tick>>,
    Stream<impl Pipeline<Item = Tick>>,
) {
    let events = config.events;
    job.source(sources::generate("day", events, config.shards, move |id| {
        (is_left(id), event(id, events))
    }))
    .event_time(|(_, e)| time(e), Watermarks::monotonous())
    .side_output(|(is_left, event)| if is_left { Ok(event) } else { Err(event) })
}

fn job(config: &FlatConfig, tally: &Tally) -> Job {
    let job = Job::new(config.operator.to_string());
    let mut tally = tally.clone();
    match config.operator {
        FlatOperator::IntervalJoin => {
            let (left, right) = sides(&job, config);
            let between = Between::of((-(KEPT_MS as i64)).millis(), kept());
            left.key_by(|e| e.key)
                .interval_join(right.key_by(|e| e.key), between)
                .inner(Pair::of)
                .sink(sink::callback("tally", move |pair: Pair, _| {
                    tally.add(pair.checksum());
                }));
        }
        FlatOperator::WindowJoin => {
            let (left, right) = sides(&job, config);
            left.key_by(|e| e.key)
                .window_join(right.key_by(|e| e.key), Tumbling::of(kept()))
                .inner(Pair::of)
                .sink(sink::callback("tally", move |w: Windowed<u64, Pair>, _| {
                    tally.add(w.value.checksum());
                }));
        }
        FlatOperator::Deduplicate => day(&job, config)
            .key_by(|e| e.key)
            .deduplicate(kept())
            .sink(sink::callback("tally", move |event: Tick, _| {
                tally.add(sent_checksum(&event));
            })),
        FlatOperator::Pattern => day(&job, config)
            .key_by(|e| e.key)
            .pattern(rise(kept()))
            .select(|m| {
                let events: Vec<&Tick> = m.events().map(|(_, _, event)| event).collect();
                Rise::of(events[0], events[1], events[2])
            })
            .sink(sink::callback("tally", move |rise: Rise, _| {
                tally.add(rise.checksum());
            })),
    }
    job
}

/// What has been seen.
#[derive(Default)]
struct Seen {
    samples: BTreeMap<usize, Sample>,
    states: BTreeMap<(String, &'static str), (u64, u64)>,
}

impl Seen {
    fn look(&mut self, handle: &JobHandle, config: &FlatConfig) {
        let read = u128::from(handle.counters().records_in);
        let part = (read * config.samples as u128 / u128::from(config.events)) as usize;
        let part = part.min(config.samples - 1);
        let sizes = handle.state_sizes();
        let sample = self.samples.entry(part).or_default();
        sample.hours = hours(part, config.samples);
        sample.resident_bytes = sample.resident_bytes.max(resident_bytes());
        let entries = sizes.iter().map(|size| size.entries).sum();
        let bytes = sizes.iter().map(|size| size.bytes).sum();
        sample.state_entries = sample.state_entries.max(entries);
        sample.state_bytes = sample.state_bytes.max(bytes);
        for size in sizes {
            let most = self.states.entry((size.operator, size.state)).or_default();
            *most = (*most).max((size.entries, size.bytes));
        }
    }
}

/// In this process.
pub fn run(config: &FlatConfig) -> Result<FlatReport, BenchError> {
    let runtime = runtime(config.shards, false)?;
    let tally = Tally::default();
    let job = job(config, &tally);
    let started = Instant::now();
    let handle = runtime.submit(&job).map_err(failed)?;
    let mut seen = Seen::default();
    while !handle.is_over() {
        seen.look(&handle, config);
        thread::sleep(LOOK);
    }
    let report = handle.wait().map_err(failed)?;
    if report.counters.records_in != config.events || report.counters.late != 0 {
        return Err(failed(format!("records were lost: {:?}", report.counters)));
    }
    let states = seen.states.into_iter();
    let states = states.map(|((operator, state), (entries, bytes))| StateSeen {
        operator,
        state: state.to_owned(),
        entries,
        bytes,
        bytes_per_entry: bytes as f64 / entries.max(1) as f64,
    });
    Ok(FlatReport {
        results: tally.totals().results,
        seconds: started.elapsed().as_secs_f64(),
        states: states.collect(),
        samples: seen.samples.into_values().collect(),
    })
}
