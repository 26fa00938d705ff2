//! Following a log that somebody else has: what its files say may be read, found again and again, and nothing written.
//!
//! Laws
//! 1. A follower hands out only what a reader of the log itself would be shown: every record before a view's end is durable, and
//!    committed where the log shows only that. So a position that a follower's reader has come to outlives whatever happens to the log.
//! 2. Of a log with committed records the index says all. Of one with durable records, batches that stand behind the index count as
//!    far as a whole batch behind them says that they were durable when it was written; those that are whole and not yet attested
//!    wait. So the last group of an idle log is seen when the log is [marked](super::Log::mark), or goes on.
//! 3. Views of a partition only grow at their end, and never hold another record at an offset than they held before.
//! 4. A look costs the manifest and what has been appended since the last look.
//!
//! Follower and writer share nothing but files, and may be two processes. Where retention removes segments under a reader, it
//! is told so (`OffsetGone` or `Missing`); a segment that is mapped keeps its pages.

use super::View;
use super::open::{Chain, Walker, section};
use crate::disk::{BlockingDisk, ReadDisk};
use crate::error::StorageError;
use crate::format::log::{Index, IndexPartition, IndexSegment, Visibility};
use crate::format::segment::HEADER;
use crate::id::{Epoch, Lineage, SegmentId};
use crate::map::MappedBytes;
use crate::reader::{PlainBytes, SegmentBytes};
use crate::store::log::parse;
use crate::store::open::Opening;
use std::path::PathBuf;

/// Looks at a manifest that is replaced meanwhile, before it is taken for missing.
const LOOKS: u32 = 8;

/// What is known of a partition.
#[derive(Debug, Default)]
struct Known {
    visible: u64,
    /// Those of the index, with what was found behind it.
    segments: Vec<IndexSegment>,
    /// How far segments have been walked that may be written to. At most two: the active one and the one prepared after it.
    walked: Vec<(SegmentId, Chain)>,
}

/// See the laws on top of this file.
#[derive(Debug)]
pub struct Follower {
    lineage: Lineage,
    visibility: Visibility,
    committed: Epoch,
    partitions: Vec<Known>,
}

impl Follower {
    /// Looks into the disk's folder for the first time. `None`: it holds no log yet. Waits for the disk.
    ///
    /// # Errors
    /// The folder holds something else, the log is damaged or of another version, or the disk fails.
    pub fn open<D: BlockingDisk>(disk: &mut D) -> Result<Option<Follower>, StorageError> {
        let Some((lineage, index)) = look(disk)? else {
            return Ok(None);
        };
        let mut follower = Follower {
            lineage,
            visibility: index.visibility,
            committed: Epoch(0),
            partitions: Vec::new(),
        };
        follower.take(disk, index)?;
        Ok(Some(follower))
    }

    /// Looks again. Waits for the disk.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`StorageError::OtherLog`] if another log lies there now.
    pub fn refresh<D: BlockingDisk>(&mut self, disk: &mut D) -> Result<(), StorageError> {
        let found = look(disk)?;
        let found = found.ok_or(StorageError::NoManifest)?;
        if found.0 != self.lineage || found.1.visibility != self.visibility {
            return Err(StorageError::OtherLog {
                wanted: "the log that was read before".into(),
                found: "another log lies there now".into(),
            });
        }
        self.take(disk, found.1)
    }

    fn take<D: BlockingDisk>(&mut self, disk: &mut D, index: Index) -> Result<(), StorageError> {
        self.committed = index.committed;
        let count = self.partitions.len().max(index.partitions.len());
        self.partitions.resize_with(count, Known::default);
        for (known, said) in self.partitions.iter_mut().zip(index.partitions) {
            let walks = self.visibility == Visibility::Durable;
            let attested = match walks {
                true => known.walk(disk, self.lineage, said)?,
                false => {
                    known.segments = said.segments;
                    said.visible
                }
            };
            known.visible = known.visible.max(attested);
        }
        Ok(())
    }

    /// Whose log it is.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// What readers of the log see.
    pub fn visibility(&self) -> Visibility {
        self.visibility
    }

    /// The last epoch that was committed when the log was looked at; 0 if there is none.
    pub fn committed(&self) -> Epoch {
        self.committed
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    /// What may be read of a partition, as of the last look. Panics if there is no such partition.
    pub fn view(&self, partition: u32) -> View {
        let known = &self.partitions[partition as usize];
        let segments = known.segments.iter().copied();
        View::new(partition, self.lineage, known.visible, segments)
    }
}

/// The log's identity and its index; `None` if there is no log.
fn look<D: BlockingDisk>(disk: &mut D) -> Result<Option<(Lineage, Index)>, StorageError> {
    let mut looks = 0;
    loop {
        let mut opening = Opening::new(&mut *disk);
        let is_log = |n: &str| SegmentId::parse_log(n).is_some();
        let found = match opening.find(0, false, Lineage([0; 16]), is_log) {
            // A manifest that grows goes to a new file, and the old one may go between listing and opening.
            Err(StorageError::NoManifest) if looks < LOOKS => {
                looks += 1;
                continue;
            }
            other => other?,
        };
        let named = found.names.iter().any(|n| parse(n).is_some());
        return match found.manifest.last() {
            Some(last) => Ok(Some((found.manifest.lineage, section(last)?))),
            None if named && looks < LOOKS => {
                looks += 1;
                continue;
            }
            None => Ok(None),
        };
    }
}

impl Known {
    /// Takes what the index says, and walks on from there. Returns up to where records are durable.
    fn walk<D: BlockingDisk>(
        &mut self,
        disk: &mut D,
        lineage: Lineage,
        said: IndexPartition,
    ) -> Result<u64, StorageError> {
        let before = std::mem::take(&mut self.walked);
        let mut segments: Vec<IndexSegment> = Vec::with_capacity(said.segments.len());
        let mut durable = said.visible;
        for segment in said.segments {
            if !segment.open {
                segments.push(segment);
                continue;
            }
            let expected = segments.last().map_or(segment.base, |s| s.end);
            let known = before.iter().find(|(id, _)| *id == segment.id);
            let known = known
                .map(|(_, chain)| *chain)
                .filter(|c| c.at >= segment.len);
            let chain = follow(disk, lineage, &segment, expected, known)?;
            durable = durable.max(chain.durable);
            if chain.at > HEADER as u64 {
                self.walked.push((segment.id, chain));
                segments.push(IndexSegment {
                    base: match segment.len {
                        0 => expected,
                        _ => segment.base,
                    },
                    end: chain.end,
                    len: chain.at,
                    last_time: chain.last_time,
                    ..segment
                });
            }
        }
        // A batch attests what lies before it, which has been walked.
        let walked = segments.last().map_or(said.visible, |s| s.end);
        self.segments = segments;
        Ok(durable.min(walked))
    }
}

/// Follows one segment's batches as far as they are whole.
fn follow<D: BlockingDisk>(
    disk: &mut D,
    lineage: Lineage,
    segment: &IndexSegment,
    expected: u64,
    known: Option<Chain>,
) -> Result<Chain, StorageError> {
    let mut bytes = PlainBytes::new(disk);
    // Nothing is read ahead: what lies behind the last batch is being written.
    let found = bytes.open(&segment.id.log_file_name(), 0)?;
    let mut walker = Walker {
        bytes,
        segment,
        found,
        lineage,
    };
    let (chain, _) = match known {
        Some(chain) if chain.at <= found => walker.follow(chain, u64::MAX)?,
        _ => walker.begin(expected)?,
    };
    Ok(chain)
}

/// Bytes of a log that somebody else has: sealed segments that are visible to their end are mapped, others are read. A mapping
/// that is cut would end the process, and the log's owner may cut whatever nobody has been shown; a read of it is an error.
#[derive(Debug)]
pub struct HistoryBytes {
    mapped: MappedBytes,
    plain: PlainBytes<ReadDisk>,
    is_mapped: bool,
}

impl HistoryBytes {
    /// Reads from `folder`, of which nobody needs to hold the lock.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        HistoryBytes {
            mapped: MappedBytes::reading_ahead(&folder),
            plain: PlainBytes::new(ReadDisk::new(folder)),
            is_mapped: false,
        }
    }
}

impl SegmentBytes for HistoryBytes {
    fn open(&mut self, name: &str, valid: u64) -> Result<u64, StorageError> {
        self.is_mapped = true;
        self.mapped.open(name, valid)
    }

    fn open_growing(&mut self, name: &str, valid: u64) -> Result<u64, StorageError> {
        self.is_mapped = false;
        self.plain.open(name, valid)
    }

    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        match self.is_mapped {
            true => self.mapped.bytes(offset, len),
            false => self.plain.bytes(offset, len),
        }
    }
}
