//! Queryable state: what a running job keeps for a key, read by other threads.
//!
//! ```text
//! asker:   an ask for each shard that has some of the keys ──▶ the shard's mailbox
//! shard:   between two steps, or as a barrier passes: writes what it has into the room that came with the ask
//! asker:   ◀── the asks come back, each with its answer; values are made of the bytes here
//! ```
//!
//! Laws
//! 1. A shard is not stopped: an answer is one bounded piece of work (so many entries, so many bytes) between two steps. The asker brings the
//!    memory that it is written to, and decodes it. Nobody waits for an asker.
//! 2. [`ReadAt::Now`]: of each shard, its state between two steps: what it has done with each record it has taken, whole. Shards are asked at
//!    different moments, and a batch may be half done. What is read may be taken back by a crash.
//! 3. [`ReadAt::Epoch`]: of all shards the state at the barrier of one epoch: what is made of the records before the barrier, of all of them
//!    and of no other. All shards have taken note of the ask before the barrier begins, and the barrier names it; each answers as
//!    it passes, before it takes a later record. That the epoch is committed is not said: it may be given up, and be part of the next.
//! 4. Every ask comes back, answered or not: a job that ends, or a shard that goes, drops what it was asked, and that tells the asker.
//!
//! What can be asked: running values and changelogs (state `keyed`: the accumulator, the fold's value), what
//! [`KeyedStream::materialize`](crate::KeyedStream::materialize) keeps (`rows`), and of process functions value, reducing and aggregating states by
//! their names. What is in windows, lists, maps, joins and patterns cannot be: an error lists what can.

mod ask;
#[cfg(test)]
mod tests;

pub(crate) use ask::{Answered, Ask, Asked, Asks, Desk, Entries, Queryable};

use crate::checkpoint::Epoch;
use crate::key::{Key, KeySpace};
use crate::runtime::OfJob;
use crate::state::{Codec, LoadError, State};
use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use thiserror::Error;

/// Keys, or entries of a scan, that one shard is asked for at once.
pub const PIECE_ENTRIES: usize = 1_024;
/// Bytes of an answer of one shard, for keys and scans.
const ROOM: usize = 256 << 10;
/// Bytes of an answer for one key, at first; where its value is longer it is asked for again, with room for it.
const ROOM_OF_ONE: usize = 4 << 10;

/// As of when states are read: laws 2 and 3 of [`mod@crate::query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAt {
    /// Each shard's as it is when it comes to it.
    Now,
    /// Those of all shards at the barrier of one epoch, which is begun for that. For jobs that take checkpoints. One such read
    /// at a time a job: others wait for their turn. Takes as long as an epoch that is under way, and a barrier after that.
    Epoch,
}

/// What was read, and as of when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf<T> {
    /// At a barrier: its epoch. Else the last epoch whose barrier has passed all shards asked; 0 before the first.
    pub epoch: Epoch,
    /// What was read.
    pub of: T,
}

/// Some entries of a state: see [`Query::scan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan<K, V> {
    /// Keys with their values, shard by shard, in no order that means anything.
    pub entries: Vec<(K, V)>,
    /// Whether there are no others.
    pub is_complete: bool,
}

/// Why nothing was read. The job is as it was.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryError {
    /// The operator has no such state, or none that can be asked.
    #[error(
        "[PLT-0301] job '{job}' has no state '{state}' of '{uid}' that can be asked; there are: {there}. Name the operator's uid and the state"
    )]
    NoSuchState {
        /// The job.
        job: String,
        /// The operator that was asked for.
        uid: String,
        /// The state that was asked for.
        state: String,
        /// Those that there are, as `uid/state`.
        there: String,
    },
    /// It holds other types.
    #[error(
        "[PLT-0302] job '{job}': state '{state}' of '{uid}' was asked for as {asked}, and it holds {holds}; ask with the types of its keys and values"
    )]
    OtherTypes {
        /// The job.
        job: String,
        /// The operator.
        uid: String,
        /// The state.
        state: String,
        /// The shape of what was asked for.
        asked: String,
        /// The shape of what there is.
        holds: String,
    },
    /// A barrier is asked for, and the job has none.
    #[error(
        "[PLT-0303] job '{job}' takes no checkpoints, so no barrier passes it: read at ReadAt::Now, or give the job checkpoints"
    )]
    NoCheckpoints {
        /// The job.
        job: String,
    },
    /// More than one piece can hold, and pieces at different moments would not be as of one epoch.
    #[error(
        "[PLT-0304] job '{job}': {what} do not fit into one answer as of one epoch ({limit} a shard); ask for fewer, or read at ReadAt::Now"
    )]
    TooMany {
        /// The job.
        job: String,
        /// What was asked for.
        what: String,
        /// What one answer may hold.
        limit: String,
    },
    /// The job is over, or a shard that has some of the keys is.
    #[error("[PLT-0305] job '{job}' is over: nothing of its state is kept but in its checkpoints")]
    Over {
        /// The job.
        job: String,
    },
    /// No answer within the time that was given.
    #[error(
        "[PLT-0306] job '{job}' has not answered within {seconds} s: a step that takes that long, or, for a barrier, commits that hold the next epoch up; see JobHandle::checkpoints"
    )]
    Late {
        /// The job.
        job: String,
        /// For how long it was waited, seconds.
        seconds: u64,
    },
    /// The job failed while it was stepped to the answer.
    #[error("[PLT-0307] {what}")]
    Failed {
        /// Why.
        what: String,
    },
    /// An answer that cannot be read: a fault of the engine's, or of a type that is not what it says.
    #[error("[PLT-0308] job '{job}': an answer cannot be read: {what}")]
    Unreadable {
        /// The job.
        job: String,
        /// What is wrong.
        what: String,
    },
}

impl QueryError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            QueryError::NoSuchState { .. } => "PLT-0301",
            QueryError::OtherTypes { .. } => "PLT-0302",
            QueryError::NoCheckpoints { .. } => "PLT-0303",
            QueryError::TooMany { .. } => "PLT-0304",
            QueryError::Over { .. } => "PLT-0305",
            QueryError::Late { .. } => "PLT-0306",
            QueryError::Failed { .. } => "PLT-0307",
            QueryError::Unreadable { .. } => "PLT-0308",
        }
    }
}

/// Reads a state of a running job, by key: from [`JobHandle::query`](crate::JobHandle::query), or in a test from
/// [`Driver::query`](crate::testing::Driver::query). What can be had and as of when says [`mod@crate::query`].
///
/// ```
/// use pelton::query::ReadAt;
/// use pelton::testing::Driver;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut t = Driver::new().shards(2);
/// let words = t.input::<char>("words");
/// let (from, to) = (words.clone(), t.output("counts"));
/// t.job(move |job| {
///     job.source(from.source())
///        .key_by(|c| *c)
///        .fold(0u64, |n, _| *n += 1)
///        .uid("counts")
///        .sink(to.sink());
/// })?;
/// words.push_all(['a', 'b', 'a']);
/// t.settle()?;
/// let counts = t.query::<char, u64>("counts", "keyed")?;
/// assert_eq!(counts.get(&'a')?, Some(2));
/// assert_eq!(counts.get(&'x')?, None);
/// let both = counts.get_all(&['a', 'b'], ReadAt::Epoch)?;
/// assert_eq!(both.of, [Some(2), Some(1)]);
/// let all = counts.scan(100, ReadAt::Epoch)?;
/// assert_eq!((all.of.entries.len(), all.of.is_complete), (2, true));
/// assert!(all.epoch > both.epoch);
/// # Ok(())
/// # }
/// ```
pub struct Query<K, V, W = OfJob> {
    way: W,
    state: Queryable,
    space: KeySpace,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V, W> fmt::Debug for Query<K, V, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({})", self.state.path())
    }
}

impl<K: Key, V: State, W: Way> Query<K, V, W> {
    /// A state among those that there are.
    pub(crate) fn of(
        way: W,
        there: &[Queryable],
        space: KeySpace,
        (uid, state): (&str, &str),
    ) -> Result<Self, QueryError> {
        let job = way.job().to_string();
        let (uid, state) = (uid.to_string(), state.to_string());
        let Some(found) = there.iter().find(|q| q.uid == uid && q.name == state) else {
            let mut there: Vec<String> = there.iter().map(Queryable::path).collect();
            there.sort();
            let there = match there.is_empty() {
                true => "none".into(),
                false => there.join(", "),
            };
            return Err(QueryError::NoSuchState {
                job,
                uid,
                state,
                there,
            });
        };
        let asked = crate::state::shape_of::<(K, V)>();
        if found.shape != asked || found.key != TypeId::of::<K>() {
            let (mut holds, mut asked) = (found.shape.clone(), asked);
            if found.shape == asked {
                // Two types that look alike.
                holds = format!("{holds} with keys of type {}", found.key_type);
                asked = format!("that with keys of type {}", std::any::type_name::<K>());
            }
            return Err(QueryError::OtherTypes {
                job,
                uid,
                state,
                asked,
                holds,
            });
        }
        Ok(Query {
            way,
            state: found.clone(),
            space,
            types: PhantomData,
        })
    }

    /// What a key has now: law 2 of [`mod@crate::query`]. Of reducing and aggregating states and running values, what is kept. A value that has
    /// lived its time is not seen.
    ///
    /// # Errors
    /// The job is over, or does not answer.
    pub fn get(&self, key: &K) -> Result<Option<V>, QueryError> {
        let mut room = ROOM_OF_ONE;
        loop {
            let keys = vec![(0u32, key.clone())];
            let asks = vec![(self.space.shard_of(key), Asked::Keys(Box::new(keys)), room)];
            let answers = self.way.ask(&self.state, asks, ReadAt::Now)?;
            let Some(answer) = answers.into_iter().next() else {
                return Ok(None);
            };
            if let Some(needed) = answer.needs {
                // It may have grown by the time that it is asked for again.
                room = needed * 2;
                continue;
            }
            let mut found = self.decoded::<u32>(&answer)?;
            return Ok(found.pop().map(|(_, value)| value));
        }
    }

    /// What each of some keys has, in their order. At most 1,024 keys a shard, and 256 KiB of values, are read at once: as of an epoch no
    /// more can be, and at [`ReadAt::Now`] they are read piece by piece.
    ///
    /// # Errors
    /// The job is over, does not answer, or takes no checkpoints; as of an epoch they are too many.
    pub fn get_all(&self, keys: &[K], at: ReadAt) -> Result<AsOf<Vec<Option<V>>>, QueryError> {
        let mut by_shard: Vec<Vec<(u32, K)>> = vec![vec![]; self.way.shards()];
        for (index, key) in keys.iter().enumerate() {
            by_shard[self.space.shard_of(key)].push((index as u32, key.clone()));
        }
        let mut values: Vec<Option<V>> = keys.iter().map(|_| None).collect();
        let mut epoch = None;
        let most = by_shard.iter().map(Vec::len).max().unwrap_or(0);
        if at == ReadAt::Epoch && most > PIECE_ENTRIES {
            return Err(self.too_many(format!("{most} keys of one shard")));
        }
        if keys.is_empty() && at == ReadAt::Now {
            let of = vec![];
            return Ok(AsOf {
                epoch: Epoch(0),
                of,
            });
        }
        let mut room = ROOM;
        while epoch.is_none() || by_shard.iter().any(|keys| !keys.is_empty()) {
            let mut asks = vec![];
            for (shard, left) in by_shard.iter().enumerate() {
                let piece = left.len().min(PIECE_ENTRIES);
                // Without a key of it a shard is not asked; a barrier has to pass for no keys too.
                if piece > 0 || at == ReadAt::Epoch {
                    let piece = left[..piece].to_vec();
                    asks.push((shard, Asked::Keys(Box::new(piece)), room));
                }
            }
            for answer in self.way.ask(&self.state, asks, at)? {
                epoch = Some(epoch.map_or(answer.epoch, |e: Epoch| e.min(answer.epoch)));
                if at == ReadAt::Epoch && !answer.is_all {
                    return Err(self.too_many(format!("the values of {} keys", keys.len())));
                }
                let left = &mut by_shard[answer.shard];
                for (index, value) in self.decoded::<u32>(&answer)? {
                    values[index as usize] = Some(value);
                }
                if let Some(needed) = answer.needs {
                    room = room.max(needed * 2);
                }
                left.drain(..answer.looked as usize);
            }
        }
        let epoch = epoch.unwrap_or(Epoch(0));
        Ok(AsOf { epoch, of: values })
    }

    /// Up to `limit` entries, whichever come first. As of an epoch at most 1,024 a shard, and 256 KiB of them; at [`ReadAt::Now`] they are read
    /// piece by piece, each as of its own moment: a key that goes and comes back meanwhile may be there twice or not at all.
    ///
    /// # Errors
    /// The job is over, does not answer, or takes no checkpoints; as of an epoch the limit is too high.
    pub fn scan(&self, limit: usize, at: ReadAt) -> Result<AsOf<Scan<K, V>>, QueryError> {
        if at == ReadAt::Epoch && limit > PIECE_ENTRIES {
            return Err(self.too_many(format!("{limit} entries")));
        }
        let shards = self.way.shards();
        let mut scan = Scan {
            entries: vec![],
            is_complete: true,
        };
        let mut epoch = None;
        // By shard, from where on it has not been looked at.
        let mut left: Vec<Option<u32>> = vec![Some(0); shards];
        let mut room = ROOM;
        while left.iter().any(Option::is_some) && (epoch.is_none() || scan.entries.len() < limit) {
            let most = (limit - scan.entries.len()).min(PIECE_ENTRIES) as u32;
            let asked = left.iter().enumerate();
            let asked = asked.filter_map(|(shard, from)| Some((shard, (*from)?)));
            let asks = asked.map(|(shard, from)| (shard, Asked::Scan { from, most }, room));
            for answer in self.way.ask(&self.state, asks.collect(), at)? {
                epoch = Some(epoch.map_or(answer.epoch, |e: Epoch| e.min(answer.epoch)));
                scan.entries.extend(self.decoded::<K>(&answer)?);
                left[answer.shard] = (!answer.is_all).then_some(answer.looked);
                if let Some(needed) = answer.needs {
                    room = room.max(needed * 2);
                }
            }
            if at == ReadAt::Epoch {
                break;
            }
        }
        scan.is_complete = left.iter().all(Option::is_none) && scan.entries.len() <= limit;
        scan.entries.truncate(limit);
        let epoch = epoch.unwrap_or(Epoch(0));
        Ok(AsOf { epoch, of: scan })
    }

    fn too_many(&self, what: String) -> QueryError {
        QueryError::TooMany {
            job: self.way.job().into(),
            what,
            limit: format!("{PIECE_ENTRIES} entries, {} KiB", ROOM >> 10),
        }
    }

    /// The entries of an answer.
    fn decoded<H: State>(&self, answer: &Answered) -> Result<Vec<(H, V)>, QueryError> {
        let mut codec = Codec::default();
        let mut rest = &answer.room[..answer.used];
        let mut part = || {
            let short = || LoadError::new("it ends within an entry");
            let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (bytes, behind) = behind.split_at_checked(length).ok_or_else(short)?;
            rest = behind;
            Ok::<&[u8], LoadError>(bytes)
        };
        let mut entries = Vec::with_capacity(answer.entries as usize);
        for _ in 0..answer.entries {
            let entry = part().and_then(|head| {
                let head = codec.load::<H>(head)?;
                Ok((head, codec.load::<V>(part()?)?))
            });
            entries.push(entry.map_err(|e| QueryError::Unreadable {
                job: self.way.job().into(),
                what: e.what,
            })?);
        }
        Ok(entries)
    }
}

/// Asks shards and has their answers.
#[doc(hidden)]
#[allow(private_interfaces)]
pub trait Way {
    /// The job's name.
    fn job(&self) -> &str;
    /// How many shards it has.
    fn shards(&self) -> usize;
    /// All answers, in any order. Each ask is a shard, what is asked of it, and bytes of room for the answer.
    fn ask(
        &self,
        state: &Queryable,
        asks: Vec<(usize, Asked, usize)>,
        at: ReadAt,
    ) -> Result<Vec<Answered>, QueryError>;
}

/// What asks are made of: an ask for a shard, with the room for its answer.
pub(crate) fn asks_of(
    state: &Queryable,
    asks: Vec<(usize, Asked, usize)>,
    at: Option<u64>,
) -> (Arc<Desk>, Vec<(usize, Ask)>) {
    let desk = Arc::new(Desk::new(asks.len()));
    let made = asks.into_iter().map(|(shard, asked, room)| {
        let ask = Ask::new(state, shard, asked, room, at, &desk);
        (shard, ask)
    });
    let made = made.collect();
    (desk, made)
}
