//! No wake-up is lost. A lost one is a thread that sleeps for ever, which loom reports as a deadlock.

use crate::{check, check_within};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use pelton_ring::{PopError, Sleeper, Slept, ring};

/// The owner's rule, whatever the work: prepare, look at everything, then sleep or cancel.
fn wait_until(sleeper: &mut Sleeper, mut work: impl FnMut() -> bool) {
    while !work() {
        sleeper.prepare();
        if work() {
            sleeper.cancel();
            return;
        }
        assert_eq!(sleeper.sleep(None), Slept::Woken);
    }
}

#[test]
fn a_push_wakes() {
    check(|| {
        let (mut producer, mut consumer) = ring(2).unwrap();
        let mut sleeper = Sleeper::thread();
        let doorbell = sleeper.doorbell();
        let ringing = thread::spawn(move || {
            producer.push(7).unwrap();
            doorbell.ring();
        });
        wait_until(&mut sleeper, || !consumer.is_empty());
        assert_eq!(consumer.pop(), Ok(7));
        ringing.join().unwrap();
    });
}

#[test]
fn a_close_wakes() {
    check(|| {
        let (producer, mut consumer) = ring::<u8>(2).unwrap();
        let mut sleeper = Sleeper::thread();
        let doorbell = sleeper.doorbell();
        let ringing = thread::spawn(move || {
            drop(producer);
            doorbell.ring();
        });
        wait_until(&mut sleeper, || consumer.is_closed());
        assert_eq!(consumer.pop(), Err(PopError::Closed));
        ringing.join().unwrap();
    });
}

/// Room is work, too: a producer that sleeps on a full ring.
#[test]
fn a_pop_wakes() {
    check(|| {
        let (mut producer, mut consumer) = ring(2).unwrap();
        producer.push_batch(&mut (0..2));
        let mut sleeper = Sleeper::thread();
        let doorbell = sleeper.doorbell();
        let ringing = thread::spawn(move || {
            assert!(consumer.drain(2).eq(0..2));
            doorbell.ring();
            consumer
        });
        wait_until(&mut sleeper, || producer.free() > 0);
        producer.push(2).unwrap();
        assert_eq!(ringing.join().unwrap().pop(), Ok(2));
    });
}

/// The ringer that finds the flag down leaves the waking to the other one; its own work must not be overlooked.
#[test]
fn two_ringers_one_sleeper() {
    check_within(3, || {
        let (mut a, mut from_a) = ring(2).unwrap();
        let (mut b, mut from_b) = ring(2).unwrap();
        let mut sleeper = Sleeper::thread();
        let doorbell = sleeper.doorbell();
        let ringing_a = {
            let doorbell = doorbell.clone();
            thread::spawn(move || {
                a.push(1).unwrap();
                doorbell.ring();
            })
        };
        let ringing_b = thread::spawn(move || {
            b.push(2).unwrap();
            doorbell.ring();
        });
        wait_until(&mut sleeper, || !from_a.is_empty() && !from_b.is_empty());
        assert_eq!((from_a.pop(), from_b.pop()), (Ok(1), Ok(2)));
        ringing_a.join().unwrap();
        ringing_b.join().unwrap();
    });
}

/// The token of a ring that came together with a `cancel` neither ends a later sleep nor replaces its wake-up.
#[test]
fn a_stale_token_does_no_harm() {
    check_within(4, || {
        let work = Arc::new(AtomicUsize::new(0));
        let mut sleeper = Sleeper::thread();
        let doorbell = sleeper.doorbell();
        let ringing = {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                for done in 1..=2 {
                    work.store(done, Relaxed);
                    doorbell.ring();
                }
            })
        };
        sleeper.prepare();
        sleeper.cancel();
        wait_until(&mut sleeper, || work.load(Relaxed) == 2);
        ringing.join().unwrap();
    });
}

/// `woke` stands in for a wait that ended for another reason, such as a timer: a ring at that moment is either reported,
/// or its work is found in the next look.
#[test]
fn a_wait_that_ended_otherwise_loses_nothing() {
    check(|| {
        let work = Arc::new(AtomicUsize::new(0));
        let mut sleeper = Sleeper::thread();
        let doorbell = sleeper.doorbell();
        let ringing = {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                work.store(1, Relaxed);
                doorbell.ring();
            })
        };
        sleeper.prepare();
        if sleeper.woke() == Slept::Woken {
            assert_eq!(work.load(Relaxed), 1, "woken for nothing");
        }
        wait_until(&mut sleeper, || work.load(Relaxed) == 1);
        ringing.join().unwrap();
    });
}

/// What the ringer did before it rang has happened once the sleep says `Woken`, without any other synchronisation.
#[test]
fn what_the_ringer_did_has_happened() {
    check(|| {
        let note = Arc::new(UnsafeCell::new(0));
        let signpost = Arc::new(AtomicUsize::new(0));
        let mut sleeper = Sleeper::thread();
        let doorbell = sleeper.doorbell();
        sleeper.prepare();
        let ringing = {
            let (note, signpost) = (Arc::clone(&note), Arc::clone(&signpost));
            thread::spawn(move || {
                // SAFETY: the other thread reads only once it has been woken; loom checks just that.
                note.with_mut(|note| unsafe { *note = 7 });
                doorbell.ring();
                signpost.store(1, Relaxed);
            })
        };
        // Leads loom to the order in which the ring is over before the sleep begins, which it does not find by the flag.
        signpost.load(Relaxed);
        assert_eq!(sleeper.sleep(None), Slept::Woken);
        // SAFETY: the only write came before the ring.
        assert_eq!(note.with(|note| unsafe { *note }), 7);
        ringing.join().unwrap();
    });
}
