//! renoir: its own window operators, and hand-written ones (`engine=custom`) on its transport with the limit's state.

mod custom;
mod latency;
mod throughput;

use peers_common::Options;

fn main() {
    let options = Options::from_args();
    match options.command.as_str() {
        "throughput" => throughput::run(options),
        "latency" => latency::run(options),
        _ => peers_common::usage("the commands are throughput and latency"),
    }
}
