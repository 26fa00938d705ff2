use super::state::FEW;
use super::*;
use crate::key_order;
use crate::push::Control;
use crate::testing::{self, Sizes, Stepper};
use crate::time::Span;
use crate::window::{Firing, LateMode};
use crate::{Job, Spans, Tumbling, Watermarks};
use proptest::prelude::*;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// (time, key, value)
type Record = (i64, u8, i64);
/// (key, start, end, (count, sum, first time))
type Row = (u8, i64, i64, (u64, i64, i64));

/// What a case is: records by partition, in order.
#[derive(Clone, Debug)]
struct Case {
    partitions: Vec<Vec<Record>>,
    gap: i64,
    /// Gaps differ from record to record, up to `gap`.
    by_record: bool,
    bound: i64,
    lateness: i64,
}

impl Case {
    /// When this record's interval ends.
    fn end(&self, r: &Record) -> i64 {
        r.0 + if self.by_record {
            1 + r.2 % self.gap
        } else {
            self.gap
        }
    }
}

/// The judge: keeps everything, sorts, merges.
struct Judge {
    on_time: Vec<Record>,
    /// Behind, but counted.
    parked: Vec<Record>,
    late: Vec<Record>,
}

impl Judge {
    fn new(case: &Case, mode: Mode) -> Self {
        let mut judge = Judge {
            on_time: vec![],
            parked: vec![],
            late: vec![],
        };
        for partition in &case.partitions {
            let mut v = i64::MIN;
            for &r in partition {
                let counts = match mode {
                    Mode::Append => false,
                    Mode::Update => case.end(&r) + case.lateness > v,
                    Mode::OneCorrection => r.0 + case.lateness >= v,
                };
                if r.0 >= v {
                    judge.on_time.push(r);
                } else if counts {
                    judge.parked.push(r);
                } else {
                    judge.late.push(r);
                }
                v = v.max(r.0 - case.bound);
            }
        }
        judge
    }

    fn all(&self) -> Vec<Record> {
        [&self.on_time[..], &self.parked[..]].concat()
    }
}

/// The sessions of these records, by sorting.
fn sessions(records: &[Record], case: &Case) -> Vec<Row> {
    let mut sorted = records.to_vec();
    sorted.sort_by_key(|r| (r.1, r.0));
    let mut rows: Vec<Row> = vec![];
    for r in sorted {
        let (t, k, v) = r;
        match rows.last_mut() {
            Some(row) if row.0 == k && t <= row.2 => {
                row.2 = row.2.max(case.end(&r));
                row.3 = (row.3.0 + 1, row.3.1 + v, row.3.2);
            }
            _ => rows.push((k, t, case.end(&r), (1, v, t))),
        }
    }
    rows
}

/// The rows of one correction: with what is on time, what is taken back and what corrects it.
fn corrected(judge: &Judge, case: &Case) -> Vec<(Row, Firing)> {
    let on_time = sessions(&judge.on_time, case);
    let parked = sessions(&judge.parked, case);
    let mut rows: Vec<_> = on_time.iter().map(|&r| (r, Firing::OnTime)).collect();
    let inside = |whole: &Row, r: &Row| r.0 == whole.0 && whole.1 <= r.1 && r.2 <= whole.2;
    for whole in sessions(&judge.all(), case) {
        if !parked.iter().any(|p| inside(&whole, p)) {
            continue;
        }
        rows.push((whole, Firing::Correction));
        for r in on_time.iter().filter(|r| inside(&whole, r)) {
            if (r.1, r.2) != (whole.1, whole.2) {
                rows.push((*r, Firing::Retraction));
            }
        }
    }
    rows.sort();
    rows
}

struct Ran {
    rows: Vec<(Row, Firing)>,
    late: Vec<Record>,
    counters: crate::push::Counters,
}

/// Runs a case with tasklets chosen by `order`.
fn run(case: &Case, mode: Mode, sizes: Sizes, order: &[usize]) -> Ran {
    let longest = case.gap.micros();
    if case.by_record {
        let one = longest.micros();
        let gap = move |r: &Record| Span::from_micros(1 + r.2 % one);
        run_in(
            case,
            with(Session::gap_by(longest, gap), case, mode),
            sizes,
            order,
        )
    } else {
        run_in(case, with(Session::gap(longest), case, mode), sizes, order)
    }
}

fn with<G>(window: Session<G>, case: &Case, mode: Mode) -> Session<G> {
    let lateness = case.lateness.micros();
    match mode {
        Mode::Append => window,
        Mode::Update => window.allowed_lateness(lateness),
        Mode::OneCorrection => window.one_correction().allowed_lateness(lateness),
    }
}

fn run_in<G: GapOf<Record>>(case: &Case, window: Session<G>, sizes: Sizes, order: &[usize]) -> Ran {
    let (feed, source) = testing::feed::<Record>(case.partitions.len());
    let (results, sink) = testing::collect();
    let (late, late_sink) = testing::collect();
    let (behind, behind_sink) = testing::collect();
    let job = Job::new("sessions");
    let [stream, windows] = job
        .source(source)
        .event_time(
            |r| EventTime::from_micros(r.0),
            Watermarks::bounded(case.bound.micros()),
        )
        .key_by(|r| r.1)
        .window(window)
        .late_to(late_sink)
        .aggregate(|a| (a.count(), a.sum(|r| r.2), a.min(|r| r.0)))
        .fork();
    stream.sink(sink);
    windows
        .each_update_is_a_record()
        .key_by(|w| w.key)
        .window(Tumbling::of(7.micros()))
        .aggregate(|a| a.count())
        .sink(behind_sink);
    let mut stepper = Stepper::with(&job, sizes).unwrap();
    for (p, records) in case.partitions.iter().enumerate() {
        for &r in records {
            feed.push(p, r);
        }
    }
    drop(feed);
    let mut turn = 0;
    let choose = |n: usize| {
        turn += 1;
        (order[turn % order.len()] + turn / order.len()) % n
    };
    stepper.run_with(choose).unwrap();
    let mut rows = vec![];
    for (w, time) in results.take_timed() {
        let last = w.window.end - 1.micros();
        assert!(time == last || w.firing == Firing::Retraction && time > last);
        let row = (
            w.key,
            w.window.start.micros(),
            w.window.end.micros(),
            w.value,
        );
        rows.push((row, w.firing));
    }
    let counters = stepper.counters();
    assert_eq!(counters.invariant_broken, 0);
    // A window behind closes by the watermark that sessions pass on: it has missed none of their results.
    let counted: u64 = behind.take().iter().map(|w| w.value).sum();
    assert_eq!(counted, rows.len() as u64);
    Ran {
        rows,
        late: late.take(),
        counters,
    }
}

/// What stands when all changes have been applied; each of them must fit.
fn net(rows: &[(Row, Firing)]) -> Vec<Row> {
    let mut standing = BTreeMap::new();
    for (row, firing) in rows {
        let key = (row.0, row.1, row.2);
        match firing {
            Firing::OnTime => assert_eq!(standing.insert(key, row.3), None, "twice: {row:?}"),
            Firing::Update | Firing::Correction => {
                standing.insert(key, row.3);
            }
            Firing::Retraction => assert_eq!(standing.remove(&key), Some(row.3), "{row:?}"),
            Firing::Early => panic!("nothing fires early"),
        }
    }
    standing
        .into_iter()
        .map(|(k, v)| (k.0, k.1, k.2, v))
        .collect()
}

/// Runs a case in all modes and compares with the judge.
fn check(case: &Case, sizes: Sizes, order: &[usize]) {
    for mode in [Mode::Append, Mode::Update, Mode::OneCorrection] {
        let judge = Judge::new(case, mode);
        let Ran {
            mut rows,
            mut late,
            counters,
        } = run(case, mode, sizes, order);
        let mut expected_late = judge.late.clone();
        expected_late.sort();
        late.sort();
        assert_eq!(late, expected_late, "{mode:?}: late");
        assert_eq!(counters.late, late.len() as u64);
        if sizes.shards == 1 {
            let on_time = rows.iter().filter(|r| r.1 == Firing::OnTime);
            let order: Vec<_> = on_time.map(|(r, _)| (r.2, r.0)).collect();
            assert!(mode == Mode::Update || order.is_sorted(), "{order:?}");
        }
        let whole = sessions(&judge.all(), case);
        match mode {
            Mode::Append => {
                rows.sort();
                let expected: Vec<_> = whole.iter().map(|r| (*r, Firing::OnTime)).collect();
                assert_eq!(rows, expected);
            }
            Mode::Update => assert_eq!(net(&rows), whole),
            Mode::OneCorrection => {
                assert_eq!(net(&rows), whole);
                rows.sort();
                assert_eq!(rows, corrected(&judge, case));
            }
        }
    }
}

/// Dense enough that sessions touch exactly, bridge and merge in threes; somewhere in the range of time.
fn case() -> impl Strategy<Value = Case> {
    let record = (0i64..40, 0u8..3, 0i64..100);
    (
        prop::collection::vec(prop::collection::vec(record, 0..60), 1..4),
        (1i64..12, any::<bool>()),
        0i64..12,
        1i64..40,
        prop::sample::select(vec![0, -(1 << 62), (1 << 62) - 500, -7_000_000]),
        1i64..5,
    )
        .prop_map(
            |(partitions, (gap, by_record), bound, lateness, base, pace)| Case {
                partitions: partitions
                    .into_iter()
                    .map(|p| {
                        let at = |(n, r): (usize, Record)| (base + n as i64 * pace + r.0, r.1, r.2);
                        p.into_iter().enumerate().map(at).collect()
                    })
                    .collect(),
                gap,
                by_record,
                bound,
                lateness,
            },
        )
}

fn cases() -> u32 {
    std::env::var("PELTON_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(128)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn sessions_are_what_sorting_gives(
        case in case(),
        shards in 1usize..4,
        batch_size in 1usize..9,
        order in prop::collection::vec(0usize..64, 1..50),
    ) {
        let sizes = Sizes { batch_size, ring_capacity: 4, ..Sizes::shards(shards) };
        check(&case, sizes, &order);
    }
}

fn one(records: &[Record], gap: i64, bound: i64, lateness: i64, mode: Mode) -> Vec<(Row, Firing)> {
    let case = Case {
        partitions: vec![records.to_vec()],
        gap,
        by_record: false,
        bound,
        lateness,
    };
    check(&case, Sizes::shards(1), &[0, 1]);
    let sizes = Sizes {
        batch_size: 1,
        ..Sizes::shards(1)
    };
    run(&case, mode, sizes, &[0, 0, 0, 1]).rows
}

#[test]
fn touching_sessions_are_one_and_a_microsecond_more_parts_them() {
    let rows = one(&[(0, 1, 1), (10, 1, 1), (21, 1, 1)], 10, 0, 1, Mode::Append);
    let expected = [
        ((1, 0, 20, (2, 2, 0)), Firing::OnTime),
        ((1, 21, 31, (1, 1, 21)), Firing::OnTime),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_record_at_the_watermark_still_touches_the_session_that_ends_there() {
    // Key 2 moves the watermark to 10 = the end of key 1's session; M > end has not come.
    let rows = one(&[(0, 1, 1), (10, 2, 1), (10, 1, 1)], 10, 0, 1, Mode::Append);
    assert_eq!(rows[0].0, (1, 0, 20, (2, 2, 0)));
}

#[test]
fn a_late_bridge_takes_back_two_sessions() {
    // [0,10] and [15,25] have fired at 30; 8 touches both.
    let records = [(0, 1, 1), (15, 1, 1), (30, 2, 0), (8, 1, 1)];
    let rows = one(&records, 10, 0, 20, Mode::Update);
    let of_one: Vec<_> = rows.into_iter().filter(|r| r.0.0 == 1).collect();
    let expected = [
        ((1, 0, 10, (1, 1, 0)), Firing::OnTime),
        ((1, 15, 25, (1, 1, 15)), Firing::OnTime),
        ((1, 0, 10, (1, 1, 0)), Firing::Retraction),
        ((1, 15, 25, (1, 1, 15)), Firing::Retraction),
        ((1, 0, 25, (3, 3, 0)), Firing::Update),
    ];
    assert_eq!(of_one, expected);
    // Once, when nothing more can come.
    let rows = one(&records, 10, 0, 25, Mode::OneCorrection);
    let of_one: Vec<_> = rows.into_iter().filter(|r| r.0.0 == 1).collect();
    assert_eq!(of_one[..4], expected[..4]);
    assert_eq!(of_one[4], ((1, 0, 25, (3, 3, 0)), Firing::Correction));
}

#[test]
fn a_late_record_inside_a_session_replaces_it_without_a_retraction() {
    let records = [(0, 1, 1), (6, 1, 1), (30, 2, 0), (3, 1, 5)];
    let rows = one(&records, 10, 0, 30, Mode::Update);
    let of_one: Vec<_> = rows.into_iter().filter(|r| r.0.0 == 1).collect();
    let expected = [
        ((1, 0, 16, (2, 2, 0)), Firing::OnTime),
        ((1, 0, 16, (3, 7, 0)), Firing::Update),
    ];
    assert_eq!(of_one, expected);
}

#[test]
fn a_fired_session_that_opens_again_is_taken_back_and_comes_on_time() {
    // [0,10] has fired at 15; 8 prolongs it to 18.
    let records = [(0, 1, 1), (15, 2, 0), (8, 1, 1)];
    let rows = one(&records, 10, 0, 30, Mode::Update);
    let of_one: Vec<_> = rows.into_iter().filter(|r| r.0.0 == 1).collect();
    let expected = [
        ((1, 0, 10, (1, 1, 0)), Firing::OnTime),
        ((1, 0, 10, (1, 1, 0)), Firing::Retraction),
        ((1, 0, 18, (2, 2, 0)), Firing::OnTime),
    ];
    assert_eq!(of_one, expected);
}

#[test]
fn a_long_gap_of_one_record_takes_in_many_sessions() {
    // Value 40 + 40 k has the gap 1, value 39 the gap 40.
    let short = |t| (t, 1, 40);
    let case = Case {
        partitions: vec![vec![
            short(0),
            short(5),
            short(10),
            short(15),
            short(99),
            (30, 2, 0),
            (3, 1, 39),
        ]],
        gap: 40,
        by_record: true,
        bound: 0,
        lateness: 200,
    };
    check(&case, Sizes::shards(1), &[0, 1]);
    let sizes = Sizes {
        batch_size: 1,
        ..Sizes::shards(1)
    };
    let rows = run(&case, Mode::Update, sizes, &[0, 0, 0, 1]).rows;
    let retracted: Vec<_> = rows
        .iter()
        .filter(|r| r.1 == Firing::Retraction)
        .map(|r| r.0.1)
        .collect();
    assert_eq!(retracted, [5, 10, 15]);
}

#[test]
fn a_gap_that_is_none_makes_a_record_malformed() {
    let (feed, source) = testing::feed::<Record>(1);
    let (results, sink) = testing::collect();
    let (dead, dead_sink) = testing::collect();
    let job = Job::new("sessions");
    job.dead_letters_to(dead_sink);
    job.source(source)
        .event_time(|r| EventTime::from_micros(r.0), Watermarks::monotonous())
        .key_by(|r| r.1)
        .window(
            Session::gap_by(10.micros(), |r: &Record| Span::from_micros(r.2))
                .allowed_lateness(1.micros()),
        )
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    // The last one is late as well: malformed comes first.
    for r in [
        (1, 1, 0),
        (2, 1, -1),
        (3, 1, 11),
        (4, 1, 10),
        (99, 1, 1),
        (5, 1, 0),
    ] {
        feed.push(0, r);
    }
    drop(feed);
    stepper.run().unwrap();
    let counters = stepper.counters();
    assert_eq!((counters.malformed, counters.late), (4, 0));
    assert_eq!(results.take().len(), 2);
    let reasons: Vec<_> = dead.take().into_iter().map(|d| d.reason).collect();
    assert_eq!(reasons.len(), 4);
    assert!(reasons[0].contains("no session gap"), "{}", reasons[0]);
}

#[test]
fn a_late_session_that_ends_at_the_watermark_is_open() {
    // M = 15 when [5,15] begins: it fires when M passes 15. [4,14] would come at once.
    for (t, firing) in [(5, Firing::OnTime), (4, Firing::Update)] {
        let rows = one(&[(15, 2, 0), (t, 1, 1)], 10, 0, 30, Mode::Update);
        let of_one: Vec<_> = rows.into_iter().filter(|r| r.0.0 == 1).collect();
        assert_eq!(of_one, [((1, t, t + 10, (1, 1, t)), firing)]);
        // The same where it merges with one that has fired.
        let rows = one(&[(0, 1, 1), (15, 2, 0), (t, 1, 1)], 10, 0, 30, Mode::Update);
        let of_one: Vec<_> = rows.into_iter().filter(|r| r.0.0 == 1).collect();
        assert_eq!(of_one[2], ((1, 0, t + 10, (2, 2, 0)), firing));
    }
}

#[test]
fn the_longest_gap_and_lateness_at_the_ends_of_time() {
    let long = Span::MAX.micros();
    let (low, high) = (EventTime::MIN.micros(), EventTime::MAX.micros());
    let records = [
        (low, 1, 1),
        (low, 1, 1),
        (low + long, 1, 1),
        (high, 1, 1),
        (high - 5, 2, 1),
        (high - long, 1, 1),
        (high - 2 * long - 1, 1, 1),
        (low, 1, 1),
    ];
    for mode in [Mode::Append, Mode::Update, Mode::OneCorrection] {
        one(&records, long, 0, long, mode);
        one(&records, 1, long, long, mode);
        one(&records, 1, 7, 1, mode);
    }
}

#[test]
fn many_sessions_of_one_end_fire_in_order_in_bounded_steps() {
    let (feed, source) = testing::feed::<(i64, u64)>(1);
    let (results, sink) = testing::collect();
    let job = Job::new("sessions");
    job.source(source)
        .event_time(|r| EventTime::from_micros(r.0), Watermarks::monotonous())
        .key_by(|r| {
            format!(
                "a rather long name, longer than the words that are looked at in one go: {:06}",
                r.1
            )
        })
        .window(Session::gap(1.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for n in 0..20_000u64 {
        feed.push(0, (0, n * 7919 % 20_000));
    }
    stepper.until_idle().unwrap();
    feed.push(0, (2_000_000, 99_999));
    let mut keys: Vec<String> = vec![];
    let (mut steps, mut still) = (0, 0);
    while still < 10 {
        let mut worked = false;
        for tasklet in 0..stepper.tasklets() {
            worked |= stepper.step(tasklet).unwrap() == crate::tasklet::Progress::Worked;
        }
        let got = results.take();
        assert!(
            got.len() <= (PIECE / FIRING) as usize + 1,
            "{} in a step",
            got.len()
        );
        steps += usize::from(!got.is_empty());
        keys.extend(got.into_iter().map(|w| w.key));
        still = if worked { 0 } else { still + 1 };
    }
    assert_eq!(keys.len(), 20_000);
    assert!(steps > 20, "{steps}");
    assert!(keys.is_sorted_by(|a, b| key_order::compare(a, b) == Ordering::Less));
}

#[test]
fn silence_closes_what_is_open() {
    let (feed, source) = testing::feed::<Record>(2);
    let (results, sink) = testing::collect();
    let job = Job::new("sessions");
    job.source(source)
        .event_time(
            |r| EventTime::from_micros(r.0),
            Watermarks::bounded(100.micros()).close_after_idle(1.seconds()),
        )
        .key_by(|r| r.1)
        .window(Session::gap(10.micros()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    feed.push(0, (5, 1, 1));
    feed.push(1, (50, 2, 1));
    stepper.until_idle().unwrap();
    assert!(results.take().is_empty());
    for _ in 0..4 {
        stepper.advance_clock(600.millis());
        stepper.until_idle().unwrap();
    }
    let mut ends: Vec<_> = results
        .take()
        .iter()
        .map(|w| w.window.end.micros())
        .collect();
    ends.sort();
    assert_eq!(ends, [15, 60]);
}

#[test]
fn spans_that_make_no_sense_are_refused() {
    let refused = |window: Session| {
        let job = Job::new("sessions");
        let (_feed, source) = testing::feed::<Record>(1);
        let (_, sink) = testing::collect();
        job.source(source)
            .event_time(|r| EventTime::from_micros(r.0), Watermarks::monotonous())
            .key_by(|r| r.1)
            .window(window)
            .aggregate(|a| a.count())
            .sink(sink);
        Stepper::new(&job, 1).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(Session::gap(Span::ZERO)).contains("session gap is 0s"));
    assert!(refused(Session::gap((-5).seconds())).contains("session gap is -5s"));
    let late = Session::gap(1.seconds()).allowed_lateness((-1).seconds());
    assert!(refused(late).contains("allowed lateness is -1s"));
}

/// Takes results and drops them.
#[derive(Default)]
struct Nowhere(u64);
impl<T> Push<T> for Nowhere {
    fn push(&mut self, _: T, _: Stamp, _: &mut Cx) {
        self.0 += 1;
    }
    fn control(&mut self, _: Control, _: &mut Cx) {}
    fn blocked(&self) -> bool {
        false
    }
}

fn core(mode: Mode) -> Core<u64, u64, crate::aggregate::Count> {
    let lateness = Lateness {
        allowed: match mode {
            Mode::Append => Span::ZERO,
            _ => 300.micros(),
        },
        mode: match mode {
            Mode::OneCorrection => LateMode::OneCorrection,
            _ => LateMode::Update,
        },
    };
    Core::new(crate::aggregate::Count, OpId(0), lateness, 100, None, None)
}

fn add(
    core: &mut Core<u64, u64, crate::aggregate::Count>,
    t: i64,
    key: u64,
    park: bool,
    to: &mut Out<'_, Nowhere>,
) {
    let id = core.entry(core.store.table.hash(&key), &key);
    if park {
        core.park(id, (t, t + 100), &key, At::default());
    } else {
        core.join(id, (t, t + 100), &key, At::default(), to);
    }
}

fn advance(core: &mut Core<u64, u64, crate::aggregate::Count>, m: i64, to: &mut Out<'_, Nowhere>) {
    core.watermark = m;
    loop {
        let mut budget = PIECE;
        match core.wheel.pop(m, &core.store, &mut budget) {
            Popped::Due { time, value } => core.fire(value, time, to),
            Popped::More => {}
            Popped::Nothing => return,
        }
        core.sweep();
    }
}

#[test]
fn recurring_keys_use_the_same_memory_again() {
    for mode in [Mode::Append, Mode::Update, Mode::OneCorrection] {
        let mut core = core(mode);
        let (mut out, mut cx) = (Nowhere::default(), Cx::new(0));
        let to = &mut Out {
            out: &mut out,
            cx: &mut cx,
        };
        let mut seen = None;
        for round in 0..60i64 {
            let base = round * 2000;
            for key in 0..400 {
                // Three sessions, the first prolonged backwards, two of them then bridged.
                let at = base + (key * 31 % 97) as i64;
                add(&mut core, at, key, false, to);
                add(&mut core, at + 150, key, false, to);
                add(&mut core, at + 350, key, false, to);
                add(&mut core, at - 40, key, false, to);
                add(&mut core, at + 70, key, mode == Mode::OneCorrection, to);
            }
            advance(&mut core, base + 1000, to);
            assert_eq!(core.open, 0);
            let held = (
                core.store.table.bytes(),
                core.store.table.id_end(),
                core.store
                    .older
                    .iter()
                    .map(|o| o.sessions.capacity() + o.parked.capacity())
                    .sum::<usize>(),
                core.store.free.capacity(),
                core.wheel.bytes(),
            );
            if round == 30 {
                seen = Some(held);
            }
            if round > 30 {
                assert!(core.scratch.capacity() > 0, "room is lost");
                assert_eq!(Some(held), seen, "{mode:?}, round {round}");
            }
        }
        assert_eq!(core.store.free.len(), core.store.older.len());
        assert!(core.wheel.is_empty());
        assert_eq!(core.empty, core.store.table.len());
    }
}

#[test]
fn keys_that_never_return_are_forgotten() {
    let mut core = core(Mode::Append);
    let (mut out, mut cx) = (Nowhere::default(), Cx::new(0));
    let to = &mut Out {
        out: &mut out,
        cx: &mut cx,
    };
    for key in 0..200_000u64 {
        let t = key as i64;
        add(&mut core, t, key, false, to);
        if key % 64 == 0 {
            advance(&mut core, t, to);
        }
        let open = core.open;
        assert!(
            core.store.table.len() <= 5 * open + FEW + 256,
            "{} keys, {open} open",
            core.store.table.len()
        );
    }
    assert!(core.store.table.id_end() < 4000, "ids are used again");
}
