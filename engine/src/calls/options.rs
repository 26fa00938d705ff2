//! How requests are made: in what order results come, how many are out, for how long, how often.

use super::CallFigures;
use crate::error::BuildError;
use crate::plan::OpInfo;
use crate::time::{Span, Spans};

/// At most so many records of a shard are in hand.
const CAPACITY_MAX: usize = 1 << 16;

/// Options of [`Stream::async_map`](crate::Stream::async_map) and [`Stream::lookup_join`](crate::Stream::lookup_join).
///
/// ```
/// use pelton::Spans;
/// use pelton::calls::Async;
/// let options = Async::unordered()
///     .capacity(1_000)
///     .time_out(2.seconds())
///     .retries(5)
///     .back_off(50.millis(), 5.seconds())
///     .rate(2_000);
/// let figures = options.figures();
/// assert_eq!(figures.timed_out(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Async {
    pub(crate) ordered: bool,
    pub(crate) capacity: usize,
    pub(crate) time_out: Span,
    pub(crate) retries: u32,
    pub(crate) back_off: (Span, Span),
    pub(crate) rate: Option<u32>,
    pub(crate) figures: CallFigures,
}

impl Async {
    fn new(ordered: bool) -> Self {
        Async {
            ordered,
            capacity: 256,
            time_out: 10.seconds(),
            retries: 3,
            back_off: (100.millis(), 10.seconds()),
            rate: None,
            figures: CallFigures::default(),
        }
    }

    /// Results leave a shard in the order in which its records came. The slowest answer holds up those behind it.
    pub fn ordered() -> Self {
        Self::new(true)
    }

    /// Results leave as they come; one overtakes another only between two watermarks, so event time is none the worse for it.
    pub fn unordered() -> Self {
        Self::new(false)
    }

    /// Records that a shard has in hand at most, those included whose results wait for their turn; no more requests than that are out at its
    /// client either, given up or not. Then the stream waits. 1 to 65,536; default 256.
    pub fn capacity(mut self, records: usize) -> Self {
        self.capacity = records;
        self
    }

    /// How long an attempt may take, from when the rate lets it go. Default 10 s.
    pub fn time_out(mut self, within: Span) -> Self {
        self.time_out = within;
        self
    }

    /// How often a request that failed, or took too long, is made again. Default 3.
    pub fn retries(mut self, times: u32) -> Self {
        self.retries = times;
        self
    }

    /// How long to wait before asking again: `first`, then twice as long each time, at most `most`. Default 100 ms and 10 s.
    pub fn back_off(mut self, first: Span, most: Span) -> Self {
        self.back_off = (first, most);
        self
    }

    /// Attempts a second at most, of all shards together: each has its equal share, and what one does not use is no other's. A shard that
    /// has rested may make those of a tenth of a second at once. Default: no bound.
    pub fn rate(mut self, a_second: u32) -> Self {
        self.rate = Some(a_second);
        self
    }

    /// What becomes of the requests, live. Operators that are given clones of these options count together.
    pub fn figures(&self) -> CallFigures {
        self.figures.clone()
    }

    /// What is wrong with them.
    pub(crate) fn check(&self, op: &OpInfo) -> Result<(), BuildError> {
        let wrong = |what: String, advice: &str| Err(BuildError::argument(op, what, advice));
        let (first, most) = self.back_off;
        if !(1..=CAPACITY_MAX).contains(&self.capacity) {
            return wrong(
                format!("a capacity of {} records", self.capacity),
                "give it 1 to 65,536",
            );
        }
        if self.time_out <= Span::ZERO {
            return wrong(
                format!("a time-out of {}", self.time_out),
                "give a span above 0: a request that never ends would hold the stream up for ever",
            );
        }
        if first < Span::ZERO || most < first {
            return wrong(
                format!("a back-off from {first} to {most}"),
                "give a first span of 0 or more, and a greatest one that is no less",
            );
        }
        if self.rate == Some(0) {
            return wrong(
                "a rate of 0 requests a second".into(),
                "give it 1 at least, or no rate",
            );
        }
        Ok(())
    }

    /// For `explain`.
    pub(crate) fn describe(&self) -> String {
        let order = if self.ordered { "ordered" } else { "unordered" };
        format!("{order}, capacity {}", self.capacity)
    }
}
