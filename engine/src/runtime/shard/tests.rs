//! Which doorbells are rung.

use super::*;

#[test]
fn a_mask_of_shards_goes_elsewhere_unless_it_names_the_shard_alone() {
    assert!(!goes_elsewhere(0, 0));
    assert!(!goes_elsewhere(5, 1 << 5));
    assert!(goes_elsewhere(5, 1 << 5 | 1 << 6));
    assert!(goes_elsewhere(0, 1 << 63));
    // Shards from 63 up share a bit: it may mean another.
    assert!(goes_elsewhere(63, 1 << 63));
    assert!(goes_elsewhere(70, 1 << 63));
}

use crate::checkpoint::{Cut, Epoch, Frame, Registry, Saved, Snapshot};
use crate::plan::BuiltStage;
use crate::push::Cx;
use crate::state::LoadError;
use crate::time::EventTime;
use pelton_storage::StateId;
use std::sync::atomic::AtomicUsize;

/// A tasklet that always works, and takes its time; with all the time in the world it fails instead.
struct Busy {
    stage: usize,
    step_ns: u64,
    steps: Arc<AtomicUsize>,
    cx: Cx,
}

impl Tasklet for Busy {
    fn step(&mut self, _: Now) -> Result<Progress, JobError> {
        self.steps.fetch_add(1, Relaxed);
        if self.step_ns == u64::MAX {
            return Err(JobError::Cancelled { job: String::new() });
        }
        let clock = Clock::start();
        while clock.now_ns() < self.step_ns {
            std::hint::spin_loop();
        }
        Ok(Progress::Worked)
    }
    fn cx(&mut self) -> &mut Cx {
        &mut self.cx
    }
    fn stage(&self) -> usize {
        self.stage
    }
    fn position(&self, _: Option<usize>) -> String {
        String::new()
    }
    fn watermark(&self) -> EventTime {
        EventTime::BEGINNING
    }
    fn barrier(&mut self, _: Cut) {}
    fn reached(&self) -> Epoch {
        Epoch(0)
    }
    fn save(&mut self, _: &mut Snapshot<'_>) -> Saved {
        Saved::All
    }
    fn load(&mut self, _: &Frame<'_>) -> Result<bool, LoadError> {
        Ok(false)
    }
    fn loaded(&mut self, _: &dyn Fn(StateId) -> bool) -> Result<(), JobError> {
        Ok(())
    }
}

/// A job of `stages` tasklets and how often each has been stepped.
fn busy(number: u32, stages: usize, step_ns: u64) -> (ShardJob, Vec<Arc<AtomicUsize>>) {
    let built = BuiltJob {
        warnings: vec![],
        name: format!("job {number}"),
        ops: vec![],
        queryable: vec![],
        stages: (0..stages)
            .map(|_| BuiltStage {
                ops: vec![],
                exchanged: false,
                tasklets: vec![],
            })
            .collect(),
        states: Registry::default(),
        committers: vec![],
        starts: vec![],
        max_state_bytes: None,
    };
    let steps: Vec<Arc<AtomicUsize>> = (0..stages).map(|_| Arc::default()).collect();
    let tasklets = steps.iter().enumerate().map(|(stage, steps)| {
        let tasklet = Busy {
            stage,
            step_ns,
            steps: steps.clone(),
            cx: Cx::new(0),
        };
        TaskletSlot::new(Box::new(tasklet))
    });
    let tasklets = tasklets.collect();
    let shared = Arc::new(JobShared::new(number, &built, 1, None, 0));
    (ShardJob::new(shared, tasklets, None), steps)
}

fn shard() -> Shard {
    Shard::new(0, Arc::default(), Arc::new([]), false, Clock::start())
}

/// What is published of a stage that may sleep is what it has, and it is not measured again for being asked again.
#[test]
fn a_stage_that_has_worked_is_measured_before_it_sleeps() {
    let (mut job, _) = busy(1, 1, 0);
    let slot = &mut job.tasklets[0];
    slot.measure_ns = 100;
    let idle = Progress::Idle { until_ns: None };
    assert!(!slot.is_to_be_measured(idle, true, 10), "nothing is new");
    assert!(!slot.is_to_be_measured(Progress::Worked, true, 11));
    assert!(!slot.is_to_be_measured(idle, false, 12), "no budget");
    assert!(slot.is_to_be_measured(idle, true, 13));
    slot.changed = false;
    assert!(!slot.is_to_be_measured(idle, true, 14));
    assert!(slot.is_to_be_measured(Progress::Worked, true, 100));
    slot.measure_ns = u64::MAX;
    assert!(!slot.is_to_be_measured(idle, true, 101), "no states");
}

#[test]
fn a_job_of_many_long_steps_does_not_keep_a_small_one_waiting() {
    let mut shard = shard();
    let (large, large_steps) = busy(1, 20, 60_000);
    let (small, small_steps) = busy(2, 1, 0);
    for job in [large, small] {
        shard.mailbox.send(Command::Add(Box::new(job)));
    }
    for round in 1..=10 {
        assert!(shard.round().worked);
        assert_eq!(small_steps[0].load(Relaxed), round, "a turn in each round");
        let large: usize = large_steps.iter().map(|s| s.load(Relaxed)).sum();
        // Four steps of 60 us make the 200; a thread that is held up makes fewer.
        assert!((round..=4 * round).contains(&large), "{large} steps");
    }
    // Cut turns go on where they stopped: no stage is ahead of another by more than one.
    let counts = large_steps.iter().map(|s| s.load(Relaxed));
    assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 1);
}

#[test]
fn a_job_alone_has_whole_turns() {
    let mut shard = shard();
    let (job, steps) = busy(1, 20, 60_000);
    shard.mailbox.send(Command::Add(Box::new(job)));
    shard.round();
    assert!(steps.iter().all(|s| s.load(Relaxed) == 1));
}

#[test]
fn nothing_is_current_between_rounds() {
    let mut shard = shard();
    let (job, _) = busy(7, 1, 0);
    shard.mailbox.send(Command::Add(Box::new(job)));
    shard.round();
    assert_eq!(shard.mailbox.current.load(Relaxed), 0);
    shard.jobs.clear();
    // Also after a step that was a job's last: else the watchdog takes a shard at rest for one that hangs in it.
    let (job, _) = busy(8, 1, u64::MAX);
    shard.mailbox.send(Command::Add(Box::new(job)));
    assert!(shard.round().worked);
    assert!(shard.jobs.is_empty());
    assert_eq!(shard.mailbox.current.load(Relaxed), 0);
    assert!(!shard.round().worked);
}
