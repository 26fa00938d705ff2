//! Signals that stop a job.
//!
//! The first SIGTERM or SIGINT stops it: sources stop where they are, and a last checkpoint keeps what is open. The second one
//! ends the process at once, as it would have without us: the job goes on from the checkpoint before. None of them drains a job:
//! windows that have fired early cannot be taken back, and an impatient second Ctrl-C must not do that.

use crate::{Failure, tell};
use pelton::{Stop, Stopper};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a signal has asked for the end.
#[derive(Clone, Debug, Default)]
pub struct Stopped(Arc<AtomicBool>);

impl Stopped {
    /// Whether the job was asked to stop.
    pub fn was_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Signals stop the job from now on.
    #[cfg(unix)]
    pub fn by_signals(&self, job: Stopper) -> Result<(), Failure> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::iterator::Signals;
        let failed = |e: std::io::Error| Failure::Failed(format!("signals cannot be handled: {e}"));
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
        let asked = self.0.clone();
        let wait = move || {
            for signal in signals.forever() {
                if asked.swap(true, Ordering::Relaxed) {
                    // It does not come back from that.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                tell(format_args!(
                    "pelton: stopping after a last checkpoint; once more ends it at once\n"
                ));
                job.stop(Stop::Keep);
            }
        };
        let thread = std::thread::Builder::new().name("pelton-signals".into());
        thread.spawn(wait).map(drop).map_err(failed)
    }

    /// Signals end the process.
    #[cfg(not(unix))]
    pub fn by_signals(&self, _: Stopper) -> Result<(), Failure> {
        Ok(())
    }
}
