//! The runtime as its users see it, on every driver that this machine has: isolation of jobs, panics, stalls, cancelling, configuration.

use pelton::source::{Emit, Read, ReadError, Reader, Source};
use pelton::{
    BuildError, Config, Driver, EventTime, Job, JobError, JobHandle, Runtime, Span, Spans,
    Tumbling, Waiting, Watermarks, port::Ports, sink, sources, testing,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Threads, and glommio where it can be had. `refused.rs` sees to it that a refusal says why.
fn drivers() -> Vec<Driver> {
    let mut drivers = vec![Driver::Threads];
    let glommio = Config::default().shards(1).driver(Driver::Glommio);
    match Runtime::start(glommio) {
        Ok(_) => drivers.push(Driver::Glommio),
        Err(why) => eprintln!("only on threads: {why}"),
    }
    drivers
}

/// Shards that share whatever cores there are and sleep as soon as they can: the hardest case for wake-ups.
fn config(driver: Driver, shards: usize) -> Config {
    Config::default()
        .shards(shards)
        .driver(driver)
        .waiting(Waiting::Park { spin_us: 0 })
}

fn start(driver: Driver, shards: usize) -> Runtime {
    let runtime = Runtime::start(config(driver, shards)).unwrap();
    assert_eq!(runtime.driver(), driver);
    runtime
}

/// Sums the numbers below `count` over an exchange; the sum, and what a correct run gives.
fn summing(count: u64) -> (Job, Arc<AtomicU64>, u64) {
    let sum = Arc::new(AtomicU64::new(0));
    let adding = sum.clone();
    let job = Job::new(format!("sum of {count}"));
    job.source(sources::generate("numbers", count, 2, |id| id))
        .rebalance()
        .sink(sink::callback("sum", move |x, _| {
            adding.fetch_add(x, Relaxed);
        }));
    (job, sum, count * count.saturating_sub(1) / 2)
}

/// A source that has nothing, for ever: its shards sleep without a timer.
struct Silent;
struct SilentReader;

impl Source for Silent {
    type Item = u64;
    type Reader = SilentReader;
    fn name(&self) -> String {
        "silence".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<SilentReader>, String> {
        Ok(vec![SilentReader, SilentReader])
    }
}

impl Reader for SilentReader {
    type Item = u64;
    fn name(&self) -> String {
        "none".into()
    }
    fn read<E: Emit<u64>>(&mut self, _: usize, _: &mut E) -> Result<Read, ReadError> {
        Ok(Read::Pending { until_ns: None })
    }
}

fn silent() -> Job {
    let job = Job::new("silent");
    job.source(Silent)
        .rebalance()
        .sink(sink::callback("nothing", |_, _| {}));
    job
}

#[test]
fn jobs_share_the_shards_and_one_that_panics_ends_alone() {
    for driver in drivers() {
        let runtime = start(driver, 2);
        let (one, sum_one, right_one) = summing(300_000);
        let (two, sum_two, right_two) = summing(400_000);
        let bad = Job::new("bad");
        bad.source(sources::generate("numbers", 1_000_000, 2, |id| id))
            .rebalance()
            .map(|x| {
                if x == 77_777 {
                    panic!("seventy-seven")
                } else {
                    x
                }
            })
            .sink(sink::callback("nothing", |_, _| {}));
        let silent = silent();
        let silent = runtime.submit(&silent).unwrap();
        let one = runtime.submit(&one).unwrap();
        let bad = runtime.submit(&bad).unwrap();
        let two = runtime.submit(&two).unwrap();
        assert_eq!(bad.wait().unwrap_err().code(), "PLT-0101");
        assert_eq!(one.wait().unwrap().counters.records_out, 300_000);
        assert_eq!(two.wait().unwrap().counters.records_out, 400_000);
        assert_eq!(sum_one.load(Relaxed), right_one);
        assert_eq!(sum_two.load(Relaxed), right_two);
        // Nobody has noticed, and the runtime takes more.
        let (three, sum_three, right_three) = summing(1_000);
        runtime.submit(&three).unwrap().wait().unwrap();
        assert_eq!(sum_three.load(Relaxed), right_three);
        assert!(!silent.is_over());
        silent.cancel();
        assert_eq!(silent.wait().unwrap_err().code(), "PLT-0106");
    }
}

/// Whether a text names this file and one of the few lines from `line` on: formatting may break what stands there.
fn names(text: &str, line: u32) -> bool {
    (line..line + 8).any(|line| text.contains(&format!("runtime.rs:{line}")))
}

/// Operator, shard, position, message of a panic.
fn panic_of(driver: Driver, job: &Job) -> (String, usize, String, String) {
    match start(driver, 2).submit(job).unwrap().wait() {
        Err(JobError::Panic {
            op,
            shard,
            position,
            message,
            ..
        }) => (op, shard, position, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_names_operator_place_shard_and_record() {
    for driver in drivers() {
        let job = Job::new("source");
        let line = line!() + 1;
        job.source(sources::generate("numbers", 100, 1, |id| {
            if id == 7 { panic!("no seven") } else { id }
        }))
        .sink(sink::callback("nothing", |_, _| {}));
        let (op, shard, position, message) = panic_of(driver, &job);
        assert!(op.contains("source") && names(&op, line), "{op}");
        assert_eq!(shard, 0, "one partition lies on shard 0");
        assert!(position.contains("partition 0"), "{position}");
        assert!(
            message.starts_with("no seven (") && names(&message, line),
            "{message}"
        );

        let job = Job::new("map");
        let numbers = job.source(sources::generate("numbers", 5_000, 1, |id| id));
        let numbers = numbers.key_by_shard();
        let line = line!() + 1;
        numbers
            .map(|x| if x == 2_345 { panic!("map at {x}") } else { x })
            .sink(sink::callback("nothing", |_, _| {}));
        let (op, _, position, message) = panic_of(driver, &job);
        assert!(op.starts_with("map") && names(&op, line), "{op}");
        assert!(
            position.contains("source 0, partition 0, offset"),
            "{position}"
        );
        assert!(message.starts_with("map at 2345"), "{message}");

        let job = Job::new("aggregate");
        let line = line!();
        job.source(sources::generate("numbers", 5_000, 1, |id| id))
            .event_time(
                |x| EventTime::from_micros(*x as i64),
                Watermarks::monotonous(),
            )
            .key_by(|x| x % 10)
            .window(Tumbling::of(1.seconds()))
            .aggregate(|a| {
                a.sum(|x| {
                    if *x == 3_000 {
                        panic!("sum of {x}")
                    } else {
                        *x
                    }
                })
            })
            .sink(sink::callback("nothing", |_, _| {}));
        let (op, shard, position, message) = panic_of(driver, &job);
        assert!(names(&op, line) && op.contains("window"), "{op}");
        assert!(shard < 2);
        assert!(position.contains("offset"), "{position}");
        assert!(message.starts_with("sum of 3000"), "{message}");

        let job = Job::new("sink");
        let numbers = job.source(sources::generate("numbers", 5_000, 2, |id| id));
        let line = line!() + 1;
        numbers.sink(sink::callback("odd one", |x, _| {
            assert_ne!(x, 1_001, "the sink minds")
        }));
        let (op, shard, position, message) = panic_of(driver, &job);
        assert!(
            op.contains("sink") && op.contains("odd one") && names(&op, line),
            "{op}"
        );
        assert_eq!(shard, 1, "odd numbers are partition 1");
        assert!(position.contains("partition 1, offset 1001"), "{position}");
        assert!(message.contains("the sink minds"), "{message}");
    }
}

/// `rebalance` under a name that says what the test above wants of it.
trait KeyByShard<T: Send + 'static> {
    fn key_by_shard(self) -> pelton::Stream<pelton::Inlet<T>>;
}

impl<P: pelton::Pipeline> KeyByShard<P::Item> for pelton::Stream<P> {
    fn key_by_shard(self) -> pelton::Stream<pelton::Inlet<P::Item>> {
        self.rebalance()
    }
}

/// Panics when it is dropped; owned by a closure, it goes when the job's part on a shard goes.
struct Bomb(Arc<AtomicBool>);

impl Clone for Bomb {
    fn clone(&self) -> Self {
        Bomb(self.0.clone())
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0.load(Relaxed) && !std::thread::panicking() {
            panic!("dropped a bomb");
        }
    }
}

#[test]
fn a_panic_while_a_job_is_dropped_ends_that_job_alone() {
    for driver in drivers() {
        let runtime = start(driver, 2);
        let armed = Arc::new(AtomicBool::new(false));
        let bomb = Bomb(armed.clone());
        let job = Job::new("bomb");
        job.source(sources::items(0..10u64))
            .sink(sink::callback("armed", move |_, _| {
                let _owned = &bomb;
                bomb.0.store(true, Relaxed);
            }));
        let error = runtime.submit(&job).unwrap().wait().unwrap_err();
        assert!(
            matches!(&error, JobError::Panic { message, .. } if message.starts_with("dropped a bomb")),
            "{error}"
        );
        armed.store(false, Relaxed);
        let (job, sum, right) = summing(1_000);
        runtime.submit(&job).unwrap().wait().unwrap();
        assert_eq!(sum.load(Relaxed), right);
    }
}

/// A source all of whose records are malformed.
struct Broken;

impl Source for Broken {
    type Item = u64;
    type Reader = BrokenReader;
    fn name(&self) -> String {
        "broken".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<BrokenReader>, String> {
        Ok(vec![BrokenReader(0)])
    }
}

struct BrokenReader(u64);

impl Reader for BrokenReader {
    type Item = u64;
    fn name(&self) -> String {
        "pieces".into()
    }
    fn read<E: Emit<u64>>(&mut self, _: usize, out: &mut E) -> Result<Read, ReadError> {
        self.0 += 1;
        if self.0 > 100 {
            return Ok(Read::End);
        }
        out.malformed(self.0, None, "it is broken", b"?");
        Ok(Read::More)
    }
}

#[test]
fn a_dead_letter_sink_that_panics_ends_its_job_alone() {
    for driver in drivers() {
        let runtime = start(driver, 1);
        let job = Job::new("letters");
        job.source(Broken)
            .sink(sink::callback("nothing", |_, _| {}));
        job.dead_letters_to(sink::callback(
            "letters",
            |letter: pelton::push::DeadLetter, _| {
                assert!(letter.offset < 50, "no more than fifty");
            },
        ));
        let error = runtime.submit(&job).unwrap().wait().unwrap_err();
        let JobError::Panic {
            op,
            position,
            message,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert!(
            op.starts_with("dead letters (letters) at") && position.contains("source 0"),
            "{error}"
        );
        assert!(message.contains("no more than fifty"), "{error}");
        let (job, sum, right) = summing(1_000);
        runtime.submit(&job).unwrap().wait().unwrap();
        assert_eq!(sum.load(Relaxed), right);
    }
}

/// Ends the endless function of a test when it is over, so that no thread spins on.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_function_that_never_returns_is_named_and_hangs_nobody() {
    for driver in drivers() {
        let stall_after = Span::from_micros(300_000);
        let runtime = Runtime::start(config(driver, 2).stall_after(stall_after)).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let _release = Release(over.clone());
        // Shares both shards and can do nothing about it.
        let bystander = runtime.submit(&silent()).unwrap();
        let job = Job::new("endless");
        let numbers = job.source(sources::generate("numbers", 100, 2, |id| id));
        let line = line!() + 1;
        numbers
            .map(move |x| {
                while x == 33 && !over.load(Relaxed) {
                    std::hint::spin_loop();
                }
                x
            })
            .uid("round and round")
            .sink(sink::callback("nothing", |_, _| {}));
        let began = Instant::now();
        let handle = runtime.submit(&job).unwrap();
        let error = handle.wait().unwrap_err();
        assert!(began.elapsed() >= Duration::from_millis(300));
        let JobError::Stalled { stage, shard, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*shard, 1, "33 is odd");
        let map = stage
            .split(" -> ")
            .find(|op| op.starts_with("map 'round and round' at "));
        assert!(map.is_some_and(|map| names(map, line)), "{stage}");

        let error = bystander.wait().unwrap_err();
        let JobError::RuntimeGone { what, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            what.contains("shard 1 has been stuck") && what.contains("round and round"),
            "{error}"
        );

        let began = Instant::now();
        drop(runtime);
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the runtime waits for a stuck shard"
        );
    }
}

#[test]
fn a_shard_that_has_done_its_part_is_not_taken_for_one_that_hangs() {
    for driver in drivers() {
        let stall_after = Span::from_micros(100_000);
        let runtime = Runtime::start(config(driver, 2).stall_after(stall_after)).unwrap();
        // One partition, no exchange: shard 1 is through at once, shard 0 goes on.
        let job = Job::new("lopsided");
        let open = Arc::new(AtomicBool::new(true));
        job.source(sources::items(Until(open.clone())))
            .sink(sink::callback("nothing", |_, _| {}));
        let began = Instant::now();
        let report = runtime
            .submit(&job)
            .unwrap()
            .wait_with(Duration::from_millis(5), |_| {
                if began.elapsed() > Duration::from_millis(500) {
                    open.store(false, Relaxed);
                }
            });
        assert!(report.unwrap().seconds > 0.4);
    }
}

/// Items for as long as the flag is up.
struct Until(Arc<AtomicBool>);

impl Iterator for Until {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        self.0.load(Relaxed).then_some(1)
    }
}

fn wait_soon(handle: JobHandle) -> Result<pelton::JobReport, JobError> {
    let began = Instant::now();
    let result = handle.wait();
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "it ended by some time-out"
    );
    result
}

#[test]
fn a_job_on_sleeping_shards_is_cancelled_at_once() {
    for driver in drivers() {
        let runtime = start(driver, 3);
        for round in 0..200 {
            // With and without others that keep the shards company. No timer runs: only a doorbell can end this.
            let handle = runtime.submit(&silent()).unwrap();
            let other = (round % 2 == 0).then(|| runtime.submit(&silent()).unwrap());
            if round % 3 == 0 {
                std::thread::yield_now();
            }
            handle.cancel();
            assert_eq!(wait_soon(handle).unwrap_err().code(), "PLT-0106");
            if let Some(other) = other {
                assert!(!other.is_over());
                other.cancel();
                assert_eq!(wait_soon(other).unwrap_err().code(), "PLT-0106");
            }
        }
    }
}

#[test]
fn a_job_that_fails_on_one_shard_ends_on_those_that_sleep() {
    for driver in drivers() {
        let runtime = start(driver, 3);
        for _ in 0..50 {
            let (feed, source) = testing::feed::<u64>(1);
            let job = Job::new("one bad shard");
            let numbers = job.source(Silent).rebalance();
            job.source(source)
                .map(|_| -> u64 { panic!("on shard 0") })
                .rebalance()
                .union(numbers)
                .sink(sink::callback("nothing", |_, _| {}));
            feed.push(0, 1);
            let error = wait_soon(runtime.submit(&job).unwrap()).unwrap_err();
            assert!(matches!(error, JobError::Panic { shard: 0, .. }), "{error}");
        }
    }
}

#[test]
fn wake_ups_between_sleeping_shards_are_not_lost() {
    for driver in drivers() {
        let runtime = start(driver, 2);
        for _ in 0..20 {
            // Batches of one and rings of one frame: every record wants both shards woken.
            let (job, sum, right) = summing(2_000);
            wait_soon(runtime.submit(&job).unwrap()).unwrap();
            assert_eq!(sum.load(Relaxed), right);
        }
        drop(runtime);
        let tiny = config(driver, 2).batch_size(1).ring_capacity(1);
        let runtime = Runtime::start(tiny).unwrap();
        let (job, sum, right) = summing(30_000);
        wait_soon(runtime.submit(&job).unwrap()).unwrap();
        assert_eq!(sum.load(Relaxed), right);
    }
}

/// A record each millisecond, and between them nothing but a timer.
struct Ticks;
struct TicksReader {
    left: u64,
    next_ns: u64,
}

impl Source for Ticks {
    type Item = u64;
    type Reader = TicksReader;
    fn name(&self) -> String {
        "ticks".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<TicksReader>, String> {
        Ok(vec![TicksReader {
            left: 40,
            next_ns: 0,
        }])
    }
}

impl Reader for TicksReader {
    type Item = u64;
    fn name(&self) -> String {
        "clock".into()
    }
    fn read<E: Emit<u64>>(&mut self, _: usize, out: &mut E) -> Result<Read, ReadError> {
        if self.left == 0 {
            return Ok(Read::End);
        }
        if out.now_ns() < self.next_ns {
            return Ok(Read::Pending {
                until_ns: Some(self.next_ns),
            });
        }
        self.left -= 1;
        self.next_ns = out.now_ns() + 1_000_000;
        out.emit(self.left, self.left);
        Ok(Read::More)
    }
}

#[test]
fn a_timer_wakes_a_sleeping_shard() {
    for driver in drivers() {
        let runtime = start(driver, 2);
        let job = Job::new("ticks");
        job.source(Ticks)
            .rebalance()
            .sink(sink::callback("nothing", |_, _| {}));
        let began = Instant::now();
        let report = wait_soon(runtime.submit(&job).unwrap()).unwrap();
        assert_eq!(report.counters.records_out, 40);
        // Each wait is of a millisecond; a driver that looks of its own accord once a second would need forty.
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn a_runtime_dropped_under_a_job_ends_it_with_an_error() {
    for driver in drivers() {
        for waiting in [Waiting::Park { spin_us: 0 }, Waiting::Yield, Waiting::Spin] {
            let runtime = Runtime::start(config(driver, 1).waiting(waiting)).unwrap();
            let parked = runtime.submit(&silent()).unwrap();
            let (busy, _, _) = summing(u64::from(u32::MAX));
            let busy = runtime.submit(&busy).unwrap();
            drop(runtime);
            for handle in [parked, busy] {
                let error = wait_soon(handle).unwrap_err();
                assert!(
                    matches!(&error, JobError::RuntimeGone { what, .. } if what.contains("was dropped")),
                    "{error}"
                );
                assert!(error.is_retryable());
            }
        }
    }
}

#[test]
fn every_way_of_waiting_runs_a_job() {
    for driver in drivers() {
        for waiting in [
            Waiting::Spin,
            Waiting::Yield,
            Waiting::Park { spin_us: 0 },
            Waiting::Park { spin_us: u64::MAX },
        ] {
            let runtime = Runtime::start(config(driver, 1).waiting(waiting)).unwrap();
            let (job, sum, right) = summing(10_000);
            wait_soon(runtime.submit(&job).unwrap()).unwrap();
            assert_eq!(sum.load(Relaxed), right);
        }
    }
}

#[test]
fn more_shards_than_cores_share_them_with_a_note() {
    let shards = std::thread::available_parallelism().unwrap().get() + 3;
    for driver in drivers() {
        let runtime = Runtime::start(Config::default().shards(shards).driver(driver)).unwrap();
        assert_eq!(runtime.shards(), shards);
        assert!(
            runtime.notes()[0].contains("are not pinned and park when idle"),
            "{:?}",
            runtime.notes()
        );
        let (job, sum, right) = summing(100_000);
        wait_soon(runtime.submit(&job).unwrap()).unwrap();
        assert_eq!(sum.load(Relaxed), right);
    }
}

#[test]
fn a_report_names_the_longest_step() {
    for driver in drivers() {
        let runtime = start(driver, 2);
        let job = Job::new("slow once");
        let began = Arc::new(Mutex::new(None));
        job.source(sources::generate("numbers", 10, 1, |id| id))
            .rebalance()
            .map(move |x| {
                let began = *began.lock().unwrap().get_or_insert_with(Instant::now);
                while began.elapsed() < Duration::from_millis(30) {
                    std::hint::spin_loop();
                }
                x
            })
            .uid("dawdle")
            .sink(sink::callback("nothing", |_, _| {}));
        let report = runtime.submit(&job).unwrap().wait().unwrap();
        let longest = &report.longest_step;
        assert!(longest.us >= 29_000.0 && longest.shard < 2, "{longest:?}");
        assert!(longest.stage.contains("dawdle"), "{longest:?}");
        assert!(report.stages.iter().any(|s| s.longest_step == *longest));
        assert!(report.stages.iter().all(|s| s.longest_step.us > 0.0));
    }
}

#[test]
fn a_configuration_that_cannot_be_is_refused_with_advice() {
    let refused = |config: Config| match Runtime::start(config) {
        Err(error @ BuildError::Config { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let threads = || Config::default().driver(Driver::Threads);
    let cases = [
        (
            threads().cores([9_999]),
            "[PLT-0009] core 9999 is not among those of this process (0",
        ),
        (
            threads().cores([0, 0]),
            "core 0 is named twice; name each core once, or give shards instead",
        ),
        (
            threads().cores([]),
            "the list of cores is empty; name at least one core",
        ),
        (
            threads().cores([0]).shards(1),
            "both cores and shards are given; give one of them",
        ),
        (
            threads().shards(0),
            "the number of shards is 0; give at least 1",
        ),
        (
            threads().batch_size(0),
            "the batch size is 0; give 1 to 65536 records",
        ),
        (
            threads().batch_size(65_537),
            "the batch size is 65537; give",
        ),
        (
            threads().ring_capacity(0),
            "the ring capacity is 0; give 1 to 65536 frames",
        ),
        (
            threads().ring_capacity(1 << 20),
            "the ring capacity is 1048576",
        ),
        (
            threads().key_groups(0),
            "the number of key groups is 0; give 1 to 65536 groups",
        ),
        (threads().stall_after(Span::ZERO), "give a positive span"),
        (
            threads().stall_after(Span::from_micros(-1)),
            "give a positive span",
        ),
    ];
    for (config, expected) in cases {
        let text = refused(config);
        assert!(
            text.contains(expected),
            "{text:?} does not say {expected:?}"
        );
    }
    #[cfg(not(feature = "glommio"))]
    {
        let text = refused(Config::default().shards(1).driver(Driver::Glommio));
        assert!(
            text.contains("not part of this build") && text.contains("Driver::Auto"),
            "{text}"
        );
        let auto = Runtime::start(Config::default().shards(1)).unwrap();
        assert_eq!((auto.driver(), auto.notes()), (Driver::Threads, &[][..]));
    }
}
