//! Patterns: sequences of events of one key, found in event-time order (complex event processing).
//!
//! A [`Pattern`] is written as a sequence of elements and given to [`KeyedStream::pattern`](crate::KeyedStream::pattern). It runs as a
//! nondeterministic automaton over a buffer that matches share (SASE+: Agrawal, Diao, Gyllstrom, Immerman, "Efficient pattern
//! matching over event streams", SIGMOD 2008). The terms are those of Flink CEP.
//!
//! What follows an `a` in the events `a b1 c b2`:
//!
//! | written | matches |
//! |---|---|
//! | `begin("a").next("b")` | `a b1` |
//! | `begin("a").followed_by("b")` | `a b1` |
//! | `begin("a").followed_by_any("b")` | `a b1`, `a b2` |
//! | `begin("a").followed_by("b").one_or_more()` | `a b1`, `a b1 b2` |
//! | .. `.consecutive()` | `a b1` |
//! | `begin("a").followed_by_any("b").one_or_more()` | `a b1`, `a b1 b2`, `a b2` |
//!
//! What a loop takes may have other events between, and each length of it is a match, unless something that follows says more.

mod buffer;
mod build;
mod condition;
mod kept;
mod matches;
mod nfa;
mod policy;
mod runs;
mod sieve;
mod slab;
mod stream;

pub use build::Pattern;
pub(crate) use kept::{Entry, KeptRuns, Whose};
pub use matches::{Matched, TimedOut};
pub(crate) use nfa::Nfa;
pub use policy::{AfterMatch, WhenFull};
pub(crate) use runs::{Bounds, Matching, Runs, Tell};
pub use stream::PatternStream;
pub(crate) use stream::TimedOutTo;

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
