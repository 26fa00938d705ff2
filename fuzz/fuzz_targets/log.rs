//! `cargo +nightly fuzz run log`: see `log` in the bodies.
#![no_main]

#[path = "../../storage/tests/hostile/bodies.rs"]
#[allow(dead_code)]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::log(bytes));
