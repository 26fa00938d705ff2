//! Where lines go: standard output or a file, used on the helper thread.

use pelton::sink::CommitError;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug)]
pub(super) struct Target {
    way: Way,
    /// The first failure: what comes after it is not written.
    failed: Option<String>,
}

#[derive(Debug)]
enum Way {
    Stdout(io::Stdout),
    File {
        file: File,
        regular: bool,
        path: PathBuf,
        /// What it holds goes when the job begins.
        overwrite: bool,
    },
}

/// A file that was not there before. It goes again when this is dropped, unless it is [kept](Made::keep) or somebody has
/// written to it.
#[derive(Debug)]
pub(super) struct Made(Option<PathBuf>);

impl Made {
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && path.metadata().is_ok_and(|meta| meta.len() == 0)
        {
            // It was made for nothing, and is empty: no harm if it stays.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Target {
    pub fn stdout() -> Self {
        Target {
            way: Way::Stdout(io::stdout()),
            failed: None,
        }
    }

    /// Opens a file and leaves it as it is until [`Target::start`]; makes it if it is not there.
    pub fn file(path: &Path, overwrite: bool) -> Result<(Self, Option<Made>), String> {
        let say = |e: io::Error| match e.kind() {
            ErrorKind::NotFound => "its folder does not exist; make it first".into(),
            ErrorKind::PermissionDenied => {
                "it may not be written; check its permissions and its folder's".into()
            }
            ErrorKind::IsADirectory => "it is a folder; name a file".into(),
            _ => failure(&e),
        };
        let (file, made) = open(path, overwrite).map_err(say)?;
        let regular = file.metadata().map_err(say)?.is_file();
        let target = Target {
            way: Way::File {
                file,
                regular,
                path: path.to_owned(),
                overwrite,
            },
            failed: None,
        };
        Ok((target, made))
    }

    /// The job starts: an overwritten file is emptied if the job `begins`. Where it stays, since it is another or holds what an earlier
    /// life of the job wrote, a line that was left open is ended.
    pub fn start(&mut self, begins: bool) -> Result<(), String> {
        self.attempt(|way| match way {
            Way::File {
                file,
                regular: true,
                path,
                overwrite,
            } => {
                if *overwrite && begins {
                    return file.set_len(0);
                }
                if *overwrite {
                    // Not opened for appending.
                    file.seek(SeekFrom::End(0))?;
                }
                if !ends_with_line(path, file.metadata()?.len()) {
                    file.write_all(b"\n")
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        })
    }

    /// Whether a write may wait for somebody who reads.
    pub fn may_wait(&self) -> bool {
        !matches!(self.way, Way::File { regular: true, .. })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.attempt(|way| match way {
            Way::Stdout(out) => {
                let mut out = out.lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Way::File { file, .. } => file.write_all(bytes),
        })
    }

    /// Everything is where it belongs: a file's bytes on its device.
    pub fn finish(&mut self) -> Result<(), String> {
        self.attempt(|way| match way {
            Way::Stdout(out) => out.flush(),
            Way::File {
                file,
                regular: true,
                ..
            } => file.sync_data(),
            Way::File { .. } => Ok(()),
        })
    }

    fn attempt(&mut self, f: impl FnOnce(&mut Way) -> io::Result<()>) -> Result<(), String> {
        if self.failed.is_none() {
            self.failed = f(&mut self.way).err().map(|e| failure(&e));
        }
        match &self.failed {
            Some(what) => Err(what.clone()),
            None => Ok(()),
        }
    }
}

/// Opens a file for writing, and says whether it was made for that.
fn open(path: &Path, overwrite: bool) -> io::Result<(File, Option<Made>)> {
    let mut options = OpenOptions::new();
    options.write(true).append(!overwrite);
    match options.open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        other => return Ok((other?, None)),
    }
    match options.clone().create_new(true).open(path) {
        // A link to where nothing is; or somebody else has made it by now.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            Ok((options.create(true).open(path)?, None))
        }
        other => Ok((other?, Some(Made(Some(path.to_owned()))))),
    }
}

/// Whether a file is empty or ends in a line end; so it seems as well if it cannot be read.
fn ends_with_line(path: &Path, len: u64) -> bool {
    let last = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    len == 0 || last().map_or(true, |b| b == b'\n')
}

pub(super) fn failure(e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::BrokenPipe => super::READER_GONE.into(),
        ErrorKind::StorageFull => "the device is full; make room and run again".into(),
        ErrorKind::QuotaExceeded => "the quota is used up; make room and run again".into(),
        _ => format!("writing failed: {e}"),
    }
}

/// What a commit in the folder at `path` says of an error. What may pass by itself is tried again; what somebody has to mend is
/// not: the job ends and says so, and its next start commits.
pub(super) fn uncommitted(path: &Path, e: &io::Error) -> CommitError {
    let mend = match e.kind() {
        ErrorKind::PermissionDenied => Some("may not be written to; give its permissions back"),
        ErrorKind::ReadOnlyFilesystem => Some("can only be read; have it mounted for writing"),
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Some("has gone, or something in it; nobody but the job may change it: put it back")
        }
        ErrorKind::IsADirectory
        | ErrorKind::CrossesDevices
        | ErrorKind::InvalidData
        | ErrorKind::InvalidFilename
        | ErrorKind::InvalidInput
        | ErrorKind::Unsupported => Some("is not as the job left it, or cannot do what it could"),
        _ => None,
    };
    let path = path.display();
    CommitError {
        what: match mend {
            Some(mend) => format!("{path} {mend} ({e})"),
            None => format!("{path}: {}", failure(e)),
        },
        is_retryable: mend.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full device may be cleared; permissions come back by nobody but a person.
    #[test]
    fn a_commit_is_tried_again_only_where_that_may_help() {
        use ErrorKind as Kind;
        let told = |kind: Kind| uncommitted(Path::new("/out"), &kind.into());
        for kind in [
            Kind::PermissionDenied,
            Kind::ReadOnlyFilesystem,
            Kind::NotFound,
            Kind::NotADirectory,
            Kind::InvalidData,
        ] {
            let error = told(kind);
            assert!(!error.is_retryable, "{kind:?}");
            assert!(error.what.starts_with("/out "), "{error}");
        }
        for kind in [
            Kind::StorageFull,
            Kind::QuotaExceeded,
            Kind::TimedOut,
            Kind::Other,
        ] {
            assert!(told(kind).is_retryable, "{kind:?}");
        }
    }
}
