//! The broadcast join: records meet the rows of a table that every shard has whole.
//!
//! Laws
//! 1. Every shard takes the table's records, those of a key in one order, so at a barrier all have the same table ([`Copies`]).
//! 2. A record meets the table as it is when it comes: class EXEMPT. What the table holds in the end is fixed.
//! 3. The table says nothing of time: its edge is quiet (`edge/broadcast.rs`).
//! 4. One record in, at most one out, with the record's time, behind mark and origin; no record is too late.
//!
//! State: a row for each key, until it is removed. O(1) a record.

use crate::batch::{Batch, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::copies::Copies;
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::push::{Cx, OpId, Push, blame, blame_at};
use crate::sides::Sides;
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::{CACHED, NONE};
use crate::time::EventTime;
use std::marker::PhantomData;

/// Makes [`BroadcastJoinOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeBroadcastJoin<L, R, O, K, D, F> {
    pub(crate) key: K,
    /// Whether a record of the table removes its key's row.
    pub(crate) removes: D,
    pub(crate) row: F,
    pub(crate) op: OpId,
    pub(crate) types: PhantomData<fn(L, R) -> O>,
}

#[allow(private_interfaces)]
impl<L, R, O, K, D, F> MakeOperator<Sides<L, R>> for MakeBroadcastJoin<L, R, O, K, D, F>
where
    L: Send + 'static,
    R: Clone + State,
    O: Send + 'static,
    K: KeyOf<Sides<L, R>>,
    D: Fn(&R) -> bool + Clone + Send + 'static,
    F: Fn(&L, Option<&R>) -> Option<O> + Clone + Send + 'static,
{
    type Op = BroadcastJoinOp<L, R, O, K, D, F>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(BroadcastJoinOp {
            table: Copies::of_named("table", build, self.op),
            key: self.key.clone(),
            removes: self.removes.clone(),
            row: self.row.clone(),
            op: self.op,
            done: 0,
            types: PhantomData,
        })
    }
    fn origins(&self) -> Origins {
        Origins::Keeps
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct BroadcastJoinOp<L, R, O, K: KeyOf<Sides<L, R>>, D, F> {
    key: K,
    removes: D,
    row: F,
    op: OpId,
    table: Copies<K::Key, R>,
    /// Records of the batch in hand that have been taken; 0 between batches.
    done: usize,
    types: PhantomData<fn(L) -> O>,
}

impl<L, R, O, K, D, F> BroadcastJoinOp<L, R, O, K, D, F>
where
    R: Clone + State,
    K: KeyOf<Sides<L, R>>,
    D: Fn(&R) -> bool,
    F: Fn(&L, Option<&R>) -> Option<O>,
{
    /// Records of the table have come.
    fn update(&mut self, records: &[Sides<L, R>]) {
        for record in records {
            let Sides::Right(row) = record else { continue };
            let removes = blame(self.op, || (self.removes)(row));
            let key = blame(self.op, || self.key.with(record, K::Key::clone));
            if removes {
                self.table.remove(&key);
            } else {
                self.table.set(&key, row.clone());
            }
        }
    }

    /// Records `from..to` of the stream have come. `PLAIN`: none of the batch has an origin or a mark of its own.
    #[inline(always)]
    fn meet<P: Push<O>, const PLAIN: bool>(
        &mut self,
        batch: &Batch<Sides<L, R>>,
        (from, to): (usize, usize),
        out: &mut P,
        cx: &mut Cx,
    ) {
        let (key_of, row, op) = (&self.key, &self.row, self.op);
        let records = &batch.records[from..to];
        let table = self.table.table();
        // A table that lies in the cache is looked up as records come, so that each key is made once.
        let large = table.len() >= CACHED;
        let probes = large.then(|| probe(table, key_of, op, records));
        let mut stamps = Stamps::from(batch, from);
        if PLAIN {
            cx.origin = batch.last;
        }
        let times = &batch.times[from..to];
        for (n, (record, &time)) in records.iter().zip(times).enumerate() {
            let Sides::Left(left) = record else { continue };
            let index = from + n;
            let stamp = match PLAIN {
                true => Stamp::at(time),
                false => stamps.of(batch, index, cx),
            };
            let row = blame_at(op, index, || {
                key_of.with(record, |key| {
                    let (hash, candidate) = match &probes {
                        Some(probes) => probes[n],
                        None => {
                            let hash = table.hash(key);
                            (hash, table.candidate(hash))
                        }
                    };
                    // Most often the first look finds it.
                    if let Some(held) = table.verified(candidate, key) {
                        return row(left, held.as_ref());
                    }
                    let held = match table.find(hash, key) {
                        NONE => None,
                        id => table.value(id).as_ref(),
                    };
                    row(left, held)
                })
            });
            if let Some(row) = row {
                out.push(row, stamp, cx);
            }
        }
    }
}

impl<L, R, O, K, D, F> Operator<Sides<L, R>> for BroadcastJoinOp<L, R, O, K, D, F>
where
    L: Send + 'static,
    R: Clone + State,
    O: Send + 'static,
    K: KeyOf<Sides<L, R>>,
    D: Fn(&R) -> bool + Clone + Send + 'static,
    F: Fn(&L, Option<&R>) -> Option<O> + Clone + Send + 'static,
{
    type Out = O;

    #[inline]
    fn batch<P: Push<O>>(&mut self, batch: &mut Batch<Sides<L, R>>, out: &mut P, cx: &mut Cx) {
        // A batch holds records of one side (`sides.rs`).
        let of_table = matches!(batch.records.first(), Some(Sides::Right(_)));
        let is_plain = batch.origins.is_empty() && batch.behind.is_empty();
        while self.done < batch.len() {
            let (from, to) = (self.done, (self.done + CHUNK).min(batch.len()));
            match (of_table, is_plain) {
                (true, _) => self.update(&batch.records[from..to]),
                (false, true) => self.meet::<P, true>(batch, (from, to), out, cx),
                (false, false) => self.meet::<P, false>(batch, (from, to), out, cx),
            }
            self.done = to;
            if out.blocked() && to < batch.len() {
                return;
            }
        }
        self.done = 0;
        batch.clear();
    }

    fn watermark<P: Push<O>>(&mut self, _: EventTime, _: &mut P, _: &mut Cx) {}

    fn begin_epoch(&mut self, cut: Cut) {
        self.table.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "table", self.table.size()));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.table.save(to)
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.table.load(frame, |_, _| {})
    }
}
