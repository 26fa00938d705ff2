//! `filter_map`: one record in, at most one out, with its event time, behind mark and origin. Stateless, class of its input; it never moves
//! a watermark, since that has passed already.

use crate::batch::Stamp;
use crate::checkpoint::{Frame, Saved, Snapshot};
use crate::pipeline::Pipeline;
use crate::plan::ShardBuild;
use crate::push::{Control, Cx, OpId, Push, blame};
use crate::state::LoadError;
use std::marker::PhantomData;

/// A pipeline with a `filter_map` at its end.
#[derive(Debug)]
pub struct FilterMapped<P, R, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) op: OpId,
    pub(crate) out: PhantomData<fn() -> R>,
}

#[allow(private_interfaces)]
impl<P, R, F> Pipeline for FilterMapped<P, R, F>
where
    P: Pipeline,
    R: Send + 'static,
    F: Fn(P::Item) -> Option<R> + Clone + Send + 'static,
{
    type Root = P::Root;
    type Item = R;
    type Link<N: Push<R> + Send + 'static> = P::Link<FilterMapLink<P::Item, R, F, N>>;
    fn link<N: Push<R> + Send + 'static>(
        &self,
        next: N,
        build: &mut ShardBuild<'_, '_>,
    ) -> Self::Link<N> {
        let link = FilterMapLink {
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
pub struct FilterMapLink<T, R, F, N> {
    next: N,
    f: F,
    op: OpId,
    types: PhantomData<fn(T) -> R>,
}

impl<T, R, F: Fn(T) -> Option<R>, N: Push<R>> Push<T> for FilterMapLink<T, R, F, N> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        if let Some(mapped) = blame(self.op, || (self.f)(record)) {
            self.next.push(mapped, stamp, cx);
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
