//! Joins against models that keep everything: random records and disorder, shards, batches, interleavings, deaths.

mod as_of;
mod broadcast;
mod broadcast_state;
mod nulls;
mod regular;
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;
mod window;
mod world;
