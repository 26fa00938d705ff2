//! What an element asks of an event: conditions joined by "and" and "or", as they were written.

use super::matches::Matched;

/// One condition of the user's, cloned once a shard.
trait Ask<T>: Send {
    fn ask(&self, event: &T, matched: &Matched<'_, T>) -> bool;
    /// Whether it may hold for the event, behind whatever match.
    fn may_hold(&self, event: &T) -> bool;
    fn cloned(&self) -> Box<dyn Ask<T>>;
}

#[derive(Clone)]
struct Alone<F>(F);

#[derive(Clone)]
struct Among<F>(F);

impl<T, F: Fn(&T) -> bool + Clone + Send + 'static> Ask<T> for Alone<F> {
    fn ask(&self, event: &T, _: &Matched<'_, T>) -> bool {
        (self.0)(event)
    }
    fn may_hold(&self, event: &T) -> bool {
        (self.0)(event)
    }
    fn cloned(&self) -> Box<dyn Ask<T>> {
        Box::new(self.clone())
    }
}

impl<T, F> Ask<T> for Among<F>
where
    F: Fn(&T, &Matched<'_, T>) -> bool + Clone + Send + 'static,
{
    fn ask(&self, event: &T, matched: &Matched<'_, T>) -> bool {
        (self.0)(event, matched)
    }
    fn may_hold(&self, _: &T) -> bool {
        true
    }
    fn cloned(&self) -> Box<dyn Ask<T>> {
        Box::new(self.clone())
    }
}

/// How a condition is joined to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joined {
    And,
    Or,
}

/// All conditions of an element. Without any it takes every event.
#[allow(missing_debug_implementations)]
pub(crate) struct Condition<T> {
    parts: Vec<(Joined, Box<dyn Ask<T>>)>,
    /// Whether one of them looks at the match.
    pub looks_back: bool,
}

impl<T> Default for Condition<T> {
    fn default() -> Self {
        Condition {
            parts: vec![],
            looks_back: false,
        }
    }
}

impl<T> Clone for Condition<T> {
    fn clone(&self) -> Self {
        let parts = self.parts.iter().map(|(j, ask)| (*j, ask.cloned()));
        Condition {
            parts: parts.collect(),
            looks_back: self.looks_back,
        }
    }
}

impl<T> Condition<T> {
    pub fn and(&mut self, f: impl Fn(&T) -> bool + Clone + Send + 'static) {
        self.parts.push((Joined::And, Box::new(Alone(f))));
    }

    pub fn or(&mut self, f: impl Fn(&T) -> bool + Clone + Send + 'static) {
        // The first one has nothing to be joined to.
        let joined = match self.parts.is_empty() {
            true => Joined::And,
            false => Joined::Or,
        };
        self.parts.push((joined, Box::new(Alone(f))));
    }

    pub fn and_among(&mut self, f: impl Fn(&T, &Matched<'_, T>) -> bool + Clone + Send + 'static) {
        self.parts.push((Joined::And, Box::new(Among(f))));
        self.looks_back = true;
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it may hold for an event, behind whatever match: `and` and `or` only gain by a part that holds.
    #[inline]
    pub fn may_hold(&self, event: &T) -> bool {
        if let [(_, alone)] = &*self.parts {
            return alone.may_hold(event);
        }
        self.parts.iter().fold(true, |so_far, (joined, part)| {
            let asks = so_far == (*joined == Joined::And);
            if asks { part.may_hold(event) } else { so_far }
        })
    }

    /// From the left: `a and b or c` is `(a and b) or c`.
    #[inline]
    pub fn holds(&self, event: &T, matched: &Matched<'_, T>) -> bool {
        if let [(_, alone)] = &*self.parts {
            return alone.ask(event, matched);
        }
        self.parts.iter().fold(true, |so_far, (joined, part)| {
            let asks = so_far == (*joined == Joined::And);
            if asks {
                part.ask(event, matched)
            } else {
                so_far
            }
        })
    }
}
