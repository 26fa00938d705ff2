//! Since when each step of a job's end is waited for: law 8 of the coordinator.

use super::{Epoch, Phase};

/// A job that ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    step: Since<(Epoch, Phase)>,
    /// The oldest epoch that is not committed.
    commits: Since<Option<Epoch>>,
}

/// How something is, and since when, nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Since<T> {
    it: T,
    ns: u64,
}

impl<T: PartialEq> Since<T> {
    fn see(&mut self, it: T, now_ns: u64) {
        if self.it != it {
            *self = Since { it, ns: now_ns };
        }
    }
}

impl Ending {
    pub fn new(step: (Epoch, Phase), commits: Option<Epoch>, now_ns: u64) -> Self {
        Ending {
            step: Since {
                it: step,
                ns: now_ns,
            },
            commits: Since {
                it: commits,
                ns: now_ns,
            },
        }
    }

    /// Looks where the job stands now.
    pub fn see(&mut self, step: (Epoch, Phase), commits: Option<Epoch>, now_ns: u64) {
        self.step.see(step, now_ns);
        self.commits.see(commits, now_ns);
    }

    /// Since when the step under way is waited for; none is where only the next epoch comes, in its time, or nothing any more.
    fn step_since(&self) -> Option<u64> {
        let waits = !matches!(self.step.it.1, Phase::Idle | Phase::Over);
        waits.then_some(self.step.ns)
    }

    /// When something will have taken too long.
    pub fn ends_at(&self, timeout_ns: u64) -> Option<u64> {
        let commits = self.commits.it.map(|_| self.commits.ns);
        let since_ns = self.step_since().into_iter().chain(commits).min()?;
        Some(since_ns.saturating_add(timeout_ns))
    }

    /// What has not been done in time, as the error says it, and of which epoch.
    pub fn overdue(&self, timeout_ns: u64, now_ns: u64) -> Option<(&'static str, Epoch)> {
        let is_over = |since_ns: u64| now_ns.saturating_sub(since_ns) >= timeout_ns;
        if let Some(oldest) = self.commits.it.filter(|_| is_over(self.commits.ns)) {
            return Some(("committed", oldest));
        }
        let (epoch, phase) = self.step.it;
        let what = match phase {
            Phase::Deciding => "decided",
            _ => "written",
        };
        self.step_since()
            .filter(|since_ns| is_over(*since_ns))
            .map(|_| (what, epoch))
    }
}
