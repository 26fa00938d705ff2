//! timely: a source operator, an exchange pact, a hand-written stateful operator (the limit's own state), a sink and a
//! probe.

mod latency;
mod throughput;
mod window;

use peers_common::Options;

fn main() {
    let options = Options::from_args();
    match options.command.as_str() {
        "throughput" => throughput::run(options),
        "latency" => latency::run(options),
        _ => peers_common::usage("the commands are throughput and latency"),
    }
}
