use super::*;
use crate::join::{Join, RegularJoin};
use crate::process::Ttl;
use crate::testing::{self, Collector, Sizes, Stepper};
use crate::{BuildError, Job, Spans, Watermarks};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// (key, value)
type Row = (u8, u8);
type Out = (Option<Row>, Option<Row>);
/// A row, whether it is added, its time.
type Record = (Row, bool, i64);

/// What happens, one after another.
#[derive(Clone, Debug)]
enum Step {
    Records(usize, Vec<Record>),
    Watermark(i64),
    Clock(i64),
}

#[derive(Clone, Debug)]
struct Case {
    join: Join,
    /// Which sides are of changes.
    changes: [bool; 2],
    ttl: Option<Ttl>,
    steps: Vec<Step>,
    sizes: Sizes,
}

fn case() -> impl Strategy<Value = Case> {
    let joins = [
        Join::Inner,
        Join::Left,
        Join::Right,
        Join::Full,
        Join::Semi,
        Join::Anti,
    ];
    let ttls = [
        None,
        Some(Ttl::event_time(40.micros())),
        Some(Ttl::processing_time(40.micros())),
    ];
    let record = ((0u8..2, 0u8..3), 0u8..5, 0i64..30);
    let record = record.prop_map(|(row, adds, time)| (row, adds < 3, time));
    let step = prop_oneof![
        4 => (0usize..2, prop::collection::vec(record, 1..9)).prop_map(|(s, r)| Step::Records(s, r)),
        1 => (0i64..40).prop_map(Step::Watermark),
        1 => (0i64..40).prop_map(Step::Clock),
    ];
    let sizes = (
        prop::sample::select(vec![1usize, 2, 3, 8]),
        prop::sample::select(vec![1usize, 3, 64]),
    );
    (
        prop::sample::select(joins.to_vec()),
        any::<[bool; 2]>(),
        prop::sample::select(ttls.to_vec()),
        prop::collection::vec(step, 0..30),
        sizes,
    )
        .prop_map(|(join, changes, ttl, steps, (shards, batch_size))| Case {
            join,
            changes,
            ttl,
            steps,
            sizes: Sizes {
                batch_size,
                ring_capacity: 2,
                ..Sizes::shards(shards)
            },
        })
}

/// The sides as they are read: with the times of their records relative to the watermark.
type Fed = (i64, Change<Row>);

fn end<P, K, L, R, A, B>(
    join: RegularJoin<P, K, L, R, A, B>,
    case: &Case,
    sink: Collector<Change<Out>>,
) where
    P: crate::Pipeline<Item = Sides<L, R>>,
    K: KeyOf<Sides<L, R>>,
    L: Send + 'static,
    R: Send + 'static,
    A: SideRows<L, Row = Row>,
    B: SideRows<R, Row = Row>,
{
    let join = match case.ttl {
        Some(ttl) => join.ttl(ttl),
        None => join.unbounded(),
    };
    let alone = |row: Change<Row>| row.map(|row| (Some(row), None));
    match case.join {
        Join::Inner => join
            .inner(|l, r| (Some(*l), Some(*r)))
            .rebalance()
            .sink(sink),
        Join::Left => join
            .left_outer(|l, r| (Some(*l), r.copied()))
            .rebalance()
            .sink(sink),
        Join::Right => join
            .right_outer(|l, r| (l.copied(), Some(*r)))
            .rebalance()
            .sink(sink),
        Join::Full => join
            .full_outer(|l, r| (l.copied(), r.copied()))
            .rebalance()
            .sink(sink),
        Join::Semi => join.semi().map(alone).rebalance().sink(sink),
        Join::Anti => join.anti().map(alone).rebalance().sink(sink),
    }
}

/// A row that the model keeps.
#[derive(Clone, Debug)]
struct Kept {
    row: Row,
    count: u32,
    alone: u32,
    until: i64,
}

/// Does by long lists what the join does.
struct Model<'a> {
    case: &'a Case,
    bags: [Vec<Kept>; 2],
    m: i64,
    clock: i64,
    strays: u64,
    told: Vec<Change<Out>>,
}

impl Model<'_> {
    fn tells(&self, side: usize) -> Tells {
        match (self.case.join, side) {
            (Join::Left | Join::Full | Join::Anti, 0) => Tells::Alone,
            (Join::Right | Join::Full, 1) => Tells::Alone,
            (Join::Semi, 0) => Tells::Met,
            _ => Tells::Nothing,
        }
    }

    fn tell(&mut self, adds: bool, side: usize, mine: Option<Row>, theirs: Option<Row>) {
        let kind = if adds { Kind::Insert } else { Kind::Delete };
        let row = match side {
            0 => (mine, theirs),
            _ => (theirs, mine),
        };
        self.told.push(Change::new(kind, row));
    }

    /// A row of a side has become alone, or is no longer.
    fn turns(&mut self, side: usize, row: Row, alone: bool) {
        match self.tells(side) {
            Tells::Nothing => {}
            Tells::Alone => self.tell(alone, side, Some(row), None),
            Tells::Met => self.tell(!alone, side, Some(row), None),
        }
    }

    fn record(&mut self, side: usize, (row, adds, time): Record) {
        let case = self.case;
        let ttl = case.ttl.map_or(0, |ttl| ttl.span.micros());
        let by_clock = case.ttl.is_some_and(|ttl| ttl.by_clock);
        let now = if by_clock {
            self.clock
        } else {
            time.max(self.m)
        };
        let nears = case.ttl.is_some() && !by_clock && case.changes == [false; 2];
        let pairs = !matches!(case.join, Join::Semi | Join::Anti);
        let has_row = |k: &Kept| k.row == row;
        let at = self.bags[side].iter().position(has_row);
        if !adds && at.is_none() {
            self.strays += 1;
            return;
        }
        let of_key = |kept: &Kept| kept.row.0 == row.0;
        let mine = self.bags[side].iter().filter(|k| of_key(k));
        let is_last = !adds && mine.map(|k| k.count).sum::<u32>() == 1;
        let mut has_met = false;
        let mut theirs = std::mem::take(&mut self.bags[1 - side]);
        for other in theirs.iter_mut().filter(|k| of_key(k)) {
            if nears && (other.until - now - ttl).abs() >= ttl {
                continue;
            }
            has_met = true;
            let before = other.alone;
            if adds || is_last {
                other.alone = if adds { 0 } else { other.count };
            }
            for _ in 0..before.abs_diff(other.alone) {
                self.turns(1 - side, other.row, !adds);
            }
            for _ in 0..if pairs { other.count } else { 0 } {
                self.tell(adds, side, Some(row), Some(other.row));
            }
        }
        self.bags[1 - side] = theirs;
        let until = now + ttl;
        if adds {
            match self.tells(side) {
                Tells::Alone if !has_met => self.tell(true, side, Some(row), None),
                Tells::Met if has_met => self.tell(true, side, Some(row), None),
                _ => {}
            }
            let alone = u32::from(!has_met);
            match at.filter(|_| case.changes[side]) {
                Some(at) => {
                    let kept = &mut self.bags[side][at];
                    kept.count += 1;
                    kept.alone += alone;
                    kept.until = kept.until.max(until);
                }
                None => self.bags[side].push(Kept {
                    row,
                    count: 1,
                    alone,
                    until,
                }),
            }
            return;
        }
        let Some(at) = at else { return };
        let was_alone = self.bags[side][at].alone > 0;
        match self.tells(side) {
            Tells::Alone if was_alone => self.tell(false, side, Some(row), None),
            Tells::Met if !was_alone => self.tell(false, side, Some(row), None),
            _ => {}
        }
        let kept = &mut self.bags[side][at];
        kept.count -= 1;
        kept.alone = kept.alone.saturating_sub(1);
        kept.until = kept.until.max(until);
        if kept.count == 0 {
            self.bags[side].remove(at);
        }
    }

    fn expire(&mut self) {
        let Some(ttl) = self.case.ttl else { return };
        let now = if ttl.by_clock { self.clock } else { self.m };
        for bag in &mut self.bags {
            bag.retain(|kept| kept.until > now);
        }
    }

    /// The join of what is kept, from scratch.
    fn joined(&self) -> BTreeMap<Out, i64> {
        let bag = |side: usize| -> Vec<Row> {
            let rows = self.bags[side].iter();
            rows.flat_map(|k| vec![k.row; k.count as usize]).collect()
        };
        let (left, right) = (bag(0), bag(1));
        let mut out = vec![];
        for l in &left {
            let met: Vec<_> = right.iter().filter(|r| r.0 == l.0).collect();
            let alone = match self.tells(0) {
                Tells::Nothing => false,
                Tells::Alone => met.is_empty(),
                Tells::Met => !met.is_empty(),
            };
            if alone {
                out.push((Some(*l), None));
            }
            if !matches!(self.case.join, Join::Semi | Join::Anti) {
                out.extend(met.iter().map(|r| (Some(*l), Some(**r))));
            }
        }
        let alone = right.iter().filter(|r| left.iter().all(|l| l.0 != r.0));
        let told = matches!(self.case.join, Join::Right | Join::Full);
        out.extend(alone.filter(|_| told).map(|r| (None, Some(*r))));
        let mut bag = BTreeMap::new();
        out.into_iter()
            .for_each(|row| *bag.entry(row).or_default() += 1);
        bag
    }
}

fn check(case: &Case) {
    let (lefts, left) = testing::feed::<Fed>(1);
    let (rights, right) = testing::feed::<Fed>(1);
    let (results, sink) = testing::collect();
    let job = Job::new("regular join");
    let at = |r: &Fed| EventTime::from_micros(r.0);
    let never = || Watermarks::bounded(1.hours());
    let left = job.source(left).event_time(at, never());
    let right = job.source(right).event_time(at, never());
    let (plain, change) = (|r: Fed| r.1.row, |r: Fed| r.1);
    match case.changes {
        [false, false] => {
            let (left, right) = (left.map(plain), right.map(plain));
            let right = right.key_by(|r| r.0);
            end(left.key_by(|r| r.0).regular_join(right), case, sink);
        }
        [true, false] => {
            let (left, right) = (left.map(change), right.map(plain));
            let right = right.key_by(|r| r.0);
            let join = left.key_by(|c| c.row.0).regular_join(right);
            end(join.left_changes(), case, sink);
        }
        [false, true] => {
            let (left, right) = (left.map(plain), right.map(change));
            let right = right.key_by(|c| c.row.0);
            let join = left.key_by(|r| r.0).regular_join(right);
            end(join.right_changes(), case, sink);
        }
        [true, true] => {
            let (left, right) = (left.map(change), right.map(change));
            let right = right.key_by(|c| c.row.0);
            let join = left.key_by(|c| c.row.0).regular_join(right);
            end(join.left_changes().right_changes(), case, sink);
        }
    }
    let mut stepper = Stepper::with(&job, case.sizes).unwrap();
    stepper.until_idle().unwrap();
    let mut model = Model {
        case,
        bags: [vec![], vec![]],
        m: 1_000,
        clock: 0,
        strays: 0,
        told: vec![],
    };
    let feeds = [lefts, rights];
    let rise = |m: i64| {
        feeds
            .iter()
            .for_each(|f| f.watermark(0, EventTime::from_micros(m)))
    };
    rise(model.m);
    stepper.until_idle().unwrap();
    let mut standing: BTreeMap<Out, i64> = BTreeMap::new();
    for step in &case.steps {
        match step {
            Step::Records(side, records) => {
                for &(row, adds, ahead) in records {
                    let adds = adds || !case.changes[*side];
                    // Where rows are taken back, one may be cleaned away as late as another whose place it has: law 4.
                    let by_event = case.ttl.is_some_and(|ttl| !ttl.by_clock);
                    let is_rising = by_event && case.changes != [false; 2];
                    let time = model.m + if is_rising { 0 } else { ahead - 10 };
                    let kind = if adds {
                        Kind::UpdateAfter
                    } else {
                        Kind::UpdateBefore
                    };
                    feeds[*side].push(0, (time, Change::new(kind, row)));
                    model.record(*side, (row, adds, time));
                }
            }
            Step::Watermark(by) => {
                model.m += by;
                rise(model.m);
            }
            Step::Clock(by) => {
                model.clock += by;
                stepper.advance_clock(by.micros());
            }
        }
        stepper.until_idle().unwrap();
        model.expire();
        let mut told = results.take();
        for change in &model.told {
            let count = standing.entry(change.row).or_default();
            *count += if change.is_addition() { 1 } else { -1 };
            assert!(*count >= 0, "{change:?} takes back what does not stand");
        }
        told.sort();
        model.told.sort();
        assert_eq!(told, model.told, "after {step:?}");
        model.told.clear();
        if case.ttl.is_none() {
            standing.retain(|_, count| *count != 0);
            assert_eq!(standing, model.joined(), "after {step:?}");
        }
        // What the model keeps is what is kept.
        let sizes = stepper.state_sizes();
        let sides = sizes.iter().filter(|s| s.state != "keys");
        let kept: u64 = sides.map(|s| s.entries).sum();
        let model_keeps = model.bags.iter().map(Vec::len).sum::<usize>();
        assert_eq!(kept, model_keeps as u64, "after {step:?}");
    }
    assert_eq!(stepper.counters().stray_retractions, model.strays);
    assert_eq!(stepper.counters().invariant_broken, 0);
}

proptest! {
    #![proptest_config(crate::aggregate::scramble::cases())]

    #[test]
    fn each_record_changes_what_the_model_says(case in case()) {
        check(&case);
    }
}

#[test]
fn a_join_without_a_bound_is_refused() {
    let told = |ttl: Option<Ttl>, is_unbounded: bool, is_timed: bool| {
        let job = Job::new("refused");
        let (_, sink) = testing::collect::<Change<Out>>();
        macro_rules! end {
            ($left:expr, $right:expr) => {{
                let right = $right.key_by(|r| r.0);
                let mut join = $left.key_by(|r| r.0).regular_join(right).uid("join");
                if let Some(ttl) = ttl {
                    join = join.ttl(ttl);
                }
                if is_unbounded {
                    join = join.unbounded();
                }
                join.inner(|l, r| (Some(*l), Some(*r))).sink(sink);
            }};
        }
        let side = || job.source(crate::sources::items([(1u8, 1u8)]));
        let timed = || {
            let at = |r: &Row| EventTime::from_micros(r.0.into());
            side().event_time(at, Watermarks::monotonous())
        };
        match is_timed {
            true => end!(timed(), timed()),
            false => end!(side(), side()),
        }
        Stepper::new(&job, 1).err()
    };
    let event = Ttl::event_time(1.seconds());
    let what = |e: Option<BuildError>| e.map(|e| e.to_string()).unwrap_or_default();
    assert!(what(told(None, false, true)).contains("grow for ever"));
    assert!(what(told(None, false, true)).contains("'join'"));
    assert!(what(told(Some(event), true, true)).contains("one of both"));
    assert!(what(told(Some(event.refreshed_on_read()), false, true)).contains("reads"));
    assert!(what(told(Some(Ttl::event_time(Span::ZERO)), false, true)).contains("not above 0"));
    let untimed = told(Some(event), false, false).unwrap();
    assert_eq!(untimed.code(), "PLT-0006");
    assert_eq!(told(Some(event), false, true), None);
    assert_eq!(told(None, true, false), None);
}

/// Updates that are not said to be changes would count as rows; those that are, may come, and what follows is told to be replaced.
#[test]
fn updates_are_taken_as_changes_only() {
    for says_so in [false, true] {
        let job = Job::new("updates");
        let (_, sink) = testing::collect();
        let items = || job.source(crate::sources::items([(1u8, 1u8), (1, 2)]));
        let counts = items().key_by(|r| r.0).changelog().running(|a| a.count());
        let names = items().key_by(|r| r.0);
        let join = counts.key_by(|c| c.row.key).regular_join(names);
        match says_so {
            true => join
                .left_changes()
                .unbounded()
                .inner(|l, r| (l.value, r.1))
                .sink(sink),
            // Of changes as they are.
            false => join
                .unbounded()
                .inner(|l, r| (l.row.value, r.1))
                .map(|c| c.map(|r| r))
                .sink(sink),
        }
        let error = Stepper::new(&job, 1).err();
        assert_eq!(error.map(|e| e.code()), (!says_so).then_some("PLT-0011"));
    }
}

/// Only what may be taken back is no input of an append-only sink.
#[test]
fn an_inner_join_of_plain_rows_only_inserts() {
    for outer in [false, true] {
        let job = Job::new("appends");
        let items = || {
            job.source(crate::sources::items([(1u8, 1u8)]))
                .key_by(|r| r.0)
        };
        let join = items().regular_join(items()).unbounded();
        match outer {
            false => join.inner(|l, r| (l.1, r.1)).sink(Appends),
            true => join
                .left_outer(|l, r| (l.1, r.map_or(0, |r| r.1)))
                .sink(Appends),
        }
        let error = Stepper::new(&job, 1).err();
        assert_eq!(error.map(|e| e.code()), outer.then_some("PLT-0004"));
    }
}

/// An append-only sink.
struct Appends;
struct Nowhere;

impl crate::sink::Sink<Change<(u8, u8)>> for Appends {
    type Writer = Nowhere;
    fn name(&self) -> String {
        "appends".into()
    }
    fn open(&mut self, ports: &mut crate::port::Ports<'_>) -> Result<Vec<Nowhere>, String> {
        Ok((0..ports.shards()).map(|_| Nowhere).collect())
    }
}

impl crate::sink::Writer<Change<(u8, u8)>> for Nowhere {
    fn write(&mut self, _: Change<(u8, u8)>, _: Stamp) {}
}

/// A key goes with its last row, whether that is taken back or expires, and one that nothing was taken from is not kept for that.
#[test]
fn keys_go_with_their_last_row() {
    let (feed, left) = testing::feed::<Change<Row>>(1);
    let (_, sink) = testing::collect();
    let job = Job::new("keys");
    let right = job.source(crate::sources::items([(0u8, 0u8)]));
    job.source(left)
        .key_by(|c| c.row.0)
        .regular_join(right.key_by(|r| r.0))
        .left_changes()
        .ttl(Ttl::processing_time(1.seconds()))
        .inner(|l, r| (l.1, r.1))
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    let keys = |stepper: &Stepper| {
        let sizes = stepper.state_sizes();
        sizes
            .iter()
            .find(|s| s.state == "keys")
            .map_or(0, |s| s.entries)
    };
    let all = |kind| (1..200u8).for_each(|key| feed.push(0, Change::new(kind, (key, 1))));
    all(Kind::Insert);
    stepper.until_idle().unwrap();
    assert_eq!(keys(&stepper), 200);
    all(Kind::Delete);
    stepper.until_idle().unwrap();
    // Looked at with what comes next.
    (0..4).for_each(|_| {
        feed.push(0, Change::new(Kind::Delete, (250, 1)));
        stepper.until_idle().unwrap();
    });
    assert_eq!(keys(&stepper), 1);
    stepper.advance_clock(2.seconds());
    stepper.until_idle().unwrap();
    assert_eq!(keys(&stepper), 0);
}
