//! What becomes of requests, counted by cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident),*) => {
        /// What has become of the requests of an operator, all shards together, since its job was written: see
        /// [`Async::figures`](super::Async::figures). It may be read from any thread while the job runs; shards add to it once a step.
        #[derive(Clone, Debug, Default)]
        pub struct CallFigures(Arc<Shared>);

        #[derive(Debug, Default)]
        struct Shared { $($name: AtomicU64),* }

        /// What a shard has counted and not told yet.
        #[derive(Debug, Default, PartialEq, Eq)]
        pub(crate) struct Tally { $(pub $name: u64),* }

        impl CallFigures {
            $($(#[$doc])* pub fn $name(&self) -> u64 { self.0.$name.load(Relaxed) })*

            /// Adds what was counted, and begins anew.
            pub(crate) fn add(&self, tally: &mut Tally) {
                $(if tally.$name > 0 {
                    self.0.$name.fetch_add(tally.$name, Relaxed);
                })*
                *tally = Tally::default();
            }
        }
    };
}

figures! {
    /// Attempts that were begun.
    requests,
    /// Those among them that repeat one that failed or took too long.
    retries,
    /// Attempts without an answer in time.
    timed_out,
    /// Attempts whose answer was a failure.
    refused,
    /// Requests that were given up: no attempt is left.
    failed,
    /// Answers to attempts that had been given up by then.
    stale,
    /// Records of a lookup join that the cache answered.
    hits,
    /// Records of a lookup join that waited for a request which was out already for their key.
    coalesced,
    /// Rows that left the cache of a lookup join for others.
    evicted
}
