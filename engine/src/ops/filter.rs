//! `filter`: keeps the records for which a predicate holds. Stateless; it never moves a watermark, since that has passed already.

use crate::batch::Stamp;
use crate::checkpoint::{Frame, Saved, Snapshot};
use crate::pipeline::Pipeline;
use crate::plan::ShardBuild;
use crate::push::{Control, Cx, OpId, Push, blame};
use crate::state::LoadError;
use std::marker::PhantomData;

/// A pipeline with a `filter` at its end.
#[derive(Debug)]
pub struct Filtered<P, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) op: OpId,
}

#[allow(private_interfaces)]
impl<P, F> Pipeline for Filtered<P, F>
where
    P: Pipeline,
    F: Fn(&P::Item) -> bool + Clone + Send + 'static,
{
    type Root = P::Root;
    type Item = P::Item;
    type Link<N: Push<P::Item> + Send + 'static> = P::Link<FilterLink<P::Item, F, N>>;
    fn link<N: Push<P::Item> + Send + 'static>(
        &self,
        next: N,
        build: &mut ShardBuild<'_, '_>,
    ) -> Self::Link<N> {
        let link = FilterLink {
            next,
            f: self.f.clone(),
            op: self.op,
            types: PhantomData,
        };
        self.before.link(link, build)
    }
    fn root(&mut self) -> &mut P::Root {
        self.before.root()
    }
}

/// See the module.
pub struct FilterLink<T, F, N> {
    next: N,
    f: F,
    op: OpId,
    types: PhantomData<fn(T)>,
}

impl<T, F: Fn(&T) -> bool, N: Push<T>> Push<T> for FilterLink<T, F, N> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        if blame(self.op, || (self.f)(&record)) {
            self.next.push(record, stamp, cx);
        }
    }
    #[inline]
    fn control(&mut self, event: Control, cx: &mut Cx) {
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
