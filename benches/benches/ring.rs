//! The ring beside other queues: on one core, where only instructions count, and across two, where cache lines travel.
//!
//! ```text
//! cargo bench -p pelton-bench --no-default-features --bench ring
//! ```
//!
//! A value is a `u64`, a queue has 1024 slots. `same_core` is the cost of a value going in and out of a queue by one thread.
//! `two_cores` is the time for each value while a producer pinned to one core and a consumer pinned to another run
//! flat out, spinning when they cannot go on. `round_trip` sends one value there and back and is thus twice a latency.
//! `doorbell` is the cost of ringing while nobody sleeps, and a round trip between two threads that fall asleep after each
//! value.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use pelton_ring::{Doorbell, Sleeper};
use std::hint::{black_box, spin_loop};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const CAPACITY: usize = 1024;
const BATCH: usize = 64;
/// Values, or round trips, in one iteration across threads: enough to forget the start.
const RUN: u64 = 10_000;

/// A queue with two ends.
trait Queue {
    const NAME: &str;
    type Tx: Send;
    type Rx: Send;

    fn make() -> (Self::Tx, Self::Rx);
    fn push(tx: &mut Self::Tx, value: u64) -> bool;
    fn pop(rx: &mut Self::Rx) -> Option<u64>;
}

/// A queue that can move many values for one look at the other side.
trait Batched: Queue {
    /// Takes values off the front of the range and returns how many.
    fn push_batch(tx: &mut Self::Tx, values: &mut std::ops::Range<u64>) -> usize;
    /// Adds up to [`BATCH`] values to the sum and returns how many.
    fn drain(rx: &mut Self::Rx, sum: &mut u64) -> usize;
}

struct Pelton;

impl Queue for Pelton {
    const NAME: &str = "pelton";
    type Tx = pelton_ring::Producer<u64>;
    type Rx = pelton_ring::Consumer<u64>;

    fn make() -> (Self::Tx, Self::Rx) {
        pelton_ring::ring(CAPACITY).expect("a power of two")
    }

    #[inline(always)]
    fn push(tx: &mut Self::Tx, value: u64) -> bool {
        tx.push(value).is_ok()
    }

    #[inline(always)]
    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.pop().ok()
    }
}

impl Batched for Pelton {
    #[inline(always)]
    fn push_batch(tx: &mut Self::Tx, values: &mut std::ops::Range<u64>) -> usize {
        tx.push_batch(&mut values.take(BATCH))
    }

    #[inline(always)]
    fn drain(rx: &mut Self::Rx, sum: &mut u64) -> usize {
        let drain = rx.drain(BATCH);
        let there = drain.len();
        *sum += drain.sum::<u64>();
        there
    }
}

struct Rtrb;

impl Queue for Rtrb {
    const NAME: &str = "rtrb";
    type Tx = rtrb::Producer<u64>;
    type Rx = rtrb::Consumer<u64>;

    fn make() -> (Self::Tx, Self::Rx) {
        rtrb::RingBuffer::new(CAPACITY)
    }

    #[inline(always)]
    fn push(tx: &mut Self::Tx, value: u64) -> bool {
        tx.push(value).is_ok()
    }

    #[inline(always)]
    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.pop().ok()
    }
}

impl Batched for Rtrb {
    #[inline(always)]
    fn push_batch(tx: &mut Self::Tx, values: &mut std::ops::Range<u64>) -> usize {
        let room = tx
            .slots()
            .min(BATCH)
            .min((values.end - values.start) as usize);
        match tx.write_chunk_uninit(room) {
            Ok(chunk) => chunk.fill_from_iter(values),
            Err(_) => 0,
        }
    }

    #[inline(always)]
    fn drain(rx: &mut Self::Rx, sum: &mut u64) -> usize {
        let there = rx.slots().min(BATCH);
        match rx.read_chunk(there) {
            Ok(chunk) => *sum += chunk.into_iter().sum::<u64>(),
            Err(_) => return 0,
        }
        there
    }
}

struct ArrayQueue;

impl Queue for ArrayQueue {
    const NAME: &str = "crossbeam_array_queue";
    type Tx = Arc<crossbeam_queue::ArrayQueue<u64>>;
    type Rx = Self::Tx;

    fn make() -> (Self::Tx, Self::Rx) {
        let queue = Arc::new(crossbeam_queue::ArrayQueue::new(CAPACITY));
        (Arc::clone(&queue), queue)
    }

    #[inline(always)]
    fn push(tx: &mut Self::Tx, value: u64) -> bool {
        tx.push(value).is_ok()
    }

    #[inline(always)]
    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.pop()
    }
}

struct SyncChannel;

impl Queue for SyncChannel {
    const NAME: &str = "std_sync_channel";
    type Tx = mpsc::SyncSender<u64>;
    type Rx = mpsc::Receiver<u64>;

    fn make() -> (Self::Tx, Self::Rx) {
        mpsc::sync_channel(CAPACITY)
    }

    #[inline(always)]
    fn push(tx: &mut Self::Tx, value: u64) -> bool {
        tx.try_send(value).is_ok()
    }

    #[inline(always)]
    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.try_recv().ok()
    }
}

fn same_core(criterion: &mut Criterion) {
    fn single<Q: Queue>(group: &mut BenchmarkGroup<'_, WallTime>) {
        let (mut tx, mut rx) = Q::make();
        group.bench_function(format!("single/{}", Q::NAME), |bencher| {
            bencher.iter(|| {
                Q::push(&mut tx, black_box(7));
                Q::pop(&mut rx)
            });
        });
    }
    fn batch<Q: Batched>(group: &mut BenchmarkGroup<'_, WallTime>) {
        let (mut tx, mut rx) = Q::make();
        group.bench_function(format!("batch_{BATCH}/{}", Q::NAME), |bencher| {
            bencher.iter(|| {
                Q::push_batch(&mut tx, &mut (0..black_box(BATCH as u64)));
                let mut sum = 0;
                Q::drain(&mut rx, &mut sum);
                sum
            });
        });
    }

    let mut group = criterion.benchmark_group("same_core");
    group.throughput(Throughput::Elements(1));
    single::<Pelton>(&mut group);
    single::<Rtrb>(&mut group);
    single::<ArrayQueue>(&mut group);
    single::<SyncChannel>(&mut group);
    group.throughput(Throughput::Elements(BATCH as u64));
    batch::<Pelton>(&mut group);
    batch::<Rtrb>(&mut group);
}

/// Runs both on cores of their own, from a common start, and returns how long it took until both were done.
fn on_two_cores(a: impl FnOnce() + Send, b: impl FnOnce() + Send) -> Duration {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let start = Barrier::new(2);
    let pin = |index: usize| {
        if let [_, _, ..] = cores[..] {
            core_affinity::set_for_current(cores[index]);
        }
        start.wait();
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            pin(1);
            b();
            Instant::now()
        });
        // Not on the thread of criterion, which goes on to run the other benchmarks.
        let this = scope.spawn(|| {
            pin(0);
            let started = Instant::now();
            a();
            (started, Instant::now())
        });
        let (started, ended) = this.join().expect("no panic");
        ended.max(other.join().expect("no panic")) - started
    })
}

fn two_cores(criterion: &mut Criterion) {
    fn single<Q: Queue>(group: &mut BenchmarkGroup<'_, WallTime>) {
        group.bench_function(format!("single/{}", Q::NAME), |bencher| {
            bencher.iter_custom(|iterations| {
                let count = iterations * RUN;
                let (mut tx, mut rx) = Q::make();
                on_two_cores(
                    move || {
                        for value in 0..count {
                            while !Q::push(&mut tx, value) {
                                spin_loop();
                            }
                        }
                    },
                    move || {
                        for value in 0..count {
                            assert_eq!(value, spin_pop::<Q>(&mut rx));
                        }
                    },
                )
            });
        });
    }
    fn batch<Q: Batched>(group: &mut BenchmarkGroup<'_, WallTime>) {
        group.bench_function(format!("batch_{BATCH}/{}", Q::NAME), |bencher| {
            bencher.iter_custom(|iterations| {
                let count = iterations * RUN;
                let (mut tx, mut rx) = Q::make();
                on_two_cores(
                    move || {
                        let mut values = 0..count;
                        while !values.is_empty() {
                            if Q::push_batch(&mut tx, &mut values) == 0 {
                                spin_loop();
                            }
                        }
                    },
                    move || {
                        let (mut got, mut sum) = (0, 0);
                        while got < count {
                            let there = Q::drain(&mut rx, &mut sum);
                            if there == 0 {
                                spin_loop();
                            }
                            got += there as u64;
                        }
                        assert_eq!(sum, count * (count - 1) / 2);
                    },
                )
            });
        });
    }

    let mut group = criterion.benchmark_group("two_cores");
    group.throughput(Throughput::Elements(RUN));
    single::<Pelton>(&mut group);
    single::<Rtrb>(&mut group);
    single::<ArrayQueue>(&mut group);
    single::<SyncChannel>(&mut group);
    batch::<Pelton>(&mut group);
    batch::<Rtrb>(&mut group);
}

#[inline(always)]
fn spin_pop<Q: Queue>(rx: &mut Q::Rx) -> u64 {
    loop {
        match Q::pop(rx) {
            Some(value) => return value,
            None => spin_loop(),
        }
    }
}

/// Two queues, one each way; `send` and `receive` are given the way to wake and to wait.
fn round_trips<Q: Queue>(
    count: u64,
    [mut here, mut there]: [impl FnMut(&mut Q::Rx) -> u64 + Send; 2],
    [wake_here, wake_there]: [impl Fn() + Send; 2],
) -> Duration {
    let ((mut to_there, mut from_here), (mut to_here, mut from_there)) = (Q::make(), Q::make());
    on_two_cores(
        move || {
            for value in 0..count {
                Q::push(&mut to_there, value);
                wake_there();
                assert_eq!(value, here(&mut from_there));
            }
        },
        move || {
            for _ in 0..count {
                let value = there(&mut from_here);
                Q::push(&mut to_here, value);
                wake_here();
            }
        },
    )
}

fn round_trip(criterion: &mut Criterion) {
    fn spinning<Q: Queue>(group: &mut BenchmarkGroup<'_, WallTime>) {
        group.bench_function(Q::NAME, |bencher| {
            bencher.iter_custom(|iterations| {
                let spin = [spin_pop::<Q>, spin_pop::<Q>];
                round_trips::<Q>(iterations * RUN, spin, [|| {}, || {}])
            });
        });
    }

    let mut group = criterion.benchmark_group("round_trip");
    group.throughput(Throughput::Elements(RUN));
    spinning::<Pelton>(&mut group);
    spinning::<Rtrb>(&mut group);
    spinning::<ArrayQueue>(&mut group);
    spinning::<SyncChannel>(&mut group);
}

fn doorbell(criterion: &mut Criterion) {
    /// Sleeps at once when there is nothing: every value pays for a wake-up.
    fn asleep(mut sleeper: Sleeper) -> impl FnMut(&mut <Pelton as Queue>::Rx) -> u64 {
        move |rx| {
            loop {
                if let Ok(value) = rx.pop() {
                    return value;
                }
                sleeper.prepare();
                if rx.is_empty() {
                    sleeper.sleep(None);
                } else {
                    sleeper.cancel();
                }
            }
        }
    }
    fn sleeping(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, make: impl Fn() -> Sleeper) {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let sleepers = [make(), make()];
                let ring = |doorbell: Doorbell| move || doorbell.ring();
                let wake = sleepers.each_ref().map(|sleeper| ring(sleeper.doorbell()));
                round_trips::<Pelton>(iterations, sleepers.map(asleep), wake)
            });
        });
    }

    let mut group = criterion.benchmark_group("doorbell");
    let sleeper = Sleeper::thread();
    let doorbell = sleeper.doorbell();
    group.bench_function("ring_while_awake", |bencher| {
        bencher.iter(|| doorbell.ring())
    });
    sleeping(&mut group, "round_trip_asleep/thread", Sleeper::thread);
    #[cfg(target_os = "linux")]
    sleeping(&mut group, "round_trip_asleep/eventfd", || {
        Sleeper::eventfd().expect("an eventfd")
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20);
    targets = same_core, two_cores, round_trip, doorbell
}
criterion_main!(benches);
