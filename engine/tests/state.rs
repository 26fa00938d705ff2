//! `#[pelton::state]` as others use it: in a crate that documents all it has, for keys, accumulators and held records.
#![deny(missing_docs)]

use pelton::testing::{self, Stepper};
use pelton::{EventTime, Job, Key, KeyWords, Spans, State, Watermarks};

/// A key of two parts; ordered and hashed as an archive, so that maps can have it.
#[pelton::state(version = 1)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord, Hash))]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where it begins.
    pub from: String,
    to: String,
}

impl Key for Route {
    fn words(&self, out: &mut impl KeyWords) {
        self.from.words(out);
        self.to.words(out);
    }
}

/// A record that waits for the watermark. (Not public: rkyv documents all that it makes but the fields of an enum's resolver.)
#[pelton::state(version = 1)]
#[derive(Clone, Debug, PartialEq)]
enum Event<V> {
    /// With names.
    Moved {
        /// When.
        at: i64,
        /// What.
        value: V,
    },
    /// Without.
    Stopped(i64, V),
    /// Nothing.
    Silent,
}

impl<V> Event<V> {
    fn seconds(&self) -> i64 {
        match self {
            Event::Moved { at, .. } | Event::Stopped(at, _) => *at,
            Event::Silent => 0,
        }
    }
}

/// Without names for its fields.
#[pelton::state(version = 1)]
#[derive(Clone, Debug)]
pub enum Shade {
    /// None.
    White,
    /// How dark.
    Grey(u8),
}

/// What a fold keeps.
#[pelton::state(version = 1)]
#[derive(Clone, Debug, Default)]
pub struct Path(Vec<u32>, pub Option<Box<Path>>);

/// Beside other attributes, in whatever order.
#[derive(Clone)]
#[pelton::state(version = 4)]
#[allow(dead_code)]
#[non_exhaustive]
pub struct Unit;

#[test]
fn types_of_ones_own_are_keys_accumulators_and_held_records() {
    let route = |to: &str| Route {
        from: "here".into(),
        to: to.into(),
    };
    let events = [
        Event::Moved { at: 3, value: 3u32 },
        Event::Stopped(1, 1),
        Event::Stopped(2, 2),
    ];
    let (results, sink) = testing::collect();
    let job = Job::new("paths");
    job.source(pelton::sources::items(events))
        .event_time(
            |e: &Event<u32>| EventTime::from_seconds(e.seconds()),
            Watermarks::bounded(5.seconds()),
        )
        .key_by(move |e| route(if e.seconds() == 2 { "two" } else { "there" }))
        .in_event_time_order()
        .fold(Path::default(), |path, e| path.0.push(e.seconds() as u32))
        .sink(sink);
    Stepper::new(&job, 2).unwrap().run().unwrap();
    let mut paths: Vec<_> = results
        .take()
        .into_iter()
        .map(|k| (k.key.to, k.value.0))
        .collect();
    paths.sort();
    let there = "there".to_string();
    assert_eq!(
        paths,
        [
            (there.clone(), vec![1]),
            (there, vec![1, 3]),
            ("two".to_string(), vec![2])
        ]
    );
}

#[test]
fn shapes_say_what_the_bytes_depend_on() {
    fn shape<T: State>() -> String {
        pelton::state::shape_of::<T>()
    }
    assert_eq!(
        shape::<std::collections::BTreeMap<Route, Unit>>(),
        "ordered map {struct Route v1 { from: string, to: string }: struct Unit v4}"
    );
    assert_eq!(
        shape::<Event<u8>>(),
        "enum Event<u8> v1 { Moved { at: i64, value: u8 }, Stopped(i64, u8), Silent }"
    );
    assert_eq!(shape::<Shade>(), "enum Shade v1 { White, Grey(u8) }");
    assert_eq!(shape::<Path>(), "struct Path v1([u32], option box Path)");
}
