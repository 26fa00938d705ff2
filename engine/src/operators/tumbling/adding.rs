//! Adding records to a window's table: in a large one the cache misses of different records overlap.

use crate::aggregate::{Aggregate, At};
use crate::batch::{Batch, Origin};
use crate::checkpoint::Touch;
use crate::key::KeyOf;
use crate::operators::early::Changed;
use crate::push::{OpId, blame_at};
use crate::table::{CACHED, Home, KeyTable, NONE};
use crate::time::EventTime;

/// Records whose probes are under way together: enough to hide the misses of one another.
pub(super) const CHUNK: usize = 64;

/// Fewer records than these are added one after another.
const FEW: usize = 8;

/// Adds records `from..to` of one window to its table.
///
/// In three passes over a chunk: hash, look the slot up, add. What one record waits for then overlaps with what others do: in a
/// table that is larger than a cache the misses, which are asked for in the pass before (a small one lies in the cache, and
/// asking costs 2%); in a small one the loads that hang on each other (YSB gains 4%). A few records are not worth the passes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn add_chunk<T, K: KeyOf<T>, A: Aggregate<T>, C: Touch<K::Key, A::Acc>>(
    table: &mut KeyTable<K::Key, A::Acc>,
    key_of: &K,
    aggregate: &A,
    op: OpId,
    batch: &Batch<T>,
    from: usize,
    to: usize,
    touch: &mut C,
) {
    let records = &batch.records[from..to];
    let times = &batch.times[from..to];
    let is_large = table.len() >= CACHED;
    if !is_large && records.len() < FEW {
        for (n, (record, &time)) in records.iter().zip(times).enumerate() {
            blame_at(
                op,
                from + n,
                #[inline(always)]
                || {
                    let hash = key_of.with(record, |key| table.hash(key));
                    let candidate = table.candidate(hash);
                    add_one::<_, _, _, _, false>(
                        table,
                        key_of,
                        aggregate,
                        batch,
                        from + n,
                        record,
                        time,
                        hash,
                        candidate,
                        touch,
                    );
                },
            );
        }
        return;
    }
    let mut found = [NONE; CHUNK];
    let mut hashes = [0u64; CHUNK];
    if is_large {
        look_up::<_, _, _, true>(table, key_of, op, from, records, &mut hashes, &mut found);
    } else {
        look_up::<_, _, _, false>(table, key_of, op, from, records, &mut hashes, &mut found);
    }
    touch.touch_all(found[..records.len()].iter().copied(), table);
    let looked_up = hashes.iter().zip(&found);
    for (n, ((record, &time), (&hash, &found))) in
        records.iter().zip(times).zip(looked_up).enumerate()
    {
        blame_at(
            op,
            from + n,
            #[inline(always)]
            || {
                add_one::<_, _, _, _, true>(
                    table,
                    key_of,
                    aggregate,
                    batch,
                    from + n,
                    record,
                    time,
                    hash,
                    found,
                    touch,
                );
            },
        );
    }
}

/// The first two passes over a chunk.
#[inline(always)]
fn look_up<T, K: KeyOf<T>, V, const LARGE: bool>(
    table: &KeyTable<K::Key, V>,
    key_of: &K,
    op: OpId,
    from: usize,
    records: &[T],
    hashes: &mut [u64; CHUNK],
    found: &mut [u32; CHUNK],
) {
    let mut homes = [Home::default(); CHUNK];
    let to_hash = records.iter().zip(hashes.iter_mut()).zip(&mut homes);
    for (n, ((record, hash), home)) in to_hash.enumerate() {
        *hash = blame_at(
            op,
            from + n,
            #[inline(always)]
            || key_of.with(record, |key| table.hash(key)),
        );
        *home = table.home(*hash);
        if LARGE {
            home.prefetch();
        }
    }
    let to_find = homes.iter().zip(hashes.iter()).zip(found.iter_mut());
    for ((home, &hash), found) in to_find.take(records.len()) {
        *found = home.candidate(hash);
        if LARGE {
            table.prefetch_entry(*found);
        }
    }
}

/// Adds one record to the entry that `candidate` very likely is, and that has been touched already if `TOUCHED`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn add_one<T, K, A, C, const TOUCHED: bool>(
    table: &mut KeyTable<K::Key, A::Acc>,
    key_of: &K,
    aggregate: &A,
    batch: &Batch<T>,
    index: usize,
    record: &T,
    time: EventTime,
    hash: u64,
    candidate: u32,
    touch: &mut C,
) where
    K: KeyOf<T>,
    A: Aggregate<T>,
    C: Touch<K::Key, A::Acc>,
{
    let origin = if A::NEEDS_ORIGINS {
        batch.origin(index)
    } else {
        Origin::default()
    };
    let at = At { time, origin };
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
                let (id, _) = table.find_or_insert(hash, key, || aggregate.create());
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
