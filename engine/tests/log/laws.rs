//! The kits for sources and sinks.

use crate::support::Folder;
use pelton::log;
use pelton::testing::conformance;
use pelton_storage::{
    BlockingDisk, Disk, Lineage, Log, LogConfig, Record, Refused, StdDisk, Visibility,
};
use pelton_storage::{Follower, HistoryBytes, LogReader, ReadDisk};
use std::path::Path;

/// All visible values of a log, by partition.
pub fn visible(folder: &Path) -> Vec<Vec<Vec<u8>>> {
    let follower = Follower::open(&mut ReadDisk::new(folder)).unwrap();
    let Some(follower) = follower else {
        return vec![];
    };
    let partition = |p| {
        let view = follower.view(p);
        let from = view.start();
        let mut reader = LogReader::new(HistoryBytes::new(folder), view, from).unwrap();
        let mut values = vec![];
        while let Some(batch) = reader.next_batch().unwrap() {
            values.extend(batch.records().map(|r| r.unwrap().record.value.to_vec()));
        }
        values
    };
    (0..follower.partitions()).map(partition).collect()
}

pub fn number(value: &[u8]) -> u64 {
    use pelton::log::Codec;
    log::states::<u64>().decode(value).unwrap()
}

/// A log with durable records, appended as somebody outside does it.
pub fn append(folder: &Path, partitions: u32, values: impl Iterator<Item = (u32, Vec<u8>)>) {
    let mut disk = StdDisk::blocking(folder).unwrap();
    let config = LogConfig {
        segment_bytes: 40 << 10,
        batch_bytes: 8 << 10,
        reserve_bytes: 0,
        ..LogConfig::new(1, partitions, Visibility::Durable, Lineage([3; 16]))
    };
    let mut log = Log::open(&mut disk, config, &[]).unwrap();
    let mut completions = vec![];
    let mut pump = |log: &mut Log, disk: &mut StdDisk| {
        log.step(disk, i64::MAX);
        disk.wait().unwrap();
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            log.complete(completion).unwrap();
        }
    };
    for (partition, value) in values {
        let record = Record {
            key: None,
            value: &value,
        };
        while log.append(partition, record, 0) == Err(Refused::Busy) {
            pump(&mut log, &mut disk);
        }
    }
    for mark in [false, true] {
        // What is durable by then is known to others.
        if mark {
            log.mark();
        }
        while !log.is_idle() {
            pump(&mut log, &mut disk);
        }
    }
}

#[test]
fn a_log_keeps_the_laws_of_a_source() {
    let folder = Folder::new("log-source");
    // Several segments, whole records and some that are none.
    let values = (0..400u32).map(|n| {
        let length = 1 + (n * 37 % 900) as usize;
        (n % 3, vec![n as u8; length])
    });
    append(folder.path(), 3, values);
    let even = Even;
    for bounded in [false, true] {
        let source = || {
            let source = log::source(folder.path(), even);
            let source = if bounded { source.until_end() } else { source };
            source.from_offsets([0, 5, 17])
        };
        conformance::source(source).unwrap();
    }
    conformance::source(|| log::source(folder.path(), log::bytes())).unwrap();
    conformance::source(|| log::source(folder.path(), log::bytes()).from_latest()).unwrap();
}

/// Bytes of even length are records.
#[derive(Clone, Copy)]
struct Even;

impl log::Codec<Vec<u8>> for Even {
    fn encode(&mut self, record: &Vec<u8>, to: &mut Vec<u8>) -> Result<(), String> {
        to.extend_from_slice(record);
        Ok(())
    }
    fn decode(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match bytes.len() % 2 {
            0 => Ok(bytes.to_vec()),
            _ => Err("odd".into()),
        }
    }
}

#[test]
fn a_log_keeps_the_laws_of_a_sink_of_two_phases() {
    let above = Folder::new("log-sink");
    let to = |trial: u64| above.path().join(trial.to_string());
    conformance::sink(
        |trial| {
            log::sink(to(trial), log::states::<u64>())
                .partitions(2)
                .partition_by(|id| *id)
                .segment_bytes(2 << 20)
        },
        |trial| {
            let values = visible(&to(trial)).concat();
            values.iter().map(|v| number(v)).collect()
        },
    )
    .unwrap();
}
