//! Records from core to core, in batches that go there and come back, by three ways of filling them.
//!
//! ```text
//! cargo bench -p pelton-bench --no-default-features --bench hand_over
//! ```
//!
//! Two pinned threads both make records of 24 bytes, send them to each other over a ring, and read those of the other: what an
//! exchange by key does. The time is that of a record made, sent and received. `in_place` pushes each record to the batch that has come
//! back; `copied` gathers a batch and copies it there; `handed_over` gathers it and leaves the copy to `pelton_ring::hand_over`. What
//! it shows depends on how far apart the two cores are, so that is printed with each figure: see `cores::round_trip_ns`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pelton_bench::cores;
use pelton_bench::events::{Ev, ev};
use pelton_ring::{Consumer, Producer, PushError, hand_over, ring};
use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

/// Records of each thread in one iteration: enough to forget the start.
const RUN: u64 = 1 << 16;
/// Batches of a thread that are about.
const BATCHES: usize = 24;

#[derive(Clone, Copy, Debug)]
enum Way {
    InPlace,
    Copied,
    HandedOver,
}

/// One thread's ends of the four rings.
struct Ends {
    send: Producer<Vec<Ev>>,
    receive: Consumer<Vec<Ev>>,
    give_back: Producer<Vec<Ev>>,
    get_back: Consumer<Vec<Ev>>,
}

fn ends() -> [Ends; 2] {
    let make = || ring(2 * BATCHES.next_power_of_two()).expect("a power of two");
    let (a_send, b_receive) = make();
    let (b_send, a_receive) = make();
    let (a_give, b_get) = make();
    let (b_give, a_get) = make();
    let end = |send, receive, give_back, get_back| Ends {
        send,
        receive,
        give_back,
        get_back,
    };
    [
        end(a_send, a_receive, a_give, a_get),
        end(b_send, b_receive, b_give, b_get),
    ]
}

/// Makes and sends so many records, and takes as many.
fn exchange(mut ends: Ends, way: Way, batch: usize, records: u64) {
    for _ in 0..BATCHES {
        let _ = ends.give_back.push(Vec::with_capacity(batch));
    }
    let mut gathered = Vec::with_capacity(batch);
    let (mut made, mut taken, mut sum) = (0, 0, 0.0);
    while made < records || taken < records {
        if made < records
            && let Ok(mut travelling) = ends.get_back.pop()
        {
            let fill = |to: &mut Vec<Ev>| to.extend((made..).take(batch).map(|id| ev(id, 1000)));
            match way {
                Way::InPlace => fill(&mut travelling),
                Way::Copied => {
                    fill(&mut gathered);
                    travelling.append(&mut gathered);
                }
                Way::HandedOver => {
                    fill(&mut gathered);
                    hand_over(&mut gathered, &mut travelling);
                }
            }
            made += batch as u64;
            while let Err(PushError::Full(full)) = ends.send.push(travelling) {
                travelling = full;
                spin_loop();
            }
        }
        while let Ok(mut received) = ends.receive.pop() {
            sum += received.iter().map(|e| e.value).sum::<f64>();
            taken += received.len() as u64;
            received.clear();
            let _ = ends.give_back.push(received);
        }
    }
    black_box(sum);
}

fn run(way: Way, batch: usize, records: u64) -> Duration {
    let [a, b] = ends();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (core, ends) in [a, b].into_iter().enumerate() {
            scope.spawn(move || {
                cores::pin(core);
                exchange(ends, way, batch, records);
            });
        }
    });
    started.elapsed()
}

fn batches(criterion: &mut Criterion) {
    if cores::available() < 2 {
        return eprintln!("left out: it takes two cores");
    }
    let mut group = criterion.benchmark_group("hand_over");
    group.throughput(Throughput::Elements(RUN));
    for batch in [16usize, 64, 256, 1024] {
        for way in [Way::InPlace, Way::Copied, Way::HandedOver] {
            let apart = || cores::round_trip_ns().unwrap_or(f64::NAN);
            let before = apart();
            group.bench_function(BenchmarkId::new(format!("{way:?}"), batch), |bencher| {
                bencher.iter_custom(|iterations| run(way, batch, iterations * RUN));
            });
            eprintln!(
                "cores apart: {before:.0} ns before, {:.0} ns after",
                apart()
            );
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = batches
}
criterion_main!(benches);
