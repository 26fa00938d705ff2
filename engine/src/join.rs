//! Joins of two keyed streams.
//!
//! | join | what meets | a row comes | state, and when it goes |
//! |---|---|---|---|
//! | [`KeyedStream::window_join`](crate::KeyedStream::window_join) | records of a key in one window | when the window fires | both sides' records, with the window |
//!
//! Records of both streams ride edges of their own into one operator ([`KeyedStream::connect`](crate::KeyedStream::connect)), so time, lateness and
//! barriers are those of any keyed operator.

mod window;

pub use window::{Join, Met, Rows, WindowJoin};
