//! Sources, sinks and formats for Pelton.
//!
//! With the feature `files` (on by default): [`files`] reads newline-delimited JSON and CSV, plain or gzip, into serde
//! types; [`lines`] writes lines to standard output and to files; [`mod@log`] has JSON in an ingest log; [`timestamp`] turns what
//! files hold into event times.

#![forbid(unsafe_code)]

#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "files")]
pub mod lines;
#[cfg(feature = "files")]
pub mod log;
#[cfg(feature = "files")]
pub mod timestamp;
