//! Patterns: the partial matches of each key, one lazy timer a key.
//!
//! Laws
//! 1. It stands behind an order ([`crate::operators::order`]): records come by (event time, origin), so the matches of a key are a
//!    function of its records.
//! 2. What `within` ends at D goes once M >= D, since all events below D have come by then, and before the key's next event at D or
//!    later, whichever comes first: both tell the same, with the time D. No result lies below the watermark that was passed on.
//! 3. A key is in the table as long as it has a partial match or a timer. Its timer stands no later than the end of its oldest one;
//!    a key whose last match is complete keeps it, since the next one mostly begins soon: the timer takes the key out, if none has. What
//!    has no partial match is not in checkpoints.
//! 4. In a checkpoint a key is one value: partial matches, places and events together. It is bounded ([`Bounds`]), and written whole
//!    when an event of its key has come. State of another pattern is refused, unless none of it is left.
//! 5. A step takes records, or ends what is over, until that has come to [`WORK`]: partial matches that are looked at or go, and places of these.
//!    A record whose key has more to end before it than that waits in its batch. What one record does to those that are not over is not parted, nor
//!    the end of what one event began; so beyond that a step is bounded by what a key may have.
//! 6. What is told of a key at one time is numbered on, wherever it is parted ([`Ending`]).
//!
//! Class: ROWS. Results of one record keep their order and are told apart by their emission.

use crate::aside::Aside;
use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Kept, Loaded, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::{Key, KeyOf, stable_hash};
use crate::key_order;
use crate::operators::running::{CHUNK, probe};
use crate::pattern::{
    Bounds, Entry, KeptRuns, Matched, Matching, Nfa, Runs, Tell, TimedOut, TimedOutTo, Whose,
};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild, StageSpec};
use crate::push::{Control, Cx, OpId, Push, blame, blame_at};
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};
use crate::time::EventTime;
use crate::wheel::{Popped, Timers, Wheel};
use std::cmp::Ordering;
use std::collections::BTreeSet;
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
            kept: Kept::of_values::<K::Key, Entry<T>>(build, self.op),
            key: self.key.clone(),
            select: self.select.clone(),
            nfa: self.nfa.clone(),
            bounds: self.bounds,
            op: self.op,
            store: Store {
                table: KeyTable::new(),
                within: self.nfa.within,
            },
            matching: Matching::new(),
            wheel: Wheel::new(GRAIN),
            reached: i64::MIN,
            target: i64::MIN,
            latest: i64::MIN,
            ending: None,
            firing: false,
            timed_out,
            told: Told::default(),
            others: BTreeSet::new(),
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

struct Store<K> {
    table: KeyTable<K, Runs>,
    within: Option<i64>,
}

impl<K: Key> Timers<u32> for Store<K> {
    fn deadline(&self, id: u32, set: i64) -> i64 {
        let over = |within| self.table.value(id).over(within);
        self.within.and_then(over).unwrap_or(set)
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

/// What has been told and not passed on: empty between two calls.
struct Told<T, O> {
    /// With their times.
    results: Vec<(i64, O)>,
    /// What `select` gives, before it has its time.
    made: Vec<O>,
    timed_out: Vec<TimedOut<T>>,
}

impl<T, O> Default for Told<T, O> {
    fn default() -> Self {
        Told {
            results: vec![],
            made: vec![],
            timed_out: vec![],
        }
    }
}

/// Takes what is told of a key's matches.
struct Telling<'a, T, S, O> {
    select: &'a S,
    told: &'a mut Told<T, O>,
    clone: Option<fn(&T) -> T>,
}

impl<T, S, O> Tell<T> for Telling<'_, T, S, O>
where
    T: State,
    S: Fn(&Matched<'_, T>, &mut Vec<O>),
{
    fn matched(&mut self, matched: &Matched<'_, T>, time: i64) {
        let Told { results, made, .. } = &mut *self.told;
        (self.select)(matched, made);
        results.extend(made.drain(..).map(|made| (time, made)));
    }
    fn timed_out(&mut self, matched: &Matched<'_, T>, over: i64) {
        if let Some(clone) = self.clone {
            self.told.timed_out.push(TimedOut::of(matched, over, clone));
        }
    }
}

/// What is being ended of a key, since its timer has fired or a record of it has come.
#[derive(Clone, Copy)]
struct Ending {
    id: u32,
    /// Up to when.
    until: i64,
    /// The last time of which something has been told, and how many results were (law 6).
    time: i64,
    results: u64,
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
    store: Store<K::Key>,
    matching: Matching<T>,
    wheel: Wheel<u32>,
    /// M whose timers have all fired.
    reached: i64,
    /// M as it was told.
    target: i64,
    /// No partial match is over later.
    latest: i64,
    /// As long as not all of it has been ended.
    ending: Option<Ending>,
    /// Whether that is for a timer.
    firing: bool,
    timed_out: Option<ToTimedOut<T>>,
    told: Told<T, O>,
    /// While a checkpoint is loaded: keys whose partial matches are of another pattern.
    others: BTreeSet<u32>,
}

impl<T, K, S, O> PatternOp<T, K, S, O>
where
    T: State,
    K: KeyOf<T>,
    O: Send + 'static,
    S: Fn(&Matched<'_, T>, &mut Vec<O>) + Clone + Send + 'static,
{
    /// The row of a record's key, made if the record may begin a match.
    fn row_of(&mut self, record: &T, (hash, candidate): (u64, u32), index: usize) -> u32 {
        let (table, key_of) = (&mut self.store.table, &self.key);
        let (matching, nfa) = (&self.matching, &self.nfa);
        blame_at(self.op, index, || {
            key_of.with(record, |key| {
                if table.verified(candidate, key).is_some() && table.is_live(candidate) {
                    return candidate;
                }
                match table.find(hash, key) {
                    NONE if !matching.may_begin(nfa, record) => NONE,
                    NONE => table.insert_new(hash, key.clone(), Runs::new()),
                    id => id,
                }
            })
        })
    }

    /// Whether a partial match of a key ends by this time.
    #[inline]
    fn is_over(&self, id: u32, time: i64) -> bool {
        let Some(within) = self.nfa.within else {
            return false;
        };
        let over = self.store.table.value(id).over(within);
        over.is_some_and(|over| over <= time)
    }

    /// Takes a record when what is over before it has been ended.
    #[inline]
    fn record<P: Push<O>>(
        &mut self,
        id: u32,
        (record, time): (T, i64),
        index: usize,
        out: &mut P,
        cx: &mut Cx,
    ) {
        // A key without partial matches notices only what begins one.
        if self.store.table.value(id).is_empty()
            && !blame_at(self.op, index, || {
                self.matching.may_begin(&self.nfa, &record)
            })
        {
            self.arm(id);
            return;
        }
        let (bounds, op) = (self.bounds, self.op);
        let outcome = self.change(id, cx, |runs, nfa, matching, telling| {
            blame_at(op, index, || {
                matching.event(runs, nfa, &bounds, (record, time), telling)
            })
        });
        if outcome.began
            && let Some(within) = self.nfa.within
        {
            self.latest = self.latest.max(time + within);
        }
        cx.counters.dropped_matches += outcome.dropped;
        if !self.told.results.is_empty() {
            self.push(out, cx);
        }
    }

    /// Ends what is over of a key at `until`, as far as the step goes; whether that is all. It is told with the timer's origin, at the time
    /// when each was over: so what is told does not depend on whether the timer or a record came first.
    fn end<P: Push<O>>(
        &mut self,
        (id, until): (u32, i64),
        index: Option<usize>,
        out: &mut P,
        cx: &mut Cx,
    ) -> bool {
        let own = cx.origin;
        cx.origin = Origin::derived(self.op, stable_hash(self.store.table.key(id)));
        let ending = self.ending.take();
        let mut ending = ending.filter(|e| e.id == id).unwrap_or(Ending {
            id,
            until,
            time: i64::MIN,
            results: 0,
        });
        ending.until = until;
        let op = self.op;
        let all = self.change(id, cx, |runs, nfa, matching, telling| {
            let expire = || matching.expire(runs, nfa, until, WORK, telling);
            match index {
                Some(index) => blame_at(op, index, expire),
                None => blame(op, expire),
            }
        });
        let origin = cx.origin;
        for (time, result) in self.told.results.drain(..) {
            if time != ending.time {
                (ending.time, ending.results) = (time, 0);
            }
            cx.origin.emission = Origin::below(origin.emission, ending.results);
            ending.results += 1;
            let time = time.max(self.reached);
            out.push(result, Stamp::at(EventTime::from_micros(time)), cx);
        }
        cx.origin = own;
        if !all {
            self.ending = Some(ending);
        }
        all
    }

    /// Goes on for a timer that has fired.
    fn fire<P: Push<O>>(&mut self, id: u32, time: i64, out: &mut P, cx: &mut Cx) {
        // No timer is set for what is over already.
        self.firing = true;
        if self.end((id, time), None, out, cx) {
            self.firing = false;
            self.arm(id);
        }
    }

    /// Changes what a key has, and sees to its timer and its place in the checkpoint.
    #[inline]
    fn change<R>(
        &mut self,
        id: u32,
        cx: &mut Cx,
        change: impl FnOnce(&mut Runs, &Nfa<T>, &mut Matching<T>, &mut Telling<'_, T, S, O>) -> R,
    ) -> R {
        let (key, runs) = self.store.table.entry_mut(id);
        let matching = &mut self.matching;
        let print = self.nfa.print;
        if let Some(kept) = &mut self.kept {
            kept.touch(id, key, || KeptRuns {
                runs,
                matching,
                print,
            });
        }
        let mut telling = Telling {
            select: &self.select,
            told: &mut self.told,
            clone: self.timed_out.as_ref().map(|to| to.1),
        };
        let result = change(runs, &self.nfa, matching, &mut telling);
        if let Some((aside, _)) = &mut self.timed_out {
            for one in self.told.timed_out.drain(..) {
                let stamp = Stamp::at(one.over.max(EventTime::from_micros(self.reached)));
                aside.push(one, stamp, cx);
            }
        }
        if !runs.has_timer || runs.is_empty() {
            self.settle(id);
        }
        result
    }

    /// A key has changed: law 3.
    fn settle(&mut self, id: u32) {
        if self.store.table.value(id).is_empty()
            && let Some(kept) = &mut self.kept
        {
            kept.gone(id, self.store.table.key(id));
        }
        if !self.firing {
            self.arm(id);
        }
    }

    /// Sets a key's timer, or takes it out where it needs none.
    fn arm(&mut self, id: u32) {
        let runs = self.store.table.value_mut(id);
        if runs.has_timer {
            return;
        }
        if runs.is_empty() {
            self.store.table.remove(id, Runs::new());
        } else if let Some(within) = self.nfa.within
            && let Some(over) = runs.over(within)
        {
            runs.has_timer = true;
            self.wheel.insert(over, id);
        }
    }

    /// Pushes what has been selected: numbered below the origin that it is made of.
    fn push<P: Push<O>>(&mut self, out: &mut P, cx: &mut Cx) {
        let parent = cx.origin.emission;
        for (n, (time, result)) in (0..).zip(self.told.results.drain(..)) {
            cx.origin.emission = Origin::below(parent, n);
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
        self.matching.work = 0;
        let mut records = batch.take_records();
        let (mut index, mut goes_on) = (0, true);
        while goes_on && !records.is_empty() {
            let (ahead, _) = records.as_slices();
            let probes = probe(
                &self.store.table,
                &self.key,
                self.op,
                &ahead[..CHUNK.min(ahead.len())],
            );
            let count = CHUNK.min(ahead.len());
            for &(_, id) in &probes[..count] {
                if id < self.store.table.id_end() {
                    self.matching.prefetch(self.store.table.value(id));
                }
            }
            for &at in &probes[..count] {
                let Some(record) = records.front() else { break };
                self.matching.work += 1;
                cx.origin = batch.origin(index);
                let id = self.row_of(record, at, index);
                if id != NONE {
                    let time = batch.times[index].micros();
                    if self.is_over(id, time) && !self.end((id, time), Some(index), out, cx) {
                        // The rest of it is ended first: law 5.
                        goes_on = false;
                        break;
                    }
                    let Some(record) = records.pop_front() else {
                        break;
                    };
                    self.record(id, (record, time), index, out, cx);
                } else {
                    records.pop_front();
                }
                index += 1;
                goes_on = self.matching.work < WORK && !out.blocked() && !self.side_is_full();
                if !goes_on {
                    break;
                }
            }
        }
        batch.give_back(records);
    }

    fn watermark<P: Push<O>>(&mut self, watermark: EventTime, _: &mut P, _: &mut Cx) {
        self.target = self.target.max(watermark.micros());
    }

    fn resume<P: Push<O>>(&mut self, out: &mut P, cx: &mut Cx) -> bool {
        let mut budget = PIECE;
        self.matching.work = 0;
        loop {
            let (id, time) = match self.ending {
                Some(ending) => (ending.id, ending.until),
                None => match self.wheel.pop(self.target, &self.store, &mut budget) {
                    Popped::Due { time, value: id } => {
                        let runs = self.store.table.value_mut(id);
                        runs.has_timer = false;
                        if runs.is_empty() {
                            self.arm(id);
                            continue;
                        }
                        (id, time)
                    }
                    Popped::More => return false,
                    Popped::Nothing => break,
                },
            };
            self.fire(id, time, out, cx);
            if self.matching.work >= WORK || out.blocked() || self.side_is_full() {
                return false;
            }
        }
        self.reached = self.target;
        true
    }

    fn close_idle(&mut self) -> Option<EventTime> {
        let waits = self.nfa.within.is_some() && !self.matching.is_empty();
        waits.then(|| EventTime::from_micros(self.latest))
    }

    fn begin_epoch(&mut self, cut: Cut) {
        let table = &self.store.table;
        if let Some(kept) = &mut self.kept {
            let reached = EventTime::from_micros(self.reached);
            let is_kept = |id| table.is_live(id) && !table.value(id).is_empty();
            kept.begin(cut, reached, table.id_end(), is_kept);
        }
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "keyed", self.store.table.size()));
        to.push((self.op, "events", self.matching.size()));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let (table, matching, print) = (&self.store.table, &self.matching, self.nfa.print);
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| {
                let kept = KeptRuns {
                    runs: table.value(id),
                    matching,
                    print,
                };
                (table.key(id), kept)
            })
        })
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        let (table, matching) = (&mut self.store.table, &mut self.matching);
        match kept.load(frame)? {
            Loaded::Others => return Ok(false),
            Loaded::Nothing => {}
            Loaded::Watermark(watermark) => self.reached = watermark.micros(),
            Loaded::Entry::<K::Key>(key, None) => {
                let id = table.find(table.hash(&key), &key);
                if id != NONE {
                    matching.clear(table.value_mut(id));
                    table.remove(id, Runs::new());
                    self.others.remove(&id);
                    kept.restored(id, false);
                }
            }
            Loaded::Entry(key, Some(value)) => {
                let (id, _) = table.find_or_insert(table.hash(&key), &key, Runs::new);
                let runs = table.value_mut(id);
                matching.clear(runs);
                match matching.load(runs, &self.nfa, value)? {
                    Whose::Own => self.others.remove(&id),
                    Whose::Others => self.others.insert(id),
                };
                kept.restored(id, true);
            }
        }
        Ok(true)
    }

    /// Those of another pattern that were there once may have ended since.
    fn check_loaded(&self) -> Result<(), LoadError> {
        match self.others.is_empty() {
            true => Ok(()),
            false => Err(LoadError::new(
                "the partial matches are of another pattern: keep its elements as they were, give it another uid, or change it when none is left",
            )),
        }
    }

    fn loaded(&mut self) {
        self.target = self.reached;
        for id in 0..self.store.table.id_end() {
            if self.store.table.is_live(id) {
                if let Some(within) = self.nfa.within {
                    let runs = self.store.table.value(id);
                    let last = self.matching.over_last(runs, within);
                    self.latest = self.latest.max(last.unwrap_or(i64::MIN));
                }
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
