//! NEXMark's queries as jobs in the typed API.

use super::Tally;
use crate::alloc_count::HalfwayArm;
use crate::engine::ThroughputConfig;
use crate::nexmark::{
    self, BEST, BID_WAITS_MS, Bid, Event, Expanded, LotOrOffer, Nexmark, OPEN_MS, Offer, SETTLE_MS,
    SLIDE_MS, Sale, Seller, SellerOrSale, Sold, Top, WINDOW_MS,
};
use pelton::join::Between;
use pelton::process::{list, value};
use pelton::{
    Change, EventTime, Job, Pipeline, Sides, Sliding, Span, Spans, Stream, Tumbling, Watermarks,
    Windowed, sink, sources,
};
use std::cmp::Reverse;

fn span(ms: u64) -> Span {
    (ms as i64).millis()
}

/// How many parts q7's bids are taken in before the best of all is found.
const PARTS: u64 = 64;

/// The generator as a source. `make` is what a query sees of an event.
fn events<T: Send + 'static>(
    job: &Job,
    config: &ThroughputConfig,
    make: impl Fn(u64, Event) -> T + Clone + Send + 'static,
) -> Stream<impl Pipeline<Item = T>> {
    let arm = HalfwayArm::new(config);
    let generator = Nexmark::default();
    let (events, partitions) = (config.events, config.shards);
    // Inlined, as the limit's: an event that is returned in memory is read back in other pieces than it was stored in (a person's small fields
    // lie where others have a large one), which the processor waits for. q7 gains 2 to 4%.
    job.source(sources::generate(
        "nexmark",
        events,
        partitions,
        #[inline(always)]
        move |id| {
            arm.reached(id);
            make(id, generator.event(id))
        },
    ))
}

fn at_ms(ts: u64) -> EventTime {
    EventTime::from_micros((ts * 1000) as i64)
}

fn at(at: u64) -> EventTime {
    EventTime::from_micros(at as i64)
}

fn bids(job: &Job, config: &ThroughputConfig) -> Stream<impl Pipeline<Item = Bid>> {
    events(job, config, |_, event| event)
        .filter_map(|event| match event {
            Event::Bid(bid) => Some(bid),
            _ => None,
        })
        .event_time(|bid| at_ms(bid.ts), Watermarks::monotonous())
}

fn offers(job: &Job, config: &ThroughputConfig) -> Stream<impl Pipeline<Item = Offer>> {
    events(job, config, |id, event| (id, event))
        .filter_map(|(at, event)| match event {
            Event::Bid(bid) => Some(Offer {
                at,
                auction: bid.auction,
                bidder: bid.bidder,
                price: bid.price,
            }),
            _ => None,
        })
        .event_time(|offer| at(offer.at), Watermarks::monotonous())
}

/// Persons and auctions, each as a stream.
fn sellers_and_sales(
    job: &Job,
    config: &ThroughputConfig,
    of: fn(Event) -> Option<SellerOrSale>,
) -> (
    Stream<impl Pipeline<Item = Seller>>,
    Stream<impl Pipeline<Item = Sale>>,
) {
    events(job, config, |_, event| event)
        .filter_map(of)
        .event_time(|record| at_ms(record.ts()), Watermarks::monotonous())
        .side_output(|record| match record {
            SellerOrSale::Seller(seller) => Ok(seller),
            SellerOrSale::Sale(sale) => Err(sale),
        })
}

/// A join of all that came: a process function with a seller and what waits for one.
pub fn q3(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    let (sellers, sales) = sellers_and_sales(job, config, nexmark::q3);
    sellers
        .key_by(|seller| seller.id)
        .connect(sales.key_by(|sale| sale.seller))
        .process("q3", (value::<Seller>("seller"), list::<u64>("waiting")))
        .each(|record, (seller, waiting), cx| match record {
            Sides::Left(new) => {
                seller.set(*new);
                while let Some(what) = waiting.pop_front() {
                    cx.emit(Sold::of(new, what));
                }
            }
            Sides::Right(sale) => match seller.get() {
                Some(seller) => cx.emit(Sold::of(seller, sale.what)),
                None => waiting.push(sale.what),
            },
        })
        .sink(sink::callback("tally", move |sold: Sold, _| {
            tally.add(sold.checksum());
        }));
}

pub fn q5(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    bids(job, config)
        .key_by(|bid| bid.auction)
        .window(Sliding::of(span(WINDOW_MS), span(SLIDE_MS)))
        .aggregate(|a| a.count())
        .key_by(|_| ())
        .window(Tumbling::of(span(SLIDE_MS)))
        .aggregate(|a| a.max(|w: &Windowed<u64, u64>| (w.value, Reverse(w.key))))
        .sink(sink::callback("tally", move |w: Windowed<(), _>, _| {
            tally.top(w.window.end, w.value);
        }));
}

/// The highest of each part on its shard, then of all.
pub fn q7(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    bids(job, config)
        .key_by(|bid| bid.auction % PARTS)
        .window(Tumbling::of(span(WINDOW_MS)))
        .aggregate(|a| a.max(|bid: &Bid| (bid.price, Reverse(bid.auction))))
        .key_by(|_| ())
        .window(Tumbling::of(span(WINDOW_MS)))
        .aggregate(|a| a.max(|w: &Windowed<u64, (u64, Reverse<u64>)>| w.value))
        .sink(sink::callback("tally", move |w: Windowed<(), _>, _| {
            tally.top(w.window.end, w.value);
        }));
}

pub fn q8(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    let (sellers, sales) = sellers_and_sales(job, config, nexmark::q8);
    sellers
        .key_by(|seller| seller.id)
        .window_join(
            sales.key_by(|sale| sale.seller),
            Tumbling::of(span(WINDOW_MS)),
        )
        .inner(|seller, sale| Sold::of(seller, sale.what))
        .sink(sink::callback("tally", move |w: Windowed<u64, Sold>, _| {
            tally.add(w.value.checksum());
        }));
}

pub fn q18(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    offers(job, config)
        .key_by(|offer| (offer.bidder, offer.auction))
        .in_event_time_order()
        .deduplicate_to_last(span(SETTLE_MS))
        .sink(sink::callback("tally", move |offer: Offer, _| {
            tally.add(offer.checksum());
        }));
}

pub fn q19(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    offers(job, config)
        .key_by(|offer| offer.auction)
        .top(BEST, |offer| offer.price)
        .sink(
            sink::callback("tally", move |change: Change<Offer>, _| {
                tally.change(change.is_addition(), change.row.checksum());
            })
            .updates(),
        );
}

pub fn q20(job: &Job, config: &ThroughputConfig, mut tally: Tally) {
    let (lots, offers) = events(job, config, |id, event| (id, event))
        .filter_map(|(id, event)| nexmark::q20(id, event))
        .event_time(|record| at(record.at()), Watermarks::monotonous())
        .side_output(|record| match record {
            LotOrOffer::Lot(lot) => Ok(lot),
            LotOrOffer::Offer(offer) => Err(offer),
        });
    lots.key_by(|lot| lot.id)
        .interval_join(
            offers.key_by(|offer| offer.auction),
            Between::of((-(BID_WAITS_MS as i64)).millis(), span(OPEN_MS)),
        )
        .inner(|lot, offer| Expanded {
            lot: *lot,
            offer: *offer,
        })
        .sink(sink::callback("tally", move |expanded: Expanded, _| {
            tally.add(expanded.checksum());
        }));
}

impl Tally {
    /// The best of a window.
    fn top(&mut self, end: EventTime, best: impl Into<Option<(u64, Reverse<u64>)>>) {
        if let Some((n, Reverse(auction))) = best.into() {
            let window_end = end.micros() as u64 / 1000;
            self.add(
                Top {
                    window_end,
                    auction,
                    n,
                }
                .checksum(),
            );
        }
    }
}
