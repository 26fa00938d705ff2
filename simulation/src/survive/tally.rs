//! What happened to the lives of jobs, counted.

/// Counters that are added one by one: each is named once.
macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened to one job or many, so that a test can say that something did.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Faults {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Faults {
            /// Adds what happened elsewhere.
            pub fn add(&mut self, other: &Faults) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

tally! {
    /// Processes that ran.
    lives,
    /// Lives that ended between two steps.
    crashes,
    /// Lives that ended at an operation of the disk, the job running.
    halts,
    /// Lives that ended before the job ran.
    in_recovery,
    /// Ends that the machine did not survive, with something unsynced.
    power_losses,
    /// Lives that stopped and kept their windows.
    stops,
    /// Jobs that were through because they were drained, with something unread.
    drained,
    /// Lives that died while they drained.
    died_draining,
    /// Savepoints that were copied.
    savepoints,
    /// Jobs that started from one, on to their end.
    moved,
    /// Lives of theirs that read it, with another number of shards than who wrote it.
    moved_rescaled,
    /// Lives of theirs that went on from a checkpoint of their own.
    moved_recoveries,
    /// Lives that went on from a checkpoint.
    recoveries,
    /// Those among them with another number of shards than the life before.
    rescaled,
    /// Entries that they read.
    entries,
    /// Jobs that were through and were started once more.
    started_again,
    /// Epochs that were decided and committed.
    completed,
    /// Epochs that were given up.
    given_up,
    /// Sweeps that were through.
    sweeps,
    /// Lives in which one was.
    swept_lives,
    /// Segments that sweeps made useless.
    segments_removed,
    /// Recoveries from a folder in which a sweep had been through: what it made useless was gone.
    swept_recoveries,
    /// Commits that were put off.
    refused,
    /// Lives in which several epochs were decided and uncommitted at once.
    overlapped,
    /// Lives that were cut off while several were.
    cut_behind,
    /// How often sources had to wait for commits.
    waits,
}
