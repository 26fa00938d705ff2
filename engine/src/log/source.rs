//! A log as a source.
//!
//! Laws
//! 1. A partition's position is the first offset that has not been handed on, whatever has been read ahead, with what the log is
//!    known by and where a bounded partition ends.
//! 2. A bounded source ends at the visible ends that it found when it was first started; it ends there too when it goes on from a checkpoint.
//!    A partition that the log has got since is read from its first record on, to the end that it has then.
//! 3. At the end of an unbounded log it asks again after [`LogSource::look_every`], with one block: so long nothing is read, and
//!    no thread is woken in between.
//! 4. The partitions are those of when the job was started. One that follows the log and finds that there are more by now stops, and
//!    reads them when it is started again: nothing is left out in silence.
//! 5. Where the job goes on from a checkpoint, that alone says where partitions begin: what else the source was told is not looked at.

use super::codec::Codec;
use super::history::{Block, History, Request, Then, Watched};
use crate::port::{Port, Ports};
use crate::source::{Emit, Position, Read, ReadError, Reader, Source};
use crate::time::{EventTime, Span};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks of a partition: one being used, the others being filled or waiting full.
const IN_FLIGHT: usize = 3;
/// Bytes decoded in one step, which keeps it well below 200 us.
const STEP_BYTES: usize = 64 << 10;
/// Lineage, partition, end.
const DETAIL: usize = 16 + 4 + 8;

/// The log in `folder`, from its oldest record on, for ever. `codec` makes records of its values.
///
/// The log may be written meanwhile, by this process or another ([`sink`](super::sink()), or [`pelton_storage::Log`]). Of a log whose durable
/// records are visible, the last ones are seen when more follow or its owner has marked them ([`pelton_storage::Log::mark`]).
pub fn source<T, C: Codec<T>>(folder: impl AsRef<Path>, codec: C) -> LogSource<T, C> {
    LogSource {
        folder: folder.as_ref().to_owned(),
        codec,
        from: From::Earliest,
        bounded: false,
        stops: false,
        look_ns: 2_000_000,
        record: PhantomData,
    }
}

#[derive(Clone, Debug)]
enum From {
    Earliest,
    Latest,
    Offsets(Vec<u64>),
    Time(EventTime),
}

/// See [`source`].
#[derive(Clone, Debug)]
pub struct LogSource<T, C> {
    folder: PathBuf,
    codec: C,
    from: From,
    bounded: bool,
    stops: bool,
    look_ns: u64,
    record: PhantomData<fn() -> T>,
}

impl<T, C> LogSource<T, C> {
    /// Begins behind the last record that is visible when the job starts. A job that goes on from a checkpoint goes on there, and reads
    /// partitions that were added since from their first record on.
    pub fn from_latest(mut self) -> Self {
        self.from = From::Latest;
        self
    }

    /// Begins at these offsets, one for each partition. A job that goes on from a checkpoint goes on there, and reads
    /// partitions that were added since from their first record on.
    pub fn from_offsets(mut self, offsets: impl Into<Vec<u64>>) -> Self {
        self.from = From::Offsets(offsets.into());
        self
    }

    /// Begins in each partition with the first record that arrived at this time or later; behind the last visible one if there is none yet.
    /// In a log that a job writes, arrival times are event times as far as they rise, so that is the first record with an event time at or
    /// after it; records behind it that are older come as well. A job that goes on from a checkpoint goes on there, and reads
    /// partitions that were added since from their first record on.
    ///
    /// Found when the job is built: a walk through one segment of a partition at most.
    pub fn from_time(mut self, time: EventTime) -> Self {
        self.from = From::Time(time);
        self
    }

    /// Ends behind the last record that is visible when the job is first started, instead of following the log.
    pub fn until_end(mut self) -> Self {
        self.bounded = true;
        self
    }

    /// A record that the codec refuses, or that has no valid event time, stops the job. Otherwise it is counted and sent to the dead letters.
    pub fn fail_on_malformed(mut self) -> Self {
        self.stops = true;
        self
    }

    /// How long after it has come to the end of the log it looks for more, at least 1 ms. Default: 2 ms.
    pub fn look_every(mut self, pause: Span) -> Self {
        let micros = u64::try_from(pause.micros()).unwrap_or(0);
        self.look_ns = micros.max(1_000).saturating_mul(1_000);
        self
    }
}

impl<T: Send + 'static, C: Codec<T>> Source for LogSource<T, C> {
    type Item = T;
    type Reader = LogPartition<T, C>;

    fn name(&self) -> String {
        self.folder.display().to_string()
    }

    fn may_fall_silent(&self) -> bool {
        !self.bounded
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Reader>, String> {
        let watched = Watched::open(self.folder.clone())?;
        let follower = watched.follower();
        let (lineage, count) = (follower.lineage(), follower.partitions());
        let bounds: Vec<_> = (0..count)
            .map(|p| (follower.view(p).start(), follower.view(p).end()))
            .collect();
        let watched = Arc::new(Mutex::new(watched));
        let mut partitions = Vec::with_capacity(bounds.len());
        for (number, (start, end)) in (0..).zip(bounds) {
            let (next, refused) = self.beginning(&watched, number, count, (start, end));
            if let Some(what) = &refused
                && !ports.checkpoints()
            {
                return Err(what.clone());
            }
            let opened = (!self.bounded).then_some(count);
            let mut history = History::new(watched.clone(), number, opened);
            let shard = ports.shard_of_partition(number as usize);
            let port = ports.port(shard, IN_FLIGHT, move |request| history.serve(request))?;
            partitions.push(LogPartition {
                name: number.to_string(),
                number,
                lineage: lineage.0,
                bounds: (start, end),
                until: self.bounded.then_some(end),
                next,
                refused,
                codec: self.codec.clone(),
                stops: self.stops,
                port,
                begun: false,
                idle: (0..IN_FLIGHT).map(|_| Block::new()).collect(),
                under_way: 0,
                block: None,
                look_ns: self.look_ns,
                look_at_ns: None,
                ended: false,
                record: PhantomData,
            });
        }
        Ok(partitions)
    }
}

impl<T, C> LogSource<T, C> {
    /// Where a partition with these bounds begins that nobody puts elsewhere, and what is wrong with that. What cannot be gone on from
    /// is beyond every end, so that a checkpoint of it is refused too.
    fn beginning(
        &self,
        watched: &Mutex<Watched>,
        number: u32,
        count: u32,
        (start, end): (u64, u64),
    ) -> (u64, Option<String>) {
        let offsets = match &self.from {
            From::Earliest => return (start, None),
            From::Latest => return (end, None),
            From::Time(time) => {
                let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
                return match watched.first_at(number, *time) {
                    Ok(offset) => (offset, None),
                    Err(what) => (u64::MAX, Some(format!("partition {number}: {what}"))),
                };
            }
            From::Offsets(offsets) => offsets,
        };
        if offsets.len() != count as usize {
            let what = format!(
                "{} offsets are given to begin at, and the log has {count} partitions; give one for each",
                offsets.len()
            );
            return (u64::MAX, Some(what));
        }
        let next = offsets[number as usize];
        let wrong = check(next, start, end).err();
        (
            next,
            wrong.map(|what| format!("partition {number}: {what}")),
        )
    }
}

/// Whether a partition can be read from `next` on.
fn check(next: u64, start: u64, end: u64) -> Result<(), String> {
    match next {
        n if n < start => Err(format!(
            "the record at offset {n} is no longer there: retention has removed those before {start}; begin there, or keep more"
        )),
        n if n > end => Err(format!(
            "there is no offset {n}: the log ends at {end}; put back the log that it was, or begin elsewhere"
        )),
        _ => Ok(()),
    }
}

/// A partition of [`LogSource`].
#[derive(Debug)]
pub struct LogPartition<T, C> {
    name: String,
    number: u32,
    lineage: [u8; 16],
    /// What was visible when it was opened.
    bounds: (u64, u64),
    until: Option<u64>,
    /// The first offset that has not been handed on.
    next: u64,
    /// Why it cannot begin there (law 5).
    refused: Option<String>,
    codec: C,
    stops: bool,
    port: Port<Request, Block>,
    /// The first block has been asked for.
    begun: bool,
    /// Blocks that nobody fills.
    idle: Vec<Block>,
    /// Blocks that are being filled, or wait full.
    under_way: usize,
    /// The one being used, and how many of its records have been.
    block: Option<(Block, usize)>,
    look_ns: u64,
    /// At the end of the log: when to look again (law 3).
    look_at_ns: Option<u64>,
    ended: bool,
    record: PhantomData<fn() -> T>,
}

impl<T, C: Codec<T>> LogPartition<T, C> {
    fn failed(&self, what: String) -> ReadError {
        ReadError {
            offset: self.next,
            line: None,
            what,
            malformed: false,
        }
    }

    /// Has at most `most` idle blocks filled.
    fn ask(&mut self, most: usize) {
        for _ in 0..most {
            let Some(block) = self.idle.pop() else {
                return;
            };
            let begin = (!self.begun).then_some((self.next, self.until));
            self.begun = true;
            // The port has room for all blocks, so it refuses only when its other side has gone; `take` says so then.
            if self.port.submit(Request { block, begin }).is_ok() {
                self.under_way += 1;
            }
        }
    }

    /// The next block, or what to answer until there is one.
    fn take(&mut self, now_ns: u64) -> Result<Option<Read>, ReadError> {
        match self.look_at_ns {
            None if !self.begun => self.ask(IN_FLIGHT),
            Some(at) if now_ns < at => {
                let until_ns = Some(at);
                return Ok(Some(Read::Pending { until_ns }));
            }
            Some(_) => {
                self.look_at_ns = None;
                self.ask(1);
            }
            None => {}
        }
        match self.port.take() {
            Some(block) => {
                self.under_way -= 1;
                self.block = Some((block, 0));
                Ok(None)
            }
            None if self.port.is_closed() => match self.port.take() {
                Some(block) => {
                    self.under_way -= 1;
                    self.block = Some((block, 0));
                    Ok(None)
                }
                None => Err(self.failed("the thread that reads logs has ended".into())),
            },
            None => Ok(Some(Read::Pending { until_ns: None })),
        }
    }

    /// A block has been used up; what to answer where that is the end for now.
    fn give_back(&mut self, block: Block, now_ns: u64) -> Option<Read> {
        let then = block.then;
        self.idle.push(block);
        match then {
            Then::More => self.ask(IN_FLIGHT),
            Then::Ended => {
                self.ended = true;
                return Some(Read::End);
            }
            Then::CaughtUp if self.under_way == 0 => {
                let at = now_ns.saturating_add(self.look_ns);
                self.look_at_ns = Some(at);
                return Some(Read::Pending { until_ns: Some(at) });
            }
            // One that was asked for before may have found more.
            Then::CaughtUp => {}
        }
        None
    }
}

impl<T: Send + 'static, C: Codec<T>> Reader for LogPartition<T, C> {
    type Item = T;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn stops_on_malformed(&self) -> bool {
        self.stops
    }

    fn position(&self) -> Option<Position> {
        let mut detail = Vec::with_capacity(DETAIL);
        detail.extend(self.lineage);
        detail.extend(self.number.to_le_bytes());
        detail.extend(self.until.unwrap_or(u64::MAX).to_le_bytes());
        Some(Position {
            offset: self.next,
            detail,
        })
    }

    fn seek(&mut self, position: &Position) -> Result<(), String> {
        let detail: Result<&[u8; DETAIL], _> = position.detail[..].try_into();
        let Ok(detail) = detail else {
            return Err("the checkpoint holds the position of another source; give the job the source that it had".into());
        };
        let (lineage, rest) = detail.split_at(16);
        let (number, until) = rest.split_at(4);
        if lineage != self.lineage || number != self.number.to_le_bytes() {
            return Err("another log lies in the folder now; put back the one that was read, or start the job without its checkpoints".into());
        }
        let (start, end) = self.bounds;
        check(position.offset, start, end)?;
        (self.next, self.refused) = (position.offset, None);
        // Law 2: the end that it had. One that had none and is bounded now ends at what is visible now.
        let until = until.try_into().map_or(u64::MAX, u64::from_le_bytes);
        if self.until.is_some() && until != u64::MAX {
            self.until = Some(until);
        }
        Ok(())
    }

    fn added(&mut self) -> Result<(), String> {
        (self.next, self.refused) = (self.bounds.0, None);
        Ok(())
    }

    /// A bounded one has read all that was visible when it was opened; what was read ahead is beyond that.
    fn is_through(&mut self) -> bool {
        let is_read = self.until.is_some_and(|until| self.next >= until);
        self.refused.is_none() && (self.ended || is_read)
    }

    fn read<E: Emit<T>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        if let Some(what) = &self.refused {
            return Err(self.failed(what.clone()));
        }
        self.ended |= self.is_through();
        if self.ended {
            return Ok(Read::End);
        }
        let (mut taken, mut bytes) = (0, 0);
        while taken < max && bytes < STEP_BYTES {
            if self.block.is_none()
                && let Some(nothing) = self.take(out.now_ns())?
            {
                return Ok(if taken > 0 { Read::More } else { nothing });
            }
            let Some((block, at)) = &mut self.block else {
                continue;
            };
            if let Some((offset, value)) = block.record(*at) {
                *at += 1;
                taken += 1;
                bytes += value.len();
                self.next = offset + 1;
                match self.codec.decode(value) {
                    Ok(record) => out.emit_from(offset, None, value, record)?,
                    Err(what) if self.stops => {
                        return Err(ReadError {
                            offset,
                            line: None,
                            what,
                            malformed: true,
                        });
                    }
                    Err(what) => out.malformed(offset, None, &what, value),
                }
            } else if let Some(what) = block.failure.take() {
                return Err(self.failed(what));
            } else if let Some((used, _)) = self.block.take()
                && let Some(nothing) = self.give_back(used, out.now_ns())
            {
                let is_last = nothing == Read::End || taken == 0;
                return Ok(if is_last { nothing } else { Read::More });
            }
        }
        Ok(Read::More)
    }
}
