//! A bounded wait-free ring for one producer and one consumer, a doorbell that cannot lose a
//! wake-up, and ways about the cache.
//!
//! Four small things that a thread-per-core program needs between its cores, and nothing else:
//!
//! - [`ring`] hands values from one thread to another. Every call finishes in a bounded number of its
//!   own steps, whatever the other side does; it never blocks, spins or allocates after creation.
//! - [`Sleeper`] and [`Doorbell`] let the thread that has run out of work sleep, and let the others wake it.
//!   Ringing costs a fence and a load while nobody sleeps.
//! - [`hand_over`] moves values into a buffer that another core reads.
//! - [`prefetch_read`], [`prefetch_ends`], [`prefetch_ends_of`], [`prefetch_tail`] and [`prefetch_slice_at`] are hints to the cache.
//! - [`lanes_equal`] compares eight numbers at once.
//!
//! The ring knows nothing of the doorbell: a program that never sleeps pays for no fence.
//!
//! ```
//! use pelton_ring::{PopError, Sleeper, ring};
//!
//! let (mut producer, mut consumer) = ring(256)?;
//! let mut sleeper = Sleeper::thread();
//! let doorbell = sleeper.doorbell();
//!
//! let worker = std::thread::spawn(move || {
//!     let mut sum = 0;
//!     loop {
//!         sum += consumer.drain(64).sum::<u64>();
//!         sleeper.prepare();
//!         let closed = consumer.is_closed(); // asked first: then empty means drained
//!         match (consumer.is_empty(), closed) {
//!             (false, _) => sleeper.cancel(),
//!             (true, true) => break sum,
//!             (true, false) => {
//!                 sleeper.sleep(None);
//!             }
//!         }
//!     }
//! });
//!
//! for value in 0..10 {
//!     producer.push(value)?;
//!     doorbell.ring();
//! }
//! drop(producer);
//! doorbell.ring(); // closing is an event like any other
//! assert_eq!(worker.join().unwrap(), 45);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Unsafe
//!
//! Slots are uninitialised memory shared by two threads, so this crate is where the unsafe code lives. Each block carries its
//! proof; the file `spsc.rs` opens with the laws that the proofs lean on. The orderings stand in one place, each with
//! its partner and with what it publishes, and a model checker runs against a weakened copy of each.
#![warn(missing_debug_implementations)]

mod consumer;
mod doorbell;
mod error;
mod hand_over;
mod lanes;
mod order;
mod padded;
mod prefetch;
mod producer;
mod spsc;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;

pub use consumer::{Consumer, Drain};
pub use doorbell::{Doorbell, Sleeper, Slept, Wake};
pub use error::{CapacityError, PopError, PushError};
pub use hand_over::hand_over;
pub use lanes::lanes_equal;
#[cfg(loom)]
#[doc(hidden)]
pub use order::mutants;
pub use prefetch::{
    prefetch_ends, prefetch_ends_of, prefetch_read, prefetch_slice_at, prefetch_tail,
};
pub use producer::{Claim, Producer};
#[cfg(any(test, loom))]
#[doc(hidden)]
pub use spsc::ring_starting_at;
pub use spsc::{MAX_CAPACITY, ring};
