//! Lines in files of epochs: each counts exactly once, and is seen when its epoch is decided.
//!
//! Laws
//! 1. A shard writes the lines of an epoch to a staging file, which is closed and on its device, with its name, before the epoch is
//!    decided. Deciding renames it. A file with a final name is never changed again.
//! 2. A final name is never given to a second file, and no file is replaced: epochs ascend over the job's life, and a folder
//!    with files of later epochs than the checkpoint's is another job's and is refused.
//! 3. At the start all staging files go that are the job's: those that a checkpoint decided have been renamed before. One that is
//!    another job's is left, and the job is refused: a checkpoint of that job may have decided it.
//! 4. A final name that has gone is no error: whoever reads the files may take them away.
//!
//! ```text
//! .part-0d4f5b9e8c7a61f20d4f5b9e8c7a61f2-3-0001-7.staging   lineage, start, shard, number; renamed to
//! part-00000000000000000042-0001.jsonl                      epoch, shard
//! ```
//!
//! Those of earlier builds have no lineage: `.part-3-0001-7.staging`. A staging file is made before its epoch is known, so the name has a
//! number in its place: one of an epoch that was given up goes to the next one as it is.

use super::folder::{self, Folder, Held, Opened, check_extension, check_owner};
use super::{Format, LinesWriter, target};
use pelton::checkpoint::{Epoch, Lineage};
use pelton::port::{Ports, Start};
use pelton::sink::{CommitError, Committer, Output, Sink};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Lines to files in a folder, exactly once: for each epoch with lines, and each shard, a file
/// `part-<epoch>-<shard>.<extension>`, which appears, whole, when the epoch's checkpoint counts. Names sort in the order of epochs:
/// `part-00000000000000000042-0003.jsonl`.
///
/// The folder is one job's: its parent must be there. Names that begin with a dot are the sink's own. A reader may remove files when
/// it has read them. For jobs with checkpoints: without them nothing ever counts.
///
/// ```no_run
/// use pelton::{Job, sources};
/// use pelton_connectors::lines;
/// let job = Job::new("squares");
/// job.source(sources::items(1..=3u64))
///    .map(|x| x * x)
///    .sink(lines::parts("/var/lib/squares", lines::json()));
/// ```
pub fn parts<F>(folder: impl AsRef<Path>, format: F) -> Parts<F> {
    Parts {
        path: folder.as_ref().to_owned(),
        format,
        extension: None,
        updates: false,
        opened: None,
    }
}

/// See [`parts`].
#[derive(Debug)]
pub struct Parts<F> {
    path: PathBuf,
    format: F,
    extension: Option<String>,
    updates: bool,
    opened: Option<Opened>,
}

impl<F> Parts<F> {
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

impl<T: 'static, F: Format<T>> Sink<T> for Parts<F> {
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
        let output = |folder: &Folder, shard| Staged {
            folder: folder.clone(),
            shard,
            extension: extension.clone(),
            number: 0,
            file: None,
        };
        let format = &self.format;
        let (opened, writers) = folder::open(ports, &self.path, format, check_staging, output)?;
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
        Some(Box::new(Renames {
            folder,
            _held: held,
            renamed: None,
        }))
    }
}

/// What a checkpoint has of a staging file; its names follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    lineage: Option<Lineage>,
    attempt: u64,
    shard: usize,
    /// Among those of this shard and attempt.
    number: u64,
    extension: String,
}

impl Part {
    fn staging(&self) -> String {
        let Part {
            attempt,
            shard,
            number,
            ..
        } = self;
        let of = self.lineage.map(|l| format!("{l}-")).unwrap_or_default();
        format!(".part-{of}{attempt}-{shard:04}-{number}.staging")
    }

    fn name(&self, epoch: Epoch) -> String {
        format!("part-{:020}-{:04}.{}", epoch.0, self.shard, self.extension)
    }

    fn encode(&self) -> Vec<u8> {
        let Part {
            attempt,
            shard,
            number,
            extension,
            ..
        } = self;
        let of = self.lineage.map(|l| format!("{l} ")).unwrap_or_default();
        format!("{of}{attempt} {shard} {number} {extension}").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (lineage, rest) = parted_lineage(text, ' ');
        let mut words = rest.splitn(4, ' ');
        Some(Part {
            lineage,
            attempt: words.next()?.parse().ok()?,
            shard: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            extension: words.next()?.into(),
        })
    }
}

/// The lineage that `text` begins with, if it does, and what follows. A start's number is never as long as a lineage.
fn parted_lineage(text: &str, separator: char) -> (Option<Lineage>, &str) {
    let parted = text.split_once(separator);
    match parted.and_then(|(word, rest)| Some((folder::lineage(word)?, rest))) {
        Some((lineage, rest)) => (Some(lineage), rest),
        None => (None, text),
    }
}

/// Of a staging file's name: the lineage that it carries, if it does. `None`: it is no staging file's.
fn staged_of(name: &str) -> Option<Option<Lineage>> {
    let name = name.strip_prefix(".part-")?.strip_suffix(".staging")?;
    Some(parted_lineage(name, '-').0)
}

/// Law 3.
fn check_staging(folder: &Folder, start: &Start) -> Result<(), String> {
    for name in folder.names()? {
        if let Some(of) = staged_of(&name) {
            check_owner(&name, of, start)?;
        }
    }
    Ok(())
}

/// The epoch of a final name.
fn epoch_of(name: &str) -> Option<Epoch> {
    let (epoch, _) = name.strip_prefix("part-")?.split_once('-')?;
    epoch.parse().ok().map(Epoch)
}

/// A shard's files, on the helper thread.
struct Staged {
    folder: Folder,
    shard: usize,
    extension: String,
    number: u64,
    /// Made with the first line of an epoch.
    file: Option<File>,
}

impl Staged {
    fn part(&self) -> Part {
        Part {
            lineage: self.folder.lineage(),
            attempt: self.folder.attempt(),
            shard: self.shard,
            number: self.number,
            extension: self.extension.clone(),
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            return file.write_all(lines);
        }
        let path = self.folder.path.join(self.part().staging());
        let made = OpenOptions::new().write(true).create_new(true).open(path)?;
        self.file.insert(made).write_all(lines)
    }
}

impl Output<u8> for Staged {
    fn write(&mut self, lines: &mut Vec<u8>) -> Result<(), String> {
        self.append(lines).map_err(|e| target::failure(&e))
    }

    fn pre_commit(&mut self, _: Epoch) -> Result<Option<Vec<u8>>, String> {
        let Some(file) = self.file.take() else {
            return Ok(None);
        };
        let part = self.part();
        self.number += 1;
        file.sync_data()
            .and_then(|()| self.folder.sync())
            .map_err(|e| target::failure(&e))?;
        Ok(Some(part.encode()))
    }
}

/// The committer.
struct Renames {
    folder: Folder,
    _held: Held,
    /// By this process, last.
    renamed: Option<Part>,
}

impl Renames {
    /// Law 2: the folder is this process's alone, so nobody makes the final name between looking and renaming.
    fn rename(&mut self, epoch: Epoch, part: &Part) -> Result<(), CommitError> {
        let name = part.name(epoch);
        let (from, to) = (
            self.folder.path.join(part.staging()),
            self.folder.path.join(&name),
        );
        let never = |what: String| CommitError {
            what,
            is_retryable: false,
        };
        let failed = |e: io::Error| target::uncommitted(&self.folder.path, &e);
        // Nothing is there if the folder has gone, and that must not pass for having been taken away.
        self.folder.path.metadata().map_err(failed)?;
        let staged = from.try_exists().map_err(failed)?;
        let there = to.try_exists().map_err(failed)?;
        match (staged, there) {
            (true, true) => Err(never(format!(
                "{name} is there already and holds something else; move it away and start the job again"
            ))),
            (true, false) => {
                std::fs::rename(&from, &to).map_err(failed)?;
                self.renamed = Some(part.clone());
                Ok(())
            }
            (false, true) => Ok(()),
            // Law 4: of an earlier start, or renamed just now, it may have been taken away since.
            (false, false) if part.attempt < self.folder.attempt() => Ok(()),
            (false, false) if self.renamed.as_ref() == Some(part) => Ok(()),
            (false, false) => Err(never(format!(
                "{} has gone, with lines of epoch {epoch} that are in no other place; nobody but the job may change the folder's files",
                part.staging()
            ))),
        }
    }
}

impl Committer for Renames {
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        let Some(part) = Part::decode(prepared) else {
            return Err(CommitError {
                what:
                    "the checkpoint names no file of this sink; start the job with the sink it had"
                        .into(),
                is_retryable: false,
            });
        };
        self.rename(epoch, &part)?;
        let synced = self.folder.sync();
        synced.map_err(|e| target::uncommitted(&self.folder.path, &e))
    }

    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        let names = self.folder.names()?;
        if let Some(later) = names.iter().find(|n| epoch_of(n) > last) {
            return Err(format!(
                "it holds {later}, of a later epoch than the checkpoint that the job starts from: of another job, or of this one before it was set back; name an empty folder, or move the files away"
            ));
        }
        // Those of other jobs have been refused at the start.
        let staging = |n: &&String| staged_of(n).is_some();
        let remove = || -> io::Result<()> {
            for name in names.iter().filter(staging) {
                match std::fs::remove_file(self.folder.path.join(name)) {
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    other => other?,
                }
            }
            self.folder.sync()
        };
        remove().map_err(|e| target::failure(&e))
    }
}
