//! Shard threads: made, found to work, and ended. What differs between drivers is in their own files.

use crate::error::BuildError;
use crate::runtime::clock::Clock;
use crate::runtime::config::{Driver, Placement, Waiting};
use crate::runtime::disks::Disks;
use crate::runtime::duty::Duty;
use crate::runtime::shard::{Command, Mailbox, Shard};
use crate::runtime::threads;
use pelton_ring::{Doorbell, Sleeper};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a shard may take to start. Only a driver that hangs takes longer.
const START_WITHIN: Duration = Duration::from_secs(5);

/// How long shards may take to end. A shard stuck in user code never does: it is left behind rather than waited for.
const END_WITHIN: Duration = Duration::from_secs(2);

/// What [`Driver::Auto`] tries, best first. glommio is to come first when I/O through its ring is worth it; a shard's checkpoints can go there,
/// and are no faster as measured (docs/benchmarks.md), and the rest costs more: with 2 shards it started in 7 to 25 ms where threads took 0.4, and to sleep and wake took it seven `io_uring_enter` and a
/// `membarrier`, which interrupts every core that runs a thread of ours, where a thread makes one call of `futex`. One shard at 10,000
/// timed wake-ups a second took 1.5 to 2.5 times the processor time of a thread.
const AUTO: &[Driver] = &[Driver::Threads];

/// A shard as others see it.
#[derive(Debug)]
pub(crate) struct ShardRef {
    pub mailbox: Arc<Mailbox>,
    pub doorbell: Doorbell,
    pub disks: Disks,
}

/// Why a driver cannot be had, and what would allow it.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub what: String,
    pub advice: &'static str,
}

/// A shard's answer to whether its driver works. Not answering is a refusal.
pub(crate) struct Ready(mpsc::Sender<Result<(), Refused>>);

impl Ready {
    pub fn yes(self) {
        // The runtime may have given up waiting.
        let _ = self.0.send(Ok(()));
    }

    /// For a test that runs a shard by itself.
    #[cfg(all(test, feature = "glommio", target_os = "linux"))]
    pub fn channel() -> (Ready, mpsc::Receiver<Result<(), Refused>>) {
        let (tell, ready) = mpsc::channel();
        (Ready(tell), ready)
    }

    #[cfg(all(feature = "glommio", target_os = "linux"))]
    pub fn no(self, refused: Refused) {
        let _ = self.0.send(Err(refused));
    }
}

/// The shards of a runtime. Dropping them ends them.
#[derive(Debug)]
pub(crate) struct Shards {
    pub refs: Vec<ShardRef>,
    pub driver: Driver,
    threads: Vec<Option<JoinHandle<()>>>,
    /// Tells that a shard has ended.
    ended: mpsc::Receiver<usize>,
}

type Run = Box<dyn FnOnce(Duty, Sleeper, Ready) + Send>;

impl Shards {
    /// Their mailboxes, and how to wake them.
    pub fn mailboxes(&self) -> Vec<(Arc<Mailbox>, Doorbell)> {
        let one = |s: &ShardRef| (s.mailbox.clone(), s.doorbell.clone());
        self.refs.iter().map(one).collect()
    }

    /// Starts them with the driver that is asked for, or with the best there is.
    pub fn start(
        placement: &mut Placement,
        driver: Driver,
        clock: Clock,
    ) -> Result<Self, BuildError> {
        match driver {
            Driver::Auto => Self::first_of(AUTO, placement, clock),
            one => Self::first_of(&[one], placement, clock),
        }
    }

    /// Starts them with the first of these drivers that can be had; a note says what was refused.
    fn first_of(
        drivers: &[Driver],
        placement: &mut Placement,
        clock: Clock,
    ) -> Result<Self, BuildError> {
        let Some((driver, others)) = drivers.split_first() else {
            unreachable!("there is a last one to try");
        };
        let started = match driver {
            Driver::Glommio => Self::on_glommio(placement, clock)?,
            Driver::Auto | Driver::Threads => {
                Self::with(placement, Driver::Threads, clock, || {
                    let run = Box::new(threads::run) as Run;
                    (Sleeper::thread(), Disks::default(), run)
                })?
            }
        };
        let refused = match started {
            Ok(shards) => return Ok(shards),
            Err(refused) => refused,
        };
        if others.is_empty() {
            return Err(BuildError::Config {
                what: format!("{driver:?} cannot run the shards: {}", refused.what),
                advice: format!("{}, or use Driver::Threads", refused.advice),
            });
        }
        placement.notes.push(format!(
            "{driver:?} cannot run the shards, {:?} does: {}; to have it, {}",
            others[0], refused.what, refused.advice
        ));
        Self::first_of(others, placement, clock)
    }

    #[cfg(all(feature = "glommio", target_os = "linux"))]
    fn on_glommio(
        placement: &Placement,
        clock: Clock,
    ) -> Result<Result<Self, Refused>, BuildError> {
        Self::with(placement, Driver::Glommio, clock, || {
            let (sleeper, seat, desk) = crate::runtime::glommio::seat();
            let run =
                move |duty: Duty, sleeper: Sleeper, ready: Ready| seat.run(duty, sleeper, ready);
            (sleeper, Disks::with_ring(desk), Box::new(run) as Run)
        })
    }

    #[cfg(not(all(feature = "glommio", target_os = "linux")))]
    fn on_glommio(_: &Placement, _: Clock) -> Result<Result<Self, Refused>, BuildError> {
        Err(BuildError::Config {
            what: "the glommio driver is not part of this build".into(),
            advice:
                "build on Linux with the feature `glommio`, or use Driver::Threads or Driver::Auto"
                    .into(),
        })
    }

    /// A thread a shard, all of them working; or else none, and the first refusal.
    fn with(
        placement: &Placement,
        driver: Driver,
        clock: Clock,
        mut seat: impl FnMut() -> (Sleeper, Disks, Run),
    ) -> Result<Result<Self, Refused>, BuildError> {
        let (mut seats, mut refs) = (vec![], vec![]);
        for _ in &placement.cores {
            let (sleeper, disks, run) = seat();
            refs.push(ShardRef {
                mailbox: Arc::default(),
                doorbell: sleeper.doorbell(),
                disks,
            });
            seats.push((sleeper, run));
        }
        let bells: Arc<[Doorbell]> = refs.iter().map(|s| s.doorbell.clone()).collect();
        let (tell_end, ended) = mpsc::channel();
        let mut shards = Shards {
            refs,
            driver,
            threads: vec![],
            ended,
        };
        let (tell_ready, ready) = mpsc::channel();
        let sleepers = matches!(placement.waiting, Waiting::Park { .. });
        for (id, (sleeper, run)) in seats.into_iter().enumerate() {
            let shard = Shard::new(
                id,
                shards.refs[id].mailbox.clone(),
                bells.clone(),
                sleepers,
                clock,
            );
            let duty = Duty::new(shard, placement.waiting);
            let (core, tell_end, ready) = (
                placement.cores[id],
                tell_end.clone(),
                Ready(tell_ready.clone()),
            );
            let thread = std::thread::Builder::new()
                .name(format!("pelton-shard-{id}"))
                .spawn(move || {
                    // Last of all, also if the driver panics.
                    let _tell = TellEnd(id, tell_end);
                    if let Some(core) = core {
                        // Where pinning is refused the shard still runs; the mask was checked when it was placed.
                        core_affinity::set_for_current(core_affinity::CoreId { id: core });
                    }
                    precise_timers();
                    run(duty, sleeper, ready);
                })
                .map_err(|e| BuildError::Config {
                    what: format!("the thread of shard {id} could not be started: {e}"),
                    advice: "raise the limit on threads, or use fewer shards".into(),
                })?;
            shards.threads.push(Some(thread));
        }
        drop(tell_ready);
        for _ in &shards.refs {
            let what = match ready.recv_timeout(START_WITHIN) {
                Ok(Ok(())) => continue,
                Ok(Err(refused)) => return Ok(Err(refused)),
                Err(RecvTimeoutError::Timeout) => "a shard did not start in time",
                Err(RecvTimeoutError::Disconnected) => "a shard failed at its start",
            };
            return Ok(Err(Refused {
                what: what.into(),
                advice: "see whether io_uring works for other programs here",
            }));
        }
        Ok(Ok(shards))
    }
}

/// Linux lets the timers of a thread be 50 µs late, so that it may wake several sleepers at once.
fn precise_timers() {
    #[cfg(target_os = "linux")]
    {
        // Where it is refused, timers stay as they are.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

struct TellEnd(usize, mpsc::Sender<usize>);

impl Drop for TellEnd {
    fn drop(&mut self) {
        // The runtime may have gone: nobody waits then.
        let _ = self.1.send(self.0);
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        for shard in &self.refs {
            shard.mailbox.send(Command::Shutdown);
            shard.doorbell.ring();
        }
        for _ in 0..self.threads.len() {
            let Ok(id) = self.ended.recv_timeout(END_WITHIN) else {
                return;
            };
            if let Some(thread) = self.threads[id].take() {
                // It has nothing left to do. A driver's panic has been printed, and its jobs have been told.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(all(test, feature = "glommio", target_os = "linux"))]
mod tests {
    use super::*;
    use crate::runtime::Config;

    /// What happens where glommio is tried first and then threads.
    fn start() -> (Driver, Vec<String>) {
        crate::runtime::panics::install();
        let mut placement = Config::default().shards(2).place().unwrap();
        let order = [Driver::Glommio, Driver::Threads];
        let shards = Shards::first_of(&order, &mut placement, Clock::start()).unwrap();
        (shards.driver, placement.notes)
    }

    /// Run by the tests below, in a process of its own in which something is forbidden.
    #[test]
    #[ignore = "a part of other tests"]
    fn child() {
        let (driver, notes) = start();
        println!("driver {driver:?}");
        notes.iter().for_each(|note| println!("note {note}"));
        let forced = crate::Runtime::start(Config::default().shards(2).driver(Driver::Glommio));
        println!("forced {}", forced.unwrap_err());
        let auto = crate::Runtime::start(Config::default().shards(2)).unwrap();
        println!("auto {:?} {:?}", auto.driver(), auto.notes());
    }

    /// Runs [`child`] behind a command that forbids something; what it said.
    fn forbidden(program: &str, arguments: &[&str]) -> String {
        let output = std::process::Command::new(program)
            .args(arguments)
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "runtime::drivers::tests::child",
                "--ignored",
                "--nocapture",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            !String::from_utf8_lossy(&output.stderr).contains("panicked"),
            "it is no panic"
        );
        assert!(text.contains("auto Threads []"), "{text}");
        text
    }

    #[test]
    fn without_locked_memory_threads_run_and_a_note_says_why() {
        let text = forbidden("sh", &["-c", "ulimit -l 0; exec \"$0\" \"$@\""]);
        assert!(text.contains("driver Threads"), "{text}");
        let why = "the process may lock 0 bytes of memory, and 524288 are needed";
        assert!(text.contains(&format!("note Glommio cannot run the shards, Threads does: {why}; to have it, allow at least 512 KiB of locked memory (ulimit -l 512")), "{text}");
        assert!(
            text.contains(&format!(
                "forced [PLT-0009] Glommio cannot run the shards: {why}; allow at least 512 KiB"
            )),
            "{text}"
        );
        assert_eq!(text.matches("note ").count(), 1, "one note: {text}");
    }

    /// As a container's seccomp profile does it.
    #[test]
    #[ignore = "needs python3 to install a seccomp filter"]
    fn where_the_calls_are_forbidden_threads_run_and_a_note_says_why() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/forbid_io_uring.py");
        let why = "the kernel refuses io_uring: it is too old, or a seccomp profile forbids it";
        // EPERM as by Docker's profile, ENOSYS as by a kernel without it.
        for errno in ["1", "38"] {
            let text = forbidden("python3", &[script, errno]);
            assert!(text.contains("driver Threads"), "{text}");
            let note = format!(
                "note Glommio cannot run the shards, Threads does: {why}; to have it, run Linux 5.8"
            );
            assert!(text.contains(&note), "{text}");
            let forced =
                format!("forced [PLT-0009] Glommio cannot run the shards: {why}; run Linux 5.8");
            assert!(text.contains(&forced), "{text}");
        }
    }
}
