//! Jobs that are killed, again and again, at random instants and at every named point, on changing numbers of shards, until
//! they are through: what they show in the end is what an undisturbed run shows, by the class of each output.
//!
//! SIGKILL proves that the death of a process loses nothing; what a loss of power does is the storage crate's to prove.
//!
//! `PELTON_CASES` says how many kills there are to be at least (the ignored tests); `PELTON_SEED` draws the same kills again,
//! as far as instants are the same twice.

#![cfg(unix)]

mod flights;
mod lives;
mod logs;
mod outputs;
mod refusing;
mod victim;

use lives::{Draw, Kills};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A job that is run in processes of its own.
trait Subject {
    /// What a restart needs besides the folder.
    type Variant: Clone;
    fn name(&self) -> &'static str;
    /// The points that it comes to: of the coordinator's table, of a shard's share and of a restart.
    fn points(&self) -> &'static [&'static str];
    /// One of its kinds.
    fn draw(&self, draw: &mut Draw) -> Self::Variant;
    /// Starts it, or has it go on, with its checkpoints and outputs in `folder`; the shards are drawn.
    fn command(&self, variant: &Self::Variant, folder: &Path, draw: &mut Draw) -> Command;
    /// Whether what is in the folder is what it should be, and so what its last life said.
    fn check(&self, variant: &Self::Variant, folder: &Path, said: &str) -> Result<(), String>;
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn commit() -> String {
    let output = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    match output {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().into(),
        _ => "unknown".into(),
    }
}

/// Kills jobs until there were `least` kills and one at each point; each job is then let through, and compared.
fn torment<S: Subject>(subject: &S, least: u64) {
    let points = subject.points();
    // The first at which nobody has died.
    let missing = |kills: &Kills| points.iter().copied().find(|p| kills.at(p) == 0);
    let seed = number("PELTON_SEED").unwrap_or_else(lives::seed);
    let title = format!(
        "crash, {}: PELTON_SEED={seed}, commit {}",
        subject.name(),
        commit()
    );
    println!("{title}");
    let mut draw = Draw(seed);
    let mut kills = Kills::default();
    let mut jobs = 0;
    while kills.all() < least || missing(&kills).is_some() {
        jobs += 1;
        assert!(jobs < 50 + least, "{title}: {kills}: it cannot be killed");
        let variant = subject.draw(&mut draw);
        let folder = folder(subject.name());
        let before = kills.all();
        let times = 4 + draw.below(12);
        let mut through = false;
        while !through && kills.all() < before + times {
            let point = match draw.one_in(2) {
                true => missing(&kills).or_else(|| Some(points[draw.index(points.len())])),
                false => None,
            };
            let command = subject.command(&variant, &folder, &mut draw);
            let life = lives::live(command, point, &mut draw, &mut kills);
            through = life
                .unwrap_or_else(|what| panic!("{title}: {kills}: {}: {what}", folder.display()));
            if draw.one_in(8) {
                lives::verify(&folder)
                    .unwrap_or_else(|what| panic!("{title}: {}: {what}", folder.display()));
            }
        }
        // Once more where it was through: it has nothing to add.
        let command = subject.command(&variant, &folder, &mut draw);
        let checked =
            lives::through(command).and_then(|said| subject.check(&variant, &folder, &said));
        checked.unwrap_or_else(|what| panic!("{title}: {kills}: {}: {what}", folder.display()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
    println!("{title}: {kills}; {jobs} jobs were as if nothing had been");
    assert!(kills.all() >= least);
}

fn folder(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("crash-{name}-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn flights_are_killed_at_every_point() {
    torment(&flights::Flights::new(), 0);
}

#[test]
fn a_generated_job_is_killed_at_every_point() {
    torment(&victim::Generated, 0);
}

#[test]
fn jobs_over_logs_are_killed_at_every_point() {
    torment(&logs::Logs, 0);
}

/// Kills of each of three tests.
fn third() -> u64 {
    number("PELTON_CASES").unwrap_or(200).div_ceil(3)
}

#[test]
#[ignore = "long: PELTON_CASES says how long"]
fn flights_are_killed_many_times() {
    torment(&flights::Flights::new(), third());
}

#[test]
#[ignore = "long: PELTON_CASES says how long"]
fn a_generated_job_is_killed_many_times() {
    torment(&victim::Generated, third());
}

#[test]
#[ignore = "long: PELTON_CASES says how long"]
fn jobs_over_logs_are_killed_many_times() {
    torment(&logs::Logs, third());
}

/// Not a test of its own: what the tests above start, and kill.
#[test]
fn victim() {
    if let Some(job) = std::env::var_os("PELTON_VICTIM") {
        victim::run(Path::new(&job));
    }
    if let Some(jobs) = std::env::var_os("PELTON_VICTIM_OF_LOGS") {
        logs::run(Path::new(&jobs));
    }
}
