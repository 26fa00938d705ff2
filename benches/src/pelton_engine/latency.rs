//! The open loop as jobs of this workspace's engine.
//!
//! Each shard makes its share of the events when they are due, in a source like any other; the record carries its
//! scheduled time, and the sink compares it with the clock.

use super::exactly_once::TwoPhases;
use crate::engine::{BenchError, LatencyConfig, LatencyWorkload};
use crate::events::{LATENCY_WINDOW_MS, mix, small_value, uniform_key};
use crate::latency::{
    BenchClock, Collector, GapMeter, LatencyFigures, OpenLoop, Schedule, Scheduled,
};
use crate::limit;
use pelton::port::Ports;
use pelton::source::{Emit, Position, Read, ReadError, Reader, Source};
use pelton::{Checkpointing, EventTime, Job, Spans, Tumbling, Watermarks, Windowed, sink};
use std::time::Duration;

/// An event on its way: when it was due, and its random part.
#[derive(Clone, Copy)]
struct Message {
    due_ns: u64,
    random: u64,
}

/// A partition a shard, each with every n-th event of the schedule.
struct OpenSource {
    schedule: Schedule,
    partitions: usize,
    clock: BenchClock,
    gaps: GapMeter,
}

struct OpenReader {
    due: OpenLoop,
    clock: BenchClock,
    gaps: GapMeter,
    partitions: usize,
    number: usize,
}

impl Source for OpenSource {
    type Item = Message;
    type Reader = OpenReader;
    fn name(&self) -> String {
        "open loop".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<OpenReader>, String> {
        let partitions = self.partitions;
        let reader = |number| OpenReader {
            due: OpenLoop::new(self.schedule, number as u64, partitions as u64),
            clock: self.clock,
            gaps: self.gaps.clone(),
            partitions,
            number,
        };
        Ok((0..partitions).map(reader).collect())
    }
}

impl Reader for OpenReader {
    type Item = Message;
    fn name(&self) -> String {
        self.number.to_string()
    }
    fn offset_step(&self) -> Option<u64> {
        Some(self.partitions as u64)
    }
    fn position(&self) -> Option<Position> {
        Some(Position::at(self.due.next_id()))
    }
    fn read<E: Emit<Message>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let now = self.clock.now_ns();
        self.gaps.turn(now);
        for _ in 0..max {
            let Some(Scheduled { id, due_ns }) = self.due.next_due(now) else {
                if self.due.is_done() {
                    return Ok(Read::End);
                }
                let wait = self.due.peek_due_ns().saturating_sub(now);
                return Ok(Read::Pending {
                    until_ns: Some(out.now_ns() + wait),
                });
            };
            out.emit(
                id,
                Message {
                    due_ns,
                    random: mix(id),
                },
            );
        }
        Ok(Read::More)
    }
}

/// Runs a latency workload.
pub fn run(
    workload: LatencyWorkload,
    config: &LatencyConfig,
) -> Result<LatencyFigures, BenchError> {
    let runtime = super::runtime(config.shards, config.park)?;
    let collector = Collector::new(limit::latency::plan(workload, config));
    let schedule = Schedule::new(config.rate, config.seconds);
    let clock = BenchClock::starting_in(Duration::from_millis(50));
    let job = Job::new(workload.to_string());
    if let Some((interval_ms, folder)) = &config.checkpoints {
        job.checkpoints(Checkpointing::in_folder(folder).every((*interval_ms as i64).millis()));
    }
    let source = OpenSource {
        schedule,
        partitions: config.shards,
        clock,
        gaps: collector.gap_meter(),
    };
    let recorder = collector.recorder();
    match workload {
        LatencyWorkload::Passthrough => job
            .source(source)
            .map(|m: Message| Message {
                random: m.random ^ 1,
                ..m
            })
            .key_by(|m| m.random)
            .exchange()
            .map(|m| Message {
                random: m.random.wrapping_mul(3),
                ..m
            })
            .sink(sink::callback("latency", move |m: Message, _| {
                std::hint::black_box(m.random);
                recorder.record(m.due_ns, clock.now_ns());
            })),
        LatencyWorkload::ExactlyOnce => job
            .source(source)
            .map(|m: Message| Message {
                random: m.random ^ 1,
                ..m
            })
            .key_by(|m| m.random)
            .exchange()
            .map(|m| {
                std::hint::black_box(m.random.wrapping_mul(3));
                m.due_ns
            })
            .sink(TwoPhases::new(recorder, clock)),
        LatencyWorkload::KeyedWindow => job
            .source(source)
            .event_time(
                |m| EventTime::from_micros((m.due_ns / 1_000_000 * 1_000) as i64),
                Watermarks::monotonous(),
            )
            .key_by(|m| uniform_key(m.random))
            .window(Tumbling::of((LATENCY_WINDOW_MS as i64).millis()))
            .aggregate(|a| {
                let value = |m: &Message| small_value(m.random);
                (a.count(), a.sum(value), a.max(value))
            })
            .sink(sink::callback("latency", move |w: Windowed<u64, _>, _| {
                let opener = schedule.first_at(w.window.end.micros() as u64 * 1_000);
                std::hint::black_box(w);
                if opener < schedule.events() {
                    recorder.record(schedule.due_ns(opener), clock.now_ns());
                }
            })),
    }
    let failed = |e: pelton::JobError| BenchError::failed(e.to_string());
    runtime
        .submit(&job)
        .map_err(failed)?
        .wait()
        .map_err(failed)?;
    drop(runtime);
    drop(job);
    collector.finish()
}
