//! Panics on shard threads: caught round each step, kept with their place, not printed.

use crate::push::{OpId, take_blamed};
use std::any::Any;
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
            let place = info
                .location()
                .map_or(String::new(), |l| format!(" ({}:{})", l.file(), l.line()));
            let text = format!("{}{place}", text(info.payload()));
            LAST.with(|last| *last.borrow_mut() = text);
        }));
    });
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let string = || payload.downcast_ref::<String>().map(String::as_str);
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(string)
        .unwrap_or("a panic without a text")
}

/// Calls `step`; a panic is caught and described. Calls may be nested: a step may run a job of its own by hand.
#[inline]
pub(crate) fn catch<R>(step: impl FnOnce() -> R) -> Result<R, Panic> {
    let before = CATCHING.with(|c| c.replace(true));
    let result = catch_unwind(AssertUnwindSafe(step));
    CATCHING.with(|c| c.set(before));
    result.map_err(describe)
}

#[cold]
fn describe(payload: Box<dyn Any + Send>) -> Panic {
    let mut message = LAST.with(RefCell::take);
    if message.is_empty() {
        // Someone has put a hook of their own in the place of ours.
        message = text(&*payload).to_string();
    }
    discard(payload);
    Panic {
        message,
        op: take_blamed(),
    }
}

/// Drops what a panic carried. It may be of any type, and its `Drop` may panic in turn: then what that carries is leaked.
#[cold]
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    let before = CATCHING.with(|c| c.replace(true));
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
        LAST.with(RefCell::take);
    }
    CATCHING.with(|c| c.set(before));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catches_may_be_nested() {
        install();
        let outer = catch(|| {
            let inner = catch(|| panic!("inner"));
            assert!(inner.unwrap_err().message.starts_with("inner ("));
            panic!("outer {}", 1);
        });
        let message = outer.unwrap_err().message;
        assert!(message.starts_with("outer 1 ("), "{message}");
        assert!(message.contains("panics.rs:"), "{message}");
        assert!(!CATCHING.with(Cell::get));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_survived() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("the payload itself");
            }
        }
        install();
        let caught = catch(|| std::panic::panic_any(Bomb));
        assert!(
            caught
                .unwrap_err()
                .message
                .starts_with("a panic without a text (")
        );
        assert_eq!(
            LAST.with(RefCell::take),
            "",
            "nothing is left for the next one"
        );
    }
}
