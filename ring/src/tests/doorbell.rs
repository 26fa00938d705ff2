//! Sleeping and waking. Times are only ever upper bounds for a failure or lower bounds for a time-out.

use crate::{Doorbell, Sleeper, Slept, Wake, ring};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Long enough for any machine; only a lost wake-up waits for it.
const TOO_LONG: Option<Duration> = Some(Duration::from_secs(60));
const MOMENT: Option<Duration> = Some(Duration::from_millis(2));
const ROUNDS: u64 = if cfg!(miri) { 20 } else { 20_000 };

/// Each kind there is here.
fn sleepers() -> Vec<Sleeper> {
    vec![
        Sleeper::thread(),
        #[cfg(all(target_os = "linux", not(miri)))]
        Sleeper::eventfd().unwrap(),
    ]
}

#[test]
fn a_sleep_times_out() {
    for mut sleeper in sleepers() {
        sleeper.prepare();
        assert_eq!(sleeper.sleep(MOMENT), Slept::TimedOut);
    }
}

#[test]
fn a_ring_before_the_sleep_ends_it() {
    for mut sleeper in sleepers() {
        sleeper.prepare();
        sleeper.doorbell().ring();
        assert_eq!(sleeper.sleep(None), Slept::Woken);
    }
}

#[test]
fn a_ring_while_awake_does_nothing() {
    for mut sleeper in sleepers() {
        sleeper.doorbell().ring();
        sleeper.prepare();
        assert_eq!(sleeper.sleep(MOMENT), Slept::TimedOut);
        sleeper.doorbell().ring();
        sleeper.prepare();
        assert_eq!(sleeper.sleep(MOMENT), Slept::TimedOut);
    }
}

#[test]
fn a_sleep_without_preparation_is_none() {
    for mut sleeper in sleepers() {
        assert_eq!(sleeper.sleep(None), Slept::Woken);
    }
}

#[test]
fn a_stale_token_does_not_end_a_sleep() {
    for mut sleeper in sleepers() {
        sleeper.prepare();
        sleeper.doorbell().ring(); // leaves a token
        sleeper.cancel();
        sleeper.prepare();
        assert_eq!(sleeper.sleep(MOMENT), Slept::TimedOut);
    }
}

#[test]
fn woke_tells_a_ring_from_anything_else() {
    for mut sleeper in sleepers() {
        sleeper.prepare();
        assert_eq!(sleeper.woke(), Slept::TimedOut);
        sleeper.prepare();
        sleeper.doorbell().ring();
        assert_eq!(sleeper.woke(), Slept::Woken);
        sleeper.prepare();
        assert_eq!(sleeper.sleep(MOMENT), Slept::TimedOut, "the token is taken");
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn an_eventfd_is_readable_while_there_is_a_token() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::fd::AsFd;

    fn is_readable(sleeper: &Sleeper) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(sleeper.as_fd(), PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).unwrap() == 1
    }

    let mut sleeper = Sleeper::eventfd().unwrap();
    let doorbell = sleeper.doorbell();
    doorbell.ring();
    assert!(!is_readable(&sleeper), "nobody was to be woken");
    sleeper.prepare();
    assert!(!is_readable(&sleeper));
    doorbell.ring();
    doorbell.ring();
    assert!(is_readable(&sleeper));
    assert_eq!(sleeper.woke(), Slept::Woken);
    assert!(!is_readable(&sleeper));
}

#[test]
#[should_panic(expected = "no file descriptor")]
#[cfg(unix)]
fn a_parker_has_no_descriptor() {
    use std::os::fd::AsFd;
    Sleeper::thread().as_fd();
}

/// Counts wake-ups, and never waits.
struct Counter(Arc<AtomicUsize>);

impl Wake for Counter {
    fn wake(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn wait(&self, _timeout: Option<Duration>) -> bool {
        false
    }

    fn clear(&self) {}
}

#[test]
fn only_the_first_ring_of_a_sleep_wakes() {
    let wakes = Arc::new(AtomicUsize::new(0));
    let mut sleeper = Sleeper::with_wake(Counter(Arc::clone(&wakes)));
    let doorbells: Vec<Doorbell> = (0..3).map(|_| sleeper.doorbell()).collect();
    let ring_all = || doorbells.iter().for_each(Doorbell::ring);
    for sleeps in 1..=3 {
        ring_all();
        sleeper.prepare();
        ring_all();
        assert_eq!(wakes.load(Relaxed), sleeps);
        assert_eq!(sleeper.woke(), Slept::Woken);
    }
    sleeper.prepare();
    drop(sleeper);
    ring_all();
    assert_eq!(wakes.load(Relaxed), 3, "nobody is there any more");
}

/// Two threads, each asleep most of the time, hand a value to and fro.
#[test]
fn ping_pong_loses_no_wake_up() {
    for (mut here, mut there) in sleepers().into_iter().zip(sleepers()) {
        let (mut to_there, mut from_here) = ring(1).unwrap();
        let (mut to_here, mut from_there) = ring(1).unwrap();
        let (ring_here, ring_there) = (here.doorbell(), there.doorbell());

        let echo = thread::spawn(move || {
            for _ in 0..ROUNDS {
                to_here.push(receive(&mut there, &mut from_here)).unwrap();
                ring_here.ring();
            }
        });
        for round in 0..ROUNDS {
            to_there.push(round).unwrap();
            ring_there.ring();
            assert_eq!(receive(&mut here, &mut from_there), round);
        }
        echo.join().unwrap();
    }
}

fn receive(sleeper: &mut Sleeper, consumer: &mut crate::Consumer<u64>) -> u64 {
    loop {
        if let Ok(value) = consumer.pop() {
            return value;
        }
        sleeper.prepare();
        if consumer.is_empty() {
            assert_eq!(sleeper.sleep(TOO_LONG), Slept::Woken, "a lost wake-up");
        } else {
            sleeper.cancel();
        }
    }
}

/// Several ringers, one sleeper, and a worker that falls asleep as often as it can.
#[test]
fn many_ringers_lose_no_work() {
    for mut sleeper in sleepers() {
        let mut consumers = Vec::new();
        let mut ringers = Vec::new();
        for _ in 0..3 {
            let (mut producer, consumer) = ring(2).unwrap();
            consumers.push(consumer);
            let doorbell = sleeper.doorbell();
            ringers.push(thread::spawn(move || {
                for value in 0..ROUNDS {
                    while producer.push(value).is_err() {
                        thread::yield_now();
                    }
                    doorbell.ring();
                }
            }));
        }
        let mut left = 3 * ROUNDS;
        while left > 0 {
            sleeper.prepare();
            if consumers.iter_mut().all(|consumer| consumer.is_empty()) {
                assert_eq!(sleeper.sleep(TOO_LONG), Slept::Woken, "a lost wake-up");
            } else {
                sleeper.cancel();
            }
            for consumer in &mut consumers {
                left -= consumer.drain(usize::MAX).count() as u64;
            }
        }
        for ringer in ringers {
            ringer.join().unwrap();
        }
    }
}
