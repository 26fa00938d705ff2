//! An ingest log on a disk that really fails: what `scripts/enospc` and `scripts/eio` run under a full file system and failing syncs.
//!
//! `survive acknowledge FOLDER RECORDS`: opens the log, checks all that is there, appends so many records in groups of a few and says after
//! each group up to where they are durable. Ends with 0, or with 3 after the first failure, when it has seen that the log takes nothing
//! more.
//!
//! `survive fill FOLDER BALLAST`: appends until there is no space, reads everything back through mappings while the disk is full, removes
//! the file BALLAST, goes on in the same process, and opens the log once more.

use pelton_storage::*;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

/// Records of a group of `acknowledge`.
const GROUP: u64 = 10;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 256 << 10,
        reserve_bytes: 64 << 10,
        batch_bytes: 32 << 10,
        ..LogConfig::new(1, 1, Visibility::Durable, Lineage(*b"survive example "))
    }
}

/// The record with this offset: its bytes say which it is.
fn value(offset: u64) -> Vec<u8> {
    let mut value = offset.to_le_bytes().to_vec();
    value.resize(100 + offset as usize % 900, offset as u8);
    value
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["acknowledge", folder, records] => acknowledge(Path::new(folder), records),
        ["fill", folder, ballast] => fill(Path::new(folder), Path::new(ballast)),
        _ => Err("survive acknowledge FOLDER RECORDS | survive fill FOLDER BALLAST".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("failed: {e}");
            ExitCode::from(if e.is::<StorageError>() { 3 } else { 1 })
        }
    }
}

/// One round of the duty loop.
fn drive(disk: &mut StdDisk, log: &mut Log) -> Result<(), StorageError> {
    let mut completions = Vec::new();
    log.step(disk, i64::MAX);
    let waited = disk.wait();
    waited.expect("the helper lives");
    disk.poll(&mut completions);
    completions.into_iter().try_for_each(|c| log.complete(c))
}

/// Reads all records and holds each to what it should be.
fn check<S: SegmentBytes>(log: &Log, source: S) -> Result<(), Box<dyn Error>> {
    let at = Position {
        partition: 0,
        offset: 0,
    };
    let mut reader = log.reader(source, at)?;
    let mut next = 0;
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records() {
            let record = record.map_err(|w| w.what.to_string())?;
            if record.offset != next || record.record.value != value(next) {
                return Err(format!("record {next} is another one").into());
            }
            next += 1;
        }
    }
    match next == log.durable_end(0) {
        true => Ok(()),
        false => Err(format!("{next} records of {}", log.durable_end(0)).into()),
    }
}

fn acknowledge(folder: &Path, records: &str) -> Result<(), Box<dyn Error>> {
    let records: u64 = records.parse()?;
    let _lock = FolderLock::acquire(folder)?;
    let mut disk = StdDisk::blocking(folder)?;
    let mut log = Log::open(&mut disk, config(), &[])?;
    check(&log, PlainBytes::new(&mut disk))?;
    println!("durable {}", log.durable_end(0));
    let end = log.durable_end(0) + records;
    while log.durable_end(0) < end {
        let until = end.min(log.next_offset(0) + GROUP);
        if let Err(failed) = group(&mut disk, &mut log, until) {
            let record = Record {
                key: None,
                value: b"one more",
            };
            let refused = log.append(0, record, 0);
            let Err(Refused::Failed(poisoned @ StorageError::Poisoned { .. })) = refused else {
                return Err(format!("the log goes on after {failed}: {refused:?}").into());
            };
            println!("refused: {poisoned}");
            return Err(failed.into());
        }
        println!("durable {}", log.durable_end(0));
    }
    Ok(())
}

fn group(disk: &mut StdDisk, log: &mut Log, until: u64) -> Result<(), StorageError> {
    while log.durable_end(0) < until {
        let next = log.next_offset(0);
        let (key, value) = (None, &value(next)[..]);
        if next < until {
            match log.append(0, Record { key, value }, 0) {
                Ok(_) => continue,
                Err(Refused::Busy) => {}
                Err(Refused::Failed(e)) => return Err(e),
            }
        }
        if let Some(full) = log.no_space() {
            return Err(full);
        }
        drive(disk, log)?;
    }
    Ok(())
}

fn fill(folder: &Path, ballast: &Path) -> Result<(), Box<dyn Error>> {
    let _lock = FolderLock::acquire(folder)?;
    let mut disk = StdDisk::blocking(folder)?;
    let mut log = Log::open(&mut disk, config(), &[])?;
    let full = loop {
        let until = log.next_offset(0) + 100;
        if let Err(e) = group(&mut disk, &mut log, until) {
            break e;
        }
    };
    println!("full: {full}");
    if full.code() != "PLT-0507" || !full.is_retryable() {
        return Err(format!("not the error of a full disk: {full}").into());
    }
    log.poison().check()?;
    let before = log.durable_end(0);
    check(&log, MappedBytes::new(folder))?;
    println!("durable {before}, read through mappings while the disk is full");
    std::fs::remove_file(ballast)?;
    log.retry_space();
    if log.no_space().is_some() {
        return Err("it does not ask again".into());
    }
    let end = log.next_offset(0) + 500;
    group(&mut disk, &mut log, end)?;
    check(&log, MappedBytes::new(folder))?;
    println!("durable {end} after there was space again");
    drop((log, disk));
    let mut disk = StdDisk::blocking(folder)?;
    let log = Log::open(&mut disk, config(), &[])?;
    check(&log, PlainBytes::new(&mut disk))?;
    match log.durable_end(0) == end {
        true => Ok(()),
        false => Err(format!("{} records are left of {end}", log.durable_end(0)).into()),
    }
}
