//! What hostile bytes are made of: the golden folders, changed.

use std::path::PathBuf;

/// The golden files whose names begin so, in the order of their paths.
pub fn golden(prefix: &str) -> Vec<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/golden/1");
    let mut found = Vec::new();
    for folder in ["store", "savepoint", "log", "output"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("the golden folders are there");
        for entry in entries {
            let path = entry.expect("it is listed").path();
            let name = path.file_name().and_then(|n| n.to_str());
            if name.is_some_and(|n| n.starts_with(prefix)) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {prefix}");
    let read = |path: &PathBuf| std::fs::read(path).expect("it is readable");
    found.iter().map(read).collect()
}

/// Lengths and counts that hurt who believes them.
pub const EXTREMES: [u32; 8] = [
    0,
    1,
    0x7FFF_FFFF,
    0x8000_0000,
    u32::MAX,
    u32::MAX - 31,
    32 << 20,
    64 << 20,
];

/// Each place of the pages that hold something, up to `reach` bytes into each, with extremes written over it.
pub fn swept(bytes: &[u8], reach: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    let pages = (0..bytes.len()).step_by(4096);
    let filled = pages.filter(move |&at| bytes[at..][..reach].iter().any(|&b| b != 0));
    let places = filled.flat_map(move |page| page..page + reach);
    places.flat_map(move |at| {
        let words = EXTREMES.iter().map(|word| word.to_le_bytes().to_vec());
        let longs = [0, 0x7F, 0x80, 0xFF].map(|byte| vec![byte; 8]);
        words.chain(longs).map(move |extreme| {
            let mut changed = bytes.to_vec();
            changed[at..at + extreme.len()].copy_from_slice(&extreme);
            changed
        })
    })
}
