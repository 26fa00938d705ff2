//! The rows of one side of a regular join: by key, equal ones counted.
//!
//! Laws
//! 1. A row is an element of its key, one entry of a checkpoint. Where rows may be taken back, equal ones are one element with their number, found
//!    in O(1) by the hash of their encoding; two rows are the same iff their encodings are, whatever their hashes.
//! 2. Rows that are never taken back are not looked for: each is an element of its own, encoded only when it is written.
//! 3. Of a side that is told of, an element says how many of its rows have met none of the other side that it was kept with: they are *alone*.

use crate::key::{Key, stable_hash};
use crate::plan::ShardBuild;
use crate::process::{Elements, Head, Named, Of, Ttl};
use crate::push::OpId;
use crate::state::{Codec, State};
use std::cell::RefCell;
use std::hash::{Hash, Hasher};

/// Of the hash of a row. Few where this is tested, so that different rows have the same.
const BITS: u64 = if cfg!(test) { 1 } else { u64::MAX };

/// What is told of a row of a side by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Nothing.
    Nothing,
    /// That it stands, as long as it is alone.
    Alone,
    /// That it stands, as long as it is not.
    Met,
}

/// Which of a key's rows. It hashes by the row alone.
#[crate::state(version = 1)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Print {
    hash: u64,
    /// Its number among the elements of its key: other rows may have the same hash.
    number: u64,
}

impl Hash for Print {
    #[inline]
    fn hash<H: Hasher>(&self, to: &mut H) {
        to.write_u64(self.hash);
    }
}

/// A row that is kept.
#[crate::state(version = 1)]
#[derive(Clone, Debug)]
pub(super) struct Held<T> {
    pub row: T,
    /// How many equal ones there are.
    pub count: u64,
    /// How many of these are alone: law 3. Zero on a side that is not told of.
    pub alone: u64,
}

/// See the module.
pub(super) struct Bag<T> {
    pub tells: Tells,
    pub elements: Elements<Print, Held<T>>,
    /// Whether rows may be taken back: laws 1 and 2.
    takes_back: bool,
    codec: RefCell<Codec>,
    /// The encoding of the row in hand, and of one that may be the same.
    bytes: Vec<u8>,
    other: RefCell<Vec<u8>>,
}

/// The state of a side. A side whose rows are found, or told of in another way, finds nothing of use in what one left whose rows are not.
fn name(side: usize, takes_back: bool, tells: Tells, pairs: bool) -> &'static str {
    match (side, takes_back, tells, pairs) {
        (0, false, Tells::Nothing, _) => "left",
        (0, false, Tells::Alone, true) => "left, told of while alone",
        (0, false, Tells::Alone, false) => "left, told of only while alone",
        (0, false, Tells::Met, _) => "left, told of while met",
        (0, true, Tells::Nothing, _) => "left, changes",
        (0, true, Tells::Alone, true) => "left, changes, told of while alone",
        (0, true, Tells::Alone, false) => "left, changes, told of only while alone",
        (0, true, Tells::Met, _) => "left, changes, told of while met",
        (_, false, Tells::Nothing, _) => "right",
        (_, false, ..) => "right, told of while alone",
        (_, true, Tells::Nothing, _) => "right, changes",
        (_, true, ..) => "right, changes, told of while alone",
    }
}

impl<T: State> Bag<T> {
    pub fn open<K: Key>(
        (side, takes_back, tells, pairs): (usize, bool, Tells, bool),
        ttl: Option<Ttl>,
        build: &mut ShardBuild<'_, '_>,
        op: OpId,
    ) -> Self {
        let name = name(side, takes_back, tells, pairs);
        Bag {
            tells,
            elements: Elements::open::<K>(
                Named {
                    name,
                    ttl,
                    is_broadcast: false,
                },
                takes_back,
                build,
                op,
            ),
            takes_back,
            codec: RefCell::default(),
            bytes: vec![],
            other: RefCell::default(),
        }
    }

    /// An element of a key.
    #[inline]
    pub fn held(&self, id: u32) -> &Held<T> {
        match &self.elements.table.value(id).value {
            Some(held) => held,
            None => unreachable!("what is in the table is there"),
        }
    }

    /// An element of this key, to be changed.
    #[inline]
    fn changed<K: Key>(&mut self, id: u32, key: &K) -> &mut Held<T> {
        self.elements.touch(id, key);
        match &mut self.elements.table.value_mut(id).value {
            Some(held) => held,
            None => unreachable!("what is in the table is there"),
        }
    }

    /// So many of an element's rows are alone from now on, if they are told of; for how many that is new.
    #[inline]
    pub fn set_alone<K: Key>(&mut self, id: u32, key: &K, alone: u64) -> u64 {
        let before = self.held(id).alone;
        if self.tells == Tells::Nothing || before == alone {
            return 0;
        }
        self.changed(id, key).alone = alone;
        before.abs_diff(alone)
    }

    /// The element that a row is one of, and the hash of its encoding: laws 1 and 2.
    pub fn find(&mut self, row: u32, like: &T) -> (Option<u32>, u64) {
        if !self.takes_back {
            return (None, 0);
        }
        self.bytes.clear();
        self.codec.get_mut().append(like, &mut self.bytes);
        let hash = stable_hash(&self.bytes) & BITS;
        let (codec, bytes, other) = (&self.codec, &self.bytes, &self.other);
        let same = |print: &Print, held: &Held<T>| {
            print.hash == hash && {
                let mut other = other.borrow_mut();
                other.clear();
                codec.borrow_mut().append(&held.row, &mut other);
                *other == *bytes
            }
        };
        let like = Print { hash, number: 0 };
        (self.elements.find_where(row, &like, same), hash)
    }

    /// Puts a row in, alone or not, that lives from `now` on.
    pub fn add<K: Key>(
        &mut self,
        (id, head, key): (u32, &mut Head, &K),
        row: T,
        is_alone: bool,
        now: i64,
    ) {
        let alone = u64::from(is_alone && self.tells != Tells::Nothing);
        let (found, hash) = self.find(id, &row);
        if let Some(found) = found {
            let held = self.changed(found, key);
            held.count += 1;
            held.alone += alone;
            return self.elements.put_off(found, key, now);
        }
        let number = self.elements.next_number(head);
        let hash = if self.takes_back { hash } else { number };
        let of = Of {
            row: id,
            key: Print { hash, number },
        };
        let (until, count) = (self.elements.until(now, None), 1);
        let held = Held { row, count, alone };
        self.elements.push(head, of, key, held, until);
    }

    /// Takes one of an element's rows out, one that is alone if there is any; the rest lives on from `now`.
    pub fn take<K: Key>(&mut self, id: u32, head: &mut Head, key: &K, now: i64) {
        if self.held(id).count == 1 {
            self.elements.remove(head, id, key);
            return;
        }
        let held = self.changed(id, key);
        held.count -= 1;
        held.alone = held.alone.saturating_sub(1);
        self.elements.put_off(id, key, now);
    }
}
