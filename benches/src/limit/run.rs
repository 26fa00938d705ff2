//! Driving a job by hand: one plain loop, or shared-nothing shards over rings.
//!
//! With several shards, shard `s` of `n` makes the events `s, s + n, s + 2n, ..` and sends them, in batches of
//! [`BATCH`] records, to the shard of their key over a ring of its own. Emptied batches travel back over a second
//! ring, so a steady run allocates nothing.

use super::jobs::{Job, To};
use crate::alloc_count::HalfwayArm;
use crate::cores;
use crate::engine::{BenchError, Outcome, ThroughputConfig};
use crate::events::{GOLDEN, Totals};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::sync::{Arc, Barrier};
use std::time::Instant;

/// Records in a full batch.
pub const BATCH: usize = 1024;

/// Batches that a ring between two shards holds.
const RING: usize = 64;

/// Events between two watermarks.
const fn step<J: Job>() -> u64 {
    J::STEP_MS * J::PER_MS
}

/// Runs `job()` on the shards and events that `config` asks for.
pub fn run<J: Job + 'static>(
    config: &ThroughputConfig,
    job: impl Fn() -> J,
) -> Result<Outcome, BenchError> {
    if config.shards > 1 {
        return run_sharded(config, job);
    }
    let (job, config) = (job(), config.clone());
    // A thread of its own: the caller's stays unpinned.
    let alone = std::thread::spawn(move || {
        cores::pin(0);
        run_alone(&config, job)
    });
    alone
        .join()
        .map_err(|_| BenchError::failed("the limit panicked"))
}

fn run_alone<J: Job>(config: &ThroughputConfig, mut job: J) -> Outcome {
    let events = config.events;
    let arm = HalfwayArm::new(config);
    let started = Instant::now();
    let mut id = 0;
    while id < events {
        let end = (id + step::<J>()).min(events);
        for id in id..end {
            if let Some(record) = job.make(id) {
                job.take(&record);
            }
        }
        id = end;
        job.advance(watermark_after::<J>(id, events));
        arm.reached(id);
    }
    Outcome::new(config, started.elapsed(), job.totals())
}

fn watermark_after<J: Job>(id: u64, events: u64) -> u64 {
    if id >= events {
        u64::MAX
    } else {
        id / J::PER_MS
    }
}

/// The shard of a key. Its hash bits lie below those that choose a slot in the tables.
#[inline(always)]
fn shard_of(key: u64, shards: u64) -> usize {
    ((((key.wrapping_mul(GOLDEN) >> 12) & 0xffff) * shards) >> 16) as usize
}

struct Batch<R> {
    /// All records before this time have been sent on this ring.
    watermark: u64,
    records: Vec<R>,
}

/// This shard's ends of the four rings between it and one other shard.
struct Link<R> {
    send: Producer<Batch<R>>,
    receive: Consumer<Batch<R>>,
    /// Emptied batches, back to the other shard.
    give_back: Producer<Vec<R>>,
    /// Emptied batches of ours.
    get_back: Consumer<Vec<R>>,
    filling: Vec<R>,
    /// The other shard's watermark, as far as received.
    watermark: u64,
}

/// One shard: its job and its links, in the other shards' order.
struct Shard<J: Job> {
    index: usize,
    shards: u64,
    job: J,
    links: Vec<Link<J::Record>>,
    watermark: u64,
}

impl<J: Job> Shard<J> {
    /// Where the link to `shard` stands: the links leave out the shard itself.
    #[inline(always)]
    fn link_to(&self, shard: usize) -> usize {
        shard - usize::from(shard > self.index)
    }

    #[inline(always)]
    fn send(&mut self, link: usize, record: J::Record) {
        let filling = &mut self.links[link].filling;
        filling.push(record);
        if filling.len() == BATCH {
            self.flush(link);
        }
    }

    /// Sends what is filled, with the watermark; takes in what arrives while the ring is full.
    #[inline(never)]
    fn flush(&mut self, link: usize) {
        let to = &mut self.links[link];
        let fresh = to
            .get_back
            .pop()
            .unwrap_or_else(|_| Vec::with_capacity(BATCH));
        let mut batch = Batch {
            watermark: self.watermark,
            records: std::mem::replace(&mut to.filling, fresh),
        };
        while let Err(PushError::Full(back)) = self.links[link].send.push(batch) {
            batch = back;
            self.receive();
            std::hint::spin_loop();
        }
    }

    /// Takes in what stands in the rings now: a bounded drain, however fast the others send.
    fn receive(&mut self) {
        for link in &mut self.links {
            for _ in 0..link.receive.slots() {
                let Ok(mut batch) = link.receive.pop() else {
                    break;
                };
                for record in &batch.records {
                    self.job.take(record);
                }
                batch.records.clear();
                // Full or gone: the batch is freed instead.
                let _ = link.give_back.push(batch.records);
                link.watermark = link.watermark.max(batch.watermark);
            }
        }
    }

    fn slowest(&self) -> u64 {
        let others = self.links.iter().map(|link| link.watermark);
        others.min().unwrap_or(u64::MAX)
    }

    #[inline(always)]
    fn make(&mut self, ids: std::ops::Range<u64>) {
        let mut id = ids.start + self.index as u64;
        while id < ids.end {
            if let Some(record) = self.job.make(id) {
                match J::to(&record) {
                    To::Here => self.job.take(&record),
                    To::All => {
                        self.job.take(&record);
                        for link in 0..self.links.len() {
                            self.send(link, record);
                        }
                    }
                    To::Key(key) => match shard_of(key, self.shards) {
                        here if here == self.index => self.job.take(&record),
                        to => self.send(self.link_to(to), record),
                    },
                }
            }
            id += self.shards;
        }
    }

    fn run(mut self, config: &ThroughputConfig) -> Totals {
        let events = config.events;
        let arm = HalfwayArm::new(config);
        let mut next = 0;
        let mut advanced = 0;
        loop {
            if next < events && next / J::PER_MS <= self.slowest().saturating_add(J::DRIFT_MS) {
                // A step starts at a multiple of the shard count, so that the shards' ids interleave without a gap.
                let end = (next + step::<J>() / self.shards * self.shards).min(events);
                self.make(next..end);
                next = end;
                arm.reached(next);
                self.watermark = watermark_after::<J>(next, events);
                for link in 0..self.links.len() {
                    self.flush(link);
                }
            }
            self.receive();
            let watermark = self.watermark.min(self.slowest());
            if watermark > advanced {
                advanced = watermark;
                self.job.advance(watermark);
            }
            if advanced == u64::MAX {
                return self.job.totals();
            }
            if next >= events {
                std::hint::spin_loop();
            }
        }
    }

    /// Without an exchange the shards have nothing to say to each other.
    fn run_apart(mut self, config: &ThroughputConfig) -> Totals {
        let arm = HalfwayArm::new(config);
        let mut next = 0;
        while next < config.events {
            let end = (next + step::<J>() / self.shards * self.shards).min(config.events);
            let mut id = next + self.index as u64;
            while id < end {
                if let Some(record) = self.job.make(id) {
                    self.job.take(&record);
                }
                id += self.shards;
            }
            next = end;
            arm.reached(next);
        }
        self.job.totals()
    }
}

fn run_sharded<J: Job + 'static>(
    config: &ThroughputConfig,
    job: impl Fn() -> J,
) -> Result<Outcome, BenchError> {
    let barrier = Arc::new(Barrier::new(config.shards + 1));
    let mut threads = Vec::new();
    for (index, links) in mesh::<J::Record>(config.shards).into_iter().enumerate() {
        let shard = Shard {
            index,
            shards: config.shards as u64,
            job: job(),
            links,
            watermark: 0,
        };
        let (barrier, config) = (barrier.clone(), config.clone());
        threads.push(std::thread::spawn(move || {
            cores::pin(index);
            barrier.wait();
            if J::EXCHANGES {
                shard.run(&config)
            } else {
                shard.run_apart(&config)
            }
        }));
    }
    barrier.wait();
    let started = Instant::now();
    let mut totals = Totals::default();
    for thread in threads {
        let part = thread.join();
        totals =
            totals.merged(part.map_err(|_| BenchError::failed("a shard of the limit panicked"))?);
    }
    Ok(Outcome::new(config, started.elapsed(), totals))
}

/// A link from each shard to each other shard; row `s` holds the links of shard `s`.
fn mesh<R>(shards: usize) -> Vec<Vec<Link<R>>> {
    type Ends<R> = (
        Producer<Batch<R>>,
        Consumer<Vec<R>>,
        Consumer<Batch<R>>,
        Producer<Vec<R>>,
    );
    let mut ends: Vec<Vec<Option<Ends<R>>>> = Vec::new();
    for from in 0..shards {
        let ring = |to| {
            (to != from).then(|| {
                let (send, receive) = RingBuffer::new(RING);
                let (give_back, get_back) = RingBuffer::new(RING);
                (send, get_back, receive, give_back)
            })
        };
        ends.push((0..shards).map(ring).collect());
    }
    // ends[from][to] has both sides of a direction; a link takes one side of each of two directions.
    let mut sending: Vec<Vec<_>> = Vec::new();
    let mut receiving: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for row in ends {
        let mut sends = Vec::new();
        for (to, ends) in row.into_iter().enumerate() {
            if let Some((send, get_back, receive, give_back)) = ends {
                sends.push((send, get_back));
                receiving[to].push((receive, give_back));
            }
        }
        sending.push(sends);
    }
    let rows = sending.into_iter().zip(receiving);
    rows.map(|(sends, receives)| {
        let pairs = sends.into_iter().zip(receives);
        pairs
            .map(|((send, get_back), (receive, give_back))| Link {
                send,
                receive,
                give_back,
                get_back,
                filling: Vec::with_capacity(BATCH),
                watermark: 0,
            })
            .collect()
    })
    .collect()
}
