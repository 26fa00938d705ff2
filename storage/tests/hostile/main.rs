//! The bodies of `bodies.rs` on stable: random bytes, and golden files with some of their bytes changed. The fuzzers in `fuzz/` call the same
//! bodies, under a limit of memory. Here what was decoded is held to the bytes that were there: capacities, not only lengths.

mod bodies;
mod inputs;

use inputs::{EXTREMES, golden};
use proptest::collection::vec;
use proptest::prelude::*;

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES").ok();
    let cases = cases.and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig::with_cases(cases)
}

/// What is done to valid bytes. Places are drawn from all numbers, and taken modulo the places that hold something.
#[derive(Debug, Clone)]
enum Change {
    Byte(usize, u8),
    Word(usize, usize),
    /// Eight bytes alike.
    Long(usize, u8),
    Cut(usize),
    /// Bytes from one place over those of another.
    Copy(usize, usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<usize>;
    let extreme = prop_oneof![Just(0), Just(0x7F), Just(0x80), Just(0xFF)];
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        3 => (at(), 0..EXTREMES.len()).prop_map(|(at, word)| Change::Word(at, word)),
        2 => (at(), extreme).prop_map(|(at, byte)| Change::Long(at, byte)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), at(), 1usize..5000).prop_map(|(a, b, len)| Change::Copy(a, b, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    // Headers and lengths lie where something is, or a few zeros behind it; most of a file is neither.
    let is_near = |&at: &usize| bytes[at.saturating_sub(8)..=at].iter().any(|&b| b != 0);
    let near: Vec<usize> = (0..bytes.len()).filter(is_near).collect();
    if near.is_empty() {
        return;
    }
    let place = |at: usize| near[at % near.len()];
    let mut put = |at: usize, what: &[u8]| {
        let end = (at + what.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&what[..end - at]);
    };
    match *change {
        Change::Byte(at, byte) => put(place(at), &[byte]),
        Change::Word(at, word) => put(place(at), &EXTREMES[word].to_le_bytes()),
        Change::Long(at, byte) => put(place(at), &[byte; 8]),
        Change::Cut(at) => bytes.truncate(place(at)),
        Change::Copy(from, to, len) => {
            let (from, to) = (place(from), place(to));
            let len = len.min(bytes.len() - from).min(bytes.len() - to);
            bytes.copy_within(from..from + len, to);
        }
    }
}

/// A golden file with some changes.
fn changed(prefix: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let files = golden(prefix);
    (0..files.len(), vec(change(), 0..6)).prop_map(move |(file, changes)| {
        let mut bytes = files[file].clone();
        changes.iter().for_each(|c| apply(&mut bytes, c));
        bytes
    })
}

fn random() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 4096..8300)]
}

/// The first block of a golden segment.
fn blocks() -> impl Strategy<Value = Vec<u8>> {
    changed("segment-").prop_map(|file| {
        let left = file.get(4096..).unwrap_or_default();
        let len = pelton_storage::format::block::peek_len(left, left.len() as u64);
        left[..len.unwrap_or(left.len())].to_vec()
    })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn block(bytes in prop_oneof![blocks(), random()]) {
        bodies::block(&bytes);
    }

    #[test]
    fn snapshot(bytes in prop_oneof![changed("segment-"), random()]) {
        bodies::snapshot(&bytes);
    }

    #[test]
    fn log(bytes in prop_oneof![changed("log-"), random()]) {
        bodies::log(&bytes);
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn manifest(bytes in prop_oneof![changed("manifest-"), changed("savepoint"), random()]) {
        bodies::manifest(&bytes);
    }
}

/// What is whole is read: or the bodies would prove nothing.
#[test]
fn valid_bytes() {
    golden("segment-").iter().for_each(|b| bodies::snapshot(b));
    golden("log-").iter().for_each(|b| bodies::log(b));
    golden("manifest-").iter().for_each(|b| bodies::manifest(b));
    golden("savepoint").iter().for_each(|b| bodies::manifest(b));
}

/// Every length, count and number at its extremes.
#[test]
fn extremes_everywhere() {
    let newest = |prefix| golden(prefix).pop().expect("there is one");
    for bytes in inputs::swept(&newest("segment-"), 64) {
        bodies::snapshot(&bytes);
        bodies::block(&bytes[4096..]);
    }
    inputs::swept(&newest("log-"), 80).for_each(|b| bodies::log(&b));
    inputs::swept(&newest("savepoint"), 240).for_each(|b| bodies::manifest(&b));
    // Both copies of each record: or the other one would be taken instead.
    for mut bytes in inputs::swept(&newest("manifest-"), 240) {
        let copies: Vec<usize> = (8192..bytes.len()).step_by(32 << 10).collect();
        for copy in copies {
            bytes.copy_within(copy..copy + 4096, copy + (16 << 10));
        }
        bodies::manifest(&bytes);
    }
}
