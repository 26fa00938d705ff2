//! How a runtime is laid out, and whether this machine can do it.

use crate::error::BuildError;
use crate::key::DEFAULT_KEY_GROUPS;
use crate::time::Span;

/// What runs the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The best that this machine allows, with a note where something better was refused. At present that is [`Driver::Threads`]:
    /// what io_uring offers here, [`crate::DiskKind::IoUring`], is not faster as measured.
    Auto,
    /// Pinned threads; nothing but the standard library.
    Threads,
    /// glommio executors on io_uring. Linux, with the `glommio` feature.
    Glommio,
}

/// What a shard does when its jobs have nothing to do. One without a job sleeps until it is given one, whatever is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Looks again at once, as long as it has a job: lowest latency, a whole core a shard.
    Spin,
    /// Gives the core to other threads between looks.
    Yield,
    /// Spins for so long, then sleeps until a doorbell or a timer. A wake-up costs tens of microseconds.
    Park {
        /// Microseconds of spinning before sleep.
        spin_us: u64,
    },
}

/// Layout and sizes of a [`crate::Runtime`]. Every value has a default.
///
/// ```
/// use pelton::{Config, Driver, Waiting};
/// let config = Config::default().cores([0]).waiting(Waiting::Spin).driver(Driver::Threads);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) shards: Option<usize>,
    pub(crate) driver: Driver,
    pub(crate) waiting: Waiting,
    pub(crate) batch_size: usize,
    pub(crate) ring_capacity: usize,
    pub(crate) key_groups: u32,
    pub(crate) stall_after: Span,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cores: None,
            shards: None,
            driver: Driver::Auto,
            waiting: Waiting::Park { spin_us: 50 },
            batch_size: 1024,
            ring_capacity: 16,
            key_groups: DEFAULT_KEY_GROUPS,
            stall_after: Span::from_micros(10_000_000),
        }
    }
}

impl Config {
    /// One shard on each of these cores. A core outside the process's affinity mask is an error. Default: the whole mask.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.cores = Some(cores.into_iter().collect());
        self
    }

    /// So many shards, on the first cores of the mask. More shards than cores share them and park when idle, with a note.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// What runs the shards. Default: [`Driver::Auto`].
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// What an idle shard does. Default: park after 50 µs of spinning.
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }

    /// Records a batch holds at most, 1 to 65,536. Default: 1024. Batches are as small as the input is slow in any case.
    pub fn batch_size(mut self, records: usize) -> Self {
        self.batch_size = records;
        self
    }

    /// Frames a ring between two shards holds, rounded up to a power of two; with the batch size it bounds what is under way. Default: 16.
    pub fn ring_capacity(mut self, frames: usize) -> Self {
        self.ring_capacity = frames;
        self
    }

    /// Key groups of jobs, 1 to 65,536: the most shards their keys can be spread over, fixed for a job's life. Default: 256.
    pub fn key_groups(mut self, groups: u32) -> Self {
        self.key_groups = groups;
        self
    }

    /// After how long a step that has not returned is named and its job given up, whether anybody waits for it or not. The
    /// thread cannot be taken out of it: the runtime's other jobs end with an error too, as do those submitted later, and
    /// dropping the runtime leaves it behind. Default: 10 s.
    pub fn stall_after(mut self, span: Span) -> Self {
        self.stall_after = span;
        self
    }

    /// Checks the values and chooses cores.
    pub(crate) fn place(&self) -> Result<Placement, BuildError> {
        let refuse = |what: String, advice: &str| {
            Err(BuildError::Config {
                what,
                advice: advice.into(),
            })
        };
        if !(1..=65_536).contains(&self.batch_size) {
            return refuse(
                format!("the batch size is {}", self.batch_size),
                "give 1 to 65536 records",
            );
        }
        if !(1..=65_536).contains(&self.ring_capacity) {
            return refuse(
                format!("the ring capacity is {}", self.ring_capacity),
                "give 1 to 65536 frames",
            );
        }
        if !(1..=65_536).contains(&self.key_groups) {
            return refuse(
                format!("the number of key groups is {}", self.key_groups),
                "give 1 to 65536 groups",
            );
        }
        if self.stall_after <= Span::ZERO {
            return refuse(
                format!("stall_after is {}", self.stall_after),
                "give a positive span",
            );
        }
        let mut notes = Vec::new();
        let mask: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .map(|c| c.id)
            .collect();
        let mut cores: Vec<Option<usize>>;
        match (&self.cores, self.shards) {
            (Some(_), Some(_)) => {
                return refuse("both cores and shards are given".into(), "give one of them");
            }
            (_, Some(0)) => return refuse("the number of shards is 0".into(), "give at least 1"),
            (Some(wanted), None) => {
                if wanted.is_empty() {
                    return refuse(
                        "the list of cores is empty".into(),
                        "name at least one core",
                    );
                }
                for (at, core) in wanted.iter().enumerate() {
                    if !mask.is_empty() && !mask.contains(core) {
                        return refuse(
                            format!(
                                "core {core} is not among those of this process ({})",
                                list(&mask)
                            ),
                            "name others, or widen the affinity mask",
                        );
                    }
                    if wanted[..at].contains(core) {
                        return refuse(
                            format!("core {core} is named twice"),
                            "name each core once, or give shards instead",
                        );
                    }
                }
                cores = wanted.iter().copied().map(Some).collect();
            }
            (None, shards) => {
                let available = mask.len().max(1);
                let shards = shards.unwrap_or(available);
                cores = (0..shards).map(|s| mask.get(s).copied()).collect();
                if shards > available {
                    notes.push(format!("{shards} shards on {available} cores: shards are not pinned and park when idle"));
                    cores = vec![None; shards];
                }
            }
        }
        let crowded = cores.iter().any(Option::is_none) && cores.len() > 1;
        let mut waiting = self.waiting;
        if let Some(quota) = cpu_quota()
            && quota < cores.len() as f64
            && waiting != (Waiting::Park { spin_us: 0 })
        {
            notes.push(format!("the control group allows {quota:.1} processors for {} shards: shards park when idle", cores.len()));
            waiting = Waiting::Park { spin_us: 0 };
        }
        if crowded {
            waiting = Waiting::Park { spin_us: 0 };
        }
        Ok(Placement {
            cores,
            waiting,
            notes,
        })
    }
}

fn list(cores: &[usize]) -> String {
    cores
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The processor quota of this process's control group (version 2) or of one that it lies in, whichever is less.
fn cpu_quota() -> Option<f64> {
    let group = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = group.lines().find_map(|l| l.strip_prefix("0::"))?;
    let quotas = std::path::Path::new(path).ancestors().filter_map(|group| {
        let group = group.strip_prefix("/").unwrap_or(group);
        let file = std::path::Path::new("/sys/fs/cgroup")
            .join(group)
            .join("cpu.max");
        quota(&std::fs::read_to_string(file).ok()?)
    });
    quotas.min_by(f64::total_cmp)
}

/// `cpu.max`: quota and period in microseconds, or `max` for none.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// What was decided.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// The core of each shard, `None` where it is not pinned.
    pub cores: Vec<Option<usize>>,
    pub waiting: Waiting,
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read() {
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        assert_eq!(quota(""), None);
    }
}
