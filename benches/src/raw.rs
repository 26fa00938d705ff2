//! What the limits do with files, without anything of ours between: direct reads and writes, forgetting what the page cache
//! holds, and how fast a disk is.

use pelton_storage::{ALIGN, Buffer};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

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

/// How long each of some appends of a page with its sync takes in `folder`, sorted; and the syncs alone, sorted.
///
/// # Errors
/// The disk fails, or refuses direct files.
pub fn page_syncs(folder: &Path, count: u64) -> io::Result<(Vec<Duration>, Vec<Duration>)> {
    let path = folder.join("syncs");
    let file = open_direct(&path, true)?;
    allocate(&file, count * ALIGN as u64)?;
    file.sync_all()?;
    let page = Buffer::zeroed(ALIGN);
    let (mut both, mut syncs) = (Vec::new(), Vec::new());
    for n in 0..count {
        let began = Instant::now();
        write_at(&file, &page, n * ALIGN as u64)?;
        let written = Instant::now();
        file.sync_data()?;
        both.push(began.elapsed());
        syncs.push(written.elapsed());
    }
    std::fs::remove_file(path)?;
    both.sort_unstable();
    syncs.sort_unstable();
    Ok((both, syncs))
}

/// How long a file of `len` bytes takes that is allocated and then written directly, a [`PIECE`] at a time with one sync at its end.
///
/// # Errors
/// The disk fails, or refuses direct files.
#[allow(dead_code, reason = "a coming workload measures with it")]
pub fn sequential_write(folder: &Path, len: u64) -> io::Result<Duration> {
    let path = folder.join("sequential");
    let file = open_direct(&path, true)?;
    let len = len.next_multiple_of(PIECE as u64);
    allocate(&file, len)?;
    file.sync_all()?;
    let mut buffer = Buffer::zeroed(PIECE);
    buffer.fill(7);
    let began = Instant::now();
    for at in (0..len).step_by(PIECE) {
        write_at(&file, &buffer, at)?;
    }
    file.sync_data()?;
    let took = began.elapsed();
    std::fs::remove_file(path)?;
    Ok(took)
}

/// A percentile of sorted times, in microseconds.
pub fn percentile_us(sorted: &[Duration], percent: usize) -> f64 {
    let at = sorted.get(sorted.len() * percent / 100);
    at.map_or(0.0, |d| d.as_secs_f64() * 1e6)
}
