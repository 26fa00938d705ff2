//! Going on from a checkpoint: what it says of the job, whether this job fits, and its states put back where they belong.
//!
//! Laws
//! 1. Before any source reads, what the checkpoint decided is committed by its sinks, and what it did not decide is discarded.
//! 2. A state is only read into one with the same shape, or into one whose type can migrate from it. A state that no operator has any more is an error that names it, and
//!    so is the number of key groups, if it has changed.
//! 3. A shard reads what it wrote itself, if all of it was written by as many shards as there are now; otherwise all that was
//!    written, of which each operator takes the keys that are its own.

use super::counting::Counted;
use super::frames::Frame;
use super::registry::{Declared, Registry};
use super::uncommitted::{Prepared, commit_one};
use crate::error::JobError;
use crate::plan::NamedCommitter;
use crate::push::Counters;
use crate::state::{Codec, LoadError, State};
use crate::tasklet::Tasklet;
use pelton_storage::{
    Checkpoint, Epoch, Filter, Lineage, SegmentBytes, SnapshotReader, StateId, StorageError,
};
use std::collections::BTreeMap;

/// The sections of a checkpoint that are the engine's, as values.
pub(crate) struct Sections;

const JOB: &str = "job";
const STATES: &str = "states";
const PREPARED: &str = "prepared";
const LAYOUT: &str = "layout";
const COUNTERS: &str = "counters";
/// There only where there were any: the row of counters has the seven that the format began with.
const DROPPED_MATCHES: &str = "dropped matches";
/// There only where there were any.
const STRAY_RETRACTIONS: &str = "stray retractions";

/// Of a state: its number, uid, whether that was given, operator, name and shape.
type StateRow = (u64, (String, (bool, (String, (String, String)))));
/// Of what a sink prepared: its number, the epoch, and the bytes.
type PreparedRow = (u64, (u64, Vec<u8>));
/// For each attempt of the store, the number of shards that wrote.
type LayoutRow = (u32, u32);

/// Counters as [`Counters::row`] has them, and whether the job began elsewhere.
type CountersRow = ([u64; 7], bool);

impl Sections {
    /// Those that do not change while the job runs.
    pub fn of_job(
        name: &str,
        key_groups: u32,
        registry: &Registry,
        layout: &[LayoutRow],
    ) -> BTreeMap<String, Vec<u8>> {
        let rows: Vec<StateRow> = registry.states().map(row).collect();
        BTreeMap::from([
            (JOB.into(), save(&(name.to_string(), key_groups))),
            (STATES.into(), save(&rows)),
            (LAYOUT.into(), save(&layout.to_vec())),
        ])
    }

    /// What sinks have prepared, in the order in which it is to be committed.
    pub fn put_prepared<'a>(
        sections: &mut BTreeMap<String, Vec<u8>>,
        prepared: impl IntoIterator<Item = &'a Prepared>,
    ) {
        let rows: Vec<PreparedRow> = prepared
            .into_iter()
            .map(|p| (p.sink.0, (p.epoch.0, p.bytes.clone())))
            .collect();
        sections.insert(PREPARED.into(), save(&rows));
    }

    pub fn put_counters(sections: &mut BTreeMap<String, Vec<u8>>, counted: &Counted) {
        let row: CountersRow = (counted.counters.row(), counted.began_elsewhere);
        sections.insert(COUNTERS.into(), save(&row));
        for (name, count) in [
            (DROPPED_MATCHES, counted.counters.dropped_matches),
            (STRAY_RETRACTIONS, counted.counters.stray_retractions),
        ] {
            if count > 0 {
                sections.insert(name.into(), save(&count));
            }
        }
    }

    /// Reads all that are the engine's; how many of them there are.
    pub fn read_all(checkpoint: &Checkpoint) -> Result<u64, LoadError> {
        Self::job(checkpoint)?;
        Self::states(checkpoint)?;
        Self::layout(checkpoint)?;
        Self::prepared(checkpoint)?;
        Self::counters(checkpoint)?;
        let known = [
            JOB,
            STATES,
            PREPARED,
            LAYOUT,
            COUNTERS,
            DROPPED_MATCHES,
            STRAY_RETRACTIONS,
        ];
        let there = known.map(|name| u64::from(checkpoint.sections.contains_key(name)));
        Ok(there.iter().sum())
    }

    /// What the job had counted; nothing, if it was written before there were such.
    pub fn counters(checkpoint: &Checkpoint) -> Result<Counted, LoadError> {
        if !checkpoint.sections.contains_key(COUNTERS) {
            return Ok(Counted::default());
        }
        let (row, began_elsewhere): CountersRow = load(checkpoint, COUNTERS)?;
        let mut counters = Counters::of_row(row);
        for (name, count) in [
            (DROPPED_MATCHES, &mut counters.dropped_matches),
            (STRAY_RETRACTIONS, &mut counters.stray_retractions),
        ] {
            if checkpoint.sections.contains_key(name) {
                *count = load(checkpoint, name)?;
            }
        }
        Ok(Counted {
            counters,
            began_elsewhere,
        })
    }

    pub fn layout(checkpoint: &Checkpoint) -> Result<Vec<LayoutRow>, LoadError> {
        load(checkpoint, LAYOUT)
    }

    pub fn prepared(checkpoint: &Checkpoint) -> Result<Vec<Prepared>, LoadError> {
        let rows: Vec<PreparedRow> = load(checkpoint, PREPARED)?;
        let one = |(sink, (epoch, bytes))| Prepared {
            sink: StateId(sink),
            epoch: Epoch(epoch),
            bytes,
        };
        Ok(rows.into_iter().map(one).collect())
    }

    /// Those of a copy of the checkpoint that stands alone: nothing for sinks to commit, and all that was written by one.
    pub fn standing_alone(checkpoint: &Checkpoint) -> BTreeMap<String, Vec<u8>> {
        let mut sections = checkpoint.sections.clone();
        Self::put_prepared(&mut sections, &[]);
        sections.insert(LAYOUT.into(), save(&Vec::<LayoutRow>::new()));
        sections
    }

    /// The name and the number of key groups of the job that wrote it.
    pub fn job(checkpoint: &Checkpoint) -> Result<(String, u32), LoadError> {
        load(checkpoint, JOB)
    }

    /// The states of the job that wrote it.
    pub fn states(checkpoint: &Checkpoint) -> Result<Vec<Declared>, LoadError> {
        let rows: Vec<StateRow> = load(checkpoint, STATES)?;
        Ok(rows.into_iter().map(declared).collect())
    }
}

fn row(state: &Declared) -> StateRow {
    let names = (state.name.clone(), state.shape.clone());
    let operator = (state.given, (state.operator.clone(), names));
    (state.id.0, (state.uid.clone(), operator))
}

fn declared((id, (uid, (given, (operator, (name, shape))))): StateRow) -> Declared {
    Declared {
        id: StateId(id),
        uid,
        given,
        operator,
        name,
        shape,
    }
}

fn save<T: State>(value: &T) -> Vec<u8> {
    Codec::default().bytes_of(value)
}

fn load<T: State>(checkpoint: &Checkpoint, section: &str) -> Result<T, LoadError> {
    let Some(bytes) = checkpoint.sections.get(section) else {
        return Err(LoadError {
            what: format!("it has no section '{section}': it was not written by Pelton's engine"),
        });
    };
    Codec::default().load(bytes)
}

/// Why a job cannot go on from a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Unfit {
    pub what: String,
}

impl Unfit {
    pub fn new(what: impl Into<String>) -> Self {
        Unfit { what: what.into() }
    }
}

impl From<LoadError> for Unfit {
    fn from(e: LoadError) -> Self {
        Unfit { what: e.what }
    }
}

impl From<StorageError> for Unfit {
    fn from(e: StorageError) -> Self {
        Unfit {
            what: e.to_string(),
        }
    }
}

/// Law 2: whether a job with these states can go on from its checkpoint, and how.
pub(crate) fn check(
    checkpoint: &Checkpoint,
    key_groups: u32,
    registry: &Registry,
) -> Result<Fit, Unfit> {
    check_groups(checkpoint, key_groups)?;
    let mut fit = Fit::AsItIs;
    for stored in Sections::states(checkpoint)? {
        let Some(now) = registry.get(stored.id) else {
            let advice = match stored.given {
                true => "keep an operator with this uid",
                false => {
                    "the job has changed, and the operator has no uid of its own to be known by: \
                     start the job as it was, give its operators uids, and take another checkpoint"
                }
            };
            return Err(Unfit::new(format!(
                "it has the state '{}' of {} (uid '{}'), which this job has not: {advice}",
                stored.name, stored.operator, stored.uid
            )));
        };
        if check_shape(&stored, now, registry)? == Fit::Migrates {
            fit = Fit::Migrates;
        }
    }
    Ok(fit)
}

/// How a job goes on from a checkpoint of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// All states have the shapes that they were written with.
    AsItIs,
    /// Some state is loaded from another shape: nothing may stand on what was written with it, so all is written anew.
    Migrates,
}

pub(super) fn check_groups(checkpoint: &Checkpoint, key_groups: u32) -> Result<(), Unfit> {
    let (job, groups) = Sections::job(checkpoint)?;
    match groups == key_groups {
        true => Ok(()),
        false => Err(Unfit::new(format!(
            "it was written by job '{job}' with {groups} key groups, and there are {key_groups} now: the number is fixed for a job's life"
        ))),
    }
}

pub(super) fn check_shape(
    stored: &Declared,
    now: &Declared,
    registry: &Registry,
) -> Result<Fit, Unfit> {
    if now.shape == stored.shape {
        return Ok(Fit::AsItIs);
    }
    if registry.can_migrate(now.id, &stored.shape) {
        return Ok(Fit::Migrates);
    }
    Err(Unfit::new(format!(
        "the state '{}' of {} (uid '{}') was written as {} and is {} now",
        stored.name, now.operator, now.uid, stored.shape, now.shape
    )))
}

/// Law 1.
pub(crate) fn recover_sinks(
    last: Option<&Checkpoint>,
    committers: &mut [NamedCommitter],
) -> Result<(), Unfit> {
    if let Some(checkpoint) = last {
        for prepared in Sections::prepared(checkpoint)? {
            super::kill::kill_point("recovering");
            commit_one(committers, &prepared).map_err(|(sink, e)| {
                let epoch = prepared.epoch;
                Unfit::new(format!("sink {sink} could not commit epoch {epoch}: {e}"))
            })?;
        }
    }
    let epoch = last.map(|c| c.epoch);
    for (_, name, committer) in committers.iter_mut() {
        committer
            .recover(epoch)
            .map_err(|what| Unfit::new(format!("sink {name} could not recover: {what}")))?;
    }
    super::kill::kill_point("recovered");
    Ok(())
}

/// For each attempt whose segments may still be named, and for this one, how many shards wrote.
pub(crate) fn layout(
    last: Option<&Checkpoint>,
    attempt: u32,
    shards: usize,
) -> Result<Vec<(u32, u32)>, LoadError> {
    let mut layout = match last {
        Some(last) => Sections::layout(last)?,
        None => vec![],
    };
    if let Some(last) = last {
        let named = |a: u32| last.segments.iter().any(|e| e.segment.attempt == a);
        layout.retain(|(a, _)| named(*a));
    }
    layout.push((attempt, shards as u32));
    Ok(layout)
}

/// The part of a checkpoint that a shard has to read (law 3).
pub(crate) fn share_of(
    checkpoint: &Checkpoint,
    shard: usize,
    shards: usize,
) -> Result<Checkpoint, LoadError> {
    let layout = Sections::layout(checkpoint)?;
    let mut share = checkpoint.clone();
    let attempts = |attempt| layout.iter().find(|(a, _)| *a == attempt);
    let same = checkpoint
        .segments
        .iter()
        .all(|e| attempts(e.segment.attempt).is_some_and(|(_, n)| *n as usize == shards));
    if same {
        share.segments.retain(|e| e.segment.shard as usize == shard);
    }
    Ok(share)
}

/// Entries and bytes that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Entries, those among them that a later one replaced.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// They came from the savepoint, or the other job's checkpoint, that [`crate::Checkpointing::from_savepoint`] names: the
    /// job's own folder held no checkpoint.
    pub is_from_elsewhere: bool,
    /// What the job had counted by then: its counters go on from there.
    pub counters: Counters,
    /// The job was started from elsewhere, now or in an earlier life: not all that it has counted went to its own sinks.
    pub began_elsewhere: bool,
}

/// Reads a shard's share and gives its entries to the tasklets.
pub(crate) fn load_shard<S: SegmentBytes>(
    source: S,
    lineage: Lineage,
    share: &Checkpoint,
    tasklets: &mut [&mut dyn Tasklet],
) -> Result<Restored, JobLoad> {
    let mut restored = Restored::default();
    let shapes: BTreeMap<u64, String> = Sections::states(share)?
        .into_iter()
        .map(|state| (state.id.0, state.shape))
        .collect();
    let mut reader = SnapshotReader::new(source, lineage, share, Filter::default());
    // Which tasklet a state is of, once known.
    let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
    while let Some(block) = reader.next_block()? {
        let state = block.head.state;
        restored.bytes += block.bytes.len() as u64;
        let stored = shapes.get(&state.0).map(String::as_str);
        let mut wrong = None;
        for frame in block.frames() {
            let frame = match frame {
                Ok(frame) => frame,
                Err(w) => {
                    wrong = Some(w);
                    break;
                }
            };
            restored.entries += 1;
            let frame = Frame {
                state,
                key: frame.key,
                value: frame.value,
                stored,
            };
            give(&frame, tasklets, &mut owners)?;
        }
        if let Some(wrong) = wrong {
            return Err(reader.wrong_frame(wrong).into());
        }
    }
    for tasklet in tasklets.iter_mut() {
        tasklet.check_loaded()?;
        let had = |state: StateId| shapes.contains_key(&state.0);
        tasklet.loaded(&had).map_err(JobLoad::Job)?;
    }
    Ok(restored)
}

fn give(
    frame: &Frame<'_>,
    tasklets: &mut [&mut dyn Tasklet],
    owners: &mut BTreeMap<u64, usize>,
) -> Result<(), LoadError> {
    if let Some(&owner) = owners.get(&frame.state.0) {
        tasklets[owner].load(frame)?;
        return Ok(());
    }
    for (at, tasklet) in tasklets.iter_mut().enumerate() {
        if tasklet.load(frame)? {
            owners.insert(frame.state.0, at);
            return Ok(());
        }
    }
    // Of a state that was declared and keeps nothing on this shard.
    Ok(())
}

/// Why a job cannot start from what is there: that does not fit, or a part of the job says no.
#[derive(Debug)]
pub(crate) enum JobLoad {
    Unfit(Unfit),
    Job(JobError),
}

impl JobLoad {
    /// As the job's error: `unfit` says where it is that does not fit.
    pub fn told(self, unfit: impl FnOnce(Unfit) -> JobError) -> JobError {
        match self {
            JobLoad::Unfit(e) => unfit(e),
            JobLoad::Job(e) => e,
        }
    }
}

impl From<Unfit> for JobLoad {
    fn from(e: Unfit) -> Self {
        JobLoad::Unfit(e)
    }
}

impl From<LoadError> for JobLoad {
    fn from(e: LoadError) -> Self {
        JobLoad::Unfit(e.into())
    }
}

impl From<StorageError> for JobLoad {
    fn from(e: StorageError) -> Self {
        JobLoad::Unfit(e.into())
    }
}
