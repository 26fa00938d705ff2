//! The closings of a pipeline: sinks, exchanges, forks, splits. Each opens one end a shard.

use crate::edge::{
    BroadcastLink, ByKeyLink, ForkLink, LocalLink, PartitionLink, RebalanceLink, SplitLink,
};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::pipeline::Terminal;
use crate::plan::{EdgeId, ShardBuild};
use crate::push::OpId;
use crate::sink::{Sink, SinkLink};
use std::marker::PhantomData;

/// Into a sink.
pub(crate) struct ToSink<T, S: Sink<T>> {
    pub sink: S,
    pub op: OpId,
    /// See [`SinkLink`].
    pub aside: bool,
    /// Opened at the first shard; each shard takes its own.
    pub writers: Option<Vec<Option<S::Writer>>>,
}

impl<T: 'static, S: Sink<T>> Terminal<T> for ToSink<T, S> {
    type End = SinkLink<S::Writer>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        let name = self.sink.name();
        let state = build.state(Some(self.op), "prepared", "bytes");
        let writers = match &mut self.writers {
            Some(writers) => writers,
            None => {
                let opened = self
                    .sink
                    .open(build.ports)
                    .map_err(|what| BuildError::Sink {
                        sink: name.clone(),
                        what,
                    })?;
                if let Some(committer) = self.sink.committer() {
                    if !build.config.checkpoints {
                        let what = "what it writes is shown when a checkpoint has decided on it, and the job takes none: \
                                    give the job checkpoints (Job::checkpoints), or take another sink";
                        return Err(BuildError::Sink {
                            sink: name,
                            what: what.into(),
                        });
                    }
                    build.committers.push((state, name.clone(), committer));
                }
                self.writers.insert(opened.into_iter().map(Some).collect())
            }
        };
        let Some(writer) = writers.get_mut(build.shard).and_then(Option::take) else {
            let what = format!(
                "it opened {} writers for {} shards",
                writers.len(),
                build.shards
            );
            return Err(BuildError::Sink { sink: name, what });
        };
        Ok(SinkLink {
            writer,
            op: self.op,
            name,
            aside: self.aside,
            written: 0,
            flushed_ns: 0,
            ended: false,
            finished: false,
            state,
            preparing: false,
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        vec![]
    }
}

/// To the shard of each record's key.
pub(crate) struct ToKey<F> {
    pub edge: EdgeId,
    pub key: F,
    pub op: OpId,
}

impl<T: Send + 'static, F: KeyOf<T>> Terminal<T> for ToKey<F> {
    type End = ByKeyLink<T, F>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        Ok(ByKeyLink {
            writer: build.writer(self.edge),
            key: self.key.clone(),
            space: build.key_space(),
            op: self.op,
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        vec![self.edge]
    }
}

/// To a stage on the same shard.
pub(crate) struct ToLocal {
    pub edge: EdgeId,
}

impl<T: Send + 'static> Terminal<T> for ToLocal {
    type End = LocalLink<T>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        Ok(LocalLink {
            writer: build.writer(self.edge),
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        vec![self.edge]
    }
}

/// To the shard that a function says.
pub(crate) struct ToPartition<F> {
    pub edge: EdgeId,
    pub choose: F,
    pub op: OpId,
}

impl<T: Send + 'static, F: Fn(&T) -> u64 + Clone + Send + 'static> Terminal<T> for ToPartition<F> {
    type End = PartitionLink<T, F>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        Ok(PartitionLink {
            writer: build.writer(self.edge),
            choose: self.choose.clone(),
            op: self.op,
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        vec![self.edge]
    }
}

/// Evenly to all shards.
pub(crate) struct ToAll {
    pub edge: EdgeId,
}

impl<T: Send + 'static> Terminal<T> for ToAll {
    type End = RebalanceLink<T>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        Ok(RebalanceLink {
            writer: build.writer(self.edge),
            next: build.shard,
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        vec![self.edge]
    }
}

/// To all shards: every record goes to each.
pub(crate) struct ToBroadcast<S, W> {
    pub edge: EdgeId,
    pub wrap: W,
    pub travels: PhantomData<fn() -> S>,
    pub op: OpId,
    /// See [`BroadcastLink`].
    pub quiet: bool,
}

impl<T, S, W> Terminal<T> for ToBroadcast<S, W>
where
    T: Clone + 'static,
    S: Send + 'static,
    W: Fn(T) -> S + Clone + Send + 'static,
{
    type End = BroadcastLink<S, W>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        Ok(BroadcastLink {
            writer: build.writer(self.edge),
            wrap: self.wrap.clone(),
            op: self.op,
            quiet: self.quiet,
            told: false,
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        vec![self.edge]
    }
}

/// To several stages on the same shard: every record goes to each.
pub(crate) struct ToFork {
    pub edges: Vec<EdgeId>,
    pub op: OpId,
}

impl<T: Clone + Send + 'static> Terminal<T> for ToFork {
    type End = ForkLink<T>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        Ok(ForkLink {
            writers: self.edges.iter().map(|&e| build.writer(e)).collect(),
            op: self.op,
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        self.edges.clone()
    }
}

/// To one of several stages on the same shard.
pub(crate) struct ToSplit<F> {
    pub edges: Vec<EdgeId>,
    pub choose: F,
    pub op: OpId,
}

impl<T: Send + 'static, F: Fn(&T) -> usize + Clone + Send + 'static> Terminal<T> for ToSplit<F> {
    type End = SplitLink<T, F>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        let writers = self.edges.iter().map(|&e| build.writer(e)).collect();
        Ok(SplitLink {
            writers,
            choose: self.choose.clone(),
            op: self.op,
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        self.edges.clone()
    }
}
