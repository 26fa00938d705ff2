//! Calls: the port of clients whose answers come in any order, from any thread.
//!
//! Laws
//! 1. A request goes out over a bounded ring with the [`Answer`] that it is to be answered by; the client is handed both on a thread apart
//!    from shards, one after another, and returns at once or as soon as it has room.
//! 2. An answer names its request (slot and call number), so it may come at any time, and after the request was given up: who takes it
//!    compares. Each [`Answer`] gives exactly one: when it is dropped unsent, that is one as well.
//! 3. Answers wait in a queue that many threads push to and the shard takes from. It holds no more than there are answers out, which whoever
//!    submits bounds.
//! 4. A client that panics while it is handed a request closes its port, and says with what message.
//! 5. In simulation the client runs inside `submit`; it may keep its answers and give them later.

use super::{Apart, Helper, Ports, PortsKind, RingOnDrop, Serve, TURN};
use crate::calls::{Answer, Answered, Answers, Failure};
use crate::runtime::catch;
use pelton_ring::{Consumer, PopError, Producer, PushError, ring};
use std::sync::{Arc, Mutex, PoisonError};

/// What is done with a request.
pub(crate) type Call<Q, R> = Box<dyn FnMut(Q, Answer<R>) + Send>;

/// A shard's side.
pub(crate) struct CallPort<Q, R> {
    way: Way<Q, R>,
    answers: Arc<Answers<R>>,
    /// The message of the panic that closed it.
    panicked: Arc<Mutex<Option<String>>>,
    /// The thread that serves it, which ends with its last port.
    _apart: Option<Arc<Helper>>,
}

enum Way<Q, R> {
    Threaded {
        requests: Producer<(Q, Answer<R>)>,
        helper: RingOnDrop,
    },
    /// `None`: it panicked.
    Inline(Option<Call<Q, R>>),
}

impl<Q: Send + 'static, R: Send + 'static> CallPort<Q, R> {
    /// Hands a request in, to be answered for `slot` and `call`; `false` if the port is full or closed.
    pub fn submit(&mut self, slot: u32, call: u64, request: Q) -> bool {
        let answer = Answer::new(self.answers.clone(), slot, call);
        match &mut self.way {
            Way::Threaded { requests, helper } => match requests.push((request, answer)) {
                Ok(()) => {
                    helper.0.ring();
                    true
                }
                Err(PushError::Full((_, answer)) | PushError::Closed((_, answer))) => {
                    answer.forget();
                    false
                }
            },
            Way::Inline(client) => {
                let Some(call) = client else {
                    answer.forget();
                    return false;
                };
                if let Err(panic) = catch(|| call(request, answer)) {
                    say(&self.panicked, panic.message);
                    *client = None;
                }
                true
            }
        }
    }

    /// Takes an answer, if there is one.
    pub fn take(&mut self) -> Option<Answered<R>> {
        self.answers.take()
    }

    /// Whether there is one.
    pub fn has_answers(&self) -> bool {
        self.answers.has_any()
    }

    /// Whether nobody serves it any more.
    pub fn is_closed(&self) -> bool {
        match &self.way {
            Way::Threaded { requests, .. } => requests.is_closed(),
            Way::Inline(client) => client.is_none(),
        }
    }

    /// Why not, if so.
    pub fn closed(&self) -> Option<String> {
        self.is_closed().then(|| {
            let said = self.panicked.lock().unwrap_or_else(PoisonError::into_inner);
            match &*said {
                Some(message) => format!("its client panicked: {message}"),
                None => "the thread that serves its client has ended".into(),
            }
        })
    }
}

fn say(panicked: &Mutex<Option<String>>, message: String) {
    *panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
}

struct CallServer<Q, R> {
    requests: Consumer<(Q, Answer<R>)>,
    client: Call<Q, R>,
    panicked: Arc<Mutex<Option<String>>>,
    /// The shard learns that its port is closed.
    _shard: RingOnDrop,
}

impl<Q: Send, R: Send> Serve for CallServer<Q, R> {
    fn serve(&mut self) -> Option<bool> {
        for served in 0..TURN {
            match self.requests.pop() {
                Ok((request, answer)) => {
                    let client = &mut self.client;
                    if let Err(panic) = catch(|| client(request, answer)) {
                        say(&self.panicked, panic.message);
                        return None;
                    }
                }
                Err(PopError::Empty) => return Some(served > 0),
                Err(PopError::Closed) => return None,
            }
        }
        Some(true)
    }
}

impl Ports<'_> {
    /// A port for `shard` that holds `capacity` requests, which `client` is handed on a thread of [`Ports::apart`].
    pub(crate) fn calls<Q, R>(
        &mut self,
        apart: &Apart,
        shard: usize,
        capacity: usize,
        client: Call<Q, R>,
    ) -> Result<CallPort<Q, R>, String>
    where
        Q: Send + 'static,
        R: Send + 'static,
    {
        let panicked = Arc::new(Mutex::new(None));
        let (PortsKind::Threaded { shards, .. }, Some(helper)) = (&self.kind, &apart.0) else {
            return Ok(CallPort {
                way: Way::Inline(Some(client)),
                answers: Arc::new(Answers::new(None)),
                panicked,
                _apart: None,
            });
        };
        let (requests, incoming) =
            ring(capacity.next_power_of_two().max(2)).map_err(|e| e.to_string())?;
        let server = CallServer {
            requests: incoming,
            client,
            panicked: panicked.clone(),
            _shard: RingOnDrop(shards[shard].clone()),
        };
        let gone = |_| "the helper thread has ended".to_string();
        helper.servers.send(Box::new(server)).map_err(gone)?;
        helper.doorbell.ring();
        Ok(CallPort {
            way: Way::Threaded {
                requests,
                helper: RingOnDrop(helper.doorbell.clone()),
            },
            answers: Arc::new(Answers::new(Some(shards[shard].clone()))),
            panicked,
            _apart: Some(helper.clone()),
        })
    }

    /// Whether a port's other side runs inside its calls: a stepped job.
    pub fn is_simulated(&self) -> bool {
        matches!(self.kind, PortsKind::Inline)
    }
}

/// What an answer is that was never given.
pub(crate) fn unanswered() -> Failure {
    Failure::transient("the client dropped the request without an answer")
}
