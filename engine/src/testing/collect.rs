//! A sink that keeps what it is given.

use crate::batch::Stamp;
use crate::port::Ports;
use crate::sink::{Sink, Writer};
use crate::time::EventTime;
use std::sync::{Arc, Mutex, PoisonError};

/// A sink and the other end of it. It takes results of every class.
pub fn collect<T: Send + 'static>() -> (Collected<T>, Collector<T>) {
    let records = Arc::new(Mutex::new(Vec::new()));
    (
        Collected {
            records: records.clone(),
        },
        Collector {
            records,
            blocked: Arc::default(),
        },
    )
}

type Records<T> = Arc<Mutex<Vec<(T, EventTime)>>>;

/// What a [`Collector`] has been given so far, in the order of arrival.
#[derive(Clone, Debug)]
pub struct Collected<T> {
    records: Records<T>,
}

impl<T> Collected<T> {
    /// Takes the records.
    pub fn take(&self) -> Vec<T> {
        self.take_timed()
            .into_iter()
            .map(|(record, _)| record)
            .collect()
    }

    /// Takes the records with their event times.
    pub fn take_timed(&self) -> Vec<(T, EventTime)> {
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// See [`collect`].
#[derive(Clone, Debug)]
pub struct Collector<T> {
    records: Records<T>,
    blocked: Arc<std::sync::atomic::AtomicBool>,
}

impl<T> Collector<T> {
    /// A switch: while it is on, the sink takes nothing more, and all before it must wait.
    pub fn switch(&self) -> Arc<std::sync::atomic::AtomicBool> {
        self.blocked.clone()
    }
}

/// One shard's writer of a [`Collector`].
#[derive(Debug)]
pub struct CollectedWriter<T>(Collector<T>);

impl<T: Send + 'static> Sink<T> for Collector<T> {
    type Writer = CollectedWriter<T>;
    fn name(&self) -> String {
        "collect".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        let one = || {
            CollectedWriter(Collector {
                records: self.records.clone(),
                blocked: self.blocked.clone(),
            })
        };
        Ok((0..ports.shards()).map(|_| one()).collect())
    }
    fn takes_updates(&self) -> bool {
        true
    }
}

impl<T: Send + 'static> Writer<T> for CollectedWriter<T> {
    fn write(&mut self, record: T, stamp: Stamp) {
        self.0
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((record, stamp.time));
    }
    fn blocked(&self) -> bool {
        self.0.blocked.load(std::sync::atomic::Ordering::Relaxed)
    }
}
