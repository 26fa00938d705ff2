use super::*;
use crate::buffer::Buffer;
use crate::disk::{FileId, Mode};

fn create(disk: &mut FaultyDisk) -> FileId {
    let op = Op::Open {
        name: "f".into(),
        mode: Mode::Create,
        direct: false,
    };
    match disk.call(op) {
        Ok(Done::Opened { file, .. }) => file,
        other => panic!("{other:?}"),
    }
}

fn write(file: FileId, page: u64) -> Op {
    let mut buffer = Buffer::with_capacity(0);
    buffer.extend(&[page as u8 + 1; 4 * ALIGN]);
    Op::Write {
        file,
        offset: page * ALIGN as u64,
        buffer,
    }
}

#[test]
fn faults_strike_where_they_can_and_are_counted() {
    for (kind, for_ever, written) in [
        (FaultKind::Io, false, 2 * ALIGN),
        (FaultKind::Short, true, ALIGN),
        (FaultKind::NoSpace, true, 2 * ALIGN),
    ] {
        let fault = Fault {
            at: 1,
            kind,
            for_ever,
        };
        let mut disk = FaultyDisk::new(MemoryDisk::new()).with_fault(fault);
        let file = create(&mut disk);
        if kind != FaultKind::Io {
            disk.call(Op::SyncFolder).unwrap(); // nothing that it can strike
        }
        let failure = disk.call(write(file, 0)).unwrap_err();
        assert_eq!(failure.buffer.unwrap().len(), 4 * ALIGN);
        assert_eq!(disk.memory().content("f").unwrap().len(), written);
        assert_eq!(disk.call(write(file, 0)).is_err(), for_ever);
        assert_eq!(disk.faults(), 1 + u64::from(for_ever));
    }
}

#[test]
fn completions_come_in_another_order_and_all_come() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 1..20 {
        let mut disk = FaultyDisk::new(MemoryDisk::new()).with_shuffle(seed);
        let file = create(&mut disk);
        for serial in 0..4 {
            let ticket = Ticket { owner: 0, serial };
            disk.submit(write(file, serial * 4), ticket).unwrap();
        }
        let mut completions = Vec::new();
        for n in 1..=4 {
            disk.poll(&mut completions);
            assert_eq!(completions.len(), n, "one at a time");
        }
        let order: Vec<u64> = completions.iter().map(|c| c.ticket.serial).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3]);
        orders.insert(order);
    }
    assert!(orders.len() > 5, "{orders:?}");
}

#[test]
fn a_halted_disk_does_nothing_more() {
    let mut disk = FaultyDisk::new(MemoryDisk::new()).with_halt(1);
    let file = create(&mut disk);
    assert!(disk.call(write(file, 0)).is_err() && disk.halted());
    assert_eq!((disk.operations(), disk.faults()), (1, 1));
    assert_eq!(disk.memory().content("f").unwrap().len(), 0);
}
