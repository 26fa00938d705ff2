//! Real files that are only read, by the calling thread.
//!
//! Laws
//! 1. An operation is done when `submit` returns: the caller waits for the device, and there is no other thread.
//! 2. Nothing is written, made, cut or removed: operations that would do so fail with `Unsupported`.
//! 3. The folder need not be there: it then holds no files.

use super::{
    BlockingDisk, Completion, Disk, DiskError, Done, Failure, FileId, Full, Mode, Op, Ticket, flat,
};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// See the laws on top of this file. For who looks at a folder that somebody else writes.
#[derive(Debug)]
pub struct ReadDisk {
    folder: PathBuf,
    files: BTreeMap<FileId, File>,
    next_file: u32,
    done: Vec<Completion>,
}

impl ReadDisk {
    /// Reads files of `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        ReadDisk {
            folder: folder.into(),
            files: BTreeMap::new(),
            next_file: 0,
            done: Vec::new(),
        }
    }

    fn open(&mut self, name: &str) -> io::Result<Done> {
        flat(name)?;
        let file = File::open(self.folder.join(name))?;
        let len = file.metadata()?.len();
        let id = FileId(self.next_file);
        self.next_file = self.next_file.wrapping_add(1);
        self.files.insert(id, file);
        Ok(Done::Opened {
            file: id,
            direct: false,
            len,
        })
    }

    fn names(&self) -> io::Result<Done> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Done::Names(names)),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            // A file that goes just now is none any more.
            if entry.file_type().is_ok_and(|t| t.is_file()) {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(Done::Names(names))
    }

    fn fill(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.files.get_mut(&file).ok_or(ErrorKind::NotFound)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn execute(&mut self, op: Op) -> Result<Done, Failure> {
        let failed = |e: io::Error| Failure {
            error: DiskError::from(e),
            buffer: None,
        };
        match op {
            Op::Open {
                name,
                mode: Mode::Read,
                ..
            } => self.open(&name).map_err(failed),
            Op::Close { file } => {
                self.files.remove(&file);
                Ok(Done::Nothing)
            }
            Op::List => self.names().map_err(failed),
            Op::Read {
                file,
                offset,
                mut buffer,
            } => match self.fill(file, offset, &mut buffer) {
                Ok(filled) => Ok(Done::Filled { buffer, filled }),
                Err(e) => Err(Failure {
                    error: e.into(),
                    buffer: Some(buffer),
                }),
            },
            mut other => Err(Failure {
                error: ErrorKind::Unsupported.into(),
                buffer: other.take_buffer(),
            }),
        }
    }
}

impl Disk for ReadDisk {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        let result = self.execute(op);
        self.done.push(Completion { ticket, result });
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.done);
    }
}

impl BlockingDisk for ReadDisk {
    fn wait(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
