//! Model-checked concurrency of `pelton-ring`. There is nothing here but tests, and they exist only under `--cfg loom`:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target-loom cargo test --release -p pelton-loom-tests
//! ```
//!
//! loom runs each model under every interleaving of its threads and every value that the memory model lets a load return,
//! not only those that this machine happens to produce. So the models are tiny: two or three threads, rings of two to four
//! slots, a handful of operations. They do not spin; a thread tries a fixed number of times, and what it has not
//! managed by then is finished by the main thread after the join.
//!
//! `scripts/loom-mutants` runs the models against deliberately weakened copies of the ring, each of which must fail.
