//! Seeded schedules and the naive model that judges the engine. Tests only; nothing depends on this crate.
//!
//! A [`Case`] is a job with its records, all drawn from one seed. [`model::judge`] says what the job must give, by
//! keeping every record and recomputing; [`run::run`] steps the engine through it with any number of shards, any batch
//! size, any order of steps; [`compare::check`] holds one against the other by class of operator. [`cases::each`] does
//! it for many seeds and makes a failing case small.
//!
//! [`survive::survive`] runs a case through crashes, losses of power, stops and other numbers of shards, over a folder in
//! memory that loses what was not synced, and compares what two-phase sinks then show.
//!
//! The model is written from the rules (what lateness, a window, a session is), not from the operators: it knows no
//! watermark but V(r), no batch, no shard and no order of arrival.

#![forbid(unsafe_code)]

mod asked;
pub mod cases;
mod changes;
pub mod compare;
pub mod faults;
mod job;
pub mod ledger;
pub mod meter;
pub mod model;
mod operators;
pub mod random;
pub mod record;
pub mod run;
pub mod schedule;
pub mod source;
pub mod spec;
pub mod survive;

pub use record::{Rec, Row, Value};
pub use spec::{Case, Spec};
