//! A job as data, and how one is drawn from a seed.

use crate::random::Random;
use crate::record::{Fused, Rec};

/// How a source makes its watermarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// The greatest time less a bound; `monotonous` where the bound is 0.
    Bounded(i64),
    /// Marks on records.
    Punctuated,
    /// The time of the last record with an even id less this much: it falls when times do.
    Custom(i64),
}

/// A source: its partitions and what lies fused behind it.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The records of each partition.
    pub partitions: Vec<Vec<Rec>>,
    /// Steps before event times are assigned.
    pub before: Fused,
    /// Its watermarks.
    pub generator: Generator,
    /// How far a partition may run ahead.
    pub max_drift: Option<i64>,
    /// After which silence a partition is idle, in microseconds; its partitions are silent now and then where that is set. What is late depends on it
    /// (class EXEMPT).
    pub idle_after: Option<i64>,
    /// Steps after event times are assigned, in the same stage.
    pub after: Fused,
}

/// A step between the sources and the end. Each closes a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stateless steps, then evenly over all shards.
    Rebalance(Fused),
    /// Stateless steps, then by key.
    Exchange(Fused),
    /// Another key, then to its shard.
    ReKey(u32),
    /// Odd and even values go two ways, one of them longer, and meet again.
    SplitUnion(Fused),
    /// Each record goes both ways, as another copy, and they meet again.
    ForkUnion(Fused),
    /// Each record waits for an answer from outside.
    Ask(Ask),
}

/// How it is asked: an async map where nothing is cached and all are wanted, else a lookup join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// When answers come.
    pub seed: u64,
    /// Whether records leave in order.
    pub ordered: bool,
    /// How many wait on a shard; at least 2.
    pub capacity: usize,
    /// Rows that a shard remembers.
    pub cached: usize,
    /// Whether those are dropped of which nothing is known.
    pub known_only: bool,
}

/// A kind of window with its sizes, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    /// Equal, adjacent.
    Tumbling { size: i64, offset: i64 },
    /// Of `size`, one each `slide`.
    Sliding { size: i64, slide: i64, offset: i64 },
    /// Growing by `step` up to `size`, then anew.
    Cumulate { size: i64, step: i64, offset: i64 },
    /// Up to a silence of `gap`.
    Session { gap: i64 },
}

/// What happens to records that are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// A window's result comes once (for sessions: append mode).
    Drop,
    /// A window's result is replaced.
    Update,
    /// A window's result is corrected once.
    OneCorrection,
}

/// A window with its lateness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    /// Where windows lie.
    pub kind: Kind,
    /// How late is too late, in microseconds; 0 with [`Late::Drop`].
    pub lateness: i64,
    /// What happens before that.
    pub late: Late,
    /// Whether the key is borrowed from the record.
    pub key_by_ref: bool,
    /// Whether it has further aggregates.
    pub more: bool,
}

/// What a job ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The records themselves.
    Records,
    /// A window.
    Window(WindowSpec),
    /// A tumbling window over the results of a window.
    Chained(WindowSpec, i64),
    /// Running aggregates per key.
    Running,
    /// A fold per key in the order of event time, with this lateness.
    Ordered(i64),
    /// A process function in the order of event time, with this lateness: states of several kinds, timers, a time to live.
    Process(i64),
    /// A join, a pattern, or another operator, with this lateness.
    Operator(Operator, i64),
    /// A table told as changes, and what applies them.
    Changes(Table, Then),
}

/// What is told as changes. Of two sides even ids are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Running aggregates by key: one row each, which is replaced.
    Counts,
    /// The regular join of both sides' records.
    Join {
        /// Which rows are wanted.
        meet: Meet,
        /// How near two have to lie, in microseconds of event time.
        ttl: Option<i64>,
    },
    /// The regular join of running aggregates of the left, which are taken back, with records of the right, by a coarser key.
    CountsJoin {
        /// Which rows are wanted.
        meet: Meet,
    },
}

/// Which rows of a regular join are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Meet {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    Anti,
}

/// What applies changes, by a coarser key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: they are the results.
    Nothing,
    /// Aggregates of the rows that stand.
    Aggregates,
    /// The best rows that stand.
    Top {
        /// How many.
        n: usize,
    },
    /// The same with ranks.
    Ranks {
        /// How many.
        n: usize,
    },
}

/// An operator other than a window, with its sizes in microseconds. Of those with two sides even ids are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    /// The first record of a key within a horizon.
    First { horizon: i64 },
    /// The last.
    Last { horizon: i64 },
    /// A running aggregate of the last records.
    OverRows { rows: u32 },
    /// The same of a span of time.
    OverRange { span: i64 },
    /// The interval join, with rows of those that meet none on these sides.
    Interval {
        lower: i64,
        upper: i64,
        outer: [bool; 2],
    },
    /// The as-of join.
    AsOf,
    /// The full outer join in tumbling windows.
    Windows { size: i64 },
    /// An even value and then an odd one: the very next record, or the next such.
    Match { within: i64, strict: bool },
}

/// A job.
#[derive(Clone, Debug)]
pub struct Spec {
    /// One source, or two that are joined by a union.
    pub sources: Vec<SourceSpec>,
    /// What lies between. With one source and no steps the end is fused to the source's stage.
    pub steps: Vec<Step>,
    /// The end.
    pub end: End,
}

/// A job drawn from a seed.
#[derive(Clone, Debug)]
pub struct Case {
    /// The seed; runs draw their sizes and schedules from it as well.
    pub seed: u64,
    /// The job.
    pub spec: Spec,
}

/// The kinds of windows that cases are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KindName {
    Tumbling,
    Sliding,
    Cumulate,
    Session,
    Running,
    Ordered,
    Process,
    Operator,
    Changes,
}

impl Case {
    /// The case of `seed`, with windows of one of `kinds`.
    pub fn draw(seed: u64, kinds: &[KindName]) -> Case {
        let mut random = Random::new(seed);
        let shape = Shape::draw(&mut random);
        Case::shaped(seed, kinds, random, shape)
    }

    /// One whose states live long while few of them change: many keys, records close to one another in time, wide windows.
    pub fn long_lived(seed: u64, kinds: &[KindName]) -> Case {
        let mut random = Random::new(seed);
        let shape = Shape::long_lived(&mut random);
        Case::shaped(seed, kinds, random, shape)
    }

    /// One whose partitions fall silent and are idle then, and return.
    pub fn silent(seed: u64, kinds: &[KindName]) -> Case {
        let mut case = Case::draw(seed, kinds);
        for source in &mut case.spec.sources {
            source.idle_after = Some(1_000);
            // Silence takes steps.
            source.partitions.iter_mut().for_each(|p| p.truncate(150));
        }
        case
    }

    fn shaped(seed: u64, kinds: &[KindName], mut random: Random, mut shape: Shape) -> Case {
        let r = &mut random;
        if kinds.contains(&KindName::Running) {
            // Each result holds the names of all records before it.
            shape.records = shape.records.min(60);
        }
        if kinds.contains(&KindName::Changes) {
            // Each record of a key meets all of the other side.
            shape.records = shape.records.min(40);
        }
        let mut id = 0;
        let two = r.one_in(4);
        let sources = (0..1 + usize::from(two))
            .map(|_| source(r, &shape, &mut id))
            .collect();
        let steps: Vec<_> = (0..r.pick(&[0, 0, 1, 1, 2, 3])).map(|_| step(r)).collect();
        let name = r.pick(kinds);
        let end = match (name, window(r, name, shape.wide)) {
            (KindName::Running, _) => End::Running,
            (KindName::Ordered, _) => End::Ordered(r.pick(&[0, 0, 10, 300])),
            (KindName::Process, _) => End::Process(r.pick(&[0, 0, 10, 300])),
            (KindName::Operator, _) => End::Operator(operator(r), r.pick(&[0, 0, 10, 300])),
            (KindName::Changes, _) => End::Changes(table(r), then(r)),
            _ if r.one_in(12) => End::Records,
            // The corrections of sessions take results back, which a window behind does not know.
            (name, window)
                if (window.late == Late::Drop
                    || window.late == Late::OneCorrection && name != KindName::Session)
                    && r.one_in(5) =>
            {
                End::Chained(window, r.pick(&[7, 50, 100, 1_000]))
            }
            (_, window) => End::Window(window),
        };
        // The copies that a fork makes are tied: no order among them is fixed.
        let tied = |s: &Step| matches!(s, Step::ForkUnion(_));
        let ordered = match end {
            End::Ordered(_) | End::Process(_) | End::Operator(..) => true,
            End::Window(w) | End::Chained(w, _) => w.more,
            _ => false,
        };
        // What is corrected behind answers from outside is class EXEMPT, and no window takes it.
        let unasked = matches!(end, End::Chained(w, _) if w.late != Late::Drop);
        let asks = |s: &Step| matches!(s, Step::Ask(_));
        let steps = steps
            .into_iter()
            .filter(|s| !(ordered && tied(s) || unasked && asks(s)))
            .collect();
        Case {
            seed,
            spec: Spec {
                sources,
                steps,
                end,
            },
        }
    }
}

/// The character of a case's records.
struct Shape {
    records: i64,
    keys: i64,
    /// Event time between two records.
    pace: i64,
    /// How far back records usually lie.
    disorder: i64,
    /// One in so many lies much further back, or ahead.
    outlier: u64,
    nulls: u64,
    extremes: bool,
    /// Times are rounded down to this, so that they meet.
    grain: i64,
    /// Windows are so many times as wide.
    wide: i64,
}

impl Shape {
    fn draw(r: &mut Random) -> Shape {
        Shape {
            // Seldom so many that batches are taken in parts.
            records: match r.one_in(40) {
                true => 2_500,
                false => r.pick(&[0, 3, 10, 40, 40, 100, 100, 200, 300]),
            },
            keys: r.pick(&[1, 2, 5, 20]),
            pace: r.pick(&[0, 1, 3, 10, 40]),
            disorder: r.pick(&[0, 5, 30, 100, 300]),
            outlier: r.pick(&[5, 10, 50, 1_000]),
            nulls: r.pick(&[10, 30, 1_000]),
            extremes: r.one_in(8),
            grain: r.pick(&[1, 1, 1, 10, 50]),
            wide: 1,
        }
    }

    fn long_lived(r: &mut Random) -> Shape {
        Shape {
            records: r.pick(&[40, 60, 60, 100]),
            keys: r.pick(&[5, 20, 40]),
            pace: r.pick(&[0, 1, 3]),
            outlier: 1_000,
            extremes: false,
            wide: r.pick(&[1, 10, 10]),
            ..Shape::draw(r)
        }
    }
}

fn fused(r: &mut Random) -> Fused {
    Fused {
        drop_each: r.pick(&[0, 0, 2, 3, 7]),
        add: r.between(-3, 3),
        copies: r.pick(&[0, 0, 1, 2]),
    }
}

fn step(r: &mut Random) -> Step {
    let with = fused(r);
    match r.below(6) {
        0 => Step::Rebalance(with),
        1 => Step::Exchange(with),
        2 => Step::ReKey(r.pick(&[1, 3, 11])),
        3 => Step::SplitUnion(with),
        4 => Step::Ask(Ask {
            seed: r.bits(),
            ordered: r.one_in(2),
            capacity: r.pick(&[2, 3, 16]),
            cached: r.pick(&[0, 0, 2, 8]),
            known_only: r.one_in(4),
        }),
        _ => Step::ForkUnion(with),
    }
}

fn source(r: &mut Random, shape: &Shape, id: &mut u64) -> SourceSpec {
    let partitions = r.between(1, 5);
    let begin = r.pick(&[0, 0, -1_000, 1_000_000]);
    // Nothing fused to it: its records may travel as batches.
    let plain = r.one_in(3);
    SourceSpec {
        partitions: (0..partitions)
            .map(|_| partition(r, shape, begin, id))
            .collect(),
        before: if plain || r.one_in(2) {
            Fused::default()
        } else {
            fused(r)
        },
        generator: match r.below(6) {
            0 => Generator::Bounded(0),
            1..=3 => Generator::Bounded(r.pick(&[1, 10, 50, 200])),
            4 => Generator::Punctuated,
            _ => Generator::Custom(r.pick(&[0, 5, 60])),
        },
        idle_after: None,
        max_drift: r.one_in(4).then(|| r.pick(&[0, 1, 100])),
        after: if plain { Fused::default() } else { fused(r) },
    }
}

fn partition(r: &mut Random, shape: &Shape, begin: i64, id: &mut u64) -> Vec<Rec> {
    // Some are empty, some end early, some run faster than others.
    let count = match r.below(6) {
        0 => 0,
        1 => r.between(0, shape.records / 4),
        _ => r.between(shape.records / 2, shape.records),
    };
    let pace = shape.pace * r.pick(&[1, 1, 2, 8]);
    let mut front = begin + r.between(0, 100);
    (0..count)
        .map(|_| {
            front += r.between(0, pace);
            let back = match r.one_in(shape.outlier) {
                true => r.between(-2_000, 2_000),
                false => r.between(0, shape.disorder),
            };
            *id += 1;
            Rec {
                id: *id,
                copy: 0,
                key: r.between(1, shape.keys) as u32,
                value: r.between(-1_000, 1_000),
                time: time(r, shape, front - back),
                mark: mark(r, front),
            }
        })
        .collect()
}

fn time(r: &mut Random, shape: &Shape, time: i64) -> Option<i64> {
    const EDGE: i64 = 1 << 62;
    if r.one_in(shape.nulls) {
        return None;
    }
    if shape.extremes && r.one_in(12) {
        // The upper end carries the watermark with it: seldom.
        return Some(match r.below(16) {
            0 => EDGE,
            1 => EDGE - r.between(0, 300),
            2..=4 => EDGE + 1,
            5 => i64::MAX,
            6..=8 => i64::MIN,
            9..=11 => -EDGE - 1,
            12 | 13 => -EDGE + r.between(0, 300),
            _ => -EDGE,
        });
    }
    Some(time.div_euclid(shape.grain) * shape.grain)
}

fn mark(r: &mut Random, front: i64) -> Option<i64> {
    match r.below(40) {
        0..=9 => Some(front - r.between(0, 100)),
        10 => Some(front + r.between(0, 300)),
        11 if r.one_in(30) => Some(i64::MAX),
        _ => None,
    }
}

fn operator(r: &mut Random) -> Operator {
    let span = r.pick(&[1, 10, 50, 300, 2_000]);
    match r.below(8) {
        0 => Operator::First { horizon: span },
        1 => Operator::Last { horizon: span },
        2 => Operator::OverRows {
            rows: r.pick(&[1, 2, 5, 50]),
        },
        3 => Operator::OverRange { span },
        4 => Operator::AsOf,
        5 => Operator::Windows { size: span },
        6 => Operator::Match {
            within: span,
            strict: r.one_in(2),
        },
        _ => {
            let lower = r.pick(&[-300, -20, -1, 0, 0, 15, 100]);
            Operator::Interval {
                lower,
                upper: lower + r.pick(&[0, 1, 20, 300]),
                outer: [r.one_in(2), r.one_in(2)],
            }
        }
    }
}

fn table(r: &mut Random) -> Table {
    let meet = r.pick(&[
        Meet::Inner,
        Meet::Left,
        Meet::Right,
        Meet::Full,
        Meet::Semi,
        Meet::Anti,
    ]);
    match r.below(6) {
        0 => Table::Counts,
        1 | 2 => Table::CountsJoin { meet },
        _ => Table::Join {
            meet,
            ttl: r.one_in(2).then(|| r.pick(&[1, 20, 100, 2_000])),
        },
    }
}

fn then(r: &mut Random) -> Then {
    let n = r.pick(&[1, 2, 5]);
    match r.below(4) {
        0 => Then::Nothing,
        1 => Then::Aggregates,
        2 => Then::Top { n },
        _ => Then::Ranks { n },
    }
}

fn window(r: &mut Random, name: KindName, wide: i64) -> WindowSpec {
    let step = r.pick(&[1, 7, 10, 50, 100]) * wide;
    let offset = r.pick(&[0, 0, 3, -5, 1_000_003]);
    let kind = match name {
        KindName::Tumbling
        | KindName::Running
        | KindName::Ordered
        | KindName::Process
        | KindName::Operator
        | KindName::Changes => Kind::Tumbling {
            size: r.pick(&[step, 10 * wide, 100 * wide, 1_000]),
            offset,
        },
        KindName::Sliding => {
            let size = match r.below(3) {
                0 => step,
                1 => step * r.between(2, 7),
                _ => step + r.between(0, 3 * step),
            };
            Kind::Sliding {
                size,
                slide: step,
                offset,
            }
        }
        KindName::Cumulate => Kind::Cumulate {
            size: step * r.between(1, 6),
            step,
            offset,
        },
        KindName::Session => Kind::Session {
            gap: r.pick(&[1, 5, 20, 100]) * wide,
        },
    };
    let late = match kind {
        Kind::Session { .. } => r.pick(&[
            Late::Drop,
            Late::Drop,
            Late::Update,
            Late::Update,
            Late::OneCorrection,
        ]),
        _ => r.pick(&[
            Late::Drop,
            Late::Drop,
            Late::Update,
            Late::Update,
            Late::OneCorrection,
        ]),
    };
    let lateness = match late {
        Late::Drop => 0,
        _ => r.pick(&[1, 10, 50, 300, 3_000]) * wide,
    };
    WindowSpec {
        kind,
        lateness,
        late,
        key_by_ref: r.one_in(2),
        more: r.one_in(3),
    }
}
