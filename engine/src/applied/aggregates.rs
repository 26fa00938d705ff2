//! Aggregates of the rows that stand, by key.
//!
//! Laws
//! 1. A key is there iff it has rows; with its last one it goes, and what its aggregate keeps apart of it is empty.
//! 2. A retraction is taken by all parts of an aggregate or by none.

use crate::aggregate::{At, Bags, Retracts};
use crate::budget::Sizes;
use crate::change::{Change, Kind};
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::Key;
use crate::operators::applying::{Applying, MakesApplying};
use crate::operators::values::Values;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::running::Keyed;
use crate::state::LoadError;
use crate::table::{KeyTable, NONE};

/// Makes [`Aggregates`] on each shard.
#[derive(Clone, Debug)]
pub struct MakeAggregates<A>(pub(crate) A);

#[allow(private_interfaces)]
impl<T: Send + 'static, K: Key, A: Retracts<T>> MakesApplying<T, K> for MakeAggregates<A> {
    type Applying = Aggregates<T, K, A>;
    const NEEDS_ORIGINS: bool = A::NEEDS_ORIGINS;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self::Applying {
        let mut kinds = String::new();
        self.0.kinds(&mut kinds);
        Aggregates {
            values: Values::of_named(&format!("rows, {kinds}"), build, op),
            bags: self.0.bags("values", build, op),
            aggregate: self.0.clone(),
        }
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct Aggregates<T, K: Key, A: Retracts<T>> {
    aggregate: A,
    /// How many rows stand, and what the aggregate keeps of them.
    values: Values<K, (u64, A::Kept)>,
    bags: A::Bags<K>,
}

impl<T, K: Key, A: Retracts<T>> Aggregates<T, K, A> {
    /// What a key has now.
    fn row(&self, key: &K, value: &(u64, A::Kept)) -> Keyed<K, A::Out> {
        let (rows, kept) = value;
        Keyed {
            key: key.clone(),
            value: self.aggregate.value(kept, &self.bags, key, *rows),
        }
    }
}

#[allow(private_interfaces)]
impl<T: Send + 'static, K: Key, A: Retracts<T>> Applying<T, K> for Aggregates<T, K, A> {
    type Row = Keyed<K, A::Out>;
    type Value = (u64, A::Kept);

    fn keys(&self) -> &KeyTable<K, Self::Value> {
        self.values.table()
    }

    fn apply(
        &mut self,
        key: &K,
        id: u32,
        change: &Change<T>,
        at: At,
        to: &mut Vec<Change<Self::Row>>,
    ) -> Option<usize> {
        let (row, looked) = (&change.row, Some(1 + A::LOOKS));
        if id == NONE {
            if change.is_retraction() {
                return None;
            }
            let mut kept = self.aggregate.keep();
            self.aggregate
                .take_in(&mut kept, &mut self.bags, key, row, at);
            let id = self.values.insert(key, (1, kept));
            let first = self.row(key, self.values.table().value(id));
            to.push(Change::new(Kind::Insert, first));
            return looked;
        }
        // Law 2.
        if change.is_retraction() && !self.aggregate.may_have(&self.bags, key, row) {
            return None;
        }
        let before = self.row(key, self.values.table().value(id));
        let (rows, kept) = self.values.change(id);
        if change.is_addition() {
            *rows += 1;
            self.aggregate.take_in(kept, &mut self.bags, key, row, at);
        } else {
            *rows -= 1;
            self.aggregate.take_out(kept, &mut self.bags, key, row);
        }
        if *rows == 0 {
            self.values.remove(id, (0, self.aggregate.keep()));
            to.push(Change::new(Kind::Delete, before));
            return looked;
        }
        let after = self.row(key, self.values.table().value(id));
        if !self.aggregate.same(&before.value, &after.value) {
            to.push(Change::new(Kind::UpdateBefore, before));
            to.push(Change::new(Kind::UpdateAfter, after));
        }
        looked
    }

    fn begin_epoch(&mut self, cut: Cut) {
        self.values.begin_epoch(cut);
        self.bags.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        self.values.sizes(to);
        self.bags.sizes(to);
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        match self.values.save(to) {
            Saved::More => Saved::More,
            Saved::All => self.bags.save(to),
        }
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let vacant = || Some((0, self.aggregate.keep()));
        Ok(self.values.load(frame, vacant)? || self.bags.load(frame)?)
    }

    fn loaded(&mut self) {
        self.values.loaded();
    }
}
