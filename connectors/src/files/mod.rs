//! Files of newline-delimited JSON and CSV, plain or gzip, as sources.
//!
//! Laws
//! 1. How files are split into partitions depends on the files and on [`Files::split_every`], never on the shard count. A
//!    gzip file is one partition. A record belongs to the byte range in which its first byte lies.
//! 2. A record's offset is that of its first byte in the file; in a gzip file, in what the file holds when decompressed.
//! 3. The shard only looks for line ends and parses. Reading and decompressing is done by the port's helper thread, two
//!    blocks ahead, in buffers that go round; nothing is allocated for a line but what `T` itself needs.
//! 4. A line that is no record is counted and dead-lettered with file, line, offset and reason, or stops the job with the
//!    same text ([`OnError`]). Empty lines are no records and are passed over.
//!
//! ```no_run
//! use pelton::{EventTime, Job, Spans, Tumbling, Watermarks};
//! use pelton_connectors::{files, lines, timestamp};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     product: u32,
//!     #[serde(with = "timestamp::rfc3339")]
//!     at: EventTime,
//! }
//!
//! let job = Job::new("orders per product");
//! job.source(files::json::<Order>(["orders-1.jsonl", "orders-2.jsonl.gz"]))
//!    .event_time(|o| o.at, Watermarks::bounded(5.seconds()))
//!    .key_by(|o| o.product)
//!    .window(Tumbling::of(1.minutes()))
//!    .aggregate(|a| a.count())
//!    .map(|w| (w.window.start.to_string(), w.key, w.value))
//!    .sink(lines::stdout(lines::json()));
//! ```

mod blocks;
mod format;
mod frame;
mod open;
mod reader;

pub use format::{Csv, Format, Json};
pub use reader::FileReader;

use frame::Framer;
use open::Kind;
use pelton::port::Ports;
use pelton::source::Source;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// What to do with a line that is no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Count it, send it to the job's dead letters where those are set, and go on.
    #[default]
    Skip,
    /// Stop the job with the text that the dead letter would have had.
    Fail,
}

/// Files of newline-delimited JSON: each line is one value of type `T`. A name may end in `.gz` or not: what a file
/// holds is seen from its first bytes.
pub fn json<T: DeserializeOwned + Send + 'static>(
    paths: impl IntoIterator<Item = impl AsRef<Path>>,
) -> Files<T, Json> {
    Files::new(paths, Json::new())
}

/// CSV files (RFC 4180) whose first line names the columns; fields go into `T` by name.
pub fn csv<T: DeserializeOwned + Send + 'static>(
    paths: impl IntoIterator<Item = impl AsRef<Path>>,
) -> Files<T, Csv> {
    Files::new(paths, Csv::new())
}

/// Files as a source: see [`json()`] and [`csv()`].
#[derive(Clone, Debug)]
pub struct Files<T, F> {
    paths: Vec<PathBuf>,
    format: F,
    split: Option<u64>,
    block: Option<usize>,
    settings: Settings,
    record: PhantomData<fn() -> T>,
}

/// What every partition's reader is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub on_error: OnError,
    pub record_max: usize,
}

/// A block, unless there are so many partitions that all blocks together would pass [`BLOCKS_BYTES_MAX`].
const BLOCK_BYTES: usize = 256 << 10;
const BLOCK_BYTES_MIN: usize = 16 << 10;
const BLOCKS_BYTES_MAX: usize = 64 << 20;
/// Ranges of one file.
const RANGES_MAX: u64 = 4096;

impl<T, F: Format<T>> Files<T, F> {
    fn new(paths: impl IntoIterator<Item = impl AsRef<Path>>, format: F) -> Self {
        Files {
            paths: paths.into_iter().map(|p| p.as_ref().to_owned()).collect(),
            format,
            split: None,
            block: None,
            settings: Settings {
                on_error: OnError::Skip,
                record_max: 1 << 20,
            },
            record: PhantomData,
        }
    }

    /// Splits each plain file into partitions of `bytes`, so that one big file can be read by all shards. Each
    /// partition has its own watermark, so the split is part of the question: the same file split otherwise may
    /// find other records late. Line numbers are known in the first range of a file only, offsets in all. In split
    /// CSV a quoted field cannot span lines.
    pub fn split_every(mut self, bytes: u64) -> Self {
        self.split = Some(bytes);
        self
    }

    /// What to do with a line that is no record. Default: [`OnError::Skip`].
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.settings.on_error = on_error;
        self
    }

    /// Bytes that a line may have; a longer one is malformed. Default: 1 MiB. A line that spans blocks is held in
    /// memory whole, so this bounds what a file without line ends can take.
    pub fn line_max(mut self, bytes: usize) -> Self {
        self.settings.record_max = bytes;
        self
    }

    /// Bytes read at once. Default: 256 KiB, less with many partitions. Each partition has three blocks.
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block = Some(bytes);
        self
    }
}

impl<T> Files<T, Csv> {
    /// What stands between fields. Default: a comma.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.format.delimiter(delimiter);
        self
    }

    /// The first line is a record too: fields go into `T` by position.
    pub fn without_header(mut self) -> Self {
        self.format.without_header();
        self
    }
}

impl<T: Send + 'static, F: Format<T>> Source for Files<T, F> {
    type Item = T;
    type Reader = FileReader<T, F>;

    fn name(&self) -> String {
        self.format.name().into()
    }

    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Reader>, String> {
        self.check()?;
        let mut parts = Vec::new();
        for path in &self.paths {
            let mut format = self.format.clone();
            let file = open::open(path, &mut format, self.split.is_some())?;
            match (file.kind, self.split) {
                (Kind::Plain { bytes }, Some(every)) => {
                    let ranges = bytes.div_ceil(every).max(1);
                    if ranges > RANGES_MAX {
                        return Err(format!(
                            "{}: {bytes} bytes split every {every} are {ranges} partitions; split_every so that there are at most {RANGES_MAX}",
                            path.display()
                        ));
                    }
                    for part in file.ranges(ranges, every) {
                        parts.push((path.clone(), format.clone(), part));
                    }
                }
                _ => parts.push((path.clone(), format, file.whole())),
            }
        }
        let block = self.block.unwrap_or_else(|| {
            (BLOCKS_BYTES_MAX / (blocks::IN_FLIGHT * parts.len()))
                .clamp(BLOCK_BYTES_MIN, BLOCK_BYTES)
        });
        let mut readers = Vec::with_capacity(parts.len());
        for (number, (path, format, part)) in parts.into_iter().enumerate() {
            let shard = ports.shard_of_partition(number);
            let quotes = format.quotes().filter(|_| self.split.is_none());
            let framer = Framer::new(quotes, self.settings.record_max, part.start);
            let blocks = blocks::Blocks::open(ports, shard, part.input, block)?;
            readers.push(FileReader::new(
                path.display().to_string(),
                format,
                self.settings,
                framer,
                blocks,
            ));
        }
        Ok(readers)
    }
}

impl<T, F> Files<T, F> {
    fn check(&self) -> Result<(), String> {
        if self.paths.is_empty() {
            return Err("no file is named; name at least one".into());
        }
        if self.split == Some(0) {
            return Err("split_every is 0 bytes; give at least 1".into());
        }
        if self.block.is_some_and(|b| b == 0) {
            return Err("block_bytes is 0; give at least 1".into());
        }
        if self.settings.record_max == 0 {
            return Err("line_max is 0 bytes; give at least 1".into());
        }
        Ok(())
    }
}
