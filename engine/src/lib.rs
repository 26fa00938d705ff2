//! Pelton: typed stream processing for one machine.
//!
//! A [`Job`] is written with [`Stream`]s and run on a [`Runtime`]: one shard thread a core, shared-nothing state,
//! rings between stages, watermarks in the same order as records. See ARCHITECTURE.md for the map.

#![forbid(unsafe_code)]

// So that `#[pelton::state]` finds its crate in here as it does elsewhere.
extern crate self as pelton;

pub mod aggregate;
mod applied;
mod aside;
pub mod batch;
mod budget;
pub mod calls;
pub mod change;
mod changelog;
pub mod checkpoint;
mod dead_letters;
mod deduplicate;
mod edge;
pub mod error;
pub mod inline;
pub mod join;
mod key;
mod key_order;
mod keyed;
pub mod latency;
pub mod log;
mod operators;
mod ops;
mod ordered;
mod over;
pub mod pattern;
mod pipeline;
mod plan;
pub mod port;
pub mod process;
pub mod push;
pub mod query;
mod rate_limit;
mod routing;
mod running;
mod runtime;
mod sample;
mod session;
mod side_output;
mod sides;
pub mod sink;
mod skew;
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
mod top;
pub mod upsert;
mod watermark;
pub mod wheel;
mod window;

pub use applied::Applied;
pub use budget::StateSize;
pub use change::Change;
pub use changelog::Changelog;
pub use checkpoint::{Checkpointing, Checkpoints, DiskKind, Epoch, Retrying, Stop};
pub use error::{BuildError, JobError};
pub use inline::Inline;
pub use key::{DEFAULT_KEY_GROUPS, Key, KeyOf, KeySpace, KeyWords, stable_hash};
pub use keyed::KeyedStream;
pub use operators::global::Global;
pub use operators::processing_time::ProcessingTime;
pub use ordered::OrderedStream;
pub use over::{Over, OverStream};
/// Makes a struct or enum of your own [`State`]: a key, an accumulator, a record that is held.
///
/// ```
/// #[pelton::state(version = 1)]
/// #[derive(Clone, Debug, PartialEq)]
/// struct Visit {
///     pages: u64,
///     longest: Option<String>,
/// }
/// assert_eq!(
///     pelton::state::shape_of::<Visit>(),
///     "struct Visit v1 { pages: u64, longest: option string }"
/// );
/// ```
///
/// The shape is stored beside the values. Where it has changed, a job that starts from older state is refused with an error
/// that names both, unless the type says what an older version becomes. The older version is kept as a copy with another
/// name; versions before it are found by its own `migrate`:
///
/// ```
/// #[pelton::state(version = 1, name = "Visit")]
/// struct VisitV1 {
///     pages: u32,
/// }
///
/// #[pelton::state(version = 2, migrate = from_v1)]
/// struct Visit {
///     pages: u64,
///     longest: Option<String>,
/// }
///
/// fn from_v1(old: VisitV1) -> Visit {
///     Visit { pages: old.pages.into(), longest: None }
/// }
/// ```
///
/// That is for the whole of what is kept: a key, an accumulator, a record. Where the type is part of another (of a tuple, a
/// `Vec`, a struct), the shape of that has changed as well, and it is that which must know how to migrate.
///
/// A change that the fields do not show (cents that become dollars) is said by the version alone.
///
/// Parameters of a generic type are `State` as well. A type may contain itself, by way of a `Box` or `Vec`; saving, loading
/// and dropping it go as deep as it does. Where two types contain each other, `#[rkyv(omit_bounds)]` on those fields of both
/// breaks the circle. A field that rkyv keeps in another way says whose shape its bytes have:
///
/// ```
/// use pelton::rkyv::with::{AsVec, Skip};
/// use std::collections::HashMap;
///
/// #[pelton::state(version = 1)]
/// struct Prices {
///     #[rkyv(with = AsVec)]
///     #[state(kept_as = Vec<(String, f64)>)]
///     of: HashMap<String, f64>,
///     #[rkyv(with = Skip)]
///     #[state(kept_as = ())]
///     looked_up: u64, // a default when loaded
/// }
/// assert_eq!(
///     pelton::state::shape_of::<Prices>(),
///     "struct Prices v1 { of: [(string, f64)], looked_up: () }"
/// );
/// ```
///
/// What rkyv makes beside the type is documented, except for an enum's variants with named fields: where such an enum is public
/// in a crate with `#![deny(missing_docs)]`, put it into a module with `#![allow(missing_docs)]`.
///
/// For the key of a `BTreeMap` or `HashMap`, what rkyv makes of it must be ordered or hashed as well:
/// `#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord, Hash))]` beside this attribute.
///
/// What is refused: a missing version,
///
/// ```compile_fail
/// #[pelton::state]
/// struct Visit { pages: u64 }
/// ```
///
/// references and lifetimes,
///
/// ```compile_fail
/// #[pelton::state(version = 1)]
/// struct Visit { page: &'static str }
/// ```
/// ```compile_fail
/// #[pelton::state(version = 1)]
/// struct Visit<'a> { page: std::borrow::Cow<'a, str> }
/// ```
///
/// unions, fields whose type is no `State`,
///
/// ```compile_fail
/// #[pelton::state(version = 1)]
/// union Either { a: u64, b: f64 }
/// ```
/// ```compile_fail
/// #[pelton::state(version = 1)]
/// struct Visit { pages: usize }
/// ```
///
/// fields that are kept in another way and do not say how,
///
/// ```compile_fail
/// #[pelton::state(version = 1)]
/// struct Visit {
///     #[rkyv(with = pelton::rkyv::with::Skip)]
///     pages: u64,
/// }
/// ```
///
/// and a function that migrates to another type.
///
/// ```compile_fail
/// #[pelton::state(version = 1, name = "Visit")]
/// struct VisitV1 { pages: u32 }
/// #[pelton::state(version = 2, migrate = from_v1)]
/// struct Visit { pages: u64 }
/// fn from_v1(old: VisitV1) -> u64 { old.pages.into() }
/// ```
pub use pelton_derive::state;
pub use pipeline::{Inlet, Pipeline};
pub use plan::{Class, OpInfo, Pitfall, Warning};
#[doc(hidden)]
pub use rkyv;
pub use running::Keyed;
pub use runtime::{
    Config, Driver, JobHandle, JobReport, LongestStep, Runtime, StageReport, Stopper, Waiting,
};
pub use session::{Gap, GapBy, GapOf, Session};
pub use sides::{Sides, SidesKey};
pub use skew::{Much, Share, Shares, Skew};
pub use state::State;
pub use stream::{Job, Stream};
pub use time::{EventTime, IntoEventTime, Span, Spans};
pub use top::Ranked;
pub use upsert::Upsert;
pub use watermark::{Bounded, Punctuated, WatermarkGenerator, Watermarks};
pub use window::{
    Cumulate, Firing, Lateness, Sliding, Tumbling, Window, WindowAssigner, Windowed, WindowedStream,
};
