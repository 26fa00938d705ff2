//! For tests of checkpoints: a folder that goes with the test, and a sink of two phases in memory.

pub mod sums;

use pelton::sink::{CommitError, Committer, PreCommit, Sink, Writer};
use pelton::{Config, Driver, Epoch, Runtime, batch::Stamp, port::Ports};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A folder of this test's own, removed when it goes.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("pelton-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What has been made durable and what others see: it outlives the jobs that write to it.
struct Ledger<T> {
    /// By the bytes that name them.
    staged: BTreeMap<Vec<u8>, Vec<T>>,
    /// With the epoch that committed it.
    visible: Vec<(Epoch, T)>,
    /// How long it takes to prepare, nanoseconds.
    slow_ns: u64,
}

/// A two-phase sink in memory.
pub struct Transactions<T>(Arc<Mutex<Ledger<T>>>);

impl<T> Clone for Transactions<T> {
    fn clone(&self) -> Self {
        Transactions(self.0.clone())
    }
}

impl<T> Default for Transactions<T> {
    fn default() -> Self {
        Transactions(Arc::new(Mutex::new(Ledger {
            staged: BTreeMap::new(),
            visible: vec![],
            slow_ns: 0,
        })))
    }
}

impl<T: Clone + Ord> Transactions<T> {
    pub fn new() -> Self {
        Self::default()
    }
    /// Preparing takes so long from now on.
    pub fn slow(&self, ns: u64) {
        self.0.lock().unwrap().slow_ns = ns;
    }
    /// What others see, sorted.
    pub fn visible(&self) -> Vec<T> {
        self.visible_of(Epoch(u64::MAX))
    }
    /// What epochs up to this one have committed, sorted.
    pub fn visible_of(&self, last: Epoch) -> Vec<T> {
        let ledger = self.0.lock().unwrap();
        let rows = ledger.visible.iter().filter(|(epoch, _)| *epoch <= last);
        let mut rows: Vec<T> = rows.map(|(_, row)| row.clone()).collect();
        rows.sort_unstable();
        rows
    }
}

pub struct Stage<T> {
    ledger: Transactions<T>,
    shard: usize,
    written: Vec<T>,
    ready: Option<(Epoch, Vec<T>)>,
    /// When it was first asked.
    asked_ns: Option<u64>,
}

impl<T: Send + 'static> Sink<T> for Transactions<T> {
    type Writer = Stage<T>;
    fn name(&self) -> String {
        "transactions".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Stage<T>>, String> {
        let stage = |shard| Stage {
            ledger: self.clone(),
            shard,
            written: vec![],
            ready: None,
            asked_ns: None,
        };
        Ok((0..ports.shards()).map(stage).collect())
    }
    fn takes_updates(&self) -> bool {
        true
    }
    fn in_two_phases(&self) -> bool {
        true
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        Some(Box::new(self.clone()))
    }
}

impl<T: Send + 'static> Writer<T> for Stage<T> {
    fn write(&mut self, record: T, _: Stamp) {
        self.written.push(record);
    }
    fn barrier(&mut self, epoch: Epoch) {
        self.ready = Some((epoch, std::mem::take(&mut self.written)));
    }
    fn pre_commit(&mut self, now_ns: u64) -> Result<PreCommit, String> {
        let asked_ns = *self.asked_ns.get_or_insert(now_ns);
        if now_ns < asked_ns + self.ledger.0.lock().unwrap().slow_ns {
            return Ok(PreCommit::Pending);
        }
        self.asked_ns = None;
        let Some((epoch, records)) = self.ready.take() else {
            return Ok(PreCommit::Ready(None));
        };
        if records.is_empty() {
            return Ok(PreCommit::Ready(None));
        }
        let name = format!("{:020}-{}", epoch.0, self.shard).into_bytes();
        let mut ledger = self.ledger.0.lock().unwrap();
        ledger.staged.insert(name.clone(), records);
        Ok(PreCommit::Ready(Some(name)))
    }
}

impl<T: Send + 'static> Committer for Transactions<T> {
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        let mut ledger = self.0.lock().unwrap();
        // What is no longer staged was committed before.
        if let Some(records) = ledger.staged.remove(prepared) {
            let records = records.into_iter().map(|r| (epoch, r));
            ledger.visible.extend(records);
        }
        Ok(())
    }
    fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
        self.0.lock().unwrap().staged.clear();
        Ok(())
    }
}

/// A runtime on real threads.
pub fn runtime(shards: usize) -> Runtime {
    let config = Config::default().shards(shards).driver(Driver::Threads);
    Runtime::start(config.batch_size(64)).unwrap()
}
