//! One thread at a time against a model, then two threads for real. What only an unlucky interleaving shows is in `loom-tests`.

mod census;
mod doorbell;
mod hand_over;
mod model;
mod panics;
mod ring;
mod threads;
