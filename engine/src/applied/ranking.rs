//! The n best of the rows that stand, by key.
//!
//! Laws
//! 1. All rows that stand are kept, in order: score first, then the row's own order. The first n are the ranking, so what was told follows
//!    from what is kept and is not kept besides.
//! 2. A row that does not get into the ranking, or goes from below it, tells nothing.
//! 3. Without ranks a row that gets in is a `+I` after the `-D` of the one that it drives out, and one that goes is a `-D` before the `+I` of
//!    the one that follows. With ranks each rank whose row is another tells whom it had and whom it has, from the best down.

use crate::aggregate::{At, Ordered, Rank};
use crate::budget::Sizes;
use crate::change::{Change, Kind};
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::Key;
use crate::operators::applying::{Applying, MakesApplying};
use crate::operators::multisets::{LOOKS, Multisets, Sorted};
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::table::KeyTable;
use crate::top::Ranked;
use std::marker::PhantomData;

/// The rows of a ranking: with ranks or without.
pub trait Says<T>: Send + 'static {
    /// A row.
    type Row: Send + 'static;
    /// What its state is called by besides: rows told otherwise cannot be taken back.
    const NAME: &'static str;
    /// Tells what it is to a ranking of at most `n` that a row comes or goes, at this place: `stood` are those that stood from there on.
    fn changes<'t>(
        stood: &mut dyn Iterator<Item = &'t T>,
        place: usize,
        change: &'t Change<T>,
        n: usize,
        to: &mut Vec<Change<Self::Row>>,
    );
}

/// Rows without ranks.
#[derive(Clone, Copy, Debug)]
pub struct Bare;

impl<T: Clone + Send + 'static> Says<T> for Bare {
    type Row = T;
    const NAME: &'static str = "";
    fn changes<'t>(
        stood: &mut dyn Iterator<Item = &'t T>,
        place: usize,
        change: &'t Change<T>,
        n: usize,
        to: &mut Vec<Change<T>>,
    ) {
        if change.is_addition() {
            if let Some(driven_out) = stood.nth(n - 1 - place) {
                to.push(Change::new(Kind::Delete, driven_out.clone()));
            }
            to.push(Change::new(Kind::Insert, change.row.clone()));
        } else {
            to.push(Change::new(Kind::Delete, change.row.clone()));
            if let Some(next) = stood.nth(n - place) {
                to.push(Change::new(Kind::Insert, next.clone()));
            }
        }
    }
}

/// Rows with ranks.
#[derive(Clone, Copy, Debug)]
pub struct Numbered;

impl<T: Clone + Ord + Send + 'static> Says<T> for Numbered {
    type Row = Ranked<T>;
    const NAME: &'static str = ", with ranks";
    fn changes<'t>(
        stood: &mut dyn Iterator<Item = &'t T>,
        place: usize,
        change: &'t Change<T>,
        n: usize,
        to: &mut Vec<Change<Ranked<T>>>,
    ) {
        let mut say = |kind, rank: usize, row: &T| {
            let row = row.clone();
            let rank = rank as u32;
            to.push(Change::new(kind, Ranked { rank, row }));
        };
        // Whom the rank had, and whom it has.
        let (mut had, mut has) = match change.is_addition() {
            true => (stood.next(), Some(&change.row)),
            false => (stood.next(), stood.next()),
        };
        for rank in place + 1..=n {
            match (had, has) {
                // One like it.
                (Some(had), Some(has)) if had == has => {}
                (Some(had), Some(has)) => {
                    say(Kind::UpdateBefore, rank, had);
                    say(Kind::UpdateAfter, rank, has);
                }
                (None, Some(has)) => say(Kind::Insert, rank, has),
                (Some(had), None) => say(Kind::Delete, rank, had),
                (None, None) => return,
            }
            let next = stood.next();
            (had, has) = match change.is_addition() {
                true => (next, had),
                false => (has, next),
            };
        }
    }
}

/// Makes [`Ranking`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeRanking<V, F, S> {
    pub(crate) n: usize,
    pub(crate) score: F,
    pub(crate) types: PhantomData<fn() -> (V, S)>,
}

#[allow(private_interfaces)]
impl<T, K, V, F, S> MakesApplying<T, K> for MakeRanking<V, F, S>
where
    T: Clone + Ord + State,
    K: Key,
    V: Ordered,
    F: Fn(&T) -> V + Clone + Send + 'static,
    S: Says<T>,
{
    type Applying = Ranking<T, K, V, F, S>;
    const NEEDS_ORIGINS: bool = false;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self::Applying {
        // With another n the rows that were told are not those that follow from what is kept: such a job is refused.
        let name = format!("top {} of changes{}", self.n, S::NAME);
        Ranking {
            n: self.n,
            score: self.score.clone(),
            rows: Multisets::of_named(&name, build, op),
            says: PhantomData,
        }
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct Ranking<T, K, V: Ordered, F, S> {
    n: usize,
    score: F,
    rows: Multisets<K, (Rank<V>, T)>,
    says: PhantomData<fn() -> S>,
}

#[allow(private_interfaces)]
impl<T, K, V, F, S> Applying<T, K> for Ranking<T, K, V, F, S>
where
    T: Clone + Ord + State,
    K: Key,
    V: Ordered,
    F: Fn(&T) -> V + Clone + Send + 'static,
    S: Says<T>,
{
    type Row = S::Row;
    type Value = Sorted;

    fn keys(&self) -> &KeyTable<K, Sorted> {
        self.rows.keys()
    }

    fn apply(
        &mut self,
        key: &K,
        id: u32,
        change: &Change<T>,
        _: At,
        to: &mut Vec<Change<S::Row>>,
    ) -> Option<usize> {
        let element = (Rank::of((self.score)(&change.row)), change.row.clone());
        let place = self.rows.place(id, &element);
        if change.is_retraction() && !place.found {
            return None;
        }
        // One more like others comes behind them, and the last of them goes first.
        let (last, mut looked) = self.rows.rank(id, place, self.n);
        let rank = last + usize::from(place.found && change.is_addition());
        if rank < self.n {
            let mut stood = self.rows.iter(id).skip(rank).map(|(_, row)| row);
            S::changes(&mut stood, rank, change, self.n, to);
            looked += self.n;
        }
        match change.is_addition() {
            true => {
                self.rows.add(id, key, place, element);
            }
            false => self.rows.take(id, place),
        }
        Some(looked + LOOKS)
    }

    fn begin_epoch(&mut self, cut: Cut) {
        self.rows.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        self.rows.sizes(to);
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.rows.save(to)
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.rows.load(frame)
    }

    fn loaded(&mut self) {}
}
