//! The late output: records too late for every window they belong to go over an edge to a sink's stage of their own.

use crate::aside::Aside;
use crate::batch::{Batch, Stamp};
use crate::edge::Wiring;
use crate::plan::{EdgeId, Plan, ShardBuild, StageSpec};
use crate::push::{Control, Cx, OpId};
use crate::sink::Sink;
use crate::stream::sink_aside;
use std::marker::PhantomData;

/// Where late records go, as written.
#[allow(missing_debug_implementations)]
pub struct LateTo<T> {
    edge: EdgeId,
    /// The sink's, until it is added to the plan behind the window's.
    stage: Option<StageSpec>,
    record: PhantomData<fn(T)>,
}

impl<T: Send + 'static> LateTo<T> {
    pub(crate) fn sink<S: Sink<T>>(plan: &mut Plan, sink: S, op: OpId) -> Self {
        plan.sink_ops.push((op, sink.in_two_phases()));
        let edge = plan.edge::<T>(Wiring::Local);
        LateTo {
            edge,
            stage: Some(sink_aside(sink, op, vec![edge])),
            record: PhantomData,
        }
    }

    /// Its stage, to be added to the plan; once.
    pub(crate) fn stages(late: &mut Option<LateTo<T>>) -> Vec<StageSpec> {
        let stage = late.as_mut().and_then(LateTo::stage);
        stage.into_iter().collect()
    }

    /// The same where there is one.
    pub(crate) fn stage(&mut self) -> Option<StageSpec> {
        self.stage.take()
    }

    /// The way there, for what falls aside of an operator and is not late.
    pub(crate) fn aside(&self, build: &mut ShardBuild<'_, '_>) -> Aside<T> {
        Aside::new(build.writer(self.edge))
    }

    pub(crate) fn open(late: &Option<LateTo<T>>, build: &mut ShardBuild<'_, '_>) -> Late<T> {
        Late {
            edge: late.as_ref().map(|to| to.aside(build)),
        }
    }
}

/// The late records of an operator on one shard: counted, and sent on where an output is set.
#[derive(Debug)]
pub(crate) struct Late<T> {
    edge: Option<Aside<T>>,
}

impl<T> Late<T> {
    /// Over this edge.
    #[cfg(test)]
    pub fn over(edge: Aside<T>) -> Self {
        Late { edge: Some(edge) }
    }

    /// To nobody: they are counted.
    #[cfg(test)]
    pub fn none() -> Self {
        Late { edge: None }
    }

    /// A record is too late for everything.
    #[cold]
    pub fn record(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        cx.counters.late += 1;
        if let Some(edge) = &mut self.edge {
            edge.push(record, stamp, cx);
        }
    }

    /// Takes late records out of a batch by value, in order: these, by their places.
    pub fn take(&mut self, batch: &mut Batch<T>, late: &[(usize, Stamp)], cx: &mut Cx) {
        let mut taken: Vec<(T, Stamp)> = Vec::with_capacity(late.len());
        for &(index, stamp) in late.iter().rev() {
            // Descending: what is swapped in comes from behind this one.
            taken.push((batch.records.swap_remove(index), stamp));
        }
        for (record, stamp) in taken.into_iter().rev() {
            self.record(record, stamp, cx);
        }
    }

    pub fn control(&mut self, event: Control, cx: &mut Cx) {
        if let Some(edge) = &mut self.edge {
            edge.control(event, cx);
        }
    }

    pub fn blocked(&self) -> bool {
        self.edge.as_ref().is_some_and(Aside::blocked)
    }
}
