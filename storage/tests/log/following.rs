//! Who follows a log from outside sees what the log shows, not more, and in time all of it.

use crate::rig::{History, LINEAGE, Random, Rig, Stop, Wrote, cases, config, read_on, recover};
use pelton_storage::*;

/// What a follower has read of each partition so far.
#[derive(Default)]
struct Reading {
    follower: Option<Follower>,
    read: [Vec<Wrote>; 2],
}

impl Reading {
    /// Looks at a disk as another process sees it, and reads on.
    fn look(&mut self, seen: &mut MemoryDisk, what: &str) {
        match &mut self.follower {
            Some(follower) => follower
                .refresh(seen)
                .unwrap_or_else(|e| panic!("{what}: {e}")),
            None => self.follower = Follower::open(seen).unwrap_or_else(|e| panic!("{what}: {e}")),
        }
        let Some(follower) = &self.follower else {
            return;
        };
        assert_eq!(follower.lineage(), LINEAGE);
        for (partition, read) in (0..follower.partitions()).zip(&mut self.read) {
            let view = follower.view(partition);
            let from = (read.len() as u64).max(view.start());
            let mut reader = LogReader::new(PlainBytes::new(&mut *seen), view, from)
                .unwrap_or_else(|e| panic!("{what}: partition {partition}: {e}"));
            read.extend(read_on(&mut reader).unwrap_or_else(|e| panic!("{what}: {e}")));
        }
    }

    fn ends(&self) -> [u64; 2] {
        [0, 1].map(|p| self.read[p].len() as u64)
    }

    /// Law 1, against what the log itself says.
    fn holds(&self, rig: &Rig<'_>, history: &History, what: &str) {
        for (partition, read) in self.read.iter().enumerate() {
            let visible = rig.log.visible_end(partition as u32);
            assert!(
                read.len() as u64 <= visible,
                "{what}: {} of {visible}",
                read.len()
            );
            let wrote = &history.partitions[partition][..read.len()];
            assert!(
                read == wrote,
                "{what}: another list in partition {partition}"
            );
        }
    }
}

/// Appends, stages and commits at random; a follower looks between any two rounds of the writer.
fn run(
    disk: &mut FaultyDisk,
    history: &mut History,
    reading: &mut Reading,
    visibility: Visibility,
    what: &str,
) -> Result<(), Stop> {
    let decided: Vec<Staged> = history.decided.iter().cloned().collect();
    let mut rig = Rig::open(disk, visibility, &decided)?;
    let mut epoch = history.staged.last().map_or(1, |s| s.epoch.0 + 1);
    for _ in 0..10 {
        for _ in 0..1 + history.random.below(8) {
            rig.append_random(history)?;
            reading.look(&mut rig.disk.clone().kill(), what);
            reading.holds(&rig, history, what);
        }
        if visibility == Visibility::Committed {
            let staged = rig.stage(history, Epoch(epoch))?;
            epoch += 1;
            reading.look(&mut rig.disk.clone().kill(), what);
            reading.holds(&rig, history, what);
            if history.random.below(4) > 0 {
                history.decided = Some(staged.clone());
                rig.commit(history, &staged)?;
                reading.look(&mut rig.disk.clone().kill(), what);
                assert_eq!(
                    reading.ends()[..],
                    staged.ends[..],
                    "{what}: all that is committed"
                );
            }
        }
    }
    if visibility == Visibility::Durable {
        rig.settle(history)?;
        rig.log.mark();
        rig.settle(history)?;
        reading.look(&mut rig.disk.clone().kill(), what);
        assert_eq!(
            reading.ends(),
            history.acked,
            "{what}: all, once the log is marked"
        );
    }
    reading.holds(&rig, history, what);
    Ok(())
}

/// Power goes again and again; what was read is there afterwards, and reading goes on behind it.
#[test]
fn what_was_read_outlives_whatever_happens() {
    let mut crashes = 0;
    for seed in 1..=cases(30) {
        for visibility in [Visibility::Durable, Visibility::Committed] {
            let mut history = History::new(seed);
            let mut reading = Reading::default();
            let mut left = MemoryDisk::new();
            for round in 0..4 {
                let what = format!("seed {seed}, {visibility:?}, round {round}");
                let halt = 30 + history.random.below(250);
                let mut disk = FaultyDisk::new(left).with_shuffle(seed).with_halt(halt);
                let ended = run(&mut disk, &mut history, &mut reading, visibility, &what);
                if let Err(Stop::Failed(e)) = &ended {
                    panic!("{what}: {e}");
                }
                crashes += u64::from(ended.is_err());
                let mut random = history.random.clone();
                left = disk.crash(|_| random.below(2) == 0);
                history.random.below(2);
                let ends = recover(&mut left, visibility, &history, &what);
                let partitions = history.partitions.iter_mut();
                for ((read, end), list) in reading.ends().into_iter().zip(ends).zip(partitions) {
                    assert!(read <= end, "{what}: {read} of {end} were read");
                    list.truncate(end as usize);
                }
                reading.look(&mut left, &what);
                assert_eq!(reading.ends(), ends, "{what}: an opened log is marked");
            }
        }
    }
    assert!(crashes > 20, "{crashes} crashes");
}

/// Of a log with durable records, what stands behind the index is seen once a later batch attests it, and not before.
#[test]
fn a_batch_waits_for_one_that_attests_it() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(1);
    let mut rig = Rig::open(&mut disk, Visibility::Durable, &[]).unwrap();
    let mut reading = Reading::default();
    let mut ends = vec![];
    for n in 0..4u8 {
        rig.append(&mut history, 0, None, &[n]).unwrap();
        rig.settle(&mut history).unwrap();
        reading.look(&mut rig.disk.clone().kill(), "growing");
        ends.push(reading.ends()[0]);
    }
    assert_eq!(ends, [0, 1, 2, 3]);
    rig.log.mark();
    rig.settle(&mut history).unwrap();
    reading.look(&mut rig.disk.clone().kill(), "marked");
    assert_eq!(reading.ends()[0], 4);
}

#[test]
fn a_folder_without_a_log_another_log_and_a_store_are_told_apart() {
    let mut empty = MemoryDisk::new();
    assert!(Follower::open(&mut empty).unwrap().is_none());
    let mut disk = MemoryDisk::new();
    drop(Log::open(&mut disk, config(Visibility::Durable), &[]).unwrap());
    let mut follower = Follower::open(&mut disk).unwrap().expect("a log");
    let mut other = MemoryDisk::new();
    let another = LogConfig {
        lineage_if_new: Lineage([6; 16]),
        ..config(Visibility::Durable)
    };
    drop(Log::open(&mut other, another, &[]).unwrap());
    let refused = follower.refresh(&mut other).unwrap_err();
    assert!(
        refused.to_string().contains("another log lies there now"),
        "{refused}"
    );
    let mut store = MemoryDisk::new();
    let config = StoreConfig {
        owner: 0,
        retained: 1,
        lineage_if_new: LINEAGE,
        direct: true,
    };
    drop(Store::open(&mut store, config).unwrap());
    // A store that has committed nothing has nothing that tells it from a log that is being made.
    assert!(Follower::open(&mut store).unwrap().is_none());
}

/// Epochs become known one by one: nothing that is not decided yet is cut, and then it is.
#[test]
fn epochs_are_decided_one_by_one() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(3);
    let mut rig = Rig::open(&mut disk, Visibility::Committed, &[]).unwrap();
    let mut staged = vec![];
    for epoch in 1..=3 {
        for _ in 0..5 {
            rig.append_random(&mut history).unwrap();
        }
        staged.push(rig.stage(&mut history, Epoch(epoch)).unwrap());
    }
    let mut left = FaultyDisk::new(disk.kill());
    for decided in &staged[..2] {
        let log = Log::open_undecided(&mut left, config(Visibility::Committed)).unwrap();
        let mut rig = Rig {
            disk: &mut left,
            log,
        };
        assert!(
            rig.log.visible_end(0) < decided.ends[0] || rig.log.visible_end(1) < decided.ends[1]
        );
        rig.commit(&mut history, decided).unwrap();
        assert_eq!([0, 1].map(|p| rig.log.visible_end(p))[..], decided.ends[..]);
        // Whoever dies here has it decided all the same.
        left = FaultyDisk::new(left.kill());
    }
    let log = Log::open(&mut left, config(Visibility::Committed), &[]).unwrap();
    for partition in 0..2 {
        let end = staged[1].ends[partition as usize];
        assert_eq!(
            (log.next_offset(partition), log.visible_end(partition)),
            (end, end)
        );
    }
}

fn finish(log: &mut Log, disk: &mut StdDisk, mut done: impl FnMut(&mut Log) -> bool) {
    let mut completions = Vec::new();
    while !done(log) {
        log.step(disk, i64::MAX);
        disk.wait().unwrap();
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            log.complete(completion).unwrap();
        }
    }
}

/// Real files: one reader goes on over openings of the log that cut what it has not seen from the very segment that it reads, and
/// over segments that are sealed under it.
#[test]
fn one_reader_over_many_openings() {
    let name = format!("pelton-follow-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&folder); // left by a test that was killed
    let mut files = ReadDisk::new(&folder);
    assert!(
        Follower::open(&mut files).unwrap().is_none(),
        "no folder yet"
    );
    let mut random = Random(5);
    let (mut reader, mut follower): (Option<LogReader<HistoryBytes>>, _) = (None, None);
    let (mut wrote, mut read) = (Vec::new(), Vec::new());
    for epoch in 1..40u64 {
        let mut disk = StdDisk::blocking(&folder).unwrap();
        let mut log = Log::open(&mut disk, config(Visibility::Committed), &[]).unwrap();
        for decided in [true, false] {
            for n in 0..1 + random.below(12) {
                let mut value = vec![(n as u8) ^ (epoch as u8); 1 + random.below(2_000) as usize];
                value[0] = u8::from(decided);
                let record = Record {
                    key: None,
                    value: &value,
                };
                while log.append(0, record, 7) == Err(Refused::Busy) {
                    let before = log.groups();
                    finish(&mut log, &mut disk, |log| log.groups() > before);
                }
                wrote.extend(decided.then_some(value));
            }
            log.stage(Epoch(2 * epoch + u64::from(!decided))).unwrap();
            let mut staged = None;
            finish(&mut log, &mut disk, |log| {
                staged = staged.take().or_else(|| log.take_staged());
                staged.is_some()
            });
            if let Some(staged) = staged.filter(|_| decided) {
                log.commit(&staged).unwrap();
                finish(&mut log, &mut disk, |log| log.committed() == staged.epoch);
            }
        }
        // The index knows of the records that nobody has decided on.
        log.mark();
        finish(&mut log, &mut disk, |log| log.is_idle());
        let follower = match &mut follower {
            None => follower.insert(Follower::open(&mut files).unwrap().unwrap()),
            Some(follower) => {
                follower.refresh(&mut files).unwrap();
                follower
            }
        };
        let reader = match &mut reader {
            None => {
                let bytes = HistoryBytes::new(&folder);
                reader.insert(LogReader::new(bytes, follower.view(0), 0).unwrap())
            }
            Some(reader) => {
                reader.update(follower.view(0));
                reader
            }
        };
        read.extend(read_on(reader).unwrap().into_iter().map(|w| w.value));
        assert!(
            read == wrote,
            "epoch {epoch}: {} of {}",
            read.len(),
            wrote.len()
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Which segments a reader turned to as ones that are never cut.
struct Turned<'a> {
    plain: PlainBytes<MemoryDisk>,
    whole: &'a mut Vec<String>,
    growing: &'a mut Vec<String>,
}

impl SegmentBytes for Turned<'_> {
    fn open(&mut self, name: &str, valid: u64) -> Result<u64, StorageError> {
        self.whole.push(name.into());
        self.plain.open(name, valid)
    }

    fn open_growing(&mut self, name: &str, valid: u64) -> Result<u64, StorageError> {
        self.growing.push(name.into());
        self.plain.open(name, valid)
    }

    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        self.plain.bytes(offset, len)
    }
}

/// A segment with records that nobody has decided on may be cut, sealed or not: it is never mapped.
#[test]
fn a_sealed_segment_is_mapped_only_where_all_of_it_is_visible() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(4);
    let mut rig = Rig::open(&mut disk, Visibility::Committed, &[]).unwrap();
    let value = [7; 3_000];
    for _ in 0..8 {
        rig.append(&mut history, 0, None, &value).unwrap();
    }
    let one = rig.stage(&mut history, Epoch(1)).unwrap();
    rig.commit(&mut history, &one).unwrap();
    for _ in 0..40 {
        rig.append(&mut history, 0, None, &value).unwrap();
    }
    rig.stage(&mut history, Epoch(2)).unwrap();
    rig.log.mark();
    rig.settle(&mut history).unwrap();
    let mut left = disk.kill();
    let view = Follower::open(&mut left).unwrap().expect("a log").view(0);
    let (mut whole, mut growing) = (vec![], vec![]);
    let turned = Turned {
        plain: PlainBytes::new(left),
        whole: &mut whole,
        growing: &mut growing,
    };
    let mut reader = LogReader::new(turned, view, 0).unwrap();
    assert_eq!(read_on(&mut reader).unwrap().len(), 8);
    drop(reader);
    assert!(!whole.is_empty(), "what lies before is never cut");
    assert_eq!(growing.len(), 1, "{whole:?}, {growing:?}");
}
