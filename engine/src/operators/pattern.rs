//! Patterns: the partial matches of each key, one lazy timer a key.
//!
//! Laws
//! 1. It stands behind an order ([`crate::operators::order`]): records come by (event time, origin), so the matches of a key are a
//!    function of its records.
//! 2. What `within` ends at D goes once M >= D, since all events below D have come by then, and before the key's next event at D or
//!    later, whichever comes first: both tell the same, with the time D. No result lies below the watermark that was passed on.
//! 3. A key is in the table as long as it has a partial match. Its timer stands no later than the end of its oldest one.
//! 4. In a checkpoint a key is one value: partial matches, places and events together. It is bounded ([`Bounds`]), and written whole
//!    when an event of its key has come. State of another pattern is refused, unless none of it is left.
//! 5. A step takes records, or ends what is over, until that has come to [`WORK`]: partial matches that are looked at or go, and places of these.
//!    What one record does is not parted, nor the end of what one event began; so beyond that a step is bounded by what a key may have.
//!
//! Class: ROWS. Results of one record keep their order and are told apart by their emission.

use crate::aside::Aside;
use crate::batch::{Batch, Origin, Stamp};
use crate::budget::{Size, Sizes};
use crate::checkpoint::{Cut, Frame, Kept, Loaded, Saved, Snapshot, Whole};
use crate::error::BuildError;
use crate::key::{Key, KeyOf, stable_hash};
use crate::key_order;
use crate::pattern::{Bounds, Matched, Nfa, Runs, Scratch, Tell, TimedOut, TimedOutTo};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild, StageSpec};
use crate::push::{Control, Cx, OpId, Push, blame, blame_at};
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};
use crate::time::EventTime;
use crate::wheel::{Popped, Timer, Timers, Wheel};
use std::cmp::Ordering;
use std::marker::PhantomData;

/// What a step does (law 5), and moves of timers in a step.
const WORK: usize = if cfg!(test) { 16 } else { 4096 };
const PIECE: u32 = 256;
/// Timers are sorted within 1 ms.
const GRAIN: u32 = 10;

/// Makes [`PatternOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakePattern<T, K, S, O> {
    pub(crate) key: K,
    pub(crate) nfa: Nfa<T>,
    pub(crate) select: S,
    pub(crate) bounds: Bounds,
    pub(crate) timed_out: Option<TimedOutTo<T>>,
    pub(crate) op: OpId,
    pub(crate) results: PhantomData<fn() -> O>,
}

#[allow(private_interfaces)]
impl<T, K, S, O> MakeOperator<T> for MakePattern<T, K, S, O>
where
    T: State,
    K: KeyOf<T>,
    O: Send + 'static,
    S: Fn(&Matched<'_, T>, &mut Vec<O>) + Clone + Send + 'static,
{
    type Op = PatternOp<T, K, S, O>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        let aside = |(to, clone): &TimedOutTo<T>| (to.aside(build), *clone);
        let timed_out = self.timed_out.as_ref().map(aside);
        Ok(PatternOp {
            kept: Kept::of_values::<K::Key, Runs<T>>(build, self.op),
            key: self.key.clone(),
            select: self.select.clone(),
            nfa: self.nfa.clone(),
            bounds: self.bounds,
            op: self.op,
            store: Store {
                table: KeyTable::new(),
                within: self.nfa.within,
            },
            wheel: Wheel::new(GRAIN),
            reached: i64::MIN,
            target: i64::MIN,
            latest: i64::MIN,
            ending: None,
            held: Size::default(),
            timed_out,
            scratch: Scratch::default(),
            results: vec![],
        })
    }
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        let to = self.timed_out.as_mut();
        to.and_then(|(to, _)| to.stage()).into_iter().collect()
    }
    fn origins(&self) -> Origins {
        Origins::Needs
    }
}

/// The way to the timed-out output on one shard, and how events are copied.
type ToTimedOut<T> = (Aside<TimedOut<T>>, fn(&T) -> T);

/// What a key has.
struct Keyed<T> {
    runs: Runs<T>,
    timer: Option<Timer>,
}

impl<T: State> Keyed<T> {
    fn new(print: u64) -> Self {
        Keyed {
            runs: Runs::new(print),
            timer: None,
        }
    }
}

struct Store<K, T> {
    table: KeyTable<K, Keyed<T>>,
    within: Option<i64>,
}

impl<K: Key, T: State> Store<K, T> {
    /// When the oldest partial match of a key is over.
    fn over(&self, id: u32) -> Option<i64> {
        self.table.value(id).runs.over(self.within?)
    }
}

impl<K: Key, T: State> Timers<u32> for Store<K, T> {
    fn deadline(&self, id: u32, set: i64) -> i64 {
        self.over(id).unwrap_or(set)
    }
    fn prefetch(&self, id: u32) {
        self.table.prefetch_entry(id);
    }
    fn tie(&self, id: u32) -> u64 {
        key_order::first_word(self.table.key(id))
    }
    fn order(&self, a: u32, b: u32) -> Ordering {
        key_order::compare(self.table.key(a), self.table.key(b))
    }
}

/// Takes what is told of a key's matches.
struct Telling<'a, T, S, O> {
    select: &'a S,
    results: &'a mut Vec<(i64, O)>,
    /// What `select` gives, before it has its time.
    made: Vec<O>,
    timed_out: Option<fn(&T) -> T>,
    gone: Vec<TimedOut<T>>,
}

impl<T, S, O> Tell<T> for Telling<'_, T, S, O>
where
    T: State,
    S: Fn(&Matched<'_, T>, &mut Vec<O>),
{
    fn matched(&mut self, matched: &Matched<'_, T>, time: i64) {
        (self.select)(matched, &mut self.made);
        self.results
            .extend(self.made.drain(..).map(|made| (time, made)));
    }
    fn timed_out(&mut self, matched: &Matched<'_, T>, over: i64) {
        if let Some(clone) = self.timed_out {
            self.gone.push(TimedOut::of(matched, over, clone));
        }
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct PatternOp<T: State, K: KeyOf<T>, S, O> {
    key: K,
    select: S,
    nfa: Nfa<T>,
    bounds: Bounds,
    op: OpId,
    /// Where the job takes checkpoints.
    kept: Option<Kept>,
    store: Store<K::Key, T>,
    wheel: Wheel<u32>,
    /// M whose timers have all fired.
    reached: i64,
    /// M as it was told.
    target: i64,
    /// No partial match is over later.
    latest: i64,
    /// The key whose timer has fired, and when, as long as not all has been ended.
    ending: Option<(u32, i64)>,
    /// What all keys have: events, and the bytes of these, of places and of partial matches.
    held: Size,
    timed_out: Option<ToTimedOut<T>>,
    scratch: Scratch,
    /// What has been selected and not pushed on: empty between two calls.
    results: Vec<(i64, O)>,
}

impl<T, K, S, O> PatternOp<T, K, S, O>
where
    T: State,
    K: KeyOf<T>,
    O: Send + 'static,
    S: Fn(&Matched<'_, T>, &mut Vec<O>) + Clone + Send + 'static,
{
    /// Takes a record.
    fn record<P: Push<O>>(
        &mut self,
        (record, time): (T, EventTime),
        index: usize,
        out: &mut P,
        cx: &mut Cx,
    ) {
        let mut id = self.row_of(&record, index);
        self.scratch.work += 1;
        if id == NONE {
            return;
        }
        if self.is_over(id, time.micros()) {
            self.end_before(id, (&record, time.micros()), index, out, cx);
            id = self.row_of(&record, index);
            if id == NONE {
                return;
            }
        }
        let time = time.micros();
        let bounds = self.bounds;
        let op = self.op;
        let dropped = self.change(id, cx, |runs, nfa, scratch, telling| {
            blame_at(op, index, || {
                runs.event(nfa, &bounds, (record, time), scratch, telling)
            })
        });
        cx.counters.dropped_matches += dropped;
        self.push(out, cx);
    }

    /// The row of a record's key, made if the record may begin a match.
    fn row_of(&mut self, record: &T, index: usize) -> u32 {
        let (table, print) = (&mut self.store.table, self.nfa.print);
        let (key_of, nfa) = (&self.key, &self.nfa);
        blame_at(self.op, index, || {
            key_of.with(record, |key| {
                let hash = table.hash(key);
                match table.find(hash, key) {
                    NONE if !Runs::may_begin(nfa, record) => NONE,
                    NONE => table.find_or_insert(hash, key, || Keyed::new(print)).0,
                    id => id,
                }
            })
        })
    }

    /// Whether a partial match of a key ends by this time.
    fn is_over(&self, id: u32, time: i64) -> bool {
        let Some(within) = self.nfa.within else {
            return false;
        };
        let over = self.store.table.value(id).runs.over(within);
        over.is_some_and(|over| over <= time)
    }

    /// Ends what is over before a record comes: as its timer would, one time after another and with the timer's origin, so that what is told does
    /// not depend on which of both came first.
    fn end_before<P: Push<O>>(
        &mut self,
        id: u32,
        (record, time): (&T, i64),
        index: usize,
        out: &mut P,
        cx: &mut Cx,
    ) {
        let (own, op) = (cx.origin, self.op);
        cx.origin = Origin::derived(op, stable_hash(self.store.table.key(id)));
        let mut now = id;
        while now != NONE && self.is_over(now, time) {
            let over = self
                .nfa
                .within
                .and_then(|w| self.store.table.value(now).runs.over(w));
            self.change(now, cx, |runs, nfa, scratch, telling| {
                blame_at(op, index, || {
                    runs.expire(nfa, over.unwrap_or(time), usize::MAX, scratch, telling);
                });
            });
            self.push(out, cx);
            let (table, key_of) = (&self.store.table, &self.key);
            // It has gone if that was all that it had.
            now = key_of.with(record, |key| table.find(table.hash(key), key));
        }
        cx.origin = own;
    }

    /// Ends what is over of a key whose timer has fired, as far as the step goes.
    fn end<P: Push<O>>(&mut self, id: u32, time: i64, out: &mut P, cx: &mut Cx) {
        cx.origin = Origin::derived(self.op, stable_hash(self.store.table.key(id)));
        let op = self.op;
        // No timer is set for what is over already.
        self.ending = Some((id, time));
        let all = self.change(id, cx, |runs, nfa, scratch, telling| {
            blame(op, || runs.expire(nfa, time, WORK, scratch, telling))
        });
        self.push(out, cx);
        if all {
            self.ending = None;
            if self.store.table.is_live(id) {
                self.arm(id);
            }
        }
    }

    /// Changes what a key has, and sees to its timer, its size and its place in the checkpoint.
    fn change<R>(
        &mut self,
        id: u32,
        cx: &mut Cx,
        change: impl FnOnce(&mut Runs<T>, &Nfa<T>, &mut Scratch, &mut Telling<'_, T, S, O>) -> R,
    ) -> R {
        let (key, keyed) = self.store.table.entry_mut(id);
        if let Some(kept) = &mut self.kept {
            kept.touch(id, key, || Whole(&keyed.runs));
        }
        let before = keyed.runs.size();
        let mut telling = Telling {
            select: &self.select,
            results: &mut self.results,
            made: vec![],
            timed_out: self.timed_out.as_ref().map(|to| to.1),
            gone: vec![],
        };
        let result = change(&mut keyed.runs, &self.nfa, &mut self.scratch, &mut telling);
        let gone = telling.gone;
        let after = keyed.runs.size();
        self.held.entries = self.held.entries + after.entries - before.entries;
        self.held.bytes = self.held.bytes + after.bytes - before.bytes;
        if let Some((aside, _)) = &mut self.timed_out {
            for one in gone {
                let stamp = Stamp::at(one.over.max(EventTime::from_micros(self.reached)));
                aside.push(one, stamp, cx);
            }
        }
        self.arm(id);
        result
    }

    /// Law 3.
    fn arm(&mut self, id: u32) {
        let keyed = self.store.table.value_mut(id);
        if keyed.runs.is_empty() {
            if let Some(timer) = keyed.timer.take() {
                self.wheel.cancel(timer, &self.store);
            }
            if let Some(kept) = &mut self.kept {
                kept.gone(id, self.store.table.key(id));
            }
            self.store.table.remove(id, Keyed::new(self.nfa.print));
            return;
        }
        let Some(within) = self.nfa.within else {
            return;
        };
        self.latest = self
            .latest
            .max(keyed.runs.over_last(within).unwrap_or(i64::MIN));
        if keyed.timer.is_none()
            && self.ending.is_none()
            && let Some(over) = keyed.runs.over(within)
        {
            keyed.timer = Some(self.wheel.insert(over, id));
        }
    }

    /// Pushes what has been selected: numbered below the origin that it is made of.
    fn push<P: Push<O>>(&mut self, out: &mut P, cx: &mut Cx) {
        let parent = cx.origin.emission;
        for (n, (time, result)) in self.results.drain(..).enumerate() {
            cx.origin.emission = Origin::below(parent, n as u64);
            let time = time.max(self.reached);
            out.push(result, Stamp::at(EventTime::from_micros(time)), cx);
        }
        cx.origin.emission = parent;
    }

    fn side_is_full(&self) -> bool {
        self.timed_out.as_ref().is_some_and(|to| to.0.blocked())
    }
}

impl<T, K, S, O> Operator<T> for PatternOp<T, K, S, O>
where
    T: State,
    K: KeyOf<T>,
    O: Send + 'static,
    S: Fn(&Matched<'_, T>, &mut Vec<O>) + Clone + Send + 'static,
{
    type Out = O;

    fn batch<P: Push<O>>(&mut self, batch: &mut Batch<T>, out: &mut P, cx: &mut Cx) {
        let mut index = 0;
        self.scratch.work = 0;
        batch.consume(|record, stamp, origin| {
            cx.origin = origin;
            self.record((record, stamp.time), index, out, cx);
            index += 1;
            self.scratch.work < WORK && !out.blocked() && !self.side_is_full()
        });
    }

    fn watermark<P: Push<O>>(&mut self, watermark: EventTime, _: &mut P, _: &mut Cx) {
        self.target = self.target.max(watermark.micros());
    }

    fn resume<P: Push<O>>(&mut self, out: &mut P, cx: &mut Cx) -> bool {
        let mut budget = PIECE;
        self.scratch.work = 0;
        loop {
            let (id, time) = match self.ending {
                Some(ending) => ending,
                None => match self.wheel.pop(self.target, &self.store, &mut budget) {
                    Popped::Due { time, value: id } => {
                        self.store.table.value_mut(id).timer = None;
                        (id, time)
                    }
                    Popped::More => return false,
                    Popped::Nothing => break,
                },
            };
            self.end(id, time, out, cx);
            if self.scratch.work >= WORK || out.blocked() || self.side_is_full() {
                return false;
            }
        }
        self.reached = self.target;
        true
    }

    fn close_idle(&mut self) -> Option<EventTime> {
        let has_timers = self.nfa.within.is_some() && !self.store.table.is_empty();
        has_timers.then(|| EventTime::from_micros(self.latest))
    }

    fn begin_epoch(&mut self, cut: Cut) {
        let table = &self.store.table;
        if let Some(kept) = &mut self.kept {
            let reached = EventTime::from_micros(self.reached);
            kept.begin(cut, reached, table.id_end(), |id| table.is_live(id));
        }
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "keyed", self.store.table.size()));
        to.push((self.op, "events", self.held));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let table = &self.store.table;
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| (table.key(id), Whole(&table.value(id).runs)))
        })
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        let table = &mut self.store.table;
        match kept.load(frame)? {
            Loaded::Others => return Ok(false),
            Loaded::Nothing => {}
            Loaded::Watermark(watermark) => self.reached = watermark.micros(),
            Loaded::Entry::<K::Key>(key, None) => {
                let id = table.find(table.hash(&key), &key);
                if id != NONE {
                    table.remove(id, Keyed::new(self.nfa.print));
                    kept.restored(id, false);
                }
            }
            Loaded::Entry(key, Some(value)) => {
                let saver = &mut kept.keeping.saver;
                let runs: Runs<T> = saver.load_value::<K::Key, Runs<T>>(frame, value)?;
                let (id, _) = table.replace(&key, Keyed { runs, timer: None });
                kept.restored(id, true);
            }
        }
        Ok(true)
    }

    /// Those of another pattern that were there once may have ended since.
    fn check_loaded(&self) -> Result<(), LoadError> {
        let table = &self.store.table;
        let mut live = (0..table.id_end()).filter(|&id| table.is_live(id));
        match live.any(|id| table.value(id).runs.print != self.nfa.print) {
            false => Ok(()),
            true => Err(LoadError::new(
                "the partial matches are of another pattern: keep its elements as they were, give it another uid, or change it when none is left",
            )),
        }
    }

    fn loaded(&mut self) {
        self.target = self.reached;
        for id in 0..self.store.table.id_end() {
            if self.store.table.is_live(id) {
                self.held = self.held.and(self.store.table.value(id).runs.size());
                self.arm(id);
            }
        }
    }

    fn restored_watermark(&self) -> EventTime {
        EventTime::from_micros(self.reached)
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        if let Some((aside, _)) = &mut self.timed_out {
            aside.control(event, cx);
        }
    }

    fn side_blocked(&self) -> bool {
        self.side_is_full()
    }
}
