//! Orders and their payments: each order is told as paid, or as unpaid when a quarter of an hour has passed without one.
//!
//! `cargo run --release -p pelton --example payments`
//!
//! Two streams meet in a process function: whichever comes first waits for the other in the state of the order's number. In the order of
//! event time, so a replay tells the same.

use pelton::process::value;
use pelton::sink::Sink;
use pelton::source::Source;
use pelton::{Config, EventTime, Job, Sides, Span, Spans, Watermarks, sink, sources};

/// An order.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Order {
    /// Its number.
    pub id: u64,
    /// Cents.
    pub total: u64,
    /// When.
    pub at: EventTime,
}

/// A payment.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Payment {
    /// Of which order.
    pub order: u64,
    /// Cents.
    pub paid: u64,
    /// When.
    pub at: EventTime,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Paid, so many cents too much or too little.
    Paid(u64, i64),
    /// Nobody paid in time.
    Unpaid(u64),
    /// Paid, and nobody knows the order.
    Unknown(u64),
}

/// How long an order waits, and a payment.
pub fn patience() -> Span {
    15.minutes()
}

/// The job.
pub fn write(
    job: &Job,
    orders: impl Source<Item = Order>,
    payments: impl Source<Item = Payment>,
    outcomes: impl Sink<Outcome>,
) {
    let bound = || Watermarks::bounded(10.seconds());
    let orders = job.source(orders).event_time(|o| o.at, bound());
    let payments = job.source(payments).event_time(|p| p.at, bound());
    let states = (value::<Order>("order"), value::<Payment>("payment"));
    orders
        .key_by(|o| o.id)
        .connect(payments.key_by(|p| p.order))
        .in_event_time_order()
        .process("orders and payments", states)
        .on_timer(|_, (order, payment), cx| {
            let id = *cx.key();
            if order.take().is_some() {
                cx.emit(Outcome::Unpaid(id));
            }
            if payment.take().is_some() {
                cx.emit(Outcome::Unknown(id));
            }
        })
        .each(|side, (order, payment), cx| {
            let (total, paid) = match side {
                Sides::Left(new) => (Some(new.total), payment.take().map(|p| p.paid)),
                Sides::Right(new) => (order.take().map(|o| o.total), Some(new.paid)),
            };
            if let (Some(total), Some(paid)) = (total, paid) {
                return cx.emit(Outcome::Paid(*cx.key(), paid as i64 - total as i64));
            }
            match side {
                Sides::Left(new) => order.set(new.clone()),
                Sides::Right(new) => payment.set(new.clone()),
            }
            cx.timer_at(cx.time() + patience());
        })
        .sink(outcomes);
}

fn at(second: i64) -> EventTime {
    EventTime::from_seconds(second)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::new("payments");
    let order = |id: u64| Order {
        id,
        total: 100 * id,
        at: at(id as i64),
    };
    // Every third is missing, every fourth is a cent short.
    let payment = |id: u64| {
        let order = id + id / 2;
        Payment {
            order,
            paid: (100 * order).saturating_sub(u64::from(id % 4 == 3)),
            at: at(order as i64 + 60),
        }
    };
    let show = sink::callback("outcomes", |outcome: Outcome, _| println!("{outcome:?}"));
    let payments = sources::generate("payments", 20, 1, payment);
    write(
        &job,
        sources::generate("orders", 30, 1, order),
        payments,
        show,
    );
    job.run(Config::default().shards(1))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton::testing::{self, Stepper};

    #[test]
    fn paid_unpaid_and_unknown() {
        let (orders, order_source) = testing::feed(1);
        let (payments, payment_source) = testing::feed(1);
        let (outcomes, sink) = testing::collect();
        let job = Job::new("payments");
        write(&job, order_source, payment_source, sink);
        let mut stepper = Stepper::new(&job, 2).unwrap();
        let order = |id, second| {
            orders.push(
                0,
                Order {
                    id,
                    total: 500,
                    at: at(second),
                },
            )
        };
        let pay = |order, paid, second| {
            payments.push(
                0,
                Payment {
                    order,
                    paid,
                    at: at(second),
                },
            )
        };
        pay(1, 500, 5); // before its order
        order(1, 10);
        order(2, 20);
        pay(2, 499, 500);
        order(3, 30);
        pay(4, 100, 600);
        stepper.until_idle().unwrap();
        // An hour later both streams have passed every timer.
        order(9, 4_000);
        pay(9, 500, 4_000);
        stepper.until_idle().unwrap();
        let mut told = outcomes.take();
        told.sort();
        let expected = [
            Outcome::Paid(1, 0),
            Outcome::Paid(2, -1),
            Outcome::Unpaid(3),
            Outcome::Unknown(4),
        ];
        assert_eq!(told, expected);
        drop((orders, payments));
        stepper.run().unwrap();
        assert_eq!(outcomes.take(), [Outcome::Paid(9, 0)]);
    }
}
