//! What becomes of other partial matches when one is complete, and when there are too many.

/// What goes when a match is complete. Each but the first says where matching goes on: partial matches of the key whose first event
/// lies before that place go, whether they began before the match or after it.
///
/// Matches are looked at in the order in which they become complete; of those that one event completes, the one that took the
/// earlier event where they first differ comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterMatch {
    /// Nothing: every match is told.
    #[default]
    NoSkip,
    /// On behind the first event of the match: no two matches begin with one event.
    ToNext,
    /// On behind the last event of the match: no two matches share an event.
    PastLast,
    /// On with the first event of an element. Where the match has none, nothing goes.
    ToFirst(String),
    /// On with the last event of an element. Where the match has none, nothing goes.
    ToLast(String),
}

/// What goes when a key has more partial matches than it may have. What goes is counted
/// ([`Counters::dropped_matches`](crate::push::Counters::dropped_matches)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Those whose first event is the oldest.
    #[default]
    DropOldest,
    /// Those whose first event is the newest.
    DropNewest,
}
