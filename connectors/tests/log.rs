//! JSON in an ingest log, from job to job.

#![cfg(feature = "files")]

use pelton::log::{self, Codec};
use pelton::testing::{Stepper, collect};
use pelton::{Checkpointing, Config, Driver, Job, Runtime, Spans, sources};
use pelton_connectors::log as formats;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    product: u32,
    note: Option<String>,
}

#[test]
fn orders_pass_through_a_log_as_json() {
    let name = format!("json-log-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let order = |id: u64| Order {
        product: id as u32 % 7,
        note: id.is_multiple_of(3).then(|| format!("\"{id}\"\n")),
    };
    let write = Job::new("write");
    write.checkpoints(
        Checkpointing::in_folder(folder.join("checkpoints"))
            .every(5.millis())
            .segment_bytes(16 << 20)
            .reserve_bytes(0),
    );
    let sink = log::sink(folder.join("log"), formats::json::<Order>());
    write
        .source(sources::generate("orders", 500, 1, order))
        .sink(sink.partitions(2).partition_by(|o| o.product));
    let runtime = Runtime::start(Config::default().shards(1).driver(Driver::Threads)).unwrap();
    runtime.submit(&write).unwrap().wait().unwrap();
    let (rows, sink) = collect();
    let read = Job::new("read");
    read.source(log::source(folder.join("log"), formats::json::<Order>()).until_end())
        .sink(sink);
    Stepper::new(&read, 1).unwrap().run().unwrap();
    let (mut got, mut expected) = (rows.take(), (0..500).map(order).collect::<Vec<_>>());
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_no_json_is_told() {
    let why = formats::json::<Order>().decode(b"{\"product\":-1}");
    assert!(why.unwrap_err().contains("invalid value"));
}
