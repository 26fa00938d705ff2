//! Pelton: typed stream processing for one machine.
//!
//! A [`Job`] is written with [`Stream`]s and run on a [`Runtime`]: one shard thread a core, shared-nothing state,
//! rings between stages, watermarks in the same order as records. See ARCHITECTURE.md for the map.

#![forbid(unsafe_code)]

pub mod aggregate;
mod aside;
pub mod batch;
pub mod checkpoint;
mod dead_letters;
mod edge;
pub mod error;
mod key;
mod key_order;
mod keyed;
pub mod latency;
mod operators;
mod ops;
mod ordered;
mod pipeline;
mod plan;
pub mod port;
pub mod push;
mod running;
mod runtime;
mod session;
mod side_output;
pub mod sink;
pub mod source;
pub mod sources;
mod stage;
pub mod state;
mod stream;
pub mod table;
pub mod tasklet;
mod terminal;
pub mod testing;
mod time;
mod watermark;
pub mod wheel;
mod window;

pub use error::{BuildError, JobError};
pub use key::{DEFAULT_KEY_GROUPS, Key, KeyOf, KeySpace, KeyWords, stable_hash};
pub use keyed::KeyedStream;
pub use operators::global::Global;
pub use operators::processing_time::ProcessingTime;
pub use ordered::OrderedStream;
pub use pipeline::{Inlet, Pipeline};
pub use plan::{Class, OpInfo};
pub use running::Keyed;
pub use runtime::{
    Config, Driver, JobHandle, JobReport, LongestStep, Runtime, StageReport, Waiting,
};
pub use session::{Gap, GapBy, GapOf, Session};
pub use state::State;
pub use stream::{Job, Stream};
#[doc(hidden)]
pub use rkyv;
pub use time::{EventTime, IntoEventTime, Span, Spans};
pub use watermark::{Bounded, Punctuated, WatermarkGenerator, Watermarks};
pub use window::{Cumulate, Firing, Lateness, Sliding, Tumbling, Window, Windowed, WindowedStream};
