//! The table against a map, and how its index grows.

use super::*;
use crate::key::{KeySpace, stable_hash};
use proptest::prelude::*;
use std::collections::HashMap;

fn check(table: &KeyTable<u64, u64>, model: &HashMap<u64, u64>) {
    assert_eq!(table.len(), model.len());
    for (k, v) in model {
        let id = table.find(table.hash(k), k);
        assert_ne!(id, NONE, "key {k}");
        assert_eq!(table.value(id), v);
        assert!(table.is_live(id));
    }
    let live: HashMap<u64, u64> = (0..table.id_end())
        .filter(|&i| table.is_live(i))
        .map(|i| (*table.key(i), *table.value(i)))
        .collect();
    assert_eq!(&live, model);
    let mut id = 0;
    for expected in (0..table.id_end()).filter(|&i| table.is_live(i)) {
        id = table.next_live(id);
        assert_eq!(id, expected);
        id += 1;
    }
    assert!(table.next_live(id) >= table.id_end());
}

proptest! {
    #[test]
    fn it_is_a_map(ops in proptest::collection::vec((0u8..10, 0u64..3000), 0..6000), clear_at in 0usize..6000) {
        let mut table = KeyTable::new();
        let mut model = HashMap::new();
        for (n, (op, key)) in ops.into_iter().enumerate() {
            let hash = table.hash(&key);
            if op < 7 {
                let (id, new) = table.find_or_insert(hash, &key, || 0);
                *table.value_mut(id) += 1;
                prop_assert_eq!(new, !model.contains_key(&key));
                *model.entry(key).or_insert(0) += 1;
            } else {
                let id = table.find(hash, &key);
                prop_assert_eq!(id != NONE, model.contains_key(&key));
                if id != NONE {
                    prop_assert_eq!(Some(table.remove(id, 0)), model.remove(&key));
                }
            }
            if n == clear_at {
                let mut cursor = 0;
                while !table.clear_some(&mut cursor) {}
                model.clear();
            }
        }
        check(&table, &model);
    }
}

proptest! {
    /// Law 5: entries without an index are reached by their ids, and those that were put in with one stay as they are.
    #[test]
    fn it_goes_by_ids(loaded in 0u64..400, ops in proptest::collection::vec((any::<bool>(), 0usize..800), 0..1000)) {
        let mut table = KeyTable::without_index();
        let mut model = std::collections::BTreeMap::new();
        if loaded > 0 {
            table.begin_index();
        }
        for key in 0..loaded {
            let (id, new) = table.replace(&key, key);
            prop_assert!(new && model.insert(id, key).is_none());
        }
        table.drop_index();
        for (n, (puts, which)) in ops.into_iter().enumerate() {
            let n = loaded + n as u64;
            match model.keys().nth(which).copied() {
                Some(id) if !puts => prop_assert_eq!(Some(table.remove(id, 0)), model.remove(&id)),
                _ => prop_assert_eq!(model.insert(table.push(n, n), n), None),
            }
        }
        let live = (0..table.id_end()).filter(|&id| table.is_live(id));
        let all: std::collections::BTreeMap<_, _> = live.map(|id| (id, *table.key(id))).collect();
        prop_assert_eq!(&all, &model);
        prop_assert_eq!(table.len(), model.len());
        prop_assert!(table.index.pages() == 0);
    }
}

#[test]
fn many_keys_split_pages() {
    let mut table = KeyTable::new();
    let model: HashMap<u64, u64> = (0..200_000u64).map(|k| (k * 7, k)).collect();
    for (k, v) in &model {
        let hash = table.hash(k);
        table.find_or_insert(hash, k, || *v);
    }
    check(&table, &model);
    assert!(table.index.pages() > 64, "{}", table.index.pages());
    assert!(table.bytes() < 200_000 * 48, "{} bytes", table.bytes());
}

#[test]
fn a_table_of_few_keys_is_small() {
    let mut table = KeyTable::<u8, u64>::new();
    let add = |table: &mut KeyTable<u8, u64>, key| {
        let hash = table.hash(&key);
        let (id, new) = table.find_or_insert(hash, &key, || 0);
        assert_eq!(table.find(hash, &key), id);
        new
    };
    assert!(add(&mut table, 7));
    assert!(table.bytes() < 100, "{} bytes", table.bytes());
    // Used often, it gets its page; cleared, it keeps it.
    for _ in 0..100 {
        assert!(!add(&mut table, 7));
    }
    assert_eq!(table.candidate(table.hash(&7)), 0);
    let mut cursor = 0;
    while !table.clear_some(&mut cursor) {}
    assert!(add(&mut table, 7) && table.index.pages() == 1);
}

/// Keys come and go before there is an index page and after, ids being reused.
#[test]
fn the_first_page_takes_in_what_is_there() {
    for indexed_at in 0..20u64 {
        let mut table = KeyTable::new();
        let mut model = HashMap::new();
        for key in 0..20u64 {
            if key == indexed_at {
                table.searches = UNINDEXED_SEARCHES;
            }
            table.find_or_insert(table.hash(&key), &key, || key);
            model.insert(key, key);
            // More than the next insertion takes up again.
            for old in (key.max(3) - 3..key).filter(|_| key % 4 == 3) {
                let id = table.find(table.hash(&old), &old);
                table.remove(id, 0);
                model.remove(&old);
            }
            for gone in (0..key).filter(|k| !model.contains_key(k)) {
                assert_eq!(table.find(table.hash(&gone), &gone), NONE);
            }
            check(&table, &model);
        }
        assert_eq!(table.index.pages(), 1);
    }
}

#[test]
fn equal_hashes_still_tell_keys_apart() {
    #[derive(Clone, PartialEq, Eq, Debug)]
    struct Same(u32);
    impl Hash for Same {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            state.write_u32(1);
        }
    }
    let mut table = KeyTable::new();
    for k in 0..500 {
        let hash = table.hash(&Same(k));
        assert!(table.find_or_insert(hash, &Same(k), || k).1);
    }
    for k in 0..500 {
        let id = table.find(table.hash(&Same(k)), &Same(k));
        assert_eq!(*table.value(id), k);
        if k % 2 == 0 {
            assert_eq!(table.remove(id, 0), k);
        }
    }
    for k in 0..500 {
        let id = table.find(table.hash(&Same(k)), &Same(k));
        assert_eq!(id == NONE, k % 2 == 0);
    }
    assert!(table.bytes() < 1 << 20, "{} bytes", table.bytes());
}

/// Keys that differ in a few bits only, wherever those are, spread over pages and buckets as any do: nearly each is found where it
/// is at home, and the index has no more pages than it needs.
#[test]
fn any_numbers_spread() {
    const KEYS: u64 = 20_000;
    let spread = |what: &str, key_of: &dyn Fn(u64) -> u64| {
        let mut table = KeyTable::new();
        for n in 0..KEYS {
            let key = key_of(n);
            table.find_or_insert(table.hash(&key), &key, || n);
        }
        let at_home = |&n: &u64| {
            let hash = table.hash(&key_of(n));
            table.home(hash).candidate(hash) == n as u32
        };
        let found = (0..KEYS).filter(at_home).count();
        assert!(found as u64 > KEYS * 97 / 100, "{what}: {found}");
        let pages = table.index.pages();
        assert!((79..=160).contains(&pages), "{what}: {pages} pages");
    };
    for bits in 0..49 {
        spread(&format!("multiples of 2^{bits}"), &|n| n << bits);
    }
    for number in (1..100)
        .map(|n| n * n * n + 2)
        .chain([7_919, 1_000_003, 1_000_000_007])
    {
        spread(&format!("multiples of {number}"), &|n| n * number);
    }
    spread("from the end", &|n| u64::MAX - n);
    // A shard has keys of some groups only, which another hash chose.
    let space = KeySpace::new(256, 8);
    let shard = |key: &u64| space.shard(space.group(stable_hash(key)));
    let of_one_shard: Vec<u64> = (0..)
        .filter(|key| shard(key) == 3)
        .take(KEYS as usize)
        .collect();
    spread("one shard's keys", &|n| of_one_shard[n as usize]);
    spread("bits from both ends", &|n| n.reverse_bits() ^ n);
}
