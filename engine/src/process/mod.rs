//! Process functions: operators of a user's own over a keyed stream, with states by key, and timers.
//!
//! A function names its states, and is given those of the record's key with each record:
//!
//! | asked for by | one a key of | cost of a use | in a checkpoint |
//! |---|---|---|---|
//! | [`value`] | a value | none besides the key's probe | the value, when it has changed |
//! | [`reducing`], [`aggregating`] | a value that others are added to | the same | the same |
//! | [`list`] | a list | no probe; a step in memory for each element | each element alone |
//! | [`map`] | a map | a probe | each entry alone |
//! | [`broadcast_map`] | a map that all keys read | a probe | each entry alone, for each shard |
//!
//! Each may expire by itself when it has not been used for some time ([`Ttl`]), and timers call the function later
//! ([`Process::on_timer`], [`Process::on_clock_timer`]). A record costs one probe for its key, and no allocation besides what new keys and elements need.
//!
//! More than three charges of a card within a minute, from different countries:
//!
//! ```
//! use pelton::process::{Ttl, list};
//! use pelton::{EventTime, Job, Spans, Watermarks, testing};
//!
//! #[pelton::state(version = 1)]
//! #[derive(Clone)]
//! struct Charge {
//!     card: u64,
//!     second: i64,
//!     country: String,
//! }
//! let charge = |card, second, country: &str| Charge { card, second, country: country.into() };
//!
//! let (alerts, sink) = testing::collect();
//! let job = Job::new("fraud");
//! job.source(pelton::sources::items([
//!     charge(7, 1, "PT"), charge(8, 2, "DE"), charge(7, 20, "JP"), charge(7, 40, "PT"), charge(7, 59, "FR"),
//!     charge(8, 60, "DE"), charge(8, 61, "DE"), charge(8, 61, "DE"), charge(7, 200, "JP"),
//! ]))
//! .event_time(|c| EventTime::from_seconds(c.second), Watermarks::monotonous())
//! .key_by(|c| c.card)
//! .in_event_time_order()
//! .process("fraud", list::<Charge>("recent").ttl(Ttl::event_time(60.seconds())))
//! .each(|charge, recent, cx| {
//!     recent.push(charge.clone());
//!     let abroad = recent.iter().any(|earlier| earlier.country != charge.country);
//!     if recent.len() > 3 && abroad {
//!         cx.emit((*cx.key(), charge.second));
//!     }
//! })
//! .sink(sink);
//! testing::Stepper::new(&job, 1).unwrap().run().unwrap();
//! assert_eq!(alerts.take(), [(7, 59)]);
//! ```
//!
//! A broadcast map is written by a stream beside ([`Process::connect_broadcast`]), on every shard.
//!
//! What belongs elsewhere is emitted as an `Err` and parted from the rest by [`crate::Stream::side_output`].
//!
//! Laws
//! 1. What a function has done with a record or timer is in the epoch of that record or timer: its states, its timers and what
//!    it emitted.
//! 2. No record is too late for it; those behind say so ([`Context::behind`]).
//! 3. In the order of arrival its results are of class EXEMPT. Behind `.in_event_time_order()` they are of class ROWS: records
//!    and timers come in the order of time, a timer for t after the records at t. Unless it goes by the clock.

mod broadcast;
mod build;
mod context;
mod elements;
mod list;
mod many;
mod map;
mod reducing;
mod rows;
mod states;
mod timers;
mod ttl;
mod value;

pub use broadcast::{
    BroadcastMapOf, BroadcastProcess, BroadcastState, BroadcastWriter, KeptBroadcast, broadcast_map,
};
pub use build::{Call, NoTimer, OnTimer, Process, ProcessInput};
pub(crate) use build::{function, timer};
pub use context::Context;
pub(crate) use elements::{Elements, Head, Of};
pub use list::{AsList, ListOf, ListState, list};
pub use many::{KeptMany, ManyOf, Shown};
pub use map::{AsMap, MapOf, MapState, map};
pub use reducing::{
    Adding, AddingOf, Aggregated, AggregatingState, KeptAdding, Reduced, ReducingState,
    aggregating, reducing,
};
pub(crate) use rows::Table;
pub use rows::{Part, Row, Rows};
pub(crate) use states::Named;
pub use states::{KeptStates, States, Who};
pub(crate) use timers::{Ask, Standing};
pub use ttl::Ttl;
pub(crate) use ttl::{Expiry, Now};
pub use value::{KeptValue, ValueOf, ValueState, value};
