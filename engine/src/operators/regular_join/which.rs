//! The sides of a regular join as one of them sees them.

use super::bag::Bag;
use crate::change::Change;
use crate::process::Head;
use crate::sides::Sides;
use crate::state::State;

/// What the records of a side say of its rows: [`PlainRows`] or [`ChangeRows`]. Not to be implemented elsewhere.
pub trait SideRows<T>: Send + 'static {
    /// A row, as it is kept.
    type Row: State;
    /// Whether rows are ever taken back.
    #[doc(hidden)]
    const TAKE_BACK: bool;
    /// A record's row.
    #[doc(hidden)]
    fn row(record: &T) -> &Self::Row;
    /// The same by value.
    #[doc(hidden)]
    fn into_row(record: T) -> Self::Row;
    /// Whether a record adds its row.
    #[doc(hidden)]
    fn adds(record: &T) -> bool;
}

/// Each record is a row, which stays.
#[derive(Clone, Copy, Debug)]
pub struct PlainRows;

/// Each record adds a row or takes one back: see [`mod@crate::change`].
#[derive(Clone, Copy, Debug)]
pub struct ChangeRows;

impl<T: State> SideRows<T> for PlainRows {
    type Row = T;
    const TAKE_BACK: bool = false;
    fn row(record: &T) -> &T {
        record
    }
    fn into_row(record: T) -> T {
        record
    }
    fn adds(_: &T) -> bool {
        true
    }
}

impl<T: State> SideRows<Change<T>> for ChangeRows {
    type Row = T;
    const TAKE_BACK: bool = true;
    fn row(record: &Change<T>) -> &T {
        &record.row
    }
    fn into_row(record: Change<T>) -> T {
        record.row
    }
    fn adds(record: &Change<T>) -> bool {
        record.is_addition()
    }
}

/// The places of both sides in a key's row.
pub(super) type Heads = (Head, Head);

/// See the module. `L` and `R` are records; what is kept of them, `A` and `B` say.
pub(super) trait Which<L, R, A: SideRows<L>, B: SideRows<R>> {
    type Mine: State;
    type Theirs: State;
    /// A record of this side: its row, and whether it adds it.
    fn borrow(of: &Sides<L, R>) -> Option<(&Self::Mine, bool)>;
    fn mine(of: Sides<L, R>) -> Option<Self::Mine>;
    fn bags<'a>(
        left: &'a mut Bag<A::Row>,
        right: &'a mut Bag<B::Row>,
    ) -> (&'a mut Bag<Self::Mine>, &'a mut Bag<Self::Theirs>);
    fn head(heads: &mut Heads) -> &mut Head;
    fn their_head(heads: &Heads) -> &Head;
    fn pair<O>(
        f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O,
        mine: &Self::Mine,
        theirs: &Self::Theirs,
    ) -> O;
    /// A row of this side by itself.
    fn own<O>(f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O, mine: &Self::Mine) -> O;
    /// One of the other.
    fn their<O>(f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O, theirs: &Self::Theirs) -> O;
}

pub(super) struct OfLeft;
pub(super) struct OfRight;

impl<L, R, A: SideRows<L>, B: SideRows<R>> Which<L, R, A, B> for OfLeft {
    type Mine = A::Row;
    type Theirs = B::Row;
    fn borrow(of: &Sides<L, R>) -> Option<(&A::Row, bool)> {
        match of {
            Sides::Left(mine) => Some((A::row(mine), A::adds(mine))),
            Sides::Right(_) => None,
        }
    }
    fn mine(of: Sides<L, R>) -> Option<A::Row> {
        match of {
            Sides::Left(mine) => Some(A::into_row(mine)),
            Sides::Right(_) => None,
        }
    }
    fn bags<'a>(
        left: &'a mut Bag<A::Row>,
        right: &'a mut Bag<B::Row>,
    ) -> (&'a mut Bag<A::Row>, &'a mut Bag<B::Row>) {
        (left, right)
    }
    fn head(heads: &mut Heads) -> &mut Head {
        &mut heads.0
    }
    fn their_head(heads: &Heads) -> &Head {
        &heads.1
    }
    fn pair<O>(
        f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O,
        mine: &A::Row,
        theirs: &B::Row,
    ) -> O {
        f(Some(mine), Some(theirs))
    }
    fn own<O>(f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O, mine: &A::Row) -> O {
        f(Some(mine), None)
    }
    fn their<O>(f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O, theirs: &B::Row) -> O {
        f(None, Some(theirs))
    }
}

impl<L, R, A: SideRows<L>, B: SideRows<R>> Which<L, R, A, B> for OfRight {
    type Mine = B::Row;
    type Theirs = A::Row;
    fn borrow(of: &Sides<L, R>) -> Option<(&B::Row, bool)> {
        match of {
            Sides::Right(mine) => Some((B::row(mine), B::adds(mine))),
            Sides::Left(_) => None,
        }
    }
    fn mine(of: Sides<L, R>) -> Option<B::Row> {
        match of {
            Sides::Right(mine) => Some(B::into_row(mine)),
            Sides::Left(_) => None,
        }
    }
    fn bags<'a>(
        left: &'a mut Bag<A::Row>,
        right: &'a mut Bag<B::Row>,
    ) -> (&'a mut Bag<B::Row>, &'a mut Bag<A::Row>) {
        (right, left)
    }
    fn head(heads: &mut Heads) -> &mut Head {
        &mut heads.1
    }
    fn their_head(heads: &Heads) -> &Head {
        &heads.0
    }
    fn pair<O>(
        f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O,
        mine: &B::Row,
        theirs: &A::Row,
    ) -> O {
        f(Some(theirs), Some(mine))
    }
    fn own<O>(f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O, mine: &B::Row) -> O {
        f(None, Some(mine))
    }
    fn their<O>(f: &impl Fn(Option<&A::Row>, Option<&B::Row>) -> O, theirs: &A::Row) -> O {
        f(Some(theirs), None)
    }
}
