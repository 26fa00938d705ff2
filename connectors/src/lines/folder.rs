//! The folder that a sink writes to: one job's at a time.
//!
//! Laws
//! 1. Nobody else writes while the job has it: while there is a writer, a committer, or an output on its helper thread, which may
//!    outlive the others. The lock is the kernel's and goes with the process, however that dies.
//! 2. Each start has a number of its own in it, so that no two starts make a file of one name. It is on the device before the first
//!    of its files is made.
//! 3. It is made and taken when the job starts. A job that is refused by then leaves nothing.
//! 4. What in it carries the lineage of another job is that job's: it may hold what a checkpoint there has decided and nobody has
//!    committed yet. Who finds it is refused and leaves it as it is. What carries none was made by an earlier build: it is taken
//!    to be of the job that goes on from a checkpoint of its own, and of no job that begins.

use super::{BUFFER_BYTES, LinesWriter, target};
use pelton::checkpoint::Lineage;
use pelton::port::{Ports, Start};
use pelton::sink::{Output, Relay};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Whose content is the number of the last start.
const LOCK: &str = ".pelton-sink";

/// A sink's folder, being written to by its outputs.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub path: PathBuf,
    /// Each output has a clone (law 1).
    held: Held,
    /// Empty before the job starts.
    begun: Arc<OnceLock<Begun>>,
}

/// Who writes in a folder.
#[derive(Debug)]
struct Begun {
    lineage: Option<Lineage>,
    /// Number of this start.
    attempt: u64,
}

/// Keeps a folder for its job. All writers, outputs and the committer of a sink have it.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<Option<File>>>);

/// Whether a name may end so.
pub(super) fn check_extension(extension: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match !extension.is_empty() && extension.chars().all(good) {
        true => Ok(()),
        false => Err(format!(
            "'{extension}' is no extension; give letters, digits, dots, '-' and '_'"
        )),
    }
}

/// A sink in the folder at `path`: what its committer needs, and a writer for each shard, with an output of its own. `check` looks
/// at what is there when the job starts (law 4).
pub(super) fn open<F: Clone, O: Output<u8>>(
    ports: &mut Ports<'_>,
    path: &Path,
    format: &F,
    check: impl FnOnce(&Folder, &Start) -> Result<(), String> + 'static,
    output: impl Fn(&Folder, usize) -> O,
) -> Result<(Opened, Vec<LinesWriter<F>>), String> {
    let folder = Folder::new(path)?;
    let (taken, held) = (folder.clone(), folder.held.clone());
    ports.at_start(path.display().to_string(), move |start| {
        taken.take(start)?;
        check(&taken, start)
    });
    // A sync takes as long as the device does.
    let apart = ports.apart()?;
    let mut writers = vec![];
    for shard in 0..ports.shards() {
        let output = output(&folder, shard);
        let relay = Relay::open(ports, shard, Some(&apart), BUFFER_BYTES, output)?;
        writers.push(LinesWriter::new(relay, format.clone(), Some(held.clone())));
    }
    Ok(((folder, held), writers))
}

/// What a sink keeps of its folder for its committer.
pub(super) type Opened = (Folder, Held);

impl Folder {
    /// A folder that is there, or can be made.
    pub fn new(path: &Path) -> Result<Self, String> {
        let above = match path.parent() {
            Some(above) if above != Path::new("") => above,
            _ => Path::new("."),
        };
        match path.metadata() {
            Ok(meta) if !meta.is_dir() => return Err("it is a file; name a folder".into()),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound && above.is_dir() => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err("the folder above it does not exist; make it first".into());
            }
            Err(e) => return Err(target::failure(&e)),
        }
        Ok(Folder {
            path: path.to_owned(),
            held: Held::default(),
            begun: Arc::default(),
        })
    }

    /// Takes it: the job starts.
    pub fn take(&self, start: &Start) -> Result<(), String> {
        let say = |e: io::Error| match e.kind() {
            ErrorKind::PermissionDenied => "it may not be written to; check its permissions".into(),
            _ => target::failure(&e),
        };
        match std::fs::create_dir(&self.path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(say(e)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(self.path.join(LOCK)).map_err(say)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err("another job writes to it; end that, or name another folder".into());
            }
            Err(TryLockError::Error(e)) => return Err(say(e)),
        }
        let attempt = next_start(&mut file).map_err(say)?;
        sync_folder(&self.path).map_err(say)?;
        let lineage = start.lineage;
        let begun = self.begun.set(Begun { lineage, attempt });
        debug_assert!(begun.is_ok(), "a job starts once");
        *self.held.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// The number of this start (law 2).
    pub fn attempt(&self) -> u64 {
        let begun = self.begun.get();
        debug_assert!(begun.is_some(), "nothing is written before the job starts");
        begun.map_or(0, |b| b.attempt)
    }

    /// The job's lineage, if it has one.
    pub fn lineage(&self) -> Option<Lineage> {
        self.begun.get().and_then(|b| b.lineage)
    }

    /// The names in it that are text: all of ours are.
    pub fn names(&self) -> Result<Vec<String>, String> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = vec![];
            for entry in std::fs::read_dir(&self.path)? {
                names.extend(entry?.file_name().into_string());
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|e| target::failure(&e))
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> io::Result<()> {
        sync_folder(&self.path)
    }
}

/// Whether `what`, which carries the lineage `of`, is the starting job's to change (law 4).
pub(super) fn check_owner(what: &str, of: Option<Lineage>, start: &Start) -> Result<(), String> {
    let whose = match of {
        _ if of == start.lineage => return Ok(()),
        None if start.went_on_from.is_some() => return Ok(()),
        None => "made by an earlier version, and this job begins".into(),
        Some(lineage) => format!("of the job with lineage {lineage}, and this is another one"),
    };
    Err(format!(
        "it holds {what}, {whose}: lines that are decided and not shown yet may be lost; name an empty folder, or move what is there away"
    ))
}

/// A lineage as it is shown.
pub(super) fn lineage(text: &str) -> Option<Lineage> {
    let number = u128::from_str_radix(text, 16).ok()?;
    let lineage = Lineage(number.to_be_bytes());
    (lineage.to_string() == text).then_some(lineage)
}

/// Counts a start. What cannot be read, since the device was cut off in the first one, counts as none.
fn next_start(file: &mut File) -> io::Result<u64> {
    let mut text = String::new();
    let last = match file.take(32).read_to_string(&mut text) {
        Ok(_) => text.trim().parse().unwrap_or(0),
        Err(e) if e.kind() == ErrorKind::InvalidData => 0,
        Err(e) => return Err(e),
    };
    let next = last + 1;
    file.rewind()?;
    // As long as any other: overwritten in place, and never shorter.
    file.write_all(format!("{next:020}\n").as_bytes())?;
    file.sync_all()?;
    Ok(next)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Names are durable with the files there.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{Format, Json, json};
    use pelton::checkpoint::Epoch;
    use pelton::sink::Sink;
    use pelton::{Config, Job, Runtime, sources};
    use std::sync::mpsc;

    /// A sink in a folder whose output is stuck in its first write until it is told otherwise.
    struct Stuck {
        path: PathBuf,
        stuck: mpsc::Sender<()>,
        go: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    struct Output {
        _folder: Folder,
        stuck: mpsc::Sender<()>,
        go: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl pelton::sink::Output<u8> for Output {
        fn write(&mut self, _: &mut Vec<u8>) -> Result<(), String> {
            let _ = self.stuck.send(());
            let _ = self.go.lock().unwrap().recv();
            Ok(())
        }
        fn pre_commit(&mut self, _: Epoch) -> Result<Option<Vec<u8>>, String> {
            Ok(None)
        }
    }

    impl<T: 'static> Sink<T> for Stuck
    where
        Json: Format<T>,
    {
        type Writer = LinesWriter<Json>;
        fn name(&self) -> String {
            "stuck".into()
        }
        fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
            let output = |folder: &Folder, _| Output {
                _folder: folder.clone(),
                stuck: self.stuck.clone(),
                go: self.go.clone(),
            };
            Ok(open(ports, &self.path, &json(), |_, _| Ok(()), output)?.1)
        }
    }

    /// Law 1: the job has ended, and who still writes for it has the folder.
    #[test]
    fn an_output_that_outlives_its_job_has_the_folder() {
        let path = std::env::temp_dir().join(format!("pelton-stuck-{}", std::process::id()));
        let ((stuck, is_stuck), (go, told)) = (mpsc::channel(), mpsc::channel());
        let go_on = Arc::new(Mutex::new(told));
        let job = Job::new("stuck");
        job.source(sources::items(0..10u64)).sink(Stuck {
            path: path.clone(),
            stuck,
            go: go_on,
        });
        let runtime = Runtime::start(Config::default().shards(1)).unwrap();
        let handle = runtime.submit(&job).unwrap();
        is_stuck.recv().unwrap();
        handle.cancel();
        handle.wait().unwrap_err();
        let next = Folder::new(&path).unwrap();
        let refused = next.take(&Start::default()).unwrap_err();
        assert!(refused.contains("another job writes to it"), "{refused}");
        drop(go);
        while next.take(&Start::default()).is_err() {
            std::thread::yield_now();
        }
        std::fs::remove_dir_all(path).unwrap();
    }
}
