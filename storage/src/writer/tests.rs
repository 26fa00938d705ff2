use super::*;
use crate::disk::{BlockingDisk, MemoryDisk, Mode};
use crate::id::{KeyGroup, StateId};
use proptest::prelude::*;

fn config() -> WriterConfig {
    WriterConfig {
        segment_bytes: 32 << 10,
        chunk_bytes: 8 << 10,
        buffers: 2,
        block_bytes: 1 << 10,
        frame_bytes_max: 10 << 10,
        reserve_bytes: 8 << 10,
        direct: true,
        owner: 5,
    }
}

fn writer() -> SegmentWriter {
    SegmentWriter::new(config(), Lineage([1; 16]), 1, 0, Poison::default())
}

fn head(epoch: u64) -> BlockHead {
    BlockHead {
        epoch: Epoch(epoch),
        state: StateId(1),
        group: KeyGroup(1),
    }
}

fn push(writer: &mut SegmentWriter, epoch: u64, len: usize) -> Result<(), Refused> {
    let value = vec![7; len];
    let frame = Frame {
        epoch: Epoch(epoch),
        key: b"key",
        value: Some(&value),
    };
    writer.push(head(epoch), frame)
}

fn drive(disk: &mut MemoryDisk, writer: &mut SegmentWriter) {
    let mut completions = Vec::new();
    for _ in 0..100 {
        writer.step(disk);
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            assert_eq!(completion.ticket.owner, 5);
            writer.complete(completion);
        }
    }
}

#[test]
fn a_full_disk_refuses_clearly_and_recovers() {
    let mut disk = MemoryDisk::new();
    disk.set_capacity(39 << 10); // a segment fits, the reserve does not
    let mut writer = writer();
    drive(&mut disk, &mut writer);
    let refused = push(&mut writer, 1, 10).unwrap_err();
    let Refused::Failed(error) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        error,
        StorageError::NoSpace {
            needed: 40 << 10,
            reserve: 8 << 10,
            free: 39 << 10
        }
    );
    assert!(error.is_retryable() && writer.failure().is_none());
    assert!(disk.names().is_empty(), "nothing is left behind");
    disk.set_capacity(40 << 10);
    drive(&mut disk, &mut writer);
    assert!(
        push(&mut writer, 1, 10).is_err(),
        "nobody said that there is room"
    );
    writer.retry_space();
    drive(&mut disk, &mut writer);
    push(&mut writer, 1, 10).unwrap();
    writer.seal(Epoch(1)).unwrap();
    drive(&mut disk, &mut writer);
    assert_eq!(
        writer.take_sealed().unwrap().extents[0].len,
        2 * ALIGN as u64
    );
}

/// The question was answered and then another took the space: allocation says no, the file goes, nothing is poisoned.
#[test]
fn space_that_goes_while_it_is_asked_for() {
    let mut disk = MemoryDisk::new();
    let mut writer = writer();
    let mut completions = Vec::new();
    for _ in 0..2 {
        writer.step(&mut disk); // asks, then opens
        disk.poll(&mut completions);
        completions.drain(..).for_each(|c| writer.complete(c));
    }
    disk.set_capacity(1 << 10);
    drive(&mut disk, &mut writer);
    assert!(matches!(
        push(&mut writer, 1, 10),
        Err(Refused::Failed(StorageError::NoSpace { .. }))
    ));
    assert!(disk.names().is_empty() && writer.failure().is_none());
    disk.set_capacity(1 << 20);
    writer.retry_space();
    drive(&mut disk, &mut writer);
    push(&mut writer, 1, 10).unwrap();
}

#[test]
fn file_systems_that_refuse_are_told_once() {
    let mut disk = MemoryDisk::new().without_direct();
    let mut writer = writer();
    for epoch in 1..9 {
        for _ in 0..10 {
            while push(&mut writer, epoch, 3000).is_err() {
                drive(&mut disk, &mut writer);
            }
        }
        writer.seal(Epoch(epoch)).unwrap();
        drive(&mut disk, &mut writer);
        writer.take_sealed().unwrap();
    }
    let file = "segment-00000001-00000000-00000000".to_string();
    assert_eq!(
        writer.take_warnings(),
        [
            Warning::Buffered { file: file.clone() },
            Warning::Sparse { file }
        ]
    );
    assert!(disk.names().len() > 5);
}

#[test]
fn memory_is_bounded_and_the_next_epoch_may_begin() {
    let mut disk = MemoryDisk::new();
    let mut writer = writer();
    drive(&mut disk, &mut writer);
    let mut pushed = 0;
    while push(&mut writer, 1, 1000).is_ok() {
        pushed += 1;
        assert!(pushed < 100, "two chunks of 8 KiB hold fewer");
    }
    drive(&mut disk, &mut writer);
    writer.seal(Epoch(1)).unwrap();
    push(&mut writer, 2, 1000).unwrap();
    drive(&mut disk, &mut writer);
    let sealed = writer.take_sealed().unwrap();
    assert_eq!(sealed.epoch, Epoch(1));
    let end = sealed.extents.last().unwrap().len;
    writer.seal(Epoch(2)).unwrap();
    drive(&mut disk, &mut writer);
    let sealed = writer.take_sealed().unwrap();
    assert_eq!(sealed.extents.len(), 1);
    assert_eq!(sealed.extents[0].len, end + ALIGN as u64);
}

/// Who does not know how long a frame will be asks for little room, and then for more: no buffer goes down for the first.
#[test]
fn room_that_was_too_small_takes_no_buffer() {
    let mut disk = MemoryDisk::new();
    let mut writer = writer();
    drive(&mut disk, &mut writer);
    // One buffer each, and none comes back meanwhile.
    for _ in 0..2 {
        writer.room(&head(1), 256).map(drop).unwrap();
        push(&mut writer, 1, 9 << 10).unwrap();
    }
    assert_eq!(push(&mut writer, 1, 9 << 10), Err(Refused::Busy));
    writer.seal(Epoch(1)).unwrap();
    drive(&mut disk, &mut writer);
    let sealed = writer.take_sealed().unwrap();
    let pages = 1 + 2 * 3;
    assert_eq!(sealed.extents[0].len, pages * ALIGN as u64);
}

/// Less than three quarters of the segment are used, and an entry does not fit into the rest: it waits for the next one, which nobody
/// else would ask for.
#[test]
fn an_entry_that_is_longer_than_the_rest_gets_the_next_segment() {
    let mut disk = MemoryDisk::new();
    let config = WriterConfig {
        frame_bytes_max: 16 << 10,
        ..config()
    };
    let mut writer = SegmentWriter::new(config, Lineage([1; 16]), 1, 0, Poison::default());
    drive(&mut disk, &mut writer);
    push(&mut writer, 1, 13 << 10).unwrap();
    writer.seal(Epoch(1)).unwrap();
    drive(&mut disk, &mut writer);
    assert_eq!(writer.take_sealed().unwrap().extents[0].len, 20 << 10);
    assert_eq!(push(&mut writer, 2, 15 << 10), Err(Refused::Busy));
    drive(&mut disk, &mut writer);
    push(&mut writer, 2, 15 << 10).unwrap();
    writer.seal(Epoch(2)).unwrap();
    drive(&mut disk, &mut writer);
    assert_eq!(writer.take_sealed().unwrap().extents.len(), 1);
}

proptest! {
    /// Whatever the lengths of entries and the sizes of segments, chunks and queues: what is given again and again is taken in the end,
    /// and what is sealed becomes durable.
    #[test]
    fn nothing_waits_for_ever(
        pages in 4u64..24,
        chunk in 2usize..8,
        buffers in 2usize..5,
        short in 0u64..8192,
        epochs in prop::collection::vec(prop::collection::vec((0u64..100, any::<bool>()), 0..12), 1..12),
    ) {
        let segment_bytes = pages * ALIGN as u64;
        let longest = segment_bytes - ALIGN as u64 * 2 - block::HEADER as u64 - crate::format::segment::HEADER as u64;
        let config = WriterConfig {
            segment_bytes,
            chunk_bytes: chunk * ALIGN,
            buffers,
            frame_bytes_max: longest.saturating_sub(short).max(256),
            ..config()
        };
        let mut disk = MemoryDisk::new();
        let mut writer = SegmentWriter::new(config.clone(), Lineage([1; 16]), 1, 0, Poison::default());
        for (epoch, frames) in (1..).zip(epochs) {
            for (share, asks_little) in frames {
                let len = ((config.frame_bytes_max - 64) * share / 100) as usize;
                let taken = (0..20).any(|_| {
                    drive(&mut disk, &mut writer);
                    if asks_little {
                        let _ = writer.room(&head(epoch), 256).map(drop);
                    }
                    push(&mut writer, epoch, len).is_ok()
                });
                prop_assert!(taken, "an entry of {len} bytes waits in epoch {epoch}");
            }
            writer.seal(Epoch(epoch)).unwrap();
            drive(&mut disk, &mut writer);
            prop_assert!(writer.take_sealed().is_some(), "epoch {epoch} is not durable");
        }
    }
}

#[test]
fn an_epoch_without_frames_costs_nothing() {
    let mut disk = MemoryDisk::new();
    let mut writer = writer();
    drive(&mut disk, &mut writer);
    let before = writer.bytes_written();
    writer.seal(Epoch(1)).unwrap();
    assert!(writer.is_idle());
    assert_eq!(writer.take_sealed().unwrap().extents, []);
    assert_eq!(writer.bytes_written(), before);
}

#[test]
fn one_sync_for_each_file_of_an_epoch() {
    struct Counting(MemoryDisk, Vec<Op>);
    impl Disk for Counting {
        fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
            if matches!(op, Op::SyncData { .. } | Op::Write { .. }) {
                self.1.push(op.clone());
            }
            self.0.submit(op, ticket)
        }
        fn poll(&mut self, completions: &mut Vec<Completion>) {
            self.0.poll(completions);
        }
    }
    let mut disk = Counting(MemoryDisk::new(), Vec::new());
    let mut writer = writer();
    let step = |writer: &mut SegmentWriter, disk: &mut Counting| {
        writer.step(disk);
        let mut completions = Vec::new();
        disk.poll(&mut completions);
        completions.into_iter().for_each(|c| writer.complete(c));
    };
    for _ in 0..60 {
        while push(&mut writer, 1, 1000).is_err() {
            step(&mut writer, &mut disk);
        }
    }
    assert!(disk.1.iter().all(|op| matches!(op, Op::Write { .. })));
    writer.seal(Epoch(1)).unwrap();
    for _ in 0..20 {
        step(&mut writer, &mut disk);
    }
    let files = writer.take_sealed().unwrap().extents.len();
    let syncs = disk
        .1
        .iter()
        .skip_while(|op| matches!(op, Op::Write { .. }));
    assert_eq!(syncs.clone().count(), files);
    assert!(files > 1 && syncs.clone().all(|op| matches!(op, Op::SyncData { .. })));
    // Law 2: no page is written twice, but for the zeros that try the first file.
    let Op::Write { offset, buffer, .. } = disk.1.remove(0) else {
        panic!("the first file is tried");
    };
    assert!(offset == 0 && buffer.len() == ALIGN && buffer.iter().all(|&b| b == 0));
    let mut ranges: Vec<_> = disk
        .1
        .iter()
        .filter_map(|op| match op {
            Op::Write {
                file,
                offset,
                buffer,
            } => Some((*file, *offset, offset + buffer.len() as u64)),
            _ => None,
        })
        .collect();
    ranges.sort_unstable();
    assert!(
        ranges
            .windows(2)
            .all(|w| w[0].0 != w[1].0 || w[0].2 == w[1].1)
    );
}

#[test]
fn too_large_is_refused_and_the_longest_fits() {
    let mut disk = MemoryDisk::new();
    let mut writer = writer();
    drive(&mut disk, &mut writer);
    let longest = (10 << 10) - 32;
    assert!(matches!(
        push(&mut writer, 1, longest + 1),
        Err(Refused::Failed(StorageError::TooLarge { .. }))
    ));
    for _ in 0..20 {
        while push(&mut writer, 1, longest).is_err() {
            drive(&mut disk, &mut writer);
        }
    }
    assert!(writer.failure().is_none());
}

#[test]
fn a_name_that_is_taken_poisons() {
    let mut disk = MemoryDisk::new();
    let name = "segment-00000001-00000000-00000000".to_string();
    let op = Op::Open {
        name,
        mode: Mode::Create,
        direct: false,
    };
    disk.call(op).unwrap();
    let mut writer = writer();
    drive(&mut disk, &mut writer);
    assert!(writer.failure().is_some());
    let Err(Refused::Failed(e)) = push(&mut writer, 1, 1) else {
        panic!("it takes more");
    };
    assert_eq!(e.code(), "PLT-0508");
}
