//! The order of keys: that of their canonical words, compared as numbers one after another. It depends on nothing but the
//! keys, so what fires at one time fires in one order on every machine (SEMANTICS, windows and timers).

use crate::key::{Key, KeyWords};
use std::cmp::Ordering;

/// Words looked at in one go.
const WINDOW: usize = 8;

/// The words of a key from some index on, as many as fit.
struct Words {
    skip: usize,
    len: usize,
    words: [u64; WINDOW],
}

impl Words {
    #[inline]
    fn of<K: Key>(key: &K, skip: usize) -> Self {
        let mut words = Words {
            skip,
            len: 0,
            words: [0; WINDOW],
        };
        key.words(&mut words);
        words
    }

    fn found(&self) -> &[u64] {
        &self.words[..self.len]
    }
}

impl KeyWords for Words {
    #[inline]
    fn word(&mut self, word: u64) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.len < WINDOW {
            self.words[self.len] = word;
            self.len += 1;
        }
    }
}

/// The first word of a key, 0 where it has none: decides nearly always, and orders as [`compare`] does.
#[inline]
pub(crate) fn first_word<K: Key>(key: &K) -> u64 {
    Words::of(key, 0).words[0]
}

/// Compares two keys by their words. No allocation; long keys are gone through in windows.
pub(crate) fn compare<K: Key>(a: &K, b: &K) -> Ordering {
    let mut from = 0;
    loop {
        let (x, y) = (Words::of(a, from), Words::of(b, from));
        let order = x.found().cmp(y.found());
        if order != Ordering::Equal || x.len < WINDOW {
            return order;
        }
        from += WINDOW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct All(Vec<u64>);
    impl KeyWords for All {
        fn word(&mut self, word: u64) {
            self.0.push(word);
        }
    }

    fn all<K: Key>(key: &K) -> Vec<u64> {
        let mut words = All(vec![]);
        key.words(&mut words);
        words.0
    }

    proptest! {
        #[test]
        fn it_is_the_order_of_the_words(a in "[ab]{0,140}", b in "[ab]{0,140}", n in 0u64..3, m in 0u64..3) {
            let (x, y) = ((n, a), (m, b));
            prop_assert_eq!(compare(&x, &y), all(&x).cmp(&all(&y)));
            prop_assert_eq!(compare(&x, &x), Ordering::Equal);
            if first_word(&x) != first_word(&y) {
                prop_assert_eq!(compare(&x, &y), first_word(&x).cmp(&first_word(&y)));
            }
            // Equal but for the last letter.
            let (p, q) = (format!("{}a", x.1), format!("{}b", x.1));
            prop_assert_eq!(compare(&p, &q), all(&p).cmp(&all(&q)));
        }
    }
}
