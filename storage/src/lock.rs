//! One process a folder.

use crate::disk::DiskError;
use crate::error::StorageError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The name of the lock file. Its content is the holder's process number, for messages; the lock itself is the kernel's and
/// goes with the process, however that dies.
pub const LOCK_FILE: &str = "lock";

/// Holds a folder until it is dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if anyone has it, this process included.
    pub fn acquire(folder: &Path) -> Result<Self, StorageError> {
        let path = folder.join(LOCK_FILE);
        let name = path.display().to_string();
        let io = |action| {
            let name = name.clone();
            move |e: std::io::Error| StorageError::io(action, name, DiskError::from(e))
        };
        std::fs::create_dir_all(folder).map_err(io("create the folder of"))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StorageError::Locked {
                    folder: folder.display().to_string(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(e)) => return Err(io("lock")(e)),
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(io("write"))?;
        Ok(FolderLock { _file: file })
    }
}

/// Who wrote itself into a lock file. The holder may not have come to it yet, and a lock file may hold anything.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_string(),
    }
}
