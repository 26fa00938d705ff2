//! How a writer spends memory and space.

use crate::buffer::ALIGN;
use crate::format::{block, segment};

/// The sizes of a [`SegmentWriter`](super::SegmentWriter). All are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterConfig {
    /// Length of a segment, allocated before use.
    pub segment_bytes: u64,
    /// How much one write takes, but for entries that are longer.
    pub chunk_bytes: usize,
    /// How many chunks may exist: filled, under way, or spare. They are made when they are needed, so few only where little is written. A
    /// shard that has filled all waits for the disk, and records change entries before their turn, which costs twice: a checkpoint of
    /// 8 MB every 10 ms left 0.68 of the throughput with four and 0.74 with sixteen (medians of five alternating runs).
    pub buffers: usize,
    /// From which length on a block is not extended.
    pub block_bytes: usize,
    /// No entry, with its key, may be longer.
    pub frame_bytes_max: u64,
    /// A segment is allocated only if this much stays free after it.
    pub reserve_bytes: u64,
    /// Whether to go round the page cache where that is allowed.
    pub direct: bool,
    /// The owner in this writer's tickets; unlike that of all others on the same disk.
    pub owner: u32,
}

impl WriterConfig {
    /// Segments of 64 MiB, up to sixteen chunks of 512 KiB, blocks of 32 KiB, entries up to 8 MiB, 64 MiB in reserve, direct.
    pub fn new(owner: u32) -> Self {
        WriterConfig {
            segment_bytes: 64 << 20,
            chunk_bytes: 512 << 10,
            buffers: 16,
            block_bytes: 32 << 10,
            frame_bytes_max: 8 << 20,
            reserve_bytes: 64 << 20,
            direct: true,
            owner,
        }
    }

    /// Panics if the sizes contradict one another: they are constants of a program, not input.
    pub(super) fn check(&self) {
        let page = ALIGN as u64;
        assert!(
            self.segment_bytes.is_multiple_of(page),
            "whole pages a segment"
        );
        assert!(
            self.chunk_bytes.is_multiple_of(ALIGN) && self.chunk_bytes >= 2 * ALIGN,
            "a chunk holds a segment's header and a page"
        );
        assert!(
            self.buffers >= 2,
            "one chunk is filled while one is written"
        );
        assert!(
            self.block_bytes <= block::BLOCK_MAX,
            "blocks have a greatest length"
        );
        let longest = self.frame_bytes_max + block::HEADER as u64 + page;
        assert!(
            longest <= block::BLOCK_MAX as u64
                && longest + segment::HEADER as u64 <= self.segment_bytes,
            "the longest entry fits in a block, and that in a segment"
        );
    }
}
