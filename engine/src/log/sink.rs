//! A log as a sink of two phases.
//!
//! Laws
//! 1. Shards encode; one thread apart has the log and writes all shards' records to it. The records of a shard that go to one
//!    partition lie there in their order.
//! 2. A shard that has passed a barrier keeps what comes behind it until all shards have passed: so each of the log's epochs is
//!    one of the job's. It is blocked when its buffer is full, and asks again.
//! 3. What is prepared is which log it is and where the epoch ends in each partition, the same for all shards. Committing shows the
//!    epoch; doing so again changes nothing.
//! 4. The folder has one job. What an earlier one has committed there, and this job's checkpoints do not know, is refused and not
//!    touched; so is any log but the one that they are of.

use super::codec::Codec;
use super::writing::{Committing, Core, Gate, Output, Shared, TO_HEAD, head};
use crate::batch::Stamp;
use crate::checkpoint::Epoch;
use crate::key::{Key, stable_hash};
use crate::port::Ports;
use crate::sink::{Committer, PreCommit, Relay, Sink, Writer};
use crate::time::EventTime;
use pelton_storage::{FolderLock, LogConfig, Retention, Visibility};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

/// A shard's buffer is full at so many bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// A log's partitions at most: each has memory of its own.
const PARTITIONS_MAX: u32 = 1024;

type Route<T> = Arc<dyn Fn(&T, u32) -> u32 + Send + Sync>;
type Identify<T> = Arc<dyn Fn(&T, &mut Vec<u8>) + Send + Sync>;

/// A log in `folder`, made if it is not there, that a job with checkpoints writes exactly once: readers see whole epochs, when they are
/// committed. `codec` makes bytes of records.
///
/// One partition, unless [`LogSink::partitions`] says otherwise. For jobs with checkpoints; records come as often as the job takes them.
///
/// A record is as long as fits in a batch, 1 MiB with its key and about 100 bytes of heads: a longer one ends the job, with
/// an error that says which it is.
pub fn sink<T, C: Codec<T>>(folder: impl AsRef<Path>, codec: C) -> LogSink<T, C> {
    LogSink {
        folder: folder.as_ref().to_owned(),
        codec,
        partitions: 1,
        route: None,
        identify: None,
        known_records: 100_000,
        retention: Retention::default(),
        segment_bytes: 64 << 20,
        updates: false,
        opened: None,
    }
}

/// See [`sink`].
pub struct LogSink<T, C> {
    folder: PathBuf,
    codec: C,
    partitions: u32,
    route: Option<Route<T>>,
    identify: Option<Identify<T>>,
    known_records: u64,
    retention: Retention,
    segment_bytes: u64,
    updates: bool,
    opened: Option<Arc<Shared>>,
}

impl<T, C> std::fmt::Debug for LogSink<T, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogSink({})", self.folder.display())
    }
}

impl<T, C> LogSink<T, C> {
    /// How many partitions the log has, 1 to 1,024. May grow from one start to the next, not shrink. Needs
    /// [`LogSink::partition_by`] or [`LogSink::partition_with`] if more than one.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Records of one key go to one partition, by the stable hash of the key: wherever and whenever they are written.
    pub fn partition_by<K: Key>(mut self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.route = Some(Arc::new(move |record, partitions| {
            let hash = u128::from(stable_hash(&key(record)));
            ((hash * u128::from(partitions)) >> 64) as u32
        }));
        self
    }

    /// A record goes to the partition that `partition` says, given their number; modulo that number.
    pub fn partition_with(
        mut self,
        partition: impl Fn(&T, u32) -> u32 + Send + Sync + 'static,
    ) -> Self {
        self.route = Some(Arc::new(partition));
        self
    }

    /// Appends a record's idempotency key: a record whose key is among the last `known` records of its partition is not written again.
    /// It is part of the record and counts to its length.
    pub fn idempotent(
        mut self,
        known: u64,
        key: impl Fn(&T, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        self.identify = Some(Arc::new(key));
        self.known_records = known;
        self
    }

    /// What is kept: the oldest segments go, after a commit, when neither bound wants them. Ages count from the newest record's event
    /// time, or from the clock where that is earlier: so a record from the future makes no other old. A bound on the age is refused for a
    /// stream without event times. Default: everything.
    pub fn retain(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Length of the log's files in bytes, a multiple of 4096 and at least 2 MiB. Default: 64 MiB. Each partition has one or two that
    /// are allocated before they are used.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Says that whoever reads the log copes with results that later ones replace: the last value of a key counts.
    pub fn updates(mut self) -> Self {
        self.updates = true;
        self
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Err(format!(
                "a log of {} partitions; give 1 to {PARTITIONS_MAX}",
                self.partitions
            ));
        }
        if self.partitions > 1 && self.route.is_none() {
            return Err(format!(
                "nothing says to which of the {} partitions a record goes; say partition_by or partition_with",
                self.partitions
            ));
        }
        if self.segment_bytes < 2 << 20 || !self.segment_bytes.is_multiple_of(4096) {
            return Err(format!(
                "segments of {} bytes; give a multiple of 4096, at least 2 MiB",
                self.segment_bytes
            ));
        }
        Ok(())
    }
}

impl<T: Send + 'static, C: Codec<T>> Sink<T> for LogSink<T, C> {
    type Writer = LogWriter<T, C>;

    fn name(&self) -> String {
        self.folder.display().to_string()
    }

    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        self.check()?;
        let lineage = crate::runtime::draw_lineage();
        let config = LogConfig {
            segment_bytes: self.segment_bytes,
            dedup_records: self.known_records,
            // A group is what an epoch gathers, or a full batch.
            group_us: i64::MAX,
            ..LogConfig::new(1, self.partitions, Visibility::Committed, lineage)
        };
        let gate = Gate::new();
        let core = Core::new(
            self.folder.clone(),
            config,
            self.retention,
            ports.shards(),
            gate.clone(),
        );
        let shared = Arc::new(Shared::new(core));
        let (starting, folder) = (shared.clone(), self.folder.clone());
        ports.at_start(Sink::<T>::name(self), move |_| {
            let lock = FolderLock::acquire(&folder).map_err(|e| e.to_string())?;
            let mut core = starting.lock().unwrap_or_else(PoisonError::into_inner);
            core.hold(lock);
            Ok(())
        });
        let apart = ports.apart()?;
        let mut writers = vec![];
        for shard in 0..ports.shards() {
            // Weak: the folder is free when the job's own have gone, whenever the thread apart notices.
            let output = Output::new(Arc::downgrade(&shared));
            let relay = Relay::open(ports, shard, Some(&apart), BUFFER_BYTES, output)?;
            writers.push(LogWriter {
                relay,
                codec: self.codec.clone(),
                route: self.route.clone(),
                identify: self.identify.clone(),
                partitions: self.partitions,
                gate: gate.clone(),
                passed: None,
                held: 0,
                _shared: shared.clone(),
                record: PhantomData,
            });
        }
        self.opened = Some(shared);
        Ok(writers)
    }

    fn takes_updates(&self) -> bool {
        self.updates
    }

    fn needs_event_time(&self) -> Option<String> {
        let by_age = self.retention.age_us_max.is_some();
        by_age.then(|| "it keeps records by their age".into())
    }

    fn in_two_phases(&self) -> bool {
        true
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        let shared = self.opened.take()?;
        Some(Box::new(Committing::new(shared)))
    }
}

/// A shard's writer of [`LogSink`].
pub struct LogWriter<T, C> {
    relay: Relay<u8>,
    codec: C,
    route: Option<Route<T>>,
    identify: Option<Identify<T>>,
    partitions: u32,
    gate: Arc<Gate>,
    /// The barrier that this shard has passed and not all others, as far as is known here (law 2).
    passed: Option<Epoch>,
    /// Bytes in the relay's buffer behind that barrier.
    held: usize,
    _shared: Arc<Shared>,
    record: PhantomData<fn(T)>,
}

impl<T, C> std::fmt::Debug for LogWriter<T, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogWriter({:?})", self.relay)
    }
}

impl<T, C: Codec<T>> LogWriter<T, C> {
    /// Appends a record's entry to `to`.
    fn encode(&mut self, record: &T, time: EventTime) -> Result<(), String> {
        let partition = match &self.route {
            Some(route) => route(record, self.partitions) % self.partitions,
            None => 0,
        };
        let to = self.relay.buffer();
        let begin = to.len();
        to.resize(begin + TO_HEAD, 0);
        if let Some(identify) = &self.identify {
            identify(record, to);
        }
        let key = to.len() - begin - TO_HEAD;
        self.codec.encode(record, to)?;
        let value = to.len() - begin - TO_HEAD - key;
        let has_key = self.identify.is_some();
        let head = head(partition, time, has_key.then_some(key), value)?;
        to[begin..begin + TO_HEAD].copy_from_slice(&head);
        Ok(())
    }
}

impl<T: Send + 'static, C: Codec<T>> Writer<T> for LogWriter<T, C> {
    #[inline]
    fn write(&mut self, record: T, stamp: Stamp) {
        let begin = self.relay.buffer().len();
        if let Err(what) = self.encode(&record, stamp.time) {
            self.relay.buffer().truncate(begin);
            self.relay.fail(what);
        }
        match self.passed {
            None => self.relay.filled(),
            Some(_) => self.held = self.relay.buffer().len(),
        }
    }

    fn flush(&mut self, _: u64) -> Result<(), String> {
        match self.passed {
            None => self.relay.flush(),
            Some(_) => Ok(()), // Law 2; a failure is told by `pre_commit`.
        }
    }

    fn blocked(&self) -> bool {
        self.relay.blocked() || self.held >= BUFFER_BYTES
    }

    /// Held back by law 2 it is not woken, and asked again.
    fn rings(&self) -> bool {
        self.passed.is_none()
    }

    fn barrier(&mut self, epoch: Epoch) {
        debug_assert!(self.passed.is_none(), "one epoch is under way at a time");
        self.relay.barrier(epoch);
        self.passed = Some(epoch);
        self.held = 0;
    }

    fn pre_commit(&mut self, _: u64) -> Result<PreCommit, String> {
        let own = self.relay.pre_commit()?;
        let Some(epoch) = self.passed else {
            return Ok(own);
        };
        if own == PreCommit::Pending {
            return Ok(own);
        }
        let Some(staged) = self.gate.staged(epoch) else {
            return Ok(PreCommit::Pending);
        };
        (self.passed, self.held) = (None, 0);
        self.relay.filled();
        Ok(PreCommit::Ready(Some(staged)))
    }

    fn finish(&mut self, _: u64) -> Result<bool, String> {
        match self.passed {
            None => self.relay.finish(),
            Some(_) => Ok(false),
        }
    }
}
