//! [`Replay`] against a sorted list.
use super::*;
