//! The sides of an interval join as one of them sees them, and what ties of their rows go by.

use super::Rule;
use super::side::Side;
use crate::batch::Origin;
use crate::push::OpId;
use crate::sides::Sides;
use crate::state::State;

/// The sides as one of them sees them.
pub(super) trait Which<L, R> {
    type Mine: State;
    type Theirs: State;
    /// Its place in [`Heads`].
    const AT: usize;
    fn wrap(mine: Self::Mine) -> Sides<L, R>;
    fn mine(of: Sides<L, R>) -> Option<Self::Mine>;
    fn borrow(of: &Sides<L, R>) -> Option<&Self::Mine>;
    fn sides<'a>(
        left: &'a mut Side<L>,
        right: &'a mut Side<R>,
    ) -> (&'a mut Side<Self::Mine>, &'a mut Side<Self::Theirs>);
    /// The times that one at 0 reaches.
    fn reach(rule: &Rule) -> (i64, i64);
    fn row<O>(
        f: &impl Fn(Option<&L>, Option<&R>) -> O,
        mine: &Self::Mine,
        theirs: Option<&Self::Theirs>,
    ) -> O;
    /// The origin of a row, by what ties of both sides go by.
    fn origin(op: OpId, mine: u64, theirs: u64) -> Origin;
}

pub(super) struct OfLeft;
pub(super) struct OfRight;

impl<L: State, R: State> Which<L, R> for OfLeft {
    type Mine = L;
    type Theirs = R;
    const AT: usize = 0;
    fn wrap(mine: L) -> Sides<L, R> {
        Sides::Left(mine)
    }
    fn mine(of: Sides<L, R>) -> Option<L> {
        match of {
            Sides::Left(mine) => Some(mine),
            Sides::Right(_) => None,
        }
    }
    fn borrow(of: &Sides<L, R>) -> Option<&L> {
        match of {
            Sides::Left(mine) => Some(mine),
            Sides::Right(_) => None,
        }
    }
    fn sides<'a>(
        left: &'a mut Side<L>,
        right: &'a mut Side<R>,
    ) -> (&'a mut Side<L>, &'a mut Side<R>) {
        (left, right)
    }
    fn reach(rule: &Rule) -> (i64, i64) {
        (rule.lower, rule.upper)
    }
    fn row<O>(f: &impl Fn(Option<&L>, Option<&R>) -> O, mine: &L, theirs: Option<&R>) -> O {
        f(Some(mine), theirs)
    }
    fn origin(op: OpId, mine: u64, theirs: u64) -> Origin {
        Origin::derived(op, scattered(scattered(0, mine), theirs))
    }
}

impl<L: State, R: State> Which<L, R> for OfRight {
    type Mine = R;
    type Theirs = L;
    const AT: usize = 1;
    fn wrap(mine: R) -> Sides<L, R> {
        Sides::Right(mine)
    }
    fn mine(of: Sides<L, R>) -> Option<R> {
        match of {
            Sides::Right(mine) => Some(mine),
            Sides::Left(_) => None,
        }
    }
    fn borrow(of: &Sides<L, R>) -> Option<&R> {
        match of {
            Sides::Right(mine) => Some(mine),
            Sides::Left(_) => None,
        }
    }
    fn sides<'a>(
        left: &'a mut Side<L>,
        right: &'a mut Side<R>,
    ) -> (&'a mut Side<R>, &'a mut Side<L>) {
        (right, left)
    }
    fn reach(rule: &Rule) -> (i64, i64) {
        (-rule.upper, -rule.lower)
    }
    fn row<O>(f: &impl Fn(Option<&L>, Option<&R>) -> O, mine: &R, theirs: Option<&L>) -> O {
        f(theirs, Some(mine))
    }
    fn origin(op: OpId, mine: u64, theirs: u64) -> Origin {
        <OfLeft as Which<L, R>>::origin(op, theirs, mine)
    }
}

/// One more word scattered into a hash: the finish of splitmix64 (Steele, Lea, Flood, 2014).
fn scattered(hash: u64, word: u64) -> u64 {
    let mut hash = hash.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ word;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ hash >> 31
}

/// What ties go by: law 5.
pub(super) fn tie_of(origin: &Origin) -> u64 {
    let place = u64::from(origin.source) << 32 | u64::from(origin.partition);
    let hash = scattered(scattered(0, place), origin.offset);
    scattered(hash, origin.emission)
}
