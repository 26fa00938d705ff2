//! Random operations on a ring and on a `VecDeque` that says what should happen.

use super::census::{Census, Token};
use crate::{Consumer, PopError, Producer, PushError, ring_starting_at};
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Op {
    Push,
    PushBatch(usize),
    Claim {
        slots: usize,
        written: usize,
        leaked: bool,
    },
    Pop,
    Peek,
    Drain {
        max: usize,
        taken: usize,
        leaked: bool,
    },
    Ask,
    DropProducer,
    DropConsumer,
}

fn op() -> impl Strategy<Value = Op> {
    let leaked = || prop::bool::weighted(0.1);
    prop_oneof![
        8 => Just(Op::Push),
        4 => (0..12usize).prop_map(Op::PushBatch),
        4 => (0..6usize, 0..6usize, leaked())
            .prop_map(|(slots, written, leaked)| Op::Claim { slots, written, leaked }),
        8 => Just(Op::Pop),
        2 => Just(Op::Peek),
        6 => (0..12usize, 0..12usize, leaked())
            .prop_map(|(max, taken, leaked)| Op::Drain { max, taken, leaked }),
        3 => Just(Op::Ask),
        1 => prop_oneof![9 => Just(Op::Ask), 1 => Just(Op::DropProducer)],
        1 => prop_oneof![9 => Just(Op::Ask), 1 => Just(Op::DropConsumer)],
    ]
}

/// Positions that wrap soon, or cross the 32-bit limit, or are nowhere in particular.
fn start() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0),
        (0..20usize).prop_map(|n| usize::MAX - n),
        (0..20usize).prop_map(|n| u32::MAX as usize - n),
        any::<usize>(),
    ]
}

/// Both ends and what should be in between.
struct Run {
    producer: Option<Producer<Token>>,
    consumer: Option<Consumer<Token>>,
    census: Census,
    capacity: usize,
    /// The next value; values are numbered in the order of pushing.
    next: u64,
    /// Published and not taken.
    inside: VecDeque<u64>,
    /// Taken by a drain that was leaked: slots not free until the next release.
    unreleased: usize,
    /// Written to a claim, or left in a drain, that was leaked: alive for ever.
    leaked: usize,
}

impl Run {
    fn new(capacity: usize, start: usize) -> Self {
        let (producer, consumer) = ring_starting_at(capacity, start).unwrap();
        Run {
            producer: Some(producer),
            consumer: Some(consumer),
            census: Census::default(),
            capacity,
            next: 0,
            inside: VecDeque::new(),
            unreleased: 0,
            leaked: 0,
        }
    }

    fn free(&self) -> usize {
        self.capacity - self.inside.len() - self.unreleased
    }

    fn published(&mut self, count: usize) {
        self.inside.extend(self.next..self.next + count as u64);
        self.next += count as u64;
    }

    fn push(&mut self) {
        let (free, token) = (self.free(), self.census.token(self.next));
        let Some(producer) = &mut self.producer else {
            return;
        };
        match producer.push(token) {
            Ok(()) => {
                assert!(free > 0 && self.consumer.is_some());
                self.published(1);
            }
            Err(PushError::Full(token)) => {
                assert!(free == 0 && self.consumer.is_some());
                assert_eq!(token.value, self.next);
            }
            Err(PushError::Closed(token)) => {
                assert!(self.consumer.is_none());
                assert_eq!(token.value, self.next);
            }
        }
    }

    fn push_batch(&mut self, count: usize) {
        let room = if self.consumer.is_some() {
            self.free()
        } else {
            0
        };
        let Some(producer) = &mut self.producer else {
            return;
        };
        let mut pulled = 0;
        let mut values = (self.next..)
            .take(count)
            .inspect(|_| pulled += 1)
            .map(|value| self.census.token(value));
        let pushed = producer.push_batch(&mut values);
        drop(values);
        assert_eq!(pushed, room.min(count));
        assert_eq!(pulled, pushed, "a value was pulled and not stored");
        self.published(pushed);
    }

    fn claim(&mut self, slots: usize, written: usize, leaked: bool) {
        let fits = slots <= self.free() && self.consumer.is_some();
        let Some(producer) = &mut self.producer else {
            return;
        };
        let Some(mut claim) = producer.claim(slots) else {
            assert!(!fits);
            return;
        };
        assert!(fits);
        let mut done = 0;
        for _ in 0..written {
            let token = self.census.token(self.next + done as u64);
            match claim.write(token) {
                Ok(()) => done += 1,
                Err(token) => assert_eq!((token.value, done), (self.next + slots as u64, slots)),
            }
        }
        assert_eq!((claim.written(), claim.remaining()), (done, slots - done));
        if leaked {
            std::mem::forget(claim);
            self.leaked += done;
        } else {
            assert_eq!(claim.commit(), done);
            self.published(done);
        }
    }

    fn pop(&mut self) {
        let Some(consumer) = &mut self.consumer else {
            return;
        };
        match consumer.pop() {
            Ok(token) => {
                assert_eq!(Some(token.value), self.inside.pop_front());
                self.unreleased = 0;
            }
            Err(PopError::Empty) => assert!(self.inside.is_empty() && self.producer.is_some()),
            Err(PopError::Closed) => assert!(self.inside.is_empty() && self.producer.is_none()),
        }
    }

    fn peek(&mut self) {
        if let Some(consumer) = &mut self.consumer {
            let seen = consumer.peek().map(|token| token.value);
            assert_eq!(seen.as_ref(), self.inside.front());
        }
    }

    fn drain(&mut self, max: usize, taken: usize, leaked: bool) {
        let Some(consumer) = &mut self.consumer else {
            return;
        };
        let mut drain = consumer.drain(max);
        assert_eq!(drain.len(), max.min(self.inside.len()));
        let there = drain.len();
        let taken: Vec<u64> = drain.by_ref().take(taken).map(|t| t.value).collect();
        if leaked {
            std::mem::forget(drain);
        } else {
            drop(drain);
        }
        assert!(self.inside.drain(..taken.len()).eq(taken.iter().copied()));
        if leaked {
            let left = there - taken.len();
            self.inside.drain(..left);
            self.leaked += left;
            self.unreleased += there;
        } else if !taken.is_empty() {
            self.unreleased = 0;
        }
    }

    fn ask(&mut self) {
        let (free, inside) = (self.free(), self.inside.len());
        let (produces, consumes) = (self.producer.is_some(), self.consumer.is_some());
        if let Some(producer) = &mut self.producer {
            assert_eq!(producer.capacity(), self.capacity);
            assert_eq!(producer.is_closed(), !consumes);
            if consumes {
                assert_eq!(producer.free(), free);
            }
        }
        if let Some(consumer) = &mut self.consumer {
            assert_eq!(consumer.capacity(), self.capacity);
            assert_eq!(consumer.is_closed(), !produces);
            assert_eq!((consumer.len(), consumer.is_empty()), (inside, inside == 0));
        }
    }

    fn drop_producer(&mut self) {
        self.producer = None;
    }

    fn drop_consumer(&mut self) {
        if self.consumer.take().is_some() {
            self.inside.clear();
            self.unreleased = 0;
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Push => self.push(),
            Op::PushBatch(count) => self.push_batch(count),
            Op::Claim {
                slots,
                written,
                leaked,
            } => self.claim(slots, written, leaked),
            Op::Pop => self.pop(),
            Op::Peek => self.peek(),
            Op::Drain { max, taken, leaked } => self.drain(max, taken, leaked),
            Op::Ask => self.ask(),
            Op::DropProducer => self.drop_producer(),
            Op::DropConsumer => self.drop_consumer(),
        }
        assert_eq!(self.census.alive(), self.inside.len() + self.leaked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 2000 }) })]

    #[test]
    fn behaves_like_a_bounded_deque(
        log2 in 0..4u32,
        start in start(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut run = Run::new(1 << log2, start);
        for op in ops {
            run.step(op);
        }
        run.step(Op::DropProducer);
        run.step(Op::DropConsumer);
        prop_assert_eq!(run.census.alive(), run.leaked);
    }

    #[test]
    fn order_survives_any_mixture_of_batch_sizes(
        log2 in 0..6u32,
        start in start(),
        sizes in prop::collection::vec((0..40usize, 0..40usize), 1..60),
    ) {
        let (mut producer, mut consumer) = ring_starting_at(1 << log2, start).unwrap();
        let mut values = 0u64..;
        let mut got = Vec::new();
        for (push, drain) in sizes {
            producer.push_batch(&mut values.by_ref().take(push));
            got.extend(consumer.drain(drain));
        }
        got.extend(consumer.drain(usize::MAX));
        prop_assert!(got.iter().copied().eq(0..values.start));
    }
}
