//! Named points at which a process can be made to die, for the proof that dying there loses nothing.
//!
//! Without the feature `kill-points` they are nothing at all. With it, `PELTON_KILL=name:n` in the environment ends the
//! process by SIGKILL when it has come to `name` for the n-th time: nothing is unwound, flushed or closed. Where it is not set
//! a point costs a load, a few times an epoch on the control thread and that of the commits, and never on a shard: so the tests of a workspace may all
//! be built with it, and timings stay what they are.

/// The process dies here, if it is told to.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub(crate) fn kill_point(_name: &'static str) {}

/// The process dies here, if it is told to.
#[cfg(feature = "kill-points")]
pub(crate) fn kill_point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("PELTON_KILL").ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_string(), count.parse().ok()?))
    });
    if let Some((wanted, count)) = wanted
        && wanted == name
        && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        eprintln!("killed at {name}, the {count}. time");
        die();
    }
}

#[cfg(all(feature = "kill-points", target_os = "linux"))]
fn die() -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    let _ = kill_process(getpid(), Signal::KILL);
    // It is on its way.
    loop {
        std::thread::park();
    }
}

#[cfg(all(feature = "kill-points", not(target_os = "linux")))]
fn die() -> ! {
    std::process::abort()
}
