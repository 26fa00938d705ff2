//! The hand-written loops' work on each record, a job a workload.

use super::campaigns::Campaigns;
use super::running::Running;
use super::sessions::Sessions;
use super::sliding::Sliding;
use super::tumbling::Tumbling;
use crate::events::{
    self, CampaignView, EVENTS_PER_MS, Ev, Priced, SESSION_GAP_MS, SLIDE_MS, Totals,
    WATERMARK_STEP_MS, WINDOW_MS,
};
use rustc_hash::FxHashMap;

/// [`Job::DRIFT_MS`] where nothing else is said.
pub const DRIFT_MS: u64 = 1000;

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To the shard of this key.
    Key(u64),
    /// It stays where it was made.
    Here,
    /// To every shard.
    All,
}

/// One shard's share of a workload.
pub trait Job: Send {
    /// What crosses between shards.
    type Record: Copy + Send + 'static;
    /// Whether records go to the shard of their key; otherwise each stays where it was made.
    const EXCHANGES: bool = true;
    /// Events in a millisecond of event time.
    const PER_MS: u64 = EVENTS_PER_MS;
    /// How far apart watermarks are, in milliseconds of event time.
    const STEP_MS: u64 = WATERMARK_STEP_MS;
    /// How far, in milliseconds of event time, a shard's source may run ahead of the slowest shard's.
    const DRIFT_MS: u64 = DRIFT_MS;
    /// Makes the event of this id and runs the steps before the exchange.
    fn make(&mut self, id: u64) -> Option<Self::Record>;
    /// What decides the shard.
    fn key(record: &Self::Record) -> u64;
    /// Where a record goes.
    #[inline(always)]
    fn to(record: &Self::Record) -> To {
        To::Key(Self::key(record))
    }
    /// Runs the steps after the exchange.
    fn take(&mut self, record: &Self::Record);
    /// All records before `watermark` (in milliseconds) have been taken.
    fn advance(&mut self, watermark: u64);
    /// What has been emitted so far.
    fn totals(&self) -> Totals;
}

/// `keyed-window`.
pub struct KeyedWindow {
    state: Tumbling,
    totals: Totals,
}

impl Default for KeyedWindow {
    fn default() -> Self {
        KeyedWindow {
            state: Tumbling::new(WINDOW_MS),
            totals: Totals::default(),
        }
    }
}

impl Job for KeyedWindow {
    type Record = Ev;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Ev> {
        Some(events::ev(id, EVENTS_PER_MS))
    }

    #[inline(always)]
    fn key(record: &Ev) -> u64 {
        record.key
    }

    #[inline(always)]
    fn take(&mut self, record: &Ev) {
        self.state.update(record);
    }

    fn advance(&mut self, watermark: u64) {
        let totals = &mut self.totals;
        self.state
            .advance(watermark, |result| totals.add(result.checksum()));
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// `keyed-window` in batches of 64 whose slots are touched before they are updated.
pub struct KeyedWindowPrefetch {
    inner: KeyedWindow,
    batch: Vec<Ev>,
}

const PREFETCH_BATCH: usize = 64;

impl Default for KeyedWindowPrefetch {
    fn default() -> Self {
        KeyedWindowPrefetch {
            inner: KeyedWindow::default(),
            batch: Vec::with_capacity(PREFETCH_BATCH),
        }
    }
}

impl KeyedWindowPrefetch {
    #[inline(always)]
    fn flush(&mut self) {
        self.inner.state.update_batch(&self.batch);
        self.batch.clear();
    }
}

impl Job for KeyedWindowPrefetch {
    type Record = Ev;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Ev> {
        self.inner.make(id)
    }

    #[inline(always)]
    fn key(record: &Ev) -> u64 {
        record.key
    }

    #[inline(always)]
    fn take(&mut self, record: &Ev) {
        self.batch.push(*record);
        if self.batch.len() == PREFETCH_BATCH {
            self.flush();
        }
    }

    fn advance(&mut self, watermark: u64) {
        self.flush();
        self.inner.advance(watermark);
    }

    fn totals(&self) -> Totals {
        self.inner.totals
    }
}

/// `sliding-window`.
pub struct SlidingWindow {
    state: Sliding,
    totals: Totals,
}

impl Default for SlidingWindow {
    fn default() -> Self {
        SlidingWindow {
            state: Sliding::new(WINDOW_MS, SLIDE_MS),
            totals: Totals::default(),
        }
    }
}

impl Job for SlidingWindow {
    type Record = Ev;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Ev> {
        Some(events::ev(id, EVENTS_PER_MS))
    }

    #[inline(always)]
    fn key(record: &Ev) -> u64 {
        record.key
    }

    #[inline(always)]
    fn take(&mut self, record: &Ev) {
        self.state.update(record);
    }

    fn advance(&mut self, watermark: u64) {
        let totals = &mut self.totals;
        self.state
            .advance(watermark, |result| totals.add(result.checksum()));
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// `session-window`.
pub struct SessionWindow {
    state: Sessions,
    totals: Totals,
}

impl Default for SessionWindow {
    fn default() -> Self {
        SessionWindow {
            state: Sessions::new(SESSION_GAP_MS, DRIFT_MS + 2 * WATERMARK_STEP_MS),
            totals: Totals::default(),
        }
    }
}

impl Job for SessionWindow {
    type Record = Ev;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Ev> {
        Some(events::session_ev(id, EVENTS_PER_MS))
    }

    #[inline(always)]
    fn key(record: &Ev) -> u64 {
        record.key
    }

    #[inline(always)]
    fn take(&mut self, record: &Ev) {
        self.state.update(record);
    }

    fn advance(&mut self, watermark: u64) {
        let totals = &mut self.totals;
        self.state
            .advance(watermark, |result| totals.add(result.checksum()));
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// `ysb`.
pub struct Ysb {
    campaign_of: FxHashMap<u64, u64>,
    state: Campaigns,
    totals: Totals,
}

impl Default for Ysb {
    fn default() -> Self {
        Ysb {
            campaign_of: events::ad_campaigns().collect(),
            state: Campaigns::new(WINDOW_MS),
            totals: Totals::default(),
        }
    }
}

impl Job for Ysb {
    type Record = CampaignView;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<CampaignView> {
        let event = events::ad_event(id, EVENTS_PER_MS);
        (event.event_type == 0).then(|| CampaignView {
            campaign: self.campaign_of[&event.ad],
            ts: event.ts,
        })
    }

    #[inline(always)]
    fn key(record: &CampaignView) -> u64 {
        record.campaign
    }

    #[inline(always)]
    fn take(&mut self, record: &CampaignView) {
        self.state.update(record);
    }

    fn advance(&mut self, watermark: u64) {
        let totals = &mut self.totals;
        self.state
            .advance(watermark, |result| totals.add(result.checksum()));
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// `map-filter`.
#[derive(Default)]
pub struct MapFilter {
    totals: Totals,
}

impl Job for MapFilter {
    type Record = Priced;
    const EXCHANGES: bool = false;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Priced> {
        let converted = events::convert(events::ev(id, EVENTS_PER_MS));
        events::is_dear(&converted).then(|| events::price(converted))
    }

    #[inline(always)]
    fn key(record: &Priced) -> u64 {
        record.bucket
    }

    #[inline(always)]
    fn take(&mut self, record: &Priced) {
        self.totals.add(record.checksum());
    }

    fn advance(&mut self, _watermark: u64) {}

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// `running-total` and `process`.
#[derive(Default)]
pub struct RunningTotals {
    state: Running,
    totals: Totals,
}

impl Job for RunningTotals {
    type Record = Ev;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Ev> {
        Some(events::deposit_ev(id, EVENTS_PER_MS))
    }

    #[inline(always)]
    fn key(record: &Ev) -> u64 {
        record.key
    }

    #[inline(always)]
    fn take(&mut self, record: &Ev) {
        self.totals.add(self.state.update(record).checksum());
    }

    fn advance(&mut self, _watermark: u64) {}

    fn totals(&self) -> Totals {
        self.totals
    }
}
