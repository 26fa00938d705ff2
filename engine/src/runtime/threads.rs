//! The threads driver: a pinned thread a shard, and a parker.

use crate::error::BuildError;
use crate::runtime::ShardRef;
use crate::runtime::clock::Clock;
use crate::runtime::config::{Placement, Waiting};
use crate::runtime::shard::{Round, Shard};
use pelton_ring::{Doorbell, Sleeper};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Makes the mailboxes and doorbells of all shards.
pub(crate) fn prepare(placement: &Placement) -> Result<(Vec<ShardRef>, Vec<Sleeper>), BuildError> {
    let sleepers: Vec<Sleeper> = placement.cores.iter().map(|_| Sleeper::thread()).collect();
    let shards = sleepers
        .iter()
        .map(|s| ShardRef {
            mailbox: Arc::default(),
            doorbell: s.doorbell(),
        })
        .collect();
    Ok((shards, sleepers))
}

/// Starts a thread a shard.
pub(crate) fn spawn(
    placement: &Placement,
    shards: &[ShardRef],
    sleepers: Vec<Sleeper>,
    bells: &Arc<[Doorbell]>,
    clock: Clock,
    ended: &mpsc::Sender<usize>,
) -> Result<(), BuildError> {
    for (id, (shard, sleeper)) in shards.iter().zip(sleepers).enumerate() {
        let parks = matches!(placement.waiting, Waiting::Park { .. });
        let shard = Shard::new(id, shard.mailbox.clone(), bells.clone(), parks, clock);
        let (core, waiting, ended) = (placement.cores[id], placement.waiting, ended.clone());
        std::thread::Builder::new()
            .name(format!("pelton-shard-{id}"))
            .spawn(move || {
                if let Some(core) = core {
                    // Where pinning is refused the shard still runs; the mask was checked when it was placed.
                    core_affinity::set_for_current(core_affinity::CoreId { id: core });
                }
                run(shard, sleeper, waiting);
                // The runtime may have gone: nobody waits then.
                let _ = ended.send(id);
            })
            .map_err(|e| BuildError::Config {
                what: format!("the thread of shard {id} could not be started: {e}"),
                advice: "raise the limit on threads, or use fewer shards".into(),
            })?;
    }
    Ok(())
}

/// The duty loop.
fn run(mut shard: Shard, mut sleeper: Sleeper, waiting: Waiting) {
    let mut idle_since: Option<u64> = None;
    loop {
        let round = shard.round();
        if round.shutdown {
            return;
        }
        if round.worked {
            idle_since = None;
            continue;
        }
        match waiting {
            Waiting::Spin => std::hint::spin_loop(),
            Waiting::Yield => std::thread::yield_now(),
            Waiting::Park { spin_us } => {
                let now = shard.clock.now_ns();
                let since = *idle_since.get_or_insert(now);
                if now - since < spin_us * 1_000 {
                    std::hint::spin_loop();
                } else if park(&mut shard, &mut sleeper) {
                    return;
                }
            }
        }
    }
}

/// Sleeps until a doorbell or a timer, unless one more round finds work; whether the shard is to end.
fn park(shard: &mut Shard, sleeper: &mut Sleeper) -> bool {
    sleeper.prepare();
    let round: Round = shard.round();
    if round.worked || round.shutdown {
        sleeper.cancel();
        return round.shutdown;
    }
    let timeout = round
        .until_ns
        .map(|until| Duration::from_nanos(until.saturating_sub(shard.clock.now_ns())));
    if timeout == Some(Duration::ZERO) {
        sleeper.cancel();
    } else {
        sleeper.sleep(timeout);
    }
    false
}
