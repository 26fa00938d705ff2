//! docs/format.md is read, and the code is held to it: constants by value, layouts by what encoders write.

use pelton_storage::format::{block, manifest, segment};
use pelton_storage::*;
use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../../docs/format.md");

/// The rows of the table after the first line that begins with `heading`, without head and rule.
fn table(heading: &str) -> Vec<Vec<String>> {
    let mut lines = DOCUMENT.lines().skip_while(|l| !l.starts_with(heading));
    assert!(
        lines.next().is_some() || heading.is_empty(),
        "no {heading:?}"
    );
    rows(lines)
}

/// The rows of the table whose own first line begins with `head`.
fn table_headed(head: &str) -> Vec<Vec<String>> {
    rows(DOCUMENT.lines().skip_while(|l| !l.starts_with(head)))
}

fn rows<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Vec<String>> {
    let table = lines.skip_while(|l| !l.starts_with('|'));
    let table = table.take_while(|l| l.starts_with('|')).skip(2);
    let cells = |l: &str| {
        let inner = l.trim_matches('|').split('|');
        inner.map(|c| c.trim().to_string()).collect()
    };
    let rows: Vec<Vec<String>> = table.map(cells).collect();
    assert!(!rows.is_empty());
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

fn number(table: &[Vec<String>], name: &str) -> u64 {
    let row = table.iter().find(|r| r[0].starts_with(name));
    let row = row.unwrap_or_else(|| panic!("no row {name}"));
    row.last().expect("a value").parse().expect("a number")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[test]
fn magics_versions_and_limits() {
    let formats = table_headed("| Format |");
    let said = |name: &str| {
        let row = formats.iter().find(|r| r[0] == name).expect("a format");
        let magic = row[1].trim_matches('`').replace("\\0", "\0");
        (magic.into_bytes(), row[2].parse().expect("a version"))
    };
    assert_eq!(said("segment"), (segment::MAGIC.to_vec(), segment::VERSION));
    for kind in [manifest::MANIFEST, manifest::SAVEPOINT] {
        assert_eq!(said(kind.format), (kind.magic.to_vec(), kind.version));
    }
    assert_eq!(
        formats.len(),
        4,
        "and the ingest log, which tests/log holds to it"
    );
    let limits = table_headed("| Limit |");
    assert_eq!(number(&limits, "page"), ALIGN as u64);
    assert_eq!(number(&limits, "longest block"), block::BLOCK_MAX as u64);
    assert_eq!(number(&limits, "longest copy"), manifest::SLOT_MAX as u64);
    assert_eq!(number(&limits, "shortest slot"), manifest::SLOT_MIN as u64);
    let kinds = table_headed("| Kind of block |");
    assert_eq!(number(&kinds, "frames"), u64::from(block::KIND_FRAMES));
    assert_eq!(number(&kinds, "pad"), u64::from(block::KIND_PAD));
    let kinds = table_headed("| Kind of frame |");
    assert_eq!(number(&kinds, "put"), u64::from(block::FRAME_PUT));
    assert_eq!(
        number(&kinds, "tombstone"),
        u64::from(block::FRAME_TOMBSTONE)
    );
}

/// One committed epoch with one frame, taken apart by the document's tables.
#[test]
fn layouts() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut rig = crate::rig::Rig::open(&mut disk, 1).expect("a new store");
    let epoch = rig.store.begin_epoch().expect("numbers are left");
    let key = (0x0304, b"seventeen bytes..".to_vec());
    rig.push_entry(epoch, &key, Some(b"value"))
        .expect("nothing fails");
    rig.push_entry(epoch, &key, None).expect("nothing fails");
    let sealed = rig.seal(epoch).expect("nothing fails");
    let extent = sealed[0].extents[0];
    rig.commit(Commit {
        epoch,
        sealed,
        retired: vec![],
        sections: BTreeMap::from([("name".into(), b"bytes".to_vec())]),
    })
    .expect("nothing fails");
    drop(rig);
    let memory = disk.memory();
    let bytes = memory
        .content(&extent.segment.file_name())
        .expect("a segment");
    a_segment(&bytes, epoch, &key.1, extent.len);
    let file = memory.content("manifest-00000000").expect("a manifest");
    a_manifest(&file, epoch, extent);
}

fn a_segment(bytes: &[u8], epoch: Epoch, key: &[u8], valid: u64) {
    let t = table("Segment header:");
    assert_eq!(bytes[..8], segment::MAGIC);
    assert_eq!(u32_at(bytes, offset(&t, "version")), 1);
    assert_eq!(u32_at(bytes, offset(&t, "length")), segment::HEADER as u32);
    assert_eq!(bytes[offset(&t, "lineage")..][..16], crate::rig::LINEAGE.0);
    assert_eq!(u32_at(bytes, offset(&t, "attempt")), 1);
    assert_eq!(u32_at(bytes, offset(&t, "number")), 0);
    assert_eq!(u32_at(bytes, offset(&t, "shard")), 0);
    assert_eq!(u64_at(bytes, offset(&t, "the epoch")), epoch.0);
    assert_eq!(offset(&t, "checksum"), segment::CRC_AT);

    let t = table("Block, at");
    let b = &bytes[segment::HEADER..];
    let len = u32_at(b, offset(&t, "length")) as usize;
    assert_eq!(
        u32_at(b, offset(&t, "checksum")),
        crc32c::crc32c(&b[4..len])
    );
    assert_eq!(u64_at(b, offset(&t, "epoch")), epoch.0);
    assert_eq!(u64_at(b, offset(&t, "state")), 7);
    assert_eq!(u32_at(b, offset(&t, "count")), 2);
    assert_eq!(b[offset(&t, "key group")..][..2], [4, 3]);
    assert_eq!(b[offset(&t, "kind")], block::KIND_FRAMES);
    assert_eq!((offset(&t, "frames"), block::HEADER), (32, 32));

    let t = table("Frame, at");
    let f = &b[block::HEADER..];
    assert_eq!(u64_at(f, offset(&t, "epoch")), epoch.0);
    assert_eq!(u32_at(f, offset(&t, "length of the key")), 17);
    assert_eq!(u32_at(f, offset(&t, "length of the value")), 5);
    assert_eq!(f[offset(&t, "kind")], block::FRAME_PUT);
    assert_eq!((offset(&t, "key,"), block::FRAME), (24, 24));
    assert_eq!(f[24..41], *key);
    assert_eq!(f[48..53], *b"value");
    // 48 + 16 for the put, 48 for the tombstone, 32 for the head, up to a multiple of 32.
    assert_eq!(f[64 + 16], block::FRAME_TOMBSTONE);
    assert_eq!(len, 160);

    // Up to the page a pad.
    assert_eq!(
        b[len + offset(&table("Block, at"), "kind")],
        block::KIND_PAD
    );
    assert_eq!(u32_at(&b[len..], 4) as usize, ALIGN - len);
    assert_eq!(valid as usize, 2 * ALIGN);
}

fn a_manifest(file: &[u8], epoch: Epoch, extent: Extent) {
    let t = table("Manifest file header:");
    assert_eq!(file[..8], manifest::FILE_MAGIC);
    assert_eq!(u32_at(file, offset(&t, "version")), manifest::VERSION);
    assert_eq!(
        u32_at(file, offset(&t, "count of slots")),
        manifest::SLOTS as u32
    );
    let slot = u64_at(file, offset(&t, "length of one")) as usize;
    assert_eq!(slot, manifest::SLOT_MIN);
    assert_eq!(file[..ALIGN], file[ALIGN..2 * ALIGN]);

    // Opening wrote record 0, the commit record 1.
    let r = &file[8192 + 2 * slot..];
    assert_eq!(r[..slot], r[slot..2 * slot]);
    let t = table("Manifest record:");
    assert_eq!(r[..8], manifest::MAGIC);
    assert_eq!(u32_at(r, offset(&t, "version")), manifest::VERSION);
    assert_eq!(u64_at(r, offset(&t, "sequence")), 1);
    let body_at = offset(&t, "body");
    let body = &r[body_at..][..u32_at(r, offset(&t, "length")) as usize];
    let crc_at = offset(&t, "checksum");
    let crc = crc32c::crc32c(&r[..crc_at]);
    let crc = crc32c::crc32c_append(crc, &r[crc_at + 4..body_at + body.len()]);
    assert_eq!(u32_at(r, crc_at), crc);

    let lengths = |heading: &str| -> Vec<usize> {
        let rows = table(heading);
        rows.iter().filter_map(|r| r[0].parse().ok()).collect()
    };
    assert_eq!(lengths("Body,"), [16, 4, 4, 8]);
    assert_eq!(lengths("Checkpoint:"), [8, 4, 4]);
    let mut expected = crate::rig::LINEAGE.0.to_vec();
    expected.extend([1u32, 1].iter().flat_map(|n| n.to_le_bytes()));
    expected.extend((epoch.0 + 1 + EPOCHS_AHEAD).to_le_bytes());
    expected.extend(epoch.0.to_le_bytes());
    expected.extend([1u32, 1, 1, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
    expected.extend(extent.len.to_le_bytes());
    expected.extend([4u32, 5].iter().flat_map(|n| n.to_le_bytes()));
    expected.extend(b"namebytes");
    assert_eq!(body, expected);
}
