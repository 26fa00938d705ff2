//! The ingest log as source and sink of jobs.

mod jobs;
#[path = "../../examples/kappa.rs"]
#[allow(missing_docs)]
mod kappa;
mod laws;
mod sinks;
mod sources;
#[allow(dead_code, reason = "other tests need the rest")]
#[path = "../support/mod.rs"]
mod support;

#[test]
fn the_past_and_what_comes_are_computed_once() {
    let folder = support::Folder::new("kappa");
    std::fs::create_dir_all(folder.path()).unwrap();
    let records = 60_000;
    let tally = kappa::run(folder.path(), records).unwrap();
    assert_eq!(tally, kappa::Tally::of(records));
    let again = kappa::run(folder.path(), records).unwrap_err().to_string();
    assert!(again.contains("is not empty"), "{again}");
}
