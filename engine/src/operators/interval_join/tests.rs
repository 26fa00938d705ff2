use super::log::{self, PAGE};
use super::*;
use crate::join::Between;
use crate::key::Computed;
use crate::plan::{Plan, PlanConfig};
use crate::testing::{self, Sizes, Stepper};
use crate::{BuildError, Job, Spans, Tumbling, Watermarks};
use proptest::prelude::*;

/// (time, key, value)
pub(super) type Record = (i64, u8, i64);
/// The records of a row, and its time.
pub(super) type Row = ((Option<Record>, Option<Record>), i64);
pub(super) type Pair = (Option<Record>, Option<Record>);

/// What a case is: records of each side by partition, in order.
#[derive(Clone, Debug)]
struct Case {
    left: Vec<Vec<Record>>,
    right: Vec<Vec<Record>>,
    bounds: (i64, i64),
    exclusive: (bool, bool),
    outer: [bool; 2],
    bound: i64,
    lateness: i64,
}

/// The judge: keeps everything and compares everything with everything.
struct Judge {
    rows: Vec<Row>,
    late: [Vec<Record>; 2],
}

impl Case {
    /// The records of a side that count, and those that are late.
    fn judged(&self, side: &[Vec<Record>]) -> (Vec<Record>, Vec<Record>) {
        let (mut counted, mut late) = (vec![], vec![]);
        for partition in side {
            let mut v = i64::MIN;
            for &r in partition {
                match r.0 < v && r.0 + self.lateness < v {
                    true => late.push(r),
                    false => counted.push(r),
                }
                v = v.max(r.0 - self.bound);
            }
        }
        late.sort();
        (counted, late)
    }

    fn meet(&self, l: &Record, r: &Record) -> bool {
        let apart = r.0 - l.0;
        let above = match self.exclusive.0 {
            true => apart > self.bounds.0,
            false => apart >= self.bounds.0,
        };
        let below = match self.exclusive.1 {
            true => apart < self.bounds.1,
            false => apart <= self.bounds.1,
        };
        l.1 == r.1 && above && below
    }

    fn judge(&self) -> Judge {
        let (left, late_left) = self.judged(&self.left);
        let (right, late_right) = self.judged(&self.right);
        let mut rows = vec![];
        for l in &left {
            let met = right.iter().filter(|r| self.meet(l, r));
            let before = rows.len();
            rows.extend(met.map(|r| ((Some(*l), Some(*r)), l.0.max(r.0))));
            if rows.len() == before && self.outer[0] {
                rows.push(((Some(*l), None), l.0));
            }
        }
        for r in &right {
            if self.outer[1] && !left.iter().any(|l| self.meet(l, r)) {
                rows.push(((None, Some(*r)), r.0));
            }
        }
        rows.sort();
        Judge {
            rows,
            late: [late_left, late_right],
        }
    }
}

struct Ran {
    rows: Vec<Row>,
    /// The rows as a stream in event-time order has them.
    ordered: Vec<Pair>,
    late: [Vec<Record>; 2],
}

/// Runs a case with tasklets chosen by `order`.
fn run(case: &Case, sizes: Sizes, order: &[usize]) -> Ran {
    let (lefts, left) = testing::feed::<Record>(case.left.len());
    let (rights, right) = testing::feed::<Record>(case.right.len());
    let (results, sink) = testing::collect();
    let (ordered, ordered_sink) = testing::collect();
    let (behind, behind_sink) = testing::collect();
    let (late_left, late_left_sink) = testing::collect();
    let (late_right, late_right_sink) = testing::collect();
    let job = Job::new("interval join");
    let watermarks = || Watermarks::bounded(case.bound.micros());
    let at = |r: &Record| EventTime::from_micros(r.0);
    let left = job.source(left).event_time(at, watermarks());
    let right = job.source(right).event_time(at, watermarks());
    let between = Between::of(case.bounds.0.micros(), case.bounds.1.micros());
    let mut join = left
        .key_by(|r| r.1)
        .interval_join(right.key_by(|r| r.1), between)
        .allowed_lateness(case.lateness.micros())
        .late_left_to(late_left_sink)
        .late_right_to(late_right_sink)
        .uid("join");
    if case.exclusive.0 {
        join = join.lower_exclusive();
    }
    if case.exclusive.1 {
        join = join.upper_exclusive();
    }
    macro_rules! rest {
        ($rows:expr) => {{
            let [stream, to_order, to_window] = $rows.fork();
            stream.sink(sink);
            to_order.in_event_time_order().records().sink(ordered_sink);
            to_window
                .key_by(|_| 0u8)
                .window(Tumbling::of(7.micros()))
                .aggregate(|a| a.count())
                .sink(behind_sink);
        }};
    }
    match case.outer {
        [false, false] => rest!(join.inner(|l, r| (Some(*l), Some(*r)))),
        [true, false] => rest!(join.left_outer(|l, r| (Some(*l), r.copied()))),
        [false, true] => rest!(join.right_outer(|l, r| (l.copied(), Some(*r)))),
        [true, true] => rest!(join.full_outer(|l, r| (l.copied(), r.copied()))),
    }
    let mut stepper = Stepper::with(&job, sizes).unwrap();
    for (feed, side) in [(&lefts, &case.left), (&rights, &case.right)] {
        for (p, records) in side.iter().enumerate() {
            records.iter().for_each(|&r| feed.push(p, r));
        }
    }
    drop((lefts, rights));
    let mut turn = 0;
    let choose = |n: usize| {
        turn += 1;
        (order[turn % order.len()] + turn / order.len()) % n
    };
    stepper.run_with(choose).unwrap();
    let timed = results.take_timed().into_iter();
    let mut rows: Vec<Row> = timed.map(|(r, t)| (r, t.micros())).collect();
    rows.sort();
    let mut late = [late_left.take(), late_right.take()];
    late.iter_mut().for_each(|late| late.sort());
    let counters = stepper.counters();
    assert_eq!(counters.invariant_broken, 0);
    // Neither the window nor the order behind has found a row late: law 4.
    assert_eq!(counters.late as usize, late[0].len() + late[1].len());
    let counted: u64 = behind.take().iter().map(|w| w.value).sum();
    assert_eq!(counted, rows.len() as u64);
    Ran {
        rows,
        ordered: ordered.take(),
        late,
    }
}

fn check(case: &Case, sizes: Sizes, order: &[usize]) {
    let judge = case.judge();
    let ran = run(case, sizes, order);
    assert_eq!(ran.late, judge.late, "late");
    assert_eq!(ran.rows, judge.rows);
    // Law 5.
    let alone = run(case, Sizes::shards(1), &[0]);
    assert_eq!(ran.ordered, alone.ordered);
}

fn side(records: usize) -> impl Strategy<Value = Vec<Vec<Record>>> {
    let record = (0i64..40, 0u8..3, 0i64..4);
    let partition = prop::collection::vec(record, 0..records);
    prop::collection::vec(partition, 1..4)
}

/// Dense enough that bounds are met exactly and pages go; somewhere in the range of time.
fn case() -> impl Strategy<Value = Case> {
    (
        (side(60), side(60)),
        (-30i64..30, 0i64..40),
        any::<[bool; 4]>(),
        0i64..12,
        prop_oneof![Just(0i64), 1i64..40],
        prop::sample::select(vec![0, -(1 << 62), (1 << 62) - 500, -7_000_000]),
        (1i64..5, 1i64..5),
    )
        .prop_map(
            |((left, right), (lower, length), flags, bound, lateness, base, paces)| {
                let place = |side: Vec<Vec<Record>>, pace: i64| {
                    let at = |(n, r): (usize, Record)| (base + n as i64 * pace + r.0, r.1, r.2);
                    let all = side.into_iter();
                    all.map(|p| p.into_iter().enumerate().map(at).collect())
                        .collect()
                };
                // An interval that holds something, whatever is excluded.
                let length = length.max(i64::from(flags[0]) + i64::from(flags[1]));
                Case {
                    left: place(left, paces.0),
                    right: place(right, paces.1),
                    bounds: (lower, lower + length),
                    exclusive: (flags[0], flags[1]),
                    outer: [flags[2], flags[3]],
                    bound,
                    lateness,
                }
            },
        )
}

pub(super) fn cases() -> u32 {
    std::env::var("PELTON_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn rows_are_what_comparing_all_gives(
        case in case(),
        shards in prop::sample::select(vec![1usize, 2, 3, 8]),
        batch_size in 1usize..90,
        order in prop::collection::vec(0usize..64, 1..50),
    ) {
        let sizes = Sizes { batch_size, ring_capacity: 4, ..Sizes::shards(shards) };
        check(&case, sizes, &order);
    }
}

/// A join on one shard that is driven by hand.
pub(super) struct Machine<Op> {
    pub(super) op: Op,
    pub(super) cx: Cx,
    pub(super) out: Out,
}

#[derive(Default)]
pub(super) struct Out {
    pub(super) rows: Vec<Row>,
    pub(super) blocked: bool,
}

impl Push<Pair> for Out {
    fn push(&mut self, row: Pair, stamp: Stamp, _: &mut Cx) {
        assert_eq!(stamp.behind, None);
        self.rows.push((row, stamp.time.micros()));
    }
    fn control(&mut self, _: Control, _: &mut Cx) {}
    fn blocked(&self) -> bool {
        self.blocked
    }
}

pub(super) fn key() -> impl KeyOf<Sides<Record, Record>, Key = u8> {
    Computed(|r: &Sides<Record, Record>| match r {
        Sides::Left(r) | Sides::Right(r) => r.1,
    })
}

fn row(l: Option<&Record>, r: Option<&Record>) -> Pair {
    (l.copied(), r.copied())
}

#[allow(clippy::type_complexity)]
pub(super) fn machine(
    lower: i64,
    upper: i64,
    outer: [bool; 2],
) -> Machine<
    IntervalJoinOp<
        Record,
        Record,
        impl KeyOf<Sides<Record, Record>, Key = u8>,
        impl Fn(Option<&Record>, Option<&Record>) -> Pair + Clone + Send + 'static,
        Pair,
    >,
> {
    let config = PlanConfig {
        shards: 1,
        ring_capacity: 4,
        batch_size: 16,
        key_groups: 16,
        checkpoints: false,
    };
    let mut make = MakeIntervalJoin {
        key: key(),
        f: row,
        rule: Rule {
            lower,
            upper,
            lateness: Span::ZERO,
            outer,
        },
        late_left: None,
        late_right: None,
        op: OpId(0),
        row: PhantomData,
    };
    let op = Plan::default().alone(&config, 0, |build| make.make(build));
    Machine {
        op: op.unwrap(),
        cx: Cx::new(0),
        out: Out::default(),
    }
}

impl<Op: Operator<Sides<Record, Record>, Out = Pair>> Machine<Op> {
    /// Gives it records; how many calls that took.
    pub(super) fn take(
        &mut self,
        records: impl IntoIterator<Item = Sides<Record, Record>>,
    ) -> usize {
        let mut batch = Batch::with_capacity(16);
        for record in records {
            let (Sides::Left(r) | Sides::Right(r)) = record;
            batch.push(record, Stamp::at(EventTime::from_micros(r.0)));
        }
        for call in 1.. {
            self.op.batch(&mut batch, &mut self.out, &mut self.cx);
            if batch.is_empty() {
                return call;
            }
        }
        unreachable!()
    }

    /// Tells it M; how many pieces it took.
    pub(super) fn watermark(&mut self, time: i64) -> usize {
        let time = EventTime::from_micros(time);
        self.op.watermark(time, &mut self.out, &mut self.cx);
        let resumed = (1..).find(|_| self.op.resume(&mut self.out, &mut self.cx));
        resumed.unwrap()
    }

    pub(super) fn rows(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.out.rows)
    }

    /// Entries of the left, the right, and keys.
    pub(super) fn entries(&self) -> [u64; 3] {
        let mut sizes = vec![];
        self.op.sizes(&mut sizes);
        [0, 1, 2].map(|n| sizes[n].2.entries)
    }
}

pub(super) fn l(t: i64, k: u8) -> Sides<Record, Record> {
    Sides::Left((t, k, 0))
}

pub(super) fn r(t: i64, k: u8) -> Sides<Record, Record> {
    Sides::Right((t, k, 0))
}

#[test]
fn a_pair_comes_once_with_the_greater_time_whoever_comes_second() {
    for turn in [false, true] {
        let mut m = machine(-2, 3, [true, true]);
        let (lefts, rights) = ([l(10, 1)], [7, 8, 13, 14].map(|t| r(t, 1)));
        if turn {
            m.take(rights);
            m.take(lefts);
        } else {
            m.take(lefts);
            m.take(rights);
        }
        let pair = |t: i64| ((Some((10, 1, 0)), Some((t, 1, 0))), t.max(10));
        let mut rows = m.rows();
        rows.sort();
        assert_eq!(rows, [pair(8), pair(13)]);
        // The others leave alone, in the order of time, a right above t + 2.
        m.watermark(9);
        assert_eq!(m.rows(), []);
        m.watermark(10);
        assert_eq!(m.rows(), [((None, Some((7, 1, 0))), 7)]);
        m.watermark(i64::MAX);
        assert_eq!(m.rows(), [((None, Some((14, 1, 0))), 14)]);
        assert_eq!(m.entries(), [0, 0, 0]);
    }
}

#[test]
fn a_record_that_nothing_can_meet_any_more_leaves_at_once() {
    // Rights lie 5 to 9 before their left: a left is never kept once M is above t - 5.
    let mut m = machine(-9, -5, [true, true]);
    m.take([r(20, 1)]);
    m.watermark(22);
    m.take([l(26, 1), l(27, 2), l(22, 3)]);
    let alone = |t, k| ((Some((t, k, 0)), None), t);
    let pair = ((Some((26, 1, 0)), Some((20, 1, 0))), 26);
    assert_eq!(m.rows(), [pair, alone(22, 3)]);
    // Neither the first nor the last is there, and no key for the last.
    assert_eq!(m.entries(), [1, 1, 2]);
    m.watermark(23);
    assert_eq!(m.rows(), [alone(27, 2)]);
    assert_eq!(m.entries(), [0, 1, 1]);
    m.watermark(30);
    assert_eq!(m.rows(), []);
    assert_eq!(m.entries(), [0, 0, 0]);
}

#[test]
fn a_record_of_many_partners_is_taken_in_pieces() {
    let mut m = machine(0, 1_000, [false, true]);
    m.take((0..200).map(|t| l(t, 1)));
    let calls = m.take([r(500, 1), r(501, 1)]);
    let each = (STEPS * ROUNDS) as usize;
    assert_eq!(calls, 1 + 400 / each);
    assert_eq!(m.rows().len(), 400);
    // Its outputs are full: less in each call, and nothing twice.
    m.out.blocked = true;
    let calls = m.take([r(502, 1), r(100, 1)]);
    assert!(calls > 200 / STEPS as usize, "{calls} calls");
    assert_eq!(m.rows().len(), 200 + 101);
    // What comes deep into a chain is in its place.
    m.out.blocked = false;
    m.take([l(100, 1), l(50, 1)]);
    assert_eq!(m.rows().len(), 4 + 4);
    m.take([r(75, 1)]);
    assert_eq!(m.rows().len(), 76 + 1);
}

#[test]
fn memory_stays_flat_and_keys_go() {
    let mut m = machine(-10, 10, [true, true]);
    let mut most = [0; 3];
    for t in 0..4_000 {
        // Each key comes for a while only; time wanders.
        let key = (t / 10 % 250) as u8;
        m.take([l(t + t % 7, key), r(t - t % 5 + 4, key)]);
        m.watermark(t);
        let entries = m.entries();
        (0..3).for_each(|n| most[n] = most[n].max(entries[n]));
    }
    // Two pages that are held up and one that is being filled, about.
    assert!(most[0].max(most[1]) < 4 * PAGE as u64 + 20, "{most:?}");
    assert!(most[2] <= 12, "{most:?}");
    let pages = m.op.left.log.id_end() as usize / PAGE;
    assert!(pages <= 6, "{pages} pages");
    m.watermark(i64::MAX);
    assert_eq!(m.entries(), [0, 0, 0]);
}

#[test]
fn one_record_far_ahead_holds_up_nothing() {
    let mut m = machine(0, 10, [true, false]);
    let far = 1 << 50;
    m.take([l(far, 1), l(far + 1, 2), l(far - 1, 1), l(5, 1)]);
    let mut most = 0;
    for t in 0..3_000 {
        m.take([l(t, (t % 3) as u8)]);
        m.watermark(t);
        most = most.max(m.op.left.log.span());
    }
    assert!(most < 12, "{most} pages");
    m.rows();
    // They meet after all, once each, and tell whether they have.
    m.take([r(far, 1), r(far + 1, 1)]);
    let pair = |l, r| ((Some((far + l, 1, 0)), Some((far + r, 1, 0))), far + r);
    assert_eq!(m.rows(), [pair(0, 0), pair(-1, 0), pair(0, 1), pair(-1, 1)]);
    m.watermark(i64::MAX - 1);
    let left: Vec<_> = m
        .rows()
        .into_iter()
        .filter(|row| row.1 >= far - 1)
        .collect();
    assert_eq!(left, [((Some((far + 1, 2, 0)), None), far + 1)]);
    assert_eq!(m.entries(), [0, 0, 0]);
}

#[test]
fn page_numbers_may_come_to_their_end() {
    let mut m = machine(0, 40, [true, true]);
    let end = u64::from(log::MASK);
    m.op.left.log.serials_from(3 * (end + 1) - 10);
    m.op.right.log.serials_from(end - 5);
    for t in 0..1_000 {
        m.take([l(t, 1), r(t, 1)]);
        m.watermark(t);
        assert_eq!(m.rows().len() as i64, 1 + t.min(40), "at {t}");
    }
    assert!(m.op.right.log.next_serial() > end);
}

/// What is due by the clock's rule is told when it can be.
#[test]
fn silence_lets_out_those_that_are_alone() {
    let mut m = machine(-2, 3, [true, false]);
    assert_eq!(m.op.close_idle(), None);
    m.take([l(10, 1), l(4, 1), r(100, 1)]);
    let close = m.op.close_idle().unwrap();
    assert_eq!(close.micros(), 14);
    m.watermark(13);
    assert_eq!(m.rows(), [((Some((4, 1, 0)), None), 4)]);
    m.watermark(14);
    assert_eq!(m.rows(), [((Some((10, 1, 0)), None), 10)]);
    assert_eq!(m.op.close_idle(), None);
}

#[test]
fn what_makes_no_sense_is_refused() {
    type Set = fn(i64, i64) -> Result<Stepper, BuildError>;
    fn job(
        lower: i64,
        upper: i64,
        timed: bool,
        exclusive: bool,
        lateness: i64,
    ) -> Result<Stepper, BuildError> {
        let job = Job::new("bad");
        let (_, sink) = testing::collect();
        let at = |r: &Record| EventTime::from_micros(r.0);
        let between = Between::of(lower.micros(), upper.micros());
        let source = || job.source(crate::sources::items(Vec::<Record>::new()));
        macro_rules! join {
            ($left:expr, $right:expr) => {{
                let join = $left
                    .key_by(|r| r.1)
                    .interval_join($right.key_by(|r| r.1), between);
                let join = join.allowed_lateness(lateness.micros());
                let join = match exclusive {
                    true => join.lower_exclusive().upper_exclusive(),
                    false => join,
                };
                join.inner(|l, r| (*l, *r)).sink(sink);
            }};
        }
        match timed {
            true => join!(
                source().event_time(at, Watermarks::monotonous()),
                source().event_time(at, Watermarks::monotonous())
            ),
            false => join!(source(), source()),
        }
        Stepper::new(&job, 1)
    }
    let fine: [Set; 3] = [
        |a, b| job(a, b, true, false, 0),
        |a, b| job(a, b + 2, true, true, 0),
        |a, b| job(a, b, true, false, 5),
    ];
    for set in fine {
        assert!(set(-3, -3).is_ok() && set(5, 7).is_ok());
    }
    let wrong: [(Set, &str); 5] = [
        (
            |a, b| job(b, a, true, false, 0),
            "nothing lies in the interval [1us, 0s]",
        ),
        (
            |a, b| job(a, b, true, true, 0),
            "nothing lies in the interval (0s, 1us)",
        ),
        (
            |a, b| job(a, b, true, false, -1),
            "allowed lateness is -1us",
        ),
        (
            |a, _| job(a, i64::MAX, true, false, 0),
            "bounds of the interval",
        ),
        (|a, b| job(a, b, false, false, 0), "event time"),
    ];
    for (set, what) in wrong {
        let refused = set(0, 1).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains(what), "{what}: {refused}");
    }
}
