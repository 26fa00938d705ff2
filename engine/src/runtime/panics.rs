//! Panics on shard threads: caught round each step, kept with their place, not printed.

use crate::push::{OpId, take_blamed};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`catch`]: only then is a panic kept instead of printed.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A caught panic.
#[derive(Debug)]
pub(crate) struct Panic {
    /// Its message and place in the source.
    pub message: String,
    /// The operator whose user code it left, and the index of the record in its batch.
    pub op: Option<(OpId, Option<usize>)>,
}

/// Chains a hook before the process's own, once: panics of steps are kept for their job's error, all others go on as before.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CATCHING.with(Cell::get) {
                return before(info);
            }
            let payload = info.payload();
            let text = payload
                .downcast_ref::<&str>()
                .map(|s| (*s).to_string())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a text".into());
            let place = info
                .location()
                .map_or(String::new(), |l| format!(" ({}:{})", l.file(), l.line()));
            LAST.with(|last| *last.borrow_mut() = format!("{text}{place}"));
        }));
    });
}

/// Calls `step`; a panic is caught and described.
#[inline]
pub(crate) fn catch<R>(step: impl FnOnce() -> R) -> Result<R, Panic> {
    CATCHING.with(|c| c.set(true));
    let result = catch_unwind(AssertUnwindSafe(step));
    CATCHING.with(|c| c.set(false));
    result.map_err(|_| Panic {
        message: LAST.with(RefCell::take),
        op: take_blamed(),
    })
}
