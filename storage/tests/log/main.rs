//! What the ingest log promises, against a disk that cuts, rots, fails, reorders and loses power.
//!
//! The model is a list of records a partition. Whatever happens to the disk, a log that opens again holds a prefix of it that has
//! every acknowledged record, once and in order; with committed records, the prefix ends with an epoch.

mod damage;
mod document;
mod epochs;
mod following;
mod power;
mod reading;
mod rig;
