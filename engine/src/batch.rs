//! A batch of records between two stages, and the frames that ride a ring.
//!
//! Laws
//! 1. `times` has one entry for each record. `origins` has one for each record, or none at all: an edge carries them
//!    only where a downstream operator breaks ties.
//! 2. `behind` is sparse and ascending by index: only records whose time lies below their own partition's watermark
//!    are in it, with that watermark. The common case costs nothing.
//! 3. A batch that is handed back to its producer is empty and keeps its capacity.

use crate::time::EventTime;

/// Where a record came from; ties of equal event time go by it. 24 bytes, carried only where it is needed.
///
/// The order is (source, partition, offset, emission). A derived record (a window's result) has its operator as the
/// source and its key's stable hash as the offset, so that it too has one place whatever the shard count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Number of the source (or of the operator that derived the record) within the job.
    pub source: u32,
    /// The source partition.
    pub partition: u32,
    /// Offset within the partition; what it counts is the source's business (a line's byte offset, an index).
    pub offset: u64,
    /// Which of the records made from that offset: 16 bits for each `flat_map` on the way, the outermost highest.
    pub emission: u64,
}

/// What a record carries besides itself on its way through a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its event time; [`EventTime::BEGINNING`] where none has been assigned.
    pub time: EventTime,
    /// V(r), if the record is behind it: the watermark of its own source partition just before it.
    pub behind: Option<EventTime>,
}

impl Stamp {
    /// Before an event time is assigned.
    pub const NONE: Stamp = Stamp {
        time: EventTime::BEGINNING,
        behind: None,
    };

    /// A record on time.
    #[inline(always)]
    pub fn at(time: EventTime) -> Self {
        Stamp { time, behind: None }
    }
}

/// One entry of the sparse list of behind records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Index into the batch.
    pub index: u32,
    /// V(r).
    pub watermark: EventTime,
}

/// Records with their times, as columns of equal length.
#[derive(Debug)]
pub struct Batch<T> {
    /// The records.
    pub records: Vec<T>,
    /// Their event times.
    pub times: Vec<EventTime>,
    /// Their origins, or empty (law 1).
    pub origins: Vec<Origin>,
    /// Those that are behind (law 2).
    pub behind: Vec<Behind>,
    /// Arrival of the oldest record, in the driver's nanoseconds.
    pub arrival_oldest_ns: u64,
    /// Arrival of the newest record, in the driver's nanoseconds.
    pub arrival_newest_ns: u64,
    /// Origin of the record last written to it: what is known of its records' positions where origins are not carried.
    pub last: Origin,
    /// When the producer's step published it, in the driver's nanoseconds.
    pub sent_ns: u64,
}

impl<T> Batch<T> {
    /// An empty batch with room for `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        Batch {
            records: Vec::with_capacity(capacity),
            times: Vec::with_capacity(capacity),
            origins: Vec::new(),
            behind: Vec::new(),
            arrival_oldest_ns: u64::MAX,
            arrival_newest_ns: 0,
            last: Origin::default(),
            sent_ns: 0,
        }
    }

    /// Number of records.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Appends a record.
    #[inline(always)]
    pub fn push(&mut self, record: T, stamp: Stamp) {
        if let Some(watermark) = stamp.behind {
            self.push_behind(watermark);
        }
        self.records.push(record);
        self.times.push(stamp.time);
    }

    #[cold]
    fn push_behind(&mut self, watermark: EventTime) {
        self.behind.push(Behind {
            index: self.records.len() as u32,
            watermark,
        });
    }

    /// Gives records without a time the one that says so: where no event time has been assigned (law 1).
    #[inline]
    pub(crate) fn fill_times(&mut self) {
        if self.times.len() < self.records.len() {
            self.times.resize(self.records.len(), EventTime::BEGINNING);
        }
    }

    /// The origin of record `index`; the default where the edge carries none.
    #[inline(always)]
    pub fn origin(&self, index: usize) -> Origin {
        self.origins.get(index).copied().unwrap_or_default()
    }

    /// Empties it and keeps the capacity (law 3).
    pub fn clear(&mut self) {
        self.records.clear();
        self.times.clear();
        self.origins.clear();
        self.behind.clear();
        self.arrival_oldest_ns = u64::MAX;
        self.arrival_newest_ns = 0;
    }

    /// Raises V(r) to `floor` for every record: what a channel that returns from idleness owes (SEMANTICS, time, 3).
    /// Records below the floor become behind. Cold: only until the channel's watermark has reached the floor.
    pub fn raise_floor(&mut self, floor: EventTime) {
        let before = std::mem::take(&mut self.behind);
        let mut old = before.iter().peekable();
        for (index, &time) in self.times.iter().enumerate() {
            let had = old
                .next_if(|b| b.index as usize == index)
                .map(|b| b.watermark);
            let watermark = had.map_or(floor, |v| v.max(floor));
            if time < watermark {
                self.behind.push(Behind {
                    index: index as u32,
                    watermark,
                });
            }
        }
    }

    /// Hands records out by value, in order, until `each` says stop; the rest stays, in order, with its times, origins
    /// and behind marks. `each` is asked after every record, and its answer is meant for *after* that record.
    #[inline]
    pub fn consume(&mut self, mut each: impl FnMut(T, Stamp, Origin) -> bool) {
        let total = self.records.len();
        let mut done = 0;
        let mut behind = 0;
        let mut records = self.records.drain(..);
        for record in records.by_ref() {
            let mut stamp = Stamp::at(self.times[done]);
            if let Some(b) = self.behind.get(behind)
                && b.index as usize == done
            {
                stamp.behind = Some(b.watermark);
                behind += 1;
            }
            let origin = self.origins.get(done).copied().unwrap_or_default();
            done += 1;
            if !each(record, stamp, origin) {
                break;
            }
        }
        if done == total {
            drop(records);
            self.clear();
            return;
        }
        // Rare: the stage's outputs are full. The rest moves to the front.
        let rest: Vec<T> = records.collect();
        self.records.extend(rest);
        self.times.drain(..done);
        if !self.origins.is_empty() {
            self.origins.drain(..done);
        }
        self.behind.drain(..behind);
        for b in &mut self.behind {
            b.index -= done as u32;
        }
    }
}

/// What rides a ring: one order for data and control.
#[derive(Debug)]
pub enum Frame<T> {
    /// Records.
    Batch(Box<Batch<T>>),
    /// Every record of this channel with a time below it has been sent.
    Watermark {
        /// The watermark.
        time: EventTime,
        /// Arrival of the record that moved it, in the driver's nanoseconds.
        arrival_ns: u64,
    },
    /// All source partitions behind this channel are silent: it no longer holds the watermark back.
    Idle {
        /// The silence has lasted so long that open windows are to close.
        close: bool,
    },
    /// Nothing more comes; the watermark before it was [`EventTime::END`].
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(n: usize) -> Batch<usize> {
        let mut b = Batch::with_capacity(4);
        for i in 0..n {
            let behind = (i % 3 == 1).then(|| EventTime::from_micros(100 + i as i64));
            b.push(
                i,
                Stamp {
                    time: EventTime::from_micros(i as i64),
                    behind,
                },
            );
        }
        b
    }

    #[test]
    fn consuming_in_parts_gives_the_same_as_at_once() {
        for stop in 0..12 {
            let (mut whole, mut parts) = (vec![], vec![]);
            batch(11).consume(|r, s, _| {
                whole.push((r, s));
                true
            });
            let mut b = batch(11);
            b.consume(|r, s, _| {
                parts.push((r, s));
                parts.len() <= stop
            });
            b.consume(|r, s, _| {
                parts.push((r, s));
                true
            });
            assert_eq!(whole, parts, "stopped after {stop}");
            assert!(b.is_empty() && b.behind.is_empty() && b.times.is_empty());
        }
    }

    #[test]
    fn a_floor_marks_what_lies_below_it() {
        let mut b = batch(6);
        b.raise_floor(EventTime::from_micros(3));
        let marks: Vec<_> = b
            .behind
            .iter()
            .map(|b| (b.index, b.watermark.micros()))
            .collect();
        assert_eq!(marks, [(0, 3), (1, 101), (2, 3), (4, 104)]);
    }
}
