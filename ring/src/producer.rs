//! The end of a ring that values go into.

use crate::error::PushError;
use crate::spsc::{Shared, Slots};
use crate::sync::Arc;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

/// The end of a ring that values go into; made by [`ring`](crate::ring()).
///
/// Dropping it closes the ring: the consumer gets what was published, then [`PopError::Closed`](crate::PopError::Closed).
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// The next position to be written. Any `usize`, at most `capacity` ahead of `head`. Written here alone, and always
    /// equal to the shared tail; a claim counts further in its own copy.
    tail: usize,
    /// The consumer's head when last looked at. Written here alone; may be stale, which understates the room.
    head: usize,
    /// One thread at a time.
    _not_sync: PhantomData<Cell<()>>,
}

impl<T> Producer<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, start: usize) -> Self {
        Producer {
            shared,
            tail: start,
            head: start,
            _not_sync: PhantomData,
        }
    }

    /// Appends a value and publishes it at once.
    ///
    /// # Errors
    ///
    /// Hands the value back if the ring is full or its consumer gone.
    ///
    /// ```
    /// use pelton_ring::PushError;
    ///
    /// let (mut producer, consumer) = pelton_ring::ring(1)?;
    /// assert_eq!(producer.push(1), Ok(()));
    /// assert_eq!(producer.push(2), Err(PushError::Full(2)));
    /// drop(consumer);
    /// assert_eq!(producer.push(3), Err(PushError::Closed(3)));
    /// # Ok::<(), pelton_ring::CapacityError>(())
    /// ```
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        if self.is_closed() {
            return Err(PushError::Closed(value));
        }
        if self.known_free() == 0 && self.free() == 0 {
            return Err(PushError::Full(value));
        }
        // SAFETY: only the producer has a `&mut Producer`; `tail` has not been published yet, and there is room, so it
        // is less than a capacity ahead of the head last observed.
        unsafe { self.shared.slots().write(self.tail, value) };
        self.tail = self.tail.wrapping_add(1);
        self.shared.publish_tail(self.tail);
        Ok(())
    }

    /// Appends values until the iterator ends or the ring is full, publishes them together and returns how many.
    ///
    /// A value is asked for only once there is a slot for it, so none is lost: what the iterator has not yielded is still its
    /// own. A closed ring takes none; ask [`is_closed`](Self::is_closed) when fewer were taken than expected.
    ///
    /// If the iterator panics, the values it had yielded are published.
    ///
    /// ```
    /// let (mut producer, mut consumer) = pelton_ring::ring(4)?;
    /// let mut values = 0..10;
    /// assert_eq!(producer.push_batch(&mut values), 4);
    /// assert_eq!(values, 4..10);
    /// assert!(consumer.drain(usize::MAX).eq(0..4));
    /// # Ok::<(), pelton_ring::CapacityError>(())
    /// ```
    pub fn push_batch(&mut self, values: &mut impl Iterator<Item = T>) -> usize {
        if self.is_closed() {
            return 0;
        }
        let shared = &*self.shared;
        let slots = shared.slots();
        let mut limit = self.head.wrapping_add(shared.capacity());
        let mut batch = Batch {
            shared,
            start: &mut self.tail,
            tail: 0,
        };
        batch.tail = *batch.start;
        loop {
            if batch.tail == limit {
                self.head = shared.observe_head();
                limit = self.head.wrapping_add(shared.capacity());
                if batch.tail == limit {
                    break;
                }
            }
            let Some(value) = values.next() else { break };
            // SAFETY: this is the producer, nothing from `start` on has been published, and `tail` has not reached the
            // limit, which is a capacity ahead of the head last observed.
            unsafe { slots.write(batch.tail, value) };
            batch.tail = batch.tail.wrapping_add(1);
        }
        batch.written()
    }

    /// Claims `n` slots to be written one by one and published together. `None` if there is room for fewer, or if
    /// the consumer is gone.
    ///
    /// ```
    /// let (mut producer, mut consumer) = pelton_ring::ring(4)?;
    /// let mut claim = producer.claim(3).unwrap();
    /// claim.write('a').unwrap();
    /// claim.write('b').unwrap();
    /// assert!(consumer.is_empty(), "nothing is seen before the commit");
    /// assert_eq!(claim.commit(), 2, "the third slot is simply free again");
    /// assert!(consumer.drain(4).eq(['a', 'b']));
    /// # Ok::<(), pelton_ring::CapacityError>(())
    /// ```
    pub fn claim(&mut self, n: usize) -> Option<Claim<'_, T>> {
        if self.is_closed() || (self.known_free() < n && self.free() < n) {
            return None;
        }
        let shared = &*self.shared;
        Some(Claim {
            slots: shared.slots(),
            end: self.tail.wrapping_add(n),
            batch: Batch {
                shared,
                tail: self.tail,
                start: &mut self.tail,
            },
        })
    }

    /// How many values there is room for, at least: the consumer may be making more.
    pub fn free(&mut self) -> usize {
        self.head = self.shared.observe_head();
        self.known_free()
    }

    /// Whether the consumer is gone. Once it is, it stays so; what its thread did before dropping it has then happened.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.consumer_is_gone()
    }

    /// The number of slots.
    pub fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// Room by the last known head: at most the true room (law 4).
    #[inline(always)]
    fn known_free(&self) -> usize {
        let used = self.tail.wrapping_sub(self.head);
        debug_assert!(used <= self.shared.capacity());
        self.shared.capacity() - used
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.shared.producer_leaves();
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Values being written; published when dropped, also by a panic.
struct Batch<'a, T> {
    shared: &'a Shared<T>,
    /// The producer's tail: the published one until the batch is over. A batch that is leaked has never been.
    start: &'a mut usize,
    /// The next position to be written; those from `start` to here hold values that nobody else knows of.
    tail: usize,
}

impl<T> Batch<'_, T> {
    fn written(&self) -> usize {
        self.tail.wrapping_sub(*self.start)
    }
}

impl<T> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        // Offering nothing, or meeting a full ring, must not take the line from the consumer.
        if self.written() > 0 {
            *self.start = self.tail;
            self.shared.publish_tail(self.tail);
        }
    }
}

/// Slots claimed from a ring; made by [`Producer::claim`].
///
/// What has been written is published by [`commit`](Self::commit) or by dropping the claim, all at once. Slots that were
/// claimed and not written are free again; the consumer sees no gap. So a panic between two writes publishes the values before it,
/// each of them complete. A claim that is leaked (`mem::forget`) leaks what was written to it; the slots are free.
pub struct Claim<'a, T> {
    slots: Slots<'a, T>,
    batch: Batch<'a, T>,
    /// The position after the last one claimed: from the batch's tail to at most the producer's limit. Never changes.
    end: usize,
}

impl<T> Claim<'_, T> {
    /// Writes the next value.
    ///
    /// # Errors
    ///
    /// Hands the value back if all claimed slots are written.
    #[inline]
    pub fn write(&mut self, value: T) -> Result<(), T> {
        if self.batch.tail == self.end {
            return Err(value);
        }
        // SAFETY: the claim borrows the producer. Nothing from the batch's start on has been published, and when the claim was
        // made its end was at most a capacity ahead of the head observed.
        unsafe { self.slots.write(self.batch.tail, value) };
        self.batch.tail = self.batch.tail.wrapping_add(1);
        Ok(())
    }

    /// How many slots are still to be written.
    pub fn remaining(&self) -> usize {
        self.end.wrapping_sub(self.batch.tail)
    }

    /// How many values have been written.
    pub fn written(&self) -> usize {
        self.batch.written()
    }

    /// Publishes what has been written and returns how many values that is.
    pub fn commit(self) -> usize {
        self.written()
    }
}

impl<T> fmt::Debug for Claim<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("written", &self.written())
            .field("remaining", &self.remaining())
            .finish()
    }
}
