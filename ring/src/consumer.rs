//! The end of a ring that values come out of.

use crate::error::PopError;
use crate::spsc::{Shared, Slots};
use crate::sync::Arc;
use std::cell::Cell;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;

/// The end of a ring that values come out of; made by [`ring`](crate::ring()).
///
/// Dropping it closes the ring, which the producer sees, and drops what is in it. A value that the producer pushes at
/// that very moment is dropped when the producer is.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The next position to be taken. Any `usize`, at most at `tail`. Written here alone; the shared head lags behind it
    /// during a drain, and after one that was leaked.
    head: usize,
    /// The producer's tail when last looked at. Written here alone; may be stale, which understates what is there.
    tail: usize,
    /// One thread at a time.
    _not_sync: PhantomData<Cell<()>>,
}

impl<T> Consumer<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, start: usize) -> Self {
        Consumer {
            shared,
            head: start,
            tail: start,
            _not_sync: PhantomData,
        }
    }

    /// Takes the oldest value and frees its slot at once.
    ///
    /// # Errors
    ///
    /// [`PopError::Empty`] if there is none now; [`PopError::Closed`] if there will never be one again.
    ///
    /// ```
    /// use pelton_ring::PopError;
    ///
    /// let (mut producer, mut consumer) = pelton_ring::ring(2)?;
    /// assert_eq!(consumer.pop(), Err(PopError::Empty));
    /// producer.push(7).unwrap();
    /// drop(producer);
    /// assert_eq!(consumer.pop(), Ok(7), "closing loses nothing");
    /// assert_eq!(consumer.pop(), Err(PopError::Closed));
    /// # Ok::<(), pelton_ring::CapacityError>(())
    /// ```
    #[inline]
    pub fn pop(&mut self) -> Result<T, PopError> {
        if self.known_len() == 0 {
            // In this order: if the producer was gone before we looked at the tail, that tail was its last.
            let closed = self.is_closed();
            if self.is_empty() {
                return Err(if closed {
                    PopError::Closed
                } else {
                    PopError::Empty
                });
            }
        }
        // SAFETY: only the consumer has a `&mut Consumer`; `head` lies before the tail last observed, the shared head never
        // passes ours, and ours moves on with each value taken.
        let value = unsafe { self.shared.slots().take(self.head) };
        self.head = self.head.wrapping_add(1);
        self.publish();
        Ok(value)
    }

    /// Takes up to `max` of the values that are there now; their slots are freed together when the iterator is dropped.
    ///
    /// Values that are not taken from the iterator stay in the ring: leaving the loop early, or by a panic, loses none.
    ///
    /// ```
    /// let (mut producer, mut consumer) = pelton_ring::ring(8)?;
    /// producer.push_batch(&mut (0..5));
    /// assert!(consumer.drain(3).eq([0, 1, 2]));
    /// for value in consumer.drain(usize::MAX) {
    ///     assert_eq!(value, 3);
    ///     break;
    /// }
    /// assert_eq!(consumer.pop(), Ok(4));
    /// # Ok::<(), pelton_ring::CapacityError>(())
    /// ```
    pub fn drain(&mut self, max: usize) -> Drain<'_, T> {
        let mut there = self.known_len();
        if there < max {
            there = self.len();
        }
        let start = self.head;
        let end = start.wrapping_add(there.min(max));
        // For now as if all were taken: so a drain that is leaked takes no value a second time.
        self.head = end;
        let shared = &*self.shared;
        Drain {
            shared,
            slots: shared.slots(),
            consumer_head: &mut self.head,
            start,
            head: start,
            end,
        }
    }

    /// The oldest value, left where it is.
    ///
    /// ```
    /// let (mut producer, mut consumer) = pelton_ring::ring(2)?;
    /// assert_eq!(consumer.peek(), None);
    /// producer.push(7).unwrap();
    /// assert_eq!(consumer.peek(), Some(&7));
    /// assert_eq!(consumer.pop(), Ok(7));
    /// # Ok::<(), pelton_ring::CapacityError>(())
    /// ```
    pub fn peek(&mut self) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: only the consumer has a `&mut Consumer`; there is a value at `head`, and while the reference lives
        // it borrows the consumer, so that nobody takes the value.
        Some(unsafe { self.shared.slots().look(self.head) })
    }

    /// How many values are there, at least: the producer may be adding more.
    pub fn len(&mut self) -> usize {
        self.tail = self.shared.observe_tail();
        self.known_len()
    }

    /// Whether there is no value now.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if self.known_len() == 0 {
            self.tail = self.shared.observe_tail();
        }
        self.known_len() == 0
    }

    /// Whether the producer is gone. Once it is, it stays so; values may still be there.
    ///
    /// Asked *before* [`is_empty`](Self::is_empty), the two together say that nothing will come any more.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.producer_is_gone()
    }

    /// The number of slots.
    pub fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// Values by the last known tail: at most what is truly there (law 4).
    #[inline(always)]
    fn known_len(&self) -> usize {
        let len = self.tail.wrapping_sub(self.head);
        debug_assert!(len <= self.shared.capacity());
        len
    }

    /// Frees the slots of all that has been taken.
    #[inline(always)]
    fn publish(&self) {
        self.shared.publish_head(self.head);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.consumer_leaves();
        // A drain that was leaked has moved our head only. Published first, so that whoever drops the rest never meets a
        // value that has been taken.
        self.publish();
        // Values may hold things that others wait for, such as the producer of a ring for the answer: not to be kept
        // until our producer goes. If one of them panics, the drain frees its slot and `Shared` drops the others.
        self.drain(usize::MAX).for_each(drop);
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// The values that were there; made by [`Consumer::drain`].
///
/// Frees all slots it has emptied at once, when dropped, and leaves the others as they are. One that is leaked (`mem::forget`) leaks the
/// values that it had left, and keeps its slots until the consumer next takes a value or is dropped.
pub struct Drain<'a, T> {
    shared: &'a Shared<T>,
    slots: Slots<'a, T>,
    /// The consumer's head. At `end` while the drain lives, put right when it is dropped.
    consumer_head: &'a mut usize,
    /// The consumer's head before. Never changes.
    start: usize,
    /// The next position to be taken, `start` to `end`.
    head: usize,
    /// The position after the last one to be taken, at most the consumer's tail. Never changes.
    end: usize,
}

impl<T> Iterator for Drain<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        if self.head == self.end {
            return None;
        }
        let position = self.head;
        self.head = position.wrapping_add(1);
        // SAFETY: the drain borrows the consumer. `position` is before its tail and not before the shared head, which
        // stays at `start` or before it as long as the drain lives; and `head` passes each position once.
        Some(unsafe { self.slots.take(position) })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.wrapping_sub(self.head);
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Drain<'_, T> {}

impl<T> FusedIterator for Drain<'_, T> {}

impl<T> Drop for Drain<'_, T> {
    fn drop(&mut self) {
        *self.consumer_head = self.head;
        // Polling an empty ring must not take the line from the producer.
        if self.head != self.start {
            self.shared.publish_head(self.head);
        }
    }
}

impl<T> fmt::Debug for Drain<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("left", &self.len()).finish()
    }
}
