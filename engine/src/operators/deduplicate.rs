//! Deduplication: a time for each key, and what lies too near to it does not pass.
//!
//! Laws
//! 1. A record passes, as it is, unless its key's time lives and lies less than the horizon from its own ([`crate::deduplicate`], law 1).
//! 2. A time lives for the horizon from the record that set it, or from M where that is later. It is not seen any more from then on by
//!    records of that time or behind such an M, whether it has been taken away or not; M takes it away, a bounded piece a step.
//! 3. Records keep their order; between two looks at whether the outputs are full there is one chunk.
//!
//! State: a key and two times, 16 bytes of them, and 16 of the calendar. In a checkpoint an entry a key: `until`, and the time as a part (what
//! a value state with a time to live is there). O(1) a record: one probe, whose cache misses overlap within a chunk.

use crate::batch::Batch;
use crate::budget::{Size, Sizes};
use crate::checkpoint::{
    Cut, Frame, Kept, Loaded, Parts, Saved, Snapshot, Stored, Touch, Untracked, Value,
};
use crate::error::BuildError;
use crate::key::{Key, KeyOf};
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::process::{Expiry, Now, Ttl};
use crate::push::{Cx, OpId, Push, blame_at};
use crate::query::{Ask, Asks};
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::table::{KeyTable, NONE};
use crate::time::{EventTime, Span};
use crate::wheel::Popped;
use std::marker::PhantomData;

/// The state's name.
const NAME: &str = "passed";

/// Times that are taken away in a step. Few where this is tested, so that much is done in several.
const PIECE: u32 = if cfg!(test) { 7 } else { 256 };

/// A key's time.
#[derive(Clone, Copy, Debug)]
struct Passed {
    /// Of the latest record that passed.
    at: EventTime,
    /// Law 2.
    until: i64,
}

impl Passed {
    /// In the place of one that has gone.
    const GONE: Passed = Passed {
        at: EventTime::MIN,
        until: i64::MIN,
    };

    /// Law 1.
    #[inline(always)]
    fn is_near(&self, time: EventTime, horizon: Span) -> bool {
        time < self.at + horizon && self.at < time + horizon
    }
}

impl Stored for Passed {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.number(self.until);
        to.part(&self.at);
    }
}

/// Makes [`DeduplicateOp`] on each shard.
#[derive(Debug)]
pub struct MakeDeduplicate<T, K> {
    pub(crate) key: K,
    pub(crate) horizon: Span,
    pub(crate) op: OpId,
    pub(crate) record: PhantomData<fn(T)>,
}

#[allow(private_interfaces)]
impl<T: Clone + Send + 'static, K: KeyOf<T>> MakeOperator<T> for MakeDeduplicate<T, K> {
    type Op = DeduplicateOp<T, K>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        build.can_be_asked::<K::Key, EventTime>(self.op, NAME);
        Ok(DeduplicateOp {
            key: self.key.clone(),
            op: self.op,
            taking: Taking {
                horizon: self.horizon,
                expiry: Expiry::of(Ttl::event_time(self.horizon)),
                watermark: i64::MIN,
            },
            kept: Kept::of_named::<K::Key, EventTime>(NAME, build, self.op),
            table: KeyTable::new(),
            target: i64::MIN,
            done: 0,
            record: PhantomData,
        })
    }
    fn origins(&self) -> Origins {
        Origins::Keeps
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct DeduplicateOp<T, K: KeyOf<T>> {
    key: K,
    op: OpId,
    taking: Taking,
    /// Where the job takes checkpoints.
    kept: Option<Kept>,
    table: KeyTable<K::Key, Passed>,
    /// M as it was told: above the one that records see while what it takes away goes.
    target: i64,
    /// Records of the batch in hand that have been taken; 0 between batches.
    done: usize,
    record: PhantomData<fn(T)>,
}

/// What a loop over records has besides the table.
struct Taking {
    /// Above zero.
    horizon: Span,
    expiry: Expiry,
    /// M for which all has been done.
    watermark: i64,
}

impl Taking {
    /// A time that a record set. `before` is its key's, if that lives.
    #[inline(always)]
    fn set(&self, time: EventTime, now: i64, before: Option<Passed>) -> Passed {
        Passed {
            // One that comes from before the horizon leaves the later time in its place.
            at: before.map_or(time, |before| before.at.max(time)),
            until: self.expiry.until(now, before.map(|before| before.until)),
        }
    }

    /// Whether a record of this key and time passes, which is noted.
    #[inline(always)]
    fn passes<K: Key, C: Touch<K, Passed>>(
        &mut self,
        table: &mut KeyTable<K, Passed>,
        (hash, candidate): (u64, u32),
        key: &K,
        time: EventTime,
        touch: &mut C,
    ) -> bool {
        let now = time.micros().max(self.watermark);
        let found = match table.verified(candidate, key) {
            Some(_) => candidate,
            None => table.find(hash, key),
        };
        if found == NONE {
            let passed = self.set(time, now, None);
            let id = table.insert_new(hash, key.clone(), passed);
            touch.touch(id, key, table.value(id));
            self.expiry.arm(id, passed.until);
            return true;
        }
        let passed = table.value_mut(found);
        let before = Some(*passed).filter(|passed| passed.until > now);
        if before.is_some_and(|before| before.is_near(time, self.horizon)) {
            return false;
        }
        touch.touch(found, key, passed);
        *passed = self.set(time, now, before);
        self.expiry.arm(found, passed.until);
        true
    }
}

/// Entries that have expired and go in a moment, once the cache has the lines of the index that name them: so these misses overlap.
struct Due {
    all: [(u64, u32); 32],
    len: usize,
}

impl Default for Due {
    fn default() -> Self {
        Due {
            all: [(0, NONE); 32],
            len: 0,
        }
    }
}

impl Due {
    fn is_full(&self) -> bool {
        self.len == self.all.len()
    }

    #[inline(always)]
    fn add<K: Key>(&mut self, id: u32, table: &KeyTable<K, Passed>) {
        let hash = table.hash(table.key(id));
        table.prefetch_slot(hash);
        self.all[self.len] = (hash, id);
        self.len += 1;
    }
}

impl<T: Clone + Send + 'static, K: KeyOf<T>> DeduplicateOp<T, K> {
    /// Takes records `from..to`, at most a chunk.
    #[inline(always)]
    fn chunk<O: Push<T>, C: Touch<K::Key, Passed>>(
        (key_of, op): (&K, OpId),
        (taking, table): (&mut Taking, &mut KeyTable<K::Key, Passed>),
        batch: &Batch<T>,
        (from, to): (usize, usize),
        touch: &mut C,
        out: &mut O,
        cx: &mut Cx,
    ) {
        let probes = probe(table, key_of, op, &batch.records[from..to]);
        let mut stamps = Stamps::from(batch, from);
        for (index, (hash, candidate)) in (from..to).zip(probes) {
            let record = &batch.records[index];
            let time = batch.times[index];
            let passes = blame_at(op, index, || {
                key_of.with(record, |key| {
                    taking.passes(table, (hash, candidate), key, time, touch)
                })
            });
            if passes {
                let stamp = stamps.of(batch, index, cx);
                out.push(record.clone(), stamp, cx);
            } else {
                stamps.pass(index, batch);
            }
        }
    }

    /// Law 2: takes away what has expired, a piece; whether nothing is left.
    fn expire(&mut self) -> bool {
        let mut due = Due::default();
        let mut budget = PIECE;
        let now = Now {
            event: self.target,
            clock: i64::MIN,
        };
        loop {
            let table = &self.table;
            let until = |id| table.is_live(id).then(|| table.value(id).until);
            let soon = |id| table.prefetch_entry(id);
            match self.taking.expiry.next(now, &mut budget, until, soon) {
                Popped::Due { value: id, .. } => {
                    if due.is_full() {
                        self.remove(&mut due);
                    }
                    due.add(id, &self.table);
                }
                Popped::More => {
                    self.remove(&mut due);
                    return false;
                }
                Popped::Nothing => {
                    self.remove(&mut due);
                    return true;
                }
            }
        }
    }

    /// Takes away what is due.
    fn remove(&mut self, due: &mut Due) {
        for &(hash, id) in &due.all[..due.len] {
            // What was told twice is gone by now.
            if !self.table.is_live(id) {
                continue;
            }
            if let Some(kept) = &mut self.kept {
                kept.tracked()
                    .gone(id, self.table.key(id), self.table.value(id));
            }
            self.table.remove_as(hash, id, Passed::GONE);
        }
        due.len = 0;
    }
}

impl<T: Clone + Send + 'static, K: KeyOf<T>> Operator<T> for DeduplicateOp<T, K> {
    type Out = T;

    #[inline]
    fn batch<O: Push<T>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        while self.done < batch.len() {
            let to = (self.done + CHUNK).min(batch.len());
            let (user, part) = ((&self.key, self.op), (self.done, to));
            let state = (&mut self.taking, &mut self.table);
            match &mut self.kept {
                None => Self::chunk(user, state, batch, part, &mut Untracked, out, cx),
                Some(kept) => {
                    let touch = &mut kept.tracked();
                    Self::chunk(user, state, batch, part, touch, out, cx);
                }
            }
            self.done = to;
            if out.blocked() && to < batch.len() {
                return;
            }
        }
        self.done = 0;
        batch.clear();
    }

    fn watermark<O: Push<T>>(&mut self, watermark: EventTime, _: &mut O, _: &mut Cx) {
        self.target = self.target.max(watermark.micros());
    }

    fn resume<O: Push<T>>(&mut self, _: &mut O, _: &mut Cx) -> bool {
        let all = self.expire();
        if all {
            self.taking.watermark = self.target;
        }
        all
    }

    fn begin_epoch(&mut self, cut: Cut) {
        let table = &self.table;
        let watermark = EventTime::from_micros(self.taking.watermark);
        if let Some(kept) = &mut self.kept {
            kept.begin(cut, watermark, table.id_end(), |id| table.is_live(id));
        }
    }

    fn sizes(&self, to: &mut Sizes) {
        let calendar = Size::of::<()>(self.table.len(), 16).bytes;
        let mut size = self.table.size();
        size.bytes += calendar;
        to.push((self.op, NAME, size));
    }

    fn answer(&self, ask: &mut Ask) {
        let table = &self.table;
        let lives =
            |id| Some(table.value(id)).filter(|passed| passed.until > self.taking.watermark);
        ask.answer(table, &|id| Some(&lives(id)?.at));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let table = &self.table;
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| (table.key(id), *table.value(id)))
        })
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        match kept.load::<K::Key>(frame)? {
            Loaded::Others => return Ok(false),
            Loaded::Watermark(watermark) => self.target = watermark.micros(),
            Loaded::Entry(key, Some(bytes)) => {
                let mut from = Parts::of(bytes);
                let until = from.number()?;
                let bytes = from.part_bytes()?;
                from.end()?;
                let saver = &mut kept.keeping.saver;
                let at = saver.load_value::<K::Key, EventTime>(frame, bytes)?;
                let (id, _) = self.table.replace(&key, Passed { at, until });
                kept.restored(id, true);
            }
            Loaded::Entry(key, None) => {
                let id = self.table.find(self.table.hash(&key), &key);
                if id != NONE {
                    kept.restored(id, false);
                    self.table.remove(id, Passed::GONE);
                }
            }
            Loaded::Nothing => {}
        }
        Ok(true)
    }

    fn loaded(&mut self) {
        self.taking.watermark = self.target;
        let mut id = self.table.next_live(0);
        while id < self.table.id_end() {
            self.taking.expiry.arm(id, self.table.value(id).until);
            id = self.table.next_live(id + 1);
        }
    }

    fn restored_watermark(&self) -> EventTime {
        EventTime::from_micros(self.taking.watermark)
    }
}
