//! The workloads as jobs of this workspace's engine.

use crate::engine::{
    BenchError, Engine, LatencyConfig, LatencyWorkload, Outcome, ThroughputConfig, Workload,
};
use crate::latency::LatencyFigures;

/// This workspace's engine.
pub struct Pelton;

fn not_linked<T>() -> Result<T, BenchError> {
    Err(BenchError::failed("the pelton engine is not linked yet"))
}

impl Engine for Pelton {
    fn throughput(
        &self,
        _workload: Workload,
        _config: &ThroughputConfig,
    ) -> Result<Outcome, BenchError> {
        not_linked()
    }

    fn latency(
        &self,
        _workload: LatencyWorkload,
        _config: &LatencyConfig,
    ) -> Result<LatencyFigures, BenchError> {
        not_linked()
    }
}
