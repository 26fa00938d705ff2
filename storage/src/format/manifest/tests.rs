use super::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES").ok();
    let cases = cases.and_then(|n| n.parse().ok()).unwrap_or(256);
    ProptestConfig::with_cases(cases)
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let segments = btree_map((0u32..4, 0u32..4, 0u32..4), 1u64..9, 0..5);
    let sections = btree_map("[a-z]{0,9}", vec(any::<u8>(), 0..50), 0..4);
    let checkpoint = (1u64..5, segments, sections);
    (
        any::<[u8; 16]>(),
        0..=crate::format::RISING_MAX_32,
        vec(checkpoint, 0..4),
    )
        .prop_map(|(lineage, attempt, all)| {
            let mut epoch = 0;
            let checkpoints = all.into_iter().map(|(step, segments, sections)| {
                epoch += step;
                let extent = |((attempt, number, shard), pages): ((u32, u32, u32), u64)| Extent {
                    segment: SegmentId {
                        attempt,
                        number,
                        shard,
                    },
                    len: pages * ALIGN as u64,
                };
                Checkpoint {
                    epoch: Epoch(epoch),
                    segments: segments.into_iter().map(extent).collect(),
                    sections,
                }
            });
            let checkpoints = checkpoints.collect();
            Manifest {
                lineage: Lineage(lineage),
                attempt,
                unused_from: Epoch(epoch + 1),
                checkpoints,
            }
        })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_was_written_is_read(manifest in manifest(), sequence in 0..=crate::format::RISING_MAX) {
        let mut buffer = Buffer::with_capacity(0);
        manifest.encode(MANIFEST, sequence, &mut buffer);
        prop_assert_eq!(buffer.len() as u64, manifest.encoded_len().next_multiple_of(4096));
        prop_assert_eq!(Manifest::decode(MANIFEST, &buffer), Ok((sequence, manifest)));
        prop_assert!(Manifest::decode(SAVEPOINT, &buffer).is_err());
    }

    /// A body of anything behind a checksum that is right: an error or a manifest that encodes again, and nothing large allocated
    /// (a count of 4 billion would be noticed).
    #[test]
    fn hostile_bodies_are_errors(manifest in manifest(), changes in vec((any::<usize>(), any::<u8>()), 1..6)) {
        let mut buffer = Buffer::with_capacity(0);
        manifest.encode(MANIFEST, 1, &mut buffer);
        let end = manifest.encoded_len() as usize;
        for (at, byte) in changes {
            buffer[HEADER + at % (end - HEADER)] = byte;
        }
        let crc = record_crc(&buffer[..end]);
        buffer[24..28].copy_from_slice(&crc.to_le_bytes());
        if let Ok((_, read)) = Manifest::decode(MANIFEST, &buffer) {
            let mut again = Buffer::with_capacity(0);
            read.encode(MANIFEST, 1, &mut again);
            prop_assert_eq!(again, buffer);
        }
    }

    #[test]
    fn hostile_bytes_are_errors(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Manifest::decode(MANIFEST, &bytes).is_err());
        prop_assert!(FileHeader::decode(&bytes).is_err());
    }
}

#[test]
fn a_body_longer_than_its_slot_is_an_error() {
    let mut bytes = vec![0; 64];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let wrong = Manifest::decode(MANIFEST, &bytes).unwrap_err();
    assert_eq!(wrong, Wrong::at(12, Fault::Field("body length")));
}
