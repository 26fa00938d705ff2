//! The inbound rings of a stage on one shard: takes frames in turn and merges watermarks.
//!
//! Laws
//! 1. Rings are drained in turn, one frame each: no producer can starve another. Where the first of them are *preferred*, the others are looked at only
//!    when no preferred one gave a frame, or when [`PATIENCE`] looks in a row have got frames of preferred ones: so much, and no more, they wait.
//! 2. `merged` is the minimum over the channels that are neither idle nor ended, and never falls.
//! 3. A channel that returns from idleness owes `floor`: V(r) of its records is at least that (SEMANTICS, time, 3).
//! 4. Once a channel has handed over a barrier it is not read until all others have, or have ended: what is handed out before
//!    [`Arrival::Barrier`] belongs to the barrier's epoch, what comes after it does not.

use super::{Channel, EdgeReader, Gone};
use crate::batch::{Batch, Frame};
use crate::checkpoint::Cut;
use crate::push::Cx;
use crate::time::EventTime;
use std::ops::Range;

/// Law 1: looks at the preferred channels alone, one after another, that the others wait for at the most.
pub(crate) const PATIENCE: u32 = 64;

/// The watermark that a channel has told so far, and whether it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelState {
    Active,
    /// Silent; `close` as its frame said.
    Idle {
        close: bool,
    },
    Ended,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    channels: Vec<Channel<T>>,
    states: Vec<ChannelState>,
    watermarks: Vec<EventTime>,
    floors: Vec<EventTime>,
    /// The operator's watermark M.
    merged: EventTime,
    /// The first channels that are preferred: 0 where none is.
    preferred: usize,
    /// Looks in a row that have got frames of preferred channels; at most [`PATIENCE`].
    passed_over: u32,
    /// Where to look next, among the preferred channels and among the others (law 1).
    turns: [usize; 2],
    /// The idle event last told to the stage, so that it is told once.
    told_idle: Option<bool>,
    /// The barrier that some channels have handed over (law 4).
    aligning: Option<Cut>,
    /// Whether a channel has; all `false` while none is being aligned.
    aligned: Vec<bool>,
}

/// What an inbox hands to its stage.
#[derive(Debug)]
pub(crate) enum Arrival<T> {
    /// Records from channel `.0`; the batch goes back by [`Inbox::recycle`].
    Batch(usize, Box<Batch<T>>),
    /// M has risen.
    Watermark { time: EventTime, arrival_ns: u64 },
    /// All channels are idle or ended, at least one idle.
    Idle { close: bool },
    /// The barrier of this epoch, from every channel that has not ended.
    Barrier(Cut),
    /// All channels have ended.
    End,
    /// Frames were taken that change nothing here; there may be more behind them.
    Again,
    /// Every ring was looked at and is empty.
    Nothing,
}

impl<T> Inbox<T> {
    /// Reads all these; the first `preferred` of them before the others.
    pub fn new(readers: Vec<EdgeReader<T>>, preferred: usize) -> Self {
        let first = readers.iter().take(preferred);
        let preferred = first.map(|r| r.channels.len()).sum();
        let channels: Vec<_> = readers.into_iter().flat_map(|r| r.channels).collect();
        let n = channels.len();
        Inbox {
            channels,
            states: vec![ChannelState::Active; n],
            watermarks: vec![EventTime::BEGINNING; n],
            floors: vec![EventTime::BEGINNING; n],
            merged: EventTime::BEGINNING,
            preferred,
            passed_over: 0,
            turns: [0, preferred],
            told_idle: None,
            aligning: None,
            aligned: vec![false; n],
        }
    }

    /// The operator's watermark M.
    pub fn merged(&self) -> EventTime {
        self.merged
    }

    /// The operator itself moved its watermark (closing windows after idleness): M and later floors follow. That all are
    /// idle is told once more, so that it goes on to the next stage when the windows have closed.
    pub fn advance_to(&mut self, watermark: EventTime) {
        self.merged = self.merged.max(watermark);
        self.told_idle = None;
    }

    /// M is what a checkpoint had it at. It may lie above the V of a channel that was idle then, or closed by the rule: its
    /// records owe that floor now as they did before (law 3).
    pub fn restored(&mut self, watermark: EventTime) {
        self.merged = watermark;
        self.floors.fill(watermark);
    }

    /// The idle event last told, while all channels are idle.
    pub fn told_idle(&self) -> Option<bool> {
        self.told_idle
    }

    pub fn recycle(&mut self, channel: usize, batch: Box<Batch<T>>) {
        self.channels[channel].recycle(batch);
    }

    /// The next thing to do, looking at each ring at most once.
    ///
    /// A frame may say nothing new: the watermark of a channel that another one holds back. What lies behind it in the
    /// ring has been rung for already, so [`Arrival::Nothing`] is said only when no ring gave a frame.
    pub fn next(&mut self, cx: &mut Cx) -> Result<Arrival<T>, Gone> {
        if let Some(cut) = self.aligning
            && self.is_aligned()
        {
            self.aligning = None;
            self.aligned.fill(false);
            return Ok(Arrival::Barrier(cut));
        }
        let first = 0..self.preferred;
        let others = self.preferred..self.channels.len();
        // Law 1. Their turn has come: then the preferred ones are looked at behind them.
        let overdue = self.passed_over == PATIENCE;
        if overdue {
            self.passed_over = 0;
        } else if !first.is_empty() {
            let looked = self.look(0, first.clone(), cx)?;
            if !matches!(looked, Arrival::Nothing) {
                self.passed_over += 1;
                return Ok(looked);
            }
            self.passed_over = 0;
        }
        let mut looked = self.look(1, others, cx)?;
        if overdue && matches!(looked, Arrival::Nothing) {
            looked = self.look(0, first, cx)?;
        }
        match looked {
            // A merge on idleness may have hidden that all are idle; say it once the rings are quiet.
            Arrival::Nothing => Ok(self.all_idle().unwrap_or(Arrival::Nothing)),
            arrived => Ok(arrived),
        }
    }

    /// Looks at each of these channels at most once, in turn.
    #[inline]
    fn look(
        &mut self,
        turn: usize,
        channels: Range<usize>,
        cx: &mut Cx,
    ) -> Result<Arrival<T>, Gone> {
        let mut taken = false;
        for _ in channels.clone() {
            let at = self.turns[turn];
            self.turns[turn] = if at + 1 == channels.end {
                channels.start
            } else {
                at + 1
            };
            if self.states[at] == ChannelState::Ended || self.aligned[at] {
                continue;
            }
            let frame = self.channels[at].next()?;
            if frame.is_some() {
                taken = true;
                // Room was made: a producer that waits for it is woken after this step.
                cx.published_to(self.channels[at].from);
            }
            match frame {
                None => {}
                Some(Frame::Batch(mut batch)) => {
                    self.wake(at);
                    if self.floors[at] > self.watermarks[at] {
                        batch.raise_floor(self.floors[at]);
                    }
                    return Ok(Arrival::Batch(at, batch));
                }
                Some(Frame::Watermark { time, arrival_ns }) => {
                    self.wake(at);
                    self.watermarks[at] = self.watermarks[at].max(time);
                    if let Some(time) = self.merge() {
                        return Ok(Arrival::Watermark { time, arrival_ns });
                    }
                }
                Some(Frame::Idle { close }) => {
                    self.states[at] = ChannelState::Idle { close };
                    if let Some(then) = self.without_one() {
                        return Ok(then);
                    }
                }
                Some(Frame::Barrier(cut)) => {
                    debug_assert!(self.aligning.is_none_or(|c| c == cut), "one at a time");
                    self.aligning = Some(cut);
                    self.aligned[at] = true;
                }
                Some(Frame::End) => {
                    self.states[at] = ChannelState::Ended;
                    if self.states.iter().all(|s| *s == ChannelState::Ended) {
                        return Ok(Arrival::End);
                    }
                    if let Some(then) = self.without_one() {
                        return Ok(then);
                    }
                }
            }
        }
        Ok(match taken {
            true => Arrival::Again,
            false => Arrival::Nothing,
        })
    }

    /// What follows once a channel holds M back no longer: M may rise, or all that are left are idle.
    fn without_one(&mut self) -> Option<Arrival<T>> {
        let risen = self.merge().map(|time| Arrival::Watermark {
            time,
            arrival_ns: 0,
        });
        risen.or_else(|| self.all_idle())
    }

    /// Whether every channel has handed over the barrier or ended (law 4).
    fn is_aligned(&self) -> bool {
        let mut channels = self.states.iter().zip(&self.aligned);
        channels.all(|(state, aligned)| *aligned || *state == ChannelState::Ended)
    }

    /// A frame came over channel `at`: if it was idle it is active again and owes the floor (law 3).
    fn wake(&mut self, at: usize) {
        if let ChannelState::Idle { .. } = self.states[at] {
            self.states[at] = ChannelState::Active;
            self.floors[at] = self.floors[at].max(self.merged);
            self.told_idle = None;
        }
    }

    /// Recomputes M (law 2); the new value if it rose.
    fn merge(&mut self) -> Option<EventTime> {
        let mut low = EventTime::END;
        let mut any = false;
        for (state, (&told, &floor)) in self
            .states
            .iter()
            .zip(self.watermarks.iter().zip(&self.floors))
        {
            match state {
                // One that has told the end of time has ended but for the frame that says so. It must not carry M to the
                // end over channels that are only idle: what these say later would be late.
                ChannelState::Active if told < EventTime::END => {
                    any = true;
                    low = low.min(told.max(floor));
                }
                ChannelState::Active | ChannelState::Ended => {}
                ChannelState::Idle { .. } => {}
            }
        }
        // All idle: M stays where it is until someone speaks or the windows are closed by the rule. All ended: END.
        if !any
            && self
                .states
                .iter()
                .any(|s| matches!(s, ChannelState::Idle { .. }))
        {
            low = self.idle_watermark();
        }
        if low > self.merged {
            self.merged = low;
            return Some(low);
        }
        None
    }

    /// With every live channel idle, the furthest that any of them had told: their silence holds nothing back.
    fn idle_watermark(&self) -> EventTime {
        let told = self
            .states
            .iter()
            .zip(&self.watermarks)
            .filter(|(s, _)| matches!(s, ChannelState::Idle { .. }));
        told.map(|(_, &w)| w).max().unwrap_or(EventTime::BEGINNING)
    }

    fn all_idle<U>(&mut self) -> Option<Arrival<U>> {
        let mut close = true;
        let mut idle = false;
        for (state, &told) in self.states.iter().zip(&self.watermarks) {
            match state {
                // It says nothing of time any more: see `merge`.
                ChannelState::Active if told == EventTime::END => {}
                ChannelState::Active => return None,
                ChannelState::Idle { close: c } => {
                    idle = true;
                    close &= c;
                }
                ChannelState::Ended => {}
            }
        }
        if !idle || self.told_idle == Some(close) {
            return None;
        }
        self.told_idle = Some(close);
        Some(Arrival::Idle { close })
    }
}
