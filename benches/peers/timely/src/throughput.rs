//! As many events a second as go through.

use crate::window::{SteppedSessions, window};
use peers_common::campaigns::Campaigns;
use peers_common::events::{
    self, CampaignView, EVENTS_PER_MS, Ev, SESSION_GAP_MS, SLIDE_MS, SessionResult, Totals,
    WATERMARK_STEP_MS, WINDOW_MS, WindowResult,
};
use peers_common::sessions::Sessions;
use peers_common::sliding::Sliding;
use peers_common::tumbling::Tumbling;
use peers_common::{Options, pin, report, route, usage};
use rustc_hash::FxHashMap;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilderSession;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Operator, Probe};
use timely::dataflow::{Scope, StreamVec};

/// Records that a source makes in one activation.
const CHUNK: u64 = 4096;

#[derive(Clone, Copy)]
struct Part {
    shard: u64,
    shards: u64,
    events: u64,
    /// Event time between two steps of the source's capability.
    step: u64,
}

/// The ids `shard, shard + shards, ..`; the capability steps with event time, and the source stays within ten steps
/// (at least 200 ms) of the probe.
fn events_of<'scope, T: Clone + 'static>(
    scope: Scope<'scope, u64>,
    part: Part,
    probe: &ProbeHandle<u64>,
    make: impl Fn(u64) -> T + 'static,
) -> StreamVec<'scope, u64, T> {
    type Output<'a, T> = OutputBuilderSession<'a, u64, CapacityContainerBuilder<Vec<T>>>;
    let probe = probe.clone();
    source(scope, "Events", move |capability, info| {
        let activator = scope.activator_for(info.address);
        let mut capability = Some(capability);
        let mut next = part.shard;
        let ahead = (10 * part.step).max(200);
        move |output: &mut Output<'_, T>| {
            let Some(held) = capability.as_mut() else {
                return;
            };
            let time = *held.time();
            let mut done = false;
            if time <= ahead || !probe.less_than(&(time - ahead)) {
                let end = ((time + part.step) * EVENTS_PER_MS).min(part.events);
                let stop = (next + CHUNK * part.shards).min(end);
                let ids = (next..stop).step_by(part.shards as usize);
                output.session(&held).give_iterator(ids.map(&make));
                if next < stop {
                    next += part.shards * (stop - next).div_ceil(part.shards);
                }
                if next >= end {
                    done = end >= part.events;
                    if !done {
                        held.downgrade(&(time + part.step));
                    }
                }
            }
            activator.activate();
            if done {
                capability = None;
            }
        }
    })
}

fn by<T: ExchangeData>(key: impl Fn(&T) -> u64 + 'static) -> Exchange<T, impl FnMut(&T) -> u64> {
    Exchange::new(move |record: &T| route(key(record)))
}

type Tally = Rc<Cell<Totals>>;

fn sink<'scope, T: Clone + 'static>(
    stream: StreamVec<'scope, u64, T>,
    tally: &Tally,
    probe: &ProbeHandle<u64>,
    checksum: impl Fn(&T) -> u64 + 'static,
) {
    let tally = tally.clone();
    stream
        .unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "Sink", move |_, _| {
            move |input, _output| {
                input.for_each(|_, data| {
                    let mut totals = tally.get();
                    data.iter().for_each(|result| totals.add(checksum(result)));
                    tally.set(totals);
                });
            }
        })
        .probe_with(probe);
}

fn build(
    scope: Scope<'_, u64>,
    workload: &str,
    part: Part,
    tally: &Tally,
    probe: &ProbeHandle<u64>,
) {
    let plain = |id| events::ev(id, EVENTS_PER_MS);
    let key = |event: &Ev| event.key;
    match workload {
        "keyed-window" => {
            let events = events_of(scope, part, probe, plain);
            let windows = window(events, by(key), WINDOW_MS, Tumbling::new(WINDOW_MS));
            sink(windows, tally, probe, WindowResult::checksum);
        }
        "sliding-window" => {
            let events = events_of(scope, part, probe, plain);
            let windows = window(events, by(key), SLIDE_MS, Sliding::new(WINDOW_MS, SLIDE_MS));
            sink(windows, tally, probe, WindowResult::checksum);
        }
        "session-window" => {
            let events = events_of(scope, part, probe, |id| {
                events::session_ev(id, EVENTS_PER_MS)
            });
            let state = SteppedSessions {
                state: Sessions::new(SESSION_GAP_MS, 40 * part.step),
                watermark: 0,
            };
            let windows = window(events, by(key), part.step, state);
            sink(windows, tally, probe, SessionResult::checksum);
        }
        "ysb" => {
            let campaign_of: FxHashMap<u64, u64> = events::ad_campaigns().collect();
            let views = events_of(scope, part, probe, |id| events::ad_event(id, EVENTS_PER_MS))
                .filter(|event| event.event_type == 0)
                .map(|event| (event.ad, event.ts))
                .map(move |(ad, ts)| CampaignView {
                    campaign: campaign_of[&ad],
                    ts,
                });
            let key = |view: &CampaignView| view.campaign;
            let windows = window(views, by(key), WINDOW_MS, Campaigns::new(WINDOW_MS));
            sink(windows, tally, probe, WindowResult::checksum);
        }
        "map-filter" => {
            let priced = events_of(scope, part, probe, plain)
                .map(events::convert)
                .filter(events::is_dear)
                .map(events::price);
            sink(priced, tally, probe, events::Priced::checksum);
        }
        _ => usage("keyed-window, sliding-window, session-window, ysb or map-filter"),
    }
}

pub fn run(options: Options) {
    let totals = Arc::new(Mutex::new(Totals::default()));
    let (sum, workload) = (totals.clone(), options.workload.clone());
    let (events, step) = (options.amount, options.get("step_ms", WATERMARK_STEP_MS));
    let config = match options.shards {
        1 => timely::Config::thread(),
        shards => timely::Config::process(shards),
    };
    let started = Instant::now();
    let guards = timely::execute(config, move |worker| {
        pin(worker.index());
        let part = Part {
            shard: worker.index() as u64,
            shards: worker.peers() as u64,
            events,
            step,
        };
        let tally = Tally::default();
        let probe = ProbeHandle::new();
        worker.dataflow::<u64, _, _>(|scope| build(scope, &workload, part, &tally, &probe));
        while !probe.done() {
            worker.step();
        }
        let mut sum = sum.lock().unwrap();
        *sum = sum.merged(tally.get());
    });
    guards
        .unwrap()
        .join()
        .into_iter()
        .for_each(|worker| worker.unwrap());
    let totals = *totals.lock().unwrap();
    report("timely", &options, started, totals);
}
