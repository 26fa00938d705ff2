//! Somebody outside who is asked, as a step: answers come late, in any order, more than once asked for, and are the same whoever asks and
//! whenever. So what is exempt from the one answer for the client's sake is held to it here.
//!
//! Laws
//! 1. What is answered is a function of what was asked ([`Outside::of`]); when, of the seed and of what the shard has asked.
//! 2. It holds one request back at most, until the next one comes or its time is out: a job whose operator has room for two goes on.

use crate::random::Random;
use crate::record::Rec;
use crate::spec::Ask;
use pelton::calls::{Answer, Async, Cache, Client, Opening};
use pelton::{Inlet, Span, Stream};

/// See the module.
#[derive(Debug)]
struct Outside {
    random: Random,
    held: Option<(i64, Answer<Option<i64>>)>,
}

impl Clone for Outside {
    fn clone(&self) -> Self {
        Outside {
            random: self.random.clone(),
            held: None,
        }
    }
}

/// What is asked of a record: one in ten things.
fn asks(record: &Rec) -> i64 {
    record.value.rem_euclid(10)
}

/// What is known of it.
fn known(of: i64) -> Option<i64> {
    (of % 3 != 0).then_some(of * 7 - 30)
}

/// What comes of a record by its answer: nothing, where only those are wanted of which something is known.
pub(crate) fn answered(record: Rec, ask: Ask) -> Option<Rec> {
    let known = known(asks(&record));
    if ask.known_only && known.is_none() {
        return None;
    }
    Some(told(&record, known))
}

fn told(record: &Rec, known: Option<i64>) -> Rec {
    Rec {
        value: record.value + known.unwrap_or(1),
        ..record.clone()
    }
}

impl Outside {
    fn give(&mut self, of: i64, answer: Answer<Option<i64>>) {
        match self.random.below(40) {
            0 => answer.send(Err("not now".into())),
            1 => drop(answer),
            _ => answer.send(Ok(known(of))),
        }
    }
}

impl Client for Outside {
    type Request = i64;
    type Response = Option<i64>;

    fn open(&mut self, opening: &Opening) -> Result<(), String> {
        self.random = Random::new(self.random.bits() ^ opening.shard as u64);
        Ok(())
    }

    fn call(&mut self, of: i64, answer: Answer<Option<i64>>) {
        let before = self.held.take();
        match self.random.one_in(3) {
            true => self.held = Some((of, answer)),
            false => self.give(of, answer),
        }
        if let Some((of, answer)) = before {
            self.give(of, answer);
        }
    }
}

/// The step.
pub(crate) fn ask(stream: Stream<Inlet<Rec>>, ask: Ask) -> Stream<Inlet<Rec>> {
    let client = Outside {
        random: Random::new(ask.seed),
        held: None,
    };
    let options = match ask.ordered {
        true => Async::ordered(),
        false => Async::unordered(),
    };
    let short = Span::from_micros(1_000);
    let options = options
        .capacity(ask.capacity)
        .time_out(short)
        .retries(100)
        .back_off(short, short);
    if ask.cached == 0 && !ask.known_only {
        return stream
            .async_map(client, options, asks)
            .results(told)
            .rebalance();
    }
    let join = stream
        .lookup_join(asks, client)
        .options(options)
        .cache(Cache::of(ask.cached).ttl(Span::from_micros(3_000)));
    match ask.known_only {
        true => join.inner(|r, of| told(r, Some(*of))).rebalance(),
        false => join.left_outer(|r, of| told(r, of.copied())).rebalance(),
    }
}
