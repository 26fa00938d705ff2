//! What is kept comes back, damaged bytes are refused, older versions migrate, and no shape changes unseen.

use super::*;
use crate::aggregate::scramble::cases;
use crate::aggregate::{At, Collected, Compensated, Deviations, Distinct, DistinctSketch, Exact};
use crate::aggregate::{Best, Rank, Wide};
use crate::batch::Origin;
use crate::pattern::{Entry, TimedOut};
use crate::push::DeadLetter;
use crate::{EventTime, Firing, Keyed, Span, Window, Windowed};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

fn bytes<T: State>(value: &T) -> Vec<u8> {
    Codec::default().bytes_of(value)
}

fn back<T: State>(value: &T) -> T {
    Codec::default().load(&bytes(value)).unwrap()
}

fn comes_back<T: State + PartialEq + Debug>(value: T) {
    assert_eq!(back(&value), value);
}

type Many = (u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, bool, char);

/// Any value, of which most types here are made.
fn any_many() -> impl Strategy<Value = Many> {
    let bits = any::<(u128, i128, bool, char)>();
    let small = any::<(u8, u16, u32, u64, i8, i16, i32, i64)>();
    (small, bits).prop_map(|(s, (a, b, c, d))| (s.0, s.1, s.2, s.3, a, s.4, s.5, s.6, s.7, b, c, d))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn plain_values_come_back(many in any_many(), float in any::<u64>(), text in ".{0,40}", nanos in 0u32..1_000_000_000) {
        comes_back(many);
        prop_assert_eq!(back(&f64::from_bits(float)).to_bits(), float);
        prop_assert_eq!(back(&f32::from_bits(float as u32)).to_bits(), float as u32);
        comes_back(text.clone());
        comes_back(text.clone().into_boxed_str());
        comes_back(Duration::new(float, nanos));
        comes_back(((), Some(text), None::<u8>, Box::new(many.3)));
    }

    #[test]
    fn containers_come_back(pairs in prop::collection::vec((".{0,12}", any::<i64>()), 0..30)) {
        comes_back(pairs.clone());
        // Wrapped round, so that it lies in two pieces.
        let mut deque: VecDeque<_> = pairs.iter().cloned().collect();
        deque.rotate_left(pairs.len() / 2);
        deque.extend(pairs.iter().take(3).cloned());
        comes_back(deque);
        comes_back(pairs.iter().cloned().collect::<BTreeMap<_, _>>());
        comes_back(pairs.iter().map(|p| p.1).collect::<BTreeSet<_>>());
        comes_back(pairs.iter().cloned().collect::<HashMap<_, _>>());
        comes_back(pairs.iter().map(|p| p.0.clone()).collect::<HashSet<_>>());
        comes_back([pairs.first().cloned(), None, pairs.last().cloned()]);
        // A list by another name: the shapes are equal, and so are the bytes.
        let deque: VecDeque<_> = pairs.iter().cloned().collect();
        let loaded: Vec<(String, i64)> = load_as(&shape_of::<VecDeque<(String, i64)>>(), &bytes(&deque)).unwrap();
        prop_assert_eq!(loaded, pairs);
    }

    #[test]
    fn our_own_types_come_back(n in any::<(i64, i64, u32, u32, u64, u64)>(), text in ".{0,20}", firing in 0usize..5) {
        let time = EventTime::from_micros(n.0);
        let window = Window { start: time, end: EventTime::from_micros(n.1) };
        let origin = Origin { source: n.2, partition: n.3, offset: n.4, emission: n.5 };
        let firing = [Firing::Early, Firing::OnTime, Firing::Update, Firing::Correction, Firing::Retraction][firing];
        comes_back((time, Span::from_micros(n.1), window, origin, At { time, origin }));
        comes_back(Windowed { key: text.clone(), window, value: Some(n.1), firing });
        comes_back(Keyed { key: n.0, value: text.clone() });
        comes_back(DeadLetter {
            at: text.clone(), partition: text.clone(), offset: n.4, line: Some(n.5), reason: text.clone(), payload: text.into_bytes(),
        });
        comes_back([(time, n.2)].into_iter().collect::<BTreeMap<_, _>>());
    }
}

/// A type that contains itself, in three ways.
#[crate::state(version = 3)]
#[derive(Clone, Debug, PartialEq)]
enum Tree<T> {
    Leaf(T),
    Pair(Box<Self>, Box<Tree<T>>),
    Many { of: Vec<Tree<T>>, name: String },
    Nothing,
}

fn trees() -> impl Strategy<Value = Tree<u32>> {
    let leaf = prop_oneof![Just(Tree::Nothing), any::<u32>().prop_map(Tree::Leaf)];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let pair = (inner.clone(), inner.clone());
        let many = (prop::collection::vec(inner, 0..4), ".{0,12}");
        prop_oneof![
            pair.prop_map(|(a, b)| Tree::Pair(Box::new(a), Box::new(b))),
            many.prop_map(|(of, name)| Tree::Many { of, name }),
        ]
    })
}

/// Every kind of thing that a hostile byte can be in.
type Rich = (
    Vec<Tree<u32>>,
    BTreeMap<String, char>,
    HashMap<u32, String>,
    (DistinctSketch, Distinct<u64>, Exact, Collected<String>),
    (VecDeque<Option<bool>>, Duration, Box<str>, [String; 2]),
);

fn rich(trees: Vec<Tree<u32>>, seed: u64) -> Rich {
    use crate::aggregate::{Aggregate, Aggs};
    let a = Aggs::<u64>::new();
    let all = (
        a.count_distinct_approx(|v| *v),
        a.count_distinct(|v| *v),
        a.sum_exact(|v| f64::from_bits(*v)),
        a.collect(|v| v.to_string()),
    );
    let mut acc = Aggregate::<u64>::create(&all);
    for n in 0..seed % 40 {
        all.add(&mut acc, &(seed.rotate_left(n as u32) >> 2), At::default());
    }
    let text = |n: u64| (seed.wrapping_mul(n)).to_string().repeat(n as usize % 3);
    (
        trees,
        (0..seed % 20).map(|n| (text(n), 'ß')).collect(),
        (0..seed % 20).map(|n| (n as u32, text(n))).collect(),
        acc,
        (
            (0..seed % 9)
                .map(|n| (n % 3 > 0).then_some(n % 3 > 1))
                .collect(),
            Duration::from_nanos(seed),
            text(5).into(),
            [text(1), text(2)],
        ),
    )
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn types_that_contain_themselves_come_back(tree in trees()) {
        comes_back(tree);
    }

    /// A flip of some bits and a cut: an error or some value, never a panic. (Which bytes are damaged, the store knows.)
    #[test]
    fn damaged_bytes_do_not_panic(
        trees in prop::collection::vec(trees(), 0..4),
        seed in any::<u64>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut damaged = bytes(&rich(trees, seed));
        for (at, by) in flips {
            let at = at.index(damaged.len());
            damaged[at] ^= by;
        }
        let end = cut.map_or(damaged.len(), |cut| cut.index(damaged.len()));
        if let Ok(mut value) = Codec::default().load::<Rich>(&damaged[..end]) {
            // What was loaded can be used.
            use crate::aggregate::{Aggregate, Aggs};
            let a = Aggs::<u64>::new();
            let all = (
                a.count_distinct_approx(|v| *v), a.count_distinct(|v| *v), a.sum_exact(|v| *v as f64), a.collect(|v| v.to_string()),
            );
            all.add(&mut value.3, &7, At::default());
            all.finish(&value.3);
        }
    }

    #[test]
    fn random_bytes_do_not_panic(random in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Codec::default().load::<Rich>(&random);
        let _ = Codec::default().load::<Best<(u64, String), String>>(&random);
        let _ = Codec::default().load::<Option<Rank<String>>>(&random);
    }

    #[test]
    fn no_prefix_of_the_bytes_is_a_value(tree in trees(), cut in any::<prop::sample::Index>()) {
        let all = bytes(&(tree, 7u64));
        let cut = cut.index(all.len());
        // An archive's root lies at its end: without it other bytes are the root, and most of these make no sense.
        let _ = Codec::default().load::<(Tree<u32>, u64)>(&all[..cut]);
    }
}

mod v1 {
    #[crate::state(version = 1, name = "Visit")]
    pub struct Visit {
        pub pages: u32,
    }
}

mod v2 {
    #[crate::state(version = 2, name = "Visit", migrate = from_v1)]
    pub struct Visit {
        pub pages: u64,
    }
    fn from_v1(old: super::v1::Visit) -> Visit {
        Visit {
            pages: old.pages.into(),
        }
    }
}

#[crate::state(version = 3, migrate = from_v2)]
#[derive(Debug, PartialEq)]
struct Visit {
    pages: u64,
    longest: Option<String>,
}

fn from_v2(old: v2::Visit) -> Visit {
    Visit {
        pages: old.pages,
        longest: None,
    }
}

#[test]
fn older_versions_migrate() {
    let now = Visit {
        pages: 7,
        longest: None,
    };
    let v1 = (shape_of::<v1::Visit>(), bytes(&v1::Visit { pages: 7 }));
    let v2 = (shape_of::<v2::Visit>(), bytes(&v2::Visit { pages: 7 }));
    let v3 = (shape_of::<Visit>(), bytes(&now));
    assert_eq!(v1.0, "struct Visit v1 { pages: u32 }");
    assert_eq!(
        v3.0,
        "struct Visit v3 { pages: u64, longest: option string }"
    );
    for (older, (shape, bytes)) in [(true, v1), (true, v2), (false, v3)] {
        let mut loader = Loader::<Visit>::new(&shape).unwrap();
        assert_eq!(loader.migrates(), older, "{shape}");
        for misaligned in 0..3 {
            let mut anywhere = vec![0; misaligned];
            anywhere.extend_from_slice(&bytes);
            assert_eq!(loader.load(&anywhere[misaligned..]).unwrap(), now);
        }
        assert!(loader.load(&[]).is_err());
    }
}

#[test]
fn an_unknown_shape_is_an_error_that_names_both() {
    let stored = "struct Visit v1 { pages: u8 }";
    let error = load_as::<Visit>(stored, &bytes(&1u8)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(stored), "{text}");
    assert!(text.contains(&shape_of::<Visit>()), "{text}");
    // Another type of the same layout is another shape.
    assert!(load_as::<u64>("i64", &bytes(&7i64)).is_err());
    assert_eq!(load_as::<u64>("u64", &bytes(&7u64)), Ok(7));
}

#[crate::state(version = 1)]
struct Empty;

#[crate::state(version = 2)]
struct Generic<T, const N: usize>
where
    T: Clone,
{
    of: [T; N],
    r#type: std::marker::PhantomData<fn() -> T>,
}

#[crate::state(version = 1)]
#[allow(dead_code)]
enum Numbered {
    A = 3,
    B = 7,
}

/// Two types that contain each other.
#[crate::state(version = 1)]
struct Folder {
    #[rkyv(omit_bounds)]
    files: Vec<File>,
}

#[crate::state(version = 1)]
struct File {
    #[rkyv(omit_bounds)]
    within: Option<Box<Folder>>,
}

#[test]
fn types_that_contain_each_other_come_back() {
    let within = Some(Box::new(Folder { files: vec![] }));
    let folder = Folder {
        files: vec![File { within: None }, File { within }],
    };
    let folder = back(&folder);
    let within: Vec<_> = folder.files.iter().map(|f| f.within.is_some()).collect();
    assert_eq!(within, [false, true]);
    assert!(folder.files[1].within.as_ref().unwrap().files.is_empty());
}

/// Each type's shape, and its fingerprint, which checkpoints hold: a line that changes is state that can no longer be read.
#[test]
fn shapes_are_as_they_were() {
    let mut lines = String::new();
    macro_rules! shapes {
        ($($t:ty),* $(,)?) => { $(
            let shape = shape_of::<$t>();
            lines += &format!("{:016x} {shape}\n", fingerprint(&shape));
        )* };
    }
    shapes! {
        u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64, bool, char, (), String, Box<str>, Duration,
        Option<u8>, Vec<String>, VecDeque<u8>, Box<u8>, [u8; 4], BTreeMap<String, u8>, BTreeSet<u8>,
        HashMap<String, u8>, HashSet<u8>, std::marker::PhantomData<u8>,
        (u8,), (u8, u8), Many, EventTime, Span, Window, Firing, Windowed<u8, u8>, Keyed<u8, u8>, Origin, At, DeadLetter,
        Wide, Compensated, Deviations, Exact, Collected<u8>, Distinct<u8>, DistinctSketch, Best<u8, ()>,
        Option<Rank<(std::cmp::Reverse<usize>, String)>>,
        Entry<u8>, TimedOut<u8>,
        Tree<u64>, Empty, Generic<u8, 3>, Numbered, Folder, File,
        crate::change::Kind, crate::Change<u8>, crate::Ranked<u8>, crate::over::Frame<u8>,
    }
    assert_eq!(lines, include_str!("shapes.txt"), "they are now\n{lines}");
}

/// A generator that was saved at any place tells what it would have told.
#[test]
fn generators_go_on_where_they_were() {
    use crate::{Spans, WatermarkGenerator, Watermarks};
    fn goes_on<G: WatermarkGenerator<i64>>(new: &G) {
        let times = [7i64, 3, 12, 12, 5, 40, -2, 41];
        for cut in 0..=times.len() {
            let mut all = new.clone();
            let mut later = new.clone();
            for (n, &t) in times.iter().enumerate() {
                if n == cut {
                    later.restore(back(&all.state()));
                    assert_eq!(later.watermark(), all.watermark());
                }
                all.on_record(&t, EventTime::from_micros(t));
                if n >= cut {
                    later.on_record(&t, EventTime::from_micros(t));
                    assert_eq!(later.watermark(), all.watermark());
                }
            }
        }
    }
    goes_on(&Watermarks::bounded(5.micros()).generator);
    goes_on(&Watermarks::monotonous().generator);
    let even = |t: &i64| (t % 2 == 0).then(|| EventTime::from_micros(*t));
    goes_on(&Watermarks::punctuated(even).generator);
    // Another bound than before: what was seen counts, not what was told of it.
    let mut wide = Watermarks::bounded(5.micros()).generator;
    let mut narrow = Watermarks::bounded(2.micros()).generator;
    WatermarkGenerator::<i64>::on_record(&mut wide, &0, EventTime::from_micros(9));
    let state = WatermarkGenerator::<i64>::state(&wide);
    WatermarkGenerator::<i64>::restore(&mut narrow, state);
    assert_eq!(
        WatermarkGenerator::<i64>::watermark(&narrow),
        EventTime::from_micros(7)
    );
}
