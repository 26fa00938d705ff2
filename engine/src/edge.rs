//! An edge between two stages: one ring for each (producer shard, consumer shard), and one back for empty batches.
//!
//! Laws
//! 1. A lane's frames arrive in the order in which they were written; what does not fit the ring waits in `pending`
//!    and nothing overtakes it.
//! 2. A watermark goes to all lanes at the same point of the stream: whatever was written before it is sent before it.
//! 3. In steady state no batch is allocated: an emptied batch returns to its producer. The batches of a lane are at
//!    most (ring capacity + pending + 2).

use crate::batch::{Batch, Frame, Origin, Stamp};
use crate::checkpoint::Cut;
use crate::push::{Control, Cx, Push};
use crate::time::EventTime;
use pelton_ring::{Consumer, Producer, PushError, ring};
use std::collections::VecDeque;

/// One producer's way to one consumer shard.
///
/// Lanes of all shards are made side by side, by the thread that builds the job, and each record writes to one: they must not
/// share a cache line (or the pair of lines that some processors fetch together).
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Lane<T> {
    /// The shard at the other end, for its doorbell.
    to: usize,
    /// Being filled; published when full or flushed. In place, since each record goes through it.
    open: Batch<T>,
    ring: Producer<Frame<T>>,
    /// Emptied batches on their way back.
    spare: Consumer<Box<Batch<T>>>,
    /// Those that have come back: the last one first, since it is the likeliest to lie in a cache.
    #[allow(clippy::vec_box, reason = "boxes are what rides the rings")]
    empty: Vec<Box<Batch<T>>>,
    /// Frames that did not fit (law 1).
    pending: VecDeque<Frame<T>>,
    /// Records a batch holds before it is published without a flush.
    batch_size: usize,
    /// The consumer has gone: frames are dropped, the job is ending.
    closed: bool,
}

impl<T> Lane<T> {
    #[inline(always)]
    fn add(&mut self, record: T, stamp: Stamp, origins: bool, cx: &mut Cx) {
        if origins {
            self.open.origins.push(cx.origin);
        }
        self.open.push(record, stamp);
        if self.open.len() >= self.batch_size {
            self.publish(cx);
        }
    }

    /// Sends what has been gathered.
    #[inline(never)]
    fn publish(&mut self, cx: &mut Cx) {
        if self.open.is_empty() {
            return;
        }
        self.empty.extend(self.spare.drain(usize::MAX));
        let next = match self.empty.pop() {
            Some(batch) => batch,
            None => Box::new(Batch::with_capacity(self.batch_size)),
        };
        let mut full = next;
        std::mem::swap(&mut *full, &mut self.open);
        full.sent_ns = cx.now_ns;
        full.last = cx.origin;
        full.arrival_newest_ns = cx.arrival_ns;
        full.arrival_oldest_ns = full.arrival_oldest_ns.min(cx.oldest_ns());
        cx.counters.records_out += full.len() as u64;
        self.send(Frame::Batch(full), cx);
    }

    fn send(&mut self, frame: Frame<T>, cx: &mut Cx) {
        if !self.pending.is_empty() {
            self.pending.push_back(frame);
            return;
        }
        match self.ring.push(frame) {
            Ok(()) => cx.published_to(self.to),
            Err(PushError::Full(frame)) => self.pending.push_back(frame),
            Err(PushError::Closed(_)) => self.closed = true,
        }
    }

    /// Tries what is pending; whether anything still is.
    fn retry(&mut self, cx: &mut Cx) -> bool {
        while let Some(frame) = self.pending.pop_front() {
            match self.ring.push(frame) {
                Ok(()) => cx.published_to(self.to),
                Err(PushError::Full(frame)) => {
                    self.pending.push_front(frame);
                    return true;
                }
                Err(PushError::Closed(_)) => {
                    self.closed = true;
                    self.pending.clear();
                }
            }
        }
        false
    }
}

/// A producer's end of an edge: a lane for each consumer shard.
#[derive(Debug)]
pub(crate) struct EdgeWriter<T> {
    lanes: Vec<Lane<T>>,
    /// Whether records carry their origins on this edge.
    origins: bool,
    /// Some lane has pending frames. Written here only.
    blocked: bool,
    /// The end has been sent: nobody looks at what follows.
    ended: bool,
}

impl<T> EdgeWriter<T> {
    /// Number of lanes.
    #[inline(always)]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Adds a record to lane `lane`.
    #[inline(always)]
    pub fn add(&mut self, lane: usize, record: T, stamp: Stamp, cx: &mut Cx) {
        let origins = self.origins;
        self.lanes[lane].add(record, stamp, origins, cx);
    }

    /// Sends a whole batch over lane `lane`: the vectors change hands, nothing is copied.
    pub fn send_batch(&mut self, lane: usize, batch: &mut Batch<T>, cx: &mut Cx) {
        let lane = &mut self.lanes[lane];
        lane.publish(cx);
        batch.fill_times();
        if !self.origins {
            batch.origins.clear();
        }
        cx.origin = cx.run_origin(cx.origin, (batch.len() as u64).saturating_sub(1));
        std::mem::swap(&mut lane.open, batch);
        lane.publish(cx);
    }

    /// Passes a control event to every lane (law 2).
    pub fn control(&mut self, event: Control, cx: &mut Cx) {
        if let Control::PartitionPending { .. } = event {
            return;
        }
        let mut blocked = false;
        for lane in &mut self.lanes {
            if !lane.pending.is_empty() {
                lane.retry(cx);
            }
            lane.publish(cx);
            match event {
                Control::Flush
                | Control::PartitionEnded { .. }
                | Control::PartitionPending { .. } => {}
                Control::Watermark(time) => lane.send(
                    Frame::Watermark {
                        time,
                        arrival_ns: cx.arrival_ns,
                    },
                    cx,
                ),
                Control::Idle { close } => lane.send(Frame::Idle { close }, cx),
                Control::Barrier(cut) if !self.ended => lane.send(Frame::Barrier(cut), cx),
                // An ended channel counts as aligned.
                Control::Barrier(_) => {}
                Control::End => lane.send(Frame::End, cx),
            }
            blocked |= !lane.pending.is_empty();
        }
        self.blocked = blocked;
        self.ended |= event == Control::End;
    }

    /// Whether frames are waiting for room.
    #[inline(always)]
    pub fn blocked(&self) -> bool {
        self.blocked || self.lanes.iter().any(|l| !l.pending.is_empty())
    }
}

/// One consumer's view of one producer. Aligned as [`Lane`] is.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Channel<T> {
    /// The shard at the other end, for its doorbell when room is made.
    from: usize,
    ring: Consumer<Frame<T>>,
    spare: Producer<Box<Batch<T>>>,
}

/// A consumer's end of an edge.
#[derive(Debug)]
pub(crate) struct EdgeReader<T> {
    pub channels: Vec<Channel<T>>,
}

impl<T> Channel<T> {
    /// The next frame, if there is one; `Err` when the producer is gone without an end.
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Frame<T>>, Gone> {
        match self.ring.pop() {
            Ok(frame) => Ok(Some(frame)),
            Err(pelton_ring::PopError::Empty) => Ok(None),
            Err(pelton_ring::PopError::Closed) => Err(Gone),
        }
    }

    /// Gives a used batch back to its producer (law 3).
    #[inline(always)]
    pub fn recycle(&mut self, mut batch: Box<Batch<T>>) {
        batch.clear();
        // Full: more batches are about than the ring back can hold, one too many; it is dropped.
        let _ = self.spare.push(batch);
    }
}

/// The producer of a channel went away without saying that it had ended.
#[derive(Debug)]
pub(crate) struct Gone;

/// Who is connected to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// Every shard to every shard.
    AllToAll,
    /// Every shard to itself.
    Local,
}

/// How an edge's rings are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeConfig {
    pub shards: usize,
    pub wiring: Wiring,
    /// Frames a ring holds.
    pub ring_capacity: usize,
    pub batch_size: usize,
    pub origins: bool,
}

/// The rings of an edge: the writers and the readers of all shards.
pub(crate) fn connect<T>(config: EdgeConfig) -> (Vec<EdgeWriter<T>>, Vec<EdgeReader<T>>) {
    let shards = config.shards;
    let mut writers: Vec<_> = (0..shards)
        .map(|_| EdgeWriter {
            lanes: vec![],
            origins: config.origins,
            blocked: false,
            ended: false,
        })
        .collect();
    let mut readers: Vec<_> = (0..shards)
        .map(|_| EdgeReader { channels: vec![] })
        .collect();
    let frames = config.ring_capacity.next_power_of_two().max(2);
    for (from, writer) in writers.iter_mut().enumerate() {
        for (to, reader) in readers.iter_mut().enumerate() {
            if config.wiring == Wiring::Local && from != to {
                continue;
            }
            let Ok((ring, frames_in)) = ring(frames) else {
                unreachable!("a power of two")
            };
            // Twice as long, since the open and the read batch are about as well.
            let Ok((spare_back, spare)) = pelton_ring::ring(frames * 2) else {
                unreachable!("a power of two")
            };
            writer.lanes.push(Lane {
                to,
                open: Batch::with_capacity(config.batch_size),
                ring,
                spare,
                empty: Vec::with_capacity(frames * 2),
                pending: VecDeque::new(),
                batch_size: config.batch_size,
                closed: false,
            });
            reader.channels.push(Channel {
                from,
                ring: frames_in,
                spare: spare_back,
            });
        }
    }
    (writers, readers)
}

/// The watermark that a channel has told so far, and whether it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelState {
    Active,
    /// Silent; `close` as its frame said.
    Idle {
        close: bool,
    },
    Ended,
}

/// Sends records to the shard of their key.
pub(crate) struct ByKeyLink<T, F> {
    pub writer: EdgeWriter<T>,
    pub key: F,
    pub space: crate::key::KeySpace,
    pub op: crate::push::OpId,
}

impl<T: 'static, F: crate::key::KeyOf<T>> Push<T> for ByKeyLink<T, F> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let origins = self.writer.origins;
        if let [only] = &mut self.writer.lanes[..] {
            return only.add(record, stamp, origins, cx);
        }
        let lane = crate::push::blame(self.op, || {
            self.key.with(&record, |k| self.space.shard_of(k))
        });
        self.writer.add(lane, record, stamp, cx);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        if self.writer.lanes.len() == 1 {
            return self.writer.send_batch(0, batch, cx);
        }
        // Not on the steady path: with several lanes no batches are gathered.
        batch.fill_times();
        let (first, carried) = (cx.origin, !batch.origins.is_empty());
        let mut index = 0;
        batch.consume(|record, stamp, origin| {
            cx.origin = if carried {
                origin
            } else {
                cx.run_origin(first, index)
            };
            index += 1;
            self.push(record, stamp, cx);
            true
        });
    }
    // With several lanes each record is copied to its lane in any case: best straight from where it is made.
    fn takes_batches(&self) -> bool {
        self.writer.lanes.len() == 1
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.writer.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}

/// Keeps records on their shard.
pub(crate) struct LocalLink<T> {
    pub writer: EdgeWriter<T>,
}

impl<T: 'static> Push<T> for LocalLink<T> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        self.writer.add(0, record, stamp, cx);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        self.writer.send_batch(0, batch, cx);
    }
    fn takes_batches(&self) -> bool {
        true
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.writer.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}

/// Spreads records evenly over all shards, a batch at a time.
pub(crate) struct RebalanceLink<T> {
    pub writer: EdgeWriter<T>,
    pub next: usize,
}

impl<T: 'static> Push<T> for RebalanceLink<T> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let lane = self.next;
        self.writer.add(lane, record, stamp, cx);
        if self.writer.lanes[lane].open.is_empty() {
            self.next = (lane + 1) % self.writer.lanes();
        }
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.writer.control(event, cx);
        self.next = (self.next + 1) % self.writer.lanes();
    }
    fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}

/// Gives each record to every edge: what a forked stream's consumers read. The branch is part of a record's origin, so
/// that ties are fixed where branches meet again.
pub(crate) struct ForkLink<T> {
    pub writers: Vec<EdgeWriter<T>>,
    pub op: crate::push::OpId,
}

impl<T: Clone + 'static> Push<T> for ForkLink<T> {
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let Some((last, others)) = self.writers.split_last_mut() else {
            return;
        };
        let parent = cx.origin.emission;
        for (branch, writer) in (0..).zip(others.iter_mut()) {
            let record = crate::push::blame(self.op, || record.clone());
            cx.origin.emission = Origin::below(parent, branch);
            writer.add(0, record, stamp, cx);
        }
        cx.origin.emission = Origin::below(parent, others.len() as u64);
        last.add(0, record, stamp, cx);
        cx.origin.emission = parent;
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        for writer in &mut self.writers {
            writer.control(event, cx);
        }
    }
    fn blocked(&self) -> bool {
        self.writers.iter().any(EdgeWriter::blocked)
    }
}

/// Gives each record to one of several local edges.
pub(crate) struct SplitLink<T, F> {
    pub writers: Vec<EdgeWriter<T>>,
    pub choose: F,
    pub op: crate::push::OpId,
}

impl<T: 'static, F: Fn(&T) -> usize> Push<T> for SplitLink<T, F> {
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        let to = crate::push::blame(self.op, || (self.choose)(&record));
        match self.writers.get_mut(to) {
            Some(writer) => writer.add(0, record, stamp, cx),
            None => {
                let outputs = self.writers.len();
                crate::push::blame(self.op, || panic!("split chose output {to} of {outputs}"));
            }
        }
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        for writer in &mut self.writers {
            writer.control(event, cx);
        }
    }
    fn blocked(&self) -> bool {
        self.writers.iter().any(EdgeWriter::blocked)
    }
}

/// The inbound rings of a stage on one shard: takes frames in turn and merges watermarks.
///
/// Laws
/// 1. Rings are drained in turn, one frame each: no producer can starve another.
/// 2. `merged` is the minimum over the channels that are neither idle nor ended, and never falls.
/// 3. A channel that returns from idleness owes `floor`: V(r) of its records is at least that (SEMANTICS, time, 3).
/// 4. Once a channel has handed over a barrier it is not read until all others have, or have ended: what is handed out before
///    [`Arrival::Barrier`] belongs to the barrier's epoch, what comes after it does not.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    channels: Vec<Channel<T>>,
    states: Vec<ChannelState>,
    watermarks: Vec<EventTime>,
    floors: Vec<EventTime>,
    /// The operator's watermark M.
    merged: EventTime,
    /// Where to look next (law 1).
    turn: usize,
    /// The idle event last told to the stage, so that it is told once.
    told_idle: Option<bool>,
    /// The barrier that some channels have handed over (law 4).
    aligning: Option<Cut>,
    /// Whether a channel has; all `false` while none is being aligned.
    aligned: Vec<bool>,
}

/// What an inbox hands to its stage.
#[derive(Debug)]
pub(crate) enum Arrival<T> {
    /// Records from channel `.0`; the batch goes back by [`Inbox::recycle`].
    Batch(usize, Box<Batch<T>>),
    /// M has risen.
    Watermark { time: EventTime, arrival_ns: u64 },
    /// All channels are idle or ended, at least one idle.
    Idle { close: bool },
    /// The barrier of this epoch, from every channel that has not ended.
    Barrier(Cut),
    /// All channels have ended.
    End,
    /// Frames were taken that change nothing here; there may be more behind them.
    Again,
    /// Every ring was looked at and is empty.
    Nothing,
}

impl<T> Inbox<T> {
    pub fn new(readers: Vec<EdgeReader<T>>) -> Self {
        let channels: Vec<_> = readers.into_iter().flat_map(|r| r.channels).collect();
        let n = channels.len();
        Inbox {
            channels,
            states: vec![ChannelState::Active; n],
            watermarks: vec![EventTime::BEGINNING; n],
            floors: vec![EventTime::BEGINNING; n],
            merged: EventTime::BEGINNING,
            turn: 0,
            told_idle: None,
            aligning: None,
            aligned: vec![false; n],
        }
    }

    /// The operator's watermark M.
    pub fn merged(&self) -> EventTime {
        self.merged
    }

    /// The operator itself moved its watermark (closing windows after idleness): M and later floors follow. That all are
    /// idle is told once more, so that it goes on to the next stage when the windows have closed.
    pub fn advance_to(&mut self, watermark: EventTime) {
        self.merged = self.merged.max(watermark);
        self.told_idle = None;
    }

    /// M is what a checkpoint had it at. It may lie above the V of a channel that was idle then, or closed by the rule: its
    /// records owe that floor now as they did before (law 3).
    pub fn restored(&mut self, watermark: EventTime) {
        self.merged = watermark;
        self.floors.fill(watermark);
    }

    /// The idle event last told, while all channels are idle.
    pub fn told_idle(&self) -> Option<bool> {
        self.told_idle
    }

    pub fn recycle(&mut self, channel: usize, batch: Box<Batch<T>>) {
        self.channels[channel].recycle(batch);
    }

    /// The next thing to do, looking at each ring at most once.
    ///
    /// A frame may say nothing new: the watermark of a channel that another one holds back. What lies behind it in the
    /// ring has been rung for already, so [`Arrival::Nothing`] is said only when no ring gave a frame.
    pub fn next(&mut self, cx: &mut Cx) -> Result<Arrival<T>, Gone> {
        if let Some(cut) = self.aligning
            && self.is_aligned()
        {
            self.aligning = None;
            self.aligned.fill(false);
            return Ok(Arrival::Barrier(cut));
        }
        let mut taken = false;
        for _ in 0..self.channels.len() {
            let at = self.turn;
            self.turn = if at + 1 == self.channels.len() {
                0
            } else {
                at + 1
            };
            if self.states[at] == ChannelState::Ended || self.aligned[at] {
                continue;
            }
            let frame = self.channels[at].next()?;
            if frame.is_some() {
                taken = true;
                // Room was made: a producer that waits for it is woken after this step.
                cx.published_to(self.channels[at].from);
            }
            match frame {
                None => {}
                Some(Frame::Batch(mut batch)) => {
                    self.wake(at);
                    if self.floors[at] > self.watermarks[at] {
                        batch.raise_floor(self.floors[at]);
                    }
                    return Ok(Arrival::Batch(at, batch));
                }
                Some(Frame::Watermark { time, arrival_ns }) => {
                    self.wake(at);
                    self.watermarks[at] = self.watermarks[at].max(time);
                    if let Some(time) = self.merge() {
                        return Ok(Arrival::Watermark { time, arrival_ns });
                    }
                }
                Some(Frame::Idle { close }) => {
                    self.states[at] = ChannelState::Idle { close };
                    if let Some(time) = self.merge() {
                        return Ok(Arrival::Watermark {
                            time,
                            arrival_ns: 0,
                        });
                    }
                    if let Some(idle) = self.all_idle() {
                        return Ok(idle);
                    }
                }
                Some(Frame::Barrier(cut)) => {
                    debug_assert!(self.aligning.is_none_or(|c| c == cut), "one at a time");
                    self.aligning = Some(cut);
                    self.aligned[at] = true;
                }
                Some(Frame::End) => {
                    self.states[at] = ChannelState::Ended;
                    if self.states.iter().all(|s| *s == ChannelState::Ended) {
                        return Ok(Arrival::End);
                    }
                    if let Some(time) = self.merge() {
                        return Ok(Arrival::Watermark {
                            time,
                            arrival_ns: 0,
                        });
                    }
                    if let Some(idle) = self.all_idle() {
                        return Ok(idle);
                    }
                }
            }
        }
        if taken {
            return Ok(Arrival::Again);
        }
        // A merge on idleness may have hidden that all are idle; say it once the rings are quiet.
        Ok(self.all_idle().unwrap_or(Arrival::Nothing))
    }

    /// Whether every channel has handed over the barrier or ended (law 4).
    fn is_aligned(&self) -> bool {
        let mut channels = self.states.iter().zip(&self.aligned);
        channels.all(|(state, aligned)| *aligned || *state == ChannelState::Ended)
    }

    /// A frame came over channel `at`: if it was idle it is active again and owes the floor (law 3).
    fn wake(&mut self, at: usize) {
        if let ChannelState::Idle { .. } = self.states[at] {
            self.states[at] = ChannelState::Active;
            self.floors[at] = self.floors[at].max(self.merged);
            self.told_idle = None;
        }
    }

    /// Recomputes M (law 2); the new value if it rose.
    fn merge(&mut self) -> Option<EventTime> {
        let mut low = EventTime::END;
        let mut any = false;
        for (state, (&told, &floor)) in self
            .states
            .iter()
            .zip(self.watermarks.iter().zip(&self.floors))
        {
            match state {
                // One that has told the end of time has ended but for the frame that says so. It must not carry M to the
                // end over channels that are only idle: what these say later would be late.
                ChannelState::Active if told < EventTime::END => {
                    any = true;
                    low = low.min(told.max(floor));
                }
                ChannelState::Active | ChannelState::Ended => {}
                ChannelState::Idle { .. } => {}
            }
        }
        // All idle: M stays where it is until someone speaks or the windows are closed by the rule. All ended: END.
        if !any
            && self
                .states
                .iter()
                .any(|s| matches!(s, ChannelState::Idle { .. }))
        {
            low = self.idle_watermark();
        }
        if low > self.merged {
            self.merged = low;
            return Some(low);
        }
        None
    }

    /// With every live channel idle, the furthest that any of them had told: their silence holds nothing back.
    fn idle_watermark(&self) -> EventTime {
        let told = self
            .states
            .iter()
            .zip(&self.watermarks)
            .filter(|(s, _)| matches!(s, ChannelState::Idle { .. }));
        told.map(|(_, &w)| w).max().unwrap_or(EventTime::BEGINNING)
    }

    fn all_idle<U>(&mut self) -> Option<Arrival<U>> {
        let mut close = true;
        let mut idle = false;
        for state in &self.states {
            match state {
                ChannelState::Active => return None,
                ChannelState::Idle { close: c } => {
                    idle = true;
                    close &= c;
                }
                ChannelState::Ended => {}
            }
        }
        if !idle || self.told_idle == Some(close) {
            return None;
        }
        self.told_idle = Some(close);
        Some(Arrival::Idle { close })
    }
}
