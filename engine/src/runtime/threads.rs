//! The threads driver: the duty loop on a plain thread, with a parker. Nothing but the standard library.

use crate::runtime::drivers::Ready;
use crate::runtime::duty::{Duty, Look, Next};
use pelton_ring::Sleeper;

/// Runs a shard until it is told to end.
pub(crate) fn run(mut duty: Duty, mut sleeper: Sleeper, ready: Ready) {
    ready.yes();
    loop {
        match duty.round() {
            Next::Again => {}
            Next::Spin => std::hint::spin_loop(),
            Next::Yield => {
                std::thread::yield_now();
                duty.time_passed();
            }
            Next::Sleep => {
                sleeper.prepare();
                match duty.last_look() {
                    Look::Found => sleeper.cancel(),
                    Look::Nothing(timeout) => {
                        sleeper.sleep(timeout);
                        duty.time_passed();
                    }
                    Look::End => return,
                }
            }
            Next::End => return,
        }
    }
}
