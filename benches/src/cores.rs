//! Which cores a run may use, and pinning to them.

/// How many cores this process may run on.
pub fn available() -> usize {
    core_affinity::get_core_ids().map_or(1, |ids| ids.len())
}

/// The number of the `index`th core this process may run on, as the system counts.
pub fn id(index: usize) -> Option<usize> {
    let ids = core_affinity::get_core_ids()?;
    ids.get(index).map(|core| core.id)
}

/// Pins this thread to the `index`th core that it may run on; where the system refuses, the thread stays free.
pub fn pin(index: usize) {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = ids.get(index) {
        core_affinity::set_for_current(*core);
    }
}
