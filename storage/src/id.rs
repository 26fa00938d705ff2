//! Names of things on disk: newtypes, so that an epoch is never taken for a key group.

use std::fmt;

/// A checkpoint's number. Never reused by one lineage, restarts and aborted epochs included; 0 is no epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One state of one operator. The caller's registry says which; storage only compares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(pub u64);

/// A share of the key space, the unit in which state moves between shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyGroup(pub u16);

/// Who wrote a store: drawn once, when the store is made or a job starts from a savepoint. Storage draws nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub [u8; 16]);

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({self})")
    }
}

/// A segment file. The order of ids is log order: a later attempt's segments come after all earlier ones, and within one
/// attempt a key group is written by one shard, whose segments are numbered upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// How many times the store had been opened when this was written, from 1.
    pub attempt: u32,
    /// The segment's place among those of its attempt and shard, from 0.
    pub number: u32,
    /// The shard that wrote it.
    pub shard: u32,
}

impl SegmentId {
    /// The file's name in the store's folder.
    ///
    /// ```
    /// use pelton_storage::SegmentId;
    /// let id = SegmentId { attempt: 2, number: 17, shard: 1 };
    /// assert_eq!(id.file_name(), "segment-00000002-00000011-00000001");
    /// assert_eq!(SegmentId::parse(&id.file_name()), Some(id));
    /// ```
    pub fn file_name(&self) -> String {
        let SegmentId {
            attempt,
            number,
            shard,
        } = self;
        format!("{SEGMENT_PREFIX}{attempt:08x}-{number:08x}-{shard:08x}")
    }

    /// The id that a file name says, if it is a segment's name exactly as [`file_name`](Self::file_name) writes it.
    pub fn parse(name: &str) -> Option<SegmentId> {
        let mut parts = name.strip_prefix(SEGMENT_PREFIX)?.split('-');
        let mut part = || u32::from_str_radix(parts.next()?, 16).ok();
        let id = SegmentId {
            attempt: part()?,
            number: part()?,
            shard: part()?,
        };
        (id.file_name() == name).then_some(id)
    }
}

impl SegmentId {
    /// The file's name in the folder of an ingest log; the shard is the partition.
    ///
    /// ```
    /// use pelton_storage::SegmentId;
    /// let id = SegmentId { attempt: 2, number: 17, shard: 1 };
    /// assert_eq!(id.log_file_name(), "log-00000001-00000002-00000011");
    /// assert_eq!(SegmentId::parse_log(&id.log_file_name()), Some(id));
    /// ```
    pub fn log_file_name(&self) -> String {
        let SegmentId {
            attempt,
            number,
            shard,
        } = self;
        format!("{LOG_PREFIX}{shard:08x}-{attempt:08x}-{number:08x}")
    }

    /// The id that a file name of an ingest log says, exactly as [`log_file_name`](Self::log_file_name) writes it.
    pub fn parse_log(name: &str) -> Option<SegmentId> {
        let mut parts = name.strip_prefix(LOG_PREFIX)?.split('-');
        let mut part = || u32::from_str_radix(parts.next()?, 16).ok();
        let (shard, attempt, number) = (part()?, part()?, part()?);
        let id = SegmentId {
            attempt,
            number,
            shard,
        };
        (id.log_file_name() == name).then_some(id)
    }
}

const LOG_PREFIX: &str = "log-";
const SEGMENT_PREFIX: &str = "segment-";

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file_name())
    }
}
