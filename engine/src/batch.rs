//! A batch of records between two stages, and the frames that ride a ring.
//!
//! Laws
//! 1. `times` has one entry for each record. `origins` has one for each record, or none at all: an edge carries them
//!    only where a downstream operator breaks ties.
//! 2. `behind` is sparse and ascending by index: only records whose time lies below their own partition's watermark
//!    are in it, with that watermark. The common case costs nothing.
//! 3. A batch that is handed back to its producer is empty and keeps its capacity.

use crate::checkpoint::Cut;
use crate::push::OpId;
use crate::time::EventTime;
use pelton_ring::hand_over;
use std::collections::VecDeque;

/// Where a record came from; ties of equal event time go by it. 24 bytes, carried only where it is needed.
///
/// The order is (source, partition, offset, emission). A derived record (a window's result) has its operator as the
/// source and its key's stable hash as the offset, so that it too has one place whatever the shard count.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Number of the source (or of the operator that derived the record) within the job.
    pub source: u32,
    /// The source partition.
    pub partition: u32,
    /// Offset within the partition; what it counts is the source's business (a line's byte offset, an index).
    pub offset: u64,
    /// Which of the records made from that offset: a path of numbers from 1 up, the outermost in the highest bytes, of the
    /// branches of forks and the records of `flat_map`s on the way. 0 is the record as it was read.
    pub emission: u64,
}

impl Origin {
    /// The partition, as dead letters and errors say it. A derived record has none: its offset is a number that tells it from others.
    #[cold]
    pub(crate) fn partition_name(&self) -> String {
        match self.source >> 31 {
            0 => self.partition.to_string(),
            _ => format!("none: made by operator {}", self.source & (u32::MAX >> 1)),
        }
    }

    /// Which record it is, for errors.
    #[cold]
    pub(crate) fn describe(&self) -> String {
        match self.source >> 31 {
            0 => format!(
                "source {}, partition {}, offset {}",
                self.source, self.partition, self.offset
            ),
            _ => format!(
                "no place in a source: made by operator {}, with the number {}",
                self.source & (u32::MAX >> 1),
                self.offset
            ),
        }
    }

    /// The origin of a record that operator `op` derived for the key with this stable hash.
    #[inline(always)]
    pub(crate) fn derived(op: OpId, key_hash: u64) -> Origin {
        Origin {
            source: op.0 | 1 << 31,
            partition: 0,
            offset: key_hash,
            emission: 0,
        }
    }

    /// The emission of child `index` of a record whose emission is `parent`, for what makes several records of one: a
    /// `flat_map` numbers its records, a fork its branches.
    ///
    /// An emission is a path of numbers from 1 up, the outermost in the highest bytes; 0 is the record as it was read. No
    /// byte of a number is 0, so a path's end is seen, and of all the records made of one no two are equal:
    ///
    /// ```text
    /// source -> fork -> branch 0 -> flat_map -> 1.1, 1.2, 1.3, ..
    ///             \---> branch 1 .................. 2
    /// ```
    ///
    /// The order is that of the numbers, a record before those made of it. A number below 128 takes a byte, so a path has up
    /// to eight of them; one below 16,448 two, and so on up to all eight: what a first `flat_map` makes is always
    /// numbered. What does not fit becomes a hash of path and index: no order, but one that is the same in every run.
    #[inline]
    pub(crate) fn below(parent: u64, index: u64) -> u64 {
        let free = parent.trailing_zeros() & !7;
        if index < 0x7F && free > 0 {
            parent | (index + 1) << (free - 8)
        } else {
            Self::below_far(parent, free, index)
        }
    }

    #[cold]
    fn below_far(parent: u64, free: u32, index: u64) -> u64 {
        // First byte: how many digits follow, and the highest digit; the others are digits of base 255, from 1 up.
        const FIRST: [(u64, u64); 7] = [
            (0x80, 64),
            (0xC0, 32),
            (0xE0, 16),
            (0xF0, 8),
            (0xF8, 2),
            (0xFA, 2),
            (0xFC, 3),
        ];
        let mut rest = index.saturating_sub(0x7F);
        for (more, &(first, places)) in FIRST.iter().enumerate() {
            let more = more as u32 + 1;
            let holds = 255u64.pow(more) * places;
            if free < 8 * (more + 1) {
                break;
            }
            if rest >= holds {
                rest -= holds;
                continue;
            }
            let mut path = parent;
            for digit in 0..more {
                path |= (rest % 255 + 1) << (free - 8 * (more + 1) + 8 * digit);
                rest /= 255;
            }
            return path | (first + rest) << (free - 8);
        }
        const HASHED: u64 = 0xFF << 56;
        let mut hash = parent;
        for word in [index, 0x9E37_79B9_7F4A_7C15] {
            // The finish of splitmix64 (Steele, Lea, Flood, 2014).
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ word;
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            hash ^= hash >> 31;
        }
        HASHED | hash >> 8
    }
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

    /// Moves all of it into an empty batch that another core will read, and keeps the capacity.
    pub(crate) fn hand_over(&mut self, to: &mut Batch<T>) {
        debug_assert!(
            to.is_empty() && to.behind.is_empty(),
            "a batch comes back empty"
        );
        hand_over(&mut self.records, &mut to.records);
        hand_over(&mut self.times, &mut to.times);
        hand_over(&mut self.origins, &mut to.origins);
        hand_over(&mut self.behind, &mut to.behind);
        to.arrival_oldest_ns = self.arrival_oldest_ns;
        to.arrival_newest_ns = self.arrival_newest_ns;
        to.last = self.last;
        to.sent_ns = self.sent_ns;
        self.clear();
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

    /// Turns the order round: so the records are taken one by one by [`Batch::pop`], O(1) each however many are left, and nothing is moved or
    /// allocated for those.
    pub(crate) fn reverse(&mut self) {
        self.records.reverse();
        self.times.reverse();
        self.origins.reverse();
        self.behind.reverse();
        let last = (self.records.len() as u32).wrapping_sub(1);
        for b in &mut self.behind {
            b.index = last - b.index;
        }
    }

    /// Takes the last record.
    pub(crate) fn pop(&mut self) -> Option<(T, Stamp, Origin)> {
        let record = self.records.pop()?;
        let mut stamp = Stamp::at(self.times.pop()?);
        let index = self.records.len() as u32;
        if let Some(b) = self.behind.pop_if(|b| b.index == index) {
            stamp.behind = Some(b.watermark);
        }
        Some((record, stamp, self.origins.pop().unwrap_or_default()))
    }

    /// Takes the records out, to be taken one by one from the front; what is left of them must come back by [`Batch::give_back`]. Times, origins
    /// and behind marks stay, by the places that the records had. O(1).
    pub(crate) fn take_records(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.records).into()
    }

    /// Puts back the last of the records that were taken out: the batch is these and no others. The capacity is kept.
    pub(crate) fn give_back(&mut self, rest: VecDeque<T>) {
        let done = self.times.len() - rest.len();
        self.records = rest.into();
        if self.records.is_empty() {
            return self.clear();
        }
        self.times.drain(..done);
        if !self.origins.is_empty() {
            self.origins.drain(..done);
        }
        let behind = self.behind.partition_point(|b| (b.index as usize) < done);
        self.behind.drain(..behind);
        for b in &mut self.behind {
            b.index -= done as u32;
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
    /// What came before it belongs to this epoch, what comes after it to a later one.
    Barrier(Cut),
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

    /// Turned round, whatever is left stays where it is, and its place in memory with it.
    #[test]
    fn popping_gives_the_same_as_consuming() {
        for length in 0..12 {
            let (mut consumed, mut popped) = (vec![], vec![]);
            batch(length).consume(|r, s, o| {
                consumed.push((r, s, o));
                true
            });
            let mut b = batch(length);
            let place = b.records.as_ptr();
            b.reverse();
            while let Some(of) = b.pop() {
                popped.push(of);
                assert_eq!(b.records.as_ptr(), place);
                assert_eq!(b.len(), length - popped.len());
            }
            assert_eq!(popped, consumed);
            assert!(b.is_empty() && b.times.is_empty() && b.behind.is_empty());
        }
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
            let mut b = batch(11);
            let mut records = b.take_records();
            records.drain(..stop.min(11));
            b.give_back(records);
            let mut rest = vec![];
            b.consume(|r, s, _| {
                rest.push((r, s));
                true
            });
            assert_eq!(rest, whole[stop.min(11)..], "taken out up to {stop}");
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

    /// Two of the records made of one are never taken for one another, whatever made them.
    #[test]
    fn emissions_of_one_record_differ_and_keep_their_order() {
        let mut all = std::collections::BTreeSet::new();
        let mut level = vec![0];
        for depth in 0..6 {
            let children = |&parent: &u64| [0, 1, 2, 70_000].map(|i| Origin::below(parent, i));
            level = level.iter().flat_map(children).collect();
            assert!(
                level.iter().all(|&e| e != 0 && all.insert(e)),
                "depth {depth}"
            );
        }
        // Within one parent they ascend, whatever the number of bytes.
        let deep = (0..5).fold(0, |parent, _| Origin::below(parent, 0));
        for parent in [0, Origin::below(0, 126), Origin::below(0, 200), deep] {
            let made: Vec<_> = (0..300_000).map(|i| Origin::below(parent, i)).collect();
            assert!(made.is_sorted_by(|a, b| a < b), "{parent:x}");
            assert!(parent < made[0]);
        }
        let far: Vec<_> = (0..64).map(|i| Origin::below(0, 1 << i)).collect();
        assert!(far[..57].is_sorted_by(|a, b| a < b));
        // Eight operators that make one of one, and then several, still leave them in order.
        let seven = (0..7).fold(Origin::below(0, 5), |parent, n| {
            let next = Origin::below(parent, u64::from(n == 6) * 2);
            assert!(parent < next && next < Origin::below(0, 6));
            next
        });
        assert_eq!(seven.to_be_bytes(), [6, 1, 1, 1, 1, 1, 1, 3]);
    }
}
