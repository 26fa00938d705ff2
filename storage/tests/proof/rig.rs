//! A small job over a store: random changes of a map, epochs, full rewrites that retire segments, and the map of every epoch.

use pelton_storage::*;
use std::collections::BTreeMap;

/// Group and key to value.
pub type Map = BTreeMap<(u16, Vec<u8>), Vec<u8>>;

pub const LINEAGE: Lineage = Lineage([9; 16]);
const STORE: u32 = 100;

/// How many cases a property runs: `PELTON_CASES`, else `default`.
pub fn cases(default: u64) -> u64 {
    std::env::var("PELTON_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
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

pub fn store_config() -> StoreConfig {
    StoreConfig {
        owner: STORE,
        retained: 2,
        lineage_if_new: LINEAGE,
        direct: true,
    }
}

/// Small segments and chunks, so that a few epochs roll, wait and retire.
pub fn writer_config(shard: u32) -> WriterConfig {
    WriterConfig {
        segment_bytes: 32 << 10,
        chunk_bytes: 8 << 10,
        buffers: 2,
        block_bytes: 1 << 10,
        frame_bytes_max: 10 << 10,
        reserve_bytes: 4 << 10,
        direct: true,
        owner: shard,
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

/// What a run has done so far, kept by the test, not by the disk.
#[derive(Debug, Clone)]
pub struct History {
    pub map: Map,
    /// The map at every epoch whose commit was staged. 0: nothing yet.
    pub at: BTreeMap<u64, Map>,
    /// The last epoch that was acknowledged.
    pub acked: u64,
    /// Every epoch that was ever begun.
    pub begun: Vec<u64>,
    pub random: Random,
}

impl History {
    pub fn new(seed: u64) -> Self {
        History {
            map: Map::new(),
            at: BTreeMap::from([(0, Map::new())]),
            acked: 0,
            begun: Vec::new(),
            random: Random(seed),
        }
    }
}

pub struct Rig<'d> {
    pub disk: &'d mut FaultyDisk,
    pub store: Store,
    pub writers: Vec<SegmentWriter>,
}

impl<'d> Rig<'d> {
    pub fn open(disk: &'d mut FaultyDisk, shards: u32) -> Result<Self, Stop> {
        let opened = Store::open(disk, store_config());
        let store = match opened {
            Ok(store) => store,
            Err(_) if disk.halted() => return Err(Stop::Halted),
            Err(e) => return Err(Stop::Failed(e)),
        };
        let writers = (0..shards)
            .map(|s| store.writer(s, writer_config(s)))
            .collect();
        Ok(Rig {
            disk,
            store,
            writers,
        })
    }

    /// One round of the duty loop.
    pub fn pump(&mut self) -> Result<(), Stop> {
        for writer in &mut self.writers {
            writer.step(self.disk);
        }
        self.store.step(self.disk);
        let mut completions = Vec::new();
        self.disk.poll(&mut completions);
        for completion in completions {
            match completion.ticket.owner {
                STORE => self.store.complete(completion)?,
                shard => self.writers[shard as usize].complete(completion),
            }
        }
        if self.disk.halted() {
            return Err(Stop::Halted);
        }
        match self.writers.iter().find_map(|w| w.failure()) {
            Some(failure) => Err(Stop::Failed(failure.clone())),
            None => Ok(()),
        }
    }

    pub fn push(&mut self, head: BlockHead, frame: Frame<'_>) -> Result<(), Stop> {
        let shard = head.group.0 as usize % self.writers.len();
        for _ in 0..10_000 {
            match self.writers[shard].push(head, frame) {
                Ok(()) => return Ok(()),
                Err(Refused::Busy) => self.pump()?,
                Err(Refused::Failed(e)) => return Err(Stop::Failed(e)),
            }
        }
        panic!("the writer stays busy");
    }

    pub fn push_entry(
        &mut self,
        epoch: Epoch,
        key: &(u16, Vec<u8>),
        value: Option<&[u8]>,
    ) -> Result<(), Stop> {
        let head = BlockHead {
            epoch,
            state: StateId(7),
            group: KeyGroup(key.0),
        };
        let key = &key.1;
        self.push(head, Frame { epoch, key, value })
    }

    pub fn seal(&mut self, epoch: Epoch) -> Result<Vec<Sealed>, Stop> {
        for writer in &mut self.writers {
            writer.seal(epoch)?;
        }
        let mut sealed = vec![None; self.writers.len()];
        for _ in 0..10_000 {
            for (writer, sealed) in self.writers.iter_mut().zip(&mut sealed) {
                *sealed = sealed.take().or_else(|| writer.take_sealed());
            }
            if sealed.iter().all(Option::is_some) {
                return Ok(sealed.into_iter().flatten().collect());
            }
            self.pump()?;
        }
        panic!("the seal does not end");
    }

    pub fn commit(&mut self, commit: Commit) -> Result<Epoch, Stop> {
        self.store.commit(commit)?;
        for _ in 0..10_000 {
            if let Some(epoch) = self.store.take_committed() {
                return Ok(epoch);
            }
            self.pump()?;
        }
        panic!("the commit does not end");
    }

    /// One epoch of random changes, or with `rewrite` of all entries, retiring what is then of no use.
    pub fn epoch(&mut self, history: &mut History, rewrite: bool) -> Result<(), Stop> {
        let epoch = self.store.begin_epoch()?;
        history.begun.push(epoch.0);
        for _ in 0..1 + history.random.below(6) {
            let key = (
                history.random.below(4) as u16,
                vec![b'k'; 1 + history.random.below(9) as usize],
            );
            if history.random.below(4) == 0 {
                if history.map.remove(&key).is_some() {
                    self.push_entry(epoch, &key, None)?;
                }
            } else {
                let long = if history.random.below(8) == 0 {
                    9000
                } else {
                    200
                };
                let byte = history.random.below(256) as u8;
                let value = vec![byte; history.random.below(long) as usize];
                self.push_entry(epoch, &key, Some(&value))?;
                history.map.insert(key, value);
            }
        }
        if rewrite {
            for (key, value) in &history.map {
                self.push_entry(epoch, key, Some(value))?;
            }
        }
        let sealed = self.seal(epoch)?;
        let written = |s: &SegmentId| {
            sealed
                .iter()
                .any(|x| x.extents.iter().any(|e| e.segment == *s))
        };
        let mut retired = Vec::new();
        if let (true, Some(last)) = (rewrite, self.store.last()) {
            let named = last.segments.iter().map(|e| e.segment);
            retired = named.filter(|s| !written(s)).collect();
        }
        let section = vec![epoch.0 as u8; 1 + history.random.below(6000) as usize];
        history.at.insert(epoch.0, history.map.clone());
        let committed = self.commit(Commit {
            epoch,
            sealed,
            retired,
            sections: BTreeMap::from([("section".into(), section)]),
        })?;
        assert_eq!(committed, epoch);
        history.acked = epoch.0;
        Ok(())
    }
}

/// Opens a store, runs some epochs and ends when the disk does. Every third epoch is a rewrite.
pub fn run(
    disk: &mut FaultyDisk,
    history: &mut History,
    shards: u32,
    epochs: u64,
) -> Result<(), Stop> {
    let mut rig = Rig::open(disk, shards)?;
    for n in 1..=epochs {
        rig.epoch(history, n % 3 == 0)?;
    }
    Ok(())
}

/// What a store's last checkpoint holds, with its epoch; 0 if there is none.
pub fn read(disk: &mut MemoryDisk, store: &Store) -> Result<(u64, Map), StorageError> {
    match store.last() {
        None => Ok((0, Map::new())),
        Some(last) => read_checkpoint(PlainBytes::new(disk), last).map(|map| (last.epoch.0, map)),
    }
}

pub fn read_checkpoint<S: SegmentBytes>(
    source: S,
    checkpoint: &Checkpoint,
) -> Result<Map, StorageError> {
    let mut map = Map::new();
    let mut reader = SnapshotReader::new(source, LINEAGE, checkpoint, Filter::default());
    while let Some(block) = reader.next_block()? {
        let mut wrong = None;
        for frame in block.frames() {
            match frame {
                Err(w) => wrong = Some(w),
                Ok(frame) => {
                    let key = (block.head.group.0, frame.key.to_vec());
                    match frame.value {
                        Some(value) => {
                            assert_eq!(
                                value.as_ptr() as usize % 16,
                                0,
                                "archives are read in place"
                            );
                            map.insert(key, value.to_vec())
                        }
                        None => map.remove(&key),
                    };
                }
            }
        }
        if let Some(wrong) = wrong {
            return Err(reader.wrong_frame(wrong));
        }
    }
    Ok(map)
}

/// Opens what is left of a disk and holds it to the promise. Then runs another epoch over it, and opens once more.
pub fn recover(mut left: MemoryDisk, history: &History, what: &str) -> u64 {
    let store = Store::open(&mut left, store_config())
        .unwrap_or_else(|e| panic!("{what}: does not open: {e}"));
    let (epoch, map) = read(&mut left, &store).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(
        epoch >= history.acked,
        "{what}: {epoch} is older than the acknowledged {}",
        history.acked
    );
    let expected = history.at.get(&epoch);
    let expected = expected.unwrap_or_else(|| panic!("{what}: {epoch} was never committed"));
    assert!(map == *expected, "{what}: another map at epoch {epoch}");
    epoch
}

/// As [`recover`], and then another epoch over what is left, which is lost by nothing.
pub fn recover_and_go_on(left: MemoryDisk, history: &History, shards: u32, what: &str) {
    let epoch = recover(left.clone(), history, what);
    let mut history = history.clone();
    history.map = history.at[&epoch].clone();
    let mut disk = FaultyDisk::new(left);
    let mut rig = Rig::open(&mut disk, shards).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let begun = history.begun.iter().max().copied().unwrap_or(0);
    rig.epoch(&mut history, false)
        .unwrap_or_else(|e| panic!("{what}: {e:?}"));
    assert!(
        history.acked > begun,
        "{what}: epoch {} was begun before",
        history.acked
    );
    drop(rig);
    recover(disk.crash(|_| false), &history, what);
}
