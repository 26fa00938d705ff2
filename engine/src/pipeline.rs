//! A pipeline is a stage as it is being written: a root (a source, or an operator behind rings) and the links after it.
//!
//! Each method of [`crate::Stream`] wraps the pipeline in one more type, so that a whole stage compiles into one loop;
//! an exchange, a fork, a split or a sink closes it, and no type spans two stages.

use crate::batch::Batch;
use crate::checkpoint::{Epoch, Saver};
use crate::edge::Inbox;
use crate::error::BuildError;
use crate::plan::{EdgeId, Origins, ShardBuild, StageSpec};
use crate::push::Push;
use crate::source::{Reader, Source};
use crate::stage::operator::{Operator, OperatorStage};
use crate::stage::source::{Kept, Slot, SourceStage};
use crate::state::shape_of;
use crate::tasklet::Tasklet;
use crate::time::Span;
use crate::watermark::Alignment;
use std::sync::Arc;

/// A stage being written: what [`crate::Stream`] is generic over.
#[allow(private_interfaces)]
pub trait Pipeline: Send + 'static {
    /// What stands at its head.
    type Root: Root;
    /// What comes out of its last link.
    type Item: Send + 'static;
    /// The chain of links, when `N` follows.
    type Link<N: Push<Self::Item> + Send + 'static>: Push<<Self::Root as Root>::Item>
        + Send
        + 'static;
    /// Makes one shard's chain.
    #[doc(hidden)]
    fn link<N: Push<Self::Item> + Send + 'static>(
        &self,
        next: N,
        build: &mut ShardBuild<'_, '_>,
    ) -> Self::Link<N>;
    /// The head.
    #[doc(hidden)]
    fn root(&mut self) -> &mut Self::Root;
}

/// The head of a stage.
#[allow(private_interfaces)]
pub trait Root: Send + 'static {
    /// What it feeds to the first link.
    type Item: Send + 'static;
    /// Called on each shard before the chain is linked.
    #[doc(hidden)]
    fn open(&mut self, _build: &mut ShardBuild<'_, '_>) -> Result<(), BuildError> {
        Ok(())
    }
    /// Makes one shard's tasklet.
    #[doc(hidden)]
    fn tasklet<P: Push<Self::Item> + Send + 'static>(
        &mut self,
        chain: P,
        build: &mut ShardBuild<'_, '_>,
    ) -> Result<Box<dyn Tasklet>, BuildError>;
    /// Edges that it reads.
    #[doc(hidden)]
    fn inputs(&self) -> Vec<EdgeId>;
    /// Stages of what falls aside of it, each with the edge that it writes to it; asked for once.
    #[doc(hidden)]
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        vec![]
    }
    /// Whether it, or a link behind it, can find records that cannot be used: only such a stage sends dead letters.
    #[doc(hidden)]
    fn refuses(&self) -> bool;
    /// What it does with origins.
    #[doc(hidden)]
    fn origins(&self) -> Origins;
    /// Asked by `event_time`: keeps partitions within this drift of one another.
    #[doc(hidden)]
    fn align(&mut self, _drift: Option<Span>) {}
}

/// A closing of a pipeline: where its records go.
#[allow(private_interfaces)]
pub(crate) trait Terminal<T>: Send + 'static {
    type End: Push<T> + Send + 'static;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError>;
    fn outputs(&self) -> Vec<EdgeId>;
}

/// The root of a stage that reads a source.
#[derive(Debug)]
pub struct SourceRoot<S: Source> {
    pub(crate) source: S,
    pub(crate) number: u32,
    /// Opened at the first shard; each shard takes its own.
    opened: Option<Vec<Option<S::Reader>>>,
    drift: Option<Span>,
    alignment: Option<Arc<Alignment>>,
}

impl<S: Source> SourceRoot<S> {
    pub(crate) fn new(source: S, number: u32) -> Self {
        SourceRoot {
            source,
            number,
            opened: None,
            drift: None,
            alignment: None,
        }
    }
}

#[allow(private_interfaces)]
impl<S: Source> Root for SourceRoot<S> {
    type Item = S::Item;

    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<(), BuildError> {
        let readers = match &mut self.opened {
            Some(readers) => readers,
            None => {
                let name = self.source.name();
                let readers = self
                    .source
                    .open(build.ports)
                    .map_err(|what| BuildError::Source {
                        source_name: name,
                        what,
                    })?;
                self.alignment = self
                    .drift
                    .map(|drift| Arc::new(Alignment::new(readers.len(), drift)));
                build.opened(readers.len());
                self.opened.insert(readers.into_iter().map(Some).collect())
            }
        };
        build.partitions = (0..readers.len())
            .filter(|p| build.ports.shard_of_partition(*p) == build.shard)
            .collect();
        build.alignment.clone_from(&self.alignment);
        Ok(())
    }

    fn tasklet<P: Push<S::Item> + Send + 'static>(
        &mut self,
        chain: P,
        build: &mut ShardBuild<'_, '_>,
    ) -> Result<Box<dyn Tasklet>, BuildError> {
        let saver = Saver::new(build.state(None, "positions", &shape_of::<Kept>()));
        let partitions = self.opened.as_ref().map_or(0, Vec::len);
        let mut slots = Vec::new();
        for &global in &build.partitions {
            if let Some(reader) = self.opened.as_mut().and_then(|o| o[global].take()) {
                if build.config.checkpoints && reader.position().is_none() {
                    return Err(BuildError::Source {
                        source_name: self.source.name(),
                        what: "what it has read cannot be had again, so the job cannot take checkpoints: \
                               take a source that can be replayed, or run the job without them"
                            .into(),
                    });
                }
                slots.push(Slot {
                    reader,
                    global,
                    ended: false,
                    offset: 0,
                    saved: None,
                });
            }
        }
        let gathers = chain.takes_batches();
        // A batch for each shard a read: an exchange's batches fill although they are split. An eighth less where they are
        // split by key: the lanes' shares differ a little, and one that overflows would send a second batch of a few records.
        let batches = build.config.batch_size * build.shards.min(8);
        let read_max = if build.shards > 1 && !gathers {
            (batches - batches / 8).max(1)
        } else {
            batches
        };
        Ok(Box::new(SourceStage {
            stage: build.stage,
            job: build.job.to_string(),
            name: self.source.name(),
            source: self.number,
            slots,
            partitions,
            saver,
            reached: Epoch(0),
            restored: false,
            wanted: None,
            stopped: false,
            chain,
            cx: build.cx(),
            letters: build.letters(),
            read_max,
            turn: 0,
            gathered: Batch::with_capacity(if gathers { batches } else { 0 }),
            gathers,
            origins_out: build.origins_out,
            alignment: build.alignment.clone(),
            ended: false,
        }))
    }

    fn inputs(&self) -> Vec<EdgeId> {
        vec![]
    }
    fn refuses(&self) -> bool {
        true
    }
    fn origins(&self) -> Origins {
        Origins::Keeps
    }
    fn align(&mut self, drift: Option<Span>) {
        self.drift = drift;
    }
}

#[allow(private_interfaces)]
impl<S: Source> Pipeline for SourceRoot<S> {
    type Root = Self;
    type Item = S::Item;
    type Link<N: Push<S::Item> + Send + 'static> = N;
    fn link<N: Push<S::Item> + Send + 'static>(&self, next: N, _: &mut ShardBuild<'_, '_>) -> N {
        next
    }
    fn root(&mut self) -> &mut Self {
        self
    }
}

/// Makes an operator on each shard.
#[allow(private_interfaces)]
pub trait MakeOperator<In>: Send + 'static {
    /// The operator.
    type Op: Operator<In>;
    /// Makes one shard's.
    #[doc(hidden)]
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError>;
    /// Stages of what falls aside of it, each with the edge that it writes to it; asked for once.
    #[doc(hidden)]
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        vec![]
    }
    /// Whether it calls [`crate::push::Cx::malformed`]: dead letters of one that does not say so are lost.
    #[doc(hidden)]
    fn refuses(&self) -> bool {
        false
    }
    /// How many of its inputs, the first, are read before the others ([`crate::Stream::union_by_priority`]).
    #[doc(hidden)]
    fn preferred(&self) -> usize {
        0
    }
    /// What it does with origins.
    #[doc(hidden)]
    fn origins(&self) -> Origins;
}

/// The root of a stage that reads rings.
#[derive(Debug)]
pub struct OperatorRoot<In, M> {
    pub(crate) make: M,
    pub(crate) edges: Vec<EdgeId>,
    pub(crate) input: std::marker::PhantomData<fn(In)>,
}

#[allow(private_interfaces)]
impl<In: Send + 'static, M: MakeOperator<In>> Root for OperatorRoot<In, M>
where
    <M::Op as Operator<In>>::Out: Send,
{
    type Item = <M::Op as Operator<In>>::Out;

    fn tasklet<P: Push<Self::Item> + Send + 'static>(
        &mut self,
        chain: P,
        build: &mut ShardBuild<'_, '_>,
    ) -> Result<Box<dyn Tasklet>, BuildError> {
        let readers = self.edges.iter().map(|&e| build.reader::<In>(e)).collect();
        let op = self.make.make(build)?;
        let stage = OperatorStage::new(
            build.stage,
            build.job.to_string(),
            Inbox::new(readers, self.make.preferred()),
            op,
            chain,
            build.letters(),
            build.cx(),
        );
        Ok(Box::new(stage))
    }

    fn inputs(&self) -> Vec<EdgeId> {
        self.edges.clone()
    }
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        self.make.stages_aside()
    }
    fn refuses(&self) -> bool {
        self.make.refuses()
    }
    fn origins(&self) -> Origins {
        self.make.origins()
    }
}

#[allow(private_interfaces)]
impl<In: Send + 'static, M: MakeOperator<In>> Pipeline for OperatorRoot<In, M>
where
    <M::Op as Operator<In>>::Out: Send,
{
    type Root = Self;
    type Item = <M::Op as Operator<In>>::Out;
    type Link<N: Push<Self::Item> + Send + 'static> = N;
    fn link<N: Push<Self::Item> + Send + 'static>(&self, next: N, _: &mut ShardBuild<'_, '_>) -> N {
        next
    }
    fn root(&mut self) -> &mut Self {
        self
    }
}

/// Makes [`crate::operators::forward::Forward`]: a stage that only hands on.
#[derive(Debug, Default)]
pub struct MakeForward {
    /// Inputs that are read before the others.
    pub(crate) preferred: usize,
}

#[allow(private_interfaces)]
impl<T: Send + 'static> MakeOperator<T> for MakeForward {
    type Op = crate::operators::forward::Forward<T>;
    fn make(&mut self, _: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(Default::default())
    }
    fn preferred(&self) -> usize {
        self.preferred
    }
    fn origins(&self) -> Origins {
        Origins::Keeps
    }
}

/// The pipeline of a stage that has just been opened behind a fork, split, union or rebalance.
pub type Inlet<T> = OperatorRoot<T, MakeForward>;
