//! One failed write or sync ends a store.
//!
//! After a failed sync the kernel may have dropped the dirty pages and call them clean: a second sync that succeeds says
//! nothing. So nothing is retried. All parts of a store share one [`Poison`]; the first failure is kept and told to all.

use crate::error::StorageError;
use std::sync::{Arc, OnceLock};

/// Shared by a store and its writers; clones are the same poison.
#[derive(Debug, Clone, Default)]
pub struct Poison {
    cause: Arc<OnceLock<StorageError>>,
}

impl Poison {
    /// Ends the store, if it has not ended already.
    pub fn set(&self, cause: StorageError) {
        // The second cause is a consequence of the first.
        let _ = self.cause.set(cause);
    }

    /// Refuses if the store has ended. One load: cheap enough for each call.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] with what failed first.
    #[inline]
    pub fn check(&self) -> Result<(), StorageError> {
        match self.cause.get() {
            None => Ok(()),
            Some(cause) => Err(told(cause)),
        }
    }
}

#[cold]
#[inline(never)]
fn told(cause: &StorageError) -> StorageError {
    StorageError::Poisoned {
        cause: Box::new(cause.clone()),
    }
}
