//! Process functions against themselves: never stopped, and going on from checkpoints (see [`super::rig`]).

use super::rig::{BEHIND, Compare, OP, Record, Step, check, entries_by_epoch, moved, script};
use crate::aggregate::scramble::cases;
use crate::key::{Computed, KeyOf};
use crate::operators::order::MakeInOrder;
use crate::operators::process::MakeProcess;
use crate::pipeline::MakeOperator;
use crate::process::{
    Call, Context, KeptStates, NoTimer, OnTimer, States, Ttl, aggregating, list, map, reducing,
    value,
};
use crate::push::OpId;
use crate::running::Keyed;
use crate::stage::operator::Operator;
use crate::{EventTime, Span, Spans};
use proptest::prelude::*;
use std::cell::Cell;
use std::marker::PhantomData;

type Of<'a, S> = <<S as States<u8>>::Kept as KeptStates<u8>>::Of<'a>;
type Told = Keyed<u8, String>;
type Cx<'a> = Context<'a, u8, Told>;

/// What a function says of a timer or record, with all that it has.
fn tell(cx: &mut Cx<'_>, what: String) {
    let key = *cx.key();
    cx.emit(Keyed { key, value: what });
}

fn timer<S, F>(_: &S, f: F) -> Call<F>
where
    S: States<u8>,
    F: Fn(EventTime, &mut Of<'_, S>, &mut Cx<'_>) + Clone + Send + 'static,
{
    Call(f)
}

fn maker<S, F, G, C>(
    op: OpId,
    in_order: bool,
    states: &S,
    (on_timer, on_clock): (G, C),
    each: F,
) -> impl MakeOperator<Record, Op: Operator<Record, Out = Told>> + use<S, F, G, C>
where
    S: States<u8>,
    F: Fn(&Record, &mut Of<'_, S>, &mut Cx<'_>) + Clone + Send + 'static,
    G: OnTimer<u8, S, Told>,
    C: OnTimer<u8, S, Told>,
{
    MakeProcess {
        key: key(),
        states: states.clone(),
        each,
        on_timer,
        on_clock,
        op,
        in_order,
        by_clock: true,
        types: PhantomData,
    }
}

fn key() -> impl KeyOf<Record, Key = u8> {
    Computed(|r: &Record| r.1)
}

/// All that can be seen of a key's states.
macro_rules! seen {
    ($s:expr) => {{
        let (value, list, map, most, sum) = $s;
        let first = list.front().copied();
        let list = (list.len(), first, list.iter().copied().collect::<Vec<_>>());
        let entries: Vec<_> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let map = (map.len(), map.is_empty(), entries);
        (
            value.get().copied(),
            list,
            map,
            most.get().copied(),
            sum.get(),
        )
    }};
}

/// A function that does everything that can be done, on any shard.
fn does_everything(
    op: OpId,
    in_order: bool,
    ttl: Option<Ttl>,
) -> impl MakeOperator<Record, Op: Operator<Record, Out = Told>> {
    let mut states = (
        value::<i64>("value"),
        list::<i64>("list"),
        map::<String, i64>("map"),
        reducing("most", |a: &mut i64, b: i64| *a = b.max(*a)),
        aggregating("sum", |a| (a.count(), a.sum(|v: &i64| *v))),
    );
    if let Some(ttl) = ttl {
        let (value, list, map, most, sum) = states;
        states = (
            value.ttl(ttl),
            list.ttl(ttl),
            map.ttl(ttl),
            most.ttl(ttl),
            sum.ttl(ttl),
        );
    }
    let on_timer = timer(&states, |time, s, cx| {
        tell(cx, format!("timer {time} {:?}", seen!(&mut *s)));
        if time.micros() % 3 == 0 {
            *s.0.or_default() += 1;
            (0..20).for_each(|i| s.2.insert(format!("{i}"), i));
            s.2.clear();
            cx.timer_at(time + 7.micros());
        } else if time.micros() % 3 == 1 {
            s.1.clear();
            s.3.clear();
            s.4.clear();
        }
    });
    let on_clock = timer(&states, |_, s, cx| {
        let seen = format!("clock {:?}", seen!(&mut *s));
        s.1.push(-1);
        s.0.take();
        tell(cx, seen);
    });
    maker(op, in_order, &states, (on_timer, on_clock), |r, s, cx| {
        let (n, name) = (r.2, format!("{}", r.2 % 5));
        match n % 16 {
            0 => s.0.set(n),
            1 => *s.0.or_insert_with(|| 1) += n,
            2 => s.0.clear(),
            3 | 4 => s.1.extend([n, n + 1]),
            5 => drop(s.1.pop_front()),
            6 => s.1.retain(|v| v % 3 != n % 3),
            7 | 8 => s.2.insert(name, n),
            9 => *s.2.or_default(name) += 1,
            10 => drop(s.2.remove(&name)),
            11 => s.2.retain(|_, v| v % 2 == 0),
            12 => {
                let set = cx.timer_at(cx.time() + Span::from_micros(n - 40));
                if n % 4 == 0 {
                    cx.delete_timer(set);
                }
                cx.delete_timer(cx.time() + 5.micros());
            }
            13 => {
                s.1.extend(0..n);
                s.1.clear();
                s.1.push(n);
                s.1.clear();
                s.1.extend([n, 1]);
            }
            14 => {
                (0..n % 30).for_each(|i| s.2.insert(format!("{i}"), i));
                s.2.clear();
                s.2.insert("11".into(), n);
                s.2.insert(name, n);
                s.2.clear();
                *s.2.or_default("2".into()) += n;
                s.2.remove(&"3".into());
            }
            _ => drop(cx.clock_timer_after(Span::from_micros(n))),
        }
        s.3.add(n);
        s.4.add(&n);
        let (contains, got) = (s.2.contains(&"3".into()), s.2.get(&"2".into()).copied());
        tell(
            cx,
            format!(
                "{n} {:?} {contains} {got:?} {:?}",
                cx.behind(),
                seen!(&mut *s)
            ),
        );
    })
}

fn in_order<M: MakeOperator<Record>>(
    inner: M,
) -> impl MakeOperator<Record, Op: Operator<Record, Out = <M::Op as Operator<Record>>::Out>> {
    MakeInOrder {
        key: key(),
        inner,
        op: OP,
        lateness: Span::ZERO,
        late: None,
        rank: None,
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn functions_go_on(seed: u64, keys in 1usize..40) {
        let script = script(seed, keys, 40);
        check(|| does_everything(OP, false, None), &script, seed, Compare::Rows);
        check(|| in_order(does_everything(BEHIND, true, None)), &script, seed, Compare::Rows);
    }

    #[test]
    fn times_to_live_go_on(seed: u64, keys in 1usize..20, life in 1i64..80, on_read: bool) {
        let script = script(seed, keys, 40);
        let refreshed = |ttl: Ttl| if on_read { ttl.refreshed_on_read() } else { ttl };
        let ttl = match seed % 2 {
            0 => Ttl::event_time(life.micros()),
            _ => Ttl::processing_time(life.micros()),
        };
        let ttl = Some(refreshed(ttl));
        check(|| does_everything(OP, false, ttl), &script, seed, Compare::Rows);
        check(|| in_order(does_everything(BEHIND, true, ttl)), &script, seed, Compare::Rows);
    }
}

/// One record of this key.
fn one(key: u8, n: i64) -> Step {
    Step::Batch(vec![((n, key, n), None)])
}

/// An element is written alone, and what comes and goes between two barriers not at all.
#[test]
fn an_epoch_has_the_elements_that_have_changed() {
    let many =
        |range: std::ops::Range<i64>| Step::Batch(range.map(|n| ((n, 1, n), None)).collect());
    let states = (
        list::<i64>("list"),
        map::<i64, i64>("map"),
        value::<i64>("value"),
    );
    let make = || {
        maker(
            OP,
            false,
            &states,
            (NoTimer, NoTimer),
            |r, (list, map, value), _| match r.2 {
                0..=99 => {
                    list.push(r.2);
                    map.insert(r.2, 0);
                }
                100 => map.insert(7, 1),
                101 => drop(list.pop_front()),
                102 => value.set(1),
                103 => {
                    value.clear();
                    list.push(1);
                    list.retain(|v| *v != 1);
                }
                104 => {
                    value.set(1);
                    value.clear();
                    map.insert(-1, 0);
                    map.remove(&-1);
                }
                _ => list.clear(),
            },
        )
    };
    let steps = vec![
        many(0..100),
        one(1, 100),
        one(1, 101),
        one(1, 102),
        one(1, 103),
        one(1, 104),
        one(1, 105),
    ];
    // 103: the value's tombstone, and that of the 1 that was there.
    assert_eq!(entries_by_epoch(make, steps), [200, 1, 1, 1, 2, 0, 98]);
}

/// What is cleared goes in pieces before the next record, whoever's that is, and is gone with the epoch of the record that cleared it.
#[test]
fn what_is_cleared_goes_in_pieces_and_in_one_epoch() {
    let states = (list::<i64>("list"), map::<i64, i64>("map"));
    let make = || {
        maker(
            OP,
            false,
            &states,
            (NoTimer, NoTimer),
            |r, (list, map), cx| {
                if r.2 < 100 {
                    list.push(r.2);
                    map.insert(r.2, r.2);
                    return;
                }
                list.clear();
                map.clear();
                if r.2 == 101 {
                    list.extend([5, 6]);
                    map.insert(50, 1);
                    map.insert(3, 2);
                }
                assert_eq!(map.get(&7), None);
                let all = (list.iter().copied().collect::<Vec<_>>(), map.len());
                tell(cx, format!("{} {all:?} {:?}", r.2, map.get(&50)));
            },
        )
    };
    let many = |key| Step::Batch((0..100).map(|n| ((n, key, n), None)).collect());
    let steps = vec![many(1), many(2), one(1, 101), one(1, 100), one(2, 100)];
    let script = steps.iter().map(|step| (1, step.clone(), false)).collect();
    let told: Vec<_> = moved(make, script).into_iter().map(|r| r.value).collect();
    let expected = [
        "101 ([5, 6], 2) Some(1)",
        "100 ([], 0) None",
        "100 ([], 0) None",
    ];
    assert_eq!(told, expected.map(|s| format!("{s:?}")));
    // 101: tombstones of all that was there, and four entries.
    assert_eq!(entries_by_epoch(make, steps), [200, 200, 204, 4, 200]);
}

/// A time to live that a state is given later begins with the first time that is known, for what is there already: at the load
/// neither the clock nor M need be. It begins once: the next restore goes on with it.
#[test]
fn a_time_to_live_that_comes_later_begins_with_the_first_time() {
    for (ttl, end) in [
        (Ttl::event_time(10.micros()), 15),
        (Ttl::processing_time(10.micros()), i64::MAX),
    ] {
        let makes = Cell::new(0);
        let make = || {
            let later = makes.replace(makes.get() + 1) > 0;
            let mut states = (
                value::<i64>("value"),
                list::<i64>("list"),
                map::<i64, i64>("map"),
            );
            if later {
                states = (states.0.ttl(ttl), states.1.ttl(ttl), states.2.ttl(ttl));
            }
            maker(OP, false, &states, (NoTimer, NoTimer), |r, s, cx| {
                if r.2 == 1 {
                    s.0.set(1);
                    s.1.push(1);
                    s.2.insert(1, 1);
                    return;
                }
                let there = (s.0.get().is_some(), s.1.len(), s.2.len());
                tell(cx, format!("{} {there:?}", r.2));
            })
        };
        let steps = [
            one(1, 1),
            one(1, 2),
            Step::Watermark(5),
            Step::Watermark(8),
            one(1, 14),
            one(1, 15),
        ];
        let rows = moved(make, steps.map(|step| (1, step, false)).to_vec());
        let told: Vec<_> = rows.into_iter().map(|row| row.value).collect();
        let there = |n: i64| match n < end {
            true => format!("\"{n} (true, 1, 1)\""),
            false => format!("\"{n} (false, 0, 0)\""),
        };
        assert_eq!(told, [2, 14, 15].map(there));
    }
}
