//! The manifest file: a ring of slots, each with two copies of one record.
//!
//! Laws
//! 1. A record is durable when both copies are written and the file is synced once after that. Until then the slots of the
//!    three records before it are not touched.
//! 2. A torn write leaves copies that are not whole, next to older records that are; a rotted copy stands next to a whole one.
//! 3. A record that does not fit its slot goes to a new file with longer slots, which takes its name only when it is durable;
//!    only then is the old file removed.
//!
//! ```text
//! Idle -> Writing (both copies) -> Syncing -> durable, Idle
//! Idle -> Creating -> Allocating -> Heading -> Filling (both copies) -> SyncingNew -> Renaming -> Naming -> durable
//!      -> Closing (old file) -> Removing (old files) -> Idle
//!                                      | not direct after all
//!                                      `-> Leaving -> Reopening -> Heading
//! ```
//! The header is the first write to a file, and some file systems refuse that after an open with O_DIRECT: the file is opened again
//! without, as are all that come after it.

use crate::buffer::Buffer;
use crate::disk::{Completion, Disk, DiskError, Done, FileId, Full, Mode, Op, Ticket};
use crate::error::StorageError;
use crate::format::manifest::{FileHeader, MANIFEST, Manifest, SLOT_MAX, SLOT_MIN};
use std::collections::VecDeque;
use std::io::ErrorKind;

const PREFIX: &str = "manifest-";
/// The end of the name of a file that is not finished.
pub(crate) const UNFINISHED: &str = ".new";

/// The name of the manifest file with this number.
pub(crate) fn file_name(number: u32) -> String {
    format!("{PREFIX}{number:08x}")
}

/// The number of a manifest file, if the name is one exactly as [`file_name`] writes it.
pub(crate) fn parse(name: &str) -> Option<u32> {
    let number = u32::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Writing { left: u32 },
    Syncing,
    Creating,
    Allocating,
    Heading,
    Leaving,
    Reopening,
    Filling { left: u32 },
    SyncingNew,
    Renaming,
    Naming,
    Closing,
    Removing,
}

/// See the laws on top of this file.
#[derive(Debug)]
pub(crate) struct ManifestLog {
    owner: u32,
    /// Whether files are opened direct; not any more once a direct write was refused.
    direct: bool,
    state: State,
    /// The file that is written to, once there is one.
    file: Option<(FileId, FileHeader)>,
    /// The file that will be.
    new: Option<(FileId, FileHeader)>,
    number: u32,
    /// Files that the next new one replaces.
    old: Vec<String>,
    next_sequence: u64,
    /// The record that is being written, one copy.
    record: Buffer,
    outbox: VecDeque<(Op, Ticket)>,
    next_serial: u64,
    under_way: u32,
}

impl ManifestLog {
    /// A log without a file: the first record makes one. `number` and `next_sequence` are greater than all in the folder, `old`
    /// are the files that the first one replaces.
    pub fn new(
        owner: u32,
        direct: bool,
        number: u32,
        next_sequence: u64,
        old: Vec<String>,
    ) -> Self {
        ManifestLog {
            owner,
            direct,
            state: State::Idle,
            file: None,
            new: None,
            number,
            old,
            next_sequence,
            record: Buffer::with_capacity(SLOT_MIN),
            outbox: VecDeque::new(),
            next_serial: 0,
            under_way: 0,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.state == State::Idle && self.outbox.is_empty() && self.under_way == 0
    }

    fn send(&mut self, op: Op) {
        let ticket = Ticket {
            owner: self.owner,
            serial: self.next_serial,
        };
        // Below the serial of removals; an operation of 4 billion before is no longer under way.
        self.next_serial = (self.next_serial + 1) % (1 << 32);
        self.under_way += 1;
        self.outbox.push_back((op, ticket));
    }

    /// Takes a record. If an earlier one is still clearing up after a new file, this one waits for that.
    pub fn begin(&mut self, manifest: &Manifest) {
        self.record.clear();
        manifest.encode(MANIFEST, self.next_sequence, &mut self.record);
        self.next_sequence += 1;
        if self.state == State::Idle {
            self.start();
        }
    }

    fn start(&mut self) {
        match self.file {
            Some((file, header)) if self.record.len() as u64 <= header.slot => {
                self.state = State::Writing { left: 2 };
                self.write_copies(file, header);
            }
            _ => {
                self.state = State::Creating;
                self.send(Op::Open {
                    name: self.new_name(),
                    mode: Mode::Create,
                    direct: self.direct,
                });
            }
        }
    }

    fn new_name(&self) -> String {
        file_name(self.number) + UNFINISHED
    }

    fn write_copies(&mut self, file: FileId, header: FileHeader) {
        let sequence = self.next_sequence - 1;
        for copy in 0..2 {
            let buffer = self.record.clone();
            let offset = header.offset(sequence, copy);
            self.send(Op::Write {
                file,
                offset,
                buffer,
            });
        }
        self.record.clear();
    }

    pub fn step(&mut self, disk: &mut dyn Disk) {
        while let Some((op, ticket)) = self.outbox.pop_front() {
            if let Err(Full(op)) = disk.submit(op, ticket) {
                self.outbox.push_front((op, ticket));
                return;
            }
        }
    }

    /// Whether the record has become durable by this completion.
    pub fn complete(&mut self, completion: Completion) -> Result<bool, StorageError> {
        self.under_way -= 1;
        let done = match completion.result {
            Ok(done) => Ok(done),
            Err(f) if self.state == State::Heading && self.direct && f.error.is_not_direct() => {
                self.leave();
                return Ok(false);
            }
            Err(f) => self.forgive(f.error).map(|()| Done::Nothing),
        };
        match done {
            Ok(done) => Ok(self.advance(done)),
            Err(e) => {
                self.outbox.clear();
                let name = match self.new {
                    Some(_) => self.new_name(),
                    None => file_name(self.number),
                };
                Err(StorageError::io(self.action(), name, e))
            }
        }
    }

    /// What does no harm: a file system that cannot allocate, an old file that stays until the next opening.
    fn forgive(&self, error: DiskError) -> Result<(), DiskError> {
        match self.state {
            State::Allocating if error.kind == ErrorKind::Unsupported => Ok(()),
            State::Closing | State::Leaving | State::Removing => Ok(()),
            _ => Err(error),
        }
    }

    fn action(&self) -> &'static str {
        match self.state {
            State::Idle | State::Writing { .. } | State::Heading | State::Filling { .. } => "write",
            State::Syncing | State::SyncingNew => "sync",
            State::Creating => "create",
            State::Allocating => "allocate",
            State::Renaming => "rename",
            State::Naming => "sync the folder of",
            State::Closing | State::Leaving => "close",
            State::Reopening => "open",
            State::Removing => "remove",
        }
    }

    fn advance(&mut self, done: Done) -> bool {
        match self.state {
            State::Idle => unreachable!("nothing was under way"),
            State::Writing { left: 1 } => {
                let (file, _) = self.file.expect("it was written to");
                self.state = State::Syncing;
                self.send(Op::SyncData { file });
            }
            State::Writing { left } => self.state = State::Writing { left: left - 1 },
            State::Syncing => {
                self.state = State::Idle;
                return true;
            }
            State::Filling { left: 1 } => {
                let (file, _) = self.new.expect("it was written to");
                self.state = State::SyncingNew;
                self.send(Op::SyncData { file });
            }
            State::Filling { left } => self.state = State::Filling { left: left - 1 },
            State::Naming => {
                self.change_over();
                return true;
            }
            _ => self.advance_new(done),
        }
        false
    }

    /// The steps of a new file that are neither first nor last.
    fn advance_new(&mut self, done: Done) {
        match (self.state, done) {
            (State::Creating, Done::Opened { file, .. }) => {
                // Twice what is needed now, so that the next new file is far off.
                let slot = (2 * self.record.len()).clamp(SLOT_MIN, SLOT_MAX) as u64;
                let header = FileHeader { slot };
                self.new = Some((file, header));
                self.state = State::Allocating;
                let len = header.file_len();
                self.send(Op::Allocate { file, len });
            }
            (State::Allocating, _) => self.write_header(),
            (State::Leaving, _) => {
                self.state = State::Reopening;
                self.send(Op::Open {
                    name: self.new_name(),
                    mode: Mode::Write,
                    direct: false,
                });
            }
            (State::Reopening, Done::Opened { file, .. }) => {
                let (_, header) = self.new.expect("it is opened again");
                self.new = Some((file, header));
                self.write_header();
            }
            (State::Heading, _) => {
                let (file, header) = self.new.expect("it was written to");
                self.state = State::Filling { left: 2 };
                self.write_copies(file, header);
            }
            (State::SyncingNew, _) => {
                self.state = State::Renaming;
                self.send(Op::Rename {
                    from: self.new_name(),
                    to: file_name(self.number),
                });
            }
            (State::Renaming, _) => {
                self.state = State::Naming;
                self.send(Op::SyncFolder);
            }
            (State::Closing, _) => self.remove_next(),
            (State::Removing, _) => {
                self.old.pop();
                self.remove_next();
            }
            (state, done) => unreachable!("{done:?} in {state:?}"),
        }
    }

    fn write_header(&mut self) {
        let (file, header) = self.new.expect("it is open");
        self.state = State::Heading;
        let mut buffer = Buffer::with_capacity(0);
        header.encode(&mut buffer);
        self.send(Op::Write {
            file,
            offset: 0,
            buffer,
        });
    }

    /// The file system opens direct and does not write direct.
    fn leave(&mut self) {
        let (file, _) = self.new.expect("it was written to");
        self.direct = false;
        self.state = State::Leaving;
        self.send(Op::Close { file });
    }

    fn change_over(&mut self) {
        let before = std::mem::replace(&mut self.file, self.new.take());
        // The file in use stands first, those that it replaced after it.
        self.old.insert(0, file_name(self.number));
        self.number += 1;
        match before {
            Some((file, _)) => {
                self.state = State::Closing;
                self.send(Op::Close { file });
            }
            None => self.remove_next(),
        }
    }

    /// Removes the files that were replaced; the first of `old` is the one in use.
    fn remove_next(&mut self) {
        match self.old.len() {
            0 | 1 => {
                self.state = State::Idle;
                if !self.record.is_empty() {
                    self.start();
                }
            }
            n => {
                self.state = State::Removing;
                let name = self.old[n - 1].clone();
                self.send(Op::Remove { name });
            }
        }
    }
}
