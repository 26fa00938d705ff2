//! A job's checkpoints on real disks: the folder, the control thread that drives the coordinator, and going on after a crash.
//!
//! Laws
//! 1. The folder is held from before it is read until the last file operation is over: those of the shards too.
//! 2. Savepoints are copied by threads of their own, and the control thread waits for them at its end.
//! 3. The control thread coordinates until all is committed, until nothing more can be, or until every shard has dropped its part.
//!    Whatever it was, it ends after the shards' parts: a shard does not wait for its disk's thread, this one does.
//! 4. Sinks commit on a thread apart (`commits.rs`), which the control thread asks, hears, and waits for before it lets go of the folder.
//! 5. Sinks' threads of the job have ended by its end, unless they do not come back from a foreign call: then they are not
//!    waited for any longer, and hold what they need.

use super::clock::Clock;
use super::commits::Commits;
use super::disks;
use super::drivers::Shards;
use super::handle::JobShared;
use super::savepoints::{Ask, Savepoints};
use crate::checkpoint::{
    self, Checkpointing, Checkpoints, Committed, Committers, Coordinator, Event, Opening, Origin,
    Pace, Part, Restored, Setup, Started, Stop, Sweeps,
};
use crate::error::{BuildError, JobError};
use crate::plan::BuiltJob;
use crate::port::Helpers;
use crate::runtime::panics::{Panic, catch};
use pelton_ring::Doorbell;
use pelton_storage::{
    Checkpoint, Completion, Disk, FolderLock, Full, Lineage, MappedBytes, Op, Pin, StdDisk, Ticket,
    WriterConfig,
};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long sinks' threads may take to end behind the job. One that sits in a foreign call is left behind.
const HELPERS_WITHIN_NS: u64 = 2_000_000_000;

/// Where what a sink keeps for its commits has panicked at its end.
const COMMITTING: &str = "the thread of the commits";

/// What the control thread is told.
pub(crate) enum Message {
    Event(Event),
    /// What became of the commits that were asked for; or a sink's code panicked, and in what.
    Committed(Result<Committed, (Panic, String)>),
    /// The disk has done something.
    Disk,
    Want,
    /// The next barrier answers this query.
    Ask(u64),
    Stop(Stop),
    Savepoint(Ask),
    /// Stop, and take a savepoint of the last epoch.
    StopWith(Ask),
    /// A savepoint has been copied, or could not be.
    Copied(Pin),
    /// A shard has dropped its part, with this disk.
    Parted(Box<dyn Disk + Send>),
    /// Nothing of a shard's part is under way any more, and no file of it open.
    Gone,
}

/// Tells the control thread that a part is gone and nothing of it is under way, when it is dropped.
struct Gone(Sender<Message>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send(Message::Gone);
    }
}

/// A shard's disk. Dropped with its part, it goes to the control thread, which waits for what is under way (law 3).
struct OfShard {
    /// There until it is dropped.
    disk: Option<Box<dyn Disk + Send>>,
    to: Sender<Message>,
}

impl Disk for OfShard {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        match &mut self.disk {
            Some(disk) => disk.submit(op, ticket),
            None => Err(Full(op)),
        }
    }
    fn poll(&mut self, completions: &mut Vec<Completion>) {
        if let Some(disk) = &mut self.disk {
            disk.poll(completions);
        }
    }
}

impl Drop for OfShard {
    fn drop(&mut self) {
        if let Some(disk) = self.disk.take() {
            // The control thread waits for all of them; before it was started nothing is under way.
            let _ = self.to.send(Message::Parted(disk));
        }
    }
}

/// What is known of a job's checkpoints by who holds its handle.
#[derive(Debug)]
pub(crate) struct Control {
    to: Sender<Message>,
    figures: Mutex<Checkpoints>,
    /// The checkpoint that the job went on from.
    pub from: Option<(checkpoint::Epoch, Restored)>,
}

impl Control {
    pub fn figures(&self) -> Checkpoints {
        self.lock().clone()
    }

    fn show(&self, figures: &Checkpoints) {
        let mut shown = self.lock();
        if *shown != *figures {
            shown.clone_from(figures);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Checkpoints> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the message was taken. The thread may have ended: then there is nothing to be asked for.
    pub fn send(&self, message: Message) -> bool {
        self.to.send(message).is_ok()
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Message::Event(_) => "Event",
            Message::Committed(_) => "Committed",
            Message::Disk => "Disk",
            Message::Want => "Want",
            Message::Ask(_) => "Ask",
            Message::Stop(_) => "Stop",
            Message::Savepoint(_) => "Savepoint",
            Message::StopWith(_) => "StopWith",
            Message::Copied(_) => "Copied",
            Message::Parted(_) => "Parted",
            Message::Gone => "Gone",
        })
    }
}

/// A job's checkpoints, opened and restored, before anything runs.
pub(crate) struct Opened {
    pub parts: Vec<Part>,
    pub control: Arc<Control>,
    coordinator: Coordinator,
    committers: Committers,
    disk: StdDisk,
    savepoints: Savepoints,
    lock: FolderLock,
    from: Receiver<Message>,
    shards: usize,
}

fn failed(job: &str, folder: &std::path::Path, what: impl std::fmt::Display) -> JobError {
    JobError::Restore {
        job: job.into(),
        folder: folder.display().to_string(),
        what: what.to_string(),
    }
}

/// Opens the folder, and puts the job where its last checkpoint was.
pub(crate) fn open(
    built: &mut BuiltJob,
    config: &Checkpointing,
    key_groups: u32,
    clock: Clock,
    on: &Shards,
) -> Result<Opened, JobError> {
    let job = built.name.clone();
    let shards = on.refs.len();
    let folder = config.folder.as_path();
    let lock = FolderLock::acquire(folder).map_err(|e| failed(&job, folder, e))?;
    disks::remove_probes(folder);
    let (to, messages) = mpsc::channel();
    let (waker, waker_of_copies) = (to.clone(), to.clone());
    let notify = Box::new(move || {
        let _ = waker.send(Message::Disk);
    });
    // Opening waits for it by yielding: a few milliseconds, once.
    let mut disk = StdDisk::new(folder, notify).map_err(|e| failed(&job, folder, e))?;
    let opening = open_store(built, config, &mut disk, setup(config, key_groups, shards))?;
    let from = match opening.last() {
        Some(last) => {
            let elsewhere = opening.elsewhere();
            let mut restored = load(built, elsewhere.unwrap_or(folder), last, shards)?;
            restored.is_from_elsewhere = elsewhere.is_some();
            let counted = opening.counted();
            let counted = counted.map_err(|e| failed(&job, folder, e.what))?;
            restored.counters = counted.counters;
            restored.began_elsewhere = counted.began_elsewhere;
            Some((last.0.epoch, restored))
        }
        None => None,
    };
    let Started {
        coordinator,
        told,
        committers,
        writers,
    } = opening
        .start(built, clock.now_ns())
        .map_err(|e| failed(&job, folder, e.what))?;
    let mut parts = Vec::new();
    for (shard, (writer, at)) in writers.into_iter().zip(&on.refs).enumerate() {
        let gone = Gone(to.clone());
        let disk = at
            .disks
            .open(config.disk, folder, &at.doorbell, Box::new(gone))
            .map_err(|e| failed(&job, folder, e))?;
        let tell = to.clone();
        let report = Box::new(move |event| {
            let _ = tell.send(Message::Event(event));
        });
        let disk = Box::new(OfShard {
            disk: Some(disk),
            to: to.clone(),
        });
        parts.push(Part::new(shard, told.clone(), writer, disk, report));
    }
    Ok(Opened {
        parts,
        control: Arc::new(Control {
            to,
            figures: Mutex::default(),
            from,
        }),
        coordinator,
        committers,
        disk,
        savepoints: Savepoints::new(folder, waker_of_copies),
        lock,
        from: messages,
        shards,
    })
}

/// Opens the store, and finds out where the job goes on from: its own last checkpoint, else what it is to start from.
fn open_store(
    built: &mut BuiltJob,
    config: &Checkpointing,
    disk: &mut StdDisk,
    setup: Setup,
) -> Result<Opening, JobError> {
    let job = built.name.clone();
    let of_own = |e: checkpoint::Unfit| failed(&job, &config.folder, e.what);
    let mut opening = Opening::store(disk, setup).map_err(of_own)?;
    match &config.from {
        Some(from) if !opening.has_own() => {
            let of_origin = |e: checkpoint::Unfit| JobError::Start {
                job: job.clone(),
                folder: from.display().to_string(),
                what: e.what,
            };
            let origin = Origin::open(from).map_err(of_origin)?;
            let fits = opening.fit(built, Some(origin), &config.dropped);
            fits.map_err(|e| e.told(of_origin))?;
        }
        _ => {
            let fits = opening.fit(built, None, &[]);
            fits.map_err(|e| e.told(of_own))?;
        }
    }
    Ok(opening)
}

/// How the checkpoints are kept that a job's owner has asked for.
fn setup(config: &Checkpointing, key_groups: u32, shards: usize) -> Setup {
    Setup {
        shards,
        key_groups,
        retained: config.retained,
        lineage_if_new: draw_lineage(),
        pace: Pace {
            interval_ns: config.interval.nanos(),
            timeout_ns: config.timeout.nanos(),
            end_timeout_ns: config.end_timeout.nanos(),
            max_uncommitted: config.max_uncommitted,
            sweeps: Sweeps::of_segments(config.segment_bytes),
        },
        writer: WriterConfig {
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            ..WriterConfig::new(1)
        },
    }
}

/// Reads the checkpoint, a thread a shard.
fn load(
    built: &mut BuiltJob,
    folder: &std::path::Path,
    last: (&Checkpoint, Lineage),
    shards: usize,
) -> Result<Restored, JobError> {
    let job = built.name.clone();
    let per_shard = checkpoint::by_shard(&mut built.stages, shards);
    let mut restored = Restored::default();
    let results: Vec<_> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (shard, mut tasklets) in per_shard.into_iter().enumerate() {
            threads.push(scope.spawn(move || {
                let bytes = MappedBytes::new(folder);
                checkpoint::load(bytes, last, (shard, shards), &mut tasklets)
            }));
        }
        threads.into_iter().map(|t| t.join()).collect()
    });
    for result in results {
        match result {
            Ok(Ok(one)) => {
                restored.entries += one.entries;
                restored.bytes += one.bytes;
            }
            Ok(Err(e)) => return Err(e.told(|e| failed(&job, folder, e.what))),
            Err(_) => {
                return Err(failed(
                    &job,
                    folder,
                    "user code panicked while its state was loaded",
                ));
            }
        }
    }
    Ok(restored)
}

/// 16 bytes that nobody else has drawn: from the operating system's randomness, by way of the hasher that is seeded with it.
pub(crate) fn draw_lineage() -> Lineage {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&RandomState::new().hash_one(1u8).to_le_bytes());
    bytes[8..].copy_from_slice(&RandomState::new().hash_one(2u8).to_le_bytes());
    Lineage(bytes)
}

impl Opened {
    /// Starts the control thread. `helpers` are the job's own.
    pub fn start(
        self,
        shared: Arc<JobShared>,
        clock: Clock,
        bells: Vec<Doorbell>,
        helpers: Helpers,
    ) -> Result<Vec<Part>, BuildError> {
        let Opened {
            parts,
            control,
            mut coordinator,
            committers,
            mut disk,
            mut savepoints,
            lock,
            from,
            shards,
        } = self;
        let name = format!("pelton-control-{}", shared.number);
        let commits = Commits::start(committers, control.to.clone(), shared.number)?;
        let run = move || {
            let ring = || bells.iter().for_each(Doorbell::ring);
            let mut gone = 0;
            let told_of = |panicked: Result<(), Panic>, position: &str| {
                if let Err(panic) = panicked {
                    shared.fail(JobError::Panic {
                        job: shared.name.clone(),
                        op: "committing what a sink has prepared".into(),
                        shard: 0,
                        position: position.into(),
                        message: panic.message,
                    });
                }
            };
            let caught = catch(|| {
                loop {
                    let before = coordinator.place();
                    let now = clock.now();
                    coordinator.set_wall(now.wall);
                    if let Err(failed) = coordinator.step(now.ns, &mut disk) {
                        shared.fail(failed.of_job(&shared.name));
                        break;
                    }
                    if let Some(what) = coordinator.next_commits(now.ns) {
                        commits.ask(what);
                    }
                    control.show(&coordinator.figures);
                    if coordinator.place() != before {
                        ring();
                    }
                    while let Some((pin, checkpoint, lineage)) = coordinator.take_savepoint() {
                        savepoints.copy(pin, &checkpoint, lineage);
                    }
                    if coordinator.is_over() {
                        shared.through();
                    }
                    if coordinator.is_over() || gone == shards {
                        break;
                    }
                    match wait(&from, coordinator.wake_at(), clock.now_ns()) {
                        None => {}
                        Some(Message::Event(event)) => coordinator.event(event),
                        Some(Message::Committed(Ok(outcome))) => {
                            let taken = coordinator.committed(outcome, clock.now_ns());
                            if let Err(failed) = taken {
                                shared.fail(failed.of_job(&shared.name));
                                break;
                            }
                        }
                        Some(Message::Committed(Err((panic, position)))) => {
                            told_of(Err(panic), &position);
                            break;
                        }
                        Some(Message::Disk) => {}
                        Some(Message::Want) => coordinator.want(),
                        Some(Message::Ask(number)) => coordinator.ask(number),
                        Some(Message::Stop(how)) => coordinator.stop(how, clock.now_ns()),
                        Some(Message::Savepoint(ask)) => {
                            savepoints.ask(ask);
                            coordinator.savepoint();
                        }
                        Some(Message::StopWith(ask)) => {
                            // Both before the next step: one epoch is the last, and the savepoint's.
                            savepoints.ask(ask);
                            coordinator.savepoint();
                            coordinator.stop(Stop::Keep, clock.now_ns());
                        }
                        Some(Message::Copied(pin)) => coordinator.unpin(pin),
                        Some(Message::Parted(disk)) => drop(disk),
                        Some(Message::Gone) => gone += 1,
                    }
                }
            });
            told_of(caught, "the control thread");
            // Shards that sleep are to drop their parts.
            ring();
            // Law 2. Nothing is removed meanwhile.
            told_of(catch(|| savepoints.finish()), "the control thread");
            // Law 4: what is under way is made to its end.
            told_of(commits.end(), COMMITTING);
            drop(coordinator);
            // Laws 1 and 3.
            while gone < shards {
                match from.recv() {
                    Ok(Message::Parted(disk)) => drop(disk),
                    Ok(Message::Gone) => gone += 1,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            drop(disk);
            drop(lock);
            // Law 5.
            let until_ns = clock.now_ns().saturating_add(HELPERS_WITHIN_NS);
            for ended in helpers.0 {
                let left_ns = until_ns.saturating_sub(clock.now_ns());
                let _ = ended.recv_timeout(Duration::from_nanos(left_ns));
            }
            shared.shard_over();
        };
        thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(no_thread)?;
        Ok(parts)
    }
}

pub(super) fn no_thread(e: std::io::Error) -> BuildError {
    BuildError::Config {
        what: format!("the thread for the job's checkpoints could not be started: {e}"),
        advice: "raise the limit on threads".into(),
    }
}

/// The next message, or `None` when the time has come.
fn wait(from: &Receiver<Message>, until_ns: Option<u64>, now_ns: u64) -> Option<Message> {
    match until_ns {
        None => from.recv().ok(),
        Some(at) => {
            let left = Duration::from_nanos(at.saturating_sub(now_ns));
            from.recv_timeout(left).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However much is under way, the shard goes on at once: its disk is whole when the control thread has it.
    #[test]
    fn a_shards_disk_is_waited_for_by_who_gets_it_and_not_by_the_shard() {
        let folder = std::env::temp_dir().join(format!("pelton-of-shard-{}", std::process::id()));
        let held = Arc::new(Mutex::new(()));
        let (helper, stuck) = (held.clone(), held.lock().unwrap());
        // The disk's thread waits after its first operation for as long as this test wants.
        let notify = Box::new(move || drop(helper.lock()));
        let (to, from) = mpsc::channel();
        let disk = StdDisk::new(&folder, notify).unwrap();
        let mut disk = OfShard {
            disk: Some(Box::new(disk)),
            to,
        };
        let ticket = Ticket {
            owner: 0,
            serial: 1,
        };
        disk.submit(Op::List, ticket).unwrap();
        drop(disk);
        let Ok(Message::Parted(disk)) = from.try_recv() else {
            panic!("it has been handed on");
        };
        drop(stuck);
        drop(disk);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
