//! One life of a process: started, killed at an instant or a named point, or let through.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// SplitMix64.
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Of the operating system's randomness.
pub fn seed() -> u64 {
    RandomState::new().hash_one(0) >> 32
}

/// How many died, where.
#[derive(Debug, Default)]
pub struct Kills {
    named: BTreeMap<&'static str, u64>,
    instants: u64,
    /// Stopped by SIGTERM after a last checkpoint: not killed.
    stopped: u64,
}

impl Kills {
    pub fn all(&self) -> u64 {
        self.instants + self.named.values().sum::<u64>()
    }

    pub fn at(&self, point: &str) -> u64 {
        self.named.get(point).copied().unwrap_or(0)
    }
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, instants) = (self.all(), self.instants);
        write!(f, "{all} kills, {instants} at random instants, at")?;
        for (name, n) in &self.named {
            write!(f, " {name} {n},")?;
        }
        write!(f, " and {} stops", self.stopped)
    }
}

/// How long a process that nobody kills may take.
const PATIENCE: Duration = Duration::from_secs(120);

struct Running {
    child: Child,
    /// What it said on stderr, when it has ended.
    said: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self, String> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| format!("it does not start: {e}"))?;
        let mut stderr = child.stderr.take().ok_or("it has a stderr")?;
        let (to, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = vec![];
            let _ = stderr.read_to_end(&mut text);
            let _ = to.send(String::from_utf8_lossy(&text).into_owned());
        });
        Ok(Running { child, said })
    }

    /// What it said, if it ends by then.
    fn ends_within(&mut self, time: Duration) -> Option<String> {
        self.said.recv_timeout(time).ok()
    }

    fn status(mut self) -> Result<ExitStatus, String> {
        self.child.wait().map_err(|e| e.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it and kills it, at the point or at a random instant, whichever comes first; whether it was through before.
pub fn live(
    mut command: Command,
    point: Option<&'static str>,
    draw: &mut Draw,
    kills: &mut Kills,
) -> Result<bool, String> {
    // One in three dies while it starts and recovers.
    let mut ms = [40, 250, 250][draw.index(3)];
    if let Some(point) = point {
        // The n-th time: what comes once a restart, or seldom, has no second time.
        let once = matches!(
            point,
            "recovered" | "over" | "aborted" | "held" | "decided-behind"
        );
        let nth = if once { 1 } else { 1 + draw.below(8) };
        command.env("PELTON_KILL", format!("{point}:{nth}"));
        ms = 2_000;
    }
    let instant = Duration::from_micros(draw.below(ms * 1_000));
    let mut running = Running::start(command)?;
    let mut said = running.ends_within(instant);
    let mut told = false;
    if said.is_none() {
        let pid = rustix::process::Pid::from_child(&running.child);
        told = draw.one_in(6);
        if told {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            said = running.ends_within(PATIENCE);
            if said.is_none() {
                return Err("it was told to stop and does not end".into());
            }
        } else {
            running.child.kill().map_err(|e| e.to_string())?;
            said = running.ends_within(PATIENCE);
        }
    }
    let said = said.unwrap_or_default();
    let status = running.status()?;
    match (status.signal(), status.code()) {
        (Some(9), _) => match point.filter(|p| said.contains(&format!("killed at {p}"))) {
            Some(point) => *kills.named.entry(point).or_default() += 1,
            None => kills.instants += 1,
        },
        (None, Some(0)) => return Ok(true),
        // After a last checkpoint, or before it could answer a signal.
        (None, Some(3)) | (Some(15), _) if told => kills.stopped += 1,
        _ => return Err(format!("it ended with {status}: {said}")),
    }
    Ok(false)
}

/// Lets it come to its end; what it said.
pub fn through(command: Command) -> Result<String, String> {
    let mut running = Running::start(command)?;
    let Some(said) = running.ends_within(PATIENCE) else {
        return Err(format!("it does not end within {PATIENCE:?}"));
    };
    match running.status()? {
        status if status.success() => Ok(said),
        status => Err(format!("it ended with {status}: {said}")),
    }
}

/// Whatever was torn: what counts is whole.
pub fn verify(folder: &Path) -> Result<(), String> {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_pelton"));
    verify
        .args(["state", "verify"])
        .arg(folder.join("checkpoints"));
    let out = verify.output().map_err(|e| e.to_string())?;
    match out.status.code() {
        // 2: it died before it had made anything.
        Some(0 | 2) => Ok(()),
        _ => Err(format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        )),
    }
}
