//! Signals that stop a job.
//!
//! The first SIGTERM or SIGINT stops it: sources stop where they are, and a last checkpoint keeps what is open. The second one
//! ends the process at once, as it would have without us: the job goes on from the checkpoint before. None of them drains a job:
//! windows that have fired early cannot be taken back, and an impatient second Ctrl-C must not do that.
//!
//! Where a savepoint is wanted, the last checkpoint is one as well.

use crate::{Failure, tell};
use pelton::{Epoch, JobError, Stop, Stopper};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

type Taken = Result<Epoch, JobError>;

/// Whether a signal has asked for the end.
#[derive(Clone, Debug, Default)]
pub struct Stopped {
    asked: Arc<AtomicBool>,
    /// Takes the savepoint, if one is wanted.
    savepoint: Arc<Mutex<Option<JoinHandle<Taken>>>>,
}

impl Stopped {
    /// Whether the job was asked to stop.
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The savepoint that was asked for with the end, if one was. Waits for it.
    pub fn savepoint(&self) -> Option<Taken> {
        let thread = self.thread().take();
        // It does not panic; if it did, that has been told.
        thread.and_then(|thread| thread.join().ok())
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<Taken>>> {
        self.savepoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals stop the job from now on, with a savepoint in this folder.
    #[cfg(unix)]
    pub fn by_signals(&self, job: Stopper, savepoint: Option<PathBuf>) -> Result<(), Failure> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::iterator::Signals;
        let failed = |e: std::io::Error| Failure::Failed(format!("signals cannot be handled: {e}"));
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
        let stopped = self.clone();
        let wait = move || {
            for signal in signals.forever() {
                if stopped.was_asked() {
                    // It does not come back from that.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                // Who sees that it was asked for the end waits here for the savepoint's thread: it must not find none yet.
                let taking = stopped.thread();
                stopped.asked.store(true, Ordering::Relaxed);
                tell(format_args!(
                    "pelton: stopping after a last checkpoint; once more ends it at once\n"
                ));
                match &savepoint {
                    Some(folder) => with_savepoint(&job, folder.clone(), taking),
                    None => job.stop(Stop::Keep),
                }
            }
        };
        let thread = std::thread::Builder::new().name("pelton-signals".into());
        thread.spawn(wait).map(drop).map_err(failed)
    }

    /// Signals end the process.
    #[cfg(not(unix))]
    pub fn by_signals(&self, _: Stopper, _: Option<PathBuf>) -> Result<(), Failure> {
        Ok(())
    }
}

/// On a thread of its own: the next signal must find somebody.
#[cfg(unix)]
fn with_savepoint(
    job: &Stopper,
    folder: PathBuf,
    mut taking: MutexGuard<'_, Option<JoinHandle<Taken>>>,
) {
    let (stopper, thread) = (job.clone(), std::thread::Builder::new());
    let take = move || {
        let taken = stopper.stop_with_savepoint(folder);
        if taken.is_err() {
            // It was told to end, whatever becomes of the savepoint.
            stopper.stop(Stop::Keep);
        }
        taken
    };
    match thread.name("pelton-savepoint".into()).spawn(take) {
        Ok(thread) => *taking = Some(thread),
        Err(e) => {
            tell(format_args!(
                "pelton: no savepoint, no thread could be started: {e}\n"
            ));
            job.stop(Stop::Keep);
        }
    }
}
