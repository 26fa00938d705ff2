//! What the two ends of a ring share.
//!
//! ```text
//!              head                    tail
//!               v                       v
//!   +-----+-----+-----+-----+-----+-----+-----+-----+
//!   |     |     |  a  |  b  |  c  |  d  |     |     |     slot = position & (capacity - 1)
//!   +-----+-----+-----+-----+-----+-----+-----+-----+
//!    free, the   the consumer's           free, the
//!    producer's                           producer's
//! ```
//!
//! # Laws
//!
//! 1. `head` and `tail` are *positions*: they count values since the start, wrap at `usize::MAX` and are compared only by
//!    wrapping subtraction. That is sound because the capacity is a power of two and so divides the range of `usize`: a
//!    position maps to the same slot on either side of the wrap, and full (`tail - head == capacity`) differs from empty (0).
//! 2. `tail - head <= capacity`, always, of the true values. Only the producer moves `tail`, only the consumer moves
//!    `head`, both only forwards.
//! 3. The slots of the positions `head..tail` hold values and belong to the consumer; the others hold none and belong to
//!    the producer. Moving an index is handing slots over, and is the last thing done to them.
//! 4. Each side keeps the truth about its own index in its handle, and publishes it here when a batch ends, never before. So each side sees the other as further behind than it is: fewer values, or less
//!    room. A stale copy is therefore safe, and refreshed only when it says that nothing can be done.
//! 5. A value is written once and taken out once. What is left when both sides are gone is dropped by [`Shared`].

use crate::consumer::Consumer;
use crate::error::CapacityError;
use crate::order;
use crate::padded::CachePadded;
use crate::producer::Producer;
use crate::sync::{Arc, AtomicBool, AtomicUsize, UnsafeCell};
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::Relaxed;

/// The largest capacity of a ring: 2^31 slots.
pub const MAX_CAPACITY: usize = 1 << 31;

/// Makes a ring of `capacity` slots, a power of two between 1 and [`MAX_CAPACITY`], and returns its two ends.
///
/// The slots are allocated here and nothing is allocated later. Values move in and out by copy: ring large things as
/// `Box`es or as batches.
///
/// # Errors
///
/// [`CapacityError`] if the capacity is none of these, or if there is no memory for the slots.
///
/// ```
/// let (mut producer, mut consumer) = pelton_ring::ring(4)?;
/// producer.push("a")?;
/// producer.push("b")?;
/// assert_eq!(consumer.pop(), Ok("a"));
/// assert_eq!(consumer.pop(), Ok("b"));
/// assert!(pelton_ring::ring::<u8>(3).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The ends are `Send` if the values are, and never `Sync` or `Clone`:
///
/// ```compile_fail
/// let (producer, _consumer) = pelton_ring::ring::<u8>(4).unwrap();
/// std::thread::scope(|scope| {
///     scope.spawn(|| producer.is_closed()); // `Producer` is not `Sync`
/// });
/// ```
///
/// ```compile_fail
/// let (producer, _consumer) = pelton_ring::ring::<std::rc::Rc<u8>>(4).unwrap();
/// std::thread::spawn(move || drop(producer)); // `Rc` is not `Send`
/// ```
pub fn ring<T>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), CapacityError> {
    starting_at(capacity, 0)
}

/// [`ring()`] with its first position at `start` instead of 0: a test reaches the wrap of the positions in a few steps.
#[cfg(any(test, loom))]
#[doc(hidden)]
pub fn ring_starting_at<T>(
    capacity: usize,
    start: usize,
) -> Result<(Producer<T>, Consumer<T>), CapacityError> {
    starting_at(capacity, start)
}

fn starting_at<T>(
    capacity: usize,
    start: usize,
) -> Result<(Producer<T>, Consumer<T>), CapacityError> {
    let shared = Arc::new(Shared::new(capacity, start)?);
    Ok((
        Producer::new(Arc::clone(&shared), start),
        Consumer::new(shared, start),
    ))
}

/// Slots, indices and flags; owned by both ends.
pub(crate) struct Shared<T> {
    /// The next position to be taken. Any `usize`. Written by the consumer alone; the producer's copy may be stale
    /// (too small). A line of its own, for the consumer writes it all the time.
    head: CachePadded<AtomicUsize>,
    /// The next position to be filled. Any `usize`, at most `capacity` ahead of `head`. Written by the producer alone; the
    /// consumer's copy may be stale (too small). A line of its own likewise.
    tail: CachePadded<AtomicUsize>,
    /// What both sides read all the time and hardly anyone writes, so that it stays in both caches.
    common: CachePadded<Common<T>>,
}

struct Common<T> {
    /// One cell a slot; the length is the capacity, a power of two, and never changes.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// False, then true for ever. Written once, by the producer as it is dropped. The consumer's view may be stale (false).
    producer_gone: AtomicBool,
    /// False, then true for ever. Written once, by the consumer as it is dropped. The producer's view may be stale (false).
    consumer_gone: AtomicBool,
}

// SAFETY: a `&Shared` lets a thread put values of `T` in and another take them out, which is sending them: hence `T:
// Send`. Nobody gets a `&T` through it while another thread may touch the same slot (law 3), hence no `T: Sync`. Indices and flags
// are atomic.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(capacity: usize, start: usize) -> Result<Self, CapacityError> {
        if !capacity.is_power_of_two() || capacity > MAX_CAPACITY {
            return Err(CapacityError::Unsupported { capacity });
        }
        let mut slots = Vec::new();
        slots
            .try_reserve_exact(capacity)
            .map_err(|_| CapacityError::OutOfMemory { capacity })?;
        slots.extend((0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())));
        Ok(Shared {
            head: CachePadded::new(AtomicUsize::new(start)),
            tail: CachePadded::new(AtomicUsize::new(start)),
            common: CachePadded::new(Common {
                slots: slots.into_boxed_slice(),
                producer_gone: AtomicBool::new(false),
                consumer_gone: AtomicBool::new(false),
            }),
        })
    }

    #[inline(always)]
    pub(crate) fn capacity(&self) -> usize {
        self.common.slots.len()
    }

    /// The slots. A batch keeps this view in registers, which it could not do with the way there through `self`: as far as
    /// the compiler knows, a write to a slot may change anything.
    #[inline(always)]
    pub(crate) fn slots(&self) -> Slots<'_, T> {
        Slots(&self.common.slots)
    }

    /// Producer: hands the slots before `tail` to the consumer. Pairs with [`observe_tail`](Self::observe_tail).
    #[inline(always)]
    pub(crate) fn publish_tail(&self, tail: usize) {
        self.tail.store(tail, order::TAIL_PUBLISH.get());
    }

    /// Consumer: how far the producer has come, at least.
    #[inline(always)]
    pub(crate) fn observe_tail(&self) -> usize {
        self.tail.load(order::TAIL_OBSERVE.get())
    }

    /// Consumer: hands the slots before `head` back to the producer. Pairs with [`observe_head`](Self::observe_head).
    #[inline(always)]
    pub(crate) fn publish_head(&self, head: usize) {
        self.head.store(head, order::HEAD_PUBLISH.get());
    }

    /// Producer: how far the consumer has come, at least.
    #[inline(always)]
    pub(crate) fn observe_head(&self) -> usize {
        self.head.load(order::HEAD_OBSERVE.get())
    }

    /// Producer: says goodbye, after its last `publish_tail`.
    pub(crate) fn producer_leaves(&self) {
        self.common
            .producer_gone
            .store(true, order::PRODUCER_GONE.get());
    }

    /// Consumer: whether the producer is gone. If so, the tail observed *after* this is the final one.
    #[inline(always)]
    pub(crate) fn producer_is_gone(&self) -> bool {
        // The load alone is Relaxed, with a fence on the way that is taken once: an Acquire load would have to wait for
        // our own Release stores on aarch64, each time.
        let gone = self.common.producer_gone.load(Relaxed);
        if gone {
            order::PRODUCER_GONE_SEEN.issue();
        }
        gone
    }

    /// Consumer: says goodbye.
    pub(crate) fn consumer_leaves(&self) {
        self.common
            .consumer_gone
            .store(true, order::CONSUMER_GONE.get());
    }

    /// Producer: whether the consumer is gone. If so, all that its thread did before leaving has happened.
    #[inline(always)]
    pub(crate) fn consumer_is_gone(&self) -> bool {
        let gone = self.common.consumer_gone.load(Relaxed);
        if gone {
            order::CONSUMER_GONE_SEEN.issue();
        }
        gone
    }
}

/// The slots of a ring, by position. Never empty: the length is a power of two.
pub(crate) struct Slots<'a, T>(&'a [UnsafeCell<MaybeUninit<T>>]);

impl<'a, T> Slots<'a, T> {
    #[inline(always)]
    fn at(&self, position: usize) -> &'a UnsafeCell<MaybeUninit<T>> {
        let index = position & (self.0.len() - 1);
        debug_assert!(index < self.0.len());
        // SAFETY: the length is a power of two (checked at creation, never changed), so masking with one less yields an
        // index below it.
        unsafe { self.0.get_unchecked(index) }
    }

    /// Puts `value` into the slot of `position`.
    ///
    /// # Safety
    ///
    /// The caller is the producer, and the slot is its own and holds no value it cares for: `tail <= position < head + capacity`, for
    /// the published tail and a head observed by [`Shared::observe_head`].
    #[inline(always)]
    pub(crate) unsafe fn write(&self, position: usize, value: T) {
        self.at(position).with_mut(|slot| {
            // SAFETY: the pointer comes from a live cell. By law 3 the slot is the producer's, so nobody else accesses it
            // now. The consumer's last read of it happened before, by the Acquire in `observe_head`.
            unsafe { (*slot).write(value) };
        });
    }

    /// Moves the value out of the slot of `position`.
    ///
    /// # Safety
    ///
    /// The caller is the consumer, `position` lies before a tail observed by [`Shared::observe_tail`] and is at or after
    /// the published head, and has not been taken yet.
    #[inline(always)]
    pub(crate) unsafe fn take(&self, position: usize) -> T {
        self.at(position).with(|slot| {
            // SAFETY: the pointer comes from a live cell, the slot is the consumer's (law 3) and holds a value whose
            // write happened before, by the Acquire in `observe_tail`. The caller takes each position once, so
            // the value has one owner.
            unsafe { slot.cast::<T>().read() }
        })
    }

    /// A look at the value in the slot of `position`.
    ///
    /// # Safety
    ///
    /// As for [`take`](Self::take), and the position is neither taken nor handed back while the reference lives.
    #[inline(always)]
    pub(crate) unsafe fn look(&self, position: usize) -> &'a T {
        self.at(position).with(|slot| {
            // SAFETY: as in `take` the slot is ours and holds a value; and it stays so for as long as the reference
            // lives, by the caller's promise.
            unsafe { &*slot.cast::<T>() }
        })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone and have published their indices as they went; the last `Arc` has seen it all, so Relaxed
        // loads read the final values.
        let mut rest = Rest {
            head: self.head.load(Relaxed),
            tail: self.tail.load(Relaxed),
            shared: self,
        };
        rest.drop_values();
    }
}

/// The values that nobody took. If dropping one of them panics, dropping this during the unwinding sees to the others.
struct Rest<'a, T> {
    shared: &'a Shared<T>,
    head: usize,
    tail: usize,
}

impl<T> Rest<'_, T> {
    fn drop_values(&mut self) {
        while self.head != self.tail {
            let position = self.head;
            self.head = position.wrapping_add(1);
            // SAFETY: both ends are gone, so this is the only access to the ring; `head..tail` hold values (law 3), and
            // each position is passed once, even if a drop panics, because `head` moves first.
            drop(unsafe { self.shared.slots().take(position) });
        }
    }
}

impl<T> Drop for Rest<'_, T> {
    fn drop(&mut self) {
        self.drop_values();
    }
}
