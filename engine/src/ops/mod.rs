//! Stateless links: one operator a file. Each has a pipeline type (as written) and a link type (as run, one a shard).

mod event_time;
mod filter;
mod filter_map;
mod flat_map;
mod inspect;
mod map;
mod upserted;

pub use event_time::EventTimed;
pub use filter::Filtered;
pub use filter_map::FilterMapped;
pub use flat_map::FlatMapped;
pub use inspect::Inspected;
pub use map::Mapped;
pub use upserted::Upserted;
