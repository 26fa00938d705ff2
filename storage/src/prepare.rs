//! Where the next segment of a log comes from, for the logs of shards and for the ingest log.
//!
//! ```text
//! None -> Asking -> Opening -> Allocating -> Trying -> Naming -> Ready -> (taken) None
//!           |          |           | no space  |  | not direct after all
//!           |          |           |<----------'  `-> Leaving -> Reopening -> Naming
//!           |          |           `-> Closing -> Removing -> Starved
//!           `-> Starved -- retry --> None
//! ```
//! Some file systems open a file with O_DIRECT and refuse its first write. So the first file of a log is tried with a page of zeros, which
//! is what lies there already; where that is refused this log goes on without O_DIRECT, with the warning that an open would have brought.
//!
//! Every state but None, Ready and Starved has one operation under way: [`Preparer::begin`] and [`Preparer::completed`] hand out
//! the next one, and whoever owns the ticket submits it. A failure that is not "no space" is an error, and poisons its log.

use crate::buffer::{ALIGN, Buffer};
use crate::disk::{DiskError, Done, Failure, FileId, Mode, Op};
use crate::error::StorageError;
use crate::writer::Warning;
use std::io::ErrorKind;

#[derive(Debug)]
enum Spare {
    None,
    Asking,
    Opening,
    Allocating(FileId),
    Trying(FileId),
    Leaving,
    Reopening,
    Naming(FileId),
    Ready(FileId),
    Closing(StorageError),
    Removing(StorageError),
    Starved(StorageError),
}

/// The segment after the one that is being filled. See the states on top of this file.
#[derive(Debug)]
pub(crate) struct Preparer {
    segment_bytes: u64,
    reserve_bytes: u64,
    /// Whether files are opened direct; not any more once a direct write was refused.
    direct: bool,
    /// Whether a direct write has to show first that it is taken.
    untried: bool,
    spare: Spare,
    /// The file that is being prepared.
    name: String,
    warnings: Vec<Warning>,
    warned: [bool; 2],
}

impl Preparer {
    /// Makes files of `segment_bytes`, if `reserve_bytes` stay free after that.
    pub fn new(segment_bytes: u64, reserve_bytes: u64, direct: bool) -> Self {
        Preparer {
            segment_bytes,
            reserve_bytes,
            direct,
            untried: direct,
            spare: Spare::None,
            name: String::new(),
            warnings: Vec::new(),
            warned: [false; 2],
        }
    }

    /// Whether nothing is there and nothing is under way.
    pub fn is_empty(&self) -> bool {
        matches!(self.spare, Spare::None)
    }

    /// Begins with a file of this name, if [`is_empty`](Self::is_empty).
    pub fn begin(&mut self, name: String) -> Op {
        debug_assert!(self.is_empty(), "one at a time");
        self.name = name;
        self.spare = Spare::Asking;
        Op::FreeSpace
    }

    /// Takes the file that is ready; `None` while it is being made.
    ///
    /// # Errors
    /// There is no space.
    pub fn take(&mut self) -> Result<Option<FileId>, StorageError> {
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let Spare::Ready(file) = self.spare else {
            return Ok(None);
        };
        self.spare = Spare::None;
        Ok(Some(file))
    }

    /// Why there will be no file until [`retry`](Self::retry), if so.
    pub fn refusal(&self) -> Option<StorageError> {
        match &self.spare {
            Spare::Starved(error) | Spare::Closing(error) | Spare::Removing(error) => {
                Some(error.clone())
            }
            _ => None,
        }
    }

    /// Forgets that there was no space.
    pub fn retry(&mut self) {
        if matches!(self.spare, Spare::Starved(_)) {
            self.spare = Spare::None;
        }
    }

    /// Warnings since the last call; each kind comes once.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    fn no_space(&self, free: u64) -> StorageError {
        StorageError::NoSpace {
            needed: self.segment_bytes + self.reserve_bytes,
            reserve: self.reserve_bytes,
            free,
        }
    }

    fn warn(&mut self, kind: usize, warning: Warning) {
        if !std::mem::replace(&mut self.warned[kind], true) {
            self.warnings.push(warning);
        }
    }

    /// Takes the end of the operation that was under way and says the next one.
    ///
    /// # Errors
    /// The disk failed.
    pub fn completed(&mut self, result: Result<Done, Failure>) -> Result<Option<Op>, StorageError> {
        let result = result.map_err(|f| f.error);
        let spare = std::mem::replace(&mut self.spare, Spare::None);
        let (action, error) = match (spare, result) {
            (Spare::Asking, Ok(Done::Free(free))) => return Ok(self.asked(free)),
            (Spare::Asking, result) => ("ask the free space of the folder of", result.err()),
            (Spare::Opening, Ok(Done::Opened { file, direct, .. })) => {
                return Ok(Some(self.opened(file, direct)));
            }
            (Spare::Opening, Err(e)) if e.is_no_space() => {
                self.spare = Spare::Starved(self.no_space(0));
                return Ok(None);
            }
            (Spare::Opening, result) => ("create", result.err()),
            (Spare::Allocating(file), result) => match self.allocated(file, result) {
                Ok(op) => return Ok(Some(op)),
                Err(e) => ("allocate", Some(e)),
            },
            (Spare::Trying(file), result) => match self.tried(file, result) {
                Ok(op) => return Ok(Some(op)),
                Err(e) => ("write", Some(e)),
            },
            (Spare::Leaving, _) => {
                self.spare = Spare::Reopening;
                return Ok(Some(Op::Open {
                    name: self.name.clone(),
                    mode: Mode::Write,
                    direct: false,
                }));
            }
            (Spare::Reopening, Ok(Done::Opened { file, .. })) => {
                self.spare = Spare::Naming(file);
                return Ok(Some(Op::SyncFolder));
            }
            (Spare::Reopening, result) => ("open", result.err()),
            (Spare::Naming(file), Ok(_)) => {
                self.spare = Spare::Ready(file);
                return Ok(None);
            }
            (Spare::Naming(_), result) => ("sync the folder of", result.err()),
            (Spare::Closing(error), _) => {
                self.spare = Spare::Removing(error);
                let name = self.name.clone();
                return Ok(Some(Op::Remove { name }));
            }
            (Spare::Removing(error), Ok(_)) => {
                self.spare = Spare::Starved(error);
                return Ok(None);
            }
            (Spare::Removing(_), result) => ("remove", result.err()),
            (Spare::None | Spare::Ready(_) | Spare::Starved(_), _) => {
                unreachable!("nothing was under way")
            }
        };
        let error = error.unwrap_or(ErrorKind::InvalidData.into());
        Err(StorageError::io(action, self.name.clone(), error))
    }

    fn asked(&mut self, free: u64) -> Option<Op> {
        if free < self.segment_bytes + self.reserve_bytes {
            self.spare = Spare::Starved(self.no_space(free));
            return None;
        }
        self.spare = Spare::Opening;
        Some(Op::Open {
            name: self.name.clone(),
            mode: Mode::Create,
            direct: self.direct,
        })
    }

    fn warn_buffered(&mut self) {
        let file = self.name.clone();
        self.warn(0, Warning::Buffered { file });
    }

    fn opened(&mut self, file: FileId, direct: bool) -> Op {
        if self.direct && !direct {
            self.warn_buffered();
        }
        self.untried &= direct;
        self.spare = Spare::Allocating(file);
        let len = self.segment_bytes;
        Op::Allocate { file, len }
    }

    fn allocated(
        &mut self,
        file: FileId,
        result: Result<Done, DiskError>,
    ) -> Result<Op, DiskError> {
        match result {
            Ok(_) => {}
            Err(e) if e.kind == ErrorKind::Unsupported => {
                let file = self.name.clone();
                self.warn(1, Warning::Sparse { file });
            }
            Err(e) if e.is_no_space() => {
                self.spare = Spare::Closing(self.no_space(0));
                return Ok(Op::Close { file });
            }
            Err(e) => return Err(e),
        }
        if !self.untried {
            self.spare = Spare::Naming(file);
            return Ok(Op::SyncFolder);
        }
        self.spare = Spare::Trying(file);
        Ok(Op::Write {
            file,
            offset: 0,
            buffer: Buffer::zeroed(ALIGN),
        })
    }

    fn tried(&mut self, file: FileId, result: Result<Done, DiskError>) -> Result<Op, DiskError> {
        self.untried = false;
        match result {
            Ok(_) => {
                self.spare = Spare::Naming(file);
                Ok(Op::SyncFolder)
            }
            Err(e) if e.is_not_direct() => {
                self.direct = false;
                self.warn_buffered();
                self.spare = Spare::Leaving;
                Ok(Op::Close { file })
            }
            Err(e) if e.is_no_space() => {
                self.spare = Spare::Closing(self.no_space(0));
                Ok(Op::Close { file })
            }
            Err(e) => Err(e),
        }
    }
}
