//! The conformance kit, on what the engine has itself, and on sources and sinks with a wrong in them.

mod sinks;
mod sources;
