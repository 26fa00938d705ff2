//! How an ingest log spends memory, space and time.

use crate::buffer::ALIGN;
use crate::format::log::{BATCH, BATCH_MAX, RECORD, Visibility};
use crate::format::segment;
use crate::id::Lineage;

/// The sizes of a [`Log`](super::Log). Units are in the names; `records` counts records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The owner in the log's tickets; unlike that of all others on the same disk.
    pub owner: u32,
    /// How many partitions; may grow from one opening to the next, not shrink.
    pub partitions: u32,
    /// Which records readers see; fixed when the log is made.
    pub visibility: Visibility,
    /// The lineage, if the folder is empty; drawn by the caller.
    pub lineage_if_new: Lineage,
    /// Whether to go round the page cache where that is allowed.
    pub direct: bool,
    /// Length of a segment, allocated before use.
    pub segment_bytes: u64,
    /// A segment is allocated only if this much stays free after it.
    pub reserve_bytes: u64,
    /// Length of the longest batch, header and padding included.
    pub batch_bytes: usize,
    /// How many batches a partition may hold in memory: filled, waiting or under way.
    pub buffers: usize,
    /// A group goes down as soon as it has this many bytes ..
    pub group_bytes: usize,
    /// .. or its first record has waited so long; 0 means at once, and what arrives during a sync shares the next.
    pub group_us: i64,
    /// A record with an idempotency key is known again while it is among so many last records of its partition.
    pub dedup_records: u64,
}

impl LogConfig {
    /// Segments of 64 MiB, 64 MiB in reserve, batches of 1 MiB, four of them a partition, groups at once, keys known for 100,000
    /// records, direct.
    pub fn new(owner: u32, partitions: u32, visibility: Visibility, lineage: Lineage) -> Self {
        LogConfig {
            owner,
            partitions,
            visibility,
            lineage_if_new: lineage,
            direct: true,
            segment_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            batch_bytes: 1 << 20,
            buffers: 4,
            group_bytes: 1 << 20,
            group_us: 0,
            dedup_records: 100_000,
        }
    }

    /// How long a record may be with its key and its fixed part, in bytes: as long as fits in a batch.
    pub fn record_bytes_max(&self) -> u64 {
        (self.batch_bytes - BATCH) as u64
    }

    /// Panics if the sizes contradict one another: they are constants of a program, not input.
    pub(super) fn check(&self) {
        assert!(
            self.batch_bytes.is_multiple_of(ALIGN) && self.batch_bytes <= BATCH_MAX,
            "a batch is whole pages and has a greatest length"
        );
        assert!(self.batch_bytes > BATCH + RECORD, "a batch holds a record");
        assert!(
            self.segment_bytes.is_multiple_of(ALIGN as u64)
                && self.segment_bytes >= (segment::HEADER + self.batch_bytes) as u64,
            "a segment holds its header and a batch"
        );
        assert!(
            self.buffers >= 2,
            "one batch is filled while one is written"
        );
        assert!(self.group_us >= 0, "time does not run backwards");
    }
}

/// What [`Log::retain`](super::Log::retain) keeps of each partition; what neither bound wants kept goes, in whole segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// The oldest segments go while there is more than this.
    pub bytes_max: Option<u64>,
    /// Segments go whose last record arrived longer ago than this, in microseconds.
    pub age_us_max: Option<i64>,
}
