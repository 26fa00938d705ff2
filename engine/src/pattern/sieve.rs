//! What a pattern passes by wherever a match is: such an event need not go to its key, nor wait for its turn.
//!
//! Laws
//! 1. An event is passed by only if no condition of the pattern can hold for it, and nothing in the pattern notices an event that no
//!    condition holds for. So a pattern with strict contiguity, or with an element that takes any event, has no sieve.
//! 2. What a condition says that looks at a match is not known here: it is taken to hold.
//! 3. A record that is behind its watermark goes on unasked: it may be late, and late records are counted.
//!
//! It stands before the exchange. What it passes by would have changed nothing behind the order: partial matches whose time is over
//! by then are ended by the watermark all the same, with the same time.

use super::condition::Condition;
use super::nfa::{Contiguity, Kind, Nfa};
use crate::batch::Stamp;
use crate::checkpoint::{Frame, Saved, Snapshot};
use crate::pipeline::Pipeline;
use crate::plan::ShardBuild;
use crate::push::{Control, Cx, OpId, Push, blame};
use crate::state::LoadError;

/// See the module.
pub(crate) struct Sieve<T>(Vec<Condition<T>>);

impl<T> Clone for Sieve<T> {
    fn clone(&self) -> Self {
        Sieve(self.0.clone())
    }
}

impl<T> Sieve<T> {
    /// Of a pattern, if it passes any event by (law 1).
    pub fn of(nfa: &Nfa<T>) -> Option<Self> {
        let mut conditions = vec![];
        for (at, element) in nfa.elements.iter().enumerate() {
            let is_strict = match element.kind {
                Kind::Takes => {
                    (at > 0 && element.entry == Contiguity::Strict)
                        || (element.most > 1 && element.inner == Contiguity::Strict)
                }
                Kind::NotNext => true,
                Kind::NotFollowedBy => false,
            };
            if is_strict || element.takes.is_empty() {
                return None;
            }
            conditions.push(element.takes.clone());
            conditions.extend(element.until.clone());
        }
        Some(Sieve(conditions))
    }

    /// Whether an event may matter.
    #[inline]
    pub fn keeps(&self, event: &T) -> bool {
        self.0.iter().any(|condition| condition.may_hold(event))
    }
}

/// A pipeline with a pattern's sieve at its end.
#[allow(missing_debug_implementations)]
pub(crate) struct Sifted<P: Pipeline> {
    pub(crate) before: P,
    pub(crate) sieve: Option<Sieve<P::Item>>,
    pub(crate) op: OpId,
}

impl<P: Pipeline> Pipeline for Sifted<P> {
    type Root = P::Root;
    type Item = P::Item;
    type Link<N: Push<P::Item> + Send + 'static> = P::Link<SieveLink<P::Item, N>>;
    fn link<N: Push<P::Item> + Send + 'static>(
        &self,
        next: N,
        build: &mut ShardBuild<'_, '_>,
    ) -> Self::Link<N> {
        let link = SieveLink {
            next,
            sieve: self.sieve.clone(),
            op: self.op,
        };
        self.before.link(link, build)
    }
    fn root(&mut self) -> &mut P::Root {
        self.before.root()
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct SieveLink<T, N> {
    next: N,
    sieve: Option<Sieve<T>>,
    op: OpId,
}

impl<T: Send + 'static, N: Push<T>> Push<T> for SieveLink<T, N> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        if let Some(sieve) = &self.sieve
            && stamp.behind.is_none()
            && !blame(self.op, || sieve.keeps(&record))
        {
            return;
        }
        self.next.push(record, stamp, cx);
    }
    #[inline]
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.next.control(event, cx);
    }
    #[inline]
    fn blocked(&self) -> bool {
        self.next.blocked()
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

#[cfg(test)]
mod tests {
    use super::super::Pattern;
    use super::super::tests::compiled;
    use super::*;
    use crate::time::EventTime;

    struct Given(Vec<String>);

    impl Push<String> for Given {
        fn push(&mut self, record: String, _: Stamp, _: &mut Cx) {
            self.0.push(record);
        }
        fn control(&mut self, _: Control, _: &mut Cx) {}
        fn blocked(&self) -> bool {
            false
        }
    }

    /// What is behind its watermark may be late, which is counted behind the exchange (law 3).
    #[test]
    fn what_is_behind_goes_on_unasked() {
        let a = Pattern::begin("a").where_(|e: &String| e == "a");
        let nfa = compiled(a.followed_by("b").where_(|e| e == "b"));
        let mut link = SieveLink {
            next: Given(vec![]),
            sieve: Sieve::of(&nfa),
            op: OpId(0),
        };
        let time = EventTime::from_micros(1);
        let on_time = Stamp::at(time);
        let behind = Stamp {
            time,
            behind: Some(EventTime::from_micros(2)),
        };
        let mut cx = Cx::new(0);
        for (event, stamp) in [("a", on_time), ("x", on_time), ("y", behind), ("b", behind)] {
            link.push(event.into(), stamp, &mut cx);
        }
        assert_eq!(link.next.0, ["a", "y", "b"]);
    }
}
