//! Files of newline-delimited JSON and CSV, plain or gzip, as sources.
//!
//! Laws
//! 1. How files are split into partitions depends on the files and on [`Files::split_every`], never on the shard count. A
//!    gzip file is one partition. A record belongs to the byte range in which its first byte lies. Files read
//!    [one after another](Files::in_sequence) are one partition.
//! 2. A record's offset is that of its first byte in the file; in a gzip file, in what the file holds when decompressed. In a
//!    partition of several files the number of the file stands in the upper 16 bits; people are told file and offset.
//! 3. The shard only looks for line ends and parses. Reading and decompressing is done by the port's helper thread, two
//!    blocks ahead, in buffers that go round; nothing is allocated for a line but what `T` itself needs.
//! 4. A line that is no record, or a record without a valid event time, is counted and dead-lettered with file, line, offset,
//!    reason and the line itself, or stops the job with the same text ([`OnError`]). Empty lines are no records and are
//!    passed over.
//! 5. Zeros behind the data of a gzip file are padding, as for gzip. Other bytes there are passed over as gzip does and are one
//!    malformed record, since they may have been data: its reason says where in the compressed file they begin.
//! 6. A position is the first line that has not been handed on, never what was read ahead, and reading goes on there with the
//!    same line numbers, letters and headers. A file is known by its first 4 KiB: one that has grown is the same, one
//!    that was cut, or begins otherwise, stops the job before it starts. What cannot be read again (a pipe) has no position.
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
mod gzip;
mod open;
mod place;
mod reader;
mod resume;

pub use format::{Csv, Format, Json};
pub use reader::FileReader;

use blocks::{Blocks, Following};
use frame::Framer;
use open::{Kind, Part};
use pelton::port::Ports;
use pelton::source::Source;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// What to do with a line that is no record, or whose record has no valid event time.
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
    in_sequence: bool,
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
            in_sequence: false,
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

    /// Reads the files one after another, in the order in which they are named, as a single partition: the files of a log that
    /// was rotated. Its watermark goes on from file to file, where otherwise each file has its own and they are read side by side.
    ///
    /// Plain and gzip may be mixed; CSV files each have their own header; an empty file is passed over (an empty one that is
    /// named `.gz` is damaged). A file that is missing when the job is built is an error; one that cannot be read when its
    /// turn comes stops the job with its name. At most 65,536 files, of 2^48 bytes each.
    ///
    /// A record's offset in the partition has the number of its file, from 0, in the upper 16 bits and the offset in the file in
    /// the lower 48. Dead letters and errors tell the file and the offset in it.
    pub fn in_sequence(mut self) -> Self {
        self.in_sequence = true;
        self
    }

    /// What to do with a line that is no record, or whose record has no valid event time. Default: [`OnError::Skip`].
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

    // Of a pipe it is not known before it is opened; it is one partition mostly, and ends.
    fn may_fall_silent(&self) -> bool {
        false
    }

    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Reader>, String> {
        self.check()?;
        let parts = if self.in_sequence {
            vec![self.sequence()?]
        } else {
            self.side_by_side()?
        };
        let block = self.block.unwrap_or_else(|| {
            (BLOCKS_BYTES_MAX / (blocks::IN_FLIGHT * parts.len()))
                .clamp(BLOCK_BYTES_MIN, BLOCK_BYTES)
        });
        let mut readers = Vec::with_capacity(parts.len());
        for (number, partition) in parts.into_iter().enumerate() {
            let Partition {
                names,
                format,
                part,
                following,
            } = partition;
            let known = part.known.filter(|_| !following.may_wait);
            let shard = ports.shard_of_partition(number);
            let quotes = format.quotes().filter(|_| self.split.is_none());
            let framer = Framer::new(quotes, self.settings.record_max, part.start);
            let blocks = Blocks::open(ports, shard, part.input, following, block)?;
            let reader = FileReader::new(names, format, self.settings, framer, known, blocks);
            readers.push(reader);
        }
        Ok(readers)
    }
}

/// A partition to be read.
struct Partition<F> {
    names: Vec<String>,
    /// Has the first file's header.
    format: F,
    part: Part,
    following: Following<F>,
}

impl<T, F: Format<T>> Files<T, F> {
    /// Each file a partition, or several.
    fn side_by_side(&self) -> Result<Vec<Partition<F>>, String> {
        let mut parts = Vec::new();
        for path in &self.paths {
            let mut format = self.format.clone();
            let file = open::open(path, &mut format, self.split.is_some())?;
            let ranges = match (file.kind, self.split) {
                (Kind::Plain { bytes }, Some(every)) => {
                    let count = bytes.div_ceil(every).max(1);
                    if count > RANGES_MAX {
                        return Err(format!(
                            "{}: {bytes} bytes split every {every} are {count} partitions; split_every so that there are at most {RANGES_MAX}",
                            path.display()
                        ));
                    }
                    file.ranges(count, every)
                }
                _ => vec![file.whole()],
            };
            parts.extend(ranges.into_iter().map(|part| Partition {
                names: vec![path.display().to_string()],
                format: format.clone(),
                part,
                following: Following {
                    paths: VecDeque::new(),
                    format: self.format.clone(),
                    may_wait: false,
                },
            }));
        }
        Ok(parts)
    }

    /// All files as one partition.
    fn sequence(&self) -> Result<Partition<F>, String> {
        let [first, rest @ ..] = &self.paths[..] else {
            unreachable!("checked: there is a file");
        };
        let mut format = self.format.clone();
        let part = open::open(first, &mut format, false)?.whole();
        let mut may_wait = false;
        for path in rest {
            may_wait |= !open::look(path)?;
        }
        let names = self.paths.iter().map(|p| p.display().to_string());
        Ok(Partition {
            names: names.collect(),
            format,
            part,
            following: Following {
                paths: rest.iter().cloned().collect(),
                format: self.format.clone(),
                may_wait,
            },
        })
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
        if self.in_sequence && self.split.is_some() {
            return Err(
                "files in_sequence are one partition and cannot be split_every so many bytes; give one of the two".into(),
            );
        }
        if self.in_sequence && self.paths.len() > place::FILES_MAX {
            return Err(format!(
                "{} files are named in_sequence; give at most {}",
                self.paths.len(),
                place::FILES_MAX
            ));
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
