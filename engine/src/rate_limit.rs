//! `rate_limit`: of each key no more than so many records a span of event time.
//!
//! Laws
//! 1. A key has a bucket of n tokens that fills evenly, n a span of event time, and is full at first. A record takes a token and
//!    passes; where there is none it does not, and takes none. So n pass at once after a rest, n a span in the long run, and no more than
//!    2 n - 1 in any span.
//! 2. It is computed without rounding: the bucket is known by the time at which it is full again, in n-ths of a microsecond.
//! 3. In event-time order what passes follows from the input alone (class ROWS). In the order of arrival it depends on that (class EXEMPT).
//! 4. A bucket that is full is that of a new key: the state goes once M has passed the last record that passed by the span.
//!
//! It is a process function ([`mod@crate::process`]) with one value a key. O(1) a record: one probe. One time instead of a count and a time: the generic cell
//! rate algorithm (ITU-T I.371, ATM Forum 1996).

use crate::error::BuildError;
use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::ordered::OrderedStream;
use crate::pipeline::{MakeOperator, Pipeline};
use crate::plan::{Class, Results};
use crate::process::{NoTimer, Ttl, function, value};
use crate::push::OpId;
use crate::stage::operator::Operator;
use crate::state::State;
use crate::stream::Stream;
use crate::time::Span;
use crate::window::check_positive;
use std::panic::Location;

impl<P: Pipeline, K: KeyOf<P::Item>> KeyedStream<P, K> {
    /// Passes on what keeps to a rate: `n` records of a key a `span` of event time. It is a bucket of `n` tokens that fills evenly and
    /// is full at first, so `n` pass at once after a rest, `n` a span in the long run, and at most 2 `n` - 1 in any one span. A record
    /// that passes is an `Ok`, one too many an `Err`, so none is lost unseen: part them by [`Stream::side_output`], or drop them by `flat_map(|r| r.ok())`.
    ///
    /// Records keep their time and behind mark; none is too late. Class EXEMPT, since it goes by the order of arrival; put
    /// [`KeyedStream::in_event_time_order`] before it for one fixed answer (class ROWS): a record that comes out of order is held against the bucket as
    /// the last one left it, so one far ahead has those behind it refused. For a limit of the whole stream, [`Stream::in_event_time_order`].
    /// State: 32 bytes for each key, until the watermark has passed the last record that passed by the span. O(1) a record.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("alerts");
    /// job.source(sources::items([1, 2, 3, 31, 200]))
    ///    .event_time(|t| EventTime::from_seconds(*t), Watermarks::monotonous())
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .rate_limit(2, 1.minutes())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [Ok(1), Ok(2), Err(3), Ok(31), Ok(200)]);
    /// ```
    #[track_caller]
    pub fn rate_limit(
        self,
        n: u32,
        span: Span,
    ) -> Stream<impl Pipeline<Item = Result<P::Item, P::Item>>>
    where
        P::Item: Clone,
    {
        let op = noted(&self, n, span, Location::caller());
        let results = Results::last(Class::Exempt);
        self.operator(op, results, move |key| maker(key, (n, span), op, false))
    }
}

impl<P: Pipeline<Item: State + Clone>, K: KeyOf<P::Item>> OrderedStream<P, K> {
    /// As [`KeyedStream::rate_limit`], in event-time order, where its example is: class ROWS. Late records are dropped before it, as of [`OrderedStream`].
    #[track_caller]
    pub fn rate_limit(
        self,
        n: u32,
        span: Span,
    ) -> Stream<impl Pipeline<Item = Result<P::Item, P::Item>>> {
        let op = noted(self.keyed(), n, span, Location::caller());
        self.behind(op, Results::ROWS, move |key| {
            maker(key, (n, span), op, true)
        })
    }
}

/// Notes the operator, and what is wrong with its rate.
fn noted<P: Pipeline, K: KeyOf<P::Item>>(
    keyed: &KeyedStream<P, K>,
    n: u32,
    span: Span,
    location: &'static Location<'static>,
) -> OpId {
    let op = keyed.note("rate_limit", location, true);
    let mut plan = keyed.stream.plan.lock();
    plan.info_mut(op).detail = format!("{n} a {span}");
    let mut wrong = check_positive(plan.info(op), "span", span).err();
    if n == 0 {
        let what = "it lets 0 records pass";
        wrong = Some(BuildError::argument(plan.info(op), what, "give at least 1"));
    }
    plan.errors.extend(wrong);
    op
}

/// Its operator.
pub(crate) fn maker<T: Clone + Send + 'static, K: KeyOf<T>>(
    key: K,
    (n, span): (u32, Span),
    op: OpId,
    in_order: bool,
) -> impl MakeOperator<T, Op: Operator<T, Out = Result<T, T>>> {
    let full = value::<(i128, u32)>("full at").ttl(Ttl::event_time(span));
    let (parts, n, token) = (n, i128::from(n), i128::from(span.micros()));
    function(
        (key, full),
        op,
        in_order,
        NoTimer,
        move |record: &T, full, cx| {
            let now = i128::from(cx.time().micros()) * n;
            // In n-ths of a microsecond, as many as the job had that wrote it.
            let at = full.get().map(|(at, of)| at * n / i128::from(*of));
            let then = at.map_or(now, |at| now.max(at)) + token;
            if then - now > token * n {
                return cx.emit(Err(record.clone()));
            }
            full.set((then, parts));
            cx.emit(Ok(record.clone()));
        },
    )
}
