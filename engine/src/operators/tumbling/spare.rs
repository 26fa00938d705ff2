//! Tables of windows that have gone, kept for windows to come.
//!
//! Laws
//! 1. What is kept is bounded: by [`SPARE_BYTES`] in all or, where tables are large, by as many as there are open windows and
//!    two in any case. So windows that come and go allocate nothing, and a burst of them is forgotten.
//! 2. A table's memory is given back in pieces, as it was cleared.

use crate::table::KeyTable;
use std::hash::Hash;

/// What spare tables may hold together whatever their number.
const SPARE_BYTES: usize = 1 << 20;
/// Spare tables that are always kept.
const SPARE_MIN: usize = 2;

/// See the module. The table last kept is used first: it is the likeliest to lie in a cache.
pub(super) struct Spare<K, A> {
    tables: Vec<KeyTable<K, A>>,
    /// Sum of their bytes, as they were when they were kept.
    bytes: usize,
}

impl<K, A> Default for Spare<K, A> {
    fn default() -> Self {
        Spare {
            tables: vec![],
            bytes: 0,
        }
    }
}

impl<K: Hash + Eq, A> Spare<K, A> {
    /// A cleared table, or a new one.
    pub fn take(&mut self) -> KeyTable<K, A> {
        let Some(table) = self.tables.pop() else {
            return KeyTable::new();
        };
        self.bytes -= table.bytes();
        table
    }

    /// Keeps a table that has been cleared.
    pub fn keep(&mut self, table: KeyTable<K, A>) {
        self.bytes += table.bytes();
        self.tables.push(table);
    }

    /// Whether more are kept than law 1 allows beside so many open windows.
    pub fn too_many(&self, open: usize) -> bool {
        self.bytes > SPARE_BYTES && self.tables.len() > open.max(SPARE_MIN)
    }

    /// Frees a piece of the table last kept; whether it is gone.
    pub fn free_some(&mut self) -> bool {
        let Some(table) = self.tables.last_mut() else {
            return true;
        };
        let before = table.bytes();
        let freed = table.free_some();
        self.bytes -= before - table.bytes();
        if freed {
            self.take();
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(keys: u64) -> KeyTable<u64, u64> {
        let mut table = KeyTable::new();
        for key in 0..keys {
            table.find_or_insert(table.hash(&key), &key, || 0);
        }
        let mut cursor = 0;
        while !table.clear_some(&mut cursor) {}
        table
    }

    /// Retires `tables` beside so many open windows, as the operator does.
    fn retire(
        spare: &mut Spare<u64, u64>,
        tables: impl Iterator<Item = (usize, KeyTable<u64, u64>)>,
    ) {
        for (open, table) in tables {
            spare.keep(table);
            while spare.too_many(open) {
                while !spare.free_some() {}
            }
        }
        assert_eq!(spare.bytes, spare.tables.iter().map(KeyTable::bytes).sum());
    }

    #[test]
    fn a_burst_of_windows_is_forgotten() {
        let mut spare = Spare::default();
        // All open at once, then gone one after the other.
        retire(&mut spare, (0..20_000).rev().map(|open| (open, table(1))));
        assert!(spare.bytes <= SPARE_BYTES, "{} bytes", spare.bytes);
        let small = spare.tables.len();
        assert!(small > 100, "small tables are kept: {small}");
        for _ in 0..small {
            assert_eq!(spare.take().len(), 0);
        }
        assert_eq!((spare.bytes, spare.tables.len()), (0, 0));
    }

    #[test]
    fn large_tables_are_kept_for_as_many_windows_as_are_open() {
        let mut spare = Spare::default();
        retire(
            &mut spare,
            [9, 8, 7, 6, 5, 4]
                .map(|open| (open, table(100_000)))
                .into_iter(),
        );
        assert_eq!(spare.tables.len(), 4);
        retire(
            &mut spare,
            [3, 2, 1, 0].map(|open| (open, table(100_000))).into_iter(),
        );
        assert_eq!(spare.tables.len(), SPARE_MIN);
        // What is left can be used.
        let mut table = spare.take();
        for key in 0..200_000 {
            table.find_or_insert(table.hash(&key), &key, || key);
        }
        assert_eq!(table.len(), 200_000);
    }
}
