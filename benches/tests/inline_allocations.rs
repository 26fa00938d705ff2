//! What a call of an inline job allocates once its buffers have grown: nothing. One test: whether a process counts is a property of the whole
//! process.

use pelton::{EventTime, Inline, Spans, Tumbling, Watermarks};
use pelton_bench::alloc_count::{self, CountingAllocator};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations of a thousand calls behind as many.
fn allocations(mut call: impl FnMut(i64)) -> u64 {
    (0..1_000).for_each(&mut call);
    let before = alloc_count::reading();
    alloc_count::arm_current_thread();
    (1_000..2_000).for_each(&mut call);
    alloc_count::disarm_current_thread();
    alloc_count::reading() - before
}

#[test]
fn a_call_allocates_nothing() {
    alloc_count::start();
    let mut squares = Inline::<i64, i64>::new("squares", |job, source, sink| {
        job.source(source).map(|n| n * n).sink(sink);
    })
    .unwrap();
    let stateless = allocations(|n| assert_eq!(squares.push(n).unwrap().next(), Some(n * n)));
    let mut totals = Inline::<i64, i64>::new("totals", |job, source, sink| {
        job.source(source)
            .key_by(|n| n % 10)
            .running(|a| a.count())
            .map(|t| t.value as i64)
            .sink(sink);
    })
    .unwrap();
    let keyed = allocations(|n| {
        let counted = totals.push(n).unwrap().next();
        assert_eq!(counted, Some(n / 10 + 1));
    });
    let mut windows = Inline::<i64, i64>::new("windows", |job, source, sink| {
        job.source(source)
            .event_time(|n| EventTime::from_seconds(*n), Watermarks::monotonous())
            .key_by(|n| n % 10)
            .window(Tumbling::of(100.seconds()))
            .aggregate(|a| a.count())
            .map(|w| w.value as i64)
            .sink(sink);
    })
    .unwrap();
    let mut fired = 0;
    let windowed = allocations(|n| fired += windows.push(n).unwrap().len());
    assert_eq!(fired, 19 * 10);
    println!(
        "allocations of 1000 calls: stateless {stateless}, keyed {keyed}, windowed {windowed}"
    );
    assert_eq!((stateless, keyed), (0, 0));
}
