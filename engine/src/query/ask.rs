//! An ask: it goes to a shard with all the memory that its answer takes, and comes back.
//!
//! Laws
//! 1. It comes back when it is dropped, wherever that is: answered, or as it went.
//! 2. Answering allocates nothing but what a value's own archive does for a moment, and takes one bounded piece: so many entries are looked
//!    at, and so many bytes written.

use crate::checkpoint::Epoch;
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{Codec, Encoder, State, shape_of};
use crate::table::{KeyTable, NONE};
use crossbeam_queue::ArrayQueue;
use pelton_storage::Space;
use std::any::{Any, TypeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;

/// Ids of a scan that are looked at in one piece, whatever is found there.
const LOOKS: u32 = 16 << 10;

/// A state that can be asked, as it was declared.
#[derive(Clone, Debug)]
pub(crate) struct Queryable {
    pub stage: usize,
    /// Given or derived.
    pub uid: String,
    pub name: String,
    /// Of a key and a value.
    pub shape: String,
    pub key: TypeId,
    pub key_type: &'static str,
}

impl Queryable {
    pub fn path(&self) -> String {
        format!("{}/{}", self.uid, self.name)
    }
}

/// How shards declare what can be asked of them.
pub(crate) trait Asks {
    /// A state of an operator holds one value a key.
    fn can_be_asked<K: Key, V: State>(&mut self, op: OpId, name: &str);
}

impl Asks for ShardBuild<'_, '_> {
    fn can_be_asked<K: Key, V: State>(&mut self, op: OpId, name: &str) {
        if self.shard > 0 {
            return;
        }
        let (uid, _) = self.uid_of(op);
        self.queryable.push(Queryable {
            stage: self.stage,
            uid,
            name: name.into(),
            shape: shape_of::<(K, V)>(),
            key: TypeId::of::<K>(),
            key_type: std::any::type_name::<K>(),
        });
    }
}

/// What is asked of a shard.
pub(crate) enum Asked {
    /// Keys with their numbers: `Vec<(u32, K)>`.
    Keys(Box<dyn Any + Send>),
    /// Entries from an id on.
    Scan { from: u32, most: u32 },
}

/// Where asks come back to.
pub(crate) struct Desk {
    back: ArrayQueue<Box<Answered>>,
    /// Shards that have taken note of an ask for a barrier.
    noted: AtomicUsize,
    asker: Thread,
}

impl Desk {
    pub fn new(asks: usize) -> Self {
        Desk {
            back: ArrayQueue::new(asks.max(1)),
            noted: AtomicUsize::new(0),
            asker: std::thread::current(),
        }
    }

    pub fn take(&self) -> Option<Answered> {
        self.back.pop().map(|answered| *answered)
    }

    pub fn noted(&self) -> usize {
        self.noted.load(Ordering::Acquire)
    }
}

/// An ask that has come back.
pub(crate) struct Answered {
    pub shard: usize,
    /// Whether it was answered.
    pub is_answered: bool,
    pub epoch: Epoch,
    asked: Asked,
    /// Entries in the first `used` bytes: each a head (a key, or its number) and a value, both with their length before them.
    pub room: Vec<u8>,
    pub used: usize,
    pub entries: u32,
    /// Keys that have been looked for, or the id that a scan goes on from.
    pub looked: u32,
    /// Whether nothing is left of what was asked for.
    pub is_all: bool,
    /// An entry alone is longer than the room: so long.
    pub needs: Option<usize>,
    codec: Codec,
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct Ask {
    pub(crate) stage: usize,
    state: Arc<str>,
    /// The ask's number where it is for a barrier: that which names it, or a later one.
    pub(crate) at: Option<u64>,
    desk: Arc<Desk>,
    /// There until it goes back.
    answer: Option<Box<Answered>>,
}

impl Drop for Ask {
    /// Law 1.
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            let gone = self.desk.back.push(answer);
            debug_assert!(gone.is_ok(), "there is a place for each");
            self.desk.asker.unpark();
        }
    }
}

/// Entries that have ids.
pub(crate) trait Entries<K> {
    fn id_end(&self) -> u32;
    fn is_live(&self, id: u32) -> bool;
    fn key(&self, id: u32) -> &K;
    fn find(&self, key: &K) -> Option<u32>;
}

impl<K: Key, V> Entries<K> for KeyTable<K, V> {
    fn id_end(&self) -> u32 {
        KeyTable::id_end(self)
    }
    fn is_live(&self, id: u32) -> bool {
        KeyTable::is_live(self, id)
    }
    fn key(&self, id: u32) -> &K {
        KeyTable::key(self, id)
    }
    fn find(&self, key: &K) -> Option<u32> {
        let id = KeyTable::find(self, self.hash(key), key);
        (id != NONE).then_some(id)
    }
}

impl Ask {
    pub(crate) fn new(
        state: &Queryable,
        shard: usize,
        asked: Asked,
        room: usize,
        at: Option<u64>,
        desk: &Arc<Desk>,
    ) -> Self {
        Ask {
            stage: state.stage,
            state: Arc::from(state.name.as_str()),
            at,
            desk: desk.clone(),
            answer: Some(Box::new(Answered {
                shard,
                is_answered: false,
                epoch: Epoch(0),
                asked,
                room: vec![0; room],
                used: 0,
                entries: 0,
                looked: 0,
                is_all: false,
                needs: None,
                codec: Codec::default(),
            })),
        }
    }

    /// Whether it is about this state.
    pub(crate) fn is_of(&self, state: &str) -> bool {
        *self.state == *state
    }

    /// The shard has taken note, and answers when the barrier comes.
    pub(crate) fn note(&self) {
        self.desk.noted.fetch_add(1, Ordering::AcqRel);
        self.desk.asker.unpark();
    }

    /// As of when it was answered.
    pub(crate) fn answered_at(&mut self, epoch: Epoch) {
        if let Some(answer) = &mut self.answer {
            answer.epoch = epoch;
        }
    }

    /// Answers it from these entries (law 2): `value` is what an entry has, if it has something.
    pub(crate) fn answer<'v, K: Key, V: State>(
        &mut self,
        entries: &dyn Entries<K>,
        value: &dyn Fn(u32) -> Option<&'v V>,
    ) {
        let Some(answer) = self.answer.as_deref_mut() else {
            return;
        };
        let Answered {
            asked, room, codec, ..
        } = answer;
        let mut out = Out {
            encoder: codec.encoder(),
            room: Space::new(room),
            used: 0,
            entries: 0,
            needs: None,
        };
        let (looked, is_all) = match asked {
            Asked::Keys(keys) => {
                let Some(keys) = keys.downcast_ref::<Vec<(u32, K)>>() else {
                    debug_assert!(false, "the asker has compared the types");
                    return;
                };
                let has = |(_, key): &(u32, K)| entries.find(key).and_then(value);
                let put = keys.iter().position(|asked| {
                    let value = has(asked);
                    value.is_some_and(|value| !out.put(&asked.0, value))
                });
                (put.unwrap_or(keys.len()) as u32, put.is_none())
            }
            Asked::Scan { from, most } => {
                let (most, end) = (*most, entries.id_end());
                let stop = end.min(from.saturating_add(LOOKS));
                let mut id = *from;
                while id < stop && out.entries < most {
                    let has = entries.is_live(id).then(|| value(id)).flatten();
                    if has.is_some_and(|value| !out.put(entries.key(id), value)) {
                        break;
                    }
                    id += 1;
                }
                (id, id >= end)
            }
        };
        let (used, count, needs) = (out.used, out.entries, out.needs);
        (answer.looked, answer.is_all) = (looked, is_all);
        (answer.used, answer.entries, answer.needs) = (used, count, needs);
        answer.is_answered = true;
    }
}

/// An answer being written.
struct Out<'a> {
    encoder: Encoder<'a>,
    room: Space<'a>,
    /// Bytes of whole entries.
    used: usize,
    entries: u32,
    needs: Option<usize>,
}

impl Out<'_> {
    /// Writes an entry; whether there was room. One that has none leaves nothing, and ends the answer.
    fn put<H: State, V: State>(&mut self, head: &H, value: &V) -> bool {
        self.part(head);
        self.part(value);
        let all = self.room.used();
        if self.room.fits() {
            (self.used, self.entries) = (all, self.entries + 1);
            return true;
        }
        if self.entries == 0 {
            self.needs = Some(all);
        }
        false
    }

    fn part<T: State>(&mut self, part: &T) {
        let at = self.room.used();
        self.room.extend(&[0; 4]);
        self.encoder.save(part, &mut self.room);
        let length = (self.room.used() - at - 4) as u32;
        self.room.replace(at, &length.to_le_bytes());
    }
}
