//! An edge between two stages: one ring for each (producer shard, consumer shard), and one back for empty batches.
//!
//! Laws
//! 1. A lane's frames arrive in the order in which they were written; what does not fit the ring waits in `pending`
//!    and nothing overtakes it.
//! 2. A watermark goes to all lanes at the same point of the stream: whatever was written before it is sent before it.
//! 3. In steady state no batch is allocated: an emptied batch returns to its producer. The batches of a lane are at
//!    most (ring capacity + pending + 2), of the most that have ever been pending; of those at rest no more are kept than twice the
//!    ring's capacity.
//! 4. What another shard reads is never written record by record: its lines are in that core's cache, and each first write to
//!    one would wait for it. Records are gathered in a batch that stays here and handed over as a whole; the batch that has
//!    been away longest is used first. Within a shard the batch itself changes hands, the last one first: it is the
//!    likeliest to lie in the cache.

use crate::batch::{Batch, Frame, Stamp};
use crate::push::{Control, Cx};
use pelton_ring::{Consumer, Producer, PushError, ring};
use std::collections::VecDeque;

mod broadcast;
mod inbox;
mod links;

pub(crate) use broadcast::BroadcastLink;
pub(crate) use inbox::{Arrival, Inbox};
pub(crate) use links::{ByKeyLink, ForkLink, LocalLink, PartitionLink, RebalanceLink, SplitLink};

/// One producer's way to one consumer shard.
///
/// Lanes of all shards are made side by side, by the thread that builds the job, and each record writes to one: they must not
/// share a cache line (or the pair of lines that some processors fetch together).
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Lane<T> {
    /// The shard at the other end, for its doorbell.
    to: usize,
    /// That is another shard than this one (law 4).
    far: bool,
    /// Being filled; published when full or flushed. In place, since each record goes through it.
    open: Batch<T>,
    ring: Producer<Frame<T>>,
    /// Emptied batches on their way back.
    spare: Consumer<Box<Batch<T>>>,
    /// Those that have come back to a lane that is not far: the last one first, since it is the likeliest to lie in a cache.
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
        let mut full = self.emptied();
        if self.far {
            self.open.hand_over(&mut full);
        } else {
            std::mem::swap(&mut *full, &mut self.open);
        }
        full.sent_ns = cx.now_ns;
        full.last = cx.origin;
        full.arrival_newest_ns = cx.arrival_ns;
        full.arrival_oldest_ns = full.arrival_oldest_ns.min(cx.oldest_ns());
        cx.counters.records_out += full.len() as u64;
        self.send(Frame::Batch(full), cx);
    }

    /// A batch that has come back, or a new one (law 4).
    fn emptied(&mut self) -> Box<Batch<T>> {
        let back = if self.far {
            self.spare.pop().ok()
        } else {
            self.empty.extend(self.spare.drain(usize::MAX));
            self.empty.pop()
        };
        back.unwrap_or_else(|| Box::new(Batch::with_capacity(self.batch_size)))
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

    /// Sends a whole batch over lane `lane`, within the shard: the vectors change hands, nothing is copied.
    pub fn send_batch(&mut self, lane: usize, batch: &mut Batch<T>, cx: &mut Cx) {
        let lane = &mut self.lanes[lane];
        debug_assert!(!lane.far, "law 4");
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
        if let Control::PartitionPending { .. } | Control::PartitionWatermark { .. } = event {
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
                | Control::PartitionPending { .. }
                | Control::PartitionWatermark { .. } => {}
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
                far: from != to,
                open: Batch::with_capacity(config.batch_size),
                ring,
                spare,
                empty: Vec::with_capacity(if from == to { frames * 2 } else { 0 }),
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
