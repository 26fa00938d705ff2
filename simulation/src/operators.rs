//! The operators of [`End::Operator`](crate::spec::End::Operator) as parts of a job: [`crate::model::operators`] judges them.

use crate::job::Sinks;
use crate::model::operators::{pair, side, told};
use crate::record::{Rec, Row};
use crate::spec::Operator;
use pelton::join::Between;
use pelton::pattern::Pattern;
use pelton::{KeyedStream, Over, Pipeline, Span, Stream, Tumbling};

fn span(micros: i64) -> Span {
    Span::from_micros(micros)
}

/// Puts the operator at the end of a stream.
pub(crate) fn end<P: Pipeline<Item = Rec>>(
    stream: Stream<P>,
    operator: Operator,
    lateness: i64,
    sinks: Sinks,
) {
    let Sinks {
        records,
        rows,
        late,
    } = sinks;
    let allowed = span(lateness);
    // One side each by the parity of ids.
    macro_rules! joined {
        (|$left:ident, $right:ident| $join:expr) => {{
            let [$left, $right] = stream.split(side);
            let ($left, $right) = (
                $left.key_by(|r: &Rec| r.key),
                $right.key_by(|r: &Rec| r.key),
            );
            $join
        }};
    }
    macro_rules! ordered {
        () => {
            stream
                .key_by(|r: &Rec| r.key)
                .in_event_time_order()
                .allowed_lateness(allowed)
                .late_to(late)
        };
    }
    let alone = |r: Rec| told(r.key, Some(&r), None, (0, 0));
    let framed = |(r, of): (Rec, (u64, i64))| told(r.key, Some(&r), None, of);
    match operator {
        Operator::First { horizon } => ordered!().deduplicate(span(horizon)).map(alone).sink(rows),
        Operator::Last { horizon } => ordered!()
            .deduplicate_to_last(span(horizon))
            .map(alone)
            .sink(rows),
        Operator::OverRows { rows: n } => ordered!()
            .over(Over::rows(n))
            .aggregate(|a| (a.count(), a.sum(|r: &Rec| r.value)))
            .map(framed)
            .sink(rows),
        Operator::OverRange { span: reach } => ordered!()
            .over(Over::range(span(reach)))
            .aggregate(|a| (a.count(), a.sum(|r: &Rec| r.value)))
            .map(framed)
            .sink(rows),
        Operator::Interval {
            lower,
            upper,
            outer,
        } => joined!(|left, right| {
            let between = Between::of(span(lower), span(upper));
            let join = left
                .interval_join(right, between)
                .allowed_lateness(allowed)
                .late_left_to(late)
                .late_right_to(records);
            match outer {
                [false, false] => join.inner(|l, r| pair(l.key, Some(l), Some(r))).sink(rows),
                [true, false] => join.left_outer(|l, r| pair(l.key, Some(l), r)).sink(rows),
                [false, true] => join.right_outer(|l, r| pair(r.key, l, Some(r))).sink(rows),
                [true, true] => join.full_outer(either).sink(rows),
            }
        }),
        Operator::AsOf => joined!(|left, right| left
            .as_of_join(right)
            .allowed_lateness(allowed)
            .left_outer(|l, r| pair(l.key, Some(l), r))
            .sink(rows)),
        Operator::Windows { size } => joined!(|left, right| left
            .window_join(right, Tumbling::of(span(size)))
            .full_outer(either)
            .map(|w| w.value)
            .sink(rows)),
        Operator::Match { within, strict } => {
            let even = Pattern::begin("even").where_(|r: &Rec| r.value % 2 == 0);
            let odd = match strict {
                true => even.next("odd"),
                false => even.followed_by("odd"),
            };
            let pattern = odd.where_(|r: &Rec| r.value % 2 != 0).within(span(within));
            let keyed: KeyedStream<_, _> = stream.key_by(|r: &Rec| r.key);
            keyed
                .pattern(pattern)
                .allowed_lateness(allowed)
                .late_to(late)
                .select(|m| {
                    let (even, odd) = (m.of("even").next(), m.of("odd").next());
                    pair(even.map_or(0, |r| r.key), even, odd)
                })
                .sink(rows);
        }
    }
}

fn either(left: Option<&Rec>, right: Option<&Rec>) -> Row {
    let key = left.or(right).map_or(0, |r| r.key);
    pair(key, left, right)
}
