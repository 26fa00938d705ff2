//! A writer of random records over a log, and the list of what it wrote.

use pelton_storage::*;

pub const LINEAGE: Lineage = Lineage([5; 16]);
pub const OWNER: u32 = 3;

/// How many cases a property runs: `PELTON_CASES`, else `default`.
pub fn cases(default: u64) -> u64 {
    let cases = std::env::var("PELTON_CASES").ok();
    cases.and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// xorshift64*, from a seed that messages name.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= (self.0 >> 12) ^ 0x9E37_79B9;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

/// Small segments and batches, so that a few records roll, wait and are dropped.
pub fn config(visibility: Visibility) -> LogConfig {
    LogConfig {
        segment_bytes: 28 << 10,
        reserve_bytes: 4 << 10,
        batch_bytes: 8 << 10,
        buffers: 2,
        group_bytes: 6 << 10,
        group_us: 10,
        dedup_records: 40,
        ..LogConfig::new(OWNER, 2, visibility, LINEAGE)
    }
}

/// Why a run ended early.
#[derive(Debug)]
pub enum Stop {
    Failed(StorageError),
    Halted,
}

impl From<StorageError> for Stop {
    fn from(e: StorageError) -> Self {
        Stop::Failed(e)
    }
}

/// A record of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrote {
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub arrived_us: i64,
}

/// What was written so far, kept by the test, not by the disk.
#[derive(Debug, Clone)]
pub struct History {
    pub partitions: [Vec<Wrote>; 2],
    /// By partition, how many records were acknowledged, or were visible.
    pub acked: [u64; 2],
    pub now_us: i64,
    pub next_key: u64,
    /// Epochs that were staged: a checkpoint may or may not have decided on the last.
    pub staged: Vec<Staged>,
    /// The last epoch that a checkpoint decided on.
    pub decided: Option<Staged>,
    pub random: Random,
}

impl History {
    pub fn new(seed: u64) -> Self {
        History {
            partitions: [vec![], vec![]],
            acked: [0; 2],
            now_us: 1_000,
            next_key: 0,
            staged: vec![],
            decided: None,
            random: Random(seed),
        }
    }
}

pub struct Rig<'d> {
    pub disk: &'d mut FaultyDisk,
    pub log: Log,
}

impl<'d> Rig<'d> {
    pub fn open(
        disk: &'d mut FaultyDisk,
        visibility: Visibility,
        committables: &[Staged],
    ) -> Result<Self, Stop> {
        match Log::open(disk, config(visibility), committables) {
            Ok(log) => Ok(Rig { disk, log }),
            Err(_) if disk.halted() => Err(Stop::Halted),
            Err(e) => Err(Stop::Failed(e)),
        }
    }

    /// One round of the duty loop. What was acknowledged is noted.
    pub fn pump(&mut self, history: &mut History) -> Result<(), Stop> {
        self.log.step(self.disk, history.now_us);
        let mut completions = Vec::new();
        self.disk.poll(&mut completions);
        for completion in completions {
            self.log.complete(completion)?;
        }
        self.log.poison().check()?;
        if self.disk.halted() {
            return Err(Stop::Halted);
        }
        for partition in 0..2 {
            history.acked[partition] = self.log.visible_end(partition as u32);
        }
        Ok(())
    }

    /// A record, appended when there is room for it; time passes meanwhile.
    pub fn append(
        &mut self,
        history: &mut History,
        partition: u32,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<Appended, Stop> {
        for _ in 0..10_000 {
            history.now_us += 1;
            let now_us = history.now_us;
            match self.log.append(partition, Record { key, value }, now_us) {
                Ok(appended) => {
                    if let Appended::New(at) = appended {
                        let list = &mut history.partitions[partition as usize];
                        assert_eq!(at.offset, list.len() as u64, "offsets are dense");
                        list.push(Wrote {
                            key: key.map(<[u8]>::to_vec),
                            value: value.to_vec(),
                            arrived_us: now_us,
                        });
                    }
                    return Ok(appended);
                }
                Err(Refused::Busy) => self.pump(history)?,
                Err(Refused::Failed(e)) => return Err(Stop::Failed(e)),
            }
        }
        panic!("the log stays busy");
    }

    /// A record of random length, with a new key or none.
    pub fn append_random(&mut self, history: &mut History) -> Result<(), Stop> {
        let partition = history.random.below(2) as u32;
        let long = [30, 300, 3_000][history.random.below(3) as usize];
        let byte = history.random.below(256) as u8;
        let value = vec![byte; history.random.below(long) as usize];
        let key = history.next_key.to_le_bytes();
        history.next_key += 1;
        let key = (history.random.below(2) == 0).then_some(&key[..]);
        let appended = self.append(history, partition, key, &value)?;
        assert!(matches!(appended, Appended::New(_)), "the key is new");
        Ok(())
    }

    /// Until nothing is under way.
    pub fn settle(&mut self, history: &mut History) -> Result<(), Stop> {
        for _ in 0..10_000 {
            if self.log.is_idle() {
                return Ok(());
            }
            history.now_us += 1;
            self.pump(history)?;
        }
        panic!("the log does not settle");
    }

    /// Until an epoch is durable.
    pub fn stage(&mut self, history: &mut History, epoch: Epoch) -> Result<Staged, Stop> {
        self.log.stage(epoch)?;
        for _ in 0..10_000 {
            if let Some(staged) = self.log.take_staged() {
                history.staged.push(staged.clone());
                return Ok(staged);
            }
            self.pump(history)?;
        }
        panic!("the epoch is not staged");
    }

    pub fn commit(&mut self, history: &mut History, staged: &Staged) -> Result<(), Stop> {
        self.log.commit(staged)?;
        for _ in 0..10_000 {
            if self.log.committed() >= staged.epoch {
                return Ok(());
            }
            self.pump(history)?;
        }
        panic!("the epoch is not committed");
    }
}

/// What readers see of a partition from `from` on.
pub fn read<S: SegmentBytes>(
    log: &Log,
    source: S,
    partition: u32,
    offset: u64,
) -> Result<Vec<Wrote>, StorageError> {
    let mut reader = log.reader(source, Position { partition, offset })?;
    read_on(&mut reader)
}

pub fn read_on<S: SegmentBytes>(reader: &mut LogReader<S>) -> Result<Vec<Wrote>, StorageError> {
    let mut found = Vec::new();
    let mut next = reader.position().offset;
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records() {
            let located = record.expect("the checksum holds");
            assert_eq!(located.offset, next, "in order, none left out");
            next += 1;
            found.push(Wrote {
                key: located.record.key.map(<[u8]>::to_vec),
                value: located.record.value.to_vec(),
                arrived_us: located.arrived_us,
            });
        }
    }
    assert_eq!(reader.position().offset, next);
    Ok(found)
}

/// Opens what is left of a disk and holds it to the promise. Returns what is visible by partition.
pub fn recover(
    left: &mut MemoryDisk,
    visibility: Visibility,
    history: &History,
    what: &str,
) -> [u64; 2] {
    let decided: Vec<Staged> = history.decided.iter().cloned().collect();
    let log = Log::open(left, config(visibility), &decided)
        .unwrap_or_else(|e| panic!("{what}: does not open: {e}"));
    [0, 1].map(|partition| {
        let (list, acked) = (
            &history.partitions[partition as usize],
            history.acked[partition as usize],
        );
        let (start, end) = (log.start(partition), log.visible_end(partition));
        assert!(
            end >= acked,
            "{what}: partition {partition} ends at {end}, acknowledged were {acked}"
        );
        assert!(end as usize <= list.len(), "{what}: more than was written");
        let found = read(&log, PlainBytes::new(&mut *left), partition, start)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(
            found == list[start as usize..end as usize],
            "{what}: another list in partition {partition}"
        );
        assert_eq!(log.next_offset(partition), end, "{what}");
        end
    })
}
