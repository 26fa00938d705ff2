//! The unsynced tail is cut at every byte.

use crate::rig::{History, Rig, recover};
use pelton_storage::*;
use std::collections::BTreeMap;

const TAIL: usize = 64 << 10;

/// A store with three committed epochs.
fn committed() -> (FaultyDisk, History) {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(11);
    let mut rig = Rig::open(&mut disk, 1).expect("a new store");
    for _ in 0..3 {
        rig.epoch(&mut history, false).expect("nothing fails");
    }
    drop(rig);
    (disk, history)
}

/// The file that starts with `prefix` and was written last.
fn newest(disk: &MemoryDisk, prefix: &str) -> String {
    let names = disk.names();
    let found = names.iter().rfind(|n| n.starts_with(prefix));
    found.expect("there is one").clone()
}

#[test]
fn of_a_segment() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(11);
    let mut config = crate::rig::writer_config(0);
    config.segment_bytes = 256 << 10;
    let mut rig = Rig::open(&mut disk, 1).expect("a new store");
    rig.writers[0] = rig.store.writer(0, config);
    rig.epoch(&mut history, false).expect("nothing fails");
    let valid = rig.store.last().expect("committed").segments[0].len as usize;
    // Epoch 2 is written and synced, and its manifest never comes.
    let epoch = rig.store.begin_epoch().expect("numbers are left");
    for n in 0..TAIL / 1000 {
        let value = vec![n as u8; 1000];
        rig.push_entry(epoch, &(1, vec![n as u8]), Some(&value))
            .expect("nothing fails");
    }
    rig.seal(epoch).expect("nothing fails");
    drop(rig);
    let left = disk.crash(|_| true);
    let segment = newest(&left, "segment-0");
    let whole = left.content(&segment).expect("it is there");
    let end = &whole[valid + TAIL - 1000..valid + TAIL];
    assert!(end.iter().any(|&b| b != 0), "the tail is that long");
    // The store is small and opening it costs the same however long the tail is: every byte.
    for cut in 0..=TAIL {
        let mut left = left.clone();
        left.damage(&segment, |bytes| bytes.truncate(valid + cut));
        assert_eq!(
            recover(left, &history, &format!("cut at {cut}")),
            history.acked
        );
    }
}

/// The next record torn at every byte: the slot holds the beginning of the new record and the end of what was there.
#[test]
fn of_the_manifest() {
    let (mut disk, mut history) = committed();
    let mut rig = Rig::open(&mut disk, 1).expect("it opens");
    let commit = |rig: &mut Rig<'_>, history: &mut History| {
        let epoch = rig.store.begin_epoch().expect("numbers are left");
        let sections = BTreeMap::from([("large".to_string(), vec![epoch.0 as u8; 7000])]);
        let committed = rig.commit(Commit {
            epoch,
            sections,
            ..Commit::default()
        });
        assert_eq!(committed.expect("nothing fails"), epoch);
        history.at.insert(epoch.0, history.map.clone());
        epoch.0
    };
    // Enough to come round the ring: the record that is torn overwrites one of four before.
    for _ in 0..6 {
        history.acked = commit(&mut rig, &mut history);
    }
    let old = rig.disk.memory().clone();
    let manifest = newest(&old, "manifest-");
    let newer = commit(&mut rig, &mut history);
    drop(rig);
    let new = disk.memory().content(&manifest).expect("it is there");
    let was = old.content(&manifest).expect("it is there");
    let differ = || (0..new.len()).filter(|&i| new[i] != was[i]);
    let from = differ().next().expect("it differs");
    let to = differ().next_back().expect("it differs") + 1;
    assert!(to - from > 24 << 10, "both copies differ: {}", to - from);
    let mut found = BTreeMap::new();
    // Between the copies nothing differs, so nothing is torn.
    for cut in (from..=to).filter(|&cut| cut == to || new[cut] != was[cut]) {
        let mut left = old.clone();
        left.damage(&manifest, |bytes| {
            bytes[from..cut].copy_from_slice(&new[from..cut]);
        });
        let epoch = recover(left, &history, &format!("torn at {cut}"));
        *found.entry(epoch).or_insert(0) += 1;
    }
    // Until the first copy is whole the old record counts, after that the new one.
    assert_eq!(found.len(), 2);
    assert!(
        found[&history.acked] > 6000 && found[&newer] > 6000,
        "{found:?}"
    );
}

/// A new manifest file that was not finished, cut at every page.
#[test]
fn of_a_manifest_that_has_no_name_yet() {
    let (disk, history) = committed();
    let memory = disk.crash(|_| true);
    let manifest = newest(&memory, "manifest-");
    let whole = memory.content(&manifest).expect("it is there");
    for cut in (0..whole.len()).step_by(ALIGN) {
        let mut left = memory.clone();
        let create = Op::Open {
            name: "manifest-00000009.new".into(),
            mode: Mode::Create,
            direct: false,
        };
        let Ok(Done::Opened { file, .. }) = left.call(create) else {
            panic!("it is created");
        };
        let mut buffer = Buffer::with_capacity(cut);
        buffer.extend(&whole[..cut]);
        left.call(Op::Write {
            file,
            offset: 0,
            buffer,
        })
        .expect("it is written");
        assert_eq!(
            recover(left, &history, &format!("cut at {cut}")),
            history.acked
        );
    }
}
