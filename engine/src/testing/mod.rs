//! Stepping a job by hand: every shard in one thread, virtual time, any order.
