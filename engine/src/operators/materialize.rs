//! Materializing: keeps the row of each key, so that whoever holds a copy elsewhere can be given all of it again.
//!
//! Laws
//! 1. What comes goes on, in order, with the record's time, behind mark and origin; what a key has afterwards is kept.
//! 2. Behind a restore all rows go out, before anything that comes and before any barrier: the first epoch of a life has the whole table.
//!
//! State: a row a key, until it is deleted; in a checkpoint as well. O(1) a record: one probe. Class of its input.

use crate::batch::{Batch, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot, Whole};
use crate::error::BuildError;
use crate::key::Key;
use crate::operators::values::Values;
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::push::{Cx, OpId, Push};
use crate::query::{Ask, Asks};
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::NONE;
use crate::time::EventTime;
use crate::upsert::Upsert;
use std::marker::PhantomData;

/// Records handed on between two looks at whether the outputs are full, and rows told again in a step.
const PIECE: u32 = if cfg!(test) { 3 } else { 128 };

/// Makes [`MaterializeOp`] on each shard.
#[derive(Debug)]
pub struct MakeMaterialize<K, T> {
    op: OpId,
    types: PhantomData<fn(K, T)>,
}

impl<K, T> MakeMaterialize<K, T> {
    pub(crate) fn new(op: OpId) -> Self {
        let types = PhantomData;
        MakeMaterialize { op, types }
    }
}

#[allow(private_interfaces)]
impl<K: Key, T: Clone + State> MakeOperator<Upsert<K, T>> for MakeMaterialize<K, T> {
    type Op = MaterializeOp<K, T>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        build.can_be_asked::<K, T>(self.op, "rows");
        Ok(MaterializeOp {
            rows: Values::of_named("rows", build, self.op),
            told: None,
        })
    }
    fn origins(&self) -> Origins {
        Origins::Keeps
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct MaterializeOp<K, T> {
    /// A row that has gone leaves `None` in its place until that is another key's.
    rows: Values<K, Option<T>>,
    /// Law 2: ids below have been told again.
    told: Option<u32>,
}

impl<K: Key, T: Clone + State> MaterializeOp<K, T> {
    /// What a key has from now on.
    fn keep(&mut self, key: &K, row: Option<&T>) {
        let (table, kept) = self.rows.parts();
        let hash = table.hash(key);
        let Some(row) = row else {
            let id = table.find(hash, key);
            if id != NONE {
                if let Some(kept) = kept {
                    kept.tracked().gone(id, key, &Whole(table.value(id)));
                }
                table.remove(id, None);
            }
            return;
        };
        let (id, _) = table.find_or_insert(hash, key, || None);
        if let Some(kept) = kept {
            kept.touch(id, key, || Whole(table.value(id)));
        }
        *table.value_mut(id) = Some(row.clone());
    }
}

impl<K: Key, T: Clone + State> Operator<Upsert<K, T>> for MaterializeOp<K, T> {
    type Out = Upsert<K, T>;

    #[inline]
    fn batch<O: Push<Self::Out>>(
        &mut self,
        batch: &mut Batch<Upsert<K, T>>,
        out: &mut O,
        cx: &mut Cx,
    ) {
        let mut handed = 0;
        batch.consume(|upsert, stamp, origin| {
            cx.origin = origin;
            self.keep(&upsert.key, upsert.row.as_ref());
            out.push(upsert, stamp, cx);
            handed += 1;
            handed % PIECE != 0 || !out.blocked()
        });
    }

    fn watermark<O: Push<Self::Out>>(&mut self, _: EventTime, _: &mut O, _: &mut Cx) {}

    fn resume<O: Push<Self::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        let Some(from) = self.told else { return true };
        let (table, _) = self.rows.parts();
        let to = table.id_end().min(from.saturating_add(PIECE));
        let mut id = table.next_live(from);
        while id < to {
            if let Some(row) = table.value(id) {
                let (key, row) = (table.key(id).clone(), Some(row.clone()));
                out.push(Upsert { key, row }, Stamp::at(EventTime::BEGINNING), cx);
            }
            id = table.next_live(id + 1);
        }
        self.told = (to < table.id_end()).then_some(to);
        self.told.is_none()
    }

    fn begin_epoch(&mut self, cut: Cut) {
        debug_assert!(self.told.is_none(), "law 2");
        self.rows.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        self.rows.sizes(to);
    }

    fn answer(&self, ask: &mut Ask) {
        let table = self.rows.table();
        ask.answer(table, &|id| table.value(id).as_ref());
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.rows.save(to)
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.rows.load(frame, || Some(None))
    }

    fn loaded(&mut self) {
        self.rows.loaded();
        self.told = Some(0);
    }
}
