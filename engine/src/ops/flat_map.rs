//! `flat_map`: one record in, any number out, with its event time and behind mark; ties among them go by their order.
//!
//! What one record expands to is taken whole: the bound on a stage's output holds between records, not within one.

use crate::batch::{Origin, Stamp};
use crate::pipeline::Pipeline;
use crate::plan::ShardBuild;
use crate::push::{Control, Cx, OpId, Push, blame};
use std::marker::PhantomData;

/// A pipeline with a `flat_map` at its end.
#[derive(Debug)]
pub struct FlatMapped<P, I, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) op: OpId,
    pub(crate) out: PhantomData<fn() -> I>,
}

#[allow(private_interfaces)]
impl<P, I, F> Pipeline for FlatMapped<P, I, F>
where
    P: Pipeline,
    I: IntoIterator + 'static,
    I::Item: Send + 'static,
    F: Fn(P::Item) -> I + Clone + Send + 'static,
{
    type Root = P::Root;
    type Item = I::Item;
    type Link<N: Push<I::Item> + Send + 'static> = P::Link<FlatMapLink<P::Item, I, F, N>>;
    fn link<N: Push<I::Item> + Send + 'static>(
        &self,
        next: N,
        build: &mut ShardBuild<'_, '_>,
    ) -> Self::Link<N> {
        let link = FlatMapLink {
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
pub struct FlatMapLink<T, I, F, N> {
    next: N,
    f: F,
    op: OpId,
    types: PhantomData<fn(T) -> I>,
}

impl<T, I: IntoIterator, F: Fn(T) -> I, N: Push<I::Item>> Push<T> for FlatMapLink<T, I, F, N> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let mut made = blame(self.op, || (self.f)(record)).into_iter();
        let parent = cx.origin.emission;
        let mut index = 0;
        while let Some(record) = blame(self.op, || made.next()) {
            cx.origin.emission = Origin::below(parent, index);
            index += 1;
            self.next.push(record, stamp, cx);
        }
        cx.origin.emission = parent;
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
}
