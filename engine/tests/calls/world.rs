//! A client that answers when the test says so, and random jobs that ask it while they die and go on on other numbers of shards.
//!
//! Judged by: each record once, with its own answer or a failure; its time and behind mark as if nobody had been asked; no watermark beyond a
//! record that is not behind; no more requests with the client than the capacity of its shard.

use crate::support::Transactions;
use pelton::calls::{Answer, Async, Cache, Client, Failure, Opening};
use pelton::process::value;
use pelton::sink::Sink;
use pelton::testing::{
    self, FaultyDisk, Feed, FeedSource, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper,
};
use pelton::{Checkpointing, EventTime, Inlet, Job, Pipeline, Spans, State, Stream, Watermarks};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::sync::{Arc, Mutex};

/// A record: (key, its number, seconds of event time).
pub type Ev = (u8, u32, i64);

/// One that lies with the client.
pub struct Asked<R> {
    pub shard: usize,
    pub request: u64,
    pub answer: Answer<R>,
}

/// A client whose answers the test gives.
pub struct Scripted<R> {
    /// Of all shards: what lies with it.
    pub asked: Arc<Mutex<Vec<Asked<R>>>>,
    /// How many each shard has out at most.
    most: usize,
    shard: usize,
}

impl<R> Clone for Scripted<R> {
    fn clone(&self) -> Self {
        Scripted {
            asked: self.asked.clone(),
            ..*self
        }
    }
}

impl<R> Scripted<R> {
    pub fn new(most: usize) -> Self {
        Scripted {
            asked: Arc::default(),
            most,
            shard: 0,
        }
    }

    /// How many requests lie with it.
    pub fn len(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// What is asked, sorted.
    pub fn requests(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self
            .asked
            .lock()
            .unwrap()
            .iter()
            .map(|a| a.request)
            .collect();
        all.sort_unstable();
        all
    }

    /// Takes out the oldest one for this request.
    pub fn take(&self, request: u64) -> Answer<R> {
        let mut asked = self.asked.lock().unwrap();
        let at = asked.iter().position(|a| a.request == request);
        asked.remove(at.expect("it was asked")).answer
    }
}

impl<R: Send + 'static> Client for Scripted<R> {
    type Request = u64;
    type Response = R;
    fn open(&mut self, opening: &Opening) -> Result<(), String> {
        assert!(opening.is_simulated);
        self.shard = opening.shard;
        Ok(())
    }
    fn call(&mut self, request: u64, answer: Answer<R>) {
        let mut asked = self.asked.lock().unwrap();
        asked.push(Asked {
            shard: self.shard,
            request,
            answer,
        });
        let own = asked.iter().filter(|a| a.shard == self.shard).count();
        assert!(
            own <= self.most,
            "{own} requests are out, {} may be",
            self.most
        );
    }
}

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

/// What comes, and how it is asked.
#[derive(Clone, Debug)]
pub struct Script {
    pub partitions: Vec<Vec<Ev>>,
    pub batch_size: usize,
    pub ordered: bool,
    pub capacity: usize,
    pub retries: u32,
    pub rate: Option<u32>,
    pub rows: usize,
    pub seed: u64,
}

/// How far watermarks trail, seconds: less than records stray, so that some are behind.
const BOUND: i64 = 4;

fn partition(base: u32) -> impl Strategy<Value = Vec<Ev>> {
    let step = (0u8..5, 0i64..4, 0i64..9);
    prop::collection::vec(step, 0..40).prop_map(move |steps| {
        let mut now = 100;
        let event = |(n, (key, on, back))| {
            now += on;
            (key, base + n as u32, now - back)
        };
        steps.into_iter().enumerate().map(event).collect()
    })
}

pub fn script() -> impl Strategy<Value = Script> {
    let partitions = ([0, 1_000, 2_000].map(partition), 1usize..4);
    let sizes = (
        prop::sample::select(vec![1, 2, 7, 64]),
        prop::sample::select(vec![1, 2, 3, 16]),
        0u32..4,
    );
    let more = (
        prop::sample::select(vec![None, Some(100), Some(10_000)]),
        0usize..5,
    );
    (partitions, any::<bool>(), sizes, more, any::<u64>()).prop_map(
        |((partitions, n), ordered, sizes, more, seed)| Script {
            partitions: partitions.into_iter().take(n).collect(),
            ordered,
            batch_size: sizes.0,
            capacity: sizes.1,
            retries: sizes.2,
            rate: more.0,
            rows: more.1,
            seed,
        },
    )
}

impl Script {
    pub fn options(&self) -> Async {
        let options = match self.ordered {
            true => Async::ordered(),
            false => Async::unordered(),
        };
        let options = options
            .capacity(self.capacity)
            .time_out(20.millis())
            .retries(self.retries)
            .back_off(2.millis(), 10.millis());
        match self.rate {
            Some(rate) => options.rate(rate),
            None => options,
        }
    }

    pub fn cache(&self) -> Cache {
        Cache::of(self.rows)
            .ttl(20.millis())
            .negative_ttl(10.millis())
    }

    fn sizes(&self, shards: usize) -> Sizes {
        Sizes {
            batch_size: self.batch_size,
            ring_capacity: 4,
            ..Sizes::shards(shards)
        }
    }

    pub fn feed(&self) -> Feed<Ev> {
        let (feed, _) = testing::feed(self.partitions.len());
        for (number, events) in self.partitions.iter().enumerate() {
            events.iter().for_each(|&e| feed.push(number, e));
            feed.close(number);
        }
        feed
    }
}

/// A record, what was answered (`Err`: nothing), V where it was behind, and whether no watermark had passed it.
pub type Row = (Ev, Result<Option<u64>, ()>, Option<i64>, bool);

/// Whether watermarks kept behind the records is seen by an operator behind a further exchange.
pub fn watch(
    rows: Stream<impl Pipeline<Item = (Ev, Result<Option<u64>, ()>)>>,
    sink: impl Sink<Row>,
) {
    rows.key_by(|r| r.0.0)
        .process("watch", value::<u64>("none"))
        .each(|r, _, cx| {
            let behind = cx.behind().map(|v| v.micros());
            let on_time = behind.is_some() || cx.time() >= cx.watermark();
            cx.emit((r.0, r.1, behind, on_time));
        })
        .sink(sink);
}

pub fn timed(job: &Job, source: FeedSource<Ev>) -> Stream<impl Pipeline<Item = Ev>> {
    job.source(source)
        .event_time(
            |e| EventTime::from_seconds(e.2),
            Watermarks::bounded(BOUND.seconds()),
        )
        .uid("events")
}

/// The same without anybody being asked.
fn model(script: &Script) -> Vec<(Ev, Option<i64>)> {
    let (rows, sink) = testing::collect();
    let job = Job::new("model");
    watch(
        timed(&job, script.feed().source()).map(|e| (e, Ok(None))),
        sink,
    );
    Stepper::new(&job, 1).unwrap().run().unwrap();
    let mut rows: Vec<_> = rows.take().into_iter().map(|r| (r.0, r.2)).collect();
    rows.sort_unstable();
    rows
}

/// Something is done with one of the requests: mostly it is answered.
fn serve<R: State>(client: &Scripted<R>, dice: &mut Dice, truth: impl Fn(u64) -> R) {
    let n = client.len();
    if n == 0 {
        return;
    }
    let mut asked = client.asked.lock().unwrap();
    let Asked {
        request, answer, ..
    } = match dice.below(10) {
        // It takes longer.
        0..=2 => return,
        _ => asked.swap_remove(dice.below(n)),
    };
    drop(asked);
    match dice.below(10) {
        0 => answer.send(Err("try again".into())),
        1 => answer.send(Err(Failure::permanent("never"))),
        2 => drop(answer),
        _ => answer.send(Ok(truth(request))),
    }
}

/// Runs the job, which dies four times at random and goes on on another number of shards each time.
fn dying<R: State>(
    script: &Script,
    write: impl Fn(&Job, FeedSource<Ev>, Scripted<R>, Transactions<Row>),
    truth: impl Fn(u64) -> R,
) -> (Vec<Row>, u32) {
    let mut dice = Dice(script.seed);
    let feed = script.feed();
    let mut disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let ledger = Transactions::new();
    let mut deaths = 0;
    loop {
        let job = Job::new("calls");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        let client = Scripted::new(script.capacity);
        write(&job, feed.source(), client.clone(), ledger.clone());
        let shards = [1, 2, 3, 8][dice.below(4)];
        let on = OnDisk {
            sweep_bytes: 1 << 10,
            sweep_least: 3,
            ..OnDisk::small(&disk)
        };
        let mut stepper = Stepper::on_disk(&job, script.sizes(shards), &on).unwrap();
        let most = 1 << (6 + dice.below(8));
        let mut left = match deaths == 4 {
            true => usize::MAX,
            false => dice.below(most),
        };
        while !stepper.all_done() && left > 0 {
            left -= 1;
            let actor = dice.below(stepper.actors());
            stepper.step(actor).unwrap();
            if dice.below(4) == 0 {
                serve(&client, &mut dice, &truth);
            }
            if dice.below(16) == 0 {
                stepper.advance_clock(1.millis());
            }
        }
        if stepper.all_done() {
            assert_eq!(stepper.counters().invariant_broken, 0);
            return (ledger.visible(), deaths);
        }
        deaths += 1;
        drop(stepper);
        let kept = disk.crash(|_| dice.below(2) == 0);
        disk = SharedDisk::new(FaultyDisk::new(kept));
    }
}

fn judge(
    script: &Script,
    (rows, deaths): (Vec<Row>, u32),
    truth: impl Fn(Ev) -> Option<u64>,
) -> Result<(u32, u32), TestCaseError> {
    let mut answered = 0;
    for &(event, answer, _, on_time) in &rows {
        prop_assert!(on_time, "a watermark has passed {event:?}");
        if let Ok(answer) = answer {
            prop_assert_eq!(answer, truth(event));
            answered += 1;
        }
    }
    let got: Vec<_> = rows.iter().map(|r| (r.0, r.2)).collect();
    prop_assert_eq!(got, model(script));
    Ok((deaths, answered))
}

/// Checks a property whose cases say how often they died and how many records were answered, and that some did and were.
fn all(check: impl Fn(&Script) -> Result<(u32, u32), TestCaseError>) {
    let cases = std::env::var("PELTON_CASES");
    let cases = cases.ok().and_then(|c| c.parse().ok()).unwrap_or(64);
    let (deaths, answered) = (Cell::new(0), Cell::new(0));
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let checked = TestRunner::new(config).run(&script(), |script| {
        let (d, a) = check(&script)?;
        deaths.set(deaths.get() + d);
        answered.set(answered.get() + a);
        Ok(())
    });
    if let Err(e) = checked {
        panic!("{e}");
    }
    assert!(deaths.get() > 0, "none died");
    assert!(answered.get() > 100, "few were answered");
}

#[test]
fn async_maps_answer_each_record_once_whatever_dies() {
    let of = |request: u64| request * 7;
    all(|script| {
        let write = |job: &Job, source, client: Scripted<u64>, ledger: Transactions<Row>| {
            let rows = timed(job, source)
                .async_map(client, script.options(), |e: &Ev| u64::from(e.1))
                .uid("asked")
                .outcomes(|e, r| (*e, r.map(Some).map_err(|_| ())));
            watch(rows, ledger);
        };
        let truth = |e: Ev| Some(of(u64::from(e.1)));
        judge(script, dying(script, write, of), truth)
    });
}

#[test]
fn lookup_joins_answer_each_record_once_whatever_dies() {
    let of = |key: u64| (!key.is_multiple_of(3)).then_some(key * 10);
    all(|script| {
        let write =
            |job: &Job, source, client: Scripted<Option<u64>>, ledger: Transactions<Row>| {
                let rows = timed(job, source)
                    .lookup_join(|e: &Ev| u64::from(e.0), client)
                    .options(script.options())
                    .cache(script.cache())
                    .uid("asked")
                    .outcomes(|e, r| (*e, r.map(|r| r.copied()).map_err(|_| ())));
                watch(rows, ledger);
            };
        judge(script, dying(script, write, of), |e| of(u64::from(e.0)))
    });
}

/// Behind an exchange too, where records of all partitions meet.
#[test]
fn async_maps_behind_an_exchange_do_too() {
    let of = |request: u64| request + 1;
    all(|script| {
        let write = |job: &Job, source, client: Scripted<u64>, ledger: Transactions<Row>| {
            let spread: Stream<Inlet<Ev>> = timed(job, source).rebalance();
            let rows = spread
                .async_map(client, script.options(), |e: &Ev| u64::from(e.1))
                .uid("asked")
                .outcomes(|e, r| (*e, r.map(Some).map_err(|_| ())));
            watch(rows, ledger);
        };
        let truth = |e: Ev| Some(of(u64::from(e.1)));
        judge(script, dying(script, write, of), truth)
    });
}
