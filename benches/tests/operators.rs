//! The workloads of joins, deduplication, top-N, patterns and NEXMark: the hand-written loops against a naive computation that keeps everything,
//! and the engine against the hand-written loops.

use pelton_bench::cores;
use pelton_bench::engine::{self, EngineName, LimitVariant, ThroughputConfig, Workload};
use pelton_bench::events::Totals;
use pelton_bench::nexmark::{self, Event, Expanded, LotOrOffer, Nexmark, SellerOrSale, Sold, Top};
use pelton_bench::operator_events::{self as operators, Pair, Priced, Quote, Rise, Tick};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Limit and engine, on one shard and, where there are cores for it, two.
fn agree(workload: Workload, events: u64, expected: Totals) {
    assert!(expected.results > 0, "{workload} would show nothing");
    let engines = [
        EngineName::Limit,
        #[cfg(feature = "engine")]
        EngineName::Pelton,
    ];
    for shards in 1..=cores::available().min(2) {
        for name in engines {
            let config = ThroughputConfig {
                shards,
                events,
                variant: LimitVariant::Plain,
            };
            let outcome = engine::engine(name).unwrap();
            let outcome = outcome.throughput(workload, &config).unwrap();
            assert_eq!(
                outcome.totals, expected,
                "{name}: {workload} on {shards} shards"
            );
        }
    }
}

fn total(checksums: impl IntoIterator<Item = u64>) -> Totals {
    let mut totals = Totals::default();
    checksums.into_iter().for_each(|sum| totals.add(sum));
    totals
}

fn by_key(events: impl Iterator<Item = Tick>) -> BTreeMap<u64, Vec<Tick>> {
    let mut keys = BTreeMap::<u64, Vec<Tick>>::new();
    events.for_each(|event| keys.entry(event.key).or_default().push(event));
    keys
}

#[test]
fn interval_join() {
    // A minute and a half of event time: what is kept has gone several times over.
    let events = 1_800_000;
    let side = |left| {
        let ids = (0..events).filter(move |id| operators::is_left(*id) == left);
        by_key(ids.map(|id| operators::tick(id, operators::JOIN_PER_MS)))
    };
    let rights = side(false);
    let mut expected = Totals::default();
    for (key, lefts) in side(true) {
        for left in lefts {
            for right in rights.get(&key).into_iter().flatten() {
                if left.at.abs_diff(right.at) <= 10_000_000 {
                    expected.add(Pair::of(&left, right).checksum());
                }
            }
        }
    }
    agree(Workload::IntervalJoin, events, expected);
}

#[test]
fn as_of_join() {
    let events = 400_001;
    let mut prices = BTreeMap::new();
    let mut expected = Totals::default();
    for id in 0..events {
        match operators::quote(id) {
            Quote::Price(new) => drop(prices.insert(new.key, new.value)),
            Quote::Ask(ask) => {
                if let Some(price) = prices.get(&ask.key) {
                    expected.add(Priced::of(&ask, *price).checksum());
                }
            }
        }
    }
    agree(Workload::AsOfJoin, events, expected);
}

#[test]
fn broadcast_join() {
    let events = 300_001;
    let asks = (0..events).filter_map(|id| match operators::rated(id) {
        Quote::Ask(ask) => Some(ask),
        Quote::Price(row) => {
            assert_eq!(row.value, operators::rate_of(row.key));
            None
        }
    });
    let rated = |ask: Tick| Priced::of(&ask, operators::rate_of(ask.key % 1000)).checksum();
    agree(Workload::BroadcastJoin, events, total(asks.map(rated)));
}

#[test]
fn deduplicate() {
    // More than two horizons.
    let events = 900_001;
    let payments = by_key((0..events).map(operators::sent));
    for repetitions in payments.values() {
        let last = repetitions[repetitions.len() - 1].at;
        assert!(last - repetitions[0].at < 1_100_000, "{repetitions:?}");
    }
    let firsts = payments
        .values()
        .map(|sent| operators::sent_checksum(&sent[0]));
    agree(Workload::Deduplicate, events, total(firsts));
}

#[test]
fn top_10() {
    // Fifteen of each key, so that some are driven out.
    let events = 1_500_001;
    let mut keys = by_key((0..events).map(|id| operators::tick(id, operators::PER_MS)));
    let mut expected = Totals::default();
    for events in keys.values_mut() {
        events.sort_by_key(|event| Reverse(operators::score(event)));
        let best = events.iter().take(10);
        best.for_each(|event| expected.add(operators::stands_checksum(event)));
    }
    agree(Workload::Top10, events, expected);
}

#[test]
fn pattern() {
    // More than `within`.
    let events = 3_000_001;
    let mut expected = Totals::default();
    let mut timed_out = 0;
    for events in by_key((0..events).map(|id| operators::tick(id, operators::PER_MS))).values() {
        let mut from = 0;
        for (place, high) in events.iter().enumerate() {
            if !operators::is_high(high) {
                continue;
            }
            // The first low event behind the last match, and the first middle one behind it.
            let found = (from..place).find_map(|low| {
                let middle = (low..place).find(|m| operators::is_middle(&events[*m]))?;
                let whole = operators::is_low(&events[low]).then_some((low, middle))?;
                let in_time = high.at - events[low].at < 2_000_000;
                timed_out += u64::from(!in_time);
                in_time.then_some(whole)
            });
            if let Some((low, middle)) = found {
                expected.add(Rise::of(&events[low], &events[middle], high).checksum());
                from = place + 1;
            }
        }
    }
    assert!(timed_out > 100, "{timed_out} were too late");
    agree(Workload::Pattern, events, expected);
}

fn events(count: u64) -> impl Iterator<Item = (u64, Event)> {
    let generator = Nexmark::default();
    (0..count).map(move |id| (id, generator.event(id)))
}

fn bids(count: u64) -> impl Iterator<Item = nexmark::Offer> {
    let generator = Nexmark::default();
    (0..count).filter_map(move |id| generator.offer(id))
}

/// All pairs of a person and a sale that `meet`.
fn sold(
    count: u64,
    of: fn(Event) -> Option<SellerOrSale>,
    meet: impl Fn(u64, u64) -> bool,
) -> Totals {
    let records: Vec<_> = events(count).filter_map(|(_, event)| of(event)).collect();
    let mut sellers = BTreeMap::new();
    for record in &records {
        if let SellerOrSale::Seller(seller) = record {
            sellers.insert(seller.id, *seller);
        }
    }
    total(records.iter().filter_map(|record| match record {
        SellerOrSale::Sale(sale) => {
            let seller = sellers.get(&sale.seller)?;
            meet(seller.ts, sale.ts).then(|| Sold::of(seller, sale.what).checksum())
        }
        SellerOrSale::Seller(_) => None,
    }))
}

#[test]
fn q3() {
    let count = 700_001;
    agree(
        Workload::NexmarkQ3,
        count,
        sold(count, nexmark::q3, |_, _| true),
    );
}

#[test]
fn q8() {
    // A bit more than a window.
    let count = 10_200_001;
    let expected = sold(count, nexmark::q8, |a, b| a / 10_000 == b / 10_000);
    agree(Workload::NexmarkQ8, count, expected);
}

#[test]
fn q5() {
    let count = 2_600_001;
    let mut counts = BTreeMap::<(u64, u64), u64>::new();
    for bid in bids(count) {
        for n in 0..5 {
            let window_end = (bid.at / 2_000_000 + n + 1) * 2000;
            *counts.entry((window_end, bid.auction)).or_default() += 1;
        }
    }
    let mut best = BTreeMap::new();
    for ((window_end, auction), n) in counts {
        let least = best.entry(window_end).or_insert((n, Reverse(auction)));
        *least = (*least).max((n, Reverse(auction)));
    }
    agree(Workload::NexmarkQ5, count, total(tops(best)));
}

#[test]
fn q7() {
    let count = 10_200_001;
    let mut best = BTreeMap::new();
    for bid in bids(count) {
        let window_end = (bid.at / 10_000_000 + 1) * 10_000;
        let bid = (bid.price, Reverse(bid.auction));
        let highest = best.entry(window_end).or_insert(bid);
        *highest = (*highest).max(bid);
    }
    agree(Workload::NexmarkQ7, count, total(tops(best)));
}

fn tops(best: BTreeMap<u64, (u64, Reverse<u64>)>) -> impl Iterator<Item = u64> {
    best.into_iter().map(|(window_end, (n, Reverse(auction)))| {
        let top = Top {
            window_end,
            auction,
            n,
        };
        top.checksum()
    })
}

#[test]
fn q18() {
    let count = 1_500_001;
    let mut by_pair = BTreeMap::<_, Vec<_>>::new();
    for bid in bids(count) {
        let pair = (bid.bidder, bid.auction);
        by_pair.entry(pair).or_default().push(bid);
    }
    let mut expected = Totals::default();
    for bids in by_pair.values() {
        let mut bids = bids.iter().peekable();
        while let Some(first) = bids.next() {
            let mut last = first;
            while let Some(later) = bids.next_if(|bid| bid.at < first.at + 1_000_000) {
                last = later;
            }
            expected.add(last.checksum());
        }
    }
    agree(Workload::NexmarkQ18, count, expected);
}

#[test]
fn q19() {
    let count = 500_001;
    let mut by_auction = BTreeMap::<u64, BTreeSet<_>>::new();
    for bid in bids(count) {
        let best = by_auction.entry(bid.auction).or_default();
        best.insert((Reverse(bid.price), bid.at, bid.checksum()));
    }
    let best = by_auction.values().flat_map(|bids| bids.iter().take(10));
    agree(
        Workload::NexmarkQ19,
        count,
        total(best.map(|(_, _, sum)| *sum)),
    );
}

/// All bids of all auctions of the category, however far apart.
#[test]
fn q20() {
    let count = 1_500_001;
    let records = || events(count).filter_map(|(id, event)| nexmark::q20(id, event));
    let lots: BTreeMap<_, _> = records()
        .filter_map(|record| match record {
            LotOrOffer::Lot(lot) => Some((lot.id, lot)),
            LotOrOffer::Offer(_) => None,
        })
        .collect();
    let expanded = records().filter_map(|record| match record {
        LotOrOffer::Offer(offer) => {
            let lot = *lots.get(&offer.auction)?;
            Some(Expanded { lot, offer }.checksum())
        }
        LotOrOffer::Lot(_) => None,
    });
    agree(Workload::NexmarkQ20, count, total(expanded));
}
