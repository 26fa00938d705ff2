//! Many cases: how many, which one again, and how a failing one is made small.

use crate::compare::check;
use crate::spec::{Case, End, KindName, Step};

/// Checks cases with windows of `kinds`: `PELTON_CASES` of them (else `default`), or the one case of `PELTON_SEED`.
///
/// # Panics
/// On the first case that fails, with its seed, the command that runs it alone, and the smallest job found that fails
/// too.
pub fn each(test: &str, kinds: &[KindName], default: u64) {
    each_by(test, kinds, default, check);
}

/// As [`each`], with another check.
///
/// # Panics
/// As [`each`].
pub fn each_by(
    test: &str,
    kinds: &[KindName],
    default: u64,
    check: impl FnMut(&Case) -> Result<(), String>,
) {
    each_drawn(
        test,
        numbers(default),
        |seed| Case::draw(seed, kinds),
        check,
    );
}

/// As [`each_by`], of these seeds and drawn in another way. With `PELTON_NO_SHRINK` a case that fails is told as it is: to look for a smaller
/// one takes longer than to find it.
///
/// # Panics
/// As [`each`].
pub fn each_drawn(
    test: &str,
    seeds: std::ops::Range<u64>,
    draw: impl Fn(u64) -> Case,
    mut check: impl FnMut(&Case) -> Result<(), String>,
) {
    for seed in seeds {
        let case = draw(seed);
        if let Err(what) = check(&case) {
            if std::env::var_os("PELTON_NO_SHRINK").is_some() {
                panic!("seed {seed}: {what}");
            }
            let (small, what_small) = shrink(case, what.clone(), &mut check);
            panic!(
                "seed {seed}: {what}\n\nrun it alone: PELTON_SEED={seed} cargo test -p pelton-simulation {test}\n\n\
                 the smallest that fails: {small:#?}\n{what_small}"
            );
        }
    }
}

/// The seeds to run: `PELTON_SEED` alone, or the first `PELTON_CASES`, or the first `default`.
pub fn numbers(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    match number("PELTON_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PELTON_CASES").unwrap_or(default),
    }
}

/// The same for a suite whose cases are dear: of each 200 that `PELTON_CASES` asks for, `default`.
pub fn some_numbers(default: u64) -> std::ops::Range<u64> {
    let all = numbers(200);
    match all.end - all.start {
        1 => all,
        n => 0..(n * default).div_ceil(200),
    }
}

/// Records that smaller cases may hold in all while one is looked for; a run costs as much as about 100 besides.
const SHRINK_MAX: usize = 200_000;

/// Leaves out records and steps as long as the case still fails.
fn shrink(
    mut case: Case,
    mut what: String,
    check: &mut impl FnMut(&Case) -> Result<(), String>,
) -> (Case, String) {
    // Bounded by what is run, not by a clock: a large case has fewer tries.
    let mut records = 0;
    loop {
        let mut better = None;
        for candidate in smaller(&case) {
            let sources = candidate.spec.sources.iter();
            let partitions = sources.flat_map(|s| &s.partitions);
            records += 100 + partitions.map(Vec::len).sum::<usize>();
            if records > SHRINK_MAX {
                return (case, what);
            }
            if let Err(e) = check(&candidate) {
                better = Some((candidate, e));
                break;
            }
        }
        match better {
            Some((candidate, e)) => (case, what) = (candidate, e),
            None => return (case, what),
        }
    }
}

fn smaller(case: &Case) -> Vec<Case> {
    let mut all = vec![];
    let mut with = |change: &dyn Fn(&mut Case)| {
        let mut other = case.clone();
        change(&mut other);
        all.push(other);
    };
    let spec = &case.spec;
    for s in 0..spec.sources.len() {
        if spec.sources.len() > 1 {
            with(&|c| drop(c.spec.sources.remove(s)));
        }
        for p in 0..spec.sources[s].partitions.len() {
            let length = spec.sources[s].partitions[p].len();
            let mut piece = length;
            while piece > 0 {
                for at in (0..length).step_by(piece) {
                    let until = (at + piece).min(length);
                    with(&|c| drop(c.spec.sources[s].partitions[p].drain(at..until)));
                }
                piece /= 2;
            }
            if spec.sources[s].partitions.len() > 1 && length == 0 {
                with(&|c| drop(c.spec.sources[s].partitions.remove(p)));
            }
        }
        with_plain(&mut with, s, case);
    }
    for n in 0..spec.steps.len() {
        with(&|c| {
            c.spec.steps.remove(n);
        });
        if spec.steps[n] != Step::Rebalance(Default::default()) {
            with(&|c| c.spec.steps[n] = Step::Rebalance(Default::default()));
        }
    }
    if let End::Chained(window, _) = spec.end {
        with(&|c| c.spec.end = End::Window(window));
    }
    all
}

fn with_plain(with: &mut impl FnMut(&dyn Fn(&mut Case)), s: usize, case: &Case) {
    let source = &case.spec.sources[s];
    if source.before != Default::default() {
        with(&|c| c.spec.sources[s].before = Default::default());
    }
    if source.after != Default::default() {
        with(&|c| c.spec.sources[s].after = Default::default());
    }
    if source.max_drift.is_some() {
        with(&|c| c.spec.sources[s].max_drift = None);
    }
}
