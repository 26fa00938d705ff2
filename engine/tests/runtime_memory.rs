//! Bounded memory (a process of its own, so that nothing else moves the figure): a sink that takes nothing for a while, under full load.
#![cfg(target_os = "linux")]

use pelton::port::{Port, Ports};
use pelton::sink::{Sink, Writer};
use pelton::{Config, Driver, Job, Runtime, sources};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// 64 bytes, so that what is lost in a queue is seen.
type Record = [u64; 8];
const RECORDS: u64 = 3_000_000;

/// A target that is shut until it is opened: its client blocks, on the helper thread.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    taken: AtomicU64,
}

impl Gate {
    fn pass(&self, records: u64) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
        self.taken.fetch_add(records, Relaxed);
    }
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

struct Slow(Arc<Gate>);

/// Gathers 1,000 records, hands them to a port of two, and takes no more while that is full.
struct SlowWriter {
    port: Port<Vec<Record>, Vec<Record>>,
    gathered: Vec<Record>,
    under_way: usize,
}

impl Sink<Record> for Slow {
    type Writer = SlowWriter;
    fn name(&self) -> String {
        "slow".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<SlowWriter>, String> {
        (0..ports.shards())
            .map(|shard| {
                let gate = self.0.clone();
                let port = ports.port(shard, 2, move |mut records: Vec<Record>| {
                    gate.pass(records.len() as u64);
                    records.clear();
                    records
                })?;
                Ok(SlowWriter {
                    port,
                    gathered: vec![],
                    under_way: 0,
                })
            })
            .collect()
    }
}

impl SlowWriter {
    fn hand_on(&mut self, least: usize) {
        while self.port.take().is_some() {
            self.under_way -= 1;
        }
        if self.gathered.len() < least.max(1) {
            return;
        }
        match self.port.submit(std::mem::take(&mut self.gathered)) {
            Ok(()) => self.under_way += 1,
            Err(back) => self.gathered = back,
        }
    }
}

impl Writer<Record> for SlowWriter {
    fn write(&mut self, record: Record, _: pelton::batch::Stamp) {
        self.gathered.push(record);
    }
    fn flush(&mut self, _: u64) -> Result<(), String> {
        self.hand_on(1_000);
        Ok(())
    }
    fn blocked(&self) -> bool {
        self.gathered.len() >= 1_000
    }
    fn finish(&mut self, _: u64) -> Result<bool, String> {
        self.hand_on(1);
        Ok(self.gathered.is_empty() && self.under_way == 0)
    }
}

/// Resident pages of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_sink_that_takes_nothing_stops_the_source_and_memory_with_it() {
    let mut drivers = vec![Driver::Threads];
    if Runtime::start(Config::default().shards(1).driver(Driver::Glommio)).is_ok() {
        drivers.push(Driver::Glommio);
    }
    for driver in drivers {
        let gate = Arc::new(Gate::default());
        let job = Job::new("slow sink");
        job.source(sources::generate("records", RECORDS, 2, |id| [id; 8]))
            .rebalance()
            .map(|record| record)
            .rebalance()
            .sink(Slow(gate.clone()));
        let runtime = Runtime::start(Config::default().shards(2).driver(driver)).unwrap();
        let before = resident();
        let handle = runtime.submit(&job).unwrap();
        let (mut last, mut still, mut stopped_at) = (0, 0, None);
        let report = handle.wait_with(Duration::from_millis(20), |handle| {
            let counters = handle.counters();
            if stopped_at.is_some() {
                return;
            }
            still = if counters.records_in == last && last > 0 {
                still + 1
            } else {
                0
            };
            last = counters.records_in;
            // A fifth of a second without a record, under full load: everything is full.
            if still == 10 {
                stopped_at = Some((last, resident() - before.min(resident())));
                gate.open();
            }
        });
        let (records, grown) = stopped_at.expect("the source was never stopped");
        assert!(records < RECORDS / 2, "{records} records were let in");
        // Two edges of four lanes of up to 17 batches of 1,024 records, at most; all of the input would be 192 MB.
        assert!(
            grown < 40 << 20,
            "grew by {grown} bytes with {records} records let in"
        );
        let report = report.unwrap();
        assert_eq!(report.counters.records_out, RECORDS);
        assert_eq!(gate.taken.load(Relaxed), RECORDS);
    }
}
