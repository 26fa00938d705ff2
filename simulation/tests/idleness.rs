//! Silent partitions. What happens at the instant at which one returns depends on processing time (class EXEMPT), so
//! these jobs are stepped by hand; everything else still holds: M <= V(r), and every record is counted or late.

use pelton::testing::{Collected, Feed, Sizes, Stepper, collect, feed};
use pelton::{Bounded, EventTime, Job, Span, Tumbling, Watermarks};
use pelton_simulation::cases::{each_drawn, numbers};
use pelton_simulation::compare::check_silent;
use pelton_simulation::random::Random;
use pelton_simulation::spec::{Case, KindName};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const SECOND: Span = Span::from_micros(1_000_000);
const TWO_SECONDS: Span = Span::from_micros(2_000_000);
const SIZE: i64 = 10;

/// (time, key)
type Item = (i64, u32);

struct Fixture {
    feed: Feed<Item>,
    results: Collected<(i64, u32, u64)>,
    late: Collected<Item>,
    stepper: Stepper,
    blocked: Arc<AtomicBool>,
}

fn times(bound: i64) -> Watermarks<Bounded> {
    Watermarks::bounded(Span::from_micros(bound))
}

/// Counts per key in windows of [`SIZE`]: rows are (start, key, count).
fn windows(partitions: usize, sizes: Sizes, strategy: Watermarks<Bounded>) -> Fixture {
    let (feed, source) = feed::<Item>(partitions);
    let (results, rows) = collect();
    let (late, late_to) = collect();
    let blocked = rows.switch();
    let job = Job::new("idle");
    job.source(source)
        .event_time(|r| EventTime::from_micros(r.0), strategy)
        .key_by(|r| r.1)
        .window(Tumbling::of(Span::from_micros(SIZE)))
        .late_to(late_to)
        .aggregate(|a| a.count())
        .map(|w| (w.window.start.micros(), w.key, w.value))
        .sink(rows);
    let stepper = Stepper::with(&job, sizes).unwrap();
    Fixture {
        feed,
        results,
        late,
        stepper,
        blocked,
    }
}

impl Fixture {
    fn push(&self, partition: usize, times: &[i64]) {
        for &time in times {
            self.feed.push(partition, (time, 7));
        }
    }

    fn settle(&mut self) -> Vec<(i64, u32, u64)> {
        self.stepper.until_idle().unwrap();
        let mut rows = self.results.take();
        rows.sort_unstable();
        rows
    }

    fn silence(&mut self, of: Span) -> Vec<(i64, u32, u64)> {
        self.stepper.advance_clock(of);
        self.settle()
    }

    fn sound(&self) {
        assert_eq!(self.stepper.counters().invariant_broken, 0);
    }
}

fn each_shard_count(test: impl Fn(Sizes)) {
    for shards in [1, 2, 3, 8] {
        test(Sizes::shards(shards));
    }
}

#[test]
fn a_silent_partition_stops_holding_windows_back() {
    each_shard_count(|sizes| {
        let mut f = windows(3, sizes, times(0).idle_after(SECOND));
        f.push(0, &[1, 25]);
        f.push(1, &[2]);
        f.feed.close(2);
        assert_eq!(f.settle(), [], "partition 1 stands at 2");
        f.stepper.advance_clock(Span::from_micros(999_999));
        f.push(0, &[26]);
        assert_eq!(f.settle(), [], "not silent for long enough");
        f.stepper.advance_clock(Span::from_micros(1));
        assert_eq!(f.settle(), [(0, 7, 2)], "M is partition 0's 26");
        f.sound();
    });
}

#[test]
fn it_returns_with_the_watermark_of_that_instant_as_its_floor() {
    each_shard_count(|sizes| {
        let mut f = windows(2, sizes, times(0).idle_after(SECOND));
        f.push(0, &[1, 25]);
        f.push(1, &[2]);
        f.settle();
        f.stepper.advance_clock(Span::from_micros(600_000));
        f.push(0, &[26]);
        f.settle();
        assert_eq!(f.silence(Span::from_micros(600_000)), [(0, 7, 2)]);
        // V = max(generator, floor 26): 5 and 19 are late, 21 is behind but its window is open, 30 is on time.
        f.push(1, &[5, 21, 19, 30]);
        assert_eq!(f.settle(), []);
        assert_eq!(f.late.take(), [(5, 7), (19, 7)]);
        // The floor holds until the partition's own watermark has passed it: M does not fall, and 33 is needed of both.
        f.push(0, &[41]);
        assert_eq!(f.settle(), [(20, 7, 3)], "M is 30");
        f.push(1, &[29]);
        f.settle();
        assert_eq!(f.late.take(), [(29, 7)]);
        f.sound();
    });
}

#[test]
fn when_all_are_silent_open_windows_close() {
    each_shard_count(|sizes| {
        let strategy = times(5).idle_after(SECOND).close_after_idle(TWO_SECONDS);
        let mut f = windows(2, sizes, strategy);
        f.push(0, &[1, 25]);
        f.push(1, &[2, 12]);
        assert_eq!(f.settle(), []);
        // Idle: M is the furthest of them, 20.
        assert_eq!(f.silence(SECOND), [(0, 7, 2), (10, 7, 1)]);
        assert_eq!(f.silence(SECOND), [(20, 7, 1)], "closed by the rule");
        // What comes now into a closed window is late; later windows are open.
        f.push(1, &[24, 31]);
        assert_eq!(f.settle(), []);
        assert_eq!(f.late.take(), [(24, 7)]);
        f.feed.close(0);
        f.feed.close(1);
        f.stepper.run().unwrap();
        assert_eq!(f.settle(), [(30, 7, 1)]);
        f.sound();
    });
}

#[test]
fn windows_behind_windows_close_as_well() {
    for shards in [1, 2, 3, 8] {
        let (feed, source) = feed::<Item>(2);
        let (results, rows) = collect();
        let job = Job::new("idle");
        job.source(source)
            .event_time(
                |r| EventTime::from_micros(r.0),
                times(5).close_after_idle(SECOND),
            )
            .key_by(|r| r.1)
            .window(Tumbling::of(Span::from_micros(SIZE)))
            .aggregate(|a| a.count())
            .key_by(|w| w.key % 2)
            .window(Tumbling::of(Span::from_micros(100)))
            .aggregate(|a| a.sum(|w| w.value))
            .map(|w| (w.window.start.micros(), w.key, w.value))
            .sink(rows);
        let mut stepper = Stepper::new(&job, shards).unwrap();
        for key in 0..10 {
            feed.push(key as usize % 2, (i64::from(key), key));
        }
        stepper.until_idle().unwrap();
        assert_eq!(results.take(), []);
        for _ in 0..4 {
            stepper.advance_clock(SECOND);
            stepper.until_idle().unwrap();
        }
        let mut rows = results.take();
        rows.sort_unstable();
        assert_eq!(rows, [(0, 0, 5), (0, 1, 5)], "on {shards} shards");
        assert_eq!(stepper.counters().invariant_broken, 0);
    }
}

#[test]
fn back_pressure_is_not_silence() {
    each_shard_count(|sizes| {
        let sizes = Sizes {
            batch_size: 4,
            ring_capacity: 2,
            ..sizes
        };
        let strategy = times(0).idle_after(SECOND).close_after_idle(SECOND);
        let mut f = windows(2, sizes, strategy);
        f.blocked.store(true, Relaxed);
        for n in 0..2_000 {
            // Partition 1 lags behind.
            f.push(0, &[1_000 + n * 7]);
            f.push(1, &[n * 7]);
        }
        f.feed.close(0);
        f.feed.close(1);
        for _ in 0..10 {
            f.settle();
            f.stepper.advance_clock(SECOND);
        }
        f.blocked.store(false, Relaxed);
        f.stepper.run().unwrap();
        let counted: u64 = f.results.take().iter().map(|r| r.2).sum();
        assert_eq!((counted, f.late.take()), (4_000, vec![]), "{sizes:?}");
        f.sound();
    });
}

#[test]
fn a_partition_that_alignment_holds_is_not_silent() {
    each_shard_count(|sizes| {
        let sizes = Sizes {
            batch_size: 2,
            ..sizes
        };
        let strategy = times(0).idle_after(SECOND).max_drift(Span::from_micros(5));
        let mut f = windows(2, sizes, strategy);
        // Partition 0 is far ahead and must wait for longer than a silence; the other, never without data, then leaps
        // over it.
        f.push(0, &[50, 60, 61, 62, 63]);
        for n in 0..1200 {
            f.push(1, &[n / 40]);
        }
        for _ in 0..40 {
            (0..f.stepper.tasklets()).for_each(|t| assert!(f.stepper.step(t).is_ok()));
            f.stepper.advance_clock(Span::from_micros(100_000));
        }
        f.push(1, &[300, 301, 302]);
        f.feed.close(0);
        f.feed.close(1);
        f.stepper.run().unwrap();
        assert_eq!(f.late.take(), [], "{sizes:?}");
        f.sound();
    });
}

/// Partitions fall silent and return at random: nothing is lost, nothing counted twice, and M <= V(r).
#[test]
fn silence_at_random() {
    for seed in numbers(60) {
        let r = &mut Random::new(seed);
        let sizes = Sizes {
            shards: r.pick(&[1, 2, 3, 8]),
            batch_size: r.pick(&[1, 5, 100]),
            ring_capacity: r.between(2, 16) as usize,
            key_groups: 256,
        };
        let mut strategy = times(r.pick(&[0, 10])).idle_after(SECOND);
        if r.one_in(2) {
            strategy = strategy.close_after_idle(r.pick(&[SECOND, TWO_SECONDS]));
        }
        let partitions = r.between(1, 5) as usize;
        let mut f = windows(partitions, sizes, strategy);
        let mut front = vec![0; partitions];
        let mut pushed = 0;
        for _ in 0..r.between(1, 40) {
            let p = r.below(partitions);
            for _ in 0..r.between(0, 6) {
                front[p] += r.between(-5, 20);
                f.feed.push(p, (front[p], r.below(5) as u32));
                pushed += 1;
            }
            if r.one_in(3) {
                f.stepper.until_idle().unwrap();
            }
            for _ in 0..r.between(0, 20) {
                let tasklet = r.below(f.stepper.tasklets());
                f.stepper.step(tasklet).unwrap();
            }
            if r.one_in(3) {
                f.stepper
                    .advance_clock(Span::from_micros(r.between(0, 1_500_000)));
            }
        }
        (0..partitions).for_each(|p| f.feed.close(p));
        f.stepper.run().unwrap();
        let rows = f.results.take();
        let counted: u64 = rows.iter().map(|r| r.2).sum();
        assert_eq!(counted + f.late.take().len() as u64, pushed, "seed {seed}");
        let mut windows: Vec<_> = rows.iter().map(|r| (r.0, r.1)).collect();
        windows.sort_unstable();
        windows.dedup();
        assert_eq!(
            windows.len(),
            rows.len(),
            "seed {seed}: a window fired twice"
        );
        f.sound();
    }
}

/// The same of drawn jobs of every kind whose records are accounted for.
#[test]
fn silence_in_drawn_jobs() {
    let kinds = [
        KindName::Tumbling,
        KindName::Sliding,
        KindName::Session,
        KindName::Ordered,
        KindName::Process,
    ];
    let seeds = numbers(100);
    let cases = seeds.end - seeds.start;
    let mut others = 0;
    let draw = |seed| Case::silent(seed, &kinds);
    each_drawn("silence_in_drawn_jobs", seeds, draw, |case| {
        others += check_silent(case)?;
        Ok(())
    });
    // Each case is run four times.
    assert!(
        cases < 50 || others > cases / 5,
        "silence mattered in {others} runs of {cases} cases"
    );
}
