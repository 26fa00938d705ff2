//! The order as an operator: late records and the room of their output, batches of any length.

use super::*;
use crate::aside::Aside;
use crate::edge::{EdgeConfig, Wiring, connect};
use crate::key::Computed;

/// Notes what it is given.
struct Notes(Vec<(i64, Option<i64>)>);

impl Operator<i64> for Notes {
    type Out = ();
    fn batch<O: Push<()>>(&mut self, batch: &mut Batch<i64>, _: &mut O, _: &mut Cx) {
        assert!(batch.len() <= PIECE);
        batch.consume(|record, stamp, origin| {
            assert_eq!(
                (stamp.time.micros(), origin.offset),
                (record, record as u64)
            );
            self.0.push((record, stamp.behind.map(EventTime::micros)));
            true
        });
    }
    fn watermark<O: Push<()>>(&mut self, _: EventTime, _: &mut O, _: &mut Cx) {}
}

struct Nowhere;

impl Push<()> for Nowhere {
    fn push(&mut self, (): (), _: Stamp, _: &mut Cx) {}
    fn control(&mut self, _: Control, _: &mut Cx) {}
    fn blocked(&self) -> bool {
        false
    }
}

fn order(late: Late<i64>) -> InOrder<i64, impl KeyOf<i64>, Notes> {
    InOrder {
        key: Computed(|t: &i64| *t),
        inner: Notes(vec![]),
        op: OpId(0),
        kept: None,
        late,
        lateness: Span::from_micros(10),
        waiting: Replay::ranked(None),
        greatest: EventTime::BEGINNING,
        bound: EventTime::BEGINNING,
        told: EventTime::BEGINNING,
        fresh: Batch::with_capacity(0),
        piece: Batch::with_capacity(0),
        replaying: None,
    }
}

/// Every third of them too late, every third behind and not.
fn batch(times: std::ops::Range<i64>) -> Batch<i64> {
    let mut batch = Batch::with_capacity(0);
    for t in times {
        let behind = [None, Some(10), Some(11)][t as usize % 3];
        let stamp = Stamp {
            time: EventTime::from_micros(t),
            behind: behind.map(|by| EventTime::from_micros(t + by)),
        };
        batch.origins.push(Origin {
            offset: t as u64,
            ..Origin::default()
        });
        batch.push(t, stamp);
    }
    batch
}

#[test]
fn late_records_are_taken_as_far_as_their_output_has_room() {
    let (mut writers, mut readers) = connect(EdgeConfig {
        shards: 1,
        wiring: Wiring::Local,
        ring_capacity: 2,
        batch_size: 4,
        origins: false,
    });
    let mut channel = readers.remove(0).channels.remove(0);
    let mut order = order(Late::over(Aside::new(writers.remove(0))));
    let (mut cx, mut late, mut calls) = (Cx::new(0), vec![], 0);
    let mut batch = batch(0..300);
    while !batch.is_empty() {
        let before = cx.counters.late;
        order.batch(&mut batch, &mut Nowhere, &mut cx);
        calls += 1;
        // Two batches lie in the ring, a third waits for room, and no record comes to it.
        assert!(cx.counters.late - before <= 3 * 4);
        assert!(batch.is_empty() || order.side_blocked());
        while let Ok(Some(frame)) = channel.next() {
            if let crate::batch::Frame::Batch(mut batch) = frame {
                late.append(&mut batch.records);
            }
        }
        order.side_control(Control::Flush, &mut cx);
    }
    assert!(calls > 5 && !order.side_blocked());
    while let Ok(Some(frame)) = channel.next() {
        if let crate::batch::Frame::Batch(mut batch) = frame {
            late.append(&mut batch.records);
        }
    }
    assert!(late.iter().copied().eq((2..300).step_by(3)));
    order.watermark(EventTime::END, &mut Nowhere, &mut cx);
    while !order.resume(&mut Nowhere, &mut cx) {}
    let kept = (0..300).filter(|t| t % 3 < 2);
    let kept = kept.map(|t| (t, (t % 3 == 1).then_some(t + 10)));
    assert!(order.inner.0.iter().copied().eq(kept));
}

#[test]
fn a_large_batch_is_taken_in_parts() {
    for times in [0..5000i64, 3..4] {
        let mut order = order(Late::none());
        let mut cx = Cx::new(0);
        let mut batch = batch(times.clone());
        batch.behind.clear();
        while !batch.is_empty() {
            let before = batch.len();
            order.batch(&mut batch, &mut Nowhere, &mut cx);
            assert!((1..=MOST).contains(&(before - batch.len())));
        }
        assert_eq!(
            order.close_idle(),
            Some(EventTime::from_micros(times.end + 10))
        );
        order.watermark(EventTime::from_micros(times.end + 9), &mut Nowhere, &mut cx);
        while !order.resume(&mut Nowhere, &mut cx) {}
        assert!(
            order
                .inner
                .0
                .iter()
                .copied()
                .eq((times.start..times.end - 1).map(|t| (t, None)))
        );
        assert!(!order.waiting.is_empty());
    }
}
