//! Records that wait for the watermark, to be taken in the order of event time.

/// Law: what comes out rises in time. One shard's records come in order as it is, and those of several are some runs that do, which a stable
/// sort finds and merges.
#[derive(Debug)]
pub struct InOrder<R> {
    waiting: Vec<(u64, R)>,
    /// Time of the last that came, and whether all came in order.
    last: u64,
    in_order: bool,
}

impl<R> Default for InOrder<R> {
    fn default() -> Self {
        InOrder {
            waiting: Vec::new(),
            last: 0,
            in_order: true,
        }
    }
}

impl<R> InOrder<R> {
    /// A record waits.
    #[inline(always)]
    pub fn push(&mut self, at: u64, record: R) {
        self.in_order &= at >= self.last;
        self.last = at;
        self.waiting.push((at, record));
    }

    /// Those before `watermark`.
    #[inline]
    pub fn pass(&mut self, watermark: u64, mut take: impl FnMut(R)) {
        if !self.in_order {
            self.waiting.sort_by_key(|(at, _)| *at);
            self.in_order = true;
        }
        let due = self.waiting.partition_point(|(at, _)| *at < watermark);
        for (_, record) in self.waiting.drain(..due) {
            take(record);
        }
        self.last = self.waiting.last().map_or(0, |(at, _)| *at);
    }
}
