//! [`Replay`] against a sorted list: each kind of input, with pieces of any length, ranks, equal times and what is moved to the heap.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Record = (u8, u64);
type Place = (EventTime, u8, Origin, u64);

fn rank(record: &Record) -> u8 {
    record.0
}

fn at(time: i64) -> EventTime {
    EventTime::from_micros(time)
}

/// What waits, as a list by (time, rank, origin, number), and by slot: what a checkpoint would know of it.
struct Rig {
    replay: Replay<Record>,
    is_ranked: bool,
    model: BTreeMap<Place, (Record, Option<EventTime>)>,
    slots: BTreeMap<u32, u64>,
    moved: usize,
}

impl Rig {
    fn new(is_ranked: bool) -> Rig {
        Rig {
            replay: Replay::ranked(is_ranked.then_some(rank as fn(&Record) -> u8)),
            is_ranked,
            model: BTreeMap::new(),
            slots: BTreeMap::new(),
            moved: 0,
        }
    }

    fn note(&mut self, record: Record, stamp: Stamp, origin: Origin, number: u64) {
        let rank = if self.is_ranked { record.0 } else { 0 };
        let key = (stamp.time, rank, origin, number);
        assert!(self.model.insert(key, (record, stamp.behind)).is_none());
    }

    /// A batch; every seventh record is behind.
    fn take_in(&mut self, records: &[(i64, u8, u32)]) {
        let mut batch = Batch::with_capacity(0);
        let first = self.replay.next_number();
        for (number, &(time, rank, partition)) in (first..).zip(records) {
            let record = (rank, number);
            let origin = Origin {
                partition,
                ..Origin::default()
            };
            let behind = number.is_multiple_of(7).then(|| at(number as i64));
            let stamp = Stamp {
                time: at(time),
                behind,
            };
            batch.origins.push(origin);
            batch.push(record, stamp);
            self.note(record, stamp, origin, number);
        }
        let mut came = vec![];
        self.replay.take_in(&mut batch, |slot| came.push(slot));
        assert!(batch.is_empty() && batch.behind.is_empty() && batch.times.is_empty());
        assert_eq!(came.len(), records.len());
        self.came(came);
    }

    /// Takes one piece of what is below, as [`crate::operators::order::InOrder`] does.
    fn piece(&mut self, below: EventTime, most: usize) {
        let mut piece: Batch<Record> = Batch::with_capacity(0);
        let mut left = most;
        while left > 0
            && let Some(next) = self.replay.next(below, left)
        {
            for slot in next.slots() {
                let held = self.replay.held(slot).expect("what comes next is there");
                assert_eq!(self.slots.remove(&slot), Some(held.number));
                let (key, value) = self.model.pop_first().expect("no more than came");
                assert_eq!(
                    (key.0, key.2, key.3),
                    (held.stamp.time, held.origin, held.number)
                );
                assert_eq!((*held.record, held.stamp.behind), value);
                assert!(key.0 < below);
                // And the same is what is taken.
                let stamp = Stamp {
                    time: key.0,
                    behind: value.1,
                };
                piece.origins.push(key.2);
                piece.push(value.0, stamp);
            }
            let mut taken = Batch::with_capacity(0);
            // To the end of what is there already: marks are by place.
            taken.push((0, 0), Stamp::at(at(0)));
            taken.origins.push(Origin::default());
            let is_thin = self.replay.take(next, below, &mut taken);
            let from = piece.len() - next.count();
            assert_eq!(taken.records[1..], piece.records[from..]);
            assert_eq!(taken.times[1..], piece.times[from..]);
            assert_eq!(taken.origins[1..], piece.origins[from..]);
            let marks = taken
                .behind
                .iter()
                .map(|b| (b.index as usize - 1 + from, b.watermark));
            let expected = piece.behind.iter().map(|b| (b.index as usize, b.watermark));
            assert!(marks.eq(expected.filter(|mark| mark.0 >= from)));
            left -= next.count();
            if is_thin {
                self.loosen();
            }
        }
        let next = self.model.first_key_value().map(|(key, _)| key.0);
        assert!(
            left == 0 || next.is_none_or(|time| time >= below),
            "all that is below"
        );
        self.check();
    }

    /// Moves a thin run to the heap.
    fn loosen(&mut self) {
        loop {
            let from = self.replay.thin_slot();
            let number = self.slots.remove(&from).expect("it is there");
            let (to, is_last) = self.replay.loosen().expect("one more");
            assert!(self.replay.held(from).is_none());
            assert_eq!(self.replay.held(to).map(|held| held.number), Some(number));
            assert!(self.slots.insert(to, number).is_none(), "taken");
            self.moved += 1;
            if is_last {
                return;
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.replay.is_empty(), self.model.is_empty());
        assert_eq!(self.replay.size().entries, self.model.len() as u64);
        let held =
            (0..self.replay.slot_end()).filter_map(|s| Some((s, self.replay.held(s)?.number)));
        assert!(held.eq(self.slots.iter().map(|(&s, &n)| (s, n))), "slots");
    }

    fn restore(&mut self, records: &[(i64, u32, u64)]) {
        let mut held = vec![];
        for &(time, partition, number) in records {
            let origin = Origin {
                partition,
                ..Origin::default()
            };
            let (record, stamp) = ((0, number), Stamp::at(at(time)));
            self.note(record, stamp, origin, number);
            held.push(Held {
                record,
                origin,
                stamp,
                number,
            });
        }
        let mut came = vec![];
        self.replay
            .restore(held.into_iter(), |slot| came.push(slot));
        assert_eq!(came.len(), records.len());
        self.came(came);
    }

    fn came(&mut self, slots: Vec<u32>) {
        for slot in slots {
            let number = self.replay.held(slot).map(|held| held.number);
            let number = number.expect("a record lies where it came to");
            assert!(self.slots.insert(slot, number).is_none(), "taken");
        }
    }

    fn drain(&mut self) {
        while !self.model.is_empty() {
            self.piece(EventTime::END, 7);
        }
    }
}

/// How the times of a batch's records lie.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Partition `n` of so many brings ascending times of its own.
    Ascending(u32),
    /// The same, each record up to so much earlier.
    Jitter(u32, i64),
    /// Anything in a range, many of them equal.
    Random(i64),
    /// Ascending, and every so many records one that is far ahead.
    FarAhead(usize),
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (1u32..6).prop_map(Shape::Ascending),
        (1u32..4, 1i64..30).prop_map(|(n, by)| Shape::Jitter(n, by)),
        (1i64..300).prop_map(Shape::Random),
        (2usize..20).prop_map(Shape::FarAhead),
    ]
}

proptest! {
    #[test]
    fn it_gives_the_least(
        shapes in proptest::collection::vec((shape(), 1usize..25), 1..5),
        ops in proptest::collection::vec((0usize..40, 0u64..u64::MAX), 1..80),
        most in 1usize..40,
        lag in 0i64..60,
        is_ranked: bool,
    ) {
        let mut rig = Rig::new(is_ranked);
        let mut clocks = [0i64; 8];
        for (turn, (count, seed)) in ops.into_iter().enumerate() {
            let (shape, rounds) = shapes[turn % shapes.len()];
            let mut random = seed;
            let mut next = |below: i64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((random >> 33) as i64) % below
            };
            let mut records = vec![];
            for n in 0..count {
                let clock = |p: u32, clocks: &mut [i64; 8], step| {
                    clocks[p as usize] += step;
                    clocks[p as usize]
                };
                let partitions = match shape {
                    Shape::Ascending(n) | Shape::Jitter(n, _) => n,
                    _ => 1,
                };
                let p = turn as u32 % partitions;
                let time = match shape {
                    Shape::Ascending(_) => clock(p, &mut clocks, next(3)),
                    Shape::Jitter(_, by) => clock(p, &mut clocks, next(3)) - next(by),
                    Shape::Random(range) => next(range),
                    Shape::FarAhead(every) => {
                        let ahead = if n % every == 0 { 1_000_000 + next(1_000) } else { 0 };
                        clock(p, &mut clocks, 1) + ahead
                    }
                };
                records.push((time, next(2) as u8, p + next(2) as u32));
            }
            rig.take_in(&records);
            if turn % rounds.min(7) == 0 {
                let bound = clocks.iter().filter(|&&c| c > 0).min().copied().unwrap_or(50);
                for _ in 0..rounds {
                    rig.piece(at(bound - lag), most);
                }
            }
            rig.check();
        }
        rig.drain();
    }

    /// What a checkpoint had comes first of its equals by its number, wherever its shard's numbers lie.
    #[test]
    fn restored_records_stand_by_their_numbers(restored in proptest::collection::btree_set((0i64..4, 0u32..2, 0u64..3, 0u64..50), 0..60), count in 0usize..60) {
        let mut rig = Rig::new(false);
        rig.replay.number_from(1 << 48);
        let mut numbers = std::collections::BTreeMap::new();
        for (time, partition, shard, n) in restored {
            let number = n + if shard == 1 { (1 << 48) - 60 } else { shard << 48 };
            numbers.entry(number).or_insert((time, partition));
        }
        let all: Vec<_> = numbers.into_iter().map(|(n, (time, p))| (time, p, n)).collect();
        rig.restore(&all);
        let records: Vec<_> = (0..count).map(|n| ((n / 15) as i64, 0, n as u32 % 2)).collect();
        for records in records.chunks(20) {
            rig.take_in(records);
        }
        rig.check();
        rig.drain();
    }
}

/// Batch by batch, partition by partition: nothing gets into the heap, and as many runs are enough.
#[test]
fn partitions_are_runs() {
    let mut rig = Rig::new(false);
    for round in 0..50i64 {
        for p in 0..3 {
            let records: Vec<_> = (0..5).map(|n| (10 * round + 2 * n, 0, p)).collect();
            rig.take_in(&records);
        }
        assert!(rig.replay.runs.runs() <= 3);
        rig.piece(at(10 * round - 15), 1000);
    }
    assert_eq!((rig.replay.loose.len(), rig.moved), (0, 0));
    assert!(rig.replay.runs.pages() <= 3 * 5, "pages come back");
    rig.drain();
}

/// A single batch in disorder of neighbours: each is sorted, and two or three runs have them all.
#[test]
fn batches_in_disorder_are_sorted() {
    let mut rig = Rig::new(true);
    for round in 0..50i64 {
        let records: Vec<_> = (0..20)
            .map(|n| (20 * round + n * 7 % 20 - n % 3, 0, 0))
            .collect();
        rig.take_in(&records);
        assert!(rig.replay.runs.runs() <= 3);
    }
    assert_eq!(rig.replay.loose.len(), 0);
    rig.drain();
}

/// Law 4 of runs: a record years ahead in each batch holds no page.
#[test]
fn what_is_far_ahead_holds_no_page() {
    let mut rig = Rig::new(false);
    for round in 0..500i64 {
        let mut records: Vec<_> = (0..40).map(|n| (40 * round + n, 0, 0)).collect();
        records[20].0 += 1_000_000_000 - 100 * round;
        rig.take_in(&records);
        rig.piece(at(40 * round + 40), 1000);
    }
    assert!(rig.moved > 400, "{}", rig.moved);
    assert!(rig.replay.runs.pages() < 50, "{}", rig.replay.runs.pages());
    rig.drain();
}

/// Across several pages, and the second round takes no new ones: of runs, and of the heap.
#[test]
fn pages_are_used_again() {
    let mut rig = Rig::new(false);
    let mut pages = None;
    for round in 0..3 {
        for n in 0..2500i64 {
            rig.take_in(&[(n * 7919 % 5003, 0, 0)]);
        }
        for n in 0..60i64 {
            let records: Vec<_> = (0..20)
                .map(|m| ((20 * n + m) * 7919 % 5003, 0, 0))
                .collect();
            rig.take_in(&records);
        }
        assert!(rig.replay.loose.len() > 2000 && rig.replay.runs.runs() > 50);
        rig.drain();
        let now = (rig.replay.loose.pages(), rig.replay.runs.pages());
        assert_eq!(*pages.get_or_insert(now), now, "round {round}");
    }
}

/// More than are taken at once.
#[test]
fn very_many_are_restored() {
    let mut rig = Rig::new(false);
    let all: Vec<_> = (0..3000).map(|n| (n * 7919 % 1009, 0, n as u64)).collect();
    rig.restore(&all);
    rig.check();
    rig.piece(at(500), 5000);
    rig.drain();
}

/// Law 4 of runs: one that is closed is given up as soon as it is thin, however few are open by then.
#[test]
fn a_closed_run_is_given_up() {
    let mut rig = Rig::new(false);
    let ascending = |from: i64, to: i64| (from..to).map(|t| (t, 0, 0));
    let far = ascending(1_000_000, 1_000_002);
    rig.take_in(&ascending(0, 20).chain(far).collect::<Vec<_>>());
    for (from, to) in [(10, 26), (5, 21), (1, 17)] {
        rig.take_in(&ascending(from, to).collect::<Vec<_>>());
    }
    assert_eq!((rig.replay.runs.runs(), rig.replay.loose.len()), (4, 0));
    rig.piece(at(30), 1000);
    assert_eq!((rig.replay.runs.runs(), rig.moved), (0, 2));
    rig.drain();
}

/// And an open one only where there is no room for another.
#[test]
fn an_open_run_is_given_up_for_want_of_room() {
    for others in 0..3 {
        let mut rig = Rig::new(false);
        rig.take_in(&[(1, 0, 0), (1_000, 0, 0)]);
        for n in 0..others {
            rig.take_in(&[(900 - n, 0, 0)]);
        }
        rig.piece(at(10), 1000);
        assert_eq!(rig.moved, usize::from(others == 2));
        rig.drain();
    }
}
