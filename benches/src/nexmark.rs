//! NEXMark: its generator and the records of its queries.
//!
//! The definitions are those of the harnesses that the figures are compared with: of fifty events one is a person, three are auctions, and
//! the rest bids; text is reduced to small numbers, and fields that no query looks at are left out. A thousand events are a
//! millisecond of event time. Queries whose answer depends on the order of bids take an [`Offer`], whose time is the id in microseconds.

use crate::events::{GOLDEN, mix};
use std::hint::black_box;
use std::sync::Arc;

/// Events in a millisecond of event time.
pub const PER_MS: u64 = 1000;

/// Length of the windows of q5, q7 and q8.
pub const WINDOW_MS: u64 = 10_000;

/// Slide of those of q5.
pub const SLIDE_MS: u64 = 2000;

/// q18: for how long a bidder's bids for an auction are gathered, from the first on, and the last is told.
pub const SETTLE_MS: u64 = 1000;

/// q19: how many bids of an auction stand.
pub const BEST: usize = 10;

/// q20: how long a bid waits for its auction. The generator names auctions up to ten ahead, which come within a fifth of a millisecond.
pub const BID_WAITS_MS: u64 = 100;

/// q20: for how long an auction takes bids; the generator names the last hundred, which came within two milliseconds.
pub const OPEN_MS: u64 = 1000;

/// The category that q3 and q20 look for: one of five.
pub const CATEGORY: u32 = 10;

/// Somebody who may sell and bid.
#[cfg_attr(feature = "engine", pelton::state(version = 1))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Person {
    /// Rising.
    pub id: u64,
    /// Event time in milliseconds.
    pub ts: u64,
    /// A name, as a number.
    pub name: u32,
    /// A city, as a number.
    pub city: u16,
    /// A state, as a number below 6; 1, 2 and 3 are the ones that q3 looks for.
    pub state: u16,
}

/// Something for sale.
#[cfg_attr(feature = "engine", pelton::state(version = 1))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auction {
    /// Rising.
    pub id: u64,
    /// A person's id.
    pub seller: u64,
    /// Cents.
    pub initial_bid: u64,
    /// Cents.
    pub reserve: u64,
    /// Event time in milliseconds.
    pub ts: u64,
    /// Milliseconds.
    pub expires: u64,
    /// One of five, from 10.
    pub category: u32,
}

/// What somebody would pay.
#[cfg_attr(feature = "engine", pelton::state(version = 1))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bid {
    /// An auction's id.
    pub auction: u64,
    /// A person's id.
    pub bidder: u64,
    /// Cents.
    pub price: u64,
    /// Event time in milliseconds.
    pub ts: u64,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// One of fifty.
    Person(Person),
    /// Three of fifty.
    Auction(Auction),
    /// The others.
    Bid(Bid),
}

impl Event {
    /// Event time in milliseconds.
    #[inline(always)]
    pub fn ts(&self) -> u64 {
        match self {
            Event::Person(person) => person.ts,
            Event::Auction(auction) => auction.ts,
            Event::Bid(bid) => bid.ts,
        }
    }
}

/// The generator. A clone shares its table of prices.
#[derive(Clone, Debug)]
pub struct Nexmark {
    /// 100 to 100,000,000 cents, evenly by their logarithm.
    prices: Arc<[u64; PRICES]>,
}

const PRICES: usize = 4096;

/// Random numbers of one event (xorshift).
struct Draws(u64);

impl Draws {
    #[inline(always)]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    #[inline(always)]
    fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * n) >> 32
    }
}

/// Each fiftieth event is a person, the three behind it are auctions.
const PERIOD: u64 = 50;
const AUCTIONS: u64 = 3;
const FIRST_ID: u64 = 1000;

#[inline(always)]
fn last_person(id: u64) -> u64 {
    id / PERIOD
}

/// The number of the last auction up to this event; -1 where there is none yet.
#[inline(always)]
fn last_auction(id: u64) -> i64 {
    let (period, place) = ((id / PERIOD * AUCTIONS) as i64, (id % PERIOD) as i64);
    period + place.min(AUCTIONS as i64) - 1
}

/// One of the last thousand persons, or of the next ten.
#[inline(always)]
fn some_person(id: u64, draws: &mut Draws) -> u64 {
    let known = last_person(id) + 1;
    let active = known.min(1000);
    known - active + draws.below(active + 10)
}

impl Default for Nexmark {
    fn default() -> Self {
        let price = |n: usize| (10f64.powf(n as f64 / PRICES as f64 * 6.0) * 100.0).round() as u64;
        Nexmark {
            prices: Arc::new(std::array::from_fn(price)),
        }
    }
}

impl Nexmark {
    #[inline(always)]
    fn price(&self, draws: &mut Draws) -> u64 {
        self.prices[(draws.next() >> 52) as usize]
    }

    /// The event of this id. Hidden field by field, as `events::ev` says.
    #[inline(always)]
    pub fn event(&self, id: u64) -> Event {
        let mut draws = Draws(mix(id) | 1);
        let ts = id / PER_MS;
        match id % PERIOD {
            0 => Event::Person(Person {
                id: black_box(last_person(id) + FIRST_ID),
                ts: black_box(ts),
                name: black_box(draws.below(99) as u32),
                city: black_box(draws.below(10) as u16),
                state: black_box(draws.below(6) as u16),
            }),
            1..=AUCTIONS => Event::Auction(self.auction(id, ts, &mut draws)),
            _ => Event::Bid(self.bid(id, ts, &mut draws)),
        }
    }

    #[inline(always)]
    fn auction(&self, id: u64, ts: u64, draws: &mut Draws) -> Auction {
        // Three of four are sold by the person whose turn it is.
        let seller = match draws.below(4) {
            0 => some_person(id, draws),
            _ => last_person(id) / 100 * 100,
        };
        let initial_bid = self.price(draws);
        let reserve = initial_bid + self.price(draws);
        let horizon = (100 * PERIOD / AUCTIONS) / PER_MS;
        Auction {
            id: black_box(last_auction(id) as u64 + FIRST_ID),
            seller: black_box(seller + FIRST_ID),
            initial_bid: black_box(initial_bid),
            reserve: black_box(reserve),
            ts: black_box(ts),
            expires: black_box(ts + 1 + draws.below((horizon * 2).max(1))),
            category: black_box(CATEGORY + draws.below(5) as u32),
        }
    }

    #[inline(always)]
    fn bid(&self, id: u64, ts: u64, draws: &mut Draws) -> Bid {
        let last = last_auction(id) as u64;
        // Every second bid is for the auction whose turn it is, three of four are by the person whose turn it is.
        let auction = match draws.below(2) {
            0 => {
                let oldest = last.saturating_sub(100);
                oldest + draws.below(last - oldest + 1 + 10)
            }
            _ => last / 100 * 100,
        };
        let bidder = match draws.below(4) {
            0 => some_person(id, draws),
            _ => last_person(id) / 100 * 100 + 1,
        };
        Bid {
            auction: black_box(auction + FIRST_ID),
            bidder: black_box(bidder + FIRST_ID),
            price: black_box(self.price(draws)),
            ts: black_box(ts),
        }
    }

    /// The bid of this id, if it is one, with a time of its own.
    #[inline(always)]
    pub fn offer(&self, id: u64) -> Option<Offer> {
        match self.event(id) {
            Event::Bid(bid) => Some(Offer {
                at: id,
                auction: bid.auction,
                bidder: bid.bidder,
                price: bid.price,
            }),
            _ => None,
        }
    }
}

// ---- q3, q8

/// What q3 and q8 keep of a person.
#[cfg_attr(feature = "engine", pelton::state(version = 1))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seller {
    /// The person's id.
    pub id: u64,
    /// Event time in milliseconds.
    pub ts: u64,
    /// The person's name.
    pub name: u32,
    /// The person's city.
    pub city: u16,
    /// The person's state.
    pub state: u16,
}

impl From<Person> for Seller {
    #[inline(always)]
    fn from(person: Person) -> Self {
        Seller {
            id: person.id,
            ts: person.ts,
            name: person.name,
            city: person.city,
            state: person.state,
        }
    }
}

/// What q3 and q8 keep of an auction.
#[cfg_attr(feature = "engine", pelton::state(version = 1))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sale {
    /// A person's id.
    pub seller: u64,
    /// Event time in milliseconds.
    pub ts: u64,
    /// q3: the auction's id. q8: its reserve.
    pub what: u64,
}

/// A record of either side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SellerOrSale {
    /// A person.
    Seller(Seller),
    /// An auction.
    Sale(Sale),
}

impl SellerOrSale {
    /// The person's id.
    #[inline(always)]
    pub fn key(&self) -> u64 {
        match self {
            SellerOrSale::Seller(seller) => seller.id,
            SellerOrSale::Sale(sale) => sale.seller,
        }
    }

    /// Event time in milliseconds.
    #[inline(always)]
    pub fn ts(&self) -> u64 {
        match self {
            SellerOrSale::Seller(seller) => seller.ts,
            SellerOrSale::Sale(sale) => sale.ts,
        }
    }
}

/// q3's filter: persons of three states of six, auctions of one category of five.
#[inline(always)]
pub fn q3(event: Event) -> Option<SellerOrSale> {
    match event {
        Event::Person(person) if (1..=3).contains(&person.state) => {
            Some(SellerOrSale::Seller(person.into()))
        }
        Event::Auction(auction) if auction.category == CATEGORY => Some(SellerOrSale::Sale(Sale {
            seller: auction.seller,
            ts: auction.ts,
            what: auction.id,
        })),
        _ => None,
    }
}

/// q8's records: all persons and auctions.
#[inline(always)]
pub fn q8(event: Event) -> Option<SellerOrSale> {
    match event {
        Event::Person(person) => Some(SellerOrSale::Seller(person.into())),
        Event::Auction(auction) => Some(SellerOrSale::Sale(Sale {
            seller: auction.seller,
            ts: auction.ts,
            what: auction.reserve,
        })),
        Event::Bid(_) => None,
    }
}

/// A result of q3 or q8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sold {
    /// The person's id.
    pub person: u64,
    /// [`Sale::what`].
    pub what: u64,
    /// The person's name.
    pub name: u32,
    /// The person's city.
    pub city: u16,
    /// The person's state.
    pub state: u16,
}

impl Sold {
    /// By a person.
    #[inline(always)]
    pub fn of(seller: &Seller, what: u64) -> Self {
        Sold {
            person: seller.id,
            what,
            name: seller.name,
            city: seller.city,
            state: seller.state,
        }
    }

    /// The result's share of the checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        self.person.wrapping_mul(GOLDEN)
            ^ self.what.wrapping_mul(0x51ED)
            ^ (u64::from(self.name) << 40)
            ^ (u64::from(self.city) << 20)
            ^ u64::from(self.state)
    }
}

// ---- q5, q7

/// The best of a window: q5's auction with the most bids, q7's highest bid. Ties go to the lower auction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// Exclusive end of the window in milliseconds.
    pub window_end: u64,
    /// The auction's id.
    pub auction: u64,
    /// q5: how many bids. q7: the price.
    pub n: u64,
}

impl Top {
    /// Whether it comes before another of the same window.
    #[inline(always)]
    pub fn is_better(&self, other: &Top) -> bool {
        (self.n, other.auction) > (other.n, self.auction)
    }

    /// The result's share of the checksum.
    pub fn checksum(&self) -> u64 {
        mix(self.window_end ^ (self.auction << 20) ^ (self.n << 40))
    }
}

// ---- q18, q19, q20

/// A bid with a time of its own.
#[cfg_attr(feature = "engine", pelton::state(version = 1))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Event time in microseconds: the event's id.
    pub at: u64,
    /// An auction's id.
    pub auction: u64,
    /// A person's id.
    pub bidder: u64,
    /// Cents.
    pub price: u64,
}

impl Offer {
    /// The bid's share of the checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        (self.auction ^ (self.at << 20))
            .wrapping_mul(GOLDEN)
            .wrapping_add(self.bidder.wrapping_mul(0x51ED))
            .wrapping_add(self.price.wrapping_mul(31))
    }
}

/// q20's side of auctions, with a time of its own.
#[cfg_attr(feature = "engine", pelton::state(version = 1))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lot {
    /// Event time in microseconds: the event's id.
    pub at: u64,
    /// The auction's id.
    pub id: u64,
    /// A person's id.
    pub seller: u64,
    /// Cents.
    pub initial_bid: u64,
    /// Cents.
    pub reserve: u64,
}

/// A record of q20.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LotOrOffer {
    /// An auction of the category.
    Lot(Lot),
    /// A bid.
    Offer(Offer),
}

impl LotOrOffer {
    /// The auction's id.
    #[inline(always)]
    pub fn key(&self) -> u64 {
        match self {
            LotOrOffer::Lot(lot) => lot.id,
            LotOrOffer::Offer(offer) => offer.auction,
        }
    }

    /// Event time in microseconds.
    #[inline(always)]
    pub fn at(&self) -> u64 {
        match self {
            LotOrOffer::Lot(lot) => lot.at,
            LotOrOffer::Offer(offer) => offer.at,
        }
    }
}

/// q20's filter: bids, and auctions of the category.
#[inline(always)]
pub fn q20(id: u64, event: Event) -> Option<LotOrOffer> {
    match event {
        Event::Auction(auction) if auction.category == CATEGORY => Some(LotOrOffer::Lot(Lot {
            at: id,
            id: auction.id,
            seller: auction.seller,
            initial_bid: auction.initial_bid,
            reserve: auction.reserve,
        })),
        Event::Bid(bid) => Some(LotOrOffer::Offer(Offer {
            at: id,
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
        })),
        _ => None,
    }
}

/// A result of q20: a bid with its auction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// The auction.
    pub lot: Lot,
    /// The bid.
    pub offer: Offer,
}

impl Expanded {
    /// The result's share of the checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        self.offer
            .checksum()
            .wrapping_add(self.lot.seller.wrapping_mul(7919))
            .wrapping_add(self.lot.initial_bid.wrapping_mul(0x1234_5677))
            .wrapping_add(self.lot.reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What q20 relies on, and the shares of the three kinds.
    #[test]
    fn bids_name_auctions_that_are_near() {
        let generator = Nexmark::default();
        let mut born = std::collections::BTreeMap::new();
        let mut bids = vec![];
        for id in 0..200_000 {
            match generator.event(id) {
                Event::Auction(auction) => assert_eq!(born.insert(auction.id, id), None),
                Event::Bid(bid) => bids.push((id, bid.auction)),
                Event::Person(person) => assert_eq!(person.id, id / 50 + 1000),
            }
        }
        assert_eq!((born.len(), bids.len()), (12_000, 184_000));
        let far = (-(BID_WAITS_MS as i64) * 1000, OPEN_MS as i64 * 1000);
        for (id, auction) in bids {
            if let Some(born) = born.get(&auction) {
                let apart = id as i64 - *born as i64;
                assert!(apart > far.0 && apart < far.1, "{apart} us");
            }
        }
    }
}
