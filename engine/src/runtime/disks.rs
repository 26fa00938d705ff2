//! What a shard writes its share of checkpoints with: a helper thread, or its own io_uring.

use super::config::Driver;
use crate::checkpoint::DiskKind;
use crate::error::BuildError;
use pelton_ring::Doorbell;
use pelton_storage::{Disk, StdDisk};
use std::any::Any;
use std::io;
use std::path::Path;
#[cfg(all(target_os = "linux", feature = "glommio"))]
use std::sync::Arc;

#[cfg(all(target_os = "linux", feature = "glommio"))]
use super::glommio::{Desk, RingDisk};

/// What a disk holds on to while anything of it is under way or open, dropped after that.
pub(crate) type Keep = Box<dyn Any + Send + Sync>;

/// What the names of files begin with that an executor finds out about a device by: its number and another follow.
pub(crate) const PROBE: &str = "probe-";

/// Removes such files from a folder that nobody writes to yet: a process that was killed has left them. Not on a shard. One that
/// cannot be removed does no harm: the next start tries again.
pub(crate) fn remove_probes(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_probe) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_probe(name: &str) -> bool {
    let numbers = name.strip_prefix(PROBE).and_then(|n| n.split_once('-'));
    let is_number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    numbers.is_some_and(|(executor, file)| is_number(executor) && is_number(file))
}

/// The disks that one shard can have.
#[derive(Debug, Default)]
pub(crate) struct Disks {
    /// Where its io_uring is reached, if it has one.
    #[cfg(all(target_os = "linux", feature = "glommio"))]
    desk: Option<Arc<Desk>>,
}

impl Disks {
    #[cfg(all(target_os = "linux", feature = "glommio"))]
    pub fn with_ring(desk: Arc<Desk>) -> Self {
        Disks { desk: Some(desk) }
    }

    /// Whether there is a disk of this kind on a shard that `driver` runs.
    pub fn check(kind: DiskKind, driver: Driver) -> Result<(), BuildError> {
        if kind != DiskKind::IoUring || driver == Driver::Glommio {
            return Ok(());
        }
        let advice = match cfg!(all(target_os = "linux", feature = "glommio")) {
            true => "run them with Driver::Glommio, or use DiskKind::Auto",
            false => {
                "build on Linux with the feature `glommio` and run them with Driver::Glommio, or use DiskKind::Auto"
            }
        };
        Err(BuildError::Config {
            what: format!(
                "checkpoints are to be written with io_uring, and {driver:?} runs the shards"
            ),
            advice: advice.into(),
        })
    }

    /// Serves a folder, which is made if it is not there, for the shard whose doorbell this is. The kind has been checked.
    ///
    /// # Errors
    /// The folder cannot be made, or no thread can be started.
    pub fn open(
        &self,
        kind: DiskKind,
        folder: &Path,
        bell: &Doorbell,
        keep: Keep,
    ) -> io::Result<Box<dyn Disk + Send>> {
        let bell = bell.clone();
        #[cfg(all(target_os = "linux", feature = "glommio"))]
        if let (DiskKind::IoUring, Some(desk)) = (kind, &self.desk) {
            let notify = Arc::new(move || bell.ring());
            return Ok(Box::new(RingDisk::new(folder, desk, notify, keep)?));
        }
        debug_assert_ne!(kind, DiskKind::IoUring, "checked before");
        // Dropped with the helper, which finishes first.
        let notify = Box::new(move || {
            let _ = &keep;
            bell.ring();
        });
        Ok(Box::new(StdDisk::new(folder, notify)?))
    }
}
