//! Records that come in batches get the marks, watermarks and refusals that they get one by one.

use super::*;
use crate::push::Counters;
use crate::time::Spans;
use crate::watermark::{Bounded, Punctuated};
use proptest::prelude::*;

/// What came through: time and behind mark of each record, by its number.
#[derive(Default)]
struct Came(Vec<(usize, Stamp)>);

impl Push<(usize, Option<i64>)> for Came {
    fn push(&mut self, (number, _): (usize, Option<i64>), stamp: Stamp, _: &mut Cx) {
        self.0.push((number, stamp));
    }
    fn control(&mut self, _: Control, _: &mut Cx) {}
    fn blocked(&self) -> bool {
        false
    }
}

type Record = (usize, Option<i64>);

/// Pushes the records, `many` at a time in batches, or one by one: what came, V at the end, what the generator knows, and counts.
fn run<G: WatermarkGenerator<Record>>(
    strategy: &Watermarks<G>,
    records: &[Record],
    many: Option<usize>,
) -> (Vec<(usize, Stamp)>, EventTime, String, Counters)
where
    G::State: std::fmt::Debug,
{
    let time_of = |r: &Record| r.1.map(EventTime::from_micros);
    let (name, state) = ("times".to_string(), StateId(1));
    let came = Came::default();
    let mut link = EventTimeLink::new(came, time_of, strategy, OpId(0), name, &[0], None, state);
    let mut cx = Cx::new(0);
    for chunk in records.chunks(many.unwrap_or(1)) {
        if many.is_none() {
            link.push(chunk[0], Stamp::NONE, &mut cx);
            continue;
        }
        let mut batch = Batch::with_capacity(chunk.len());
        batch.records.extend(chunk);
        link.push_batch(&mut batch, &mut cx);
        assert!(batch.is_empty());
    }
    link.put_back();
    let learned = link.parts[0].generator.state();
    let learned = format!("{learned:?}");
    let watermark = link.parts[0].watermark;
    (link.next.0, watermark, learned, cx.counters)
}

fn times() -> impl Strategy<Value = Vec<Record>> {
    let near_the_ends = prop_oneof![
        Just(i64::MIN),
        Just(i64::MAX),
        Just(EventTime::MIN.micros()),
        Just(EventTime::MAX.micros()),
        Just(EventTime::MAX.micros() + 1),
    ];
    let step = prop_oneof![30 => (0i64..3).prop_map(Ok), 2 => (-8i64..0).prop_map(Ok), 1 => Just(Err(None)), 1 => near_the_ends.prop_map(|t| Err(Some(t)))];
    prop::collection::vec(step, 0..200).prop_map(|steps| {
        let mut now = 0;
        let time = |step| match step {
            Ok(by) => {
                now += by;
                Some(now)
            }
            Err(odd) => odd,
        };
        steps.into_iter().map(time).enumerate().collect()
    })
}

proptest! {
    #[test]
    fn batches_are_marked_as_records_are(records in times(), many in 1usize..20, bound in 0i64..5) {
        let bounded: Watermarks<Bounded> = Watermarks::bounded(bound.micros());
        let one_by_one = run(&bounded, &records, None);
        prop_assert_eq!(run(&bounded, &records, Some(many)), one_by_one);
    }

    /// A generator that has to see each record sees each.
    #[test]
    fn marks_within_are_seen(records in times(), many in 1usize..20) {
        let mark = |r: &Record| r.1.filter(|t| r.0.is_multiple_of(3) && t % 2 == 0).map(|t| EventTime::from_micros(t.min(1 << 60)));
        let punctuated: Watermarks<Punctuated<Record, _>> = Watermarks::punctuated(mark);
        let one_by_one = run(&punctuated, &records, None);
        prop_assert_eq!(run(&punctuated, &records, Some(many)), one_by_one);
    }
}
