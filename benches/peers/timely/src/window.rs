//! A stateful operator that fires by frontier and holds one capability, at the earliest open end.

use peers_common::campaigns::Campaigns;
use peers_common::events::{CampaignView, Ev, SessionResult, WindowResult};
use peers_common::sessions::Sessions;
use peers_common::sliding::Sliding;
use peers_common::tumbling::Tumbling;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::ParallelizationContract;
use timely::dataflow::operators::{Capability, Operator};
use timely::progress::frontier::MutableAntichain;

/// The state of a window operator.
pub trait State {
    type In;
    type Out;
    fn update(&mut self, record: &Self::In);
    fn advance(&mut self, watermark: u64, emit: impl FnMut(Self::Out));
    /// The earliest time at which something may fire.
    fn next_end(&self) -> Option<u64>;
}

macro_rules! state {
    ($state:ty, $record:ty, $result:ty) => {
        impl State for $state {
            type In = $record;
            type Out = $result;

            #[inline(always)]
            fn update(&mut self, record: &$record) {
                self.update(record);
            }

            fn advance(&mut self, watermark: u64, emit: impl FnMut($result)) {
                self.advance(watermark, emit);
            }

            fn next_end(&self) -> Option<u64> {
                self.next_end()
            }
        }
    };
}
state!(Tumbling, Ev, WindowResult);
state!(Sliding, Ev, WindowResult);
state!(Campaigns, CampaignView, WindowResult);

/// Sessions, which may fire at any watermark: the capability follows it.
pub struct SteppedSessions {
    pub state: Sessions,
    pub watermark: u64,
}

impl State for SteppedSessions {
    type In = Ev;
    type Out = SessionResult;

    #[inline(always)]
    fn update(&mut self, record: &Ev) {
        self.state.update(record);
    }

    fn advance(&mut self, watermark: u64, emit: impl FnMut(SessionResult)) {
        self.watermark = watermark;
        self.state.advance(watermark, emit);
    }

    fn next_end(&self) -> Option<u64> {
        (self.watermark != u64::MAX).then_some(self.watermark + 1)
    }
}

/// The event time that the frontier has reached.
pub fn watermark(frontier: &MutableAntichain<u64>) -> u64 {
    let frontier = frontier.frontier();
    frontier.iter().next().copied().unwrap_or(u64::MAX)
}

/// Windows whose earliest end for a record of time `t` is the end of the step of `step` that `t` is in.
pub fn window<'scope, S, P>(
    stream: StreamVec<'scope, u64, S::In>,
    pact: P,
    step: u64,
    mut state: S,
) -> StreamVec<'scope, u64, S::Out>
where
    S: State + 'static,
    S::In: Clone + 'static,
    S::Out: Clone + 'static,
    P: ParallelizationContract<u64, Vec<S::In>>,
{
    type Builder<T> = CapacityContainerBuilder<Vec<T>>;
    stream.unary_frontier::<Builder<S::Out>, _, _, _>(pact, "Window", move |_, _| {
        let mut held: Option<Capability<u64>> = None;
        let mut reached = 0;
        move |(input, frontier), output| {
            input.for_each_stamp(|capability, data| {
                let time = capability.least().copied().unwrap_or_default();
                let end = (time / step + 1) * step;
                if held.as_ref().is_none_or(|held| *held.time() > end) {
                    held = Some(capability.delayed(&end, output.output_index()));
                }
                for batch in data {
                    batch.iter().for_each(|record| state.update(record));
                }
            });
            let watermark = watermark(frontier);
            if watermark <= reached {
                return;
            }
            reached = watermark;
            let Some(capability) = held.as_mut() else {
                return;
            };
            if *capability.time() > watermark {
                return;
            }
            let mut session = output.session(&*capability);
            state.advance(watermark, |result| session.give(result));
            drop(session);
            match state.next_end() {
                Some(end) if end > *capability.time() => capability.downgrade(&end),
                Some(_) => {}
                None => held = None,
            }
        }
    })
}
