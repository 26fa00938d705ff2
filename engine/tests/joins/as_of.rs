//! As-of joins.

use crate::world::{Ev, Script, all_die, at, bound, cases, dying, script, undisturbed};
use pelton::process::Ttl;
use pelton::sink::Sink;
use pelton::testing::{self, FeedSource, Stepper};
use pelton::{Job, Sides, Spans, Watermarks};
use proptest::prelude::*;

/// Key, number of the record, number of its version.
type Row = (u8, u32, Option<u32>);

fn write(
    job: &Job,
    (left, right): (FeedSource<Ev>, FeedSource<Ev>),
    outer: bool,
    sink: impl Sink<Row>,
) {
    let left = job.source(left).uid("records");
    let left = left
        .event_time(at, Watermarks::bounded(bound()))
        .uid("times");
    let right = job.source(right).uid("versions");
    let right = right
        .event_time(at, Watermarks::bounded(bound()))
        .uid("their times");
    let joined = left
        .key_by(|e| e.0)
        .as_of_join(right.key_by(|e| e.0))
        .uid("as of");
    match outer {
        true => joined
            .left_outer(|l, r| (l.0, l.1, r.map(|r| r.1)))
            .sink(sink),
        false => joined.inner(|l, r| (l.0, l.1, Some(r.1))).sink(sink),
    }
}

fn model(script: &Script, outer: bool) -> Vec<Row> {
    // The last by (time, partition, offset): as they are concatenated, the last of the greatest time.
    let versions = script.of(1);
    let version = |l: &Ev| {
        let held = versions.iter().filter(|r| r.0 == l.0 && r.2 <= l.2);
        held.max_by_key(|r| r.2).map(|r| r.1)
    };
    let mut rows: Vec<Row> = script
        .of(0)
        .iter()
        .map(|l| (l.0, l.1, version(l)))
        .collect();
    rows.retain(|row| outer || row.2.is_some());
    rows.sort();
    rows
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn each_record_meets_what_the_model_says(script in script(), outer in any::<bool>()) {
        let rows = undisturbed(&script, |job, left, right, sink| {
            write(job, (left, right), outer, sink);
        });
        prop_assert_eq!(rows, model(&script, outer));
    }
}

#[test]
fn and_so_it_is_whatever_dies() {
    all_die((script(), any::<bool>()), |(script, outer)| {
        let (rows, deaths) = dying(script, |job, left, right, ledger| {
            write(job, (left, right), *outer, ledger);
        });
        prop_assert_eq!(rows, model(script, *outer));
        Ok(deaths)
    });
}

/// A version of the very time of a record holds for it, whichever of both was written first into the job.
#[test]
fn a_version_of_the_same_time_holds() {
    for versions_first in [false, true] {
        let job = Job::new("ties");
        let stream = |events: Vec<Ev>| {
            job.source(pelton::sources::items(events))
                .event_time(at, Watermarks::monotonous())
                .key_by(|e| e.0)
        };
        let (records, versions) = (vec![(1, 1, 5)], vec![(1, 10, 5)]);
        let (rows, sink) = testing::collect();
        let (left, right) = match versions_first {
            true => {
                let right = stream(versions);
                (stream(records), right)
            }
            false => (stream(records), stream(versions)),
        };
        left.as_of_join(right).inner(|l, r| (l.1, r.1)).sink(sink);
        Stepper::new(&job, 2).unwrap().run().unwrap();
        assert_eq!(rows.take(), [(1, 10)]);
    }
}

/// A version goes when its time to live is over, and is gone for records from then on.
#[test]
fn a_version_lives_as_long_as_it_is_said() {
    let job = Job::new("ttl");
    let stream = |events: Vec<Ev>| {
        job.source(pelton::sources::items(events))
            .event_time(at, Watermarks::monotonous())
            .key_by(|e| e.0)
    };
    let (rows, sink) = testing::collect();
    stream(vec![(1, 1, 14), (1, 2, 15), (1, 3, 16)])
        .as_of_join(stream(vec![(1, 10, 5)]))
        .versions_live(Ttl::event_time(10.seconds()))
        .left_outer(|l, r| (l.1, r.is_some()))
        .sink(sink);
    Stepper::new(&job, 1).unwrap().run().unwrap();
    assert_eq!(rows.take(), [(1, true), (2, false), (3, false)]);
}

/// Late ones meet nobody, on either side; with allowed lateness they do.
#[test]
fn late_records_and_versions() {
    for allowed in [0, 100] {
        let [(one, left), (two, right)] = [testing::feed(1), testing::feed(1)];
        let job = Job::new("late");
        let timed = |source| {
            let stream = job.source(source);
            let stream = stream.event_time(at, Watermarks::monotonous());
            stream.key_by(|e: &Ev| e.0)
        };
        let (rows, sink) = testing::collect();
        let (late, late_sink) = testing::collect();
        timed(left)
            .as_of_join(timed(right))
            .allowed_lateness(allowed.seconds())
            .late_to(late_sink)
            .left_outer(|l, r| (l.1, r.map(|r| r.1)))
            .sink(sink);
        let mut stepper = Stepper::new(&job, 1).unwrap();
        for (feed, number) in [(&one, 0), (&two, 10)] {
            feed.push(0, (1, number, 50));
            feed.push(0, (1, number + 1, 40));
        }
        stepper.until_idle().unwrap();
        drop((one, two));
        stepper.run().unwrap();
        let mut aside: Vec<Sides<Ev, Ev>> = late.take();
        aside.sort();
        let mut rows = rows.take();
        rows.sort();
        match allowed {
            0 => {
                assert_eq!(aside, [Sides::Left((1, 1, 40)), Sides::Right((1, 11, 40))]);
                assert_eq!(rows, [(0, Some(10))]);
            }
            _ => {
                assert_eq!(aside, []);
                assert_eq!(rows, [(0, Some(10)), (1, Some(11))]);
            }
        }
    }
}
