//! The operators that stand at the head of a stage: one a file.

pub mod applying;
pub mod async_map;
pub mod broadcast_join;
pub mod broadcast_process;
pub mod calling;
pub mod changing;
pub(crate) mod copies;
pub mod early;
pub mod forward;
pub mod global;
pub mod interval_join;
pub mod late;
pub mod lookup_join;
pub mod materialize;
pub mod multisets;
pub mod order;
pub mod pattern;
pub mod process;
pub mod processing_time;
pub mod regular_join;
pub mod replay;
pub mod running;
pub mod session;
pub mod sliding;
pub mod tumbling;
pub mod values;
