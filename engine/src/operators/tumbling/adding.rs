//! Adding records to a window's table: in a large one the cache misses of different records overlap.

use crate::aggregate::{Aggregate, At};
use crate::batch::{Batch, Origin};
use crate::checkpoint::Touch;
use crate::key::KeyOf;
use crate::operators::early::Changed;
use crate::push::{OpId, blame_at};
use crate::table::{CACHED, Home, KeyTable, NONE};
use crate::time::EventTime;

/// Records that are looked up together: enough to hide the misses of one another.
const MANY: usize = 64;

/// The same of what is left, and of small batches; fewer are added one after another.
const FEW: usize = 8;

/// Adds records `from..to` of one window to its table.
///
/// In three passes over some: hash, look the entry up, add. What one record waits for then overlaps with what others do: in a
/// table that is larger than a cache the misses, which are asked for in the pass before (a small one lies in the cache, and
/// asking costs 2%); in a small one the loads that hang on each other (YSB gains 4%). For a few records what they need is asked for, no
/// more.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn add_run<T, K: KeyOf<T>, A: Aggregate<T>, C: Touch<K::Key, A::Acc>>(
    table: &mut KeyTable<K::Key, A::Acc>,
    key_of: &K,
    aggregate: &A,
    op: OpId,
    batch: &Batch<T>,
    from: usize,
    to: usize,
    touch: &mut C,
) {
    let mut at = from;
    while to - at >= MANY {
        add_some::<_, _, _, _, MANY>(table, key_of, aggregate, op, batch, at, touch);
        at += MANY;
    }
    while to - at >= FEW {
        add_some::<_, _, _, _, FEW>(table, key_of, aggregate, op, batch, at, touch);
        at += FEW;
    }
    if at < to && table.len() >= CACHED {
        ask_for(table, key_of, op, batch, at, to);
    }
    for index in at..to {
        blame_at(
            op,
            index,
            #[inline(always)]
            || {
                let record = &batch.records[index];
                let hash = key_of.with(record, |key| table.hash(key));
                let candidate = table.candidate(hash);
                let at = at_of::<T, A>(batch, index, batch.times[index]);
                add_one::<_, _, _, _, false>(
                    table, key_of, aggregate, record, at, candidate, touch,
                );
            },
        );
    }
}

/// Asks the cache for what a few records will need, in two passes.
#[cold]
#[inline(never)]
fn ask_for<T, K: KeyOf<T>, V>(
    table: &KeyTable<K::Key, V>,
    key_of: &K,
    op: OpId,
    batch: &Batch<T>,
    from: usize,
    to: usize,
) {
    let hash = |index: usize| {
        blame_at(op, index, || {
            key_of.with(&batch.records[index], |key| table.hash(key))
        })
    };
    for index in from..to {
        table.prefetch_slot(hash(index));
    }
    for index in from..to {
        table.prefetch_entry(table.candidate(hash(index)));
    }
}

/// Adds records `from..from + N`.
#[inline(always)]
fn add_some<T, K: KeyOf<T>, A: Aggregate<T>, C: Touch<K::Key, A::Acc>, const N: usize>(
    table: &mut KeyTable<K::Key, A::Acc>,
    key_of: &K,
    aggregate: &A,
    op: OpId,
    batch: &Batch<T>,
    from: usize,
    touch: &mut C,
) {
    // Arrays: their lengths are known, so that nothing is checked for each record.
    let (records, times) = (&batch.records[from..], &batch.times[from..]);
    let (Some(records), Some(times)) = (records.first_chunk::<N>(), times.first_chunk::<N>())
    else {
        unreachable!("as many records as asked for")
    };
    let mut found = [NONE; N];
    if table.len() >= CACHED {
        look_up::<_, _, _, N, true>(table, key_of, op, from, records, &mut found);
    } else {
        look_up::<_, _, _, N, false>(table, key_of, op, from, records, &mut found);
    }
    touch.touch_all(found.iter().copied(), table);
    for n in 0..N {
        blame_at(
            op,
            from + n,
            #[inline(always)]
            || {
                let at = at_of::<T, A>(batch, from + n, times[n]);
                let (record, candidate) = (&records[n], found[n]);
                add_one::<_, _, _, _, true>(table, key_of, aggregate, record, at, candidate, touch);
            },
        );
    }
}

/// The first two passes: the entries that very likely are those of the records' keys.
#[inline(always)]
fn look_up<T, K: KeyOf<T>, V, const N: usize, const LARGE: bool>(
    table: &KeyTable<K::Key, V>,
    key_of: &K,
    op: OpId,
    from: usize,
    records: &[T; N],
    found: &mut [u32; N],
) {
    if !LARGE && let Some(page) = table.one_page() {
        for n in 0..N {
            let hash = blame_at(
                op,
                from + n,
                #[inline(always)]
                || key_of.with(&records[n], |key| table.hash(key)),
            );
            found[n] = page.home(hash).candidate(hash);
        }
        return;
    }
    if LARGE {
        let Some(pages) = table.several_pages() else {
            // All keys hash alike, or nearly so: each is looked for by itself.
            return;
        };
        let mut hashes = [0; N];
        let mut homes = [Home::default(); N];
        for n in 0..N {
            hashes[n] = blame_at(
                op,
                from + n,
                #[inline(always)]
                || key_of.with(&records[n], |key| table.hash(key)),
            );
            homes[n] = pages.home(hashes[n]);
            homes[n].prefetch();
        }
        for n in 0..N {
            found[n] = homes[n].candidate(hashes[n]);
            table.prefetch_entry(found[n]);
        }
        return;
    }
    // Filled in place: an array that is made and then moved is read back in other pieces than it was stored in, which the processor
    // waits for.
    let mut hashes = [0; N];
    let mut homes = [Home::default(); N];
    for n in 0..N {
        hashes[n] = blame_at(
            op,
            from + n,
            #[inline(always)]
            || key_of.with(&records[n], |key| table.hash(key)),
        );
        homes[n] = table.home(hashes[n]);
    }
    for n in 0..N {
        found[n] = homes[n].candidate(hashes[n]);
    }
}

/// What an aggregate is told of a record's place.
#[inline(always)]
fn at_of<T, A: Aggregate<T>>(batch: &Batch<T>, index: usize, time: EventTime) -> At {
    let origin = if A::NEEDS_ORIGINS {
        batch.origin(index)
    } else {
        Origin::default()
    };
    At { time, origin }
}

/// Adds one record to the entry that `candidate` very likely is, and that has been touched already if `TOUCHED`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn add_one<T, K, A, C, const TOUCHED: bool>(
    table: &mut KeyTable<K::Key, A::Acc>,
    key_of: &K,
    aggregate: &A,
    record: &T,
    at: At,
    candidate: u32,
    touch: &mut C,
) where
    K: KeyOf<T>,
    A: Aggregate<T>,
    C: Touch<K::Key, A::Acc>,
{
    key_of.with(
        record,
        #[inline(always)]
        |key| {
            if let Some(acc) = table.verified(candidate, key) {
                if !TOUCHED {
                    touch.touch(candidate, key, acc);
                }
                aggregate.add(acc, record, at);
            } else {
                // Hashed again: what a few need is not kept for all.
                let (id, _) = table.find_or_insert(table.hash(key), key, || aggregate.create());
                let acc = table.value_mut(id);
                touch.touch(id, key, acc);
                aggregate.add(acc, record, at);
            }
        },
    );
}

/// Marks the entries of records `from..to`, which have been added, as changed.
#[inline(never)]
pub(super) fn mark<T, K: KeyOf<T>, V>(
    table: &KeyTable<K::Key, V>,
    key_of: &K,
    op: OpId,
    batch: &Batch<T>,
    from: usize,
    to: usize,
    changed: &mut Changed,
) {
    for (n, record) in batch.records[from..to].iter().enumerate() {
        let id = blame_at(op, from + n, || {
            key_of.with(record, |key| table.find(table.hash(key), key))
        });
        changed.mark(id);
    }
}
