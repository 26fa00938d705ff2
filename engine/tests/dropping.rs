//! Destructors of user code that panic: they end their job and nothing else. In a process of its own, since what is not
//! isolated aborts.

use pelton::batch::Stamp;
use pelton::{Config, Driver, Job, Runtime, sink, sources};

/// Panics whenever a clone of it is dropped, also while another panic unwinds.
struct Rude(bool);

impl Clone for Rude {
    fn clone(&self) -> Self {
        Rude(true)
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        assert!(!self.0, "a rude drop");
    }
}

/// The process that is watched: a job with such a function in each of two stages, then another.
#[test]
#[ignore = "run by the test below"]
fn two_rude_stages_and_another_job() {
    let runtime = Runtime::start(Config::default().shards(1).driver(Driver::Threads)).unwrap();
    let (one, two) = (Rude(false), Rude(false));
    let job = Job::new("rude");
    job.source(sources::generate("n", 10, 1, |id| id))
        .inspect(move |_| {
            let _ = &one;
        })
        .rebalance()
        .inspect(move |_| {
            let _ = &two;
        })
        .sink(sink::callback("none", |_, _: Stamp| {}));
    let error = runtime.submit(&job).unwrap().wait().unwrap_err();
    assert!(error.to_string().contains("a rude drop"), "{error}");

    let other = Job::new("another");
    other
        .source(sources::generate("n", 1000, 1, |id| id))
        .sink(sink::callback("none", |_, _: Stamp| {}));
    let report = runtime.submit(&other).unwrap().wait().unwrap();
    assert_eq!(report.counters.records_out, 1000);
}

#[test]
fn stages_whose_functions_panic_when_dropped_end_their_job_alone() {
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new(this)
        .args(["--exact", "two_rude_stages_and_another_job", "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?}: {said}", output.status);
    assert!(said.contains("1 passed"), "{said}");
}
