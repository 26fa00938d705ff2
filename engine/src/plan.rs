//! What a job is before it runs: operators, stages and edges, in the order in which they were written.
//!
//! Laws
//! 1. Stages are numbered in topological order: an edge leads from a lower stage to a higher one.
//! 2. A stage is a factory: called once a shard, it gives a tasklet. User closures are cloned there, one a shard.
//! 3. A fault in what the user wrote is kept and told when the job is built, with the operator and its place in the source.
//! 4. Whether results may be replaced later is a fact of its own beside the class, since EXEMPT says nothing of it, and it
//!    stays with all that is made of them: no operator behind takes back what it made of a result that was replaced.
//! 5. Sources and sinks open in the order of their stages, and none of them destroys anything before all have and the job fits to what
//!    it goes on from ([`Ports::at_start`]): a job that is refused by then leaves its outputs as they were.

use crate::checkpoint::{Checkpointing, Registry};
use crate::dead_letters::{self};
use crate::edge::{EdgeConfig, Wiring, connect};
use crate::error::BuildError;
use crate::port::Ports;
use crate::push::{DeadLetter, OpId};
use crate::tasklet::Tasklet;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

mod build;
mod pitfalls;

pub(crate) use build::{BuiltJob, BuiltStage, NamedCommitter, PlanConfig, ShardBuild};
pub(crate) use pitfalls::{Found, few_partitions};
pub use pitfalls::{Pitfall, Warning};

/// What is equal between two runs of a job (SEMANTICS, classes of operators). Whether its results are final is another
/// matter: see [`OpInfo::replaced`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Sorted output is byte-equal, whatever the shard count, interleaving or crashes.
    Rows,
    /// Equal after applying changes: the last value per key counts.
    Net,
    /// Depends on processing time or arrival order.
    Exempt,
}

/// What is known of a stream's results before the job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Results {
    pub class: Class,
    /// Whether a later result may replace one, or take it back.
    pub replaced: bool,
}

impl Results {
    /// The same in every run, each of them final.
    pub const ROWS: Results = Results::last(Class::Rows);
    /// Running values: each replaces the one before.
    pub const NET: Results = Results {
        class: Class::Net,
        replaced: true,
    };

    /// Results of this class, each of them final.
    pub const fn last(class: Class) -> Self {
        Results {
            class,
            replaced: false,
        }
    }

    /// What is known of results that come of both.
    pub fn and(self, other: Results) -> Self {
        Results {
            class: self.class.max(other.class),
            replaced: self.replaced || other.replaced,
        }
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.class {
            Class::Rows => "ROWS",
            Class::Net => "NET",
            Class::Exempt => "EXEMPT",
        })?;
        if self.replaced {
            f.write_str(", may be replaced")?;
        }
        Ok(())
    }
}

/// An operator as it was written.
#[derive(Clone, Debug)]
pub struct OpInfo {
    /// Its number.
    pub id: OpId,
    /// `map`, `window`, ..
    pub kind: &'static str,
    /// The name that state and savepoints know it by, where one was given.
    pub uid: Option<String>,
    /// Where it was written.
    pub location: &'static Location<'static>,
    /// Class of its output.
    pub class: Class,
    /// Whether a later result may replace one, or take it back: no input for an append-only sink.
    pub replaced: bool,
    /// What `explain` adds: window sizes, names of files.
    pub detail: String,
}

impl OpInfo {
    /// What is known of its results.
    pub(crate) fn results(&self) -> Results {
        Results {
            class: self.class,
            replaced: self.replaced,
        }
    }
}

impl fmt::Display for OpInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.uid {
            Some(uid) => write!(f, "{} '{uid}'", self.kind)?,
            None => write!(f, "{}", self.kind)?,
        }
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        write!(f, " at {}:{}", self.location.file(), self.location.line())
    }
}

/// Number of an edge within its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EdgeId(pub usize);

type Ends = Box<dyn Any + Send>;
/// By (edge, shard): the writing end and the reading end, each taken once.
type AllEnds = BTreeMap<(usize, usize), (Option<Ends>, Option<Ends>)>;
type Connect = Box<dyn Fn(EdgeConfig) -> Vec<(Ends, Ends)> + Send>;

struct EdgeSpec {
    wiring: Wiring,
    connect: Connect,
    /// For dead letters: short, and of small batches.
    letters: bool,
    from: Option<usize>,
    to: Option<usize>,
}

pub(crate) type Factory =
    Box<dyn FnMut(&mut ShardBuild<'_, '_>) -> Result<Box<dyn Tasklet>, BuildError> + Send>;
/// Makes the dead letters' stage, given the edges into it.
type DeadStage = Box<dyn FnOnce(Vec<EdgeId>) -> StageSpec + Send>;

/// A stage as it was written.
pub(crate) struct StageSpec {
    pub ops: Vec<OpId>,
    pub inputs: Vec<EdgeId>,
    /// Those beside the chain among them, but for the dead letters'.
    pub outputs: Vec<EdgeId>,
    pub origins: Origins,
    /// Whether it can find records that cannot be used.
    pub refuses: bool,
    pub factory: Factory,
}

/// The job being written.
#[derive(Default)]
pub(crate) struct Plan {
    pub name: String,
    pub ops: Vec<OpInfo>,
    stages: Vec<StageSpec>,
    edges: Vec<EdgeSpec>,
    /// The output for dead letters: its stage is added when the job is built, behind all others.
    dead: Option<(OpId, DeadStage)>,
    pub errors: Vec<BuildError>,
    /// How it takes checkpoints, if it does.
    pub checkpointing: Option<Checkpointing>,
    /// How many bytes its states may have.
    pub max_state_bytes: Option<u64>,
    /// Pitfalls: allowed, but they bite sooner or later.
    found: Vec<Found>,
    /// Sinks, those of what falls aside among them, and whether they are of two phases.
    pub sink_ops: Vec<(OpId, bool)>,
    /// Operators at the open ends of streams that were dropped.
    pub dangling: Vec<OpId>,
    pub sources: u32,
    pub sinks: u32,
}

/// The plan, shared by the job and its streams.
#[derive(Clone)]
pub(crate) struct SharedPlan(Arc<Mutex<Plan>>);

impl fmt::Debug for SharedPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({})", self.lock().name)
    }
}

impl SharedPlan {
    pub fn new(name: String) -> Self {
        SharedPlan(Arc::new(Mutex::new(Plan {
            name,
            ..Plan::default()
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To know this plan again, for as long as there is something of its job.
    pub fn downgrade(&self) -> Weak<Mutex<Plan>> {
        Arc::downgrade(&self.0)
    }

    /// Whether it is the plan that is known by this.
    pub fn is_known_by(&self, known: &Weak<Mutex<Plan>>) -> bool {
        known.as_ptr() == Arc::as_ptr(&self.0)
    }

    /// Whether both are the plan of one job.
    pub fn is(&self, other: &SharedPlan) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Takes the plan out to run it; streams that are still held write into an empty one, which is refused.
    pub fn take(&self) -> Plan {
        let mut plan = self.lock();
        let name = plan.name.clone();
        std::mem::replace(
            &mut *plan,
            Plan {
                errors: vec![BuildError::Taken { job: name.clone() }],
                name,
                ..Plan::default()
            },
        )
    }
}

impl Plan {
    /// Notes an operator.
    pub fn op(
        &mut self,
        kind: &'static str,
        results: Results,
        location: &'static Location<'static>,
    ) -> OpId {
        let id = OpId(self.ops.len() as u32);
        self.ops.push(OpInfo {
            id,
            kind,
            uid: None,
            location,
            class: results.class,
            replaced: results.replaced,
            detail: String::new(),
        });
        id
    }

    pub fn info(&self, id: OpId) -> &OpInfo {
        &self.ops[id.0 as usize]
    }

    pub fn info_mut(&mut self, id: OpId) -> &mut OpInfo {
        &mut self.ops[id.0 as usize]
    }

    /// Notes what is known of an operator's results.
    pub fn set_results(&mut self, op: OpId, results: Results) {
        let info = self.info_mut(op);
        (info.class, info.replaced) = (results.class, results.replaced);
    }

    /// Adds an edge whose producer stage is not known yet.
    pub fn edge<T: Send + 'static>(&mut self, wiring: Wiring) -> EdgeId {
        let connect = Box::new(|config| {
            let (writers, readers) = connect::<T>(config);
            writers
                .into_iter()
                .zip(readers)
                .map(|(w, r)| (Box::new(w) as Ends, Box::new(r) as Ends))
                .collect()
        });
        self.edges.push(EdgeSpec {
            wiring,
            connect,
            letters: false,
            from: None,
            to: None,
        });
        EdgeId(self.edges.len() - 1)
    }

    /// Adds a stage.
    pub fn stage(&mut self, stage: StageSpec) {
        let id = self.stages.len();
        for e in &stage.inputs {
            self.edges[e.0].to = Some(id);
        }
        for e in &stage.outputs {
            self.edges[e.0].from = Some(id);
        }
        self.stages.push(stage);
    }

    pub fn has_dead_letters(&self) -> bool {
        self.dead.is_some()
    }

    pub fn dead_letters(&mut self, op: OpId, stage: DeadStage) {
        self.dead = Some((op, stage));
    }

    /// Stages that can find records that cannot be used.
    fn refusing(&self) -> impl Iterator<Item = usize> {
        let stages = self.stages.iter().enumerate();
        stages.filter(|(_, stage)| stage.refuses).map(|(id, _)| id)
    }

    /// Adds the dead letters' stage, if the job has an output for them: the edge into it of each stage that has one.
    fn add_dead_letters(&mut self) -> BTreeMap<usize, EdgeId> {
        let Some((_, stage)) = self.dead.take() else {
            return BTreeMap::new();
        };
        let from: Vec<usize> = self.refusing().collect();
        let edges: BTreeMap<usize, EdgeId> = from
            .into_iter()
            .map(|from| {
                let edge = self.edge::<DeadLetter>(Wiring::Local);
                let spec = &mut self.edges[edge.0];
                (spec.from, spec.letters) = (Some(from), true);
                (from, edge)
            })
            .collect();
        self.stage(stage(edges.values().copied().collect()));
        edges
    }

    /// What is wrong with the plan, if anything (law 3).
    fn check(&self, config: &PlanConfig) -> Result<(), BuildError> {
        if let Some(e) = self.errors.first() {
            return Err(e.clone());
        }
        if config.shards == 0 {
            return Err(BuildError::Config {
                what: format!("job '{}' is to run on 0 shards", self.name),
                advice: "give it at least one".into(),
            });
        }
        if let Some(checkpointing) = &self.checkpointing
            && let Err((what, advice)) = checkpointing.check()
        {
            let advice = advice.into();
            return Err(BuildError::Config { what, advice });
        }
        if self.max_state_bytes == Some(0) {
            return Err(BuildError::Config {
                what: format!("the states of job '{}' may have 0 bytes", self.name),
                advice: "give it a budget above 0, or none".into(),
            });
        }
        self.check_uids()?;
        if let Some(&op) = self.dangling.first() {
            return Err(BuildError::Dangling {
                job: self.name.clone(),
                op: self.info(op).to_string(),
            });
        }
        if self.sources == 0 {
            return Err(BuildError::Empty {
                job: self.name.clone(),
                missing: "source",
            });
        }
        if self.sinks == 0 {
            return Err(BuildError::Empty {
                job: self.name.clone(),
                missing: "sink",
            });
        }
        Ok(())
    }

    /// A uid names one operator.
    fn check_uids(&self) -> Result<(), BuildError> {
        let mut named: BTreeMap<&str, &OpInfo> = BTreeMap::new();
        for op in &self.ops {
            let Some(uid) = &op.uid else { continue };
            if let Some(first) = named.insert(uid, op) {
                return Err(BuildError::argument(
                    op,
                    format!("the uid '{uid}' is that of {first} too"),
                    "give each operator a uid of its own",
                ));
            }
        }
        Ok(())
    }

    /// Edges that must carry origins: those into a stage that needs them, and back through stages that keep them.
    fn edges_with_origins(&self) -> BTreeSet<usize> {
        let mut wanted = BTreeSet::new();
        for stage in self.stages.iter().rev() {
            // Its records keep their origins: what a later stage needs must be carried to this one.
            let for_later = stage.origins != Origins::Makes
                && stage.outputs.iter().any(|e| wanted.contains(&e.0));
            if stage.origins == Origins::Needs || for_later {
                wanted.extend(stage.inputs.iter().map(|e| e.0));
            }
        }
        wanted
    }

    /// Builds the tasklets of all shards.
    pub fn build(
        mut self,
        config: &PlanConfig,
        ports: &mut Ports<'_>,
    ) -> Result<BuiltJob, BuildError> {
        self.check(config)?;
        ports.set_checkpoints(config.checkpoints);
        let shards = config.shards;
        let letters = self.add_dead_letters();
        let with_origins = self.edges_with_origins();
        let mut ends = self.connect(config, &with_origins);
        let mut states = Registry::default();
        let (mut committers, mut queryable) = (Vec::new(), Vec::new());
        let mut warnings = self.warnings();
        let mut found = Vec::new();
        let mut stages = Vec::new();
        for (id, stage) in self.stages.iter_mut().enumerate() {
            let names: Vec<_> = stage
                .ops
                .iter()
                .map(|o| self.ops[o.0 as usize].clone())
                .collect();
            let mut tasklets = Vec::new();
            for shard in 0..shards {
                let mut build = ShardBuild {
                    job: &self.name,
                    stage: id,
                    shard,
                    shards,
                    letters: letters.get(&id).copied(),
                    config,
                    ends: &mut ends,
                    ports,
                    partitions: vec![],
                    origins_out: stage.outputs.iter().any(|e| with_origins.contains(&e.0)),
                    alignment: None,
                    all_ops: &self.ops,
                    stage_ops: &stage.ops,
                    states: &mut states,
                    queryable: &mut queryable,
                    committers: &mut committers,
                    found: &mut found,
                };
                tasklets.push((stage.factory)(&mut build)?);
            }
            let edges = stage.inputs.iter().map(|e| &self.edges[e.0]);
            stages.push(BuiltStage {
                ops: names,
                exchanged: edges.into_iter().any(|e| e.wiring == Wiring::AllToAll),
                tasklets,
            });
        }
        states.check()?;
        warnings.extend(found.iter().map(|f| f.told(&self.ops)));
        Ok(BuiltJob {
            warnings,
            states,
            queryable,
            committers,
            starts: ports.take_starts(),
            name: self.name,
            ops: self.ops,
            stages,
            max_state_bytes: self.max_state_bytes,
        })
    }

    /// The rings of all edges.
    fn connect(&self, config: &PlanConfig, with_origins: &BTreeSet<usize>) -> AllEnds {
        let mut ends: AllEnds = BTreeMap::new();
        for (id, edge) in self.edges.iter().enumerate() {
            let (mut ring_capacity, mut batch_size) = (config.ring_capacity, config.batch_size);
            if edge.letters {
                ring_capacity = ring_capacity.min(dead_letters::RING);
                batch_size = batch_size.min(dead_letters::BATCH);
            }
            let made = (edge.connect)(EdgeConfig {
                shards: config.shards,
                wiring: edge.wiring,
                ring_capacity,
                batch_size,
                origins: with_origins.contains(&id),
            });
            for (shard, (writer, reader)) in made.into_iter().enumerate() {
                ends.insert((id, shard), (Some(writer), Some(reader)));
            }
        }
        ends
    }

    /// One stage as text, from these inputs.
    fn explain_stage(&self, id: usize, from: Vec<String>, ops: &[OpId]) -> String {
        let mut out = match &from[..] {
            [] => format!("  stage {id}: reads\n"),
            _ => format!("  stage {id}: from {}\n", from.join(", ")),
        };
        for op in ops {
            let info = self.info(*op);
            out += &format!("    {info} [{}]\n", info.results());
        }
        out
    }

    /// For tests: what the operators of this plan, in one stage, are made with on a shard.
    #[cfg(test)]
    pub fn alone<R>(
        &self,
        config: &PlanConfig,
        shard: usize,
        make: impl FnOnce(&mut ShardBuild<'_, '_>) -> R,
    ) -> R {
        let ops: Vec<OpId> = self.ops.iter().map(|op| op.id).collect();
        make(&mut ShardBuild {
            job: &self.name,
            stage: 0,
            shard,
            shards: config.shards,
            letters: None,
            config,
            ends: &mut AllEnds::new(),
            ports: &mut Ports::inline(config.shards),
            partitions: vec![],
            origins_out: true,
            alignment: None,
            all_ops: &self.ops,
            stage_ops: &ops,
            states: &mut Registry::default(),
            queryable: &mut vec![],
            committers: &mut vec![],
            found: &mut vec![],
        })
    }

    /// The plan as text: stages with their operators, what is known of their results, and exchanges, then the warnings.
    pub fn explain(&self) -> String {
        use fmt::Write;
        let mut out = format!("job '{}'\n", self.name);
        for (id, stage) in self.stages.iter().enumerate() {
            let from = stage.inputs.iter().map(|e| &self.edges[e.0]);
            let from = from.map(|edge| match (edge.from, edge.wiring) {
                (Some(s), Wiring::AllToAll) => format!("stage {s} by exchange"),
                (Some(s), Wiring::Local) => format!("stage {s}"),
                (None, _) => "nothing".into(),
            });
            out += &self.explain_stage(id, from.collect(), &stage.ops);
        }
        if let Some((op, _)) = &self.dead {
            let from = self.refusing().map(|s| format!("stage {s}"));
            out += &self.explain_stage(self.stages.len(), from.collect(), &[*op]);
        }
        for warning in self.warnings() {
            let _ = writeln!(out, "  warning: {warning}");
        }
        out
    }
}

/// What a stage does with the origins of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    /// Its operator breaks ties by them.
    Needs,
    /// It hands records on with the origins they had.
    Keeps,
    /// Its records are derived: it gives them origins of its own.
    Makes,
}

/// A stage's operators in one line.
pub(crate) fn stage_name(ops: &[OpInfo]) -> String {
    ops.iter()
        .map(|o| o.uid.clone().unwrap_or_else(|| o.kind.to_string()))
        .collect::<Vec<_>>()
        .join(" -> ")
}
