//! What a join holds, and what it does in one step, whatever the times of its records are: each test counts.

use super::log::{Holder, PAGE};
use super::tests::{Record, cases, l, machine, r};
use super::*;
use crate::aggregate::scramble::Dice;
use crate::aside::Aside;
use crate::edge::{EdgeConfig, Wiring, connect};
use crate::operators::late::Late;
use proptest::prelude::*;

/// Records of one side, four at each time.
struct Stream {
    /// How many there are for one that is far ahead.
    one_in: usize,
    /// How far the others come before their turn.
    disorder: usize,
    /// How long records are kept.
    keep: i64,
}

/// Runs it to `end`, and looks at each watermark at the pages of the left side.
fn pages_stay_in_proportion(stream: &Stream, outer: bool, end: i64) {
    let mut dice = Dice::new(7);
    let mut m = machine(0, stream.keep, [outer, false]);
    let mut live: Vec<i64> = vec![];
    let mut far = 0;
    for now in 0..end {
        let mut record = || {
            let ahead = match dice.below(stream.one_in) {
                0 => {
                    far += 1;
                    20 * stream.keep + ((dice.below(1 << 31) as i64) << 14)
                }
                _ => dice.below(stream.disorder + 1) as i64,
            };
            live.push(now + ahead);
            l(now + ahead, dice.below(40) as u8)
        };
        let batch = [record(), record(), record(), record()];
        m.take(batch);
        m.watermark(now);
        m.rows();
        live.retain(|time| time + stream.keep >= now);
        let room = m.op.left.log.live_pages() * PAGE;
        assert!(
            room <= 3 * live.len() + 8 * PAGE,
            "at {now} room for {room}, {} live, {far} far ahead",
            live.len()
        );
        assert!(m.entries()[0] >= live.len() as u64, "nothing live is lost");
    }
    assert!(far > 0);
    m.watermark(i64::MAX);
    assert_eq!(m.entries(), [0, 0, 0]);
}

#[test]
fn records_far_ahead_hold_up_nothing() {
    for (one_in, disorder) in [(1000, 0), (1000, 30), (100, 0), (100, 500), (10, 30)] {
        for outer in [false, true] {
            let stream = Stream {
                one_in,
                disorder,
                keep: 60,
            };
            pages_stay_in_proportion(&stream, outer, 4_000);
        }
    }
}

#[test]
fn what_goes_goes_in_pieces() {
    for outer in [false, true] {
        let mut m = machine(0, 10, [outer, false]);
        m.take((0..10 * PAGE as i64).map(|t| l(t, (t % 5) as u8)));
        let all = EventTime::from_micros(i64::MAX);
        m.op.watermark(all, &mut m.out, &mut m.cx);
        let (mut before, mut pieces) = (m.op.left.log.len(), 0);
        assert_eq!(before, 10 * PAGE);
        while !m.op.resume(&mut m.out, &mut m.cx) {
            let left = m.op.left.log.len();
            assert!(before - left <= PIECE as usize, "{before}, then {left}");
            (before, pieces) = (left, pieces + 1);
        }
        assert_eq!(m.entries(), [0, 0, 0]);
        assert!(pieces >= before / PIECE as usize);
    }
}

#[test]
fn late_records_are_taken_as_far_as_their_output_has_room() {
    let mut m = machine(0, 10, [false, false]);
    let edge = |batch_size| {
        let (mut writers, mut readers) = connect(EdgeConfig {
            shards: 1,
            wiring: Wiring::Local,
            ring_capacity: 2,
            batch_size,
            origins: false,
        });
        (
            Aside::new(writers.remove(0)),
            readers.remove(0).channels.remove(0),
        )
    };
    let (left, mut lefts) = edge(3);
    let (right, mut rights) = edge(5);
    m.op.late.left = Late::over(left);
    m.op.late.right = Late::over(right);
    for side in [l, r] {
        let mut batch = Batch::with_capacity(100);
        for t in 0..100 {
            let time = EventTime::from_micros(t);
            let behind = Some(EventTime::from_micros(1_000));
            batch.push(side(t, 1), Stamp { time, behind });
        }
        let (mut seen, mut calls) = (0, 0);
        while !batch.is_empty() {
            let before = batch.len();
            m.op.batch(&mut batch, &mut m.out, &mut m.cx);
            calls += 1;
            // Two batches lie in the ring, a third waits for room, and no record comes to it.
            assert!(
                before - batch.len() <= 3 * 5,
                "{} at once",
                before - batch.len()
            );
            assert!(batch.is_empty() || m.op.side_blocked());
            for channel in [&mut lefts, &mut rights] {
                while let Ok(Some(frame)) = channel.next() {
                    if let crate::batch::Frame::Batch(batch) = frame {
                        seen += batch.len();
                    }
                }
            }
            m.op.side_control(Control::Flush, &mut m.cx);
        }
        for channel in [&mut lefts, &mut rights] {
            while let Ok(Some(crate::batch::Frame::Batch(batch))) = channel.next() {
                seen += batch.len();
            }
        }
        assert_eq!(seen, 100, "each comes there");
        assert!(calls > 5, "{calls}");
    }
    assert_eq!(m.cx.counters.late, 200);
}

/// Two producers' records of one key, one far behind the other: what comes late is not looked for from the newest on, each time anew.
#[test]
fn a_place_among_many_is_looked_for_from_the_last_one() {
    // More keys than are remembered drive one another out, so they come one after another.
    for keys in [1u8, 2, 5] {
        let mut m = machine(0, 100_000, [false, false]);
        let each = 600i64;
        let mut number = 0;
        let mut record = |t, key| {
            number += 1;
            Sides::Left((t, key, number))
        };
        for key in 0..keys {
            let ahead: Vec<_> = (0..each).map(|t| record(1000 + 2 * t, key)).collect();
            m.take(ahead);
        }
        for key in 0..keys {
            // Times of their own, times that are there already, and two steps back at the end.
            let mut behind: Vec<_> = (0..each)
                .map(|t| record(1000 + 2 * t - t % 2, key))
                .collect();
            behind.extend([record(1500, key), record(1499, key)]);
            let calls = m.take(behind);
            let steps = calls * (STEPS * ROUNDS) as usize;
            assert!(
                steps < 8 * each as usize,
                "{steps} steps for {each} records"
            );
        }
        chains_hold_together(&m.op.left, &m.op.rows, 0);
        for key in 0..keys {
            let row = m.op.rows.find(m.op.rows.hash(&key), &key);
            let (mut at, mut newer) = (m.op.rows.value(row)[0], (i64::MAX, i64::MAX));
            while let Some(element) = m.op.left.log.get(at) {
                let place = (element.time, element.record.2);
                assert!(place < newer, "those of one time by arrival");
                (at, newer) = (element.before, place);
            }
        }
        // Elements leave and move; the same again finds them.
        m.watermark(101_300);
        for key in 0..keys {
            m.take(
                (0..each)
                    .map(|t| record(1400 + 2 * t, key))
                    .collect::<Vec<_>>(),
            );
            m.watermark(101_300 + i64::from(key));
        }
        chains_hold_together(&m.op.left, &m.op.rows, 0);
    }
}

/// Each element that has not expired knows who has the link to it, and chains descend.
fn chains_hold_together<T: State>(side: &Side<T>, keys: &KeyTable<u8, Heads>, which: usize) {
    let mut live = 0;
    for row in (0..keys.id_end()).filter(|&row| keys.is_live(row)) {
        let (mut at, mut above) = (keys.value(row)[which], Holder::Key(row));
        let mut time = i64::MAX;
        while let Some(element) = side.log.get(at) {
            assert_eq!(element.above.holder(), above);
            assert!(element.time <= time);
            live += usize::from(element.time >= side.limit);
            (time, above, at) = (element.time, Holder::Newer(at), element.before);
        }
    }
    let pages = (0..side.log.id_end()).filter_map(|id| side.log.by_id(id));
    let all = pages.filter(|(page, at)| page.elements[*at].time >= side.limit);
    assert_eq!(live, all.count(), "nothing live is out of its chain");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    /// Rows are what comparing all with all gives, however much moves; and what is held is in proportion.
    #[test]
    fn rows_do_not_depend_on_what_moves(seed: u64, lower in -40i64..20, length in 0i64..60, outer: [bool; 2], far in 2usize..40, keys in 1usize..6) {
        let (mut dice, upper) = (Dice::new(seed), lower + length);
        let mut m = machine(lower, upper, outer);
        let mut all: [Vec<Record>; 2] = [vec![], vec![]];
        let mut rows = vec![];
        for now in 0..300i64 {
            let batch: Vec<_> = (0..dice.below(12)).map(|_| {
                let ahead = match dice.below(far) {
                    0 => 100 + dice.below(400),
                    _ => dice.below(20),
                };
                let record = (now + ahead as i64, dice.below(keys) as u8, 0);
                let side = dice.below(2);
                all[side].push(record);
                [l, r][side](record.0, record.1)
            }).collect();
            m.take(batch);
            if dice.below(3) == 0 {
                m.watermark(now);
                chains_hold_together(&m.op.left, &m.op.rows, 0);
                chains_hold_together(&m.op.right, &m.op.rows, 1);
            }
            rows.extend(m.rows());
        }
        m.watermark(i64::MAX);
        rows.extend(m.rows());
        assert_eq!(m.entries(), [0, 0, 0]);
        let mut expected = vec![];
        let meet = |l: &Record, r: &Record| l.1 == r.1 && (lower..=upper).contains(&(r.0 - l.0));
        let [lefts, rights] = &all;
        for a in lefts {
            let met = rights.iter().filter(|b| meet(a, b));
            expected.extend(met.map(|b| ((Some(*a), Some(*b)), a.0.max(b.0))));
            if outer[0] && !rights.iter().any(|b| meet(a, b)) {
                expected.push(((Some(*a), None), a.0));
            }
        }
        let alone = rights.iter().filter(|b| outer[1] && !lefts.iter().any(|a| meet(a, b)));
        expected.extend(alone.map(|b| ((None, Some(*b)), b.0)));
        rows.sort();
        expected.sort();
        prop_assert_eq!(rows, expected);
    }
}
