//! A [`Spec`] as a job of the engine.

use crate::ledger::Ledger;
use crate::meter::Meter;
use crate::model;
use crate::operators;
use crate::random::Random;
use crate::record::{Folded, Fused, More, Rec, Row, Value, fold};
use crate::source::Uneven;
use crate::spec::{End, Generator, Kind, Late, SourceSpec, Spec, Step, WindowSpec};
use crate::{asked, changes};
use pelton::aggregate::{Aggregate, At};
use pelton::process::{Ttl, aggregating, list, map, reducing, value};
use pelton::push::DeadLetter;
use pelton::{
    Cumulate, Epoch, EventTime, Firing, Inlet, Job, Pipeline, Session, Sliding, Span, Stream,
    Tumbling, WatermarkGenerator, Watermarks, Windowed,
};

/// What comes out of a job, and outlives it.
#[derive(Debug)]
pub struct Outputs {
    /// Records of [`End::Records`].
    pub records: Ledger<Rec>,
    /// Results.
    pub rows: Ledger<Row>,
    /// The late output.
    pub late: Ledger<Rec>,
    /// The dead letters.
    pub dead: Ledger<DeadLetter>,
}

impl Outputs {
    /// Empty ones, which commit in two phases if they are given a seed.
    pub fn new(two_phases: Option<u64>) -> Self {
        let mut random = two_phases.map(Random::new);
        let mut seed = || random.as_mut().map(Random::bits);
        Outputs {
            records: Ledger::new(seed()),
            rows: Ledger::new(seed()),
            late: Ledger::new(seed()),
            dead: Ledger::new(seed()),
        }
    }

    /// Those of a job that starts from where these stood after an epoch.
    pub fn as_of(&self, epoch: Epoch, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Outputs {
            records: self.records.as_of(epoch, random.bits()),
            rows: self.rows.as_of(epoch, random.bits()),
            late: self.late.as_of(epoch, random.bits()),
            dead: self.dead.as_of(epoch, random.bits()),
        }
    }

    /// Commits that were put off.
    pub fn refused(&self) -> u64 {
        let (a, b) = (self.records.refused(), self.rows.refused());
        a + b + self.late.refused() + self.dead.refused()
    }

    /// What the ledgers found to be wrong.
    pub fn faults(&self) -> Vec<String> {
        let mut all = self.records.faults();
        all.extend(self.rows.faults());
        all.extend(self.late.faults());
        all.extend(self.dead.faults());
        all
    }
}

pub(crate) struct Sinks {
    pub records: Ledger<Rec>,
    pub rows: Ledger<Row>,
    pub late: Ledger<Rec>,
}

/// Writes the job. `seed` is that of the sources' portions; `meter` says what they read and may.
pub fn build(spec: &Spec, seed: u64, meter: &Meter, to: &Outputs) -> Job {
    let job = Job::new("drawn");
    job.dead_letters_to(to.dead.clone());
    let sinks = Sinks {
        records: to.records.clone(),
        rows: to.rows.clone(),
        late: to.late.clone(),
    };
    match &spec.sources[..] {
        [one] if spec.steps.is_empty() => direct(&job, one, seed, meter, &spec.end, sinks),
        sources => {
            let mut streams = sources
                .iter()
                .enumerate()
                .map(|(n, s)| opened(&job, s, seed + n as u64, &meter.of_source(n)));
            let mut stream = match (streams.next(), streams.next()) {
                (Some(one), Some(two)) => one.union(two),
                (Some(one), None) => one,
                _ => unreachable!("a spec has one source or two"),
            };
            for step in &spec.steps {
                stream = one_step(stream, *step);
            }
            end(stream, &spec.end, sinks);
        }
    }
    job
}

/// A filter, a map and a flat_map, fused.
macro_rules! fused {
    ($stream:expr, $with:expr) => {{
        let with: Fused = $with;
        $stream
            .filter(move |r: &Rec| with.keeps(r))
            .map(move |r: Rec| with.mapped(r))
            .flat_map(move |r: Rec| with.copied(r))
    }};
}

/// A source with its event times and what `$then` makes of it: with fused steps, or with none at all, so that its
/// records may travel as batches.
macro_rules! source {
    ($job:expr, $spec:expr, $seed:expr, $meter:expr, $then:expr) => {{
        let source = Uneven {
            partitions: $spec.partitions.clone(),
            seed: $seed,
            naps: $spec.idle_after.is_some(),
            meter: $meter.clone(),
        };
        let stream = $job.source(source);
        if $spec.before == Fused::default() && $spec.after == Fused::default() {
            timed!(stream, $spec, $then, plain)
        } else {
            timed!(fused!(stream, $spec.before), $spec, $then, fused)
        }
    }};
}

macro_rules! plain {
    ($stream:expr, $with:expr) => {
        $stream
    };
}

macro_rules! timed {
    ($stream:expr, $spec:expr, $then:expr, $after:ident) => {{
        let stream = $stream;
        let time = |r: &Rec| r.time.map(EventTime::from_micros);
        match $spec.generator {
            Generator::Bounded(0) => {
                let strategy = aligned(Watermarks::monotonous(), $spec);
                $then($after!(stream.event_time(time, strategy), $spec.after))
            }
            Generator::Bounded(bound) => {
                let strategy = aligned(Watermarks::bounded(Span::from_micros(bound)), $spec);
                $then($after!(stream.event_time(time, strategy), $spec.after))
            }
            Generator::Punctuated => {
                let mark = |r: &Rec| r.mark.map(EventTime::from_micros);
                let strategy = aligned(Watermarks::punctuated(mark), $spec);
                $then($after!(stream.event_time(time, strategy), $spec.after))
            }
            Generator::Custom(behind) => {
                let strategy = aligned(Watermarks::custom(LastEven { behind, last: None }), $spec);
                $then($after!(stream.event_time(time, strategy), $spec.after))
            }
        }
    }};
}

fn aligned<G>(strategy: Watermarks<G>, spec: &SourceSpec) -> Watermarks<G> {
    let strategy = match spec.max_drift {
        Some(drift) => strategy.max_drift(Span::from_micros(drift)),
        None => strategy,
    };
    match spec.idle_after {
        Some(silence) => strategy.idle_after(Span::from_micros(silence)),
        None => strategy,
    }
}

/// See [`Generator::Custom`].
#[derive(Clone, Debug)]
struct LastEven {
    behind: i64,
    last: Option<EventTime>,
}

impl WatermarkGenerator<Rec> for LastEven {
    type State = Option<EventTime>;
    fn on_record(&mut self, record: &Rec, time: EventTime) {
        if record.id.is_multiple_of(2) {
            self.last = Some(time);
        }
    }
    fn watermark(&self) -> EventTime {
        self.last.map_or(EventTime::BEGINNING, |last| {
            last - Span::from_micros(self.behind)
        })
    }
    fn state(&self) -> Option<EventTime> {
        self.last
    }
    fn restore(&mut self, last: Option<EventTime>) {
        self.last = last;
    }
}

/// A source with its end fused to it.
fn direct(job: &Job, spec: &SourceSpec, seed: u64, meter: &Meter, how: &End, sinks: Sinks) {
    source!(job, spec, seed, meter, |stream| end(stream, how, sinks));
}

/// A source with a stage boundary behind it, so that all have one type.
fn opened(job: &Job, spec: &SourceSpec, seed: u64, meter: &Meter) -> Stream<Inlet<Rec>> {
    if seed.is_multiple_of(2) {
        source!(job, spec, seed, meter, |s: Stream<_>| s.rebalance())
    } else {
        source!(job, spec, seed, meter, |s: Stream<_>| s
            .key_by(|r: &Rec| r.key)
            .exchange())
    }
}

fn one_step(stream: Stream<Inlet<Rec>>, step: Step) -> Stream<Inlet<Rec>> {
    match step {
        Step::Rebalance(with) => fused!(stream, with).rebalance(),
        Step::Exchange(with) => fused!(stream, with).key_by(|r| r.key).exchange(),
        Step::ReKey(m) => stream
            .map(move |r| Rec {
                key: model::rekeyed(&r, m),
                ..r
            })
            .key_by(|r| r.key)
            .exchange(),
        Step::SplitUnion(with) => {
            let [even, odd] = stream.split(model::way);
            even.union(fused!(odd, with).rebalance())
        }
        Step::ForkUnion(with) => {
            let [one, two] = stream.fork();
            let one = one.map(|r| r.with_copy(2));
            let two = two.map(|r| r.with_copy(3)).key_by(|r| r.value).exchange();
            fused!(one, with).union(two)
        }
        Step::Ask(ask) => asked::ask(stream, ask),
    }
}

type Aggregated = (u64, i64, i64, i64, f64, Vec<(u64, u32)>);
type Further = (f64, f64, i64, i64, Vec<i64>, Vec<i64>, u64);

fn basic_value((count, sum, min, max, tenths, names): Aggregated) -> Value {
    Value {
        count,
        sum,
        min,
        max,
        tenths,
        names,
        more: None,
    }
}

fn with_more((basic, further): (Aggregated, Further)) -> Value {
    let (avg, variance, first, last, all, top, distinct) = further;
    let more = Some(More {
        avg,
        variance,
        first,
        last,
        all,
        top,
        distinct,
    });
    Value {
        more,
        ..basic_value(basic)
    }
}

fn row<V>(w: Windowed<u32, V>, value: impl Fn(V) -> Value) -> Row {
    Row {
        key: w.key,
        start: w.window.start.micros(),
        end: w.window.end.micros(),
        firing: w.firing,
        value: value(w.value),
    }
}

macro_rules! basic {
    ($a:expr) => {
        (
            $a.count(),
            $a.sum(|r: &Rec| r.value),
            $a.min(|r: &Rec| r.value),
            $a.max(|r: &Rec| r.value),
            $a.sum(|r: &Rec| r.value as f64 * 0.1),
            Names,
        )
    };
}

/// The aggregates over a keyed stream's windows, as rows.
macro_rules! aggregated {
    ($windowed:expr) => {
        $windowed
            .aggregate(|a| basic!(a))
            .map(|w| row(w, basic_value))
    };
}

/// The same with further ones.
macro_rules! more {
    ($windowed:expr) => {
        $windowed
            .aggregate(|a| {
                let further = (
                    a.avg(|r: &Rec| r.value),
                    a.variance(|r: &Rec| r.value),
                    a.first(|r: &Rec| r.value),
                    a.last(|r: &Rec| r.value),
                    a.collect(|r: &Rec| r.value),
                    a.top_k(More::K, |r: &Rec| r.value),
                    a.count_distinct(|r: &Rec| r.value),
                );
                (basic!(a), further)
            })
            .map(|w| row(w, with_more))
    };
}

/// The window `$window` over `$stream`, then a second one or none, into the sinks.
macro_rules! window_end {
    ($stream:expr, $spec:expr, $window:expr, $then:expr, $sinks:expr) => {{
        let Sinks { rows, late, .. } = $sinks;
        let window = $window;
        match ($then, $spec.key_by_ref) {
            (None, _) if $spec.more => {
                let keyed = $stream.key_by(|r: &Rec| r.key);
                more!(keyed.window(window).late_to(late)).sink(rows);
            }
            (None, false) => {
                let keyed = $stream.key_by(|r: &Rec| r.key);
                aggregated!(keyed.window(window).late_to(late)).sink(rows);
            }
            (None, true) => {
                let keyed = $stream.key_by_ref(|r: &Rec| &r.key);
                aggregated!(keyed.window(window).late_to(late)).sink(rows);
            }
            (Some(size), _) => {
                let keyed = $stream.key_by(|r: &Rec| r.key);
                let first = aggregated!(keyed.window(window).late_to(late));
                let second = first
                    .map(|row| model::as_record(&row, row.end - 1))
                    .key_by(|r| r.key)
                    .window(Tumbling::of(Span::from_micros(size)));
                aggregated!(second).sink(rows);
            }
        }
    }};
}

/// Sets the lateness that windows of every kind share.
macro_rules! late {
    ($window:expr, $spec:expr) => {{
        let window = $window;
        let allowed = Span::from_micros($spec.lateness);
        match $spec.late {
            Late::Drop => window,
            Late::Update => window.allowed_lateness(allowed),
            Late::OneCorrection => window.allowed_lateness(allowed).one_correction(),
        }
    }};
}

fn end<P: Pipeline<Item = Rec>>(stream: Stream<P>, how: &End, sinks: Sinks) {
    match *how {
        End::Records => stream.sink(sinks.records),
        End::Window(spec) => windowed(stream, spec, None, sinks),
        End::Chained(spec, size) => windowed(stream, spec, Some(size), sinks),
        End::Running => {
            let running = stream.key_by(|r: &Rec| r.key).running(|a| basic!(a));
            let rows = running.map(|k| Row {
                key: k.key,
                start: 0,
                end: 0,
                firing: Firing::OnTime,
                value: basic_value(k.value),
            });
            rows.sink(sinks.rows);
        }
        End::Ordered(lateness) => stream
            .key_by_ref(|r: &Rec| &r.key)
            .in_event_time_order()
            .allowed_lateness(Span::from_micros(lateness))
            .late_to(sinks.late)
            .fold(Folded::default(), fold)
            .map(|k| model::folded(k.key, k.value))
            .sink(sinks.rows),
        End::Process(lateness) => process(stream, lateness, sinks),
        End::Operator(operator, lateness) => operators::end(stream, operator, lateness, sinks),
        End::Changes(table, then) => changes::end(stream.rebalance(), table, then, sinks),
    }
}

/// The process function that [`model::process`] judges.
fn process<P: Pipeline<Item = Rec>>(stream: Stream<P>, lateness: i64, sinks: Sinks) {
    use model::process::{LIFE, told};
    let states = (
        value::<u64>("count"),
        map::<i64, i64>("sums"),
        list::<(u64, u32)>("last").ttl(Ttl::event_time(Span::from_micros(LIFE))),
        reducing("most", |a: &mut i64, b: i64| *a = b.max(*a)),
        aggregating("sum", |a| a.sum(|r: &Rec| r.value)),
    );
    let micros = |n: i64| Span::from_micros(n);
    stream
        .key_by_ref(|r: &Rec| &r.key)
        .in_event_time_order()
        .allowed_lateness(Span::from_micros(lateness))
        .late_to(sinks.late)
        .process("judged", states)
        .on_timer(|time, (count, sums, last, most, sum), cx| {
            let time = time.micros();
            let sums_now: Vec<_> = sums.iter().map(|(k, v)| (*k, *v)).collect();
            let last_now: Vec<_> = last.iter().copied().collect();
            let totals = (most.get().copied(), sum.get());
            let count_now = count.get().copied();
            cx.emit(told(
                *cx.key(),
                Some(time),
                count_now,
                &sums_now,
                &last_now,
                totals,
            ));
            if time % 2 == 0 {
                last.clear();
                most.clear();
            } else {
                sums.remove(&0);
                sum.clear();
            }
        })
        .each(move |r: &Rec, (count, sums, last, most, sum), cx| {
            *count.or_default() += 1;
            let of = sums.or_default(r.value % 3);
            *of = of.wrapping_add(r.value);
            last.push(r.name());
            if last.len() > 3 {
                last.pop_front();
            }
            most.add(r.value);
            sum.add(r);
            let sums_now: Vec<_> = sums.iter().map(|(k, v)| (*k, *v)).collect();
            let last_now: Vec<_> = last.iter().copied().collect();
            let totals = (most.get().copied(), sum.get());
            let count_now = count.get().copied();
            cx.emit(told(r.key, None, count_now, &sums_now, &last_now, totals));
            if r.value % 4 == 0 {
                cx.timer_at(cx.time() + micros(r.value % 50));
            }
            if r.value % 7 == 0 {
                cx.delete_timer(cx.time() + micros(8));
            }
            if count.get() == Some(&6) {
                count.clear();
            }
        })
        .sink(sinks.rows);
}

fn windowed<P: Pipeline<Item = Rec>>(
    stream: Stream<P>,
    spec: WindowSpec,
    then: Option<i64>,
    sinks: Sinks,
) {
    let span = Span::from_micros;
    match spec.kind {
        Kind::Tumbling { size, offset } => {
            let window = Tumbling::of(span(size)).offset(span(offset));
            window_end!(stream, spec, late!(window, spec), then, sinks);
        }
        Kind::Session { gap } => {
            let window = Session::gap(span(gap));
            window_end!(stream, spec, late!(window, spec), then, sinks);
        }
        Kind::Sliding {
            size,
            slide,
            offset,
        } => {
            let window = Sliding::of(span(size), span(slide)).offset(span(offset));
            window_end!(stream, spec, late!(window, spec), then, sinks);
        }
        Kind::Cumulate { size, step, offset } => {
            let window = Cumulate::of(span(size), span(step)).offset(span(offset));
            window_end!(stream, spec, late!(window, spec), then, sinks);
        }
    }
}

/// The very records of a window, sorted: merges in any order.
#[derive(Clone, Copy, Debug)]
struct Names;

impl Aggregate<Rec> for Names {
    type Acc = Vec<(u64, u32)>;
    type Out = Vec<(u64, u32)>;
    fn create(&self) -> Self::Acc {
        vec![]
    }
    fn add(&self, acc: &mut Self::Acc, record: &Rec, _: At) {
        acc.push(record.name());
    }
    fn merge(&self, acc: &mut Self::Acc, other: &Self::Acc) {
        acc.extend_from_slice(other);
    }
    fn finish(&self, acc: &Self::Acc) -> Self::Out {
        let mut names = acc.clone();
        names.sort_unstable();
        names
    }
}
