//! Live positions and what they earn: trades and prices of each instrument meet, and each of both gives the new profit or loss.
//!
//! `cargo run --release -p pelton --example positions`

use pelton::process::value;
use pelton::sink::Sink;
use pelton::source::Source;
use pelton::{Config, EventTime, Job, Sides, Spans, Watermarks, sink, sources};

/// Bought (positive) or sold.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Trade {
    /// What.
    pub instrument: u32,
    /// How many.
    pub quantity: i64,
    /// For how much each, cents.
    pub price: i64,
    /// When.
    pub at: EventTime,
}

/// What the market says.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Price {
    /// Of what.
    pub instrument: u32,
    /// Cents.
    pub price: i64,
    /// When.
    pub at: EventTime,
}

/// What is held of an instrument.
#[pelton::state(version = 1)]
#[derive(Clone, Debug, Default)]
pub struct Position {
    quantity: i64,
    /// Got for what was sold, less what was paid, cents.
    cash: i64,
    /// The last that was seen, cents.
    price: Option<i64>,
}

/// What a position is worth now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profit {
    /// Of what.
    pub instrument: u32,
    /// How many are held.
    pub quantity: i64,
    /// Were all sold now, cents.
    pub profit: i64,
}

/// The job: in the order of event time, so each profit is the same in every run.
pub fn write(
    job: &Job,
    trades: impl Source<Item = Trade>,
    prices: impl Source<Item = Price>,
    profits: impl Sink<Profit>,
) {
    let bound = || Watermarks::bounded(100.millis());
    let trades = job.source(trades).event_time(|t| t.at, bound());
    let prices = job.source(prices).event_time(|p| p.at, bound());
    trades
        .key_by(|t| t.instrument)
        .connect(prices.key_by(|p| p.instrument))
        .in_event_time_order()
        .process("positions", value::<Position>("position"))
        .each(|side, position, cx| {
            let instrument = *cx.key();
            let held = position.or_default();
            match side {
                Sides::Left(trade) => {
                    held.quantity += trade.quantity;
                    held.cash -= trade.quantity * trade.price;
                }
                Sides::Right(price) => held.price = Some(price.price),
            }
            if let Some(price) = held.price {
                cx.emit(Profit {
                    instrument,
                    quantity: held.quantity,
                    profit: held.cash + held.quantity * price,
                });
            }
        })
        .sink(profits);
}

fn at(millis: i64) -> EventTime {
    EventTime::from_micros(millis * 1_000)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::new("positions");
    let trade = |id: u64| Trade {
        instrument: (id % 2) as u32,
        quantity: if id.is_multiple_of(3) { -5 } else { 10 },
        price: 1_000 + id as i64,
        at: at(id as i64 * 500),
    };
    let price = |id: u64| Price {
        instrument: (id % 2) as u32,
        price: 1_000 + (id as i64 * 7) % 40 - 20,
        at: at(id as i64 * 100),
    };
    let show = sink::callback("profits", |profit: Profit, _| println!("{profit:?}"));
    let prices = sources::generate("prices", 30, 1, price);
    write(&job, sources::generate("trades", 6, 1, trade), prices, show);
    job.run(Config::default().shards(1))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton::testing::{self, Stepper};

    #[test]
    fn each_trade_and_price_tells_the_profit() {
        let (trades, trade_source) = testing::feed(1);
        let (prices, price_source) = testing::feed(1);
        let (profits, sink) = testing::collect();
        let job = Job::new("positions");
        write(&job, trade_source, price_source, sink);
        let trade = |quantity, price, millis| {
            trades.push(
                0,
                Trade {
                    instrument: 1,
                    quantity,
                    price,
                    at: at(millis),
                },
            );
        };
        let price = |price, millis| {
            prices.push(
                0,
                Price {
                    instrument: 1,
                    price,
                    at: at(millis),
                },
            )
        };
        trade(10, 100, 1); // before any price
        price(110, 2);
        trade(-4, 120, 3);
        price(90, 5);
        price(105, 4); // out of order
        drop((trades, prices));
        Stepper::new(&job, 2).unwrap().run().unwrap();
        let told: Vec<_> = profits
            .take()
            .iter()
            .map(|p| (p.quantity, p.profit))
            .collect();
        // 10 for 100 each; at 110; 4 sold for 120; at 105; at 90.
        assert_eq!(
            told,
            [(10, 100), (6, -520 + 660), (6, -520 + 630), (6, -520 + 540)]
        );
    }
}
