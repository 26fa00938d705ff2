use super::*;
use crate::conformance;
use proptest::prelude::*;

fn folder(name: &str) -> PathBuf {
    let name = format!("pelton-disk-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&path); // left by a test that was killed
    path
}

/// Runs a test on a disk of its own.
fn on<T>(name: &str, test: impl FnOnce(&mut StdDisk) -> T) -> T {
    let path = folder(name);
    let result = test(&mut StdDisk::blocking(&path).unwrap());
    fs::remove_dir_all(path).unwrap();
    result
}

#[test]
fn as_the_memory_disk() {
    on("model", conformance::as_the_memory_disk);
}

#[test]
fn direct_where_it_is_allowed_and_said_so() {
    let direct = on("direct", conformance::direct_where_allowed);
    println!("direct: {direct}");
}

#[test]
fn as_many_at_a_time_as_there_is_room_for() {
    on("bounded", conformance::bounded);
    on("owners", conformance::each_to_its_own);
}

proptest! {
    #[test]
    fn as_the_memory_disk_whatever_is_done(seed in any::<u64>()) {
        on("drawn", |disk| conformance::as_the_memory_disk_drawn(disk, splitmix(seed)));
    }
}

fn splitmix(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// What was submitted is done before the disk is gone.
#[test]
fn dropping_finishes() {
    let path = folder("drop");
    let mut disk = StdDisk::blocking(&path).unwrap();
    for serial in 0..50 {
        let op = Op::Open {
            name: format!("f{serial}"),
            mode: Mode::Create,
            direct: false,
        };
        disk.submit(op, Ticket { owner: 0, serial }).unwrap();
    }
    drop(disk);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 50);
    fs::remove_dir_all(path).unwrap();
}

/// A disk that was made by one thread and is waited for by others.
#[test]
fn whoever_waits_is_woken() {
    let path = folder("waits");
    let mut disk = StdDisk::blocking(&path).unwrap();
    for round in 0..20 {
        let done = std::thread::spawn(move || {
            let op = Op::Open {
                name: format!("f{round}"),
                mode: Mode::Create,
                direct: false,
            };
            let opened = disk.call(op).is_ok();
            (disk, opened)
        });
        let opened;
        (disk, opened) = done.join().unwrap();
        assert!(opened);
    }
    drop(disk);
    fs::remove_dir_all(path).unwrap();
}
