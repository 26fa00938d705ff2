//! The two kinds of stage: one reads a source, one reads rings; both push through a fused chain into a terminal.

pub(crate) mod operator;
pub(crate) mod source;
