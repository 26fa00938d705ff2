//! The log of a sink, on the thread that writes and on the thread of the job that commits.
//!
//! Laws
//! 1. One lock is round the log; both threads may wait for the disk under it, and no shard ever takes it. Shards learn of a staged
//!    epoch through the [`Gate`], which they only try.
//! 2. Before `recover` nothing is appended. Epochs that a checkpoint decided on are committed in a log that is opened without cutting
//!    anything, and `recover` opens it anew: what nobody decided on goes.
//! 3. An epoch is staged when the barrier of the last shard has come: all that was appended by then is its.
//! 4. What is prepared names the log by its lineage, also of an epoch without records: so each checkpoint of the job knows its log, and
//!    another's, which may have the same epochs, is refused and not touched.
//! 5. What was decided is committed whether or not there is space for what comes: an index needs no segment.

use crate::checkpoint::Epoch;
use crate::sink::{CommitError, Committer};
use crate::time::EventTime;
use pelton_storage::{
    BlockingDisk, Disk, FolderLock, Follower, Lineage, Log, LogConfig, ReadDisk, Record, Refused,
    Retention, Staged, StdDisk, StorageError,
};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes of an entry before its key and value: partition, time, length of the key, length of the value.
pub(super) const TO_HEAD: usize = 20;
/// So much of a record is shown where it is not taken.
const SHOWN_BYTES: usize = 64;
/// The length of a key that there is none of.
const NO_KEY: u32 = u32::MAX;

/// The log and who waits for it: all that writers and committer share.
pub(super) type Shared = Mutex<Core>;

/// An entry's head.
pub(super) fn head(
    partition: u32,
    time: EventTime,
    key: Option<usize>,
    value: usize,
) -> Result<[u8; TO_HEAD], String> {
    let too_long = || "a record of more than 4 GiB".to_string();
    let key = key.map(u32::try_from).transpose().map_err(|_| too_long())?;
    let value = u32::try_from(value).map_err(|_| too_long())?;
    // Where no event time was assigned, all arrive at once.
    let time = match time {
        EventTime::BEGINNING => 0,
        time => time.micros(),
    };
    let mut head = [0; TO_HEAD];
    head[..4].copy_from_slice(&partition.to_le_bytes());
    head[4..12].copy_from_slice(&time.to_le_bytes());
    head[12..16].copy_from_slice(&key.unwrap_or(NO_KEY).to_le_bytes());
    head[16..].copy_from_slice(&value.to_le_bytes());
    Ok(head)
}

struct Entry<'a> {
    partition: u32,
    time_us: i64,
    record: Record<'a>,
}

/// The first entry of `bytes`, and the rest.
fn entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<TO_HEAD>()?;
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let time = head[4..12].try_into().map(i64::from_le_bytes).ok()?;
    let (key, rest) = match number(12) {
        NO_KEY => (None, rest),
        length => {
            let (key, rest) = rest.split_at_checked(length as usize)?;
            (Some(key), rest)
        }
    };
    let (value, rest) = rest.split_at_checked(number(16) as usize)?;
    let entry = Entry {
        partition: number(0),
        time_us: time,
        record: Record { key, value },
    };
    Some((entry, rest))
}

/// Why a record was not taken, with what tells which it is.
fn not_taken(entry: &Entry<'_>, e: &StorageError) -> String {
    let &Entry {
        partition,
        time_us,
        record,
    } = entry;
    let bytes = record.value.len();
    let begins = record.value[..bytes.min(SHOWN_BYTES)].escape_ascii();
    let key = match record.key {
        Some(key) => format!(
            " with the key {}",
            key[..key.len().min(SHOWN_BYTES)].escape_ascii()
        ),
        None => String::new(),
    };
    let time = EventTime::from_micros(time_us);
    format!(
        "{e}: a record for partition {partition}, of event time {time}, {bytes} bytes{key}, which begins with {begins}"
    )
}

/// What the writers of all shards learn of the epoch that was staged last (law 1).
#[derive(Debug)]
pub(super) struct Gate {
    /// Its number; Release after `prepared` has been set, Acquire before it is read.
    epoch: AtomicU64,
    prepared: Mutex<Vec<u8>>,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Gate {
            epoch: AtomicU64::new(0),
            prepared: Mutex::default(),
        })
    }

    /// What was prepared for `epoch`, if that is staged and can be had without waiting.
    pub fn staged(&self, epoch: Epoch) -> Option<Vec<u8>> {
        if self.epoch.load(Ordering::Acquire) != epoch.0 {
            return None;
        }
        self.prepared
            .try_lock()
            .ok()
            .map(|prepared| prepared.clone())
    }

    fn open(&self, epoch: Epoch, prepared: Vec<u8>) {
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = prepared;
        self.epoch.store(epoch.0, Ordering::Release);
    }
}

/// An open log.
#[derive(Debug)]
struct Running {
    log: Log,
    disk: StdDisk,
    /// After `recover`: records may be appended.
    recovered: bool,
}

impl Running {
    /// Lets the log and the disk work until `done` says something, waiting for the disk.
    fn until<R>(&mut self, mut done: impl FnMut(&mut Log) -> Option<R>) -> Result<R, StorageError> {
        let mut completions = Vec::new();
        loop {
            if let Some(said) = done(&mut self.log) {
                return Ok(said);
            }
            self.log.step(&mut self.disk, 0);
            self.log.poison().check()?;
            let waited = self.disk.wait();
            waited.map_err(|error| StorageError::Io {
                action: "write",
                file: "the log".into(),
                error,
            })?;
            self.disk.poll(&mut completions);
            for completion in completions.drain(..) {
                self.log.complete(completion)?;
            }
        }
    }

    /// The same for what needs segments: an error where there is no space for them.
    fn until_written<R>(
        &mut self,
        mut done: impl FnMut(&mut Log) -> Option<R>,
    ) -> Result<R, StorageError> {
        self.until(|log| match done(log) {
            Some(said) => Some(Ok(said)),
            None => log.no_space().map(Err),
        })?
    }

    /// Ends the log's epoch, and waits until it is durable.
    fn stage(&mut self, epoch: Epoch) -> Result<Staged, StorageError> {
        self.log.stage(epoch)?;
        self.until_written(Log::take_staged)
    }

    /// Shows an epoch (law 5).
    fn commit(&mut self, staged: &Staged) -> Result<(), StorageError> {
        let mut ends = (0..self.log.partitions()).zip(&staged.ends);
        if staged.ends.len() <= self.log.partitions() as usize
            && ends.all(|(p, end)| self.log.visible_end(p) >= *end)
        {
            return Ok(()); // again, or an epoch without records: no index is due
        }
        self.log.commit(staged)?;
        self.until(|log| (log.committed() >= staged.epoch).then_some(()))
    }

    /// Takes what has completed, and hands on what is full.
    fn step(&mut self) -> Result<(), StorageError> {
        let mut completions = Vec::new();
        self.disk.poll(&mut completions);
        for completion in completions {
            self.log.complete(completion)?;
        }
        self.log.step(&mut self.disk, 0);
        self.log.poison().check()
    }
}

/// See the laws on top of this file.
#[derive(Debug)]
pub(super) struct Core {
    folder: PathBuf,
    config: LogConfig,
    retention: Retention,
    gate: Arc<Gate>,
    /// Dropped before the lock.
    running: Option<Running>,
    lock: Option<FolderLock>,
    shards: usize,
    /// Shards whose barrier of the epoch under way has come.
    passed: usize,
    /// The greatest event time that was appended.
    newest_us: Option<i64>,
    /// What time it is outside, as far as anybody has said.
    wall_us: i64,
}

impl Core {
    pub fn new(
        folder: PathBuf,
        config: LogConfig,
        retention: Retention,
        shards: usize,
        gate: Arc<Gate>,
    ) -> Self {
        Core {
            folder,
            config,
            retention,
            gate,
            running: None,
            lock: None,
            shards,
            passed: 0,
            newest_us: None,
            wall_us: i64::MAX,
        }
    }

    /// The job starts: the folder is its own.
    pub fn hold(&mut self, lock: FolderLock) {
        self.lock = Some(lock);
    }

    fn disk(&self) -> Result<StdDisk, String> {
        let disk = StdDisk::blocking(&self.folder);
        disk.map_err(|e| format!("the folder cannot be opened: {e}"))
    }

    fn running(&mut self) -> Result<&mut Running, String> {
        let running = self.running.as_mut().filter(|r| r.recovered);
        running.ok_or_else(|| "the log is not open".into())
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let say = |e: StorageError| e.to_string();
        let mut newest = self.newest_us;
        let running = self.running()?;
        while let Some((entry, rest)) = entry(bytes) {
            bytes = rest;
            newest = newest.max(Some(entry.time_us));
            loop {
                match running
                    .log
                    .append(entry.partition, entry.record, entry.time_us)
                {
                    Ok(_) => break,
                    Err(Refused::Failed(e @ StorageError::TooLarge { .. })) => {
                        return Err(not_taken(&entry, &e));
                    }
                    Err(Refused::Failed(e)) => return Err(say(e)),
                    Err(Refused::Busy) => {
                        let groups = running.log.groups();
                        let more = |log: &mut Log| (log.groups() > groups).then_some(());
                        running.until_written(more).map_err(say)?;
                    }
                }
            }
        }
        debug_assert!(bytes.is_empty(), "writers hand on whole entries");
        running.step().map_err(say)?;
        self.newest_us = newest;
        Ok(())
    }

    /// The barrier of one more shard has come (law 3).
    fn pass(&mut self, epoch: Epoch) -> Result<(), String> {
        self.passed += 1;
        if self.passed < self.shards {
            return Ok(());
        }
        self.passed = 0;
        let running = self.running()?;
        let staged = running.stage(epoch).map_err(|e| e.to_string())?;
        let prepared = [&running.log.lineage().0[..], &staged.encode()].concat();
        self.gate.open(epoch, prepared);
        Ok(())
    }

    /// Commits an epoch of the log of this lineage (laws 2 and 4).
    fn commit(&mut self, lineage: Lineage, staged: &Staged) -> Result<(), String> {
        let say = |e: StorageError| e.to_string();
        if self.running.is_none() {
            // Looked at before anything is made or written.
            let found = Follower::open(&mut ReadDisk::new(&self.folder)).map_err(say)?;
            let found = found.map(|f| f.lineage());
            if found != Some(lineage) {
                return Err(other_log(found.is_some()));
            }
            let mut disk = self.disk()?;
            let log = Log::open_undecided(&mut disk, self.config.clone());
            self.running = Some(Running {
                log: log.map_err(say)?,
                disk,
                recovered: false,
            });
        }
        let (retention, newest_us) = (self.retention, self.newest_us);
        let Some(running) = &mut self.running else {
            unreachable!("opened above");
        };
        if running.log.lineage() != lineage {
            return Err(other_log(true));
        }
        running.commit(staged).map_err(say)?;
        if running.recovered && retention != Retention::default() {
            // The index that leaves them out goes with the next commit, or when the log is closed. A record from the future makes
            // none of those of now old.
            let now_us = newest_us.map_or(i64::MIN, |newest| newest.min(self.wall_us));
            running.log.retain(retention, now_us);
            running.step().map_err(say)?;
        }
        Ok(())
    }

    /// The log as its last decided epoch left it.
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        let say = |e: StorageError| e.to_string();
        self.running = None;
        // Looked at before anything is cut: another job's epoch may be under way.
        let found = Follower::open(&mut ReadDisk::new(&self.folder)).map_err(say)?;
        if let Some(later) = found
            .map(|f| f.committed())
            .filter(|&c| c > last.unwrap_or_default())
        {
            return Err(format!(
                "it has records of epoch {later}, later than the checkpoint that the job starts from: of another job, or of this one before it was set back; name an empty folder, or move the log away"
            ));
        }
        let mut disk = self.disk()?;
        let log = Log::open(&mut disk, self.config.clone(), &[]).map_err(say)?;
        self.passed = 0;
        self.running = Some(Running {
            log,
            disk,
            recovered: true,
        });
        Ok(())
    }
}

/// Which log and what of it was prepared, if that is what these bytes say.
fn decoded(prepared: &[u8]) -> Option<(Lineage, Staged)> {
    let (lineage, staged) = prepared.split_first_chunk()?;
    Some((Lineage(*lineage), Staged::decode(staged).ok()?))
}

/// Why a checkpoint's log is not the one in the folder.
fn other_log(is_there: bool) -> String {
    let found = match is_there {
        true => "another log lies there than the one that the job's checkpoint is of",
        false => "the log that the job's checkpoint is of is not there",
    };
    format!(
        "{found}; put back that one, or start the job without its checkpoints, with an empty folder"
    )
}

/// The relays' other end, one a shard.
pub(super) struct Output {
    shared: Weak<Shared>,
}

impl Output {
    pub fn new(shared: Weak<Shared>) -> Self {
        Output { shared }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Core) -> Result<R, String>) -> Result<R, String> {
        let shared = self.shared.upgrade().ok_or("the job has ended")?;
        let mut core = shared.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut core)
    }
}

impl crate::sink::Output<u8> for Output {
    fn write(&mut self, entries: &mut Vec<u8>) -> Result<(), String> {
        self.with(|core| core.append(entries))
    }

    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<Vec<u8>>, String> {
        self.with(|core| core.pass(epoch))?;
        Ok(None)
    }
}

/// The one that commits.
pub(super) struct Committing {
    shared: Arc<Shared>,
}

impl Committing {
    pub fn new(shared: Arc<Shared>) -> Self {
        Committing { shared }
    }
}

impl Committer for Committing {
    fn commit(&mut self, _: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        // A write that failed poisons the log: the next start tries once more.
        let never = |what| CommitError {
            what,
            is_retryable: false,
        };
        let Some((lineage, staged)) = decoded(prepared) else {
            let what = "the checkpoint names no epoch of this sink; start the job with the sink that it had";
            return Err(never(what.into()));
        };
        let mut core = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        core.commit(lineage, &staged).map_err(never)
    }

    fn wall_clock(&mut self, now: EventTime) {
        let mut core = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        core.wall_us = now.micros();
    }

    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        let mut core = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        core.recover(last)
    }
}
