//! What sinks are told when their job starts, and when.

use pelton::batch::Stamp;
use pelton::checkpoint::{Epoch, Lineage};
use pelton::port::{Ports, Start};
use pelton::sink::{self, CommitError, Committer, Sink};
use pelton::testing::{OnDisk, Sizes, Stepper};
use pelton::{Job, JobError, sources};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};
use std::sync::{Arc, Mutex};

/// What happened to a sink, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Happened {
    Opened,
    Started(Start),
    Recovered(Option<Epoch>),
}

/// A sink that notes what happens to it.
#[derive(Clone, Default)]
struct Notes {
    happened: Arc<Mutex<Vec<Happened>>>,
    fails: bool,
    /// It is of one phase: jobs without checkpoints take no other.
    shows_at_once: bool,
}

impl Notes {
    fn note(&self, what: Happened) {
        self.happened.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<Happened> {
        std::mem::take(&mut self.happened.lock().unwrap())
    }
}

impl Sink<u64> for Notes {
    type Writer = sink::CallbackWriter<fn(u64, Stamp)>;
    fn name(&self) -> String {
        "notes".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        self.note(Happened::Opened);
        let notes = self.clone();
        ports.at_start("notes", move |start| {
            notes.note(Happened::Started(start.clone()));
            match notes.fails {
                true => Err("it is stuck".into()),
                false => Ok(()),
            }
        });
        let mut nothing = sink::callback("nothing", (|_, _| {}) as fn(_, _));
        Sink::<u64>::open(&mut nothing, ports)
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        (!self.shows_at_once).then(|| Box::new(self.clone()) as _)
    }
}

impl Committer for Notes {
    fn commit(&mut self, _: Epoch, _: &[u8]) -> Result<(), CommitError> {
        Ok(())
    }
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        self.note(Happened::Recovered(last));
        Ok(())
    }
}

fn memory() -> SharedDisk {
    SharedDisk::new(FaultyDisk::new(MemoryDisk::new()))
}

fn job(notes: &Notes) -> Job {
    let job = Job::new("starts");
    job.source(sources::items(0..100u64)).sink(notes.clone());
    job
}

/// A life of the job in the folder that `disk` is, to its end.
fn live(notes: &Notes, disk: &SharedDisk, sizes: Sizes, lineage: u8) -> Result<(), JobError> {
    let on = OnDisk {
        lineage: [lineage; 16],
        ..OnDisk::small(disk)
    };
    Stepper::on_disk(&job(notes), sizes, &on)?.run()
}

/// The lineage and the checkpoint of a start, and that sinks recover from the same behind it.
fn told(happened: &[Happened]) -> (Option<Lineage>, Option<Epoch>) {
    let [
        Happened::Opened,
        Happened::Started(start),
        Happened::Recovered(last),
    ] = happened
    else {
        panic!("{happened:?}")
    };
    assert_eq!(start.went_on_from, *last);
    (start.lineage, *last)
}

#[test]
fn sinks_are_told_the_jobs_lineage_and_what_it_goes_on_from() {
    let (notes, disk) = (Notes::default(), memory());
    live(&notes, &disk, Sizes::shards(2), 1).unwrap();
    let first = Some(Lineage([1; 16]));
    assert_eq!(told(&notes.take()), (first, None), "it begins");
    // The folder has a lineage by now: what is drawn for a new one does not count.
    live(&notes, &disk, Sizes::shards(3), 2).unwrap();
    let (lineage, from) = told(&notes.take());
    assert_eq!(lineage, first);
    assert!(from.is_some(), "it goes on");
    live(&notes, &memory(), Sizes::shards(2), 2).unwrap();
    assert_eq!(told(&notes.take()), (Some(Lineage([2; 16])), None));
}

#[test]
fn a_job_without_checkpoints_has_no_lineage() {
    let notes = Notes {
        shows_at_once: true,
        ..Notes::default()
    };
    Stepper::new(&job(&notes), 1).unwrap().run().unwrap();
    let none = Happened::Started(Start::default());
    assert_eq!(notes.take(), [Happened::Opened, none]);
}

#[test]
fn sinks_of_a_job_that_does_not_fit_to_its_checkpoint_do_not_start() {
    let (notes, disk) = (Notes::default(), memory());
    live(&notes, &disk, Sizes::shards(1), 1).unwrap();
    notes.take();
    let other = Sizes {
        key_groups: 64,
        ..Sizes::shards(1)
    };
    let refused = live(&notes, &disk, other, 1).unwrap_err();
    assert_eq!(refused.code(), "PLT-0109", "{refused}");
    assert_eq!(notes.take(), [Happened::Opened]);
}

#[test]
fn a_start_that_fails_is_told_as_the_sinks_and_nothing_is_recovered() {
    let notes = Notes {
        fails: true,
        ..Notes::default()
    };
    let refused = live(&notes, &memory(), Sizes::shards(1), 1).unwrap_err();
    assert_eq!(refused.to_string(), "[PLT-0008] sink notes: it is stuck");
    assert_eq!(notes.take().len(), 2);
}
