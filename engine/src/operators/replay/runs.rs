//! Records in ascending runs: what one partition or lane brings in order, or a batch that was sorted.
//!
//! Laws
//! 1. A run ascends by (time, rank, origin, number). Records are added to its end and leave from its front, so they lie as columns in
//!    pages, come and go in bulk, and stay in their places.
//! 2. The fronts of all runs that hold something are in a heap. The least run gives records as long as they lie below all other
//!    fronts, and only then is the heap touched.
//! 3. A new batch goes to the run whose last record is the greatest that does not lie above it. [`OPEN`] runs can be added to; a batch of
//!    [`LARGE`] that fits none of them begins one and closes that with the greatest end, and a smaller one is not taken.
//! 4. A page that has been emptied is used again. A run that can wait long with few records (closed, or too many are open) is given
//!    up ([`Runs::is_thin`]), so that a record years ahead of its time does not hold a page: nothing has more than four pages' room for a
//!    page's records, besides the open runs.

use super::loose::Held;
use super::{Rank, Seen, Tie};
use crate::batch::{Batch, Behind, Origin, Stamp};
use crate::budget::Size;
use crate::time::EventTime;
use std::collections::VecDeque;

/// Records of a page.
pub(super) const PAGE: usize = if cfg!(test) { 8 } else { 128 };
/// Pages of a shelf: shelves never move, so nothing is copied when there are more.
const SHELF: usize = 1024;
/// Runs that may be added to.
const OPEN: usize = if cfg!(test) { 3 } else { 32 };
/// Records of a batch that is worth a run of its own, whatever there is.
const LARGE: usize = 2 * PAGE;
/// A run with as few as this may be given up.
const THIN: usize = PAGE / 4;
/// Records that are moved one by one: a copy of columns costs more than these.
const FEW: usize = if cfg!(test) { 3 } else { 8 };
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Page<T> {
    records: VecDeque<T>,
    times: Vec<EventTime>,
    origins: Vec<Origin>,
    numbers: Vec<u64>,
    /// By places in the page.
    behind: Vec<Behind>,
    /// Records that have left, and their marks.
    gone: usize,
    gone_behind: usize,
    /// The next page of the run.
    next: u32,
}

impl<T> Page<T> {
    fn new() -> Self {
        Page {
            records: VecDeque::new(),
            times: vec![],
            origins: vec![],
            numbers: vec![],
            behind: vec![],
            gone: 0,
            gone_behind: 0,
            next: NONE,
        }
    }

    /// Makes it new, and keeps the capacity.
    fn clear(&mut self) {
        debug_assert!(self.records.is_empty());
        self.records.clear();
        self.times.clear();
        self.origins.clear();
        self.numbers.clear();
        self.behind.clear();
        (self.gone, self.gone_behind, self.next) = (0, 0, NONE);
    }

    fn tie(&self, place: usize, rank: Rank<T>) -> Tie {
        let rank = rank.map_or(0, |rank| rank(&self.records[place - self.gone]));
        (rank, self.origins[place], self.numbers[place])
    }

    fn seen(&self, place: usize) -> Option<Seen<'_, T>> {
        let record = self.records.get(place.checked_sub(self.gone)?)?;
        let behind = self
            .behind
            .binary_search_by_key(&(place as u32), |b| b.index);
        Some(Seen {
            record,
            origin: self.origins[place],
            stamp: Stamp {
                time: self.times[place],
                behind: behind.ok().map(|at| self.behind[at].watermark),
            },
            number: self.numbers[place],
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// Its last page.
    last: u32,
    len: usize,
    is_open: bool,
}

/// A run that holds something, by its first record.
#[derive(Clone, Copy, Debug)]
struct Front {
    time: EventTime,
    run: u32,
    page: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Runs<T> {
    shelves: Vec<Vec<Page<T>>>,
    free_pages: Vec<u32>,
    runs: Vec<Run>,
    free_runs: Vec<u32>,
    /// A two-way heap (law 2).
    fronts: Vec<Front>,
    /// Runs that may be added to, with the times of their last records.
    open: Vec<(EventTime, u32)>,
    len: usize,
    rank: Rank<T>,
    /// While a batch is added: the pages that have a part of it, and where in the batch it begins.
    filled: Vec<(u32, usize)>,
}

impl<T> Runs<T> {
    pub fn ranked(rank: Rank<T>) -> Self {
        Runs {
            shelves: vec![],
            free_pages: vec![],
            runs: vec![],
            free_runs: vec![],
            fronts: vec![],
            open: Vec::with_capacity(OPEN),
            len: 0,
            rank,
            filled: vec![],
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn size(&self) -> Size {
        Size::of::<T>(self.len, size_of::<(EventTime, Origin, u64)>())
    }

    /// Places are below this.
    pub fn place_end(&self) -> u32 {
        let Some(last) = self.shelves.last() else {
            return 0;
        };
        let full = (self.shelves.len() - 1) * SHELF + last.len() - 1;
        (full * PAGE) as u32 + last.last().map_or(0, |page| page.times.len()) as u32
    }

    /// The record in a place.
    pub fn seen(&self, place: u32) -> Option<Seen<'_, T>> {
        let page = place as usize / PAGE;
        let page = self.shelves.get(page / SHELF)?.get(page % SHELF)?;
        page.seen(place as usize % PAGE)
    }

    /// Pages there are.
    #[cfg(test)]
    pub fn pages(&self) -> usize {
        self.shelves.iter().map(Vec::len).sum()
    }

    /// Runs that hold something.
    #[cfg(test)]
    pub fn runs(&self) -> usize {
        self.fronts.len()
    }

    #[inline(always)]
    fn page(&self, page: u32) -> &Page<T> {
        &self.shelves[page as usize / SHELF][page as usize % SHELF]
    }

    #[inline(always)]
    fn page_mut(&mut self, page: u32) -> &mut Page<T> {
        &mut self.shelves[page as usize / SHELF][page as usize % SHELF]
    }

    fn new_page(&mut self) -> u32 {
        if let Some(page) = self.free_pages.pop() {
            return page;
        }
        if self.shelves.last().is_none_or(|s| s.len() == SHELF) {
            let first = self.shelves.is_empty();
            self.shelves
                .push(Vec::with_capacity(if first { 4 } else { SHELF }));
        }
        let shelf = self.shelves.len() - 1;
        self.shelves[shelf].push(Page::new());
        let page = shelf * SHELF + self.shelves[shelf].len() - 1;
        assert!(
            page * PAGE < (NONE >> 1) as usize - PAGE,
            "at most 2^31 records wait on a shard"
        );
        page as u32
    }

    #[inline(always)]
    fn front_tie(&self, front: Front) -> Tie {
        let page = self.page(front.page);
        page.tie(page.gone, self.rank)
    }

    #[inline(always)]
    fn before(&self, a: Front, b: Front) -> bool {
        a.time < b.time || (a.time == b.time && self.front_tie(a) < self.front_tie(b))
    }

    /// The time of the least record.
    #[inline(always)]
    pub fn first(&self) -> Option<EventTime> {
        self.fronts.first().map(|front| front.time)
    }

    /// What decides where times are equal, of the least record.
    pub fn first_tie(&self) -> Tie {
        self.front_tie(self.fronts[0])
    }

    /// The place of the least record, and how many there lie one behind another of which all but that one lie below `below` and
    /// all other fronts: not more than `most`.
    #[inline(always)]
    pub fn stretch(&self, below: EventTime, most: usize) -> (u32, usize) {
        let front = self.fronts[0];
        let below = match *self.fronts {
            [_, left, right, ..] => below.min(left.time).min(right.time),
            [_, other] => below.min(other.time),
            _ => below,
        };
        let page = self.page(front.page);
        let times = &page.times[page.gone + 1..];
        let times = &times[..times.len().min(most - 1)];
        let more = times.iter().take_while(|&&time| time < below).count();
        let place = front.page as usize * PAGE + page.gone;
        (place as u32, 1 + more)
    }

    /// Moves the least `count` records of the least run to `to`; they are one stretch of records below `below`. Whether what is left of the
    /// run is to be given up, by [`Runs::loosen`] and before anything else is asked (law 4).
    #[inline(always)]
    #[must_use]
    pub fn take(&mut self, below: EventTime, count: usize, to: &mut Batch<T>) -> bool {
        let front = self.fronts[0];
        let page = &mut self.shelves[front.page as usize / SHELF][front.page as usize % SHELF];
        let (from, end) = (page.gone, page.gone + count);
        if page.gone_behind < page.behind.len() {
            let left = &page.behind[page.gone_behind..];
            let marks = left.partition_point(|b| (b.index as usize) < end);
            page.gone_behind += marks;
            let shift = to.records.len() as u32;
            to.behind.extend(left[..marks].iter().map(|b| Behind {
                index: b.index - from as u32 + shift,
                ..*b
            }));
        }
        if count == page.records.len() && count >= FEW {
            // As vectors, which is O(1), one copy takes all of them.
            let mut records = Vec::from(std::mem::take(&mut page.records));
            to.records.append(&mut records);
            page.records = records.into();
        } else {
            let records = &mut page.records;
            to.records
                .extend((0..count).map(|_| match records.pop_front() {
                    Some(record) => record,
                    None => unreachable!("a stretch lies within its page"),
                }));
        }
        if count < FEW {
            for place in from..end {
                to.times.push(page.times[place]);
                to.origins.push(page.origins[place]);
            }
        } else {
            to.times.extend_from_slice(&page.times[from..end]);
            to.origins.extend_from_slice(&page.origins[from..end]);
        }
        page.gone = end;
        let Some(front) = self.advance(front, count) else {
            return false;
        };
        if front.time >= below && self.is_thin(front.run) {
            self.fronts[0] = front;
            return true;
        }
        self.sink(front);
        false
    }

    /// The first `count` records of the first run have left their page: its new front, if it has one.
    #[inline(always)]
    fn advance(&mut self, mut front: Front, count: usize) -> Option<Front> {
        self.len -= count;
        self.runs[front.run as usize].len -= count;
        let page = self.page(front.page);
        if page.gone < page.times.len() {
            front.time = page.times[page.gone];
            return Some(front);
        }
        let next = page.next;
        self.page_mut(front.page).clear();
        self.free_pages.push(front.page);
        if next == NONE {
            self.end(front.run);
            return None;
        }
        front.page = next;
        front.time = self.page(next).times[0];
        Some(front)
    }

    /// Law 4.
    #[inline(always)]
    fn is_thin(&self, run: u32) -> bool {
        let Run { len, is_open, .. } = self.runs[run as usize];
        len <= THIN && (!is_open || self.open.len() == OPEN)
    }

    /// The place of the next record of the run that is given up.
    pub fn thin_place(&self) -> u32 {
        let front = self.fronts[0];
        front.page * PAGE as u32 + self.page(front.page).gone as u32
    }

    /// Takes it out; whether it was the last one.
    pub fn loosen(&mut self) -> Option<(Held<T>, bool)> {
        let front = self.fronts[0];
        let page = self.page_mut(front.page);
        let Seen {
            origin,
            stamp,
            number,
            ..
        } = page.seen(page.gone)?;
        let held = Held {
            record: page.records.pop_front()?,
            origin,
            stamp,
            number,
        };
        page.gone += 1;
        let more = self.advance(front, 1);
        if let Some(front) = more {
            self.fronts[0] = front;
        }
        Some((held, more.is_none()))
    }

    /// The first run has nothing left.
    fn end(&mut self, run: u32) {
        debug_assert_eq!(self.runs[run as usize].len, 0);
        if self.runs[run as usize].is_open {
            self.open.retain(|open| open.1 != run);
        }
        self.free_runs.push(run);
        if let Some(last) = self.fronts.pop()
            && !self.fronts.is_empty()
        {
            self.sink(last);
        }
    }

    /// Puts `front` in for the first one.
    #[inline(always)]
    fn sink(&mut self, front: Front) {
        let (mut at, end) = (0, self.fronts.len());
        loop {
            let mut child = 2 * at + 1;
            if child >= end {
                break;
            }
            if child + 1 < end && self.before(self.fronts[child + 1], self.fronts[child]) {
                child += 1;
            }
            if !self.before(self.fronts[child], front) {
                break;
            }
            self.fronts[at] = self.fronts[child];
            at = child;
        }
        self.fronts[at] = front;
    }

    fn rise(&mut self, front: Front) {
        let mut at = self.fronts.len();
        self.fronts.push(front);
        while at > 0 && self.before(front, self.fronts[(at - 1) / 2]) {
            self.fronts[at] = self.fronts[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        self.fronts[at] = front;
    }

    /// Law 3: the open run for what ascends from this batch's first record, if there is one.
    fn fitting(&self, batch: &Batch<T>, number: u64) -> Option<usize> {
        let time = batch.times[0];
        let fits = |&(_, &(tail, run)): &(usize, &(EventTime, u32))| {
            tail < time || (tail == time && self.last_tie(run) < tie(batch, 0, number, self.rank))
        };
        let open = self.open.iter().enumerate().filter(fits);
        open.max_by_key(|(_, open)| open.0).map(|(at, _)| at)
    }

    fn last_tie(&self, run: u32) -> Tie {
        let page = self.page(self.runs[run as usize].last);
        page.tie(page.times.len() - 1, self.rank)
    }

    /// Takes the records of a batch that ascend, by (time, rank, origin) and their numbers; tells the place of each, in order. `false`: law 3.
    pub fn take_in(
        &mut self,
        batch: &mut Batch<T>,
        numbers: &[u64],
        mut came: impl FnMut(u32),
    ) -> bool {
        let Some((&time, &number)) = batch.times.first().zip(numbers.first()) else {
            return true;
        };
        let fitting = self.fitting(batch, number);
        if fitting.is_none() && self.open.len() == OPEN {
            if batch.len() < LARGE {
                return false;
            }
            let greatest = (0..OPEN).max_by_key(|&at| self.open[at].0).unwrap_or(0);
            let (_, closed) = self.open.swap_remove(greatest);
            self.runs[closed as usize].is_open = false;
        }
        let (at, page) = match fitting {
            Some(at) => (at, None),
            None => (self.open.len(), Some(self.begin(time))),
        };
        let run = self.open[at].1;
        self.open[at].0 = batch.times[batch.len() - 1];
        self.fill(run, batch, numbers, &mut came);
        if let Some(page) = page {
            self.rise(Front { time, run, page });
        }
        true
    }

    /// A run that can be added to; its first page.
    fn begin(&mut self, time: EventTime) -> u32 {
        let page = self.new_page();
        let run = Run {
            last: page,
            len: 0,
            is_open: true,
        };
        let number = match self.free_runs.pop() {
            Some(number) => number,
            None => {
                self.runs.push(run);
                self.runs.len() as u32 - 1
            }
        };
        self.runs[number as usize] = run;
        self.open.push((time, number));
        page
    }

    /// Adds all of a batch to a run, which leaves it empty.
    fn fill(
        &mut self,
        run: u32,
        batch: &mut Batch<T>,
        numbers: &[u64],
        came: &mut impl FnMut(u32),
    ) {
        let (mut from, end) = (0, batch.times.len());
        let mut behind = batch.behind.iter().peekable();
        while from < end {
            let mut number = self.runs[run as usize].last;
            if self.page(number).times.len() == PAGE {
                let next = self.new_page();
                self.page_mut(number).next = next;
                self.runs[run as usize].last = next;
                number = next;
            }
            let page = self.page_mut(number);
            let at = page.times.len();
            let to = end.min(from + PAGE - at);
            page.times.extend_from_slice(&batch.times[from..to]);
            page.origins.extend_from_slice(&batch.origins[from..to]);
            page.numbers.extend_from_slice(&numbers[from..to]);
            while let Some(b) = behind.next_if(|b| (b.index as usize) < to) {
                page.behind.push(Behind {
                    index: (b.index as usize - from + at) as u32,
                    ..*b
                });
            }
            let place = number * PAGE as u32 + at as u32;
            (place..place + (to - from) as u32).for_each(&mut *came);
            self.filled.push((number, from));
            from = to;
        }
        // From the end: what is left of the batch need not move.
        while let Some((page, from)) = self.filled.pop() {
            let page = &mut self.shelves[page as usize / SHELF][page as usize % SHELF];
            page.records.extend(batch.records.drain(from..));
        }
        batch.clear();
        self.runs[run as usize].len += end;
        self.len += end;
    }
}

/// What decides where times are equal, of a record of a batch.
#[inline]
pub(super) fn tie<T>(batch: &Batch<T>, index: usize, number: u64, rank: Rank<T>) -> Tie {
    let rank = rank.map_or(0, |rank| rank(&batch.records[index]));
    (rank, batch.origins[index], number)
}
