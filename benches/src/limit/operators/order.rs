//! Records that wait for the watermark, to be taken in the order of event time.

/// Law: what comes out rises in time. One shard's records come in order as it is, and those of several are some runs that do, which a stable
/// sort finds and merges.
#[derive(Debug)]
pub struct InOrder<R> {
    waiting: Vec<(u64, R)>,
}

impl<R> Default for InOrder<R> {
    fn default() -> Self {
        InOrder {
            waiting: Vec::new(),
        }
    }
}

impl<R> InOrder<R> {
    /// A record waits.
    #[inline(always)]
    pub fn push(&mut self, at: u64, record: R) {
        self.waiting.push((at, record));
    }

    /// Those before `watermark`.
    #[inline]
    pub fn pass(&mut self, watermark: u64, mut take: impl FnMut(R)) {
        if !self.waiting.is_sorted_by_key(|(at, _)| *at) {
            self.waiting.sort_by_key(|(at, _)| *at);
        }
        let due = self.waiting.partition_point(|(at, _)| *at < watermark);
        for (_, record) in self.waiting.drain(..due) {
            take(record);
        }
    }
}
