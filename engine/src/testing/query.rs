//! Queries of a stepped job: asks are handed to tasklets by hand.

use super::Driver;
use super::driver::NAME;
use crate::error::JobError;
use crate::query::{Answered, Asked, QueryError, Queryable, ReadAt, Way, asks_of};
use std::cell::RefCell;

/// The way of [`Driver::query`].
#[derive(Debug)]
pub struct Stepped<'a> {
    driver: RefCell<&'a mut Driver>,
    shards: usize,
}

impl<'a> Stepped<'a> {
    pub(super) fn new(driver: &'a mut Driver, shards: usize) -> Self {
        let driver = RefCell::new(driver);
        Stepped { driver, shards }
    }
}

fn failed(e: JobError) -> QueryError {
    QueryError::Failed {
        what: e.to_string(),
    }
}

#[allow(private_interfaces)]
impl Way for Stepped<'_> {
    fn job(&self) -> &str {
        NAME
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn ask(
        &self,
        state: &Queryable,
        asks: Vec<(usize, Asked, usize)>,
        at: ReadAt,
    ) -> Result<Vec<Answered>, QueryError> {
        let mut driver = self.driver.borrow_mut();
        let stepper = driver.stepper().map_err(failed)?;
        let number = match at {
            ReadAt::Now => None,
            ReadAt::Epoch => Some(stepper.next_ask().ok_or_else(|| {
                let job = NAME.into();
                QueryError::NoCheckpoints { job }
            })?),
        };
        let count = asks.len();
        let (desk, asks) = asks_of(state, asks, number);
        for (shard, ask) in asks {
            stepper.ask(shard, ask);
        }
        if let Some(number) = number {
            stepper.asked(number);
            driver.settle().map_err(failed)?;
        }
        let answers: Vec<_> = std::iter::from_fn(|| desk.take()).collect();
        match answers.iter().filter(|a| a.is_answered).count() == count {
            true => Ok(answers),
            false => Err(QueryError::Over { job: NAME.into() }),
        }
    }
}
