//! What a lookup join remembers, against a list that is searched from end to end; who asks with whom; how fast it asks.

use crate::world::{Dice, Scripted};
use pelton::calls::{self, Async, Cache};
use pelton::testing::{self, Feed, Stepper};
use pelton::{Job, Span, Spans, sources};
use std::sync::{Arc, Mutex};

type Found = (u64, u64, Option<u64>);

fn lookup(
    job: &Job,
    client: impl calls::Client<Request = u64, Response = Option<u64>>,
    options: Async,
    cache: Cache,
) -> (Feed<(u64, u64)>, testing::Collected<Found>) {
    let (feed, source) = testing::feed(1);
    let (rows, sink) = testing::collect();
    job.source(source)
        .lookup_join(|r: &(u64, u64)| r.0, client)
        .options(options)
        .cache(cache)
        .left_outer(|r, row| (r.0, r.1, row.copied()))
        .sink(sink);
    (feed, rows)
}

/// By the definition: rows in the order in which they were asked for, each with the end of its time.
struct Model {
    rows: Vec<(u64, u64, Option<u64>)>,
    most: usize,
}

impl Model {
    /// Whether the key is asked for outside, and its row.
    fn ask(&mut self, key: u64, now_ms: u64, version: u64, ttl: (u64, u64)) -> (bool, Option<u64>) {
        let known = self.rows.iter().position(|r| r.0 == key);
        if let Some(at) = known {
            let row = self.rows.remove(at);
            if row.1 > now_ms {
                self.rows.push(row);
                return (false, row.2);
            }
        }
        let answer = (!key.is_multiple_of(4)).then_some(version);
        let ttl = if answer.is_some() { ttl.0 } else { ttl.1 };
        if ttl > 0 && self.most > 0 {
            if self.rows.len() == self.most {
                self.rows.remove(0);
            }
            self.rows.push((key, now_ms + ttl, answer));
        }
        (true, answer)
    }
}

#[test]
fn what_is_remembered_is_what_the_definition_says() {
    let (mut hits, mut evicted) = (0, 0);
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let most = [0, 1, 2, 3, 5, 20][dice.below(6)];
        let ttl = (1 + dice.below(40) as u64, dice.below(20) as u64);
        let version = Arc::new(Mutex::new((0u64, 0u64)));
        let told = version.clone();
        let client = calls::blocking(1, move |key: u64| {
            let mut told = told.lock().unwrap();
            told.1 += 1;
            Ok::<_, String>((!key.is_multiple_of(4)).then_some(told.0))
        });
        let options = Async::ordered();
        let figures = options.figures();
        let cache = Cache::of(most)
            .ttl((ttl.0 as i64).millis())
            .negative_ttl((ttl.1 as i64).millis());
        let job = Job::new("cache");
        let (feed, rows) = lookup(&job, client, options, cache);
        let mut stepper = Stepper::new(&job, 1).unwrap();
        let mut model = Model { rows: vec![], most };
        let (mut now, mut asked) = (0, 0);
        for n in 0..300 {
            let on = dice.below(8) as u64;
            now += on;
            stepper.advance_clock((on as i64).millis());
            version.lock().unwrap().0 = n;
            let key = dice.below(12) as u64;
            feed.push(0, (key, n));
            stepper.until_idle().unwrap();
            let (asks, row) = model.ask(key, now, n, ttl);
            asked += u64::from(asks);
            assert_eq!(rows.take(), [(key, n, row)], "seed {seed}, at {now}");
            assert_eq!(version.lock().unwrap().1, asked, "seed {seed}, at {now}");
            let held = stepper.state_sizes();
            let held = held.iter().find(|s| s.state == "cache").unwrap();
            assert_eq!(held.entries, model.rows.len() as u64);
        }
        hits += figures.hits();
        evicted += figures.evicted();
        assert_eq!(figures.requests() + figures.hits(), 300);
    }
    assert!(
        hits > 1000 && evicted > 1000,
        "{hits} hits, {evicted} evicted"
    );
}

/// However many wait for it, a key is asked for once at a time; and each of the others by itself.
#[test]
fn records_of_a_key_wait_for_one_request() {
    let client = Scripted::new(8);
    let job = Job::new("together");
    let options = Async::unordered().capacity(8);
    let figures = options.figures();
    let (feed, rows) = lookup(&job, client.clone(), options, Cache::none());
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for (n, key) in [1, 2, 1, 1, 2].into_iter().enumerate() {
        feed.push(0, (key, n as u64));
    }
    stepper.until_idle().unwrap();
    assert_eq!(client.requests(), [1, 2]);
    client.take(2).send(Ok(Some(20)));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [(2, 1, Some(20)), (2, 4, Some(20))]);
    client.take(1).send(Ok(None));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [(1, 0, None), (1, 2, None), (1, 3, None)]);
    // Nothing is remembered: it is asked again.
    feed.push(0, (1, 5));
    stepper.until_idle().unwrap();
    assert_eq!(client.requests(), [1]);
    assert_eq!(
        (figures.coalesced(), figures.hits(), figures.requests()),
        (3, 0, 3)
    );
}

#[test]
fn an_inner_join_leaves_out_what_has_no_row() {
    for shards in [1, 2, 3, 8] {
        let client = calls::blocking(2, |key: u64| Ok::<_, String>((key % 2 == 1).then_some(key)));
        let (rows, sink) = testing::collect();
        let job = Job::new("inner");
        job.source(sources::items(0..100u64))
            .lookup_join(|n| n % 10, client)
            .inner(|n, row| (*n, *row))
            .sink(sink);
        Stepper::new(&job, shards).unwrap().run().unwrap();
        let mut rows = rows.take();
        rows.sort_unstable();
        let odd = (0..100).filter(|n| n % 2 == 1);
        assert_eq!(rows, odd.map(|n| (n, n % 10)).collect::<Vec<_>>());
    }
}

/// In no span are there more attempts than the rate says and those of a tenth of a second; and over a long time that many.
#[test]
fn the_rate_holds() {
    for (rate, shards) in [(10, 1), (100, 1), (100, 2), (1_000, 3), (7, 3)] {
        let client = Scripted::new(10_000);
        let job = Job::new("rate");
        let options = Async::unordered()
            .capacity(10_000)
            .rate(rate)
            .time_out(1.hours());
        let (feed, source) = testing::feed(8);
        let (_, sink) = testing::collect();
        job.source(source)
            .async_map(client.clone(), options, |n: &u64| *n)
            .results(|_, r: u64| r)
            .sink(sink);
        for n in 0..8_000 {
            feed.push(n as usize % 8, n);
        }
        let mut stepper = Stepper::new(&job, shards).unwrap();
        let (mut made, tick) = (vec![], Span::from_micros(500));
        // Two seconds.
        for _ in 0..4_000 {
            stepper.until_idle().unwrap();
            made.push(client.len() as u64);
            stepper.advance_clock(tick);
        }
        let most = |ticks: u64| {
            let share = f64::from(rate) / shards as f64;
            let each = (ticks as f64 * 0.0005 + 0.1) * share;
            (each.floor() as u64 + 1) * shards as u64
        };
        for ticks in [1, 20, 200, 2_000, 3_999] {
            for (from, to) in made.iter().zip(&made[ticks..]) {
                let bound = most(ticks as u64);
                assert!(
                    to - from <= bound,
                    "{} in {ticks} ticks, {bound} may be",
                    to - from
                );
            }
        }
        let all = *made.last().unwrap();
        assert!(
            all + 3 * shards as u64 >= u64::from(2 * rate),
            "{all} of {rate} a second"
        );
    }
}

/// A record that was let go by the cache does not overtake one of its key that waits, and holds up nobody.
#[test]
fn records_of_a_key_keep_their_order() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let client = Scripted::new(6);
        let (feed, source) = testing::feed::<(u64, u64)>(2);
        let (rows, sink) = testing::collect();
        let job = Job::new("order");
        job.source(source)
            .event_time(
                |r| pelton::EventTime::from_seconds(r.1 as i64),
                pelton::Watermarks::monotonous(),
            )
            .lookup_join(|r| r.0, client.clone())
            .options(Async::unordered().capacity(6).time_out(1.hours()))
            .cache(Cache::of(2).ttl(5.millis()))
            .left_outer(|r, _| *r)
            .sink(sink);
        let mut stepper = Stepper::new(&job, 2).unwrap();
        let mut got = vec![];
        for n in 0..200 {
            // All records of a key come over one partition.
            let key = dice.below(5) as u64;
            feed.push(key as usize % 2, (key, n));
            if dice.below(3) == 0 {
                stepper.until_idle().unwrap();
            }
            if dice.below(3) > 0 && client.len() > 0 {
                let at = dice.below(client.len());
                let asked = client.asked.lock().unwrap().swap_remove(at);
                asked.answer.send(Ok(Some(n)));
            }
            stepper.advance_clock((dice.below(3) as i64).millis());
        }
        feed.close(0);
        feed.close(1);
        while !stepper.all_done() {
            stepper.until_idle().unwrap();
            for asked in client.asked.lock().unwrap().drain(..) {
                asked.answer.send(Ok(None));
            }
        }
        got.extend(rows.take());
        assert_eq!(got.len(), 200);
        for key in 0..5 {
            assert!(got.iter().filter(|r| r.0 == key).is_sorted_by_key(|r| r.1));
        }
    }
}
