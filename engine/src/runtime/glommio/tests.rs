//! The disks of a shard's executor, held to what every disk must do; and their ends.

use super::*;
use crate::runtime::config::Driver;
use crate::{Config, Runtime, Waiting};
use pelton_storage::{
    BlockingDisk, Buffer, Completion, Disk, DiskError, Done, FileId, Full, Mode, Op, Ticket,
    conformance,
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

fn runtime(waiting: Waiting) -> Runtime {
    let config = Config::default()
        .shards(1)
        .driver(Driver::Glommio)
        .waiting(waiting);
    Runtime::start(config).unwrap()
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pelton-ring-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path); // left by a test that was killed
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A disk whose owner is this thread and waits for it.
struct Awaited {
    disk: Box<dyn Disk + Send>,
    under_way: usize,
}

impl Awaited {
    fn on(runtime: &Runtime, folder: &Folder) -> Self {
        let kind = crate::DiskKind::IoUring;
        let disk = runtime.shard_disk(0, kind, &folder.0).unwrap();
        Awaited { disk, under_way: 0 }
    }
}

impl Disk for Awaited {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        self.disk.submit(op, ticket)?;
        self.under_way += 1;
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.disk.poll(completions);
        self.under_way -= completions.len() - before;
    }
}

impl BlockingDisk for Awaited {
    fn wait(&mut self) -> Result<(), DiskError> {
        std::thread::yield_now();
        Ok(())
    }
}

#[test]
fn does_what_every_disk_must_do() {
    // A shard that sleeps, and one that is busy and comes to its reactor only because operations are under way.
    for waiting in [Waiting::Park { spin_us: 0 }, Waiting::Yield] {
        let runtime = runtime(waiting);
        let on = |name: &str, test: &dyn Fn(&mut Awaited)| {
            let folder = Folder::new(name);
            let mut disk = Awaited::on(&runtime, &folder);
            test(&mut disk);
            assert_eq!(disk.under_way, 0, "{name}");
        };
        on("model", &|disk| conformance::as_the_memory_disk(disk));
        on("direct", &|disk| {
            let direct = conformance::direct_where_allowed(disk);
            println!("direct: {direct}");
        });
        on("bounded", &|disk| conformance::bounded(disk));
        on("owners", &|disk| conformance::each_to_its_own(disk));
    }
}

#[test]
fn does_what_the_memory_disk_does_whatever_is_drawn() {
    let runtime = runtime(Waiting::Park { spin_us: 0 });
    let cases = std::env::var("PELTON_CASES").ok();
    let cases = cases.and_then(|v| v.parse().ok()).unwrap_or(16);
    proptest!(ProptestConfig::with_cases(cases), |(numbers in proptest::collection::vec(any::<u64>(), 64))| {
        let folder = Folder::new("drawn");
        let mut at = 0;
        let draw = || {
            at += 1;
            numbers[at % 64].wrapping_mul(at as u64 | 1) >> 20
        };
        conformance::as_the_memory_disk_drawn(&mut Awaited::on(&runtime, &folder), draw);
    });
}

/// The kernel's errors come back through the ring by their numbers, with the buffers. /dev/full has no space left, and nothing is mapped at
/// the first page of a process's memory.
#[test]
fn errors_of_the_kernel_are_told() {
    let folder = Folder::new("errors");
    let runtime = runtime(Waiting::Park { spin_us: 0 });
    let mut disk = Awaited::on(&runtime, &folder);
    for (name, target, code) in [("full", "/dev/full", 28), ("memory", "/proc/self/mem", 5)] {
        std::os::unix::fs::symlink(target, folder.0.join(name)).unwrap();
        let open = Op::Open {
            name: name.into(),
            mode: Mode::Write,
            direct: false,
        };
        let Ok(Done::Opened { file, .. }) = disk.call(open) else {
            panic!("{target} opens");
        };
        let failed = disk.call(write(file, 0)).unwrap_err();
        assert_eq!(failed.error.os_code, Some(code), "{target}");
        assert_eq!(failed.error.is_no_space(), code == 28);
        assert_eq!(failed.buffer, Some(Buffer::zeroed(128 << 10)));
        let failed = disk.call(Op::SyncData { file }).unwrap_err();
        assert_eq!(failed.error.os_code, Some(22), "it cannot be synced");
        let buffer = Buffer::zeroed(4096);
        let read = disk.call(Op::Read {
            file,
            offset: 0,
            buffer,
        });
        match read {
            Ok(Done::Filled { filled: 4096, .. }) if code == 28 => {}
            Err(failed) if failed.error.os_code == Some(5) => {
                assert_eq!(failed.buffer.unwrap().len(), 4096);
            }
            other => panic!("{target}: {other:?}"),
        }
    }
}

/// A disk that says when it has let go of everything.
fn watched(folder: &Path, desk: &Arc<Desk>) -> (RingDisk, mpsc::Receiver<()>) {
    struct Says(mpsc::Sender<()>, PathBuf);
    impl Drop for Says {
        fn drop(&mut self) {
            assert_eq!(open_files(&self.1), 0, "all files are closed before");
            let _ = self.0.send(());
        }
    }
    let (says, gone) = mpsc::channel();
    let keep = Box::new(Says(says, folder.to_owned()));
    let disk = RingDisk::new(folder, desk, Arc::new(|| ()), keep).unwrap();
    (disk, gone)
}

/// Files of a folder that this process has open.
fn open_files(folder: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let paths = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    paths.filter(|path| path.starts_with(folder)).count()
}

fn ticket(serial: u64) -> Ticket {
    Ticket { owner: 0, serial }
}

fn done(disk: &mut RingDisk, count: usize) -> Vec<Completion> {
    let mut completions = vec![];
    while completions.len() < count {
        std::thread::yield_now();
        disk.poll(&mut completions);
    }
    completions
}

fn create(disk: &mut RingDisk, name: &str) -> FileId {
    let open = Op::Open {
        name: name.into(),
        mode: Mode::Create,
        direct: true,
    };
    disk.submit(open, ticket(0)).unwrap();
    match done(disk, 1).remove(0).result {
        Ok(Done::Opened { file, .. }) => file,
        other => panic!("{other:?}"),
    }
}

fn write(file: FileId, at: u64) -> Op {
    Op::Write {
        file,
        offset: at * 4096,
        buffer: Buffer::zeroed(128 << 10),
    }
}

/// Whoever waits for the disk to be gone may open the folder: nothing is written and no file is open any more.
#[test]
fn lets_go_when_nothing_is_under_way() {
    let folder = Folder::new("goes");
    let (sleeper, seat, desk) = seat();
    let shard = executor(sleeper, seat);
    for round in 0..20 {
        let (mut disk, gone) = watched(&folder.0, &desk);
        let file = create(&mut disk, &format!("f{round}"));
        for n in 0..round {
            disk.submit(write(file, n), ticket(n)).unwrap();
            disk.submit(Op::SyncData { file }, ticket(n)).unwrap();
        }
        assert!(gone.try_recv().is_err());
        drop(disk);
        gone.recv().unwrap();
        let len = std::fs::metadata(folder.0.join(format!("f{round}"))).unwrap();
        let wanted = if round == 0 {
            0
        } else {
            (round - 1) * 4096 + (128 << 10)
        };
        assert_eq!(len.len(), wanted, "what was submitted is done");
    }
    shard.end();
}

/// The executor ends with operations under way: they are finished first. What comes later fails, and brings its buffer back.
#[test]
fn an_executor_that_ends_leaves_nothing_under_way() {
    let folder = Folder::new("ends");
    let (sleeper, seat, desk) = seat();
    let shard = executor(sleeper, seat);
    let (mut disk, gone) = watched(&folder.0, &desk);
    let file = create(&mut disk, "f");
    for n in 0..30 {
        disk.submit(write(file, n), ticket(n)).unwrap();
    }
    shard.end();
    for n in 30..40 {
        disk.submit(write(file, n), ticket(n)).unwrap();
    }
    let mut serials = vec![];
    for Completion { ticket, result } in done(&mut disk, 40) {
        match result {
            Ok(Done::Written { buffer }) if ticket.serial < 30 => {
                assert_eq!(buffer.len(), 128 << 10)
            }
            Err(f) if f.error.kind == std::io::ErrorKind::NotConnected => {
                assert_eq!(f.buffer.unwrap().len(), 128 << 10);
            }
            other => panic!("{other:?}"),
        }
        serials.push(ticket.serial);
    }
    serials.sort_unstable();
    assert!(serials.into_iter().eq(0..40));
    assert!(gone.try_recv().is_err());
    drop(disk);
    gone.recv().unwrap();
}

/// What the helper has opened and the executor cannot open does not stay open.
#[test]
fn what_is_not_opened_is_closed() {
    let folder = Folder::new("not-opened");
    let (sleeper, seat, desk) = seat();
    let shard = executor(sleeper, seat);
    let (mut disk, gone) = watched(&folder.0, &desk);
    shard.end();
    for n in 0..10 {
        let open = Op::Open {
            name: format!("f{n}"),
            mode: Mode::Create,
            direct: false,
        };
        disk.submit(open, ticket(n)).unwrap();
    }
    for Completion { result, .. } in done(&mut disk, 10) {
        let failed = result.unwrap_err();
        assert_eq!(failed.error.kind, std::io::ErrorKind::NotConnected);
    }
    assert!(folder.0.join("f9").exists(), "the helper had them");
    assert_eq!(open_files(&folder.0), 0);
    drop(disk);
    gone.recv().unwrap();
}

/// A shard without jobs on an executor of its own.
struct Alone {
    mailbox: Arc<crate::runtime::shard::Mailbox>,
    thread: std::thread::JoinHandle<()>,
    bell: pelton_ring::Doorbell,
}

fn executor(sleeper: Sleeper, seat: Seat) -> Alone {
    use crate::runtime::clock::Clock;
    use crate::runtime::shard::{Mailbox, Shard};
    let mailbox = Arc::<Mailbox>::default();
    let bell = sleeper.doorbell();
    let bells: Arc<[_]> = [bell.clone()].into();
    let shard = Shard::new(0, mailbox.clone(), bells, true, Clock::start());
    let duty = Duty::new(shard, Waiting::Park { spin_us: 0 });
    let (ready, is_ready) = Ready::channel();
    let thread = std::thread::spawn(move || seat.run(duty, sleeper, ready));
    assert!(is_ready.recv().unwrap().is_ok());
    Alone {
        mailbox,
        thread,
        bell,
    }
}

impl Alone {
    fn end(self) {
        self.mailbox.send(crate::runtime::shard::Command::Shutdown);
        self.bell.ring();
        self.thread.join().unwrap();
    }
}
