//! What a plan becomes: the tasklets of each shard, and what they need to be made.

use super::{AllEnds, EdgeId, Found, OpInfo, Warning, few_partitions};
use crate::checkpoint::{Registry, uid_of};
use crate::dead_letters::Letters;
use crate::edge::{EdgeReader, EdgeWriter};
use crate::error::BuildError;
use crate::key::KeySpace;
use crate::port::{NamedStart, Ports, Start};
use crate::push::{Cx, OpId};
use crate::query::Queryable;
use crate::sink::Committer;
use crate::tasklet::Tasklet;
use crate::watermark::Alignment;
use pelton_storage::StateId;
use std::sync::Arc;

/// Sizes that a plan is built with.
#[derive(Clone, Debug)]
pub(crate) struct PlanConfig {
    pub shards: usize,
    pub ring_capacity: usize,
    pub batch_size: usize,
    pub key_groups: u32,
    /// Whether the job takes checkpoints.
    pub checkpoints: bool,
}

/// Given to a stage's factory for each shard.
pub(crate) struct ShardBuild<'a, 'p> {
    pub job: &'a str,
    pub stage: usize,
    pub shard: usize,
    pub shards: usize,
    /// The edge for the dead letters of this stage.
    pub(super) letters: Option<EdgeId>,
    pub config: &'a PlanConfig,
    pub(super) ends: &'a mut AllEnds,
    pub ports: &'a mut Ports<'p>,
    /// Source partitions on this shard (indices among all), set by a source root before the chain is linked.
    pub partitions: Vec<usize>,
    /// Whether some edge out of this stage carries origins.
    pub origins_out: bool,
    /// Set by a source root whose strategy asks for it.
    pub alignment: Option<Arc<Alignment>>,
    pub(super) all_ops: &'a [OpInfo],
    pub(super) stage_ops: &'a [OpId],
    pub(super) states: &'a mut Registry,
    /// What can be asked of its operators.
    pub queryable: &'a mut Vec<Queryable>,
    /// What sinks commit with, pushed when a sink is opened.
    pub committers: &'a mut Vec<NamedCommitter>,
    /// Pitfalls that only the built job has.
    pub(super) found: &'a mut Vec<Found>,
}

/// What a sink commits with: the number of its share in checkpoints, and its name.
pub(crate) type NamedCommitter = (StateId, String, Box<dyn Committer>);

impl ShardBuild<'_, '_> {
    pub fn cx(&self) -> Cx {
        let mut cx = Cx::new(self.shard);
        cx.keep_dead = self.letters.is_some();
        cx
    }

    /// Declares a state of an operator; without one, of the operator at the stage's head.
    pub fn state(&mut self, op: Option<OpId>, name: &str, shape: &str) -> StateId {
        let Some(op) = op.or(self.stage_ops.first().copied()) else {
            unreachable!("a stage has an operator at its head")
        };
        let info = &self.all_ops[op.0 as usize];
        self.states.declare(info, name, shape)
    }

    /// An operator as errors name it.
    pub fn op_name(&self, op: OpId) -> String {
        self.all_ops[op.0 as usize].to_string()
    }

    /// The uid of an operator, given or derived, and which.
    pub fn uid_of(&self, op: OpId) -> (String, bool) {
        uid_of(&self.all_ops[op.0 as usize])
    }

    /// A source has been opened and has so many partitions.
    pub fn opened(&mut self, partitions: usize) {
        if let Some(&op) = self.stage_ops.first() {
            self.found
                .extend(few_partitions(op, partitions, self.shards));
        }
    }

    /// A state can be loaded from shapes other than its own: those of which `can` says so.
    pub fn migrates(&mut self, state: StateId, can: fn(&str) -> bool) {
        self.states.migrates(state, can);
    }

    /// The way of this stage's dead letters.
    pub fn letters(&mut self) -> Letters {
        Letters::new(self.letters.map(|edge| self.writer(edge)))
    }

    pub fn key_space(&self) -> KeySpace {
        KeySpace::new(self.config.key_groups, self.shards as u32)
    }

    pub fn writer<T: Send + 'static>(&mut self, edge: EdgeId) -> EdgeWriter<T> {
        let end = self
            .ends
            .get_mut(&(edge.0, self.shard))
            .and_then(|e| e.0.take());
        match end.and_then(|e| e.downcast().ok()) {
            Some(writer) => *writer,
            None => unreachable!("an edge has one writer a shard, of its own type"),
        }
    }

    pub fn reader<T: Send + 'static>(&mut self, edge: EdgeId) -> EdgeReader<T> {
        let end = self
            .ends
            .get_mut(&(edge.0, self.shard))
            .and_then(|e| e.1.take());
        match end.and_then(|e| e.downcast().ok()) {
            Some(reader) => *reader,
            None => unreachable!("an edge has one reader a shard, of its own type"),
        }
    }
}

/// A stage with a tasklet for each shard.
pub(crate) struct BuiltStage {
    pub ops: Vec<OpInfo>,
    /// Records come to it from every shard.
    pub exchanged: bool,
    pub tasklets: Vec<Box<dyn Tasklet>>,
}

/// A job ready to be placed.
pub(crate) struct BuiltJob {
    pub name: String,
    pub ops: Vec<OpInfo>,
    pub stages: Vec<BuiltStage>,
    pub states: Registry,
    pub queryable: Vec<Queryable>,
    pub committers: Vec<NamedCommitter>,
    /// Its pitfalls.
    pub warnings: Vec<Warning>,
    /// What its sinks do at the start, until that has come.
    pub starts: Vec<NamedStart>,
    /// How many bytes its states may have.
    pub max_state_bytes: Option<u64>,
}

impl BuiltJob {
    /// Nothing stands against the job any longer: its sinks start (law 5).
    pub fn start_sinks(&mut self, start: &Start) -> Result<(), BuildError> {
        for (sink, at_start) in std::mem::take(&mut self.starts) {
            at_start(start).map_err(|what| BuildError::Sink { sink, what })?;
        }
        Ok(())
    }

    /// What to say of a panic: `(operator, position)`.
    pub fn blame(ops: &[OpInfo], stage_ops: &[OpInfo], blamed: Option<OpId>) -> String {
        match blamed.and_then(|id| ops.get(id.0 as usize)) {
            Some(op) => op.to_string(),
            // What a source's reader does is the one user code of its stage that is not blamed.
            None => match stage_ops.first() {
                Some(source) if source.kind == "source" => source.to_string(),
                _ => {
                    let names: Vec<_> = stage_ops.iter().map(ToString::to_string).collect();
                    names.join(" -> ")
                }
            },
        }
    }
}
