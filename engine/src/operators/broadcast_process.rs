//! A process function with a broadcast side: [`ProcessOp`] for records by key, and what writes the maps that all shards have.
//!
//! Laws
//! 1. A batch holds records of one side (`sides.rs`): one of the keyed side is the function's as ever, one of the other is written
//!    here, a bounded piece a step, and nothing is emitted.
//! 2. What the function has cleared is gone before a batch of the other side is taken (law 6 of `process.rs`): a batch by key is not
//!    done before.
//! 3. Timers, watermarks, times to live and checkpoints are the function's; the maps are states of it
//!    (`process/broadcast.rs`).

use super::process::{MakeProcess, ProcessOp};
use crate::batch::Batch;
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::running::CHUNK;
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::process::{Context, KeptStates, OnTimer, States};
use crate::push::{Cx, OpId, Push, blame_at};
use crate::query::Ask;
use crate::sides::Sides;
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::time::EventTime;

type Of<'a, K, S> = <<S as States<K>>::Kept as KeptStates<K>>::Of<'a>;
type Writes<'a, K, S> = <<S as States<K>>::Kept as KeptStates<K>>::Broadcast<'a>;

/// The key of a record of the keyed side; the other has none.
#[derive(Clone, Debug)]
pub struct BroadcastKey<K>(pub(crate) K);

impl<L, R, K: KeyOf<L>> KeyOf<Sides<L, R>> for BroadcastKey<K> {
    type Key = K::Key;
    #[inline(always)]
    fn with<O>(&self, record: &Sides<L, R>, f: impl FnOnce(&K::Key) -> O) -> O {
        match record {
            Sides::Left(record) => self.0.with(record, f),
            Sides::Right(_) => unreachable!("what goes to all shards is not asked for its key"),
        }
    }
}

/// Makes [`BroadcastProcessOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeBroadcastProcess<L, R, K, S, O, F, G, C, H> {
    pub(crate) inner: MakeProcess<Sides<L, R>, BroadcastKey<K>, S, O, F, G, C>,
    pub(crate) write: H,
    pub(crate) op: OpId,
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct BroadcastProcessOp<L, R, K: KeyOf<L>, S: States<K::Key>, O, F, G, C, H> {
    inner: ProcessOp<Sides<L, R>, BroadcastKey<K>, S, O, F, G, C>,
    write: H,
    op: OpId,
    /// Records of a batch of the other side that have been written; 0 between batches.
    written: usize,
}

#[allow(private_interfaces)]
impl<L, R, K, S, O, F, G, C, H> MakeOperator<Sides<L, R>>
    for MakeBroadcastProcess<L, R, K, S, O, F, G, C, H>
where
    L: Send + 'static,
    R: Send + 'static,
    K: KeyOf<L>,
    S: States<K::Key>,
    O: Send + 'static,
    F: Fn(&Sides<L, R>, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>)
        + Clone
        + Send
        + 'static,
    G: OnTimer<K::Key, S, O>,
    C: OnTimer<K::Key, S, O>,
    H: Fn(&R, &mut Writes<'_, K::Key, S>) + Clone + Send + 'static,
{
    type Op = BroadcastProcessOp<L, R, K, S, O, F, G, C, H>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(BroadcastProcessOp {
            inner: self.inner.make(build)?,
            write: self.write.clone(),
            op: self.op,
            written: 0,
        })
    }
    fn origins(&self) -> Origins {
        self.inner.origins()
    }
}

impl<L, R, K, S, O, F, G, C, H> Operator<Sides<L, R>>
    for BroadcastProcessOp<L, R, K, S, O, F, G, C, H>
where
    L: Send + 'static,
    R: Send + 'static,
    K: KeyOf<L>,
    S: States<K::Key>,
    O: Send + 'static,
    F: Fn(&Sides<L, R>, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>)
        + Clone
        + Send
        + 'static,
    G: OnTimer<K::Key, S, O>,
    C: OnTimer<K::Key, S, O>,
    H: Fn(&R, &mut Writes<'_, K::Key, S>) + Clone + Send + 'static,
{
    type Out = O;

    #[inline]
    fn batch<P: Push<O>>(&mut self, batch: &mut Batch<Sides<L, R>>, out: &mut P, cx: &mut Cx) {
        if let Some(Sides::Left(_)) | None = batch.records.first() {
            return self.inner.batch(batch, out, cx);
        }
        let (from, to) = (self.written, (self.written + CHUNK).min(batch.len()));
        let mut maps = self.inner.states().broadcast();
        for (index, record) in (from..).zip(&batch.records[from..to]) {
            if let Sides::Right(record) = record {
                blame_at(self.op, index, || (self.write)(record, &mut maps));
            }
        }
        self.written = to;
        if to == batch.len() {
            self.written = 0;
            batch.clear();
        }
    }

    fn watermark<P: Push<O>>(&mut self, watermark: EventTime, out: &mut P, cx: &mut Cx) {
        self.inner.watermark(watermark, out, cx);
    }
    fn resume<P: Push<O>>(&mut self, out: &mut P, cx: &mut Cx) -> bool {
        self.inner.resume(out, cx)
    }
    fn tick<P: Push<O>>(&mut self, out: &mut P, cx: &mut Cx) {
        self.inner.tick(out, cx);
    }
    fn wake_at(&self) -> Option<u64> {
        self.inner.wake_at()
    }
    fn begin_epoch(&mut self, cut: Cut) {
        self.inner.begin_epoch(cut);
    }
    fn sizes(&self, to: &mut Sizes) {
        self.inner.sizes(to);
    }
    fn answer(&self, ask: &mut Ask) {
        self.inner.answer(ask);
    }
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.inner.save(to)
    }
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.inner.load(frame)
    }
    fn loaded(&mut self) {
        self.inner.loaded();
    }
    fn restored_watermark(&self) -> EventTime {
        self.inner.restored_watermark()
    }
}
