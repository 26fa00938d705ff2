//! Open loop: the source emits every event whose scheduled time has come; the workers poll.

use crate::window::{State, window};
use peers_common::events::{self, Ev, LATENCY_WINDOW_MS, WindowResult};
use peers_common::tumbling::Tumbling;
use peers_common::{Clock, Latencies, Options, due_ns, opener_due_ns, pin, route, usage};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::OutputBuilderSession;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Inspect, Operator, Probe};
use timely::dataflow::{Scope, StreamVec};

/// An event's scheduled time and its random part.
type Record = (u64, u64);

#[derive(Clone, Copy)]
struct Load {
    shard: u64,
    shards: u64,
    events: u64,
    rate: u64,
    /// Microseconds between two steps of the capability, whose unit is a microsecond.
    step_us: u64,
}

fn open_loop(scope: Scope<'_, u64>, load: Load, clock: Clock) -> StreamVec<'_, u64, Record> {
    type Output<'a> = OutputBuilderSession<'a, u64, CapacityContainerBuilder<Vec<Record>>>;
    source(scope, "OpenLoop", move |capability, info| {
        let activator = scope.activator_for(info.address);
        let mut capability = Some(capability);
        let mut next = load.shard;
        let due = move |id| due_ns(id, load.rate);
        let step_of = move |ns: u64| ns / 1000 / load.step_us * load.step_us;
        move |output: &mut Output<'_>| {
            let Some(held) = capability.as_mut() else {
                return;
            };
            let now = clock.now_ns();
            while next < load.events && due(next) <= now {
                let time = step_of(due(next));
                if time > *held.time() {
                    held.downgrade(&time);
                }
                let end = ((time + load.step_us) * 1000).min(now + 1);
                let mut session = output.session(&held);
                while next < load.events && due(next) < end {
                    session.give((due(next), events::mix(next)));
                    next += load.shards;
                }
            }
            let time = step_of(now.min(due(next)));
            if time > *held.time() {
                held.downgrade(&time);
            }
            if next >= load.events {
                capability = None;
            }
            activator.activate();
        }
    })
}

/// Tumbling windows in milliseconds under a frontier in microseconds.
struct InMicros(Tumbling);

impl State for InMicros {
    type In = Ev;
    type Out = WindowResult;

    #[inline(always)]
    fn update(&mut self, record: &Ev) {
        self.0.update(record);
    }

    fn advance(&mut self, watermark: u64, emit: impl FnMut(WindowResult)) {
        let end = watermark == u64::MAX;
        self.0
            .advance(if end { watermark } else { watermark / 1000 }, emit);
    }

    fn next_end(&self) -> Option<u64> {
        self.0.next_end().map(|end| end * 1000)
    }
}

fn passthrough(
    stream: StreamVec<'_, u64, Record>,
    clock: Clock,
    seen: Rc<RefCell<Latencies>>,
    probe: &ProbeHandle<u64>,
) {
    stream
        .map(|(due, random)| (due, random ^ 1))
        .unary::<CapacityContainerBuilder<Vec<Record>>, _, _, _>(
            Exchange::new(|record: &Record| route(record.1)),
            "Exchange",
            |_, _| {
                |input, output| {
                    input.for_each(|capability, data| {
                        output.session(&capability).give_container(data);
                    });
                }
            },
        )
        .map(|(due, random)| (due, random.wrapping_mul(3)))
        .inspect(move |record| {
            std::hint::black_box(record.1);
            let now = clock.now_ns();
            seen.borrow_mut().record(record.0, now, 1_000_000_000);
        })
        .probe_with(probe);
}

fn keyed_window(
    stream: StreamVec<'_, u64, Record>,
    clock: Clock,
    load: Load,
    seen: Rc<RefCell<Latencies>>,
    probe: &ProbeHandle<u64>,
) {
    let events = stream.map(|(due, random)| Ev {
        ts: due / 1_000_000,
        key: events::uniform_key(random),
        value: events::small_value(random),
    });
    let by_key = Exchange::new(|event: &Ev| route(event.key));
    let state = InMicros(Tumbling::new(LATENCY_WINDOW_MS));
    window(events, by_key, LATENCY_WINDOW_MS * 1000, state)
        .inspect(move |result| {
            let due = opener_due_ns(result.window_end, load.rate);
            // The windows that the end of the input closes have no opener.
            if due < due_ns(load.events, load.rate) {
                seen.borrow_mut().record(due, clock.now_ns(), 4_000_000_000);
            }
        })
        .probe_with(probe);
}

pub fn run(options: Options) {
    let rate = options.get("rate", 1_000_000);
    let (events, step_us) = (rate * options.amount, options.get("step_us", 1000));
    let all = Arc::new(Mutex::new(Latencies::default()));
    let (sum, workload) = (all.clone(), options.workload.clone());
    let config = match options.shards {
        1 => timely::Config::thread(),
        shards => timely::Config::process(shards),
    };
    let clock = Clock(Instant::now() + Duration::from_millis(50));
    let guards = timely::execute(config, move |worker| {
        pin(worker.index());
        let load = Load {
            shard: worker.index() as u64,
            shards: worker.peers() as u64,
            events,
            rate,
            step_us,
        };
        let probe = ProbeHandle::<u64>::new();
        let seen = Rc::new(RefCell::new(Latencies::default()));
        worker.dataflow::<u64, _, _>(|scope| {
            let stream = open_loop(scope, load, clock);
            match workload.as_str() {
                "passthrough" => passthrough(stream, clock, seen.clone(), &probe),
                "keyed-window" => keyed_window(stream, clock, load, seen.clone(), &probe),
                _ => usage("passthrough or keyed-window"),
            }
        });
        while !probe.done() {
            worker.step();
        }
        sum.lock().unwrap().merge(&seen.borrow());
    });
    guards
        .unwrap()
        .join()
        .into_iter()
        .for_each(|worker| worker.unwrap());
    all.lock().unwrap().report("timely", &options, rate);
}
