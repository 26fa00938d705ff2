//! The bundled harness: how fast the engine is, beside a hand-written loop that does the same work.
//!
//! - [`events`]: what the workloads are made of, shared with the harnesses of other engines;
//! - [`operator_events`], [`nexmark`]: what the workloads of joins, patterns and the like are made of, and NEXMark;
//! - [`limit`]: the hand-written loops;
//! - `pelton_engine`: the same workloads as jobs of the engine (with the feature `engine`, on by default);
//! - [`ingest_log`]: appends and replay of the storage crate's log, with limits of their own;
//! - `kappa`: a log that one job writes and another reads, its history and what comes (with the feature `engine`);
//! - `checkpoint`: what checkpoints cost, and going on from them (with the feature `engine`);
//! - `flat_memory`: a day of event time, in which memory must not grow (with the feature `engine`);
//! - [`engine`]: the seam between them and the commands;
//! - [`latency`]: recorders for an open loop, and what counts as a quiet second;
//! - [`tally`]: counting results in an engine's sink;
//! - [`alloc_count`]: the allocator that counts;
//! - [`cli`], [`child`], [`report`]: the commands. Every measured run is a process of its own.

#![deny(unsafe_code)]

pub mod alloc_count;
#[cfg(feature = "engine")]
pub mod checkpoint;
pub mod child;
pub mod cli;
pub mod cores;
pub mod engine;
pub mod events;
#[cfg(feature = "engine")]
pub mod flat_memory;
pub mod ingest_log;
#[cfg(feature = "engine")]
pub mod kappa;
pub mod latency;
pub mod limit;
pub mod nexmark;
pub mod operator_events;
#[cfg(feature = "engine")]
pub mod pelton_engine;
mod raw;
pub mod report;
pub mod tally;
