//! Lines that count exactly once, and lines that count at least once, when the process ends.

#![cfg(feature = "files")]

use pelton::batch::Stamp;
use pelton::checkpoint::Epoch;
use pelton::port::Ports;
use pelton::sink::{Committer, PreCommit, Sink, Writer};
use pelton::testing::{Stepper, conformance};
use pelton::{BuildError, Job, sources};
use pelton_connectors::lines;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "once-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Names in a folder that do not begin with a dot, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names = vec![];
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    names.retain(|n| !n.starts_with('.'));
    names.sort();
    names
}

fn numbers(text: &str) -> Vec<u64> {
    assert!(text.is_empty() || text.ends_with('\n'), "lines are whole");
    text.lines().map(|l| l.parse().unwrap()).collect()
}

#[test]
fn parts_keep_the_laws_of_a_sink_of_two_phases() {
    let above = folder();
    let to = |trial: u64| above.join(trial.to_string());
    conformance::sink(
        |trial| lines::parts(to(trial), lines::json()),
        |trial| {
            let read = |name| std::fs::read_to_string(to(trial).join(name)).unwrap();
            let texts = names(&to(trial)).into_iter().map(read);
            texts.flat_map(|t| numbers(&t)).collect()
        },
    )
    .unwrap();
    std::fs::remove_dir_all(above).unwrap();
}

#[test]
fn growing_files_keep_the_laws_for_who_reads_what_is_committed() {
    let above = folder();
    let to = |trial: u64| above.join(trial.to_string());
    conformance::sink(
        |trial| lines::growing(to(trial), lines::json()),
        |trial| {
            let committed = lines::committed(to(trial)).unwrap().into_iter();
            let texts = committed.map(|(path, length)| {
                let text = std::fs::read_to_string(path).unwrap();
                text[..length as usize].to_string()
            });
            texts.flat_map(|t| numbers(&t)).collect()
        },
    )
    .unwrap();
    std::fs::remove_dir_all(above).unwrap();
}

/// A sink's writers and committer, taken out of the job that opened them.
struct Taken<S, W> {
    sink: S,
    writers: Arc<Mutex<Vec<W>>>,
    committer: Arc<Mutex<Option<Box<dyn Committer>>>>,
}

struct Idle;

impl Writer<u64> for Idle {
    fn write(&mut self, _: u64, _: Stamp) {}
}

impl<S: Sink<u64>> Sink<u64> for Taken<S, S::Writer> {
    type Writer = Idle;
    fn name(&self) -> String {
        self.sink.name()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Idle>, String> {
        *self.writers.lock().unwrap() = self.sink.open(ports)?;
        *self.committer.lock().unwrap() = self.sink.committer();
        Ok((0..ports.shards()).map(|_| Idle).collect())
    }
}

/// One shard's writer of a sink that has started, and its committer.
struct Open<W> {
    writer: W,
    committer: Option<Box<dyn Committer>>,
}

fn open<S: Sink<u64>>(sink: S) -> Result<Open<S::Writer>, String> {
    let (writers, committer) = (Arc::default(), Arc::default());
    let job = Job::new("taken");
    job.source(sources::items(0..0u64)).sink(Taken {
        sink,
        writers: Arc::clone(&writers),
        committer: Arc::clone(&committer),
    });
    match Stepper::new(&job, 1) {
        Ok(_) => {}
        Err(BuildError::Sink { what, .. }) => return Err(what),
        Err(other) => panic!("{other}"),
    }
    let writer = writers.lock().unwrap().remove(0);
    let committer = committer.lock().unwrap().take();
    Ok(Open { writer, committer })
}

impl<W: Writer<u64>> Open<W> {
    fn committer(&mut self) -> &mut dyn Committer {
        &mut **self.committer.as_mut().unwrap()
    }

    fn recover(&mut self, last: Option<u64>) -> Result<(), String> {
        self.committer().recover(last.map(Epoch))
    }

    fn write(&mut self, records: impl IntoIterator<Item = u64>) {
        for record in records {
            self.writer.write(record, Stamp::NONE);
        }
        self.writer.flush(0).unwrap();
    }

    /// Writes and prepares an epoch.
    fn prepare(&mut self, epoch: u64, records: impl IntoIterator<Item = u64>) -> Option<Vec<u8>> {
        self.write(records);
        self.writer.barrier(Epoch(epoch));
        match self.writer.pre_commit(0).unwrap() {
            PreCommit::Ready(prepared) => prepared,
            PreCommit::Pending => panic!("ports serve inline here"),
        }
    }

    /// A record before a barrier and one behind it.
    fn around_a_barrier(&mut self, before: u64, behind: u64) -> Result<PreCommit, String> {
        self.writer.write(before, Stamp::NONE);
        self.writer.barrier(Epoch(1));
        self.writer.write(behind, Stamp::NONE);
        self.writer.pre_commit(0)
    }

    fn finish(&mut self) {
        while !self.writer.finish(0).unwrap() {}
    }

    fn commit(&mut self, epoch: u64, prepared: &[u8]) -> Result<(), (String, bool)> {
        let committed = self.committer().commit(Epoch(epoch), prepared);
        committed.map_err(|e| (e.what, e.is_retryable))
    }

    fn epoch(&mut self, epoch: u64, records: impl IntoIterator<Item = u64>) {
        let prepared = self.prepare(epoch, records).unwrap();
        self.commit(epoch, &prepared).unwrap();
    }
}

#[test]
fn names_of_parts_sort_in_the_order_of_epochs() {
    let folder = folder();
    let mut sink = open(lines::parts(&folder, lines::json())).unwrap();
    sink.recover(None).unwrap();
    sink.epoch(9, [1, 2]);
    assert_eq!(sink.prepare(10, []), None, "no lines, no file");
    sink.epoch(100, [3]);
    drop(sink);
    let text = |n: &u64, line: &mut Vec<u8>| {
        line.extend(format!("{n}\n").bytes());
        Ok(())
    };
    let sink = lines::parts(&folder, lines::text(text));
    let mut sink = open(sink.extension("csv")).unwrap();
    sink.recover(Some(100)).unwrap();
    sink.epoch(1_000_000_000_000, [4]);
    assert_eq!(
        names(&folder),
        [
            "part-00000000000000000009-0000.jsonl",
            "part-00000000000000000100-0000.jsonl",
            "part-00000001000000000000-0000.csv",
        ]
    );
    let first = folder.join("part-00000000000000000009-0000.jsonl");
    assert_eq!(std::fs::read_to_string(first).unwrap(), "1\n2\n");
}

#[test]
fn staging_files_that_nothing_decided_go_at_the_start() {
    let folder = folder();
    let staging = || {
        let entries = std::fs::read_dir(&folder).unwrap();
        let paths = entries.map(|e| e.unwrap().path());
        paths
            .filter(|p| p.extension().is_some_and(|e| e == "staging"))
            .count()
    };
    let mut sink = open(lines::parts(&folder, lines::json())).unwrap();
    sink.recover(None).unwrap();
    let decided = sink.prepare(1, [1]).unwrap();
    sink.prepare(2, [2]).unwrap();
    sink.write([3]);
    assert_eq!((staging(), names(&folder).len()), (3, 0));
    drop(sink);
    let mut sink = open(lines::parts(&folder, lines::json())).unwrap();
    sink.commit(1, &decided).unwrap();
    sink.recover(Some(1)).unwrap();
    assert_eq!((staging(), names(&folder).len()), (0, 1));
}

#[test]
fn parts_may_be_taken_away_once_they_are_there() {
    let folder = folder();
    let mut sink = open(lines::parts(&folder, lines::json())).unwrap();
    sink.recover(None).unwrap();
    let prepared = sink.prepare(1, [1]).unwrap();
    sink.commit(1, &prepared).unwrap();
    std::fs::remove_file(folder.join(&names(&folder)[0])).unwrap();
    // A retry, and the commit of a restart.
    sink.commit(1, &prepared).unwrap();
    drop(sink);
    let mut sink = open(lines::parts(&folder, lines::json())).unwrap();
    sink.commit(1, &prepared).unwrap();
    sink.recover(Some(1)).unwrap();
    assert_eq!(names(&folder), [""; 0]);
}

#[test]
fn a_staging_file_that_has_gone_is_told() {
    let folder = folder();
    let mut sink = open(lines::parts(&folder, lines::json())).unwrap();
    sink.recover(None).unwrap();
    let prepared = sink.prepare(1, [1]).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "staging") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (what, is_retryable) = sink.commit(1, &prepared).unwrap_err();
    assert!(what.contains("has gone") && !is_retryable, "{what}");
}

#[test]
fn a_folder_that_has_gone_is_told_and_not_waited_for() {
    let above = folder();
    let (to, away) = (above.join("out"), above.join("away"));
    let mut sink = open(lines::parts(&to, lines::json())).unwrap();
    sink.recover(None).unwrap();
    let prepared = sink.prepare(1, [1]).unwrap();
    std::fs::rename(&to, &away).unwrap();
    let (what, is_retryable) = sink.commit(1, &prepared).unwrap_err();
    assert!(what.contains("has gone") && !is_retryable, "{what}");
    assert!(what.contains(&to.display().to_string()), "{what}");
    std::fs::rename(&away, &to).unwrap();
    sink.commit(1, &prepared).unwrap();
    assert_eq!(names(&to).len(), 1);
    drop(sink);

    let (to, away) = (above.join("grown"), above.join("away"));
    let mut sink = open(lines::growing(&to, lines::json())).unwrap();
    sink.recover(None).unwrap();
    let prepared = sink.prepare(1, [1]).unwrap();
    std::fs::rename(&to, &away).unwrap();
    let (what, is_retryable) = sink.commit(1, &prepared).unwrap_err();
    assert!(what.contains("has gone") && !is_retryable, "{what}");
    std::fs::rename(&away, &to).unwrap();
    sink.commit(1, &prepared).unwrap();
    assert_eq!(lines::committed(&to).unwrap().len(), 1);
}

#[test]
fn nothing_is_replaced_by_a_part() {
    let folder = folder();
    let name = "part-00000000000000000005-0000.jsonl";
    std::fs::write(folder.join(name), "another's\n").unwrap();
    let mut sink = open(lines::parts(&folder, lines::json())).unwrap();
    for last in [None, Some(4)] {
        let refused = sink.recover(last).unwrap_err();
        assert!(refused.contains(name), "{refused}");
        assert!(refused.contains("name an empty folder"), "{refused}");
    }
    sink.recover(Some(5)).unwrap();
    let prepared = sink.prepare(5, [1]).unwrap();
    let (what, is_retryable) = sink.commit(5, &prepared).unwrap_err();
    assert!(what.contains("is there already") && !is_retryable, "{what}");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(text, "another's\n");
}

#[test]
fn a_folder_is_one_jobs() {
    let above = folder();
    let to = above.join("out");
    let first = open(lines::parts(&to, lines::json())).unwrap();
    for refused in [
        open(lines::parts(&to, lines::json())).err().unwrap(),
        open(lines::growing(&to, lines::json())).err().unwrap(),
    ] {
        assert!(refused.contains("another job writes to it"), "{refused}");
    }
    let Open { writer, committer } = first;
    drop(committer);
    assert!(
        open(lines::parts(&to, lines::json())).is_err(),
        "the writer has it"
    );
    drop(writer);
    assert!(open(lines::parts(&to, lines::json())).is_ok());
}

#[test]
fn what_cannot_be_opened_is_refused_and_leaves_nothing() {
    let above = folder();
    let file = above.join("file");
    std::fs::write(&file, "").unwrap();
    let refused = |path: &Path| open(lines::parts(path, lines::json())).err().unwrap();
    assert!(refused(&file).contains("it is a file; name a folder"));
    assert!(refused(&above.join("a/b")).contains("make it first"));
    let extended = lines::growing(above.join("out"), lines::json()).extension("a/b");
    assert!(open(extended).err().unwrap().contains("is no extension"));
    // Refused for the sake of another sink.
    let job = Job::new("two sinks");
    job.source(sources::items(0..1u64))
        .sink(lines::parts(above.join("out"), lines::json()));
    job.source(sources::items(0..1u64))
        .sink(lines::parts(&file, lines::json()));
    assert!(Stepper::new(&job, 1).is_err());
    assert_eq!(names(&above), ["file"]);
}

#[test]
fn a_growing_file_is_cut_to_what_was_decided() {
    let folder = folder();
    let read = || std::fs::read_to_string(folder.join("shard-0000.jsonl"));
    let mut sink = open(lines::growing(&folder, lines::json())).unwrap();
    sink.recover(None).unwrap();
    sink.write([1]);
    assert_eq!(read().unwrap(), "1\n", "lines are there at once");
    drop(sink);
    let mut sink = open(lines::growing(&folder, lines::json())).unwrap();
    sink.recover(None).unwrap();
    assert!(read().is_err(), "nothing of it was decided");
    sink.epoch(3, [2, 3]);
    let prepared = sink.prepare(4, [4]).unwrap();
    sink.write([5]);
    assert_eq!(
        sink.prepare(5, []).as_deref(),
        Some(&b"8 shard-0000.jsonl"[..])
    );
    assert_eq!(sink.prepare(6, []), None, "no lines, nothing to decide");
    assert_eq!(read().unwrap(), "2\n3\n4\n5\n");
    drop(sink);
    // Epoch 4 was decided, and not committed.
    let mut sink = open(lines::growing(&folder, lines::json())).unwrap();
    sink.commit(4, &prepared).unwrap();
    sink.recover(Some(4)).unwrap();
    assert_eq!(read().unwrap(), "2\n3\n4\n");
    // Set back: what was seen would be seen again.
    let refused = sink.recover(Some(3)).unwrap_err();
    assert!(refused.contains("lines of epoch 4, later"), "{refused}");
    drop(sink);
    std::fs::write(folder.join("shard-0000.jsonl"), "2\n").unwrap();
    let mut sink = open(lines::growing(&folder, lines::json())).unwrap();
    let refused = sink.recover(Some(4)).unwrap_err();
    assert!(refused.contains("2 bytes, and 6 were decided"), "{refused}");
}

#[test]
fn files_of_somebody_else_are_not_cut() {
    let folder = folder();
    std::fs::write(folder.join("shard-0000.jsonl"), "mine\n").unwrap();
    let mut sink = open(lines::growing(&folder, lines::json())).unwrap();
    let refused = sink.recover(None).unwrap_err();
    assert!(
        refused.contains("nothing says what of it is decided"),
        "{refused}"
    );
}

#[test]
fn a_line_that_a_crash_left_open_is_ended_and_stays() {
    let path = folder().join("out");
    let mut sink = open(lines::file(&path, lines::json())).unwrap();
    assert!(sink.committer.is_none(), "at least once");
    assert_eq!(sink.prepare(1, [10, 11]), None);
    drop(sink);
    let cut = "10\n1";
    std::fs::write(&path, cut).unwrap();
    let mut sink = open(lines::file(&path, lines::json())).unwrap();
    sink.write([11]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "10\n1\n11\n");
}

#[test]
fn lines_before_a_barrier_are_written_when_it_is_answered() {
    let path = folder().join("out");
    let mut sink = open(lines::file(&path, lines::json())).unwrap();
    assert_eq!(
        sink.around_a_barrier(1, 2),
        Ok(PreCommit::Ready(None)),
        "nothing to commit"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
    // Behind the end as well.
    sink.finish();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n");
    assert_eq!(sink.prepare(2, []), None);
}
