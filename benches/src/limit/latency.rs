//! The open loop by hand: one pinned thread, or two and a bare ring.
//!
//! On one core the loop hands each event straight to the sink; on two, one thread makes the events and the other takes
//! them, with nothing between them but a ring.

use super::tumbling::Tumbling;
use crate::cores;
use crate::engine::{BenchError, LatencyConfig, LatencyWorkload};
use crate::events::{self, Ev, LATENCY_WINDOW_MS};
use crate::latency::{
    BenchClock, Collector, GapMeter, LatencyFigures, LatencyRecorder, OpenLoop, Plan, Schedule,
    Scheduled,
};
use rtrb::{PushError, RingBuffer};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that the bare ring holds.
const RING: usize = 1 << 16;

const MS_NS: u64 = 1_000_000;

/// The plan of a latency workload, the same for every engine.
pub fn plan(workload: LatencyWorkload, config: &LatencyConfig) -> Plan {
    Plan {
        seconds: config.seconds,
        warm_up: match workload {
            LatencyWorkload::Passthrough | LatencyWorkload::ExactlyOnce => 1,
            LatencyWorkload::KeyedWindow => 4,
        },
        gaps_disqualify: workload == LatencyWorkload::Passthrough,
    }
}

/// Refuses what the bare loop cannot run.
pub fn check(config: &LatencyConfig) -> Result<(), BenchError> {
    if config.shards > 2 {
        return Err(BenchError::usage(
            "the limit's bare ring joins two threads: --shards 1 or 2",
        ));
    }
    super::check_shards(config.shards)
}

/// Runs the open loop on one shard, or on two threads and a ring.
pub fn run(
    workload: LatencyWorkload,
    config: &LatencyConfig,
) -> Result<LatencyFigures, BenchError> {
    let collector = Collector::new(plan(workload, config));
    let schedule = Schedule::new(config.rate, config.seconds);
    let clock = BenchClock::starting_in(Duration::from_millis(50));
    let source = Source {
        due: OpenLoop::new(schedule, 0, 1),
        clock,
        gaps: collector.gap_meter(),
    };
    let recorder = collector.recorder();
    let two = config.shards == 2;
    match workload {
        LatencyWorkload::ExactlyOnce => {
            return Err(BenchError::usage("exactly-once has no hand-written limit"));
        }
        LatencyWorkload::Passthrough => drive(source, Passthrough { recorder, clock }, two)?,
        LatencyWorkload::KeyedWindow => {
            let state = Tumbling::new(LATENCY_WINDOW_MS);
            let sink = Windows {
                state,
                watermark: 0,
                schedule,
                recorder,
                clock,
            };
            drive(source, sink, two)?;
        }
    }
    collector.finish()
}

/// An event on its way: when it was due, and its random part.
#[derive(Clone, Copy)]
struct Message {
    due_ns: u64,
    random: u64,
}

struct Source {
    due: OpenLoop,
    clock: BenchClock,
    gaps: GapMeter,
}

impl Source {
    /// Hands every event on when it is due, polling the clock.
    fn run(mut self, mut push: impl FnMut(Message)) {
        while !self.due.is_done() {
            let now = self.clock.now_ns();
            self.gaps.turn(now);
            while let Some(Scheduled { id, due_ns }) = self.due.next_due(now) {
                let random = events::mix(id);
                push(Message { due_ns, random });
            }
            std::hint::spin_loop();
        }
    }
}

trait Sink: Send + 'static {
    fn take(&mut self, message: Message);
}

struct Passthrough {
    recorder: LatencyRecorder,
    clock: BenchClock,
}

impl Sink for Passthrough {
    #[inline(always)]
    fn take(&mut self, message: Message) {
        std::hint::black_box((message.random ^ 1).wrapping_mul(3));
        self.recorder.record(message.due_ns, self.clock.now_ns());
    }
}

struct Windows {
    state: Tumbling,
    watermark: u64,
    schedule: Schedule,
    recorder: LatencyRecorder,
    clock: BenchClock,
}

impl Sink for Windows {
    #[inline(always)]
    fn take(&mut self, message: Message) {
        let event = Ev {
            ts: message.due_ns / MS_NS,
            key: events::uniform_key(message.random),
            value: events::small_value(message.random),
        };
        if event.ts > self.watermark {
            self.watermark = event.ts;
            let (recorder, clock, schedule) = (&self.recorder, self.clock, self.schedule);
            self.state.advance(event.ts, |result| {
                std::hint::black_box(result);
                let opener = schedule.first_at(result.window_end * MS_NS);
                recorder.record(schedule.due_ns(opener), clock.now_ns());
            });
        }
        self.state.update(&event);
    }
}

/// The threads are all of their own, so that the caller's stays unpinned; it sleeps meanwhile.
fn drive(source: Source, mut sink: impl Sink, two: bool) -> Result<(), BenchError> {
    if !two {
        let alone = std::thread::spawn(move || {
            cores::pin(0);
            source.run(|message| sink.take(message));
        });
        return joined(alone);
    }
    let (mut send, mut receive) = RingBuffer::<Message>::new(RING);
    let (gaps, clock) = (source.gaps.clone(), source.clock);
    let taker = std::thread::spawn(move || {
        cores::pin(1);
        while !(receive.is_abandoned() && receive.is_empty()) {
            gaps.turn(clock.now_ns());
            for _ in 0..receive.slots() {
                if let Ok(message) = receive.pop() {
                    sink.take(message);
                }
            }
        }
    });
    let maker = std::thread::spawn(move || {
        cores::pin(0);
        source.run(|message| {
            let mut message = message;
            while let Err(PushError::Full(back)) = send.push(message) {
                message = back;
                std::hint::spin_loop();
            }
        });
    });
    joined(maker)?;
    joined(taker)
}

fn joined(thread: JoinHandle<()>) -> Result<(), BenchError> {
    thread
        .join()
        .map_err(|_| BenchError::failed("a thread of the limit panicked"))
}
