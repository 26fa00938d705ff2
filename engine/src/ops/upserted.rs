//! `upserts`: changes become the row that a key has from now on, or that it has none. One change in, at most one record out.
//!
//! Laws
//! 1. Applied in order, what comes out leaves of each key the row that the changes leave of it, if they leave at most one.
//! 2. A `-U` whose `+U` follows at once and has the same key says nothing that the `+U` does not, and goes. Any other is a deletion: the `+U` has
//!    another key, or something in between has taken it out.
//! 3. Nothing is held beyond a control event: a `-U` is held for the change that follows it, and for no barrier, watermark or end.

use crate::batch::{Origin, Stamp};
use crate::change::{Change, Kind};
use crate::checkpoint::{Frame, Saved, Snapshot};
use crate::key::KeyOf;
use crate::pipeline::Pipeline;
use crate::plan::ShardBuild;
use crate::push::{Control, Cx, OpId, Push, blame};
use crate::state::LoadError;
use crate::upsert::Upsert;
use std::marker::PhantomData;

/// A pipeline with `upserts` at its end.
#[derive(Debug)]
pub struct Upserted<P, T, K> {
    pub(crate) before: P,
    pub(crate) key: K,
    pub(crate) op: OpId,
    pub(crate) row: PhantomData<fn(T)>,
}

#[allow(private_interfaces)]
impl<T, P, K> Pipeline for Upserted<P, T, K>
where
    T: Send + 'static,
    P: Pipeline<Item = Change<T>>,
    K: KeyOf<Change<T>>,
{
    type Root = P::Root;
    type Item = Upsert<K::Key, T>;
    type Link<N: Push<Self::Item> + Send + 'static> = P::Link<UpsertLink<T, K, N>>;
    fn link<N: Push<Self::Item> + Send + 'static>(
        &self,
        next: N,
        build: &mut ShardBuild<'_, '_>,
    ) -> Self::Link<N> {
        let link = UpsertLink {
            next,
            key: self.key.clone(),
            op: self.op,
            before: None,
            row: PhantomData,
        };
        self.before.link(link, build)
    }
    fn root(&mut self) -> &mut P::Root {
        self.before.root()
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct UpsertLink<T, K: KeyOf<Change<T>>, N> {
    next: N,
    key: K,
    op: OpId,
    /// The key of a `-U` that came last, with its time and place.
    before: Option<(K::Key, Stamp, Origin)>,
    row: PhantomData<fn(T)>,
}

impl<T, K, N> UpsertLink<T, K, N>
where
    K: KeyOf<Change<T>>,
    N: Push<Upsert<K::Key, T>>,
{
    /// Law 2: the `-U` that is held is a deletion.
    fn let_go(&mut self, cx: &mut Cx) {
        if let Some((key, stamp, origin)) = self.before.take() {
            let after = std::mem::replace(&mut cx.origin, origin);
            self.next.push(Upsert { key, row: None }, stamp, cx);
            cx.origin = after;
        }
    }
}

impl<T, K, N> Push<Change<T>> for UpsertLink<T, K, N>
where
    K: KeyOf<Change<T>>,
    N: Push<Upsert<K::Key, T>>,
{
    #[inline]
    fn push(&mut self, change: Change<T>, stamp: Stamp, cx: &mut Cx) {
        let key = blame(self.op, || self.key.with(&change, K::Key::clone));
        let is_replaced = change.kind == Kind::UpdateAfter
            && self.before.as_ref().is_some_and(|(old, ..)| *old == key);
        match is_replaced {
            true => self.before = None,
            false => self.let_go(cx),
        }
        let row = match change.kind {
            Kind::UpdateBefore => {
                self.before = Some((key, stamp, cx.origin));
                return;
            }
            Kind::Insert | Kind::UpdateAfter => Some(change.row),
            Kind::Delete => None,
        };
        self.next.push(Upsert { key, row }, stamp, cx);
    }
    #[inline]
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.let_go(cx);
        self.next.control(event, cx);
    }
    #[inline]
    fn blocked(&self) -> bool {
        self.next.blocked()
    }
    fn wake_at(&self) -> Option<u64> {
        self.next.wake_at()
    }
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.next.save(to)
    }
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.next.load(frame)
    }
}
