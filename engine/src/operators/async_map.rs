//! Async maps: a request for each record. See [`crate::operators::calling`] for the laws.

use crate::batch::Origin;
use crate::calls::CallError;
use crate::checkpoint::Keeping;
use crate::operators::calling::pending::{Done, Pending};
use crate::operators::calling::{Asks, owns_by_origin};
use crate::push::{OpId, blame};
use std::marker::PhantomData;

/// What the request of a record is, and what comes of its result.
#[allow(missing_debug_implementations)]
pub struct EachRecord<F, G, Q, R> {
    pub(crate) request: F,
    pub(crate) row: G,
    pub(crate) op: OpId,
    pub(crate) types: PhantomData<fn(Q) -> R>,
}

impl<F: Clone, G: Clone, Q, R> Clone for EachRecord<F, G, Q, R> {
    fn clone(&self) -> Self {
        EachRecord {
            request: self.request.clone(),
            row: self.row.clone(),
            op: self.op,
            types: PhantomData,
        }
    }
}

#[allow(private_interfaces)]
impl<T, F, G, Q, R, O> Asks<T> for EachRecord<F, G, Q, R>
where
    T: 'static,
    Q: Send + 'static,
    R: Send + 'static,
    O: Send + 'static,
    F: Fn(&T) -> Q + Send + 'static,
    G: Fn(&T, Result<R, CallError>) -> Done<O> + Send + 'static,
{
    type Request = Q;
    type Response = R;
    type Out = O;

    fn owns(&self, keeping: &Keeping, _: &T, origin: &Origin) -> bool {
        owns_by_origin(keeping, origin)
    }

    /// A request is known by its record's slot.
    fn begin(&mut self, slot: u32, _: &mut Pending<T, O>) -> Option<u32> {
        Some(slot)
    }

    fn request(&self, id: u32, pending: &Pending<T, O>) -> Q {
        match pending.get(id) {
            Some(held) => blame(self.op, || (self.request)(&held.record)),
            None => unreachable!("a record is in hand while its request is under way"),
        }
    }

    fn waits_for(&self, id: u32) -> u32 {
        id
    }

    fn ended(
        &mut self,
        id: u32,
        result: Result<R, CallError>,
        pending: &mut Pending<T, O>,
        _: u64,
    ) {
        if let Some(held) = pending.get(id) {
            let done = blame(self.op, || (self.row)(&held.record, result));
            pending.complete(id, done);
        }
    }
}
