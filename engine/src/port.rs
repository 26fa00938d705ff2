//! Ports: how foreign work (files, decompression, sockets) meets a shard. Two bounded rings and a doorbell.
//!
//! Laws
//! 1. A shard hands a request in and takes a response out; it never waits for either. A full port is back-pressure.
//! 2. Requests of one port are served one after another, in order, by one handler on the runtime's helper thread; or, where
//!    a handler may wait for somebody outside (a pipe, a terminal), on a thread apart, so that it holds up no other port.
//!    Where answers come in any order ([`mod@crate::calls`]), `port/calls.rs` has the port and its laws.
//! 3. The helper thread is started by the first port; a job without ports has no thread besides its shards.
//! 4. Whatever a side waits for rings its doorbell: a request, a response, room in either ring, and the going away of the other side.
//! 5. A handler that panics closes its port and no other. A port that is always busy holds up the others by `TURN` requests.
//! 6. In simulation the handler runs inside `submit`: the same calls, no thread, one order.
//! 7. What [`Ports::at_start`] was given is called once the whole job has opened and fits to what it goes on from, before any sink
//!    commits or recovers; never, if the job is refused by then.

mod calls;

pub(crate) use calls::{CallPort, unanswered};

use crate::checkpoint::{Epoch, Lineage};
use pelton_ring::{Consumer, Doorbell, Producer, PushError, Sleeper, ring};
use std::collections::VecDeque;
use std::sync::{Arc, mpsc};

/// Requests of one port served before the next port has its turn (law 5).
const TURN: usize = 16;

/// Rings when it is dropped: the last field of a side, so that its ring ends have gone by then (law 4).
struct RingOnDrop(Doorbell);

impl Drop for RingOnDrop {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// A shard's side of a port.
pub struct Port<Q, R> {
    way: Way<Q, R>,
    /// The thread apart that serves it, which ends with its last port.
    _apart: Option<Arc<Helper>>,
}

/// A thread that serves ports apart from the runtime's helper thread: see [`Ports::apart`].
#[derive(Clone)]
pub struct Apart(Option<Arc<Helper>>);

impl std::fmt::Debug for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Apart")
    }
}

enum Way<Q, R> {
    Threaded {
        requests: Producer<Q>,
        responses: Consumer<R>,
        helper: RingOnDrop,
    },
    Inline {
        handler: Box<dyn FnMut(Q) -> R + Send>,
        responses: VecDeque<R>,
        capacity: usize,
    },
}

impl<Q, R> std::fmt::Debug for Port<Q, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.way {
            Way::Threaded { .. } => "Port(threaded)",
            Way::Inline { .. } => "Port(inline)",
        })
    }
}

impl<Q: Send + 'static, R: Send + 'static> Port<Q, R> {
    /// Hands a request in; gives it back if the port is full.
    pub fn submit(&mut self, request: Q) -> Result<(), Q> {
        match &mut self.way {
            Way::Threaded {
                requests, helper, ..
            } => match requests.push(request) {
                Ok(()) => {
                    helper.0.ring();
                    Ok(())
                }
                Err(PushError::Full(q) | PushError::Closed(q)) => Err(q),
            },
            Way::Inline {
                handler,
                responses,
                capacity,
            } => {
                if responses.len() >= *capacity {
                    return Err(request);
                }
                let response = handler(request);
                responses.push_back(response);
                Ok(())
            }
        }
    }

    /// Whether the other side has gone: its handler panicked, or the runtime is ending. Responses may still be there.
    pub fn is_closed(&self) -> bool {
        match &self.way {
            Way::Threaded { requests, .. } => requests.is_closed(),
            Way::Inline { .. } => false,
        }
    }

    /// Takes a response, if there is one.
    pub fn take(&mut self) -> Option<R> {
        match &mut self.way {
            Way::Threaded {
                responses, helper, ..
            } => {
                let response = responses.pop().ok();
                if response.is_some() {
                    // A server that found the ring full of responses waits for this.
                    helper.0.ring();
                }
                response
            }
            Way::Inline { responses, .. } => responses.pop_front(),
        }
    }
}

/// A port's server on the helper thread.
trait Serve: Send {
    /// Serves what it can, within its turn; whether anything moved, or `None` when the port is closed.
    fn serve(&mut self) -> Option<bool>;
}

struct Server<Q, R, H> {
    requests: Consumer<Q>,
    responses: Producer<R>,
    /// A response that found the ring full.
    held: Option<R>,
    handler: H,
    shard: RingOnDrop,
}

impl<Q: Send, R: Send, H: FnMut(Q) -> R + Send> Serve for Server<Q, R, H> {
    fn serve(&mut self) -> Option<bool> {
        let mut moved = false;
        for _ in 0..TURN {
            let response = match self.held.take() {
                Some(r) => r,
                None => match self.requests.pop() {
                    Ok(q) => {
                        let handler = &mut self.handler;
                        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handler(q)))
                        {
                            Ok(r) => r,
                            // The port closes; its shard sees that and says so.
                            Err(payload) => {
                                crate::runtime::discard_panic(payload);
                                return None;
                            }
                        }
                    }
                    Err(pelton_ring::PopError::Empty) => return Some(moved),
                    Err(pelton_ring::PopError::Closed) => return None,
                },
            };
            match self.responses.push(response) {
                Ok(()) => {
                    moved = true;
                    self.shard.0.ring();
                }
                Err(PushError::Full(r)) => {
                    self.held = Some(r);
                    return Some(moved);
                }
                Err(PushError::Closed(_)) => return None,
            }
        }
        Some(moved)
    }
}

/// The helper thread: started when the first port is made, ends when its owner is dropped.
pub(crate) struct Helper {
    servers: mpsc::Sender<Box<dyn Serve>>,
    doorbell: Doorbell,
}

impl Helper {
    /// Also what is disconnected when its thread has ended and dropped all handlers.
    pub fn start() -> std::io::Result<(Self, mpsc::Receiver<()>)> {
        let (alive, ended) = mpsc::channel::<()>();
        let (servers, new) = mpsc::channel::<Box<dyn Serve>>();
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("pelton-io".into())
            .spawn(move || {
                // Dropped last, after all handlers.
                let _alive = alive;
                // The parker belongs to the thread that sleeps, so it is made here and its doorbell handed out.
                let mut sleeper = Sleeper::thread();
                if tell.send(sleeper.doorbell()).is_err() {
                    return;
                }
                let mut ports: Vec<Box<dyn Serve>> = vec![];
                loop {
                    let mut moved = false;
                    sleeper.prepare();
                    let mut open = true;
                    loop {
                        match new.try_recv() {
                            Ok(server) => {
                                ports.push(server);
                                moved = true;
                            }
                            Err(mpsc::TryRecvError::Empty) => break,
                            Err(mpsc::TryRecvError::Disconnected) => {
                                open = false;
                                break;
                            }
                        }
                    }
                    ports.retain_mut(|p| match p.serve() {
                        Some(m) => {
                            moved |= m;
                            true
                        }
                        None => false,
                    });
                    if !open {
                        return;
                    }
                    if moved {
                        sleeper.cancel();
                    } else {
                        sleeper.sleep(None);
                    }
                }
            })?;
        let doorbell = told
            .recv()
            .map_err(|_| std::io::Error::other("the helper thread ended at its start"))?;
        Ok((Helper { servers, doorbell }, ended))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel();
        self.servers = closed;
        // Not joined: a handler may sit in a foreign call (a read from a terminal) that nothing here can end. A sink
        // has finished before its job is done, so nothing that matters is under way.
        self.doorbell.ring();
    }
}

/// Makes ports while a job is placed.
pub struct Ports<'a> {
    shards: usize,
    kind: PortsKind<'a>,
    /// In the order in which they were given: the sink's name and what it does (law 7).
    starts: Vec<NamedStart>,
    /// The threads apart that were started.
    helpers: Helpers,
    /// The job takes checkpoints.
    checkpoints: bool,
}

/// The threads apart of a job, so that their end can be waited for.
#[derive(Debug, Default)]
pub(crate) struct Helpers(
    /// For each, what is disconnected when it has ended and dropped its handlers. Nothing is ever sent.
    pub Vec<mpsc::Receiver<()>>,
);

/// What a sink is told when its job starts: whose output it finds in its target.
///
/// A job has one lineage from its first start until its folder of checkpoints is given up. What carries another one is another job's,
/// also that of a job whose savepoint this one started from: it is not to be touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Start {
    /// The job's lineage. `None`: it takes no checkpoints, and nothing of it outlives the process.
    pub lineage: Option<Lineage>,
    /// The job's own checkpoint that it goes on from: what was written before is an earlier life's. `None`: it begins, from nothing or
    /// from where another job was.
    pub went_on_from: Option<Epoch>,
}

/// A sink's name, and what it does at the start (law 7).
pub(crate) type NamedStart = (String, Box<dyn FnOnce(&Start) -> Result<(), String>>);

enum PortsKind<'a> {
    Threaded {
        helper: &'a mut Option<Helper>,
        shards: &'a [Doorbell],
    },
    Inline,
}

impl<'a> Ports<'a> {
    pub(crate) fn threaded(helper: &'a mut Option<Helper>, shards: &'a [Doorbell]) -> Self {
        Ports {
            shards: shards.len(),
            kind: PortsKind::Threaded { helper, shards },
            starts: vec![],
            helpers: Helpers::default(),
            checkpoints: false,
        }
    }

    pub(crate) fn inline(shards: usize) -> Self {
        Ports {
            shards,
            kind: PortsKind::Inline,
            starts: vec![],
            helpers: Helpers::default(),
            checkpoints: false,
        }
    }

    /// Says whether the job takes checkpoints; not, unless it is said.
    pub(crate) fn set_checkpoints(&mut self, checkpoints: bool) {
        self.checkpoints = checkpoints;
    }

    /// Whether the job takes checkpoints: then it may go on from one, and its readers begin elsewhere than the source says
    /// ([`Reader::seek`](crate::source::Reader::seek)).
    pub fn checkpoints(&self) -> bool {
        self.checkpoints
    }

    /// Has `start` called when every source and sink of the job has opened and the job fits to the checkpoint that it goes on from,
    /// before sinks commit what that decided and before the first step. If the job is refused by then, `start` is dropped instead. What
    /// destroys something (emptying a file), or depends on whose output there is, belongs here and not into an `open`. Its
    /// error ends the build as one of `sink` ([`BuildError::Sink`](crate::BuildError::Sink)).
    pub fn at_start(
        &mut self,
        sink: impl Into<String>,
        start: impl FnOnce(&Start) -> Result<(), String> + 'static,
    ) {
        self.starts.push((sink.into(), Box::new(start)));
    }

    /// What is to be called when nothing stands against the job any longer (law 7).
    pub(crate) fn take_starts(&mut self) -> Vec<NamedStart> {
        std::mem::take(&mut self.starts)
    }

    /// The threads that [`Ports::apart`] has started.
    pub(crate) fn take_helpers(&mut self) -> Helpers {
        std::mem::take(&mut self.helpers)
    }

    /// Number of shards of the job.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The shard that reads partition `partition` of a source.
    pub fn shard_of_partition(&self, partition: usize) -> usize {
        partition % self.shards
    }

    /// A port for `shard` that holds `capacity` requests and as many responses; `handler` serves them one by one. It
    /// shares a thread with other ports, those of other jobs too: it must not wait for anybody outside.
    pub fn port<Q, R, H>(
        &mut self,
        shard: usize,
        capacity: usize,
        handler: H,
    ) -> Result<Port<Q, R>, String>
    where
        Q: Send + 'static,
        R: Send + 'static,
        H: FnMut(Q) -> R + Send + 'static,
    {
        match &mut self.kind {
            PortsKind::Inline => Ok(inline(capacity, handler)),
            PortsKind::Threaded { helper, shards } => {
                let helper = match helper {
                    Some(h) => h,
                    None => helper.insert(start_helper()?.0),
                };
                helper.serve(&shards[shard], capacity, handler)
            }
        }
    }

    /// A thread for ports whose handlers may wait: give it to [`Ports::port_apart`]. It ends with the last of them.
    pub fn apart(&mut self) -> Result<Apart, String> {
        Ok(Apart(match &self.kind {
            PortsKind::Inline => None,
            PortsKind::Threaded { .. } => {
                let (helper, ended) = start_helper()?;
                self.helpers.0.push(ended);
                Some(Arc::new(helper))
            }
        }))
    }

    /// The same as [`Ports::port`], on a thread of [`Ports::apart`].
    pub fn port_apart<Q, R, H>(
        &mut self,
        apart: &Apart,
        shard: usize,
        capacity: usize,
        handler: H,
    ) -> Result<Port<Q, R>, String>
    where
        Q: Send + 'static,
        R: Send + 'static,
        H: FnMut(Q) -> R + Send + 'static,
    {
        match (&self.kind, &apart.0) {
            (PortsKind::Threaded { shards, .. }, Some(helper)) => {
                let mut port = helper.serve(&shards[shard], capacity, handler)?;
                port._apart = Some(helper.clone());
                Ok(port)
            }
            _ => Ok(inline(capacity, handler)),
        }
    }
}

fn start_helper() -> Result<(Helper, mpsc::Receiver<()>), String> {
    Helper::start().map_err(|e| format!("no helper thread could be started: {e}"))
}

fn inline<Q, R>(capacity: usize, handler: impl FnMut(Q) -> R + Send + 'static) -> Port<Q, R> {
    Port {
        way: Way::Inline {
            handler: Box::new(handler),
            responses: VecDeque::new(),
            capacity: capacity.next_power_of_two().max(2),
        },
        _apart: None,
    }
}

impl Helper {
    /// Makes a port that this thread serves.
    fn serve<Q, R, H>(
        &self,
        shard: &Doorbell,
        capacity: usize,
        handler: H,
    ) -> Result<Port<Q, R>, String>
    where
        Q: Send + 'static,
        R: Send + 'static,
        H: FnMut(Q) -> R + Send + 'static,
    {
        let capacity = capacity.next_power_of_two().max(2);
        let (requests, incoming) = ring(capacity).map_err(|e| e.to_string())?;
        let (outgoing, responses) = ring(capacity).map_err(|e| e.to_string())?;
        let server = Server {
            requests: incoming,
            responses: outgoing,
            held: None,
            handler,
            shard: RingOnDrop(shard.clone()),
        };
        self.servers
            .send(Box::new(server))
            .map_err(|_| "the helper thread has ended".to_string())?;
        self.doorbell.ring();
        Ok(Port {
            way: Way::Threaded {
                requests,
                responses,
                helper: RingOnDrop(self.doorbell.clone()),
            },
            _apart: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port whose "shard" is the calling thread.
    fn port<Q: Send + 'static, R: Send + 'static>(
        helper: &mut Option<Helper>,
        shard: &Sleeper,
        capacity: usize,
        handler: impl FnMut(Q) -> R + Send + 'static,
    ) -> Port<Q, R> {
        let bells = [shard.doorbell()];
        Ports::threaded(helper, &bells)
            .port(0, capacity, handler)
            .unwrap()
    }

    /// Sleeps as a shard does until `found` finds something. Nothing but a doorbell ends the sleep: a lost wake-up hangs the test.
    fn until<T>(shard: &mut Sleeper, mut found: impl FnMut() -> Option<T>) -> T {
        loop {
            shard.prepare();
            match found() {
                Some(it) => {
                    shard.cancel();
                    return it;
                }
                None => {
                    shard.sleep(None);
                }
            }
        }
    }

    #[test]
    fn both_sides_sleep_and_no_wake_up_is_lost() {
        let (mut helper, mut shard) = (None, Sleeper::thread());
        let mut port = port(&mut helper, &shard, 2, |q: u64| q + 1);
        for q in 0..5_000 {
            port.submit(q).unwrap();
            assert_eq!(until(&mut shard, || port.take()), q + 1);
        }
        // Full both ways: the server holds a response until there is room.
        let (mut sent, mut taken) = (0, 0);
        while taken < 5_000 {
            while sent < 5_000 && port.submit(sent).is_ok() {
                sent += 1;
            }
            assert_eq!(until(&mut shard, || port.take()), taken + 1);
            taken += 1;
        }
    }

    #[test]
    fn a_handler_that_panics_closes_its_port_and_wakes_the_shard() {
        crate::runtime::install_panic_hook();
        let (mut helper, mut shard) = (None, Sleeper::thread());
        let mut good = port(&mut helper, &shard, 2, |q: u64| q);
        let mut bad = port(&mut helper, &shard, 4, |q: u64| {
            assert_ne!(q, 2, "this panic is part of a test");
            q
        });
        for q in [1, 2, 3] {
            let _ = bad.submit(q);
        }
        until(&mut shard, || bad.is_closed().then_some(()));
        assert_eq!(bad.take(), Some(1), "what came before is there");
        assert_eq!(bad.take(), None);
        assert_eq!(bad.submit(4), Err(4));
        good.submit(5).unwrap();
        assert_eq!(until(&mut shard, || good.take()), 5);
    }

    #[test]
    fn dropping_a_port_ends_its_handler() {
        let (mut helper, shard) = (None, Sleeper::thread());
        let (tell, told) = mpsc::channel::<()>();
        let port = port(&mut helper, &shard, 2, move |q: u64| {
            let _owned = &tell;
            q
        });
        drop(port);
        // Disconnected when the handler has gone: with nobody else about, only the port's own ring can have told the helper.
        assert!(told.recv().is_err());
    }

    #[test]
    fn dropping_the_helper_closes_its_ports() {
        let (mut helper, mut shard) = (None, Sleeper::thread());
        let port = port(&mut helper, &shard, 2, |q: u64| q);
        drop(helper);
        until(&mut shard, || port.is_closed().then_some(()));
    }

    #[test]
    fn a_busy_port_has_its_turn_and_no_more() {
        let (mut requests, incoming) = ring(64).unwrap();
        let (outgoing, mut responses) = ring(64).unwrap();
        let shard = Sleeper::thread();
        let mut server = Server {
            requests: incoming,
            responses: outgoing,
            held: None,
            handler: |q: u64| q,
            shard: RingOnDrop(shard.doorbell()),
        };
        for q in 0..20 {
            requests.push(q).unwrap();
        }
        assert_eq!(server.serve(), Some(true));
        assert_eq!(responses.drain(64).count(), TURN);
        assert_eq!(server.serve(), Some(true));
        assert_eq!(responses.drain(64).count(), 20 - TURN);
        assert_eq!(server.serve(), Some(false));
        drop(requests);
        assert_eq!(server.serve(), None);
    }
}
