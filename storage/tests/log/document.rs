//! docs/format.md is read, and the ingest log is held to it.

use crate::rig::{History, LINEAGE, Rig};
use pelton_storage::format::{log, segment};
use pelton_storage::*;

const DOCUMENT: &str = include_str!("../../../docs/format.md");

/// The rows of the table after the first line that begins with `heading`, without head and rule.
fn table(heading: &str) -> Vec<Vec<String>> {
    let lines = DOCUMENT.lines().skip_while(|l| !l.starts_with(heading));
    let table = lines.skip_while(|l| !l.starts_with('|'));
    let table = table.take_while(|l| l.starts_with('|')).skip(2);
    let cells = |l: &str| {
        let inner = l.trim_matches('|').split('|');
        inner.map(|c| c.trim().to_string()).collect()
    };
    let rows: Vec<Vec<String>> = table.map(cells).collect();
    assert!(!rows.is_empty(), "no {heading:?}");
    rows
}

/// Offset of the field whose description begins with `field`; the table's fields must lie without gaps.
fn offset(table: &[Vec<String>], field: &str) -> usize {
    let mut next = Some(0);
    let mut found = None;
    for row in table {
        let at: usize = row[0].parse().expect("an offset");
        assert!(next.is_none_or(|n| n == at), "a gap before {}", row[2]);
        next = row[1].parse::<usize>().ok().map(|len| at + len);
        if row[2].starts_with(field) {
            found = found.or(Some(at));
        }
    }
    found.unwrap_or_else(|| panic!("no field {field}"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[test]
fn magic_version_and_limits() {
    let rows = table("| Format |");
    let row = rows.iter().find(|r| r[0] == "ingest log").expect("a row");
    let magic = row[1].trim_matches('`').replace("\\0", "\0");
    assert_eq!(magic.as_bytes(), log::MAGIC);
    assert_eq!(row[2], log::VERSION.to_string());
    let limits = table("| Limit of the ingest log |");
    let limit = |name: &str| limits.iter().find(|r| r[0] == name).expect("a row")[1].clone();
    assert_eq!(limit("longest batch"), log::BATCH_MAX.to_string());
    assert_eq!(limit("longest key"), log::KEY_MAX.to_string());
    assert!(DOCUMENT.contains(&format!("the section `{}`", log::SECTION)));
}

#[test]
fn layouts() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(1);
    let mut rig = Rig::open(&mut disk, Visibility::Durable, &[]).expect("a new log");
    rig.append(&mut history, 1, None, b"first").expect("taken");
    rig.settle(&mut history).expect("nothing fails");
    rig.append(&mut history, 1, Some(b"key"), b"value")
        .expect("taken");
    rig.append(&mut history, 1, None, b"").expect("taken");
    rig.settle(&mut history).expect("nothing fails");
    rig.log.mark();
    rig.settle(&mut history).expect("nothing fails");
    drop(rig);
    let memory = disk.memory();
    let bytes = memory.content("log-00000001-00000001-00000000");
    let bytes = bytes.expect("named partition, attempt, number");

    let t = table("Segment header of an ingest log:");
    assert_eq!(bytes[..8], log::MAGIC);
    assert_eq!(u32_at(&bytes, offset(&t, "version")), 1);
    assert_eq!(u32_at(&bytes, offset(&t, "length")), segment::HEADER as u32);
    assert_eq!(bytes[offset(&t, "lineage")..][..16], LINEAGE.0);
    assert_eq!(u32_at(&bytes, offset(&t, "attempt")), 1);
    assert_eq!(u32_at(&bytes, offset(&t, "number")), 0);
    assert_eq!(u32_at(&bytes, offset(&t, "partition")), 1);
    assert_eq!(u64_at(&bytes, offset(&t, "offset of")), 0);
    assert_eq!(offset(&t, "checksum"), segment::CRC_AT);

    // The first group is a page, the second follows.
    let t = table("Batch:");
    let b = &bytes[2 * ALIGN..3 * ALIGN];
    let crc = crc32c::crc32c_append(crc32c::crc32c(&LINEAGE.0), &b[4..]);
    assert_eq!(u32_at(b, offset(&t, "checksum")), crc);
    assert_eq!(u32_at(b, offset(&t, "length of the batch")), ALIGN as u32);
    assert_eq!(u64_at(b, offset(&t, "offset of")), 1);
    assert_eq!(u32_at(b, offset(&t, "count")), 2);
    assert_eq!(u32_at(b, offset(&t, "length of the records")), 12 + 8 + 12);
    let first = history.partitions[1][1].arrived_us;
    let last = history.partitions[1][2].arrived_us;
    assert_eq!(u64_at(b, offset(&t, "arrival of the first")), first as u64);
    assert_eq!(u64_at(b, offset(&t, "arrival of the last")), last as u64);
    assert_eq!(u64_at(b, offset(&t, "durable")), 1);
    assert_eq!(u32_at(b, offset(&t, "partition")), 1);
    assert_eq!(offset(&t, "records"), log::BATCH);

    let t = table("Record:");
    let r = &b[log::BATCH..];
    assert_eq!(u32_at(r, offset(&t, "length of the value")), 5);
    assert_eq!(r[offset(&t, "length of the key")..][..2], [3, 0]);
    assert_eq!(r[offset(&t, "flags")], log::HAS_KEY);
    assert_eq!(u32_at(r, offset(&t, "arrival")), 0);
    assert_eq!(offset(&t, "key,"), log::RECORD);
    assert_eq!(r[12..20], *b"keyvalue");
    let second = u32_at(r, 20 + offset(&t, "arrival"));
    assert_eq!(i64::from(second), last - first);
    the_index(
        &memory.content("manifest-00000000").expect("an index"),
        last,
    );
}

fn the_index(manifest: &[u8], last: i64) {
    let lengths = |heading: &str| -> Vec<usize> {
        let rows = table(heading);
        rows.iter().filter_map(|r| r[0].parse().ok()).collect()
    };
    assert_eq!(lengths("Index:"), [4, 4, 8, 4]);
    assert_eq!(lengths("Partition of the index:"), [8, 4]);
    assert_eq!(lengths("Segment of the index:"), [4, 4, 4, 8, 8, 8, 8]);
    let mut expected = log::SECTION.as_bytes().to_vec();
    expected.extend([1u32, 0, 0, 0, 2].iter().flat_map(|n| n.to_le_bytes()));
    expected.extend([0u32, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
    expected.extend(3u64.to_le_bytes());
    expected.extend([1u32, 1, 0, 1].iter().flat_map(|n| n.to_le_bytes()));
    let segment = [0, 3, 3 * ALIGN as u64, last as u64];
    expected.extend(segment.iter().flat_map(|n| n.to_le_bytes()));
    let found = manifest.windows(expected.len()).any(|w| w == expected);
    assert!(found, "the index as the document has it");
}
