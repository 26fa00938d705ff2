//! The checkpoints of a stepped job: parts, coordinator, disk and sinks' commits, each a step of its own.

use super::Place;
use crate::checkpoint::{
    self, Checkpointing, Checkpoints, Committed, Committers, Coordinator, Epoch, Event, JobLoad,
    Opening, Origin, Pace, Part, Restored, Setup, Started, Stop, Sweeps, Tasklets, ToCommit, Told,
    Turn,
};
use crate::error::JobError;
use crate::plan::BuiltJob;
use crate::runtime::{Panic, catch};
use crate::tasklet::{Progress, Tasklet};
use crate::time::Span;
use pelton_storage::{
    Checkpoint, Filter, Lineage, Pin, PlainBytes, Savepoint, SharedDisk, SnapshotReader,
    StorageError, WriterConfig,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// The folder in memory that a stepped job keeps its checkpoints in, and how. Interval, time-out and the number of
/// checkpoints that are kept are those of [`crate::Job::checkpoints`]; its folder is not touched.
#[derive(Clone, Debug)]
pub struct OnDisk<'a> {
    /// The folder. All that the job writes to has a handle of its own onto it.
    pub disk: &'a SharedDisk,
    /// The sizes of what is written: small ones make a short run roll, wait and retire.
    pub writer: WriterConfig,
    /// The log is swept when it is so many times as long as after the last sweep ..
    pub sweep_growth: u64,
    /// .. and longer than that by more than twice so many bytes for each shard.
    pub sweep_bytes: u64,
    /// Entries of each table that a sweep writes anew with an epoch, at the least: few make one that takes several epochs, whatever the size
    /// of the job.
    pub sweep_least: u32,
    /// The lineage of a folder that is new.
    pub lineage: [u8; 16],
    /// The savepoint that a job starts from as long as its folder holds no checkpoint: see [`super::Stepper::copy_savepoint`].
    pub from: Option<&'a SharedDisk>,
}

impl<'a> OnDisk<'a> {
    /// Segments of 256 KiB in chunks of 16 KiB, entries up to 128 KiB, a sweep with each 64 KiB.
    pub fn small(disk: &'a SharedDisk) -> Self {
        OnDisk {
            disk,
            writer: WriterConfig {
                segment_bytes: 256 << 10,
                chunk_bytes: 16 << 10,
                buffers: 2,
                block_bytes: 1 << 10,
                frame_bytes_max: 128 << 10,
                reserve_bytes: 0,
                ..WriterConfig::new(1)
            },
            sweep_growth: 2,
            sweep_bytes: 64 << 10,
            sweep_least: 1024,
            lineage: [7; 16],
            from: None,
        }
    }
}

/// What the shards have told the coordinator and it has not heard yet.
type Events = Arc<Mutex<VecDeque<Event>>>;

/// See the module.
pub(super) struct Control {
    parts: Vec<Part>,
    coordinator: Coordinator,
    committers: Committers,
    /// The commits that were asked for and are yet to be made, and what became of those that were and is yet to be told.
    to_commit: Option<ToCommit>,
    outcome: Option<Committed>,
    told: Arc<Told>,
    events: Events,
    /// The handle of the coordinator.
    disk: SharedDisk,
    pub from: Option<(Epoch, Restored)>,
    /// A savepoint that waits to be copied, and is kept until then.
    ready: Option<(Pin, Checkpoint, Lineage)>,
}

/// Opens the folder and puts the job where its last checkpoint was.
pub(super) fn open(
    built: &mut BuiltJob,
    config: &Checkpointing,
    key_groups: u32,
    shards: usize,
    on: &OnDisk<'_>,
) -> Result<Control, JobError> {
    let job = built.name.clone();
    let failed = |what: String| JobError::Restore {
        job: job.clone(),
        folder: "memory".into(),
        what,
    };
    if config.from.is_some() {
        let what = "the stepper reads no folder of the machine: its savepoints are in memory too, see OnDisk";
        return Err(failed(what.into()));
    }
    let setup = Setup {
        shards,
        key_groups,
        retained: config.retained,
        lineage_if_new: Lineage(on.lineage),
        pace: Pace {
            interval_ns: config.interval.nanos(),
            timeout_ns: config.timeout.nanos(),
            end_timeout_ns: config.end_timeout.nanos(),
            max_uncommitted: config.max_uncommitted,
            sweeps: Sweeps {
                growth: on.sweep_growth,
                bytes: on.sweep_bytes,
                least: on.sweep_least,
            },
        },
        writer: on.writer.clone(),
    };
    let mut disk = on.disk.handle();
    let told = |e: JobLoad| e.told(|e| failed(e.what));
    let mut opening = Opening::store(&mut disk, setup).map_err(|e| failed(e.what))?;
    let mut origin = None;
    if let Some(from) = on.from.filter(|_| !opening.has_own()) {
        let savepoint = Savepoint::open(&mut from.handle(), "memory");
        let savepoint = savepoint.map_err(|e| failed(e.to_string()))?;
        origin = Some(Origin::of("memory".into(), savepoint));
        disk = from.handle();
    }
    opening.fit(built, origin, &config.dropped).map_err(told)?;
    let mut from = None;
    if let Some(last) = opening.last() {
        let mut restored = Restored::default();
        let per_shard = checkpoint::by_shard(&mut built.stages, shards);
        for (shard, mut tasklets) in per_shard.into_iter().enumerate() {
            let bytes = PlainBytes::new(&mut disk);
            let one = checkpoint::load(bytes, last, (shard, shards), &mut tasklets);
            let one = one.map_err(told)?;
            restored.entries += one.entries;
            restored.bytes += one.bytes;
        }
        let counted = opening.counted().map_err(|e| failed(e.what))?;
        restored.counters = counted.counters;
        from = Some((last.0.epoch, restored));
    }
    disk = on.disk.handle();
    let Started {
        coordinator,
        told,
        committers,
        writers,
    } = opening.start(built, 0).map_err(|e| failed(e.what))?;
    let events = Events::default();
    let mut parts = Vec::new();
    for (shard, writer) in writers.into_iter().enumerate() {
        let events = events.clone();
        let report = Box::new(move |event| lock(&events).push_back(event));
        let disk = Box::new(on.disk.handle());
        parts.push(Part::new(shard, told.clone(), writer, disk, report));
    }
    Ok(Control {
        parts,
        coordinator,
        committers,
        to_commit: None,
        outcome: None,
        told,
        events,
        disk,
        from,
        ready: None,
    })
}

fn lock(events: &Events) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// Steps besides those of tasklets: each part, the coordinator, the disk, the sinks' commits.
    pub fn actors(&self) -> usize {
        self.parts.len() + 3
    }

    /// Whether sources are not to read.
    pub fn holds(&self) -> bool {
        self.told.holds()
    }

    /// Everything is committed, and the job may go.
    pub fn is_over(&self) -> bool {
        self.told.is_over()
    }

    pub fn figures(&self) -> Checkpoints {
        self.coordinator.figures.clone()
    }

    pub fn phase(&self) -> &'static str {
        self.coordinator.phase()
    }

    pub fn want(&mut self) {
        self.coordinator.want();
    }

    /// The next barrier answers this query.
    pub fn ask(&mut self, number: u64) {
        self.coordinator.ask(number);
    }

    pub fn stop(&mut self, how: Stop, now_ns: u64) {
        self.coordinator.stop(how, now_ns);
    }

    pub fn savepoint(&mut self) {
        self.coordinator.savepoint();
    }

    /// The epoch of the savepoint that may be copied.
    pub fn ready(&mut self) -> Option<Epoch> {
        if self.ready.is_none() {
            self.ready = self.coordinator.take_savepoint();
        }
        self.ready
            .as_ref()
            .map(|(_, checkpoint, _)| checkpoint.epoch)
    }

    /// Copies it, and lets go of it.
    pub fn copy(&mut self, to: &SharedDisk) -> Option<Result<Epoch, StorageError>> {
        self.ready()?;
        let (pin, checkpoint, lineage) = self.ready.take()?;
        let fit = checkpoint::fit_for_savepoint(&checkpoint);
        let bytes = PlainBytes::new(self.disk.handle());
        let reader = SnapshotReader::new(bytes, lineage, &checkpoint, Filter::default());
        let copied = Savepoint::write(reader, lineage, &fit, &mut to.handle());
        self.coordinator.unpin(pin);
        Some(copied.map(|_| checkpoint.epoch))
    }

    /// Steps actor `at`: see [`Control::actors`]. A panic is the part's.
    pub fn step(
        &mut self,
        job: &str,
        at: usize,
        places: &mut [Place],
        now_ns: u64,
    ) -> Result<Result<Progress, JobError>, Panic> {
        let shards = self.parts.len();
        if at < shards {
            return self.step_part(job, at, places, now_ns);
        }
        Ok(match at - shards {
            0 => self.coordinate(job, now_ns),
            1 => Ok(progress(self.disk.step())),
            _ => self.commit(job, now_ns),
        })
    }

    fn step_part(
        &mut self,
        job: &str,
        shard: usize,
        places: &mut [Place],
        now_ns: u64,
    ) -> Result<Result<Progress, JobError>, Panic> {
        let part = &mut self.parts[shard];
        if part.is_over() {
            return Ok(Ok(Progress::Done));
        }
        let mut mine = Mine { places, shard };
        let all_done = (0..mine.count()).all(|at| mine.tasklet(at).1);
        let turned = catch(|| part.turn(&mut mine, all_done, now_ns))?;
        Ok(match turned {
            Ok(turn) => Ok(progress(turn == Turn::Worked)),
            Err(e) => Err(e.of_job(job, shard)),
        })
    }

    /// What the control thread does when it has been told one thing.
    fn coordinate(&mut self, job: &str, now_ns: u64) -> Result<Progress, JobError> {
        if self.coordinator.is_over() {
            return Ok(Progress::Done);
        }
        let event = lock(&self.events).pop_front();
        let mut worked = event.is_some();
        if let Some(event) = event {
            self.coordinator.event(event);
        }
        let before = self.coordinator.place();
        let stepped = self.coordinator.step(now_ns, &mut self.disk);
        stepped.map_err(|e| e.of_job(job))?;
        worked |= self.coordinator.place() != before;
        Ok(match worked {
            true => Progress::Worked,
            false => Progress::Idle {
                until_ns: self.coordinator.wake_at(),
            },
        })
    }
}

impl Control {
    /// What the thread of the commits does, in three steps (it is asked, it commits, it tells): whatever happens may happen between
    /// them.
    fn commit(&mut self, job: &str, now_ns: u64) -> Result<Progress, JobError> {
        if let Some(outcome) = self.outcome.take() {
            let taken = self.coordinator.committed(outcome, now_ns);
            taken.map_err(|e| e.of_job(job))?;
            return Ok(Progress::Worked);
        }
        if let Some(what) = self.to_commit.take() {
            self.outcome = Some(self.committers.commit(&what));
            return Ok(Progress::Worked);
        }
        self.to_commit = self.coordinator.next_commits(now_ns);
        Ok(progress(self.to_commit.is_some()))
    }
}

fn progress(worked: bool) -> Progress {
    match worked {
        true => Progress::Worked,
        false => Progress::Idle { until_ns: None },
    }
}

/// The tasklets of one shard.
struct Mine<'a> {
    places: &'a mut [Place],
    shard: usize,
}

impl Tasklets for Mine<'_> {
    fn count(&self) -> usize {
        self.places.iter().filter(|p| p.shard == self.shard).count()
    }
    fn tasklet(&mut self, at: usize) -> (&mut dyn Tasklet, bool) {
        let mut mine = self.places.iter_mut().filter(|p| p.shard == self.shard);
        match mine.nth(at) {
            Some(place) => (place.tasklet.as_mut(), place.done),
            None => unreachable!("a part asks for what was counted"),
        }
    }
}

/// The job's own checkpointing, or what stands for it.
pub(super) fn paced(config: Option<Checkpointing>) -> Checkpointing {
    config.unwrap_or_else(|| Checkpointing::in_folder("memory").every(Span::from_micros(1_000)))
}
