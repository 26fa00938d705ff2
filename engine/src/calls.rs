//! Asking somebody outside for each record, without waiting: [`Stream::async_map`](crate::Stream::async_map) and
//! [`Stream::lookup_join`](crate::Stream::lookup_join).
//!
//! What is asked is a [`Client`]. It is handed requests, each with an [`Answer`] to send whenever and from wherever; no thread waits for
//! one, and none is needed for each. Two clients are ready made:
//!
//! - [`blocking`]: a function that waits (a database driver, a socket), on so many threads;
//! - [`futures`]: a function that returns a future, and what spawns it: the engine has no runtime for futures and asks for none. With tokio:
//!
//! ```text
//! let on = tokio::runtime::Handle::current();
//! let client = calls::futures(move |task| { on.spawn(task); }, move |id: u64| http.get_user(id));
//! ```
//!
//! | what goes wrong | what becomes of the record |
//! |---|---|
//! | an answer says that the request failed, or it was dropped unanswered, or a function of [`blocking`] panicked | asked again, [`Async::retries`] times with a back-off, unless the failure is [final](Failure::permanent); then it has failed |
//! | no answer within [`Async::time_out`] | the same; an answer that comes later is counted ([`CallFigures::stale`]) and dropped |
//! | it has failed | the job stops (PLT-0115, names operator, shard and record); or it becomes a dead letter; or the closure is told, as was written |
//! | [`Client::call`] itself panics | its port closes, and the job stops (PLT-0115) |
//! | the client is slow | at most [`Async::capacity`] requests of a shard are out, then the stream waits |
//!
//! Requests are asked again after a restore: a client must bear to be asked twice.

mod adapters;
mod async_map;
mod client;
mod figures;
mod lookup_join;
mod options;

pub use adapters::{Blocking, Futures, Task, blocking, futures};
pub use async_map::AsyncMap;
pub use client::{Answer, CallError, Client, Failure, Opening};
pub(crate) use client::{Answered, Answers};
pub use figures::CallFigures;
pub(crate) use figures::Tally;
pub use lookup_join::{Cache, LookupJoin};
pub use options::Async;
