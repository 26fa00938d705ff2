//! A job's checkpoints on real disks: the folder, the control thread that drives the coordinator, and going on after a crash.
//!
//! Laws
//! 1. The folder is held from before it is read until the last file operation is over.
//! 2. Savepoints are copied by threads of their own, and the control thread waits for them at its end.
//! 3. The control thread ends when all is committed, when nothing more can be, or when every shard has dropped its part.

use super::clock::Clock;
use super::drivers::Shards;
use super::handle::JobShared;
use super::savepoints::{Ask, Savepoints};
use crate::checkpoint::{
    self, Checkpointing, Checkpoints, Coordinator, Event, Opening, Origin, Pace, Part, Restored,
    Setup, Started, Stop, Sweeps,
};
use crate::error::{BuildError, JobError};
use crate::plan::BuiltJob;
use crate::runtime::panics::{Panic, catch};
use pelton_ring::Doorbell;
use pelton_storage::{Checkpoint, FolderLock, Lineage, MappedBytes, Pin, StdDisk, WriterConfig};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What the control thread is told.
pub(crate) enum Message {
    Event(Event),
    /// The disk has done something.
    Disk,
    Want,
    Stop(Stop),
    Savepoint(Ask),
    /// Stop, and take a savepoint of the last epoch.
    StopWith(Ask),
    /// A savepoint has been copied, or could not be.
    Copied(Pin),
    /// A shard has dropped its part.
    Gone,
}

/// Tells the control thread that a part is gone and nothing of it is under way, when it is dropped.
struct Gone(Sender<Message>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send(Message::Gone);
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
            Message::Disk => "Disk",
            Message::Want => "Want",
            Message::Stop(_) => "Stop",
            Message::Savepoint(_) => "Savepoint",
            Message::StopWith(_) => "StopWith",
            Message::Copied(_) => "Copied",
            Message::Gone => "Gone",
        })
    }
}

/// A job's checkpoints, opened and restored, before anything runs.
pub(crate) struct Opened {
    pub parts: Vec<Part>,
    pub control: Arc<Control>,
    coordinator: Coordinator,
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
        writers,
    } = opening
        .start(built, clock.now_ns())
        .map_err(|e| failed(&job, folder, e.what))?;
    let mut parts = Vec::new();
    for (shard, (writer, at)) in writers.into_iter().zip(&on.refs).enumerate() {
        // Told when the last of both has gone: the part, and what it had under way.
        let gone = Arc::new(Gone(to.clone()));
        let disk = at
            .disks
            .open(config.disk, folder, &at.doorbell, Box::new(gone.clone()))
            .map_err(|e| failed(&job, folder, e))?;
        let report = Box::new(move |event| {
            let _ = gone.0.send(Message::Event(event));
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
            fits.map_err(of_origin)?;
        }
        _ => opening.fit(built, None, &[]).map_err(of_own)?,
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
            Ok(Err(checkpoint::JobLoad::Job(e))) => return Err(e),
            Ok(Err(checkpoint::JobLoad::Unfit(e))) => return Err(failed(&job, folder, e.what)),
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
    /// Starts the control thread.
    pub fn start(
        self,
        shared: Arc<JobShared>,
        clock: Clock,
        bells: Vec<Doorbell>,
    ) -> Result<Vec<Part>, BuildError> {
        let Opened {
            parts,
            control,
            mut coordinator,
            mut disk,
            mut savepoints,
            lock,
            from,
            shards,
        } = self;
        let name = format!("pelton-control-{}", shared.number);
        let run = move || {
            let ring = || bells.iter().for_each(Doorbell::ring);
            let mut gone = 0;
            // Sinks commit here, and that is user code.
            let caught = catch(|| {
                loop {
                    let before = coordinator.place();
                    if let Err(failed) = coordinator.step(clock.now_ns(), &mut disk) {
                        shared.fail(failed.of_job(&shared.name));
                        ring();
                        break;
                    }
                    control.show(&coordinator.figures);
                    if coordinator.place() != before {
                        ring();
                    }
                    while let Some((pin, checkpoint, lineage)) = coordinator.take_savepoint() {
                        savepoints.copy(pin, &checkpoint, lineage);
                    }
                    if coordinator.is_over() || gone == shards {
                        break;
                    }
                    match wait(&from, coordinator.wake_at(), clock.now_ns()) {
                        None => {}
                        Some(Message::Event(event)) => coordinator.event(event),
                        Some(Message::Disk) => {}
                        Some(Message::Want) => coordinator.want(),
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
                        Some(Message::Gone) => gone += 1,
                    }
                }
            });
            let told_of = |panicked: Result<(), Panic>| {
                if let Err(panic) = panicked {
                    shared.fail(JobError::Panic {
                        job: shared.name.clone(),
                        op: "committing what a sink has prepared".into(),
                        shard: 0,
                        position: "the control thread".into(),
                        message: panic.message,
                    });
                    ring();
                }
            };
            told_of(caught);
            // Law 2. Nothing is removed meanwhile.
            told_of(catch(|| savepoints.finish()));
            told_of(catch(|| drop(coordinator)));
            // Law 1: also what the shards have under way, a spare segment or its closing.
            while gone < shards
                && let Ok(message) = from.recv()
            {
                gone += usize::from(matches!(message, Message::Gone));
            }
            drop(disk);
            drop(lock);
            shared.shard_over();
        };
        thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(no_thread)?;
        Ok(parts)
    }
}

fn no_thread(e: std::io::Error) -> BuildError {
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
