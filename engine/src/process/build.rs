//! How a process function is written: states, then what is done with records and timers.

use super::context::Context;
use super::states::{KeptStates, Named, States};
use crate::error::BuildError;
use crate::key::{Key, KeyOf};
use crate::keyed::KeyedStream;
use crate::operators::order::OrderRoot;
use crate::operators::process::{MakeProcess, ProcessOp};
use crate::ordered::OrderedStream;
use crate::pipeline::{MakeOperator, OperatorRoot, Pipeline};
use crate::plan::{Class, Pitfall, Results};
use crate::push::OpId;
use crate::running;
use crate::stage::operator::Operator;
use crate::state::State;
use crate::stream::Stream;
use crate::time::{EventTime, Span};
use std::marker::PhantomData;
use std::panic::Location;

/// The states of a key as a function sees them.
type Of<'a, K, S> = <<S as States<K>>::Kept as KeptStates<K>>::Of<'a>;

/// What is done with a timer: a function, or nothing.
pub trait OnTimer<K: Key, S: States<K>, O>: Clone + Send + 'static {
    /// Whether there is a function.
    const IS_SOME: bool;
    /// Calls it with the timer's time.
    fn call(&self, time: EventTime, states: &mut Of<'_, K, S>, cx: &mut Context<'_, K, O>);
}

/// No function for timers: none may be set.
#[derive(Clone, Copy, Debug)]
pub struct NoTimer;

impl<K: Key, S: States<K>, O> OnTimer<K, S, O> for NoTimer {
    const IS_SOME: bool = false;
    fn call(&self, _: EventTime, _: &mut Of<'_, K, S>, _: &mut Context<'_, K, O>) {}
}

/// See [`Process::on_timer`].
#[derive(Clone)]
#[allow(missing_debug_implementations)]
pub struct Call<F>(pub(crate) F);

impl<K, S, O, F> OnTimer<K, S, O> for Call<F>
where
    K: Key,
    S: States<K>,
    F: Fn(EventTime, &mut Of<'_, K, S>, &mut Context<'_, K, O>) + Clone + Send + 'static,
{
    const IS_SOME: bool = true;
    #[inline]
    fn call(&self, time: EventTime, states: &mut Of<'_, K, S>, cx: &mut Context<'_, K, O>) {
        (self.0)(time, states, cx);
    }
}

/// What a process function can stand behind: a keyed stream of records `T`, in the order of arrival or of event time.
#[allow(private_interfaces)]
pub trait ProcessInput<T: Send + 'static, K: KeyOf<T>>: Sized {
    /// Whether records come in the order of event time.
    #[doc(hidden)]
    const IN_ORDER: bool;
    /// The pipeline that an operator begins behind it.
    #[doc(hidden)]
    type Root<M: MakeOperator<T, Op: Operator<T, Out: Send>>>: Pipeline<
        Item = <M::Op as Operator<T>>::Out,
    >;
    /// Notes an operator of this kind.
    #[doc(hidden)]
    fn note(
        &self,
        kind: &'static str,
        location: &'static Location<'static>,
        uid: Option<String>,
    ) -> OpId;
    /// Notes an operator that keeps a value for every key that ever came.
    #[doc(hidden)]
    fn note_kept(&self, kind: &'static str, location: &'static Location<'static>) -> OpId;
    /// Notes an operator that keeps what stands.
    #[doc(hidden)]
    fn note_standing(&self, kind: &'static str, location: &'static Location<'static>) -> OpId;
    /// Tells of an operator noted that it needs event time, or what is wrong with it.
    #[doc(hidden)]
    fn check(&self, op: OpId, needs_time: bool, wrong: Option<(String, String)>);
    /// Notes a pitfall of an operator.
    #[doc(hidden)]
    fn warn(&self, op: OpId, pitfall: Pitfall, what: String);
    /// Puts an operator behind it.
    #[doc(hidden)]
    fn place<M>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<Self::Root<M>>
    where
        M: MakeOperator<T, Op: Operator<T, Out: Send>>;
    /// Puts an operator behind it that applies changes: in the order of arrival also where their number is not fixed.
    #[doc(hidden)]
    fn place_on_changes<M>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<Self::Root<M>>
    where
        M: MakeOperator<T, Op: Operator<T, Out: Send>>;
}

#[allow(private_interfaces)]
impl<T: Send + 'static, P: Pipeline<Item = T>, K: KeyOf<T>> ProcessInput<T, K>
    for KeyedStream<P, K>
{
    const IN_ORDER: bool = false;
    type Root<M: MakeOperator<T, Op: Operator<T, Out: Send>>> = OperatorRoot<T, M>;

    fn note(
        &self,
        kind: &'static str,
        location: &'static Location<'static>,
        uid: Option<String>,
    ) -> OpId {
        let op = self.note(kind, location, false);
        self.stream.plan.lock().info_mut(op).uid = uid;
        op
    }

    fn note_kept(&self, kind: &'static str, location: &'static Location<'static>) -> OpId {
        running::note(self, kind, location)
    }

    fn note_standing(&self, kind: &'static str, location: &'static Location<'static>) -> OpId {
        let op = self.note(kind, location, false);
        let what = "state without TTL or window: it keeps what stands for every key whose rows have not all gone";
        self.warn(op, Pitfall::StateGrows, what.into());
        self.stream.plan.lock().sums(op, &self.stream.meta);
        op
    }

    fn check(&self, op: OpId, needs_time: bool, wrong: Option<(String, String)>) {
        let mut plan = self.stream.plan.lock();
        if needs_time && !self.stream.meta.timed {
            let op = plan.info(op).to_string();
            plan.errors.push(BuildError::NoEventTime { op });
        }
        if let Some((what, advice)) = wrong {
            let e = BuildError::argument(plan.info(op), what, advice);
            plan.errors.push(e);
        }
        if needs_time {
            plan.waits(&self.stream.meta);
        }
    }

    fn warn(&self, op: OpId, pitfall: Pitfall, what: String) {
        self.stream.plan.lock().warn(op, pitfall, what);
    }

    fn place<M>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<Self::Root<M>>
    where
        M: MakeOperator<T, Op: Operator<T, Out: Send>>,
    {
        self.operator(op, results, make)
    }

    fn place_on_changes<M>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<Self::Root<M>>
    where
        M: MakeOperator<T, Op: Operator<T, Out: Send>>,
    {
        self.operator_on_changes(op, results, make)
    }
}

#[allow(private_interfaces)]
impl<T: State, P: Pipeline<Item = T>, K: KeyOf<T>> ProcessInput<T, K> for OrderedStream<P, K> {
    const IN_ORDER: bool = true;
    type Root<M: MakeOperator<T, Op: Operator<T, Out: Send>>> = OrderRoot<T, K, M>;

    fn note(
        &self,
        kind: &'static str,
        location: &'static Location<'static>,
        uid: Option<String>,
    ) -> OpId {
        ProcessInput::note(self.keyed(), kind, location, uid)
    }

    fn note_kept(&self, kind: &'static str, location: &'static Location<'static>) -> OpId {
        running::note(self.keyed(), kind, location)
    }

    fn note_standing(&self, kind: &'static str, location: &'static Location<'static>) -> OpId {
        self.keyed().note_standing(kind, location)
    }

    fn check(&self, op: OpId, needs_time: bool, wrong: Option<(String, String)>) {
        self.keyed().check(op, needs_time, wrong);
    }

    fn warn(&self, op: OpId, pitfall: Pitfall, what: String) {
        self.keyed().warn(op, pitfall, what);
    }

    fn place<M>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<Self::Root<M>>
    where
        M: MakeOperator<T, Op: Operator<T, Out: Send>>,
    {
        self.behind(op, results, make)
    }

    fn place_on_changes<M>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<Self::Root<M>>
    where
        M: MakeOperator<T, Op: Operator<T, Out: Send>>,
    {
        // In the order of time a change may come before the one that it takes back, unless they were made in that order: class ROWS,
        // behind which nothing is refused.
        self.behind(op, results, make)
    }
}

impl<T: Send + 'static, P: Pipeline<Item = T>, K: KeyOf<T>> KeyedStream<P, K> {
    /// Begins an operator of your own, known to state, savepoints, metrics and errors by `uid`: it has these states by key,
    /// and [`Process::each`] says what is done with a record. See [`mod@crate::process`] for the states that there are and for timers.
    ///
    /// In the order of arrival, so of class EXEMPT; no record is too late, and those that are behind say so ([`Context::behind`]).
    ///
    /// State: what the function sets, in checkpoints, until it clears it or its time to live is over ([`Ttl`](super::Ttl)), and its timers until they fire or
    /// are deleted. Of a state by key without a time to live, in a function without timers that does not say [`Process::states_stay_few`], a warning
    /// tells (PLT-0203). A record costs one probe for its key, besides what the function does.
    ///
    /// ```
    /// use pelton::process::value;
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("what has changed");
    /// job.source(sources::items([('a', 20), ('a', 20), ('b', 7), ('a', 21)]))
    ///    .key_by(|r| r.0)
    ///    .process("last", value::<i32>("last"))
    ///    .states_stay_few()
    ///    .each(|reading, last, cx| {
    ///        if last.get() != Some(&reading.1) {
    ///            last.set(reading.1);
    ///            cx.emit(*reading);
    ///        }
    ///    })
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [('a', 20), ('b', 7), ('a', 21)]);
    /// ```
    #[track_caller]
    pub fn process<S, O>(self, uid: impl Into<String>, states: S) -> Process<Self, T, K, S, O>
    where
        S: States<K::Key>,
        O: Send + 'static,
    {
        Process::new(
            self,
            "process",
            Some(uid.into()),
            states,
            Location::caller(),
        )
    }
}

impl<T: State, P: Pipeline<Item = T>, K: KeyOf<T>> OrderedStream<P, K> {
    /// As [`KeyedStream::process`], in event-time order: class ROWS, unless it goes by the clock. A timer for t fires after the
    /// records at t and before those that follow, those of other keys included. Late records are dropped before it, as of [`OrderedStream`]. An example is at
    /// [`mod@crate::process`].
    #[track_caller]
    pub fn process<S, O>(self, uid: impl Into<String>, states: S) -> Process<Self, T, K, S, O>
    where
        S: States<K::Key>,
        O: Send + 'static,
    {
        Process::new(
            self,
            "process",
            Some(uid.into()),
            states,
            Location::caller(),
        )
    }
}

/// A process function being written: [`Process::each`] ends it. See [`KeyedStream::process`].
#[must_use = "a process function does nothing until `each` says what it does with records"]
#[allow(missing_debug_implementations)]
pub struct Process<I, T, K, S, O, G = NoTimer, C = NoTimer> {
    pub(super) input: I,
    pub(super) op: OpId,
    pub(super) states: S,
    pub(super) on_timer: G,
    pub(super) on_clock: C,
    /// It reads the clock, whatever else it has.
    by_clock: bool,
    /// Its states are few, or it clears them.
    clears: bool,
    types: PhantomData<fn(T, K) -> O>,
}

impl<I, T, K, S, O> Process<I, T, K, S, O>
where
    I: ProcessInput<T, K>,
    T: Send + 'static,
    K: KeyOf<T>,
    S: States<K::Key>,
    O: Send + 'static,
{
    /// Begins an operator of this kind. Without a uid it is known by its place in the job.
    pub(crate) fn new(
        input: I,
        kind: &'static str,
        uid: Option<String>,
        states: S,
        location: &'static Location<'static>,
    ) -> Self {
        let op = input.note(kind, location, uid);
        Process {
            input,
            op,
            states,
            on_timer: NoTimer,
            on_clock: NoTimer,
            by_clock: false,
            clears: false,
            types: PhantomData,
        }
    }

    /// The operator.
    pub(crate) fn op(&self) -> OpId {
        self.op
    }
}

impl<I, T, K, S, O, G, C> Process<I, T, K, S, O, G, C>
where
    I: ProcessInput<T, K>,
    T: Send + 'static,
    K: KeyOf<T>,
    S: States<K::Key>,
    O: Send + 'static,
    G: OnTimer<K::Key, S, O>,
    C: OnTimer<K::Key, S, O>,
{
    /// The same with other functions for timers.
    fn with_timers<G2, C2>(
        self,
        timers: impl FnOnce(G, C) -> (G2, C2),
    ) -> Process<I, T, K, S, O, G2, C2> {
        let (on_timer, on_clock) = timers(self.on_timer, self.on_clock);
        Process {
            input: self.input,
            op: self.op,
            states: self.states,
            on_timer,
            on_clock,
            by_clock: self.by_clock,
            clears: self.clears,
            types: PhantomData,
        }
    }

    /// What is done when a timer by event time fires ([`Context::timer_at`]): it is called with the timer's time, its key's
    /// states, and the context.
    pub fn on_timer<F>(self, f: F) -> Process<I, T, K, S, O, Call<F>, C>
    where
        F: Fn(EventTime, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>)
            + Clone
            + Send
            + 'static,
    {
        self.with_timers(|_, on_clock| (Call(f), on_clock))
    }

    /// What is done when a timer by the clock fires ([`Context::clock_timer_after`]). Results are of class EXEMPT then.
    pub fn on_clock_timer<F>(self, f: F) -> Process<I, T, K, S, O, G, Call<F>>
    where
        F: Fn(EventTime, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>)
            + Clone
            + Send
            + 'static,
    {
        Process {
            by_clock: true,
            ..self.with_timers(|on_timer, _| (on_timer, Call(f)))
        }
    }

    /// The function reads the clock ([`Context::clock`]), so its results are of class EXEMPT: another run reads another. Not needed
    /// where it has timers or times to live by the clock.
    pub fn by_clock(self) -> Self {
        Process {
            by_clock: true,
            ..self
        }
    }

    /// Its states do not grow for ever, although they have no time to live: the function clears them (a record that ends something, say), or there
    /// are only so many keys. There is no warning of it then. Where it has timers, they are taken for what clears.
    pub fn states_stay_few(self) -> Self {
        Process {
            clears: true,
            ..self
        }
    }

    /// What is done with each record: it is called with the record, its key's states (as they were asked for: one, or a
    /// tuple), and the context. State, cleaning and late records are said at [`KeyedStream::process`].
    pub fn each<F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        F: Fn(&T, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>) + Clone + Send + 'static,
    {
        let by_clock = self.checked(false);
        let Process {
            input,
            op,
            states,
            on_timer,
            on_clock,
            ..
        } = self;
        let class = match I::IN_ORDER && !by_clock {
            true => Class::Rows,
            false => Class::Exempt,
        };
        let decides = by_clock.then_some(op);
        let mut stream = input.place(op, Results::last(class), move |key| {
            make(MakeProcess {
                key,
                states,
                on_timer,
                on_clock,
                each: f,
                op,
                in_order: I::IN_ORDER,
                by_clock,
                types: PhantomData,
            })
        });
        stream.meta.by_clock = stream.meta.by_clock.or(decides);
        stream
    }

    /// Tells what is wrong with it and what to beware of, given whether a stream comes to write its broadcast states; whether it goes by the clock.
    pub(super) fn checked(&self, is_broadcast: bool) -> bool {
        let (input, op) = (&self.input, self.op);
        let mut names = vec![];
        self.states.names(&mut names);
        let by_event = |n: &Named| n.ttl.is_some_and(|t| !t.by_clock);
        let needs_time = G::IS_SOME || names.iter().any(by_event);
        input.check(op, needs_time, wrong(&names, is_broadcast));
        let forever = names.iter().find(|n| n.ttl.is_none() && !n.is_broadcast);
        if let Some(Named { name, .. }) = forever
            && !(self.clears || G::IS_SOME || C::IS_SOME)
        {
            let what =
                format!("state without TTL or window: '{name}' stays for every key that ever came");
            input.warn(op, Pitfall::StateGrows, what);
        }
        self.by_clock || names.iter().any(|n| n.ttl.is_some_and(|t| t.by_clock))
    }
}

/// A process function of the house's own: its key, its states, who it is, whether it stands behind an order, what it does with timers
/// by event time and with records.
pub(crate) fn function<T, K, S, O, F, G>(
    (key, states): (K, S),
    op: OpId,
    in_order: bool,
    on_timer: G,
    each: F,
) -> MakeProcess<T, K, S, O, F, G, NoTimer>
where
    T: Send + 'static,
    K: KeyOf<T>,
    S: States<K::Key>,
    F: Fn(&T, &mut Of<'_, K::Key, S>, &mut Context<'_, K::Key, O>) + Clone + Send + 'static,
    G: OnTimer<K::Key, S, O>,
{
    MakeProcess {
        key,
        states,
        each,
        on_timer,
        on_clock: NoTimer,
        op,
        in_order,
        by_clock: false,
        types: PhantomData,
    }
}

/// What such a function does with a timer, given its states for their type's sake.
pub(crate) fn timer<K, S, O, F>(_: &S, f: F) -> Call<F>
where
    K: Key,
    S: States<K>,
    F: Fn(EventTime, &mut Of<'_, K, S>, &mut Context<'_, K, O>) + Clone + Send + 'static,
{
    Call(f)
}

/// Says which operator it makes, for the sake of its output's type.
fn make<T, K, S, O, F, G, C, M>(make: M) -> M
where
    T: Send + 'static,
    K: KeyOf<T>,
    S: States<K::Key>,
    M: MakeOperator<T, Op = ProcessOp<T, K, S, O, F, G, C>>,
    ProcessOp<T, K, S, O, F, G, C>: Operator<T, Out = O>,
{
    make
}

/// What is wrong with the states of a function, given whether a stream comes to write its broadcast states.
fn wrong(names: &[Named], is_broadcast: bool) -> Option<(String, String)> {
    let broadcast = names.iter().find(|n| n.is_broadcast);
    match broadcast {
        Some(Named { name, .. }) if !is_broadcast => {
            return Some((
                format!("nothing writes its broadcast state '{name}'"),
                "say `.connect_broadcast(stream, ..)` before `each`, on a keyed stream in the order of arrival".into(),
            ));
        }
        None if is_broadcast => {
            return Some((
                "a stream is broadcast to it, and it has no broadcast state to be written".into(),
                "ask for one with `broadcast_map`, or drop `.connect_broadcast(..)`".into(),
            ));
        }
        _ => {}
    }
    for (n, named) in names.iter().enumerate() {
        let name = named.name;
        if names[..n].iter().any(|other| other.name == name) {
            return Some((
                format!("it has two states named '{name}'"),
                "give each a name of its own".into(),
            ));
        }
        if name.is_empty() || name == "timers" {
            return Some((
                format!("a state cannot be named '{name}'"),
                "give it another name".into(),
            ));
        }
        if named.ttl.is_some_and(|ttl| ttl.span <= Span::ZERO) {
            return Some((
                format!("the time to live of its state '{name}' is not above 0"),
                "give it one, or none".into(),
            ));
        }
    }
    None
}
