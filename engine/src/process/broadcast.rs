//! Broadcast state: a small map that every shard has whole; a stream beside the keyed one writes it, functions by key read it.
//!
//! Laws
//! 1. The stream that writes goes to one shard and from there to all. So it is written on each shard by the same records in one order, those of
//!    a source partition in theirs, and at a barrier all shards have the same map ([`Copies`]).
//! 2. What is done with a record by key sees the map as it is when the record comes: class EXEMPT.
//! 3. The stream that writes says nothing of time: its edge is quiet (`edge/broadcast.rs`).
//! 4. Entries are gone through in the order of their keys, whatever was put in when, on every shard and after every restore.

use super::OnTimer;
use super::build::Process;
use super::context::Context;
use super::rows::Rows;
use super::states::{KeptStates, Named, States, Who};
use super::ttl::Now;
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::edge::Wiring;
use crate::error::BuildError;
use crate::key::{Key, KeyOf};
use crate::keyed::KeyedStream;
use crate::operators::broadcast_process::{BroadcastKey, MakeBroadcastProcess};
use crate::operators::copies::Copies;
use crate::operators::process::MakeProcess;
use crate::ops::Mapped;
use crate::pipeline::Pipeline;
use crate::plan::{Class, EdgeId, Results, ShardBuild, SharedPlan};
use crate::push::OpId;
use crate::sides::Sides;
use crate::state::{LoadError, State};
use crate::stream::{Stream, close, inlet, refuse_two_jobs};
use crate::terminal::{ToBroadcast, ToPartition};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::Location;

/// The states of a key as a function sees them.
type Of<'a, K, S> = <<S as States<K>>::Kept as KeptStates<K>>::Of<'a>;
/// Its broadcast states as they are written.
type Writes<'a, K, S> = <<S as States<K>>::Kept as KeptStates<K>>::Broadcast<'a>;

/// A broadcast state of this name: see [`broadcast_map`].
#[derive(Debug)]
pub struct BroadcastMapOf<E, V> {
    name: &'static str,
    types: PhantomData<fn() -> (E, V)>,
}

// Whatever is in it.
impl<E, V> Clone for BroadcastMapOf<E, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E, V> Copy for BroadcastMapOf<E, V> {}

/// Asks for a map that every shard has whole: `broadcast_map::<u32, Rule>("rules")`. It is written by the stream that
/// [`Process::connect_broadcast`] brings, and read by functions of any key. Names are those of the operator: each once.
pub fn broadcast_map<E: Key + Ord, V: State>(name: &'static str) -> BroadcastMapOf<E, V> {
    BroadcastMapOf {
        name,
        types: PhantomData,
    }
}

/// A shard's copy.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct KeptBroadcast<E, V> {
    name: &'static str,
    copies: Copies<E, V>,
    /// Law 4: by key, its entry in the table.
    order: BTreeMap<E, u32>,
}

/// A broadcast state as functions by key see it: they read.
#[allow(missing_debug_implementations)]
pub struct BroadcastState<'a, E, V>(&'a KeptBroadcast<E, V>);

impl<E: Key + Ord, V: State> BroadcastState<'_, E, V> {
    /// The value of an entry. A probe.
    pub fn get(&self, key: &E) -> Option<&V> {
        self.0.copies.get(key)
    }

    /// Whether there is an entry.
    pub fn contains(&self, key: &E) -> bool {
        self.get(key).is_some()
    }

    /// How many there are. O(1).
    pub fn len(&self) -> usize {
        self.0.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.order.is_empty()
    }

    /// The entries, in the order of their keys. O(entries), so with each record only where there are few.
    pub fn iter(&self) -> impl Iterator<Item = (&E, &V)> {
        let entries = self.0.order.iter();
        entries.filter_map(|(key, &id)| self.0.copies.at(id).map(|value| (key, value)))
    }
}

/// A broadcast state as the stream beside sees it: it writes.
#[allow(missing_debug_implementations)]
pub struct BroadcastWriter<'a, E, V>(&'a mut KeptBroadcast<E, V>);

impl<E: Key + Ord, V: State> BroadcastWriter<'_, E, V> {
    /// What there is to be read.
    pub fn read(&self) -> BroadcastState<'_, E, V> {
        BroadcastState(self.0)
    }

    /// The value of an entry.
    pub fn get(&self, key: &E) -> Option<&V> {
        self.0.copies.get(key)
    }

    /// Sets the value of an entry, which need not be there.
    pub fn insert(&mut self, key: E, value: V) {
        let id = self.0.copies.set(&key, value);
        self.0.order.insert(key, id);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &E) -> Option<V> {
        self.0.order.remove(key);
        self.0.copies.remove(key)
    }
}

#[allow(private_interfaces)]
impl<K: Key, E: Key + Ord, V: State> States<K> for BroadcastMapOf<E, V> {
    type Kept = KeptBroadcast<E, V>;
    fn names(&self, out: &mut Vec<Named>) {
        out.push(Named {
            name: self.name,
            ttl: None,
            is_broadcast: true,
        });
    }
    fn open(&self, build: &mut ShardBuild<'_, '_>, op: OpId) -> KeptBroadcast<E, V> {
        KeptBroadcast {
            name: self.name,
            copies: Copies::of_named(self.name, build, op),
            order: BTreeMap::new(),
        }
    }
}

#[allow(private_interfaces)]
impl<K: Key, E: Key + Ord, V: State> KeptStates<K> for KeptBroadcast<E, V> {
    type Place = ();
    type Of<'a> = BroadcastState<'a, E, V>;
    type Broadcast<'a> = BroadcastWriter<'a, E, V>;
    #[inline(always)]
    fn of<'a>(&'a mut self, _: &'a mut (), _: Who<'a, K>) -> BroadcastState<'a, E, V> {
        BroadcastState(self)
    }
    fn broadcast(&mut self) -> BroadcastWriter<'_, E, V> {
        BroadcastWriter(self)
    }
    fn is_empty(_: &()) -> bool {
        true
    }
    fn begin_epoch(&mut self, cut: Cut, _: &mut dyn Rows<K, ()>) {
        self.copies.begin_epoch(cut);
    }
    fn save(&mut self, to: &mut Snapshot<'_>, _: &mut dyn Rows<K, ()>) -> Saved {
        self.copies.save(to)
    }
    fn load(&mut self, frame: &Frame<'_>, _: &mut dyn Rows<K, ()>) -> Result<bool, LoadError> {
        let order = &mut self.order;
        self.copies.load(frame, |key, id| {
            match id {
                Some(id) => order.insert(key.clone(), id),
                None => order.remove(key),
            };
        })
    }
    fn loaded(&mut self, _: &mut dyn Rows<K, ()>) {}
    fn expire(&mut self, _: &mut dyn Rows<K, ()>, _: Now, _: &mut u32) -> bool {
        true
    }
    fn next_by_clock(&self) -> Option<i64> {
        None
    }
    fn sizes(&self, op: OpId, out: &mut Sizes) {
        out.push((op, self.name, self.copies.size()));
    }
}

impl<P: Pipeline, K: KeyOf<P::Item>, S, O, G, C> Process<KeyedStream<P, K>, P::Item, K, S, O, G, C>
where
    S: States<K::Key>,
    O: Send + 'static,
    G: OnTimer<K::Key, S, O>,
    C: OnTimer<K::Key, S, O>,
{
    /// Brings a stream whose every record comes to every shard and writes the function's [broadcast states](broadcast_map): rules,
    /// thresholds, names, that all keys go by. `write` is called with the record and the states as they were asked for: a
    /// [`BroadcastWriter`] in the place of each broadcast state, and `()` in that of a state by key, which it cannot see. It emits nothing.
    /// (Flink's `KeyedBroadcastProcessFunction`.)
    ///
    /// Class EXEMPT: a record meets the map as it is when it comes, and nothing waits for the map to be there; what the map holds in the end is
    /// fixed if the stream has one partition, or the entries that its partitions write are different ones. Records of a source partition come in their order,
    /// and all records in one order on every shard, by way of one of them. The stream's event times do not count: it holds no
    /// watermark back, and none of its records is late. State: the map on every shard, in checkpoints as well, until `write` removes entries; no warning
    /// tells of a map that only grows. A record costs a copy a shard.
    ///
    /// `write` must do the same on each shard: it goes by the record and the map, and by nothing else.
    ///
    /// ```
    /// use pelton::process::{broadcast_map, value};
    /// use pelton::{Job, testing};
    /// let (limits, limit_source) = testing::feed::<(String, u64)>(1);
    /// let (payments, payment_source) = testing::feed::<(u64, String, u64)>(1);
    /// let (alerts, sink) = testing::collect();
    /// let job = Job::new("limits");
    /// let limit_stream = job.source(limit_source);
    /// job.source(payment_source)
    ///     .key_by(|p| p.0)
    ///     .process("over the limit", (value::<u64>("paid"), broadcast_map::<String, u64>("limits")))
    ///     .states_stay_few()
    ///     .connect_broadcast(limit_stream, |limit, (_, limits)| limits.insert(limit.0.clone(), limit.1))
    ///     .each(|payment, (paid, limits), cx| {
    ///         *paid.or_default() += payment.2;
    ///         let paid = paid.get().copied().unwrap_or_default();
    ///         if limits.get(&payment.1).is_some_and(|limit| paid > *limit) {
    ///             cx.emit((payment.0, paid));
    ///         }
    ///     })
    ///     .sink(sink);
    /// let mut stepper = testing::Stepper::new(&job, 2).unwrap();
    /// limits.push(0, ("EUR".into(), 100));
    /// stepper.until_idle().unwrap();
    /// payments.push(0, (7, "EUR".into(), 80));
    /// payments.push(0, (7, "EUR".into(), 30));
    /// stepper.until_idle().unwrap();
    /// assert_eq!(alerts.take(), [(7, 110)]);
    /// ```
    #[track_caller]
    pub fn connect_broadcast<Q, H>(
        self,
        stream: Stream<Q>,
        write: H,
    ) -> BroadcastProcess<P, K, Q, S, O, G, C, H>
    where
        Q: Pipeline<Item: Clone>,
        H: Fn(&Q::Item, &mut Writes<'_, K::Key, S>) + Clone + Send + 'static,
    {
        BroadcastProcess {
            process: self,
            stream,
            write,
            location: Location::caller(),
        }
    }
}

/// A process function with a broadcast side being written: [`BroadcastProcess::each`] ends it.
#[must_use = "a process function does nothing until `each` says what it does with records"]
#[allow(missing_debug_implementations)]
pub struct BroadcastProcess<P: Pipeline, K, Q: Pipeline, S, O, G, C, H> {
    process: Process<KeyedStream<P, K>, P::Item, K, S, O, G, C>,
    stream: Stream<Q>,
    write: H,
    location: &'static Location<'static>,
}

impl<P, K, Q, S, O, G, C, H> BroadcastProcess<P, K, Q, S, O, G, C, H>
where
    P: Pipeline,
    K: KeyOf<P::Item>,
    Q: Pipeline<Item: Clone>,
    S: States<K::Key>,
    O: Send + 'static,
    G: OnTimer<K::Key, S, O>,
    C: OnTimer<K::Key, S, O>,
    H: Fn(&Q::Item, &mut Writes<'_, K::Key, S>) + Clone + Send + 'static,
{
    /// What is done with each record of the keyed stream: as [`Process::each`]. The map's state is said at [`Process::connect_broadcast`].
    pub fn each<F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        F: Fn(&P::Item, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>)
            + Clone
            + Send
            + 'static,
    {
        let BroadcastProcess {
            process,
            stream,
            write,
            location,
        } = self;
        let by_clock = process.checked(true);
        let Process {
            input,
            op,
            states,
            on_timer,
            on_clock,
            ..
        } = process;
        let KeyedStream {
            stream: records,
            key,
            key_op,
            mut beside,
        } = input;
        let (plan, before, mut ops, meta) = records.into_parts();
        if !beside.is_empty() {
            let mut plan = plan.lock();
            let e = BuildError::argument(
                plan.info(op),
                "its stream is connected with another already",
                "put `.exchange().key_by(..)` behind the first `connect`",
            );
            plan.errors.push(e);
        }
        beside.clear();
        if plan.is(&stream.plan) {
            beside.push(to_all::<P::Item, Q>(&plan, stream, op, location));
        } else {
            refuse_two_jobs(&plan, &stream.plan, op);
            drop(stream.into_parts());
        }
        ops.push(op);
        let sided = KeyedStream {
            stream: Stream {
                plan,
                pipeline: Some(Mapped {
                    before,
                    f: Sides::Left::<P::Item, Q::Item>,
                    op,
                    out: PhantomData,
                }),
                ops,
                meta,
            },
            key: BroadcastKey(key),
            key_op,
            beside,
        };
        let mut stream = sided.operator(op, Results::last(Class::Exempt), move |key| {
            MakeBroadcastProcess {
                inner: MakeProcess {
                    key,
                    states,
                    on_timer,
                    on_clock,
                    each: of_left::<P::Item, Q::Item, K::Key, S, O, F>(f),
                    op,
                    in_order: false,
                    by_clock,
                    types: PhantomData,
                },
                write,
                op,
            }
        });
        if by_clock {
            stream.meta.by_clock.get_or_insert(op);
        }
        stream
    }
}

/// What is done with records of the keyed side alone: no others come to it.
#[allow(clippy::type_complexity)]
fn of_left<L, R, K, S, O, F>(
    f: F,
) -> impl Fn(&Sides<L, R>, &mut Of<'_, K, S>, &mut Context<'_, K, O>) + Clone + Send + 'static
where
    K: Key,
    S: States<K>,
    F: Fn(&L, &mut Of<'_, K, S>, &mut Context<'_, K, O>) + Clone + Send + 'static,
{
    move |side: &Sides<L, R>, states: &mut Of<'_, K, S>, cx: &mut Context<'_, K, O>| match side {
        Sides::Left(record) => f(record, states, cx),
        Sides::Right(_) => unreachable!("records of the other side write, and are no key's"),
    }
}

/// Law 1: the edge by which a stream comes to all shards, by way of one.
fn to_all<L: Send + 'static, Q: Pipeline<Item: Clone>>(
    plan: &SharedPlan,
    stream: Stream<Q>,
    op: OpId,
    location: &'static Location<'static>,
) -> EdgeId {
    let (_, pipeline, mut ops, meta) = stream.into_parts();
    let mut p = plan.lock();
    let way = p.op("connect_broadcast", meta.results, location);
    let one = p.edge::<Q::Item>(Wiring::AllToAll);
    let all = p.edge::<Sides<L, Q::Item>>(Wiring::AllToAll);
    drop(p);
    ops.push(way);
    let to_one = ToPartition {
        edge: one,
        choose: |_: &Q::Item| 0,
        op: way,
    };
    close(plan, pipeline, ops, to_one);
    let (_, pipeline, mut ops, _) = inlet::<Q::Item>(plan, vec![one], way, meta).into_parts();
    ops.push(op);
    let end = ToBroadcast {
        edge: all,
        wrap: Sides::<L, Q::Item>::Right,
        travels: PhantomData,
        op,
        quiet: true,
    };
    close(plan, pipeline, ops, end);
    all
}
