//! Fraud: a card that is charged more than three times within a minute, and not in one country alone.
//!
//! `cargo run --release -p pelton --example fraud`
//!
//! A pattern in the order of event time: a first charge, then three more of any kind, of which one at least is of another country than the
//! first. What a match has taken is not looked at again, so a spell of fraud is told once for each four charges.

use pelton::pattern::{AfterMatch, Pattern};
use pelton::sink::Sink;
use pelton::source::Source;
use pelton::{Config, EventTime, Job, Spans, Watermarks, sink, sources};

/// A charge.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Charge {
    /// Which card.
    pub card: u64,
    /// Where.
    pub country: String,
    /// Cents.
    pub amount: u64,
    /// When.
    pub at: EventTime,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Which card.
    pub card: u64,
    /// Where it was charged, in order.
    pub countries: Vec<String>,
    /// How much in all, cents.
    pub amount: u64,
}

/// The rule.
pub fn rule() -> Pattern<Charge> {
    Pattern::begin("first")
        .followed_by("more")
        .times(2)
        .consecutive()
        .next("last")
        .where_matched(|last: &Charge, matched| {
            let abroad = |(_, _, earlier): (_, _, &Charge)| earlier.country != last.country;
            matched.events().any(abroad)
        })
        .within(60.seconds())
        .skip(AfterMatch::PastLast)
}

/// The job.
pub fn write(job: &Job, charges: impl Source<Item = Charge>, alerts: impl Sink<Alert>) {
    job.source(charges)
        .event_time(|c| c.at, Watermarks::bounded(5.seconds()))
        .key_by(|c| c.card)
        .pattern(rule())
        .uid("fraud")
        .select(|m| Alert {
            card: m.events().next().map_or(0, |(_, _, c)| c.card),
            countries: m.events().map(|(_, _, c)| c.country.clone()).collect(),
            amount: m.events().map(|(_, _, c)| c.amount).sum(),
        })
        .sink(alerts);
}

/// A thousand cards, each charged every five minutes at home; card 7 is abroad for a while, and in a hurry.
fn charge(id: u64) -> Charge {
    let hurry = id.is_multiple_of(50) && (10_000..12_000).contains(&id);
    Charge {
        card: if hurry { 7 } else { id % 1_000 },
        country: ["PT", "JP", "BR"][if hurry { id as usize / 50 % 3 } else { 0 }].into(),
        amount: 100 + id % 900,
        at: EventTime::from_micros(id as i64 * 300_000),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::new("fraud");
    let show = sink::callback("alerts", |alert: Alert, _| println!("{alert:?}"));
    write(&job, sources::generate("charges", 50_000, 1, charge), show);
    let report = job.run(Config::default().shards(1))?;
    println!("{} charges", report.counters.records_in);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton::testing::{self, Stepper};

    #[test]
    fn four_in_a_minute_and_not_all_in_one_country() {
        let (feed, source) = testing::feed(1);
        let (alerts, sink) = testing::collect();
        let job = Job::new("fraud");
        write(&job, source, sink);
        let charge = |card, second, country: &str| {
            let at = EventTime::from_seconds(second);
            let country = country.to_string();
            feed.push(
                0,
                Charge {
                    card,
                    country,
                    amount: 100,
                    at,
                },
            );
        };
        for (card, second, country) in [
            (1, 0, "PT"),
            (2, 1, "PT"),
            (3, 2, "PT"),
            (1, 20, "PT"),
            (2, 21, "PT"),
            (1, 18, "JP"),
            (3, 30, "PT"),
            (2, 40, "PT"),
            (1, 59, "PT"),
            (2, 50, "PT"),
            (3, 62, "JP"),
            (3, 63, "PT"),
        ] {
            charge(card, second, country);
        }
        drop(feed);
        Stepper::new(&job, 2).unwrap().run().unwrap();
        // Card 2 stays at home, card 3 is a second too slow.
        let expected = Alert {
            card: 1,
            countries: ["PT", "JP", "PT", "PT"].map(String::from).to_vec(),
            amount: 400,
        };
        assert_eq!(alerts.take(), [expected]);
    }
}
