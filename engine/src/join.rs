//! Joins of two keyed streams.
//!
//! | join | what meets | a row comes | state, and when it goes |
//! |---|---|---|---|
//! | [`KeyedStream::window_join`](crate::KeyedStream::window_join) | records of a key in one window | when the window fires | both sides' records, with the window |
//! | [`KeyedStream::interval_join`](crate::KeyedStream::interval_join) | records of a key with r.t - l.t within bounds | when the second of both comes; alone, when the first goes | both sides' records, until the watermark has passed what they can meet |
//! | [`KeyedStream::as_of_join`](crate::KeyedStream::as_of_join) | a record and the last version before it | when the watermark has passed the record | each key's last version; records that wait |
//! | [`KeyedStream::regular_join`](crate::KeyedStream::regular_join) | all rows of a key | at once, as a change; taken back when what it is of goes | both sides' rows, for ever or for a time to live |
//! | [`Stream::broadcast_join`](crate::Stream::broadcast_join) | a record and the row of a small table that each shard has | at once | the table, on every shard, until its rows are removed |
//! | [`Stream::lookup_join`](crate::Stream::lookup_join) | a record and what a client outside says of its key ([`mod@crate::calls`]) | when it is answered | records that wait for an answer; a cache |
//!
//! Records of both streams ride edges of their own into one operator ([`KeyedStream::connect`](crate::KeyedStream::connect)), so time, lateness and
//! barriers are those of any keyed operator.

//!
//! # Keys that are null
//!
//! Keys are plain values, and `None` is one of them: with `key_by(|o| o.customer)`, where that is an `Option`, records whose key is `None` are records of
//! one key. They meet each other in every join, and land on one shard together. SQL has it otherwise: there a null equals nothing, not even another
//! null. Who wants that drops them before an inner join (`filter(|o| o.customer.is_some())`), and before an outer one parts them from the
//! rest ([`Stream::side_output`](crate::Stream::side_output)) and makes their rows without the other side, which is what such a join would do.
//! That costs nothing where keys cannot be null, and hides no heavy key where they can.

mod as_of;
mod broadcast;
mod interval;
mod regular;
mod window;

pub use as_of::AsOfJoin;
pub use broadcast::BroadcastJoin;
pub use interval::{Between, IntervalJoin};
pub use regular::{ChangeRows, PlainRows, RegularJoin, SideRows};
pub use window::{Join, Met, Rows, WindowJoin};
