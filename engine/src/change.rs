//! Change rows: what happens to a row of a table that a stream tells of.
//!
//! A result that later records replace is told as changes, so that whoever keeps the results can take back what no longer holds:
//!
//! | kind | short | the row |
//! |---|---|---|
//! | [`Kind::Insert`] | `+I` | is new |
//! | [`Kind::UpdateBefore`] | `-U` | was so until now; the update that replaces it follows at once |
//! | [`Kind::UpdateAfter`] | `+U` | is so from now on |
//! | [`Kind::Delete`] | `-D` | has gone |
//!
//! Laws
//! 1. Rows are counted: `+I` and `+U` add one, `-U` and `-D` take one away that was added before. What stands is a bag of rows that is never
//!    short of one.
//! 2. What stands in the end is the same in every run (class NET); how many changes led there is not. Behind
//!    [`KeyedStream::in_event_time_order`](crate::KeyedStream::in_event_time_order) the changes are the same as well (class ROWS).
//! 3. The changes of one key lie in their order on its shard. An exchange by another key keeps it for rows that share both.
//! 4. A retraction of a row that does not stand is ignored and counted
//!    ([`Counters::stray_retractions`](crate::push::Counters::stray_retractions)): which are known for such is said by each operator. Those that are told here
//!    are none (law 1).
//!
//! Their makers are [`KeyedStream::changelog`](crate::KeyedStream::changelog), [`KeyedStream::top`](crate::KeyedStream::top),
//! [`KeyedStream::top_with_rank`](crate::KeyedStream::top_with_rank), [`KeyedStream::regular_join`](crate::KeyedStream::regular_join), and what applies
//! changes, since it tells its own. A source may be one too: all changes of a row have to come in one partition, or a `-D` may overtake its `+I`.
//!
//! They are applied by what follows [`KeyedStream::apply_changes`](crate::KeyedStream::apply_changes), aggregates and rankings of the rows that stand, and by
//! the regular join where it is told of them. Every other operator with state takes a change for a record like others, and is refused behind them where
//! their number is not fixed. An append-only sink is refused in any case; what takes them:
//!
//! - a *changelog*: any sink that is given `.updates()` has each change with its kind, those of a shard in order. In files of lines the
//!   connectors' `lines::changes(..)` writes the kind before each row.
//! - a *table with one row a key*: [`KeyedStream::upserts`](crate::KeyedStream::upserts) makes upserts and deletions of them, for
//!   [`sink::upserts`](crate::sink::upserts()) or for lines with tombstones; [`KeyedStream::materialize`](crate::KeyedStream::materialize) keeps
//!   a [`Table`](crate::sink::Table) in memory.
//!
//! The kinds and their names are those of
//! Flink's `RowKind`; rows that are added and taken away are the deltas of incremental view maintenance (Gupta, Mumick and Subrahmanian, 1993).

use std::fmt;

/// What a [`Change`] says of its row.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `+I`: it is new.
    Insert,
    /// `-U`: it was so until now.
    UpdateBefore,
    /// `+U`: it is so from now on.
    UpdateAfter,
    /// `-D`: it has gone.
    Delete,
}

impl Kind {
    /// Whether a row is added: `+I` and `+U`.
    #[inline]
    pub const fn is_addition(self) -> bool {
        matches!(self, Kind::Insert | Kind::UpdateAfter)
    }

    /// Whether a row is taken away: `-U` and `-D`.
    #[inline]
    pub const fn is_retraction(self) -> bool {
        !self.is_addition()
    }

    /// `+I`, `-U`, `+U` or `-D`.
    #[inline]
    pub const fn short(self) -> &'static str {
        match self {
            Kind::Insert => "+I",
            Kind::UpdateBefore => "-U",
            Kind::UpdateAfter => "+U",
            Kind::Delete => "-D",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// A row of a table, and what happens to it: see [`mod@crate::change`].
///
/// ```
/// use pelton::change::{Change, Kind};
/// let change = Change::new(Kind::UpdateBefore, 7);
/// assert!(change.is_retraction());
/// assert_eq!(change.to_string(), "-U 7");
/// ```
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change<T> {
    /// What happens.
    pub kind: Kind,
    /// The row.
    pub row: T,
}

impl<T> Change<T> {
    /// A change.
    #[inline]
    pub const fn new(kind: Kind, row: T) -> Self {
        Change { kind, row }
    }

    /// Whether the row is added.
    #[inline]
    pub const fn is_addition(&self) -> bool {
        self.kind.is_addition()
    }

    /// Whether the row is taken away.
    #[inline]
    pub const fn is_retraction(&self) -> bool {
        self.kind.is_retraction()
    }

    /// The same change of another row.
    #[inline]
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Change<U> {
        Change::new(self.kind, f(self.row))
    }
}

impl<T: fmt::Display> fmt::Display for Change<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_adds_or_takes_away() {
        let kinds = [
            (Kind::Insert, "+I", true),
            (Kind::UpdateBefore, "-U", false),
            (Kind::UpdateAfter, "+U", true),
            (Kind::Delete, "-D", false),
        ];
        for (kind, short, adds) in kinds {
            let change = Change::new(kind, 7).map(|n| n + 1);
            assert_eq!(change.to_string(), format!("{short} 8"));
            assert_eq!(
                (change.is_addition(), change.is_retraction()),
                (adds, !adds)
            );
        }
    }
}
