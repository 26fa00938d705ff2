//! Lines in one file a shard, which grows: each counts exactly once after a restart.
//!
//! Laws
//! 1. Lines are written as they come. At a barrier the file is on its device, and its length is what the epoch decides.
//! 2. The lengths decided last are in one small file, replaced whole at each commit. At the start the files are cut to them; a file
//!    without one goes.
//! 3. So until then a file may hold lines behind its decided length that are cut off and computed again, perhaps as others: a
//!    reader who must not see them asks [`committed`], and reads no further.
//! 4. Lengths never shrink, and a folder whose lengths are of a later epoch than the checkpoint's is refused.
//! 5. So is one whose lengths carry another job's lineage: that job may have decided on more than they say.
//!
//! ```text
//! epoch 42
//! lineage 0d4f5b9e8c7a61f20d4f5b9e8c7a61f2      not in those of earlier builds
//! 9130 shard-0000.jsonl
//! 8811 shard-0001.jsonl
//! ```

use super::folder::{self, Folder, Held, Opened, check_extension, check_owner};
use super::{Format, LinesWriter, target};
use pelton::checkpoint::{Epoch, Lineage};
use pelton::port::{Ports, Start};
use pelton::sink::{CommitError, Committer, Output, Sink};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

const LENGTHS: &str = ".committed";
const LENGTHS_NEW: &str = ".committed.new";

/// Lines to a growing file for each shard in a folder, `shard-<shard>.<extension>`: exactly once after a restart, which cuts off what no
/// checkpoint decided.
///
/// Not read-committed before that: lines are in the file as soon as they are written, also those that a restart cuts off. Who follows
/// the files must be content with that, or read up to [`committed`]; whole files that are never changed are made by
/// [`parts`](super::parts()).
///
/// A shard each, since shards pass a barrier at different times: lines of two epochs would lie mixed in one file. The folder is one
/// job's: its parent must be there. For jobs with checkpoints.
pub fn growing<F>(folder: impl AsRef<Path>, format: F) -> Growing<F> {
    Growing {
        path: folder.as_ref().to_owned(),
        format,
        extension: None,
        updates: false,
        opened: None,
    }
}

/// See [`growing`].
#[derive(Debug)]
pub struct Growing<F> {
    path: PathBuf,
    format: F,
    extension: Option<String>,
    updates: bool,
    opened: Option<Opened>,
}

impl<F> Growing<F> {
    /// How names end: letters, digits, dots, `-` and `_`. Default: what the format says, `jsonl` or `txt`.
    pub fn extension(mut self, extension: impl Into<String>) -> Self {
        self.extension = Some(extension.into());
        self
    }

    /// Says that whoever reads the lines copes with results that later ones replace: the last line of a key counts.
    pub fn updates(mut self) -> Self {
        self.updates = true;
        self
    }
}

/// The files of a [`growing`] sink's folder and the bytes of each that are decided: what lies behind them may be cut off. Empty
/// where nothing was decided yet.
///
/// # Errors
/// The lengths cannot be read, or are damaged.
pub fn committed(folder: impl AsRef<Path>) -> io::Result<BTreeMap<PathBuf, u64>> {
    let folder = folder.as_ref();
    let lengths = Lengths::read(folder)?.unwrap_or_default();
    let one = |(name, length)| (folder.join(name), length);
    Ok(lengths.files.into_iter().map(one).collect())
}

impl<T: 'static, F: Format<T>> Sink<T> for Growing<F> {
    type Writer = LinesWriter<F>;

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        let extension = match &self.extension {
            Some(given) => given.clone(),
            None => self.format.extension().into(),
        };
        check_extension(&extension)?;
        let output = |folder: &Folder, shard| Grown {
            folder: folder.clone(),
            name: format!("shard-{shard:04}.{extension}"),
            file: None,
            length: 0,
            prepared: 0,
        };
        let format = &self.format;
        let (opened, writers) = folder::open(ports, &self.path, format, check_lengths, output)?;
        self.opened = Some(opened);
        Ok(writers)
    }

    fn takes_updates(&self) -> bool {
        self.updates || self.format.tells_updates()
    }

    fn in_two_phases(&self) -> bool {
        true
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        let (folder, held) = self.opened.take()?;
        Some(Box::new(Cuts {
            folder,
            _held: held,
            lengths: None,
        }))
    }
}

/// A shard's file, on the helper thread.
struct Grown {
    folder: Folder,
    name: String,
    /// Opened with the first line: by then it has been cut.
    file: Option<File>,
    length: u64,
    /// The length at the last barrier.
    prepared: u64,
}

impl Grown {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                let path = self.folder.path.join(&self.name);
                let file = options.append(true).create(true).open(path)?;
                self.length = file.metadata()?.len();
                self.prepared = self.length;
                // A file that was made just now has a name that lasts before anything is decided of it.
                self.folder.sync()?;
                self.file.insert(file)
            }
        };
        file.write_all(lines)?;
        self.length += lines.len() as u64;
        Ok(())
    }
}

impl Output<u8> for Grown {
    fn write(&mut self, lines: &mut Vec<u8>) -> Result<(), String> {
        self.append(lines).map_err(|e| target::failure(&e))
    }

    fn pre_commit(&mut self, _: Epoch) -> Result<Option<Vec<u8>>, String> {
        let Some(file) = self.file.as_ref().filter(|_| self.length > self.prepared) else {
            return Ok(None);
        };
        file.sync_data().map_err(|e| target::failure(&e))?;
        self.prepared = self.length;
        Ok(Some(format!("{} {}", self.length, self.name).into_bytes()))
    }
}

/// What is decided of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lengths {
    /// The last that changed one; 0 before the first.
    epoch: u64,
    /// The job's that decided them.
    lineage: Option<Lineage>,
    files: BTreeMap<String, u64>,
}

impl Lengths {
    /// `None`: there are none.
    fn read(folder: &Path) -> io::Result<Option<Self>> {
        let text = match std::fs::read_to_string(folder.join(LENGTHS)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let parsed = || {
            let (epoch, rest) = text.split_once('\n')?;
            let epoch = epoch.strip_prefix("epoch ")?.parse().ok()?;
            let (lineage, rest) = match rest.strip_prefix("lineage ") {
                Some(rest) => {
                    let (of, rest) = rest.split_once('\n')?;
                    (Some(folder::lineage(of)?), rest)
                }
                None => (None, rest),
            };
            let files = rest.lines().map(length).collect::<Option<_>>()?;
            Some(Lengths {
                epoch,
                lineage,
                files,
            })
        };
        let damaged = || io::Error::new(ErrorKind::InvalidData, format!("{LENGTHS} is damaged"));
        parsed().map(Some).ok_or_else(damaged)
    }

    /// Replaces them, durably.
    fn write(&self, folder: &Folder) -> io::Result<()> {
        let mut text = format!("epoch {}\n", self.epoch);
        if let Some(lineage) = self.lineage {
            text.push_str(&format!("lineage {lineage}\n"));
        }
        for (name, length) in &self.files {
            text.push_str(&format!("{length} {name}\n"));
        }
        let new = folder.path.join(LENGTHS_NEW);
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        std::fs::rename(new, folder.path.join(LENGTHS))?;
        folder.sync()
    }
}

/// Law 5. Where there is no line of the other job's and none was decided, there is nothing of it to be lost.
fn check_lengths(folder: &Folder, start: &Start) -> Result<(), String> {
    let Some(lengths) = Lengths::read(&folder.path).map_err(|e| target::failure(&e))? else {
        return Ok(());
    };
    let is_empty = lengths.files.is_empty() && !folder.names()?.iter().any(|n| is_ours(n));
    match is_empty {
        true => Ok(()),
        false => check_owner(LENGTHS, lengths.lineage, start),
    }
}

/// `9130 shard-0000.jsonl`.
fn length(line: &str) -> Option<(String, u64)> {
    let (length, name) = line.split_once(' ')?;
    is_ours(name).then_some(())?;
    Some((name.into(), length.parse().ok()?))
}

fn is_ours(name: &str) -> bool {
    name.starts_with("shard-") && !name.contains('/')
}

/// The committer.
struct Cuts {
    folder: Folder,
    _held: Held,
    /// As they are in their file, once read.
    lengths: Option<Lengths>,
}

impl Cuts {
    fn lengths(&mut self) -> io::Result<Lengths> {
        if let Some(lengths) = &self.lengths {
            return Ok(lengths.clone());
        }
        Ok(Lengths::read(&self.folder.path)?.unwrap_or_default())
    }

    fn replace(&mut self, lengths: Lengths) -> io::Result<()> {
        // Until it is known to have been written, they are read again.
        self.lengths = None;
        let lineage = self.folder.lineage();
        let lengths = Lengths { lineage, ..lengths };
        lengths.write(&self.folder)?;
        self.lengths = Some(lengths);
        Ok(())
    }

    /// Law 2.
    fn cut(&self, lengths: &Lengths) -> Result<(), String> {
        let say = |e: io::Error| target::failure(&e);
        let names = self.folder.names()?;
        for (name, &length) in &lengths.files {
            let path = self.folder.path.join(name);
            let file = OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|e| format!("{name}: {}", say(e)))?;
            let there = file.metadata().map_err(say)?.len();
            if there < length {
                return Err(format!(
                    "{name} has {there} bytes, and {length} were decided: it was cut; put it back, or name an empty folder and start without checkpoints"
                ));
            }
            if there > length {
                file.set_len(length)
                    .and_then(|()| file.sync_data())
                    .map_err(say)?;
            }
        }
        let undecided = |n: &&String| is_ours(n) && !lengths.files.contains_key(*n);
        for name in names.iter().filter(undecided) {
            std::fs::remove_file(self.folder.path.join(name)).map_err(say)?;
        }
        self.folder.sync().map_err(say)
    }
}

impl Committer for Cuts {
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        let Some((name, length)) = std::str::from_utf8(prepared).ok().and_then(length) else {
            return Err(CommitError {
                what:
                    "the checkpoint names no file of this sink; start the job with the sink it had"
                        .into(),
                is_retryable: false,
            });
        };
        let path = self.folder.path.clone();
        let failed = |e: io::Error| target::uncommitted(&path, &e);
        let mut lengths = self.lengths().map_err(failed)?;
        let before = lengths.files.get(&name).copied().unwrap_or(0);
        if length <= before {
            return Ok(()); // Law 4: again.
        }
        lengths.epoch = lengths.epoch.max(epoch.0);
        lengths.files.insert(name, length);
        self.replace(lengths).map_err(failed)
    }

    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        let say = |e: io::Error| target::failure(&e);
        let known = Lengths::read(&self.folder.path).map_err(say)?;
        // The first start. What is there was not made by a sink of this kind.
        if known.is_none()
            && let Some(other) = self.folder.names()?.iter().find(|n| is_ours(n))
        {
            return Err(format!(
                "it holds {other}, and nothing says what of it is decided; name an empty folder, or move the file away"
            ));
        }
        let of = known.as_ref().map(|lengths| lengths.lineage);
        let lengths = known.unwrap_or_default();
        if lengths.epoch > last.map_or(0, |e| e.0) {
            return Err(format!(
                "it has lines of epoch {}, later than the checkpoint that the job starts from: of another job, or of this one before it was set back; name an empty folder, or move the files away",
                lengths.epoch
            ));
        }
        // None, or of an earlier build, or of a job that left nothing: from now on they are this one's (law 5).
        if of != Some(self.folder.lineage()) {
            self.replace(lengths.clone()).map_err(say)?;
        }
        self.cut(&lengths)
    }
}
