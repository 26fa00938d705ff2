//! A faulty disk that several owners hold, each with its own completions: one folder under all the shards of a simulation.
//!
//! Laws
//! 1. What one owner does, all see: names, contents, open files. Completions come only to who submitted.
//! 2. Nothing is done by submitting or polling. [`SharedDisk::step`] does one operation of those that wait, whichever the
//!    disk's shuffle picks, and so does waiting.
//! 3. Power is lost for all at once. Handles that are still held are dead from then on: nothing of theirs completes.

use super::{BlockingDisk, Completion, Disk, DiskError, FaultyDisk, Full, MemoryDisk, Op, Ticket};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Shared {
    disk: FaultyDisk,
    next_serial: u64,
    next_owner: u32,
    /// Who waits for which operation, and by what name.
    waiting: BTreeMap<u64, (u32, Ticket)>,
    /// What each owner has not polled yet.
    done: BTreeMap<u32, VecDeque<Completion>>,
    /// Power was lost.
    dead: bool,
}

/// See the laws on top of this file's module.
#[derive(Debug)]
pub struct SharedDisk {
    owner: u32,
    shared: Arc<Mutex<Shared>>,
}

impl SharedDisk {
    /// The first handle onto `disk`.
    pub fn new(disk: FaultyDisk) -> Self {
        SharedDisk {
            owner: 0,
            shared: Arc::new(Mutex::new(Shared {
                disk,
                next_serial: 0,
                next_owner: 1,
                waiting: BTreeMap::new(),
                done: BTreeMap::new(),
                dead: false,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another handle onto the same folder, with completions of its own.
    #[must_use]
    pub fn handle(&self) -> SharedDisk {
        let mut shared = self.lock();
        let owner = shared.next_owner;
        shared.next_owner += 1;
        SharedDisk {
            owner,
            shared: self.shared.clone(),
        }
    }

    /// Does one operation that waits; whether there was one and the disk lives.
    pub fn step(&self) -> bool {
        self.lock().step()
    }

    /// Looks at the disk underneath: operations done, faults that struck, names and contents.
    pub fn look<T>(&self, look: impl FnOnce(&FaultyDisk) -> T) -> T {
        look(&self.lock().disk)
    }

    /// Power is lost: of the unsynced units those stay for which `keep` says so. What is left is a healthy disk.
    #[must_use]
    pub fn crash(&self, keep: impl FnMut(usize) -> bool) -> MemoryDisk {
        self.lock().end().crash(keep)
    }

    /// The process dies and the machine does not: what was written stays, synced or not.
    #[must_use]
    pub fn kill(&self) -> MemoryDisk {
        self.lock().end().kill()
    }
}

impl Shared {
    fn step(&mut self) -> bool {
        if self.dead {
            return false;
        }
        let mut completions = Vec::with_capacity(1);
        self.disk.poll(&mut completions);
        let Some(Completion { ticket, result }) = completions.pop() else {
            return false;
        };
        if let Some((owner, ticket)) = self.waiting.remove(&ticket.serial) {
            let done = self.done.entry(owner).or_default();
            done.push_back(Completion { ticket, result });
        }
        true
    }

    /// Law 3.
    fn end(&mut self) -> FaultyDisk {
        self.dead = true;
        self.waiting.clear();
        self.done.clear();
        std::mem::replace(&mut self.disk, FaultyDisk::new(MemoryDisk::new()))
    }
}

impl Disk for SharedDisk {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        let mut shared = self.lock();
        let serial = shared.next_serial;
        let inner = Ticket {
            owner: self.owner,
            serial,
        };
        shared.disk.submit(op, inner)?;
        shared.next_serial += 1;
        shared.waiting.insert(serial, (self.owner, ticket));
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        if let Some(done) = self.lock().done.get_mut(&self.owner) {
            completions.extend(done.drain(..));
        }
    }
}

impl BlockingDisk for SharedDisk {
    fn wait(&mut self) -> Result<(), DiskError> {
        let mut shared = self.lock();
        if shared.dead || (!shared.step() && shared.disk.halted()) {
            return Err(ErrorKind::NotConnected.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Done, Mode};

    fn ticket(serial: u64) -> Ticket {
        Ticket { owner: 7, serial }
    }

    fn create(name: &str) -> Op {
        Op::Open {
            name: name.into(),
            mode: Mode::Create,
            direct: true,
        }
    }

    fn polled(disk: &mut SharedDisk) -> Vec<Completion> {
        let mut completions = Vec::new();
        disk.poll(&mut completions);
        completions
    }

    #[test]
    fn each_has_its_own_completions_of_one_folder() {
        let mut one = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
        let mut two = one.handle();
        one.submit(create("a"), ticket(3)).unwrap();
        two.submit(create("b"), ticket(3)).unwrap();
        assert!(polled(&mut one).is_empty(), "polling does nothing");
        assert!(two.step() && two.step() && !two.step());
        assert_eq!(polled(&mut one)[0].ticket, ticket(3));
        assert_eq!(polled(&mut two).len(), 1);
        assert_eq!(
            two.call(Op::List),
            Ok(Done::Names(vec!["a".into(), "b".into()]))
        );
        assert!(polled(&mut one).is_empty());
    }

    #[test]
    fn power_is_lost_for_all() {
        let mut one = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
        let mut two = one.handle();
        two.call(create("a")).unwrap();
        one.call(Op::SyncFolder).unwrap();
        two.call(create("b")).unwrap();
        one.submit(Op::List, ticket(1)).unwrap();
        let left = one.crash(|_| false);
        assert_eq!(left.names(), ["a"]);
        assert!(!one.step() && polled(&mut one).is_empty());
        assert!(two.call(Op::List).is_err());
    }

    #[test]
    fn a_halted_disk_keeps_nobody_waiting() {
        let disk = FaultyDisk::new(MemoryDisk::new()).with_halt(1);
        let mut disk = SharedDisk::new(disk);
        disk.call(create("a")).unwrap();
        assert!(disk.call(Op::List).is_err());
        assert!(disk.look(FaultyDisk::halted));
    }
}
