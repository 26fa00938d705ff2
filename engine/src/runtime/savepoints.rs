//! Savepoints of a running job: who has asked for them, and the threads that copy them.
//!
//! Laws
//! 1. Each that was asked for is answered once: by its epoch, by why it is none, or by the end of its channel where the job ended
//!    first.
//! 2. A copy reads what the coordinator has pinned, and says when it is through with it, whatever came of it.

use super::checkpoints::Message;
use crate::checkpoint::{Epoch, fit_for_savepoint};
use pelton_storage::{
    Checkpoint, Filter, Lineage, MappedBytes, Pin, Savepoint, SnapshotReader, StdDisk,
};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

/// A savepoint that is wanted.
pub(crate) struct Ask {
    pub folder: PathBuf,
    pub answer: Sender<Result<Epoch, String>>,
}

/// See the module.
pub(crate) struct Savepoints {
    /// The job's checkpoints.
    folder: PathBuf,
    to: Sender<Message>,
    waiting: VecDeque<Ask>,
    copying: Vec<JoinHandle<()>>,
}

impl Savepoints {
    pub fn new(folder: &Path, to: Sender<Message>) -> Self {
        Savepoints {
            folder: folder.into(),
            to,
            waiting: VecDeque::new(),
            copying: vec![],
        }
    }

    /// One is wanted.
    pub fn ask(&mut self, ask: Ask) {
        self.waiting.push_back(ask);
    }

    /// Copies a checkpoint, which is pinned, for who has waited longest.
    pub fn copy(&mut self, pin: Pin, checkpoint: &Checkpoint, lineage: Lineage) {
        self.copying.retain(|thread| !thread.is_finished());
        let (Some(Ask { folder, answer }), to) = (self.waiting.pop_front(), self.to.clone()) else {
            return;
        };
        let (from, checkpoint) = (self.folder.clone(), fit_for_savepoint(checkpoint));
        let failed = answer.clone();
        let run = move || {
            let copied = write(&from, lineage, &checkpoint, &folder);
            // Law 2. The control thread may have ended: it waits for this one, and takes no more messages.
            let _ = to.send(Message::Copied(pin));
            // Who asked may have gone.
            let _ = answer.send(copied.map(|()| checkpoint.epoch));
        };
        let thread = thread::Builder::new().name("pelton-savepoint".into());
        match thread.spawn(run) {
            Ok(thread) => self.copying.push(thread),
            Err(e) => {
                let _ = self.to.send(Message::Copied(pin));
                let _ = failed.send(Err(format!("no thread could be started: {e}")));
            }
        }
    }

    /// Waits for those that are being copied.
    pub fn finish(&mut self) {
        for thread in self.copying.drain(..) {
            // One that panicked has told nobody anything: its channel has ended.
            let _ = thread.join();
        }
    }
}

fn write(
    from: &Path,
    lineage: Lineage,
    checkpoint: &Checkpoint,
    folder: &Path,
) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|e| format!("the folder cannot be made: {e}"))?;
    let mut disk = StdDisk::blocking(folder).map_err(|e| e.to_string())?;
    let bytes = MappedBytes::new(from);
    let reader = SnapshotReader::new(bytes, lineage, checkpoint, Filter::default());
    Savepoint::write(reader, lineage, checkpoint, &mut disk)
        .map(drop)
        .map_err(|e| e.to_string())
}
