//! The operator workloads as jobs: each is one built-in operator, as a user would write it.

use super::Tally;
use crate::alloc_count::HalfwayArm;
use crate::engine::ThroughputConfig;
use crate::operator_events::PER_MS;
use crate::operator_events::{
    BEST, HORIZON_MS, JOIN_PER_MS, JOIN_SPAN_MS, Pair, Priced, Quote, Rise, Tick, WITHIN_MS,
    is_high, is_low, is_middle, quote, rate_of, rated, row_of, score, sent, sent_checksum,
    stands_checksum, tick,
};
use pelton::join::Between;
use pelton::pattern::{AfterMatch, Pattern};
use pelton::{Change, EventTime, Job, Pipeline, Span, Spans, Stream, Watermarks, sink, sources};

pub fn time(event: &Tick) -> EventTime {
    EventTime::from_micros(event.at as i64)
}

fn span(ms: u64) -> Span {
    (ms as i64).millis()
}

/// A stream of a workload's own, with event times.
fn ticks(
    job: &Job,
    name: &str,
    count: u64,
    config: &ThroughputConfig,
    make: impl Fn(u64) -> Tick + Clone + Send + 'static,
) -> Stream<impl Pipeline<Item = Tick>> {
    let arm = HalfwayArm::new(&ThroughputConfig {
        events: count,
        ..config.clone()
    });
    job.source(sources::generate(name, count, config.shards, move |id| {
        arm.reached(id);
        make(id)
    }))
    .event_time(time, Watermarks::monotonous())
}

/// One source of two streams: what asks, and what says the price.
fn quotes(
    job: &Job,
    config: &ThroughputConfig,
    make: impl Fn(u64) -> Quote + Clone + Send + 'static,
) -> (
    Stream<impl Pipeline<Item = Tick>>,
    Stream<impl Pipeline<Item = Tick>>,
) {
    let arm = HalfwayArm::new(config);
    let (events, partitions) = (config.events, config.shards);
    job.source(sources::generate("quotes", events, partitions, move |id| {
        arm.reached(id);
        make(id)
    }))
    .event_time(
        |(Quote::Ask(event) | Quote::Price(event))| time(event),
        Watermarks::monotonous(),
    )
    .side_output(|quote| match quote {
        Quote::Ask(ask) => Ok(ask),
        Quote::Price(price) => Err(price),
    })
}

pub fn interval_join(job: &Job, config: &ThroughputConfig, tally: Tally) {
    let mut tally = tally;
    let rights = config.events / 2;
    let left = ticks(job, "left", config.events - rights, config, |n| {
        tick(2 * n, JOIN_PER_MS)
    });
    let right = ticks(job, "right", rights, config, |n| {
        tick(2 * n + 1, JOIN_PER_MS)
    });
    left.key_by(|e| e.key)
        .interval_join(
            right.key_by(|e| e.key),
            Between::of((-(JOIN_SPAN_MS as i64)).millis(), span(JOIN_SPAN_MS)),
        )
        .inner(Pair::of)
        .sink(sink::callback("tally", move |pair: Pair, _| {
            tally.add(pair.checksum());
        }));
}

pub fn as_of_join(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    let (asks, prices) = quotes(job, config, quote);
    asks.key_by(|e| e.key)
        .as_of_join(prices.key_by(|e| e.key))
        .inner(|ask, price| Priced::of(ask, price.value))
        .sink(sink::callback("tally", move |priced: Priced, _| {
            tally.add(priced.checksum());
        }));
}

pub fn broadcast_join(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    let (asks, rows) = quotes(job, config, rated);
    asks.broadcast_join(rows.key_by(|row| row.key), |ask| row_of(ask.key))
        .left_outer(|ask, row| {
            let rate = row.map_or_else(|| rate_of(row_of(ask.key)), |row| row.value);
            Priced::of(ask, rate)
        })
        .sink(sink::callback("tally", move |priced: Priced, _| {
            tally.add(priced.checksum());
        }));
}

pub fn deduplicate(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    ticks(job, "payments", config.events, config, sent)
        .key_by(|e| e.key)
        .deduplicate(span(HORIZON_MS))
        .sink(sink::callback("tally", move |event: Tick, _| {
            tally.add(sent_checksum(&event));
        }));
}

pub fn top(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    ticks(job, "events", config.events, config, |id| tick(id, PER_MS))
        .key_by(|e| e.key)
        .top(BEST, score)
        .sink(
            sink::callback("tally", move |change: Change<Tick>, _| {
                tally.change(change.is_addition(), stands_checksum(&change.row));
            })
            .updates(),
        );
}

/// Three events in order, others between them.
pub fn rise(within: Span) -> Pattern<Tick> {
    Pattern::begin("low")
        .where_(is_low)
        .followed_by("middle")
        .where_(is_middle)
        .followed_by("high")
        .where_(is_high)
        .within(within)
        .skip(AfterMatch::PastLast)
}

pub fn pattern(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    ticks(job, "events", config.events, config, |id| tick(id, PER_MS))
        .key_by(|e| e.key)
        .pattern(rise(span(WITHIN_MS)))
        .select(|m| {
            let mut events = m.events().map(|(_, _, event)| event);
            let mut next = || events.next().copied().unwrap_or_default();
            let (low, middle, high) = (next(), next(), next());
            Rise::of(&low, &middle, &high)
        })
        .sink(sink::callback("tally", move |rise: Rise, _| {
            tally.add(rise.checksum());
        }));
}
