//! Hands records on as they came: the head of a stage whose work is all in its chain (after a union, a split, a rebalance).

use crate::batch::Batch;
use crate::push::{Cx, Push};
use crate::stage::operator::Operator;
use crate::time::EventTime;
use std::marker::PhantomData;

/// Records handed on between two looks at whether the outputs are full.
const PIECE: usize = 128;

/// See the module.
#[derive(Debug)]
pub struct Forward<T>(PhantomData<fn(T)>);

impl<T> Default for Forward<T> {
    fn default() -> Self {
        Forward(PhantomData)
    }
}

impl<T: Send + 'static> Operator<T> for Forward<T> {
    type Out = T;

    #[inline]
    fn batch<O: Push<T>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        let mut handed = 0;
        batch.consume(|record, stamp, origin| {
            cx.origin = origin;
            out.push(record, stamp, cx);
            handed += 1;
            handed % PIECE != 0 || !out.blocked()
        });
    }

    fn watermark<O: Push<T>>(&mut self, _: EventTime, _: &mut O, _: &mut Cx) {}
}
