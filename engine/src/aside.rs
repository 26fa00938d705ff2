//! An edge beside a stage's chain: what falls aside of it (late records, dead letters) goes to a stage of its own, which is a
//! sink marked aside.
//!
//! Laws
//! 1. Control events reach it in the order of its records, as on every edge. What they say of event time and of partitions is
//!    kept from it: nothing behind it asks, so watermarks cost nothing.
//! 2. It is bounded as every edge is: a stage is to read nothing while it is [`Aside::blocked`].
//! 3. What goes over it is not counted as a record that left the stage: it is counted by its cause.

use crate::batch::Stamp;
use crate::edge::EdgeWriter;
use crate::push::{Control, Cx};

/// See the module.
#[derive(Debug)]
pub(crate) struct Aside<T> {
    writer: EdgeWriter<T>,
    /// Whether it was given a record since it last passed on a control event.
    gathered: bool,
}

impl<T> Aside<T> {
    /// Over an edge of one lane.
    pub fn new(writer: EdgeWriter<T>) -> Self {
        debug_assert_eq!(writer.lanes(), 1);
        Aside {
            writer,
            gathered: false,
        }
    }

    /// Takes a record; the next control event sends it.
    #[cold]
    pub fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        self.gathered = true;
        let out = cx.counters.records_out;
        self.writer.add(0, record, stamp, cx);
        cx.counters.records_out = out;
    }

    /// Takes an event of the stage. To be given what a chain is given, once all that the chain makes of the records before it
    /// has been pushed.
    #[inline]
    pub fn control(&mut self, event: Control, cx: &mut Cx) {
        let event = match event {
            Control::Watermark(_)
            | Control::Idle { .. }
            | Control::PartitionEnded { .. }
            | Control::PartitionPending { .. }
            | Control::PartitionWatermark { .. } => Control::Flush,
            other => other,
        };
        if event == Control::Flush && !self.gathered && !self.writer.blocked() {
            return;
        }
        self.gathered = false;
        let out = cx.counters.records_out;
        self.writer.control(event, cx);
        cx.counters.records_out = out;
    }

    /// Whether frames are waiting for room.
    #[inline]
    pub fn blocked(&self) -> bool {
        self.writer.blocked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Frame;
    use crate::edge::{Channel, EdgeConfig, Wiring, connect};
    use crate::time::EventTime;

    /// An edge whose batches hold three records, its other end, and the context of its stage.
    fn edge() -> (Aside<u32>, Channel<u32>, Cx) {
        let (mut writers, mut readers) = connect(EdgeConfig {
            shards: 1,
            wiring: Wiring::Local,
            ring_capacity: 2,
            batch_size: 3,
            origins: false,
        });
        let channel = readers.remove(0).channels.remove(0);
        (Aside::new(writers.remove(0)), channel, Cx::new(0))
    }

    /// What waits in the ring, as text.
    fn frames(channel: &mut Channel<u32>) -> Vec<String> {
        let mut seen = vec![];
        while let Ok(Some(frame)) = channel.next() {
            seen.push(match frame {
                Frame::Batch(mut batch) => {
                    let mut text = vec![];
                    batch.consume(|record, stamp, _| {
                        text.push((record, stamp));
                        true
                    });
                    format!("{text:?}")
                }
                Frame::End => "end".into(),
                other => format!("{other:?}"),
            });
        }
        seen
    }

    #[test]
    fn what_is_said_of_time_sends_records_and_is_not_sent_itself() {
        let (mut aside, mut channel, mut cx) = edge();
        let late = Stamp {
            time: EventTime::from_micros(4),
            behind: Some(EventTime::from_micros(9)),
        };
        let partition = 0;
        for event in [
            Control::Watermark(EventTime::from_micros(7)),
            Control::Idle { close: true },
            Control::PartitionPending { partition },
            Control::PartitionEnded { partition },
            Control::PartitionWatermark {
                partition,
                time: EventTime::from_micros(7),
            },
            Control::Flush,
        ] {
            aside.control(event, &mut cx);
            assert!(frames(&mut channel).is_empty(), "{event:?}");
            aside.push(1, late, &mut cx);
            assert!(frames(&mut channel).is_empty(), "{event:?}");
            aside.control(event, &mut cx);
            let sent = format!("{:?}", [(1, late)]);
            assert_eq!(frames(&mut channel), [sent], "{event:?}");
        }
        aside.push(2, Stamp::NONE, &mut cx);
        aside.control(Control::End, &mut cx);
        let sent = frames(&mut channel);
        assert_eq!((sent.len(), &sent[1][..]), (2, "end"), "in order: {sent:?}");
        assert_eq!(cx.counters.records_out, 0);
    }

    #[test]
    fn a_full_ring_blocks_until_there_is_room() {
        let (mut aside, mut channel, mut cx) = edge();
        for n in 0..7 {
            aside.push(n, Stamp::NONE, &mut cx);
        }
        assert!(!aside.blocked(), "two batches in the ring");
        aside.control(Control::Flush, &mut cx);
        assert!(aside.blocked());
        assert_eq!(frames(&mut channel).len(), 2);
        assert!(aside.blocked(), "not tried yet");
        aside.control(Control::Flush, &mut cx);
        assert!(!aside.blocked());
        assert_eq!(frames(&mut channel).len(), 1);
        assert_eq!(cx.counters.records_out, 0);
    }
}
