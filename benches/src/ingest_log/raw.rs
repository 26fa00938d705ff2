//! What the limits do with files, without anything of ours between: direct reads and writes, and forgetting what the page cache holds.

use std::fs::File;
use std::io;
use std::path::Path;

/// How much the limits read at a time, in bytes.
pub const PIECE: usize = 1 << 20;

#[cfg(target_os = "linux")]
mod platform {
    use rustix::fs::{Advice, FallocateFlags, OFlags};
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;

    pub fn open_direct(path: &Path, write: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(write);
        options.custom_flags(OFlags::DIRECT.bits() as i32);
        options.open(path)
    }

    pub fn allocate(file: &File, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(
            file,
            FallocateFlags::empty(),
            0,
            len,
        )?)
    }

    pub fn forget(file: &File) -> io::Result<()> {
        Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
    }

    pub fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        file.read_at(bytes, at)
    }

    pub fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::fs::File;
    use std::io::{self, ErrorKind};
    use std::path::Path;

    pub fn open_direct(_path: &Path, _write: bool) -> io::Result<File> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn allocate(_file: &File, _len: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn forget(_file: &File) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn read_at(_file: &File, _bytes: &mut [u8], _at: u64) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn write_at(_file: &File, _bytes: &[u8], _at: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

pub use platform::{allocate, forget, open_direct, write_at};

/// Reads the first `len` bytes of a file, a [`PIECE`] at a time into the same buffer.
///
/// # Errors
/// The file cannot be read, or is shorter.
pub fn read_through(file: &File, len: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        match platform::read_at(file, buffer, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => at += n as u64,
        }
    }
    Ok(())
}

/// Makes the page cache forget a file, all of which is durable.
///
/// # Errors
/// The file cannot be opened.
pub fn forget_file(path: &Path) -> io::Result<()> {
    forget(&File::open(path)?)
}
