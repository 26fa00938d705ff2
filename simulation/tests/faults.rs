//! Each operation of the disk fails, in each way, once and for ever; and at each power is lost.

use pelton_simulation::faults::{Came, Small};
use pelton_simulation::random::Random;
use pelton_storage::{Fault, FaultKind};
use std::collections::BTreeMap;

/// The first from `seed` on in which enough happens, and its operations.
fn busy(seed: u64) -> (Small, u64) {
    for seed in seed..seed + 500 {
        let small = Small::new(seed);
        let (operations, epochs) = small.undisturbed().unwrap();
        if (60..200).contains(&operations) && epochs > 4 {
            println!("seed {seed}: {operations} operations, {epochs} epochs");
            return (small, operations);
        }
    }
    panic!("nothing happens in any");
}

#[test]
fn each_operation_fails() {
    let (small, operations) = busy(0);
    for (kind, for_ever) in [
        (FaultKind::Io, false),
        (FaultKind::Io, true),
        (FaultKind::NoSpace, false),
        (FaultKind::NoSpace, true),
        (FaultKind::Short, false),
        (FaultKind::Short, true),
    ] {
        let mut came: BTreeMap<String, u64> = BTreeMap::new();
        for at in 0..operations {
            let fault = Fault { at, kind, for_ever };
            let what = small
                .fail(fault)
                .unwrap_or_else(|e| panic!("{fault:?}: {e}"));
            if let Came::Failed(code) = what {
                let clear = ["PLT-0108", "PLT-0109"].contains(&code);
                assert!(clear, "{fault:?} ended the job with {code}");
            }
            *came.entry(format!("{what:?}")).or_default() += 1;
        }
        println!("{kind:?}, for ever: {for_ever}: {came:?}");
        let failed: u64 = came
            .iter()
            .filter(|(k, _)| k.contains("PLT"))
            .map(|(_, n)| n)
            .sum();
        assert!(failed * 2 > operations, "{kind:?}: {came:?}");
    }
}

#[test]
fn power_is_lost_at_each_operation() {
    let (small, operations) = busy(1_000);
    let mut unsynced = 0;
    for at in 0..operations {
        for subset in 0..6 {
            let mut random = Random::new(at << 8 | subset);
            let keep = |_| match subset {
                0 => false,
                1 => true,
                2 => random.one_in(8),
                _ => random.one_in(2),
            };
            let lost = small.lose_power(at, keep);
            unsynced += lost.unwrap_or_else(|e| panic!("operation {at}, subset {subset}: {e}"));
        }
    }
    println!("{operations} operations, {unsynced} units to lose");
    assert!(unsynced as u64 > operations, "there was something to lose");
}
