//! Where lines go: standard output or a file, used on the helper thread.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

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
    File { file: File, regular: bool },
}

impl Target {
    pub fn stdout() -> Self {
        Target {
            way: Way::Stdout(io::stdout()),
            failed: None,
        }
    }

    pub fn file(path: &Path, overwrite: bool) -> Result<Self, String> {
        let say = |e: io::Error| match e.kind() {
            ErrorKind::NotFound => "its folder does not exist; make it first".into(),
            ErrorKind::PermissionDenied => {
                "it may not be written; check its permissions and its folder's".into()
            }
            ErrorKind::IsADirectory => "it is a folder; name a file".into(),
            _ => failure(&e),
        };
        let mut options = OpenOptions::new();
        options.create(true);
        if overwrite {
            options.write(true).truncate(true);
        } else {
            options.append(true);
        }
        let mut file = options.open(path).map_err(say)?;
        let meta = file.metadata().map_err(say)?;
        let regular = meta.is_file();
        if regular && !ends_with_line(path, meta.len()) {
            file.write_all(b"\n").map_err(say)?;
        }
        Ok(Target {
            way: Way::File { file, regular },
            failed: None,
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

fn failure(e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::BrokenPipe => "whoever read this output has gone (broken pipe)".into(),
        ErrorKind::StorageFull => "the device is full; make room and run again".into(),
        ErrorKind::QuotaExceeded => "the quota is used up; make room and run again".into(),
        _ => format!("writing failed: {e}"),
    }
}
