//! `flat_map`: one record in, any number out, with its event time and behind mark; ties among them go by their order.
//!
//! Laws
//! 1. When the terminal is full the expansion stops where it is, and goes on from there when there is room: however much a
//!    record expands to, no more than the rings hold is under way.
//! 2. What the stage pushes before it sees that the chain is blocked is held in order, control events among it.

use crate::batch::{Origin, Stamp};
use crate::checkpoint::{Frame, Saved, Snapshot};
use crate::pipeline::Pipeline;
use crate::plan::ShardBuild;
use crate::push::{Control, Cx, OpId, Push, blame};
use crate::state::LoadError;
use std::collections::VecDeque;
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
    I::IntoIter: Send + 'static,
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
            making: None,
            held: VecDeque::new(),
        };
        self.before.link(link, build)
    }
    fn root(&mut self) -> &mut P::Root {
        self.before.root()
    }
}

/// What waits until the terminal has room again.
enum Held<T> {
    Record(T, Stamp, Origin),
    Control(Control),
}

/// The record whose results are being handed on.
struct Making<I> {
    rest: I,
    stamp: Stamp,
    /// Its own, of which those of its results are made.
    origin: Origin,
    /// Results handed on.
    made: u64,
}

/// See the module.
pub struct FlatMapLink<T, I: IntoIterator, F, N> {
    next: N,
    f: F,
    op: OpId,
    /// Cut short because the terminal was full.
    making: Option<Making<I::IntoIter>>,
    /// What came after it, in order: at most what a stage pushes before it asks whether the chain is blocked.
    held: VecDeque<Held<T>>,
}

impl<T, I: IntoIterator, F: Fn(T) -> I, N: Push<I::Item>> FlatMapLink<T, I, F, N> {
    /// Hands on the results of one record, as long as there is room.
    #[inline(always)]
    fn make(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let mut rest = blame(self.op, || (self.f)(record)).into_iter();
        let parent = cx.origin.emission;
        let mut made = 0;
        while let Some(record) = blame(self.op, || rest.next()) {
            cx.origin.emission = Origin::below(parent, made);
            made += 1;
            self.next.push(record, stamp, cx);
            if self.next.blocked() {
                cx.origin.emission = parent;
                self.making = Some(Making {
                    rest,
                    stamp,
                    origin: cx.origin,
                    made,
                });
                return;
            }
        }
        cx.origin.emission = parent;
    }

    /// Goes on with what was cut short, then with what was held; whether nothing is left.
    fn go_on(&mut self, cx: &mut Cx) -> bool {
        let before = cx.origin;
        while !self.next.blocked() {
            if let Some(making) = &mut self.making {
                cx.origin = making.origin;
                match blame(self.op, || making.rest.next()) {
                    Some(record) => {
                        cx.origin.emission = Origin::below(making.origin.emission, making.made);
                        making.made += 1;
                        self.next.push(record, making.stamp, cx);
                    }
                    None => self.making = None,
                }
                continue;
            }
            match self.held.pop_front() {
                Some(Held::Record(record, stamp, origin)) => {
                    cx.origin = origin;
                    self.make(record, stamp, cx);
                }
                Some(Held::Control(event)) => self.next.control(event, cx),
                None => break,
            }
        }
        cx.origin = before;
        !self.is_holding()
    }

    #[inline(always)]
    fn is_holding(&self) -> bool {
        self.making.is_some() || !self.held.is_empty()
    }
}

impl<T, I: IntoIterator, F: Fn(T) -> I, N: Push<I::Item>> Push<T> for FlatMapLink<T, I, F, N> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        if self.is_holding() {
            self.held.push_back(Held::Record(record, stamp, cx.origin));
        } else {
            self.make(record, stamp, cx);
        }
    }
    #[inline]
    fn control(&mut self, event: Control, cx: &mut Cx) {
        if !self.is_holding() {
            return self.next.control(event, cx);
        }
        if event != Control::Flush {
            self.held.push_back(Held::Control(event));
        }
        // The terminal tries what is pending, and what was held here follows.
        self.next.control(Control::Flush, cx);
        if self.go_on(cx) {
            self.next.control(Control::Flush, cx);
        }
    }
    #[inline]
    fn blocked(&self) -> bool {
        self.is_holding() || self.next.blocked()
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
