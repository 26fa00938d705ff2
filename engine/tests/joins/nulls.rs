//! Keys that are null: plain values, which meet each other in every join; and what SQL does, made of it.

use pelton::join::Between;
use pelton::testing::{Stepper, collect};
use pelton::{EventTime, Job, Spans, Tumbling, Watermarks, sources};

/// (key, number, seconds).
type Row = (Option<u8>, u32, i64);
/// Numbers of both sides.
type Met = (u32, Option<u32>);

const LEFT: [Row; 4] = [(Some(1), 1, 5), (None, 2, 5), (Some(2), 3, 5), (None, 4, 6)];
const RIGHT: [Row; 3] = [(Some(1), 11, 4), (None, 12, 4), (Some(3), 13, 4)];

fn at(row: &Row) -> EventTime {
    EventTime::from_seconds(row.2)
}

/// What a join of these streams comes to on several numbers of shards.
macro_rules! met {
    (|$left:ident, $right:ident| $join:expr) => {{
        let mut all = vec![];
        for shards in [1, 2, 3] {
            let (results, sink) = collect::<Met>();
            let job = Job::new("nulls");
            let [$left, $right] = [LEFT.to_vec(), RIGHT.to_vec()].map(|rows| {
                job.source(sources::items(rows))
                    .event_time(at, Watermarks::bounded(10.seconds()))
            });
            $join.sink(sink);
            Stepper::new(&job, shards).unwrap().run().unwrap();
            let mut met = results.take();
            met.sort_unstable();
            all.push(met);
        }
        assert!(all.iter().all(|met| met == &all[0]), "{all:?}");
        all.swap_remove(0)
    }};
}

fn numbers(left: &Row, right: Option<&Row>) -> Met {
    (left.1, right.map(|r| r.1))
}

#[test]
fn null_keys_meet_in_every_join() {
    let outer = [(1, Some(11)), (2, Some(12)), (3, None), (4, Some(12))];
    let near = Between::of((-5).seconds(), 5.seconds());
    let interval = met!(|left, right| {
        let (left, right) = (left.key_by(|r| r.0), right.key_by(|r| r.0));
        left.interval_join(right, near).left_outer(numbers)
    });
    assert_eq!(interval, outer);
    let window = met!(|left, right| {
        let (left, right) = (left.key_by(|r| r.0), right.key_by(|r| r.0));
        left.window_join(right, Tumbling::of(10.seconds()))
            .left_outer(numbers)
            .map(|w| w.value)
    });
    assert_eq!(window, outer);
    let as_of = met!(|left, right| {
        let (left, right) = (left.key_by(|r| r.0), right.key_by(|r| r.0));
        left.as_of_join(right).left_outer(numbers)
    });
    assert_eq!(as_of, outer);
    // By reference as well.
    let by_ref = met!(|left, right| {
        let (left, right) = (left.key_by_ref(|r| &r.0), right.key_by_ref(|r| &r.0));
        left.as_of_join(right).left_outer(numbers)
    });
    assert_eq!(by_ref, outer);
}

/// Nothing waits for the table of a broadcast join, so it is there first here.
#[test]
fn null_keys_meet_in_a_broadcast_join() {
    let (rows, source) = pelton::testing::feed::<Row>(1);
    let (table, table_source) = pelton::testing::feed::<Row>(1);
    let (results, sink) = collect();
    let job = Job::new("nulls");
    job.source(source)
        .broadcast_join(job.source(table_source).key_by(|r| r.0), |l| l.0)
        .left_outer(numbers)
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    RIGHT.into_iter().for_each(|r| table.push(0, r));
    stepper.until_idle().unwrap();
    LEFT.into_iter().for_each(|r| rows.push(0, r));
    stepper.until_idle().unwrap();
    let met = results.take();
    assert_eq!(
        met,
        [(1, Some(11)), (2, Some(12)), (3, None), (4, Some(12))]
    );
}

/// As the joins' documentation has it: parted from the rest, they make rows without the other side.
#[test]
fn sql_is_had_by_parting_them() {
    let near = Between::of((-5).seconds(), 5.seconds());
    let met = met!(|left, right| {
        let (keyed, alone) = left.side_output(|r: Row| match r.0 {
            Some(key) => Ok((key, r)),
            None => Err(r),
        });
        let right = right.filter(|r| r.0.is_some());
        let keyed = keyed.key_by(|r| Some(r.0));
        let joined = keyed
            .interval_join(right.key_by(|r| r.0), near)
            .left_outer(|l, r| numbers(&l.1, r));
        joined.union(alone.map(|l| numbers(&l, None)))
    });
    assert_eq!(met, [(1, Some(11)), (2, None), (3, None), (4, None)]);
}
