//! What the counting allocator counts. One test: whether a process counts is a property of the whole process.

use pelton_bench::alloc_count::{self, CountingAllocator, HalfwayArm};
use pelton_bench::engine::{LimitVariant, ThroughputConfig};
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn allocate(times: u64) {
    for n in 0..times {
        drop(black_box(Box::new(n)));
    }
}

/// Nanoseconds for each of a million allocations.
fn cost() -> f64 {
    let started = Instant::now();
    allocate(1_000_000);
    started.elapsed().as_nanos() as f64 / 1e6
}

#[test]
fn only_armed_threads_of_a_counting_process_count() {
    let config = ThroughputConfig {
        shards: 1,
        events: 100,
        variant: LimitVariant::Plain,
    };
    let timed = HalfwayArm::new(&config);
    timed.reached(u64::MAX - 1);
    alloc_count::arm_current_thread();
    allocate(10);
    assert_eq!(alloc_count::total(), 0, "the process does not count yet");
    alloc_count::disarm_current_thread();
    println!("not counting: {:.1} ns an allocation", cost());

    alloc_count::start();
    allocate(10);
    assert_eq!(alloc_count::total(), 0, "no thread is armed");
    println!("counting, not armed: {:.1} ns", cost());
    let arm = HalfwayArm::new(&config);
    arm.reached(49);
    allocate(10);
    assert_eq!(alloc_count::reading(), 0);
    arm.reached(50);
    allocate(10);
    let mut grown: Vec<u8> = Vec::with_capacity(1);
    grown.reserve_exact(black_box(100_000));
    assert_eq!((alloc_count::reading(), alloc_count::total()), (12, 12));
    std::thread::spawn(|| allocate(10)).join().unwrap();
    alloc_count::disarm_current_thread();
    let spawning = alloc_count::reading();
    assert_eq!(
        alloc_count::total(),
        spawning,
        "the other thread is not armed"
    );
    allocate(10);
    assert_eq!(alloc_count::reading(), spawning);
}
