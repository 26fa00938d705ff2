//! Savepoints of running jobs, and jobs that start from them: what the old one has shown up to the savepoint and what the new
//! one shows are together what an undisturbed run shows.

#[allow(dead_code, reason = "other tests need the rest")]
mod support;

use pelton::{Checkpointing, Epoch, Job, JobError, JobHandle, Spans, Stop, sources};
use std::path::Path;
use std::time::{Duration, Instant};
use support::sums::{
    ALL, Gate, Parts, Shown, Sum, TotalV1, assert_same, expected, job, merged, wait_at,
};
use support::{Folder, runtime};

const RECORDS: u64 = 6_000;
const HALF: u64 = 3_000;

fn checkpoints(folder: &Folder) -> Checkpointing {
    Checkpointing::in_folder(folder.path()).every(1.millis())
}

/// What a savepoint in the middle has left behind.
struct Taken {
    at: Folder,
    /// What had been shown by then.
    shown: Vec<String>,
    /// The old job's.
    own: Folder,
}

/// Runs a job half through, has it take a savepoint, and lets it end.
fn take<V: Sum>(shards: usize, parts: Parts) -> Taken {
    let (own, at) = (Folder::new("own"), Folder::new("savepoint"));
    let (gate, shown) = (Gate::at(HALF, RECORDS), Shown::default());
    let runtime = runtime(shards);
    let handle = runtime
        .submit(&job::<V>(checkpoints(&own), &gate, &shown, parts))
        .unwrap();
    wait_at(&gate, &handle);
    // From here on it runs while the savepoint is taken.
    gate.open_to(RECORDS - 1);
    let epoch = handle.savepoint(at.path()).unwrap();
    assert!(handle.checkpoints().unwrap().last >= epoch);
    gate.open_to(RECORDS);
    handle.wait().unwrap();
    if parts.running && !parts.more {
        assert_same(
            &shown.all(),
            &expected(&gate, parts.keys),
            "the old job is unharmed",
        );
    }
    let shown = shown.up_to(epoch);
    assert!(!shown.is_empty());
    Taken { at, shown, own }
}

fn start<V: Sum>(
    config: Checkpointing,
    shards: usize,
    parts: Parts,
) -> Result<(Vec<String>, pelton::JobReport), JobError> {
    let shown = Shown::default();
    let gate = Gate::at(RECORDS, RECORDS);
    let job = job::<V>(config, &gate, &shown, parts);
    let report = runtime_of(shards, &job, JobHandle::wait)?;
    Ok((shown.all(), report))
}

fn runtime_of<R>(
    shards: usize,
    job: &Job,
    then: impl FnOnce(JobHandle) -> Result<R, JobError>,
) -> Result<R, JobError> {
    let runtime = runtime(shards);
    then(runtime.submit(job)?)
}

fn whole(parts: Parts) -> Vec<String> {
    expected(&Gate::at(RECORDS, RECORDS), parts.keys)
}

/// More keys than a sweep takes in one epoch.
const MANY: Parts = Parts { keys: 8_000, ..ALL };

fn refusal(result: Result<(Vec<String>, pelton::JobReport), JobError>) -> String {
    match result {
        Err(e @ JobError::Start { .. }) => e.to_string(),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it started"),
    }
}

#[test]
fn a_new_job_goes_on_from_a_savepoint_with_any_number_of_shards() {
    for (old, parts) in [(2, MANY), (3, Parts { uids: false, ..ALL })] {
        let taken = take::<TotalV1>(old, parts);
        for shards in [1, 2, 3] {
            let own = Folder::new("new");
            let config = checkpoints(&own).from_savepoint(taken.at.path());
            let (shown, report) = start::<TotalV1>(config, shards, parts).unwrap();
            assert!(report.from.unwrap().1.is_from_elsewhere);
            let all = merged(shown, taken.shown.clone());
            assert_same(&all, &whole(parts), &format!("{old} to {shards} shards"));
        }
    }
}

#[test]
fn a_new_job_goes_on_from_the_last_checkpoint_of_another() {
    let (old, new) = (Folder::new("old"), Folder::new("new"));
    let (gate, shown) = (Gate::at(HALF, RECORDS), Shown::default());
    let before = runtime_of(
        3,
        &job::<TotalV1>(checkpoints(&old), &gate, &shown, ALL),
        |handle| {
            wait_at(&gate, &handle);
            let config = checkpoints(&new).from_savepoint(old.path());
            let held = refusal(start::<TotalV1>(config, 1, ALL));
            assert!(held.contains("take a savepoint"), "{held}");
            handle.stop(Stop::Keep);
            handle.wait()?;
            Ok(shown.all())
        },
    )
    .unwrap();
    let config = checkpoints(&new).from_savepoint(old.path());
    let (after, _) = start::<TotalV1>(config, 2, ALL).unwrap();
    assert_same(&merged(before, after), &whole(ALL), "both");
}

/// Runs a job that is started from `from` until its first checkpoint, while nothing changes, removes that, ends the job as a crash does, and has it go on to its end.
fn crash_and_go_on<V: Sum>(from: &Path, shown_before: &[String], parts: Parts) {
    let own = Folder::new("new");
    let config = || checkpoints(&own).from_savepoint(from);
    let (gate, shown) = (Gate::at(HALF, RECORDS), Shown::default());
    let first = job::<V>(config(), &gate, &shown, parts);
    runtime_of(2, &first, |handle| {
        let until = Instant::now() + Duration::from_secs(60);
        while handle.checkpoints().unwrap().completed == 0 {
            assert!(!handle.is_over(), "it was ended by something else");
            assert!(Instant::now() < until, "no checkpoint was taken");
            std::thread::yield_now();
        }
        std::fs::remove_dir_all(from).unwrap();
        handle.cancel();
        assert!(matches!(handle.wait(), Err(JobError::Cancelled { .. })));
        Ok(())
    })
    .unwrap();
    gate.open_to(RECORDS);
    let again = job::<V>(config(), &gate, &shown, parts);
    let report = runtime_of(3, &again, JobHandle::wait).unwrap();
    assert!(!report.from.unwrap().1.is_from_elsewhere, "its own wins");
    let all = merged(shown.all(), shown_before.to_vec());
    assert_same(&all, &whole(parts), "all three");
}

#[test]
fn the_first_checkpoint_of_the_new_job_needs_the_savepoint_no_longer() {
    for parts in [ALL, MANY] {
        let taken = take::<TotalV1>(2, parts);
        crash_and_go_on::<TotalV1>(taken.at.path(), &taken.shown, parts);
    }
}

/// The next version of what is kept.
#[pelton::state(version = 2, name = "Total", migrate = from_v1)]
#[derive(Clone, Default)]
struct TotalV2 {
    records: u32,
    sum: u128,
}

fn from_v1(old: TotalV1) -> TotalV2 {
    TotalV2 {
        records: 0,
        sum: old.sum().into(),
    }
}

impl Sum for TotalV2 {
    fn add(&mut self, id: u64) {
        self.sum += u128::from(id);
        self.records += 1;
    }
    fn sum(&self) -> u64 {
        self.sum as u64
    }
}

/// Another type that nobody knows how to make of the first.
#[pelton::state(version = 2, name = "Total")]
#[derive(Clone, Default)]
struct TotalAnew {
    sum: u32,
}

impl Sum for TotalAnew {
    fn add(&mut self, id: u64) {
        self.sum += id as u32;
    }
    fn sum(&self) -> u64 {
        self.sum.into()
    }
}

#[test]
fn values_migrate_from_a_savepoint() {
    let taken = take::<TotalV1>(2, ALL);
    let own = Folder::new("new");
    let config = checkpoints(&own).from_savepoint(taken.at.path());
    let anew = refusal(start::<TotalAnew>(config, 2, ALL));
    for said in ["windows", "keyed", "{ sum: u64 }", "{ sum: u32 }"] {
        assert!(anew.contains(said), "{anew}");
    }
    crash_and_go_on::<TotalV2>(taken.at.path(), &taken.shown, ALL);
}

/// The job's own folder: what is written in the old shape and what is written in the new one never lie in one checkpoint.
#[test]
fn values_migrate_in_the_jobs_own_folder() {
    let own = Folder::new("own");
    let (gate, shown) = (Gate::at(HALF, RECORDS), Shown::default());
    let v1 = job::<TotalV1>(checkpoints(&own), &gate, &shown, ALL);
    let stop = |handle: JobHandle| {
        handle.stop(Stop::Keep);
        handle.wait()
    };
    runtime_of(2, &v1, |handle| {
        wait_at(&gate, &handle);
        stop(handle)
    })
    .unwrap();
    for (turn, shards) in [3, 1, 2].into_iter().enumerate() {
        gate.open_to(HALF + 500 * (turn as u64 + 1));
        let v2 = job::<TotalV2>(checkpoints(&own), &gate, &shown, ALL);
        runtime_of(shards, &v2, |handle| {
            wait_at(&gate, &handle);
            stop(handle)
        })
        .unwrap();
    }
    let v1 = job::<TotalV1>(checkpoints(&own), &gate, &shown, ALL);
    let back = runtime_of(2, &v1, JobHandle::wait).unwrap_err();
    assert!(matches!(back, JobError::Restore { .. }), "{back}");
    gate.open_to(RECORDS);
    let v2 = job::<TotalV2>(checkpoints(&own), &gate, &shown, ALL);
    runtime_of(2, &v2, JobHandle::wait).unwrap();
    assert_same(&shown.all(), &whole(ALL), "all turns");
}

#[test]
fn operators_may_come_and_by_permission_go() {
    let taken = take::<TotalV1>(2, ALL);
    let from = |own: &Folder| checkpoints(own).from_savepoint(taken.at.path());
    let own = Folder::new("new");
    // One more.
    let more = Parts { more: true, ..ALL };
    let (shown, _) = start::<TotalV1>(from(&own), 2, more).unwrap();
    let (counts, rest): (Vec<_>, Vec<_>) = shown.into_iter().partition(|r| r.starts_with("count"));
    assert_eq!(
        counts.len() as u64,
        4 * RECORDS,
        "the new source begins anew"
    );
    assert_same(&merged(rest, taken.shown.clone()), &whole(ALL), "one more");
    // One fewer.
    let fewer = Parts {
        running: false,
        ..ALL
    };
    let own = Folder::new("new");
    let refused = refusal(start::<TotalV1>(from(&own), 2, fewer));
    assert!(refused.contains("allow_dropped"), "{refused}");
    let half = from(&own).allow_dropped("fold/keyed");
    let refused = refusal(start::<TotalV1>(half, 2, fewer));
    assert!(refused.contains("again/positions"), "{refused}");
    let typo = from(&own).allow_dropped("folt/keyed");
    let refused = refusal(start::<TotalV1>(typo, 2, fewer));
    assert!(refused.contains("fold/keyed"), "{refused}");
    let both = from(&own).allow_dropped("fold/keyed");
    let both = both.allow_dropped("again/positions");
    let (shown, _) = start::<TotalV1>(both, 2, fewer).unwrap();
    let is_window = |r: &String| r.starts_with("window");
    let windows = |rows: Vec<String>| -> Vec<_> { rows.into_iter().filter(is_window).collect() };
    let shown = merged(shown, windows(taken.shown.clone()));
    assert_same(&shown, &windows(whole(ALL)), "one fewer");
}

#[test]
fn a_changed_job_is_refused_where_uids_were_made_up() {
    let derived = Parts { uids: false, ..ALL };
    let taken = take::<TotalV1>(2, derived);
    let own = Folder::new("new");
    let from = || checkpoints(&own).from_savepoint(taken.at.path());
    for changed in [
        start::<TotalV1>(
            from(),
            2,
            Parts {
                more: true,
                ..derived
            },
        ),
        start::<TotalV2>(from(), 2, derived),
        start::<TotalV1>(from(), 2, ALL),
    ] {
        let said = refusal(changed);
        let states = ["'positions'", "'keyed'", "'watermarks'", "uids"];
        assert!(states.iter().all(|s| said.contains(s)), "{said}");
    }
}

#[test]
fn what_is_no_savepoint_is_not_started_from() {
    let (own, none) = (Folder::new("new"), Folder::new("none"));
    let from = || checkpoints(&own).from_savepoint(none.path());
    let said = refusal(start::<TotalV1>(from(), 1, ALL));
    assert!(said.contains("cannot be read"), "{said}");
    std::fs::create_dir(none.path()).unwrap();
    let said = refusal(start::<TotalV1>(from(), 1, ALL));
    assert!(said.contains("neither a savepoint"), "{said}");
    // One whose record was not written yet.
    let taken = take::<TotalV1>(1, ALL);
    std::fs::remove_file(taken.at.path().join("savepoint")).unwrap();
    let config = checkpoints(&own).from_savepoint(taken.at.path());
    refusal(start::<TotalV1>(config, 1, ALL));
    assert!(taken.own.path().exists());
}

#[test]
fn savepoints_are_taken_of_jobs_that_stand_still_and_refused_with_what_to_do() {
    let (own, at) = (Folder::new("own"), Folder::new("at"));
    let without = Job::new("without");
    let source = sources::generate("numbers", 1, 1, |id| id);
    without
        .source(source)
        .sink(pelton::sink::callback("none", |_, _| {}));
    let said = runtime_of(1, &without, |handle| handle.savepoint(at.path())).unwrap_err();
    assert!(said.to_string().contains("takes no checkpoints"), "{said}");
    let (gate, shown) = (Gate::at(HALF, RECORDS), Shown::default());
    let job = job::<TotalV1>(checkpoints(&own), &gate, &shown, ALL);
    runtime_of(2, &job, |handle| {
        wait_at(&gate, &handle);
        let first = handle.savepoint(at.path())?;
        assert!(first > Epoch(0));
        // One more, of a job that stands still.
        let again = Folder::new("again");
        assert!(handle.savepoint(again.path())? >= first);
        let new = Folder::new("new");
        let config = checkpoints(&new).from_savepoint(again.path());
        let (rest, _) = start::<TotalV1>(config, 1, ALL)?;
        assert_same(&merged(shown.all(), rest), &whole(ALL), "still");
        // Where something is, and in the job's own folder.
        for full in [at.path(), own.path()] {
            let said = handle.savepoint(full).unwrap_err();
            assert!(said.to_string().contains("empty folder"), "{said}");
        }
        let file = at.path().join("savepoint");
        let said = handle.savepoint(&file).unwrap_err();
        assert!(matches!(said, JobError::Savepoint { .. }), "{said}");
        handle.cancel();
        while !handle.is_over() {
            std::thread::yield_now();
        }
        let said = handle.savepoint(at.path().join("late")).unwrap_err();
        assert!(said.to_string().contains("ended before"), "{said}");
        Ok(())
    })
    .unwrap();
}
