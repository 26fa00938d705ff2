//! How many 100-byte records a second the ingest log acknowledges, beside what this disk's own sync costs.
//!
//! `cargo run --release -p pelton-storage --example ingest_log -- FOLDER [SECONDS]`
//!
//! One thread appends as fast as it is let; a record counts when it is durable. The syncs are measured in the same folder, before.

use pelton_storage::*;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const RECORD_BYTES: usize = 100;
const SYNCS: u64 = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("which folder?")?);
    let seconds: u64 = arguments.next().map_or(Ok(5), |s| s.parse())?;
    let _lock = FolderLock::acquire(&folder)?;
    let mut disk = StdDisk::blocking(&folder)?;
    let mut syncs = syncs(&mut disk).map_err(|f| f.error)?;
    let (p50, p99) = percentiles(&mut syncs);
    println!("sync after 4 KiB      p50 {p50:?}, p99 {p99:?}");

    let lineage = Lineage([1; 16]);
    let config = LogConfig::new(1, 1, Visibility::Durable, lineage);
    let mut log = Log::open(&mut disk, config, &[])?;
    let (begin, first) = (Instant::now(), log.durable_end(0));
    let value = [7; RECORD_BYTES];
    let record = Record {
        key: None,
        value: &value,
    };
    let mut completions = Vec::new();
    // Offset and time of one record in some, until it is acknowledged.
    let mut asked = std::collections::VecDeque::new();
    let mut latencies = Vec::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        let now = Instant::now();
        let now_us = now.duration_since(begin).as_micros() as i64;
        let mut appended = None;
        for _ in 0..1000 {
            match log.append(0, record, now_us) {
                Ok(new) => appended = Some(new.position()),
                Err(Refused::Busy) => break,
                Err(Refused::Failed(e)) => return Err(e.into()),
            }
        }
        asked.extend(appended.map(|at| (at, now)));
        log.step(&mut disk, now_us);
        if appended.is_none() {
            disk.wait()?;
        }
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            log.complete(completion)?;
        }
        while let Some((at, when)) = asked.front()
            && log.is_durable(*at)
        {
            latencies.push(when.elapsed());
            asked.pop_front();
        }
        // Space for the next segments: what is measured is not kept.
        let retention = Retention {
            bytes_max: Some(256 << 20),
            age_us_max: None,
        };
        log.retain(retention, now_us);
    }
    let acknowledged = log.durable_end(0) - first;
    let took = begin.elapsed().as_secs_f64();
    let (p50, p99) = percentiles(&mut latencies);
    println!(
        "acknowledged appends  {:.0} records/s of {RECORD_BYTES} bytes",
        acknowledged as f64 / took
    );
    println!(
        "groups                {:.0}/s, {:.0} records each",
        log.groups() as f64 / took,
        acknowledged as f64 / log.groups().max(1) as f64
    );
    println!("append to durable     p50 {p50:?}, p99 {p99:?} at full load");
    Ok(())
}

/// How long a sync takes after 4 KiB were written.
fn syncs(disk: &mut StdDisk) -> Result<Vec<Duration>, Failure> {
    let open = Op::Open {
        name: "syncs".into(),
        mode: Mode::Create,
        direct: true,
    };
    let Done::Opened { file, .. } = disk.call(open)? else {
        unreachable!("an open opens");
    };
    let len = SYNCS * ALIGN as u64;
    disk.call(Op::Allocate { file, len })?;
    let mut took = Vec::new();
    for n in 0..SYNCS {
        let buffer = Buffer::zeroed(ALIGN);
        let offset = n * ALIGN as u64;
        disk.call(Op::Write {
            file,
            offset,
            buffer,
        })?;
        let begin = Instant::now();
        disk.call(Op::SyncData { file })?;
        took.push(begin.elapsed());
    }
    disk.call(Op::Close { file })?;
    let name = "syncs".into();
    disk.call(Op::Remove { name })?;
    Ok(took)
}

fn percentiles(took: &mut [Duration]) -> (Duration, Duration) {
    took.sort_unstable();
    let at = |percent| took.get(took.len() * percent / 100).copied();
    (at(50).unwrap_or_default(), at(99).unwrap_or_default())
}
