//! A sink whose commits are put off now and then, so that several epochs are decided and uncommitted when its process is killed.

use pelton::checkpoint::Epoch;
use pelton::port::Ports;
use pelton::sink::{CommitError, Committer, Sink};

/// `inner`, which is asked again for one commit in so many; for none, if 0. What a restart has to commit is never put off.
pub struct Refusing<S> {
    pub inner: S,
    pub one_in: u64,
}

impl<T, S: Sink<T>> Sink<T> for Refusing<S> {
    type Writer = S::Writer;
    fn name(&self) -> String {
        self.inner.name()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        self.inner.open(ports)
    }
    fn takes_updates(&self) -> bool {
        self.inner.takes_updates()
    }
    fn needs_event_time(&self) -> Option<String> {
        self.inner.needs_event_time()
    }
    fn in_two_phases(&self) -> bool {
        self.inner.in_two_phases()
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        Some(Box::new(Refuses {
            inner: self.inner.committer()?,
            one_in: self.one_in,
            asked: 0,
            recovered: false,
        }))
    }
}

struct Refuses {
    inner: Box<dyn Committer>,
    one_in: u64,
    asked: u64,
    recovered: bool,
}

impl Committer for Refuses {
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        self.asked += 1;
        if self.recovered && self.one_in > 0 && self.asked.is_multiple_of(self.one_in) {
            return Err(CommitError {
                what: "not now".into(),
                is_retryable: true,
            });
        }
        self.inner.commit(epoch, prepared)
    }
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        self.recovered = true;
        self.inner.recover(last)
    }
}
