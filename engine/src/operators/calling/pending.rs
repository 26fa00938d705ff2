//! Records in hand: those that wait for an answer, and those whose outcome waits for its turn, with the watermarks between them.
//!
//! Laws
//! 1. Watermarks cut the records into segments in the order of arrival. A watermark leaves when all records of the segments before it
//!    have: so it passes no record that came before it.
//! 2. Ordered: records leave in the order of arrival. Unordered: those of the first segment as they are completed, and none of another.
//! 3. A watermark behind no new record replaces the one before it: there are no more segments than records and one.

use crate::batch::{Origin, Stamp};
use crate::budget::Size;
use crate::calls::CallError;
use crate::time::EventTime;
use std::collections::VecDeque;

pub(crate) const NONE: u32 = u32::MAX;

/// A number that no other record in hand has: how many shards there were when it was given, which one gave it, and its count.
pub(crate) type Number = (u32, (u32, u64));

/// What comes of a record.
#[derive(Debug)]
pub(crate) enum Done<O> {
    Row(O),
    /// No row: an inner join found nothing.
    Nothing,
    Failed(CallError),
}

/// A record in hand.
#[derive(Debug)]
pub(crate) struct Held<T, O> {
    pub record: T,
    pub stamp: Stamp,
    pub origin: Origin,
    pub number: Number,
    pub arrival_ns: u64,
    /// When it was taken, by the same clock.
    pub came_ns: u64,
    /// The record's operator links its records as it likes.
    pub beside: u32,
    done: Option<Done<O>>,
    segment: u64,
    /// The next in the order of leaving.
    next: u32,
}

impl<T, O> Held<T, O> {
    pub fn new(record: T, stamp: Stamp, origin: Origin, number: Number, at_ns: (u64, u64)) -> Self {
        Held {
            record,
            stamp,
            origin,
            number,
            arrival_ns: at_ns.0,
            came_ns: at_ns.1,
            beside: NONE,
            done: None,
            segment: 0,
            next: NONE,
        }
    }
}

#[derive(Debug)]
struct Segment {
    /// Ends of the list of those that leave.
    head: u32,
    tail: u32,
    members: usize,
    /// What comes behind it; `None`: it is the last, and open.
    watermark: Option<EventTime>,
}

const OPEN: Segment = Segment {
    head: NONE,
    tail: NONE,
    members: 0,
    watermark: None,
};

/// What leaves next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Record(u32),
    Watermark(EventTime),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pending<T, O> {
    held: Vec<Option<Held<T, O>>>,
    free: Vec<u32>,
    segments: VecDeque<Segment>,
    /// The number of the first segment.
    first: u64,
    ordered: bool,
}

impl<T, O> Pending<T, O> {
    /// With room for `capacity`, so that none is made in a step: what is restored may be more.
    pub fn new(ordered: bool, capacity: usize) -> Self {
        Pending {
            held: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            segments: VecDeque::from([OPEN]),
            first: 0,
            ordered,
        }
    }

    pub fn len(&self) -> usize {
        self.held.len() - self.free.len()
    }

    pub fn size(&self) -> Size {
        Size::of::<Option<Held<T, O>>>(self.len(), 0)
    }

    /// Slots are below this.
    pub fn slot_end(&self) -> u32 {
        self.held.len() as u32
    }

    pub fn get(&self, slot: u32) -> Option<&Held<T, O>> {
        self.held.get(slot as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Held<T, O>> {
        self.held.get_mut(slot as usize)?.as_mut()
    }

    /// Whether a record that comes now with its outcome may leave at once.
    pub fn lets_through(&self) -> bool {
        let first = &self.segments[0];
        self.segments.len() == 1 && first.head == NONE && (!self.ordered || first.members == 0)
    }

    /// Takes a record; its slot.
    pub fn add(&mut self, mut held: Held<T, O>) -> u32 {
        let last = self.segments.len() - 1;
        held.segment = self.first + last as u64;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.held[slot as usize] = Some(held);
                slot
            }
            None => {
                self.held.push(Some(held));
                self.held.len() as u32 - 1
            }
        };
        self.segments[last].members += 1;
        if self.ordered {
            self.link(last, slot);
        }
        slot
    }

    /// A record's outcome is known.
    pub fn complete(&mut self, slot: u32, done: Done<O>) {
        let Some(held) = self.get_mut(slot) else {
            debug_assert!(false, "a request is of a record in hand");
            return;
        };
        debug_assert!(held.done.is_none());
        held.done = Some(done);
        let segment = (held.segment - self.first) as usize;
        if !self.ordered {
            self.link(segment, slot);
        }
    }

    fn link(&mut self, segment: usize, slot: u32) {
        let segment = &mut self.segments[segment];
        let tail = std::mem::replace(&mut segment.tail, slot);
        if segment.head == NONE {
            segment.head = slot;
        } else if let Some(before) = self.held[tail as usize].as_mut() {
            before.next = slot;
        }
    }

    /// A watermark comes behind all that is in hand.
    pub fn watermark(&mut self, time: EventTime) {
        let last = self.segments.len() - 1;
        if self.segments[last].members == 0 && last > 0 {
            self.segments[last - 1].watermark = Some(time);
            return;
        }
        self.segments[last].watermark = Some(time);
        self.segments.push_back(OPEN);
    }

    /// What may leave now.
    pub fn next(&self) -> Option<Next> {
        let first = &self.segments[0];
        match self.get(first.head) {
            Some(head) if head.done.is_some() => Some(Next::Record(first.head)),
            Some(_) => None,
            None if first.members == 0 => first.watermark.map(Next::Watermark),
            None => None,
        }
    }

    /// The watermark that may leave has left.
    pub fn pass_watermark(&mut self) {
        self.segments.pop_front();
        self.first += 1;
    }

    /// Takes the record out that may leave.
    pub fn take(&mut self, slot: u32) -> Option<(Held<T, O>, Done<O>)> {
        let mut held = self.held.get_mut(slot as usize)?.take()?;
        let done = held.done.take()?;
        self.free.push(slot);
        let first = &mut self.segments[0];
        debug_assert_eq!(first.head, slot);
        first.members -= 1;
        first.head = held.next;
        if held.next == NONE {
            first.tail = NONE;
        }
        Some((held, done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Come,
        Complete(usize),
        Watermark,
        Leave,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => Just(Op::Come),
            3 => any::<usize>().prop_map(Op::Complete),
            1 => Just(Op::Watermark),
            3 => Just(Op::Leave),
        ]
    }

    /// What waits, in the order of arrival: records with the order of their completion, and watermarks.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Item {
        Record(u32, Option<u64>),
        Watermark(i64),
    }

    /// By the definition: the first thing if it is a watermark or, in order, a record that is done; else of the records up to the first
    /// watermark the one that was completed first.
    fn next_of(model: &[Item], ordered: bool) -> Option<Item> {
        if let Some(&Item::Watermark(w)) = model.first() {
            return Some(Item::Watermark(w));
        }
        let records = model
            .iter()
            .take_while(|i| matches!(i, Item::Record(..)))
            .take(if ordered { 1 } else { usize::MAX });
        let done = records.filter(|i| matches!(i, Item::Record(_, Some(_))));
        done.min_by_key(|i| match i {
            Item::Record(_, at) => *at,
            Item::Watermark(_) => None,
        })
        .copied()
    }

    proptest! {
        #[test]
        fn it_lets_go_what_the_definition_does(ordered: bool, ops in proptest::collection::vec(op(), 0..300)) {
            let mut pending: Pending<u32, ()> = Pending::new(ordered, 4);
            let (mut model, mut clock) = (vec![], 0);
            for (n, op) in ops.into_iter().enumerate() {
                let n32 = n as u32;
                match op {
                    Op::Come => {
                        let slot = pending.add(Held::new(n32, Stamp::NONE, Origin::default(), (0, (0, 0)), (0, 0)));
                        prop_assert_eq!(pending.get(slot).map(|h| h.record), Some(n32));
                        model.push(Item::Record(n32, None));
                    }
                    Op::Complete(which) => {
                        let waiting: Vec<usize> = (0..model.len()).filter(|&i| matches!(model[i], Item::Record(_, None))).collect();
                        if waiting.is_empty() { continue; }
                        let at = waiting[which % waiting.len()];
                        let Item::Record(id, _) = model[at] else { unreachable!() };
                        clock += 1;
                        model[at] = Item::Record(id, Some(clock));
                        let slot = (0..pending.slot_end()).find(|&s| pending.get(s).is_some_and(|h| h.record == id)).unwrap();
                        pending.complete(slot, Done::Nothing);
                    }
                    Op::Watermark => {
                        if matches!(model.last(), Some(Item::Watermark(_))) { model.pop(); }
                        model.push(Item::Watermark(n as i64));
                        pending.watermark(EventTime::from_micros(n as i64));
                    }
                    Op::Leave => {
                        let expected = next_of(&model, ordered);
                        match pending.next() {
                            None => prop_assert_eq!(expected, None),
                            Some(Next::Watermark(w)) => {
                                prop_assert_eq!(expected, Some(Item::Watermark(w.micros())));
                                pending.pass_watermark();
                                model.remove(0);
                            }
                            Some(Next::Record(slot)) => {
                                let (held, _) = pending.take(slot).unwrap();
                                let at = model.iter().position(|&i| Some(i) == expected);
                                let Some(at) = at else { return Err(TestCaseError::fail("nothing was to leave")) };
                                let Item::Record(id, _) = model[at] else { return Err(TestCaseError::fail("a watermark was")) };
                                prop_assert_eq!(held.record, id);
                                model.remove(at);
                            }
                        }
                    }
                }
                let records = model.iter().filter(|i| matches!(i, Item::Record(..))).count();
                prop_assert_eq!(pending.len(), records);
                prop_assert_eq!(pending.lets_through(), records == 0 && model.is_empty()
                    || !ordered && model.iter().all(|i| matches!(i, Item::Record(_, None))));
            }
        }
    }
}
