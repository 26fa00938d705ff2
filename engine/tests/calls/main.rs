//! Async maps and lookup joins, with clients that answer in any order, late, never, or with failures: random jobs that die and go on elsewhere,
//! and one case by hand for each thing that can go wrong.

mod bounds;
mod cache;
mod failures;
mod order;
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;
mod threads;
mod world;
