//! One error for each operation; a failed push hands its value back.

use std::error::Error;
use std::fmt;

/// Why [`ring`](crate::ring()) made no ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapacityError {
    /// The capacity is not a power of two between 1 and [`MAX_CAPACITY`](crate::MAX_CAPACITY).
    Unsupported {
        /// What was asked for.
        capacity: usize,
    },
    /// The slots do not fit into memory.
    OutOfMemory {
        /// What was asked for.
        capacity: usize,
    },
}

impl fmt::Display for CapacityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CapacityError::Unsupported { capacity } => write!(
                f,
                "ring capacity {capacity} is not a power of two between 1 and 2^31"
            ),
            CapacityError::OutOfMemory { capacity } => {
                write!(f, "no memory for a ring of {capacity} slots")
            }
        }
    }
}

impl Error for CapacityError {}

/// Why [`Producer::push`](crate::Producer::push) did not take a value. The value is inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PushError<T> {
    /// Every slot holds a value that the consumer has not taken yet.
    Full(T),
    /// The consumer is gone: no value will ever be taken again.
    Closed(T),
}

impl<T> PushError<T> {
    /// The value that was not taken.
    ///
    /// ```
    /// let (mut producer, _consumer) = pelton_ring::ring(1).unwrap();
    /// producer.push("first").unwrap();
    /// assert_eq!(producer.push("second").unwrap_err().into_inner(), "second");
    /// ```
    pub fn into_inner(self) -> T {
        match self {
            PushError::Full(value) | PushError::Closed(value) => value,
        }
    }
}

// By hand, so that an error prints whether or not its value does.
impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "Full(..)",
            PushError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "the ring is full",
            PushError::Closed(_) => "the ring's consumer is gone",
        })
    }
}

impl<T> Error for PushError<T> {}

/// Why [`Consumer::pop`](crate::Consumer::pop) returned no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PopError {
    /// Nothing is there now.
    Empty,
    /// The producer is gone and everything it published has been taken.
    Closed,
}

impl fmt::Display for PopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PopError::Empty => "the ring is empty",
            PopError::Closed => "the ring is drained and its producer is gone",
        })
    }
}

impl Error for PopError {}
