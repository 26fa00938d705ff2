//! NEXMark's queries by hand.
//!
//! q3, q5, q7 and q8 are those that the figures of other engines are compared with; q18, q19 and q20 are written alike.

use super::jobs::Job;
use super::operators::Best;
use super::operators::order::InOrder;
use super::operators::{ORDERED_DRIFT_MS, ORDERED_STEP_MS};
use super::sliding_counts::Hot;
use crate::events::Totals;
use crate::nexmark::{
    self, BEST, BID_WAITS_MS, Event, Expanded, Lot, LotOrOffer, Nexmark, OPEN_MS, Offer, PER_MS,
    SETTLE_MS, SLIDE_MS, Seller, SellerOrSale, Sold, Top, WINDOW_MS,
};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Persons, and what has come before its person.
#[derive(Default)]
struct Join {
    sellers: FxHashMap<u64, Seller>,
    waiting: FxHashMap<u64, Vec<u64>>,
}

impl Join {
    #[inline(always)]
    fn take(&mut self, record: &SellerOrSale, mut tell: impl FnMut(Sold)) {
        match record {
            SellerOrSale::Seller(seller) => {
                self.sellers.insert(seller.id, *seller);
                for what in self.waiting.remove(&seller.id).into_iter().flatten() {
                    tell(Sold::of(seller, what));
                }
            }
            SellerOrSale::Sale(sale) => match self.sellers.get(&sale.seller) {
                Some(seller) => tell(Sold::of(seller, sale.what)),
                None => self.waiting.entry(sale.seller).or_default().push(sale.what),
            },
        }
    }
}

/// q3: persons of some states and what they sell of one category. All is kept for ever.
#[derive(Default)]
pub struct Q3 {
    generator: Nexmark,
    join: Join,
    totals: Totals,
}

impl Job for Q3 {
    type Record = SellerOrSale;
    const PER_MS: u64 = PER_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<SellerOrSale> {
        nexmark::q3(self.generator.event(id))
    }

    #[inline(always)]
    fn key(record: &SellerOrSale) -> u64 {
        record.key()
    }

    #[inline(always)]
    fn take(&mut self, record: &SellerOrSale) {
        let totals = &mut self.totals;
        self.join.take(record, |sold| totals.add(sold.checksum()));
    }

    fn advance(&mut self, _watermark: u64) {}

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// q8: who came and sold something within one window. A pair is told when it is known, and a window dropped when it is over.
#[derive(Default)]
pub struct Q8 {
    generator: Nexmark,
    windows: VecDeque<(u64, Join)>,
    totals: Totals,
}

impl Job for Q8 {
    type Record = SellerOrSale;
    const PER_MS: u64 = PER_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<SellerOrSale> {
        nexmark::q8(self.generator.event(id))
    }

    #[inline(always)]
    fn key(record: &SellerOrSale) -> u64 {
        record.key()
    }

    #[inline(always)]
    fn take(&mut self, record: &SellerOrSale) {
        let window = record.ts() / WINDOW_MS;
        let place = self.windows.iter().position(|(w, _)| *w == window);
        let place = place.unwrap_or_else(|| {
            self.windows.push_back((window, Join::default()));
            self.windows.len() - 1
        });
        let totals = &mut self.totals;
        let join = &mut self.windows[place].1;
        join.take(record, |sold| totals.add(sold.checksum()));
    }

    fn advance(&mut self, watermark: u64) {
        let is_open = |window: u64| (window + 1) * WINDOW_MS > watermark;
        self.windows.retain(|(window, _)| is_open(*window));
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// By the end of a window: how many shards have told their best, and the best of these.
type Open = BTreeMap<u64, (usize, Option<Top>)>;

/// The best of each window over all shards: who comes last tells it. Windows are few, so a lock costs nothing.
#[derive(Clone)]
struct Whole {
    shards: usize,
    open: Arc<Mutex<Open>>,
}

impl Whole {
    fn of(shards: usize) -> Self {
        Whole {
            shards,
            open: Arc::default(),
        }
    }

    /// A shard's window is over, and this was its best. What all shards' is, if this is the last.
    fn add(&self, window_end: u64, top: Option<Top>) -> Option<Top> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, best) = open.entry(window_end).or_default();
        *told += 1;
        if let Some(top) = top
            && best.is_none_or(|best| top.is_better(&best))
        {
            *best = Some(top);
        }
        if *told < self.shards {
            return None;
        }
        open.remove(&window_end)?.1
    }
}

/// q5: the auction with the most bids of 10 s, every 2 s.
pub struct Q5 {
    generator: Nexmark,
    hot: Hot,
    whole: Whole,
    totals: Totals,
}

impl Q5 {
    /// How to make each shard's.
    pub fn of(shards: usize, events: u64) -> impl Fn() -> Self {
        let whole = Whole::of(shards);
        move || Q5 {
            generator: Nexmark::default(),
            hot: Hot::new(WINDOW_MS, SLIDE_MS, events.saturating_sub(1) / PER_MS),
            whole: whole.clone(),
            totals: Totals::default(),
        }
    }
}

impl Job for Q5 {
    /// Time and auction.
    type Record = (u64, u64);
    const PER_MS: u64 = PER_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<(u64, u64)> {
        match self.generator.event(id) {
            Event::Bid(bid) => Some((bid.ts, bid.auction)),
            _ => None,
        }
    }

    #[inline(always)]
    fn key(record: &(u64, u64)) -> u64 {
        record.1
    }

    #[inline(always)]
    fn take(&mut self, record: &(u64, u64)) {
        self.hot.update(record.0, record.1);
    }

    fn advance(&mut self, watermark: u64) {
        let (whole, totals) = (&self.whole, &mut self.totals);
        self.hot.advance(watermark, |window_end, top| {
            if let Some(top) = whole.add(window_end, top) {
                totals.add(top.checksum());
            }
        });
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// q7: the highest bid of 10 s. Each shard finds that of its own bids, which stay where they are.
pub struct Q7 {
    generator: Nexmark,
    /// By the end of the window.
    open: Vec<Top>,
    /// The next window to be told, and the last there is.
    next: u64,
    last: u64,
    whole: Whole,
    totals: Totals,
}

impl Q7 {
    /// How to make each shard's.
    pub fn of(shards: usize, events: u64) -> impl Fn() -> Self {
        let whole = Whole::of(shards);
        move || Q7 {
            generator: Nexmark::default(),
            open: Vec::new(),
            next: WINDOW_MS,
            last: (events.saturating_sub(1) / PER_MS / WINDOW_MS + 1) * WINDOW_MS,
            whole: whole.clone(),
            totals: Totals::default(),
        }
    }
}

impl Job for Q7 {
    type Record = Top;
    const PER_MS: u64 = PER_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Top> {
        match self.generator.event(id) {
            Event::Bid(bid) => Some(Top {
                window_end: (bid.ts / WINDOW_MS + 1) * WINDOW_MS,
                auction: bid.auction,
                n: bid.price,
            }),
            _ => None,
        }
    }

    #[inline(always)]
    fn key(record: &Top) -> u64 {
        record.auction
    }

    #[inline(always)]
    fn to(_: &Top) -> super::jobs::To {
        super::jobs::To::Here
    }

    #[inline(always)]
    fn take(&mut self, record: &Top) {
        for top in &mut self.open {
            if top.window_end == record.window_end {
                if record.is_better(top) {
                    *top = *record;
                }
                return;
            }
        }
        self.open.push(*record);
    }

    fn advance(&mut self, watermark: u64) {
        while self.next <= watermark.min(self.last) {
            let at = self.open.iter().position(|t| t.window_end == self.next);
            let top = at.map(|at| self.open.swap_remove(at));
            if let Some(top) = self.whole.add(self.next, top) {
                self.totals.add(top.checksum());
            }
            self.next += WINDOW_MS;
        }
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// q18: the last bid of a bidder for an auction, a second after the first.
#[derive(Default)]
pub struct Q18 {
    generator: Nexmark,
    waiting: InOrder<Offer>,
    last: FxHashMap<(u64, u64), Offer>,
    /// When, and of whom. All wait equally long, so what began first ends first.
    ends: VecDeque<(u64, (u64, u64))>,
    totals: Totals,
}

impl Q18 {
    fn end_before(
        last: &mut FxHashMap<(u64, u64), Offer>,
        ends: &mut VecDeque<(u64, (u64, u64))>,
        now: u64,
        totals: &mut Totals,
    ) {
        while let Some(&(end, key)) = ends.front()
            && end <= now
        {
            ends.pop_front();
            if let Some(offer) = last.remove(&key) {
                totals.add(offer.checksum());
            }
        }
    }
}

impl Job for Q18 {
    type Record = Offer;
    const PER_MS: u64 = PER_MS;
    const STEP_MS: u64 = ORDERED_STEP_MS;
    const DRIFT_MS: u64 = ORDERED_DRIFT_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Offer> {
        self.generator.offer(id)
    }

    #[inline(always)]
    fn key(record: &Offer) -> u64 {
        record.bidder ^ (record.auction << 32)
    }

    #[inline(always)]
    fn take(&mut self, record: &Offer) {
        self.waiting.push(record.at, *record);
    }

    fn advance(&mut self, watermark: u64) {
        let watermark = watermark.saturating_mul(1000);
        let (last, ends, totals) = (&mut self.last, &mut self.ends, &mut self.totals);
        self.waiting.pass(watermark, |offer| {
            Self::end_before(last, ends, offer.at, totals);
            let key = (offer.bidder, offer.auction);
            if last.insert(key, offer).is_none() {
                ends.push_back((offer.at + SETTLE_MS * 1000, key));
            }
        });
        Self::end_before(last, ends, watermark, totals);
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// q19: the ten highest bids of each auction. All is kept for ever. New auctions come all the time, so the map that grows is one of numbers.
#[derive(Default)]
pub struct Q19 {
    generator: Nexmark,
    number_of: FxHashMap<u64, u32>,
    best: Vec<Best<Offer, BEST>>,
    totals: Totals,
}

/// The earlier of two equal bids comes first.
#[inline(always)]
fn is_higher(one: &Offer, other: &Offer) -> bool {
    (one.price, Reverse(one.at)) > (other.price, Reverse(other.at))
}

impl Job for Q19 {
    type Record = Offer;
    const PER_MS: u64 = PER_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Offer> {
        self.generator.offer(id)
    }

    #[inline(always)]
    fn key(record: &Offer) -> u64 {
        record.auction
    }

    #[inline(always)]
    fn take(&mut self, offer: &Offer) {
        let next = self.best.len() as u32;
        let number = *self.number_of.entry(offer.auction).or_insert(next);
        if number == next {
            self.best.push(Best::of(*offer));
            self.totals.add(offer.checksum());
            return;
        }
        let (gets_in, driven_out) = self.best[number as usize].add(*offer, is_higher);
        if gets_in {
            self.totals.add(offer.checksum());
        }
        if let Some(driven_out) = driven_out {
            self.totals.take_back(driven_out.checksum());
        }
    }

    fn advance(&mut self, _watermark: u64) {}

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// q20: bids with their auction, if it is of the category. A bid waits for its auction, and an auction stays open, for a while.
#[derive(Default)]
pub struct Q20 {
    generator: Nexmark,
    lots: FxHashMap<u64, Lot>,
    /// Oldest first.
    open: VecDeque<(u64, u64)>,
    /// Bids whose auction has not come, oldest first, each with the number of the one before it for the same auction.
    waiting: VecDeque<(Offer, u64)>,
    /// The number of the first of these; numbers rise from 1.
    first: u64,
    /// The number of an auction's newest.
    newest: FxHashMap<u64, u64>,
    totals: Totals,
}

impl Q20 {
    #[inline(always)]
    fn meets(lot: &Lot, offer: &Offer) -> bool {
        offer.at + BID_WAITS_MS * 1000 >= lot.at && offer.at <= lot.at + OPEN_MS * 1000
    }
}

impl Job for Q20 {
    type Record = LotOrOffer;
    const PER_MS: u64 = PER_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<LotOrOffer> {
        nexmark::q20(id, self.generator.event(id))
    }

    #[inline(always)]
    fn key(record: &LotOrOffer) -> u64 {
        record.key()
    }

    #[inline(always)]
    fn take(&mut self, record: &LotOrOffer) {
        match *record {
            LotOrOffer::Lot(lot) => {
                self.lots.insert(lot.id, lot);
                self.open.push_back((lot.at, lot.id));
                let mut number = self.newest.remove(&lot.id).unwrap_or(0);
                while number > self.first {
                    let (offer, before) = self.waiting[(number - self.first - 1) as usize];
                    if Self::meets(&lot, &offer) {
                        self.totals.add(Expanded { lot, offer }.checksum());
                    }
                    number = before;
                }
            }
            LotOrOffer::Offer(offer) => match self.lots.get(&offer.auction) {
                Some(lot) => {
                    if Self::meets(lot, &offer) {
                        let lot = *lot;
                        self.totals.add(Expanded { lot, offer }.checksum());
                    }
                }
                None => {
                    let number = self.first + self.waiting.len() as u64 + 1;
                    let before = self.newest.insert(offer.auction, number);
                    self.waiting.push_back((offer, before.unwrap_or(0)));
                }
            },
        }
    }

    fn advance(&mut self, watermark: u64) {
        let watermark = watermark.saturating_mul(1000);
        while let Some((offer, _)) = self.waiting.front()
            && offer.at + BID_WAITS_MS * 1000 < watermark
        {
            self.first += 1;
            if self.newest.get(&offer.auction) == Some(&self.first) {
                self.newest.remove(&offer.auction);
            }
            self.waiting.pop_front();
        }
        while let Some(&(at, id)) = self.open.front()
            && at + OPEN_MS * 1000 < watermark
        {
            self.open.pop_front();
            self.lots.remove(&id);
        }
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}
