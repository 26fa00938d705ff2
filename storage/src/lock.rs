//! One process a folder.

use crate::disk::DiskError;
use crate::error::StorageError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
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
        take(folder, &mut file)?;
        sign(&mut file).map_err(io("write"))?;
        Ok(FolderLock { _file: file })
    }

    /// Takes a folder in order to read it, and makes nothing there; `None` if it has no lock file: no job has ever had it.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if anyone has it, this process included.
    pub fn of_existing(folder: &Path) -> Result<Option<Self>, StorageError> {
        let path = folder.join(LOCK_FILE);
        let writable = OpenOptions::new().read(true).write(true).open(&path);
        let signs = writable.is_ok();
        // Who may only read keeps others out as well.
        let mut file = match writable.or_else(|_| File::open(&path)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                let name = path.display().to_string();
                return Err(StorageError::io("open", name, DiskError::from(e)));
            }
        };
        take(folder, &mut file)?;
        if signs {
            // The number is for messages only.
            let _ = sign(&mut file);
        }
        Ok(Some(FolderLock { _file: file }))
    }
}

fn take(folder: &Path, file: &mut File) -> Result<(), StorageError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked {
            folder: folder.display().to_string(),
            holder: holder(file),
        }),
        Err(TryLockError::Error(e)) => {
            let name = folder.join(LOCK_FILE).display().to_string();
            Err(StorageError::io("lock", name, DiskError::from(e)))
        }
    }
}

/// Writes who has the folder.
fn sign(file: &mut File) -> std::io::Result<()> {
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(pid.as_bytes())
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
