//! Blocks of a partition's records, read ahead on the helper thread.
//!
//! Laws
//! 1. A block holds whole batches: about [`BLOCK_BYTES`], and the rest of the batch that goes beyond.
//! 2. A request is served by what can be had now. A block without records says that there were none: the reader asks again later.
//! 3. Between two looks at the log's files lies whatever the reader lets pass. Partitions of a source share looks: who asks takes what
//!    another's has found since its own last, and looks only if there was none. So as many partitions as there are cost one look a time.
//! 4. What a view says may be gone when it is read: a log that is opened again cuts what nobody has been shown from segments that the
//!    view names with it, and retention removes some. So a segment that is missing is looked for once more in a view of now.
//! 5. A partition that has failed says so again, whatever it is asked.

use crate::time::EventTime;
use pelton_storage::{Follower, HistoryBytes, LogReader, ReadDisk, StorageError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A block is full at so many bytes.
pub(super) const BLOCK_BYTES: usize = 128 << 10;

/// The log as its files show it, one for all partitions of a source.
#[derive(Debug)]
pub(super) struct Watched {
    pub folder: PathBuf,
    disk: ReadDisk,
    follower: Follower,
    /// How often it was looked.
    looks: u64,
}

impl Watched {
    /// Looks into the folder. An error says what to do.
    pub fn open(folder: PathBuf) -> Result<Self, String> {
        let mut disk = ReadDisk::new(&folder);
        let shown = folder.display();
        match Follower::open(&mut disk) {
            Ok(Some(follower)) => Ok(Watched {
                disk,
                follower,
                folder,
                looks: 0,
            }),
            Ok(None) => Err(format!(
                "{shown} holds no log; name the folder of one, or start first who writes it"
            )),
            Err(e) => Err(format!("{shown}: {e}")),
        }
    }

    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// The offset of the first record of a partition that arrived at `time` or later, or the visible end (law 4).
    pub fn first_at(&mut self, partition: u32, time: EventTime) -> Result<u64, String> {
        let Watched {
            folder,
            disk,
            follower,
            ..
        } = self;
        let find = |follower: &Follower| {
            let (bytes, view) = (HistoryBytes::new(&*folder), follower.view(partition));
            let start = view.start();
            LogReader::new(bytes, view, start).and_then(|mut r| r.seek_time(time.micros()))
        };
        let found = match find(follower) {
            Err(e) if may_be_elsewhere(&e) => {
                follower.refresh(disk).map_err(|e| e.to_string())?;
                find(follower)
            }
            found => found,
        };
        found.map_err(|e| format!("the first record from {time} on was looked for: {e}"))
    }

    /// Looks for what is visible behind the reader, unless another has since the look that `looked` names (law 3); whether
    /// there is anything.
    fn look(
        &mut self,
        reader: &mut LogReader<HistoryBytes>,
        partition: u32,
        looked: &mut u64,
    ) -> Result<bool, String> {
        if *looked == self.looks {
            let Watched { disk, follower, .. } = self;
            follower.refresh(disk).map_err(|e| e.to_string())?;
            self.looks += 1;
        }
        *looked = self.looks;
        let view = self.follower.view(partition);
        let more = view.end() > reader.position().offset;
        reader.update(view);
        Ok(more)
    }
}

/// What comes after a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// There may be more at once.
    More,
    /// Nothing for now.
    CaughtUp,
    /// Nothing: the partition has ended.
    Ended,
}

/// Records, one after another.
#[derive(Debug)]
pub(super) struct Block {
    values: Vec<u8>,
    /// By record: its offset, and where its value ends in `values`.
    ends: Vec<(u64, usize)>,
    pub then: Then,
    /// Why reading stopped behind these records.
    pub failure: Option<String>,
}

impl Block {
    pub fn new() -> Self {
        Block {
            values: Vec::new(),
            ends: Vec::new(),
            then: Then::More,
            failure: None,
        }
    }

    /// The `at`-th record's offset and value.
    #[inline]
    pub fn record(&self, at: usize) -> Option<(u64, &[u8])> {
        let &(offset, end) = self.ends.get(at)?;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some((offset, &self.values[begin..end]))
    }
}

/// What a partition's reader asks for.
#[derive(Debug)]
pub(super) struct Request {
    pub block: Block,
    /// With the first: the offset to begin at, and the one to end at.
    pub begin: Option<(u64, Option<u64>)>,
}

/// One partition, on the helper thread.
pub(super) struct History {
    watched: Arc<Mutex<Watched>>,
    partition: u32,
    /// How many partitions are read, where the log must not get more.
    opened: Option<u32>,
    reader: Option<LogReader<HistoryBytes>>,
    until: Option<u64>,
    /// The look that it has the fruits of.
    looked: u64,
    /// Law 5.
    failure: Option<String>,
}

impl History {
    /// `opened`: how many partitions are read, if the reader is to fail where there are more.
    pub fn new(watched: Arc<Mutex<Watched>>, partition: u32, opened: Option<u32>) -> Self {
        History {
            watched,
            partition,
            opened,
            reader: None,
            until: None,
            looked: 0,
            failure: None,
        }
    }

    /// Fills a block (laws 1 and 2).
    pub fn serve(&mut self, request: Request) -> Block {
        let Request { mut block, begin } = request;
        block.values.clear();
        block.ends.clear();
        (block.then, block.failure) = (Then::More, None);
        if self.failure.is_none() {
            self.failure = self.fill(&mut block, begin).err();
        }
        if self.failure.is_some() {
            block.failure = self.failure.clone();
            block.then = Then::Ended;
        }
        block
    }

    fn fill(&mut self, block: &mut Block, begin: Option<(u64, Option<u64>)>) -> Result<(), String> {
        let reader = match (&mut self.reader, begin) {
            (Some(reader), _) => reader,
            (None, Some((from, until))) => {
                self.until = until;
                let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = HistoryBytes::new(&watched.folder);
                let view = watched.follower.view(self.partition);
                self.looked = watched.looks;
                let reader = LogReader::new(bytes, view, from).map_err(|e| e.to_string())?;
                self.reader.insert(reader)
            }
            (None, None) => {
                unreachable!("where to begin comes with the first block, and a failure stays")
            }
        };
        let mut has_looked = false;
        // Where a segment was missing.
        let mut missed = None;
        while block.values.len() < BLOCK_BYTES {
            let next = reader.position().offset;
            if self.until.is_some_and(|until| next >= until) {
                block.then = Then::Ended;
                break;
            }
            let gone = match copy_batch(reader, self.until, block) {
                Ok(true) => continue,
                Ok(false) => None,
                Err(e) if may_be_elsewhere(&e) && missed != Some(next) => Some(e),
                Err(e) => return Err(e.to_string()),
            };
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if gone.is_some() {
                // Law 4. What others have found since may be as old.
                (missed, self.looked) = (Some(next), watched.looks);
                watched.look(reader, self.partition, &mut self.looked)?;
                continue;
            }
            let more = !has_looked && watched.look(reader, self.partition, &mut self.looked)?;
            has_looked = true;
            let now = watched.follower.partitions();
            if let Some(opened) = self.opened.filter(|opened| now > *opened) {
                return Err(grown(opened, now));
            }
            if !more {
                block.then = Then::CaughtUp;
                break;
            }
        }
        Ok(())
    }
}

/// Whether a segment may be there under another name or length by now.
fn may_be_elsewhere(e: &StorageError) -> bool {
    matches!(
        e,
        StorageError::Missing { .. } | StorageError::OffsetGone { .. }
    )
}

fn grown(opened: u32, now: u32) -> String {
    format!(
        "the log has {now} partitions by now, and the {opened} that it had are read; start the job again, from its checkpoint: it then reads the new ones from their first record on"
    )
}

/// Copies the next batch's records that lie before `until`; whether there was a batch.
fn copy_batch(
    reader: &mut LogReader<HistoryBytes>,
    until: Option<u64>,
    block: &mut Block,
) -> Result<bool, StorageError> {
    let Some(batch) = reader.next_batch()? else {
        return Ok(false);
    };
    let mut wrong = None;
    for record in batch.records() {
        match record {
            Ok(r) if until.is_some_and(|until| r.offset >= until) => break,
            Ok(r) => {
                block.values.extend_from_slice(r.record.value);
                block.ends.push((r.offset, block.values.len()));
            }
            Err(w) => wrong = Some(w),
        }
    }
    match wrong {
        Some(wrong) => Err(reader.wrong_record(wrong)),
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_storage::{Lineage, Log, LogConfig, StdDisk, Visibility};

    #[test]
    fn what_has_failed_says_so_again() {
        let name = format!("pelton-history-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let mut disk = StdDisk::blocking(&folder).unwrap();
        let config = LogConfig::new(1, 1, Visibility::Durable, Lineage([8; 16]));
        drop(Log::open(&mut disk, config, &[]).unwrap());
        let watched = Watched::open(folder.clone()).unwrap();
        let mut history = History::new(Arc::new(Mutex::new(watched)), 0, None);
        let begin = Some((7, None));
        for begin in [begin, None, None] {
            let block = history.serve(Request {
                block: Block::new(),
                begin,
            });
            let what = block.failure.expect("there is no such record");
            assert!(what.contains("7 is not among them"), "{what}");
            assert_eq!(block.then, Then::Ended);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
