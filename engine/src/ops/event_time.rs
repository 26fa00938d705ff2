//! `event_time`: assigns each record its event time and makes the source's watermarks (see [`crate::watermark`]).

use crate::pipeline::Pipeline;
use crate::plan::ShardBuild;
use crate::push::{OpId, Push};
use crate::state::shape_of;
use crate::time::IntoEventTime;
use crate::watermark::{EventTimeLink, WatermarkGenerator, Watermarks};
use std::marker::PhantomData;

/// A pipeline with an `event_time` at its end.
#[derive(Debug)]
pub struct EventTimed<P, R, F, G> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) strategy: Watermarks<G>,
    pub(crate) op: OpId,
    pub(crate) name: String,
    pub(crate) time: PhantomData<fn() -> R>,
}

#[allow(private_interfaces)]
impl<P, R, F, G> Pipeline for EventTimed<P, R, F, G>
where
    P: Pipeline,
    R: IntoEventTime + 'static,
    F: Fn(&P::Item) -> R + Clone + Send + 'static,
    G: WatermarkGenerator<P::Item>,
{
    type Root = P::Root;
    type Item = P::Item;
    type Link<N: Push<P::Item> + Send + 'static> = P::Link<EventTimeLink<P::Item, R, F, G, N>>;
    fn link<N: Push<P::Item> + Send + 'static>(
        &self,
        next: N,
        build: &mut ShardBuild<'_, '_>,
    ) -> Self::Link<N> {
        let state = build.state(Some(self.op), "watermarks", &shape_of::<(i64, G::State)>());
        let link = EventTimeLink::new(
            next,
            self.f.clone(),
            &self.strategy,
            self.op,
            self.name.clone(),
            &build.partitions,
            build.alignment.clone(),
            state,
        );
        self.before.link(link, build)
    }
    fn root(&mut self) -> &mut P::Root {
        self.before.root()
    }
}
