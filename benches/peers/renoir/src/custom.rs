//! A stateful operator driven by renoir's stream elements.

use renoir::Stream;
use renoir::operator::{ElementGenerator, ExchangeData, Operator, StreamElement};
use std::collections::VecDeque;

#[derive(Clone)]
struct Held<S, O> {
    state: S,
    results: VecDeque<O>,
    watermarks: VecDeque<i64>,
    ended: bool,
}

/// `update` takes in a record, `advance` fires what a watermark closes; the end of the input is the last watermark.
pub fn windows<T, S, O>(
    stream: Stream<impl Operator<Out = T> + 'static>,
    state: S,
    update: impl Fn(&mut S, &T) + Clone + Send + 'static,
    advance: impl Fn(&mut S, u64, &mut VecDeque<O>) + Clone + Send + 'static,
) -> Stream<impl Operator<Out = O>>
where
    T: ExchangeData,
    S: Clone + Send + 'static,
    O: ExchangeData,
{
    let mut held = Held {
        state,
        results: VecDeque::new(),
        watermarks: VecDeque::new(),
        ended: false,
    };
    stream.rich_map_custom(move |mut input: ElementGenerator<_>| {
        loop {
            if let Some(result) = held.results.pop_front() {
                return StreamElement::Timestamped(result, 0);
            }
            if let Some(watermark) = held.watermarks.pop_front() {
                return StreamElement::Watermark(watermark);
            }
            if std::mem::take(&mut held.ended) {
                return StreamElement::FlushAndRestart;
            }
            match input.next() {
                StreamElement::Item(record) | StreamElement::Timestamped(record, _) => {
                    update(&mut held.state, &record);
                }
                StreamElement::Watermark(watermark) => {
                    advance(&mut held.state, watermark as u64, &mut held.results);
                    held.watermarks.push_back(watermark);
                }
                StreamElement::FlushAndRestart => {
                    advance(&mut held.state, u64::MAX, &mut held.results);
                    held.ended = true;
                }
                StreamElement::FlushBatch => return StreamElement::FlushBatch,
                StreamElement::Terminate => return StreamElement::Terminate,
            }
        }
    })
}
