//! `side_output`: a stream parted in two of different types.

use crate::batch::Stamp;
use crate::edge::{EdgeWriter, Wiring};
use crate::error::BuildError;
use crate::pipeline::{Inlet, Pipeline, Terminal};
use crate::plan::{EdgeId, ShardBuild};
use crate::push::{Control, Cx, OpId, Push, blame};
use crate::stream::{Stream, close, inlet};
use std::marker::PhantomData;
use std::panic::Location;

impl<P: Pipeline> Stream<P> {
    /// Parts the stream: what `f` returns as `Ok` goes on in the first stream, what it returns as `Err` in the second.
    /// Stateless, class of its input; time, behind mark and origin go with the record, none is too late, and watermarks go to both streams. O(1) a record.
    /// A stage boundary; for any number of outputs of one type see [`Stream::split`].
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (numbers, number_sink) = testing::collect();
    /// let (rejects, reject_sink) = testing::collect();
    /// let job = Job::new("parse");
    /// let (good, bad) = job
    ///     .source(sources::items(["4", "x", "2"]))
    ///     .side_output(|text| text.parse::<u32>().map_err(|e| format!("{text}: {e}")));
    /// good.sink(number_sink);
    /// bad.sink(reject_sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(numbers.take(), [4, 2]);
    /// assert_eq!(rejects.take(), ["x: invalid digit found in string"]);
    /// ```
    #[track_caller]
    pub fn side_output<A, B, F>(self, f: F) -> (Stream<Inlet<A>>, Stream<Inlet<B>>)
    where
        A: Send + 'static,
        B: Send + 'static,
        F: Fn(P::Item) -> Result<A, B> + Clone + Send + 'static,
    {
        let location = Location::caller();
        let (plan, pipeline, mut ops, meta) = self.into_parts();
        let mut p = plan.lock();
        let op = p.op("side_output", meta.results, location);
        let (main, side) = (p.edge::<A>(Wiring::Local), p.edge::<B>(Wiring::Local));
        drop(p);
        ops.push(op);
        let end = ToEither {
            main,
            side,
            f,
            op,
            outputs: PhantomData::<fn() -> (A, B)>,
        };
        close(&plan, pipeline, ops, end);
        (
            inlet(&plan, vec![main], op, meta.clone()),
            inlet(&plan, vec![side], op, meta),
        )
    }
}

/// To one of two stages on the same shard.
struct ToEither<A, B, F> {
    main: EdgeId,
    side: EdgeId,
    f: F,
    op: OpId,
    outputs: PhantomData<fn() -> (A, B)>,
}

impl<T, A, B, F> Terminal<T> for ToEither<A, B, F>
where
    T: 'static,
    A: Send + 'static,
    B: Send + 'static,
    F: Fn(T) -> Result<A, B> + Clone + Send + 'static,
{
    type End = EitherLink<A, B, F>;
    fn open(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::End, BuildError> {
        Ok(EitherLink {
            main: build.writer(self.main),
            side: build.writer(self.side),
            f: self.f.clone(),
            op: self.op,
        })
    }
    fn outputs(&self) -> Vec<EdgeId> {
        vec![self.main, self.side]
    }
}

/// See [`Stream::side_output`].
struct EitherLink<A, B, F> {
    main: EdgeWriter<A>,
    side: EdgeWriter<B>,
    f: F,
    op: OpId,
}

impl<T, A, B, F: Fn(T) -> Result<A, B>> Push<T> for EitherLink<A, B, F> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        match blame(self.op, || (self.f)(record)) {
            Ok(record) => self.main.add(0, record, stamp, cx),
            Err(record) => self.side.add(0, record, stamp, cx),
        }
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.main.control(event, cx);
        self.side.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.main.blocked() || self.side.blocked()
    }
}
