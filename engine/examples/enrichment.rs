//! Enrichment: orders in many currences get their customer's name and their worth in euros.
//!
//! `cargo run --release -p pelton --example enrichment`
//!
//! The name is what the table of customers says when the order comes: the table is small, on every shard, and updated live. The rate is the
//! one that held at the order's own time, whatever came when, so a replay gives the same worth.

use pelton::sink::Sink;
use pelton::source::Source;
use pelton::{Config, EventTime, Job, Spans, Watermarks, sink, sources};

/// An order.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Order {
    /// Whose.
    pub customer: u64,
    /// In which currency.
    pub currency: String,
    /// How much, in that.
    pub amount: f64,
    /// When.
    pub at: EventTime,
}

/// A row of the table of customers.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Customer {
    /// Its number.
    pub id: u64,
    /// Empty: the customer has gone.
    pub name: String,
}

/// A rate of exchange, from its time until the next.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Rate {
    /// Of which currency.
    pub currency: String,
    /// What one of it is worth.
    pub euros: f64,
    /// From when on.
    pub at: EventTime,
}

/// An order with all that.
#[derive(Clone, Debug, PartialEq)]
pub struct Enriched {
    /// Of the customer; none is known, or no longer.
    pub name: Option<String>,
    /// No rate was known at its time.
    pub euros: Option<f64>,
}

/// The job.
pub fn write(
    job: &Job,
    orders: impl Source<Item = Order>,
    customers: impl Source<Item = Customer>,
    rates: impl Source<Item = Rate>,
    enriched: impl Sink<Enriched>,
) {
    let orders = job
        .source(orders)
        .event_time(|o| o.at, Watermarks::bounded(5.seconds()));
    let rates = job
        .source(rates)
        .event_time(|r| r.at, Watermarks::monotonous());
    let customers = job.source(customers).key_by(|c| c.id);
    orders
        .broadcast_join(customers, |o| o.customer)
        .removes(|c| c.name.is_empty())
        .uid("customers")
        .left_outer(|order, customer| (order.clone(), customer.map(|c| c.name.clone())))
        .key_by_ref(|(order, _)| &order.currency)
        .as_of_join(rates.key_by_ref(|r| &r.currency))
        .uid("rates")
        .left_outer(|(order, name), rate| Enriched {
            name: name.clone(),
            euros: rate.map(|r| order.amount * r.euros),
        })
        .sink(enriched);
}

fn at(second: i64) -> EventTime {
    EventTime::from_seconds(second)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::new("enrichment");
    let order = |id: u64| Order {
        customer: id % 3,
        currency: ["USD", "JPY"][id as usize % 2].into(),
        amount: 10.0 * (id + 1) as f64,
        at: at(id as i64),
    };
    let rate = |id: u64| Rate {
        currency: ["USD", "JPY"][id as usize % 2].into(),
        euros: [0.9, 0.006][id as usize % 2] + id as f64 / 10_000.0,
        at: at(id as i64 - 1),
    };
    let customer = |id: u64| Customer {
        id,
        name: ["Ada", "Grace"][id as usize].into(),
    };
    let show = sink::callback("enriched", |row: Enriched, _| println!("{row:?}"));
    write(
        &job,
        sources::generate("orders", 10, 1, order),
        sources::generate("customers", 2, 1, customer),
        sources::generate("rates", 20, 1, rate),
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
    fn names_are_of_now_and_rates_of_the_orders_time() {
        let (orders, order_source) = testing::feed(1);
        let (customers, customer_source) = testing::feed(1);
        let (rates, rate_source) = testing::feed(1);
        let (rows, sink) = testing::collect();
        let job = Job::new("enrichment");
        write(&job, order_source, customer_source, rate_source, sink);
        let mut stepper = Stepper::new(&job, 2).unwrap();
        let order = |second, amount| {
            let currency = "USD".to_string();
            orders.push(
                0,
                Order {
                    customer: 7,
                    currency,
                    amount,
                    at: at(second),
                },
            );
        };
        let rate = |second, euros| {
            let currency = "USD".to_string();
            rates.push(
                0,
                Rate {
                    currency,
                    euros,
                    at: at(second),
                },
            );
        };
        let name = |name: &str| {
            customers.push(
                0,
                Customer {
                    id: 7,
                    name: name.into(),
                },
            )
        };
        name("Ada");
        stepper.until_idle().unwrap();
        order(10, 100.0);
        stepper.until_idle().unwrap();
        name("Ada L.");
        stepper.until_idle().unwrap();
        order(20, 100.0);
        stepper.until_idle().unwrap();
        name("");
        stepper.until_idle().unwrap();
        order(30, 100.0);
        // The rates come last, and hold all the same.
        rate(15, 0.5);
        rate(20, 0.25);
        drop((orders, rates, customers));
        stepper.run().unwrap();
        let row = |name: Option<&str>, euros| Enriched {
            name: name.map(Into::into),
            euros,
        };
        let mut got = rows.take();
        got.sort_by(|a, b| {
            a.euros
                .partial_cmp(&b.euros)
                .unwrap()
                .then(b.name.cmp(&a.name))
        });
        assert_eq!(
            got,
            [
                row(Some("Ada"), None),
                row(Some("Ada L."), Some(25.0)),
                row(None, Some(25.0))
            ]
        );
    }
}
