//! What a key has many of: elements of a list, entries of a map, timers. Each is an entry of its own, in memory and in a
//! checkpoint.
//!
//! Laws
//! 1. An element is known by its key's row and by a key of its own: in a list its number, in a map the user's key. The
//!    elements of a row are chained in the order in which they were put in, and numbered in it, so that the order is had
//!    again from a checkpoint.
//! 2. In a checkpoint an element is written alone: what has changed, and tombstones of what has gone.
//! 3. What a row's function clears leaves the row at once, chain and all, and the table in pieces before anything else is asked of
//!    any row ([`Elements::clear_some`]). Until then its numbers lie below those of what the same call puts in behind it, and its
//!    keys find nothing.
//! 4. Elements that are never looked for by their keys (a list's) are in no index, except while they are loaded.
//!
//! Cost: an element is found, put in or taken out in O(1): a probe, as of a key; none for those of law 4. Going through them is a
//! step in memory for each.

use super::rows::Rows;
use super::states::Named;
use super::ttl::{Expiry, NEVER, Now};
use super::value::Lived;
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Kept, Parts, Saved, Snapshot, Stored, Value};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};
use crate::wheel::Popped;
use std::hash::Hash;

/// What the keys begin with in a checkpoint.
const ELEMENT: u8 = b'E';

/// What can tell elements of a row apart.
pub(crate) trait ElementKey: Clone + Hash + Eq + State {}
impl<E: Clone + Hash + Eq + State> ElementKey for E {}

/// Where the elements of a row begin and end.
#[doc(hidden)]
#[derive(Debug)]
pub struct Head {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) len: u32,
}

impl Default for Head {
    fn default() -> Self {
        Head {
            first: NONE,
            last: NONE,
            len: 0,
        }
    }
}

/// Which row's, and which of its elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Of<E> {
    pub row: u32,
    pub key: E,
}

/// The same, borrowed: it hashes as that does.
#[derive(Hash)]
struct OfRef<'a, E> {
    row: u32,
    key: &'a E,
}

/// An element.
pub(crate) struct Node<V> {
    /// None once it has gone.
    pub value: Option<V>,
    pub until: i64,
    number: u64,
    before: u32,
    pub after: u32,
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Node {
            value: None,
            until: NEVER,
            number: 0,
            before: NONE,
            after: NONE,
        }
    }
}

struct Numbered<'a, V> {
    number: u64,
    lived: Lived<'a, V>,
}

impl<V: State> Stored for Numbered<'_, V> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.number(self.number as i64);
        self.lived.store(to);
    }
}

impl<V> Node<V> {
    fn stored(&self) -> Numbered<'_, V> {
        Numbered {
            number: self.number,
            lived: Lived {
                until: self.until,
                value: &self.value,
            },
        }
    }
}

/// Elements that have left their row.
struct Clearing {
    row: u32,
    head: Head,
}

/// All elements of a state on a shard.
pub(crate) struct Elements<E, V> {
    name: &'static str,
    pub kept: Option<Kept>,
    pub table: KeyTable<Of<E>, Node<V>>,
    pub expiry: Option<Expiry>,
    /// Whether elements are looked for by their keys: law 4.
    by_key: bool,
    /// What is being cleared, between the call of a function and what comes next: law 3.
    clearing: Option<Clearing>,
    /// The key of a frame being made.
    bytes: Vec<u8>,
}

impl<E: ElementKey, V: State> Elements<E, V> {
    /// `by_key`: whether an element is ever looked for by its key.
    pub fn open<K: Key>(
        named: Named,
        by_key: bool,
        build: &mut ShardBuild<'_, '_>,
        op: OpId,
    ) -> Self {
        Elements {
            name: named.name,
            kept: Kept::of_named::<(K, E), V>(named.name, build, op),
            table: match by_key {
                true => KeyTable::new(),
                false => KeyTable::without_index(),
            },
            expiry: named.ttl.map(Expiry::of),
            by_key,
            clearing: None,
            bytes: vec![],
        }
    }

    /// The id of an element.
    #[inline]
    pub fn find(&self, row: u32, key: &E) -> Option<u32> {
        let hash = self.table.hash_as(&OfRef { row, key });
        let id = self
            .table
            .find_by(hash, |of| of.row == row && of.key == *key);
        (id != NONE && !self.has_left(id)).then_some(id)
    }

    /// The id of an element that is known by less than its key: its key hashes as `like` does, and `same` says yes to it. Not while
    /// anything is being cleared.
    #[inline]
    pub fn find_where(&self, row: u32, like: &E, same: impl Fn(&E, &V) -> bool) -> Option<u32> {
        debug_assert!(!self.is_clearing(), "law 3");
        let table = &self.table;
        let hash = table.hash_as(&OfRef { row, key: like });
        let id = table.find_id(hash, |id| {
            let (of, node) = (table.key(id), table.value(id));
            let value = node.value.as_ref();
            of.row == row && value.is_some_and(|value| same(&of.key, value))
        });
        (id != NONE).then_some(id)
    }

    /// Puts in an element whose key is not there, at the end; its id. `key`: the row's.
    pub fn push<K: Key>(
        &mut self,
        head: &mut Head,
        of: Of<E>,
        key: &K,
        value: V,
        until: i64,
    ) -> u32 {
        if self.clearing.is_some() && self.by_key {
            self.displace(&of, key);
        }
        let node = Node {
            value: Some(value),
            until,
            number: self.next_number(head),
            before: NONE,
            after: NONE,
        };
        let id = match self.by_key {
            true => self.table.insert_new(self.table.hash(&of), of, node),
            false => self.table.push(of, node),
        };
        self.chain(head, id);
        if let Some(kept) = &mut self.kept {
            let due = kept.tracker.touch(id);
            debug_assert!(!due, "nothing was there at the barrier");
        }
        if let Some(expiry) = &mut self.expiry {
            expiry.arm(id, until);
        }
        id
    }

    /// The number that the next element would have.
    pub fn next_number(&self, head: &Head) -> u64 {
        let last = match (head.last, &self.clearing) {
            (NONE, Some(clearing)) => clearing.head.last,
            (last, _) => last,
        };
        match last {
            NONE => 0,
            last => self.table.value(last).number + 1,
        }
    }

    /// Puts an element at the end of its row's.
    fn chain(&mut self, head: &mut Head, id: u32) {
        let node = self.table.value_mut(id);
        (node.before, node.after) = (head.last, NONE);
        match head.last {
            NONE => head.first = id,
            last => self.table.value_mut(last).after = id,
        }
        head.last = id;
        head.len += 1;
    }

    /// An element is about to change.
    #[inline]
    pub fn touch<K: Key>(&mut self, id: u32, key: &K) {
        if let Some(kept) = &mut self.kept
            && kept.tracker.touch(id)
        {
            let saver = &mut kept.keeping.saver;
            saver.pair(ELEMENT, key, &self.table.key(id).key, &mut self.bytes);
            saver.before_bytes(&self.bytes, &self.table.value(id).stored());
        }
    }

    /// Takes an element out.
    pub fn remove<K: Key>(&mut self, head: &mut Head, id: u32, key: &K) -> Option<V> {
        if let Some(kept) = &mut self.kept {
            let (due, stored) = kept.tracker.remove(id);
            let saver = &mut kept.keeping.saver;
            if due || stored {
                saver.pair(ELEMENT, key, &self.table.key(id).key, &mut self.bytes);
            }
            if due {
                saver.before_bytes(&self.bytes, &self.table.value(id).stored());
            }
            if stored {
                saver.gone_bytes(&self.bytes);
            }
        }
        let node = self.table.remove(id, Node::default());
        match node.before {
            NONE => head.first = node.after,
            before => self.table.value_mut(before).after = node.after,
        }
        match node.after {
            NONE => head.last = node.before,
            after => self.table.value_mut(after).before = node.before,
        }
        head.len -= 1;
        node.value
    }

    /// Takes all elements of a row out: law 3. O(1).
    pub fn clear(&mut self, head: &mut Head, row: u32) {
        let gone = std::mem::take(head);
        if gone.first == NONE {
            return;
        }
        let Some(clearing) = &mut self.clearing else {
            self.clearing = Some(Clearing { row, head: gone });
            return;
        };
        debug_assert_eq!(clearing.row, row, "one row's function is called at a time");
        let (last, all) = (clearing.head.last, &mut clearing.head);
        match last {
            NONE => *all = gone,
            last => {
                self.table.value_mut(last).after = gone.first;
                self.table.value_mut(gone.first).before = last;
                (all.last, all.len) = (gone.last, all.len + gone.len);
            }
        }
    }

    /// Whether something is being cleared.
    #[inline(always)]
    pub fn is_clearing(&self) -> bool {
        self.clearing.is_some()
    }

    /// Takes out a piece of what is being cleared; whether none is left. Until none is, no row may be looked at, nor any function
    /// called.
    pub fn clear_some<K: Key>(&mut self, rows: &mut dyn Rows<K, Head>, budget: &mut u32) -> bool {
        let Some(mut clearing) = self.clearing.take() else {
            return true;
        };
        while clearing.head.first != NONE {
            if *budget == 0 {
                self.clearing = Some(clearing);
                return false;
            }
            *budget -= 1;
            let first = clearing.head.first;
            self.remove(&mut clearing.head, first, rows.key(clearing.row));
        }
        true
    }

    /// Whether an element of the row in hand is among those that are being cleared.
    #[inline]
    fn has_left(&self, id: u32) -> bool {
        self.clearing.as_ref().is_some_and(|clearing| {
            clearing.head.last != NONE
                && self.table.key(id).row == clearing.row
                && self.table.value(id).number <= self.table.value(clearing.head.last).number
        })
    }

    /// Takes an element out whose key is to be another's, if it is among those that are being cleared.
    #[cold]
    fn displace<K: Key>(&mut self, of: &Of<E>, key: &K) {
        let hash = self.table.hash(of);
        let id = self.table.find(hash, of);
        if let Some(mut clearing) = self.clearing.take() {
            if id != NONE {
                self.remove(&mut clearing.head, id, key);
            }
            self.clearing = Some(clearing);
        }
    }

    /// Whether an element lives at `now`.
    #[inline]
    pub fn lives(&self, id: u32, now: i64) -> bool {
        self.table.value(id).until > now
    }

    /// When an element expires that is used now, and was to expire at `before` if it lived.
    #[inline]
    pub fn until(&self, now: i64, before: Option<i64>) -> i64 {
        let expiry = self.expiry.as_ref();
        expiry.map_or(NEVER, |expiry| expiry.until(now, before))
    }

    /// An element that lives has been read.
    #[inline]
    pub fn read<K: Key>(&mut self, id: u32, key: &K, now: i64) {
        if self.expiry.as_ref().is_some_and(|e| e.on_read) {
            self.put_off(id, key, now);
        }
    }

    /// An element lives on from now.
    pub fn put_off<K: Key>(&mut self, id: u32, key: &K, now: i64) {
        let before = self.table.value(id).until;
        let until = self.until(now, Some(before));
        if until != before {
            self.touch(id, key);
            self.end_at(id, until);
        }
    }

    /// The ids of a row's elements that live, in order.
    pub fn iter(&self, head: &Head, now: i64) -> Iter<'_, E, V> {
        Iter {
            table: &self.table,
            at: head.first,
            now,
        }
    }

    /// How many of a row's elements live: O(1) where none expires, else O(elements).
    pub fn len(&self, head: &Head, now: i64) -> usize {
        match self.expiry {
            None => head.len as usize,
            Some(_) => self.iter(head, now).count(),
        }
    }

    pub fn begin_epoch(&mut self, cut: Cut) {
        if let Some(kept) = &mut self.kept {
            let table = &self.table;
            kept.begin_timeless(cut, table.id_end(), |id| table.is_live(id));
        }
    }

    pub fn save<K: Key>(&mut self, to: &mut Snapshot<'_>, rows: &mut dyn Rows<K, Head>) -> Saved {
        let table = &self.table;
        let Some(kept) = &mut self.kept else {
            return Saved::All;
        };
        let saver = &mut kept.keeping.saver;
        if saver.write_first(to) == Saved::More {
            return Saved::More;
        }
        to.swept_to(kept.tracker.swept());
        let mut writer = saver.in_turn();
        let all = kept.tracker.write(|id| {
            let of = table.key(id);
            let key = (rows.key(of.row), &of.key);
            writer.write_pair(ELEMENT, key, &table.value(id).stored(), to)
        });
        if all { Saved::All } else { Saved::More }
    }

    pub fn load<K: Key>(
        &mut self,
        frame: &Frame<'_>,
        rows: &mut dyn Rows<K, Head>,
    ) -> Result<bool, LoadError> {
        let Some(kept) = self.kept.as_mut() else {
            return Ok(false);
        };
        let keeping = &mut kept.keeping;
        if keeping.saver.state() != frame.state {
            return Ok(false);
        }
        let Some((&ELEMENT, key)) = frame.key.split_first() else {
            return Ok(true);
        };
        if self.table.is_empty() {
            self.table.begin_index();
        }
        let (key, of): (K, E) = keeping.saver.load_pair(key)?;
        if !keeping.owns(&key) {
            return Ok(true);
        }
        let Some(bytes) = frame.value else {
            let row = rows.get(&key);
            if let Some(id) = row.and_then(|row| self.find(row, &of)) {
                self.table.remove(id, Node::default());
                if let Some(kept) = &mut self.kept {
                    kept.restored(id, false);
                }
            }
            return Ok(true);
        };
        let mut from = Parts::of(bytes);
        let number = from.number()? as u64;
        let until = from.number()?;
        let part = from.part_bytes()?;
        from.end()?;
        let value = keeping.saver.load_value::<(K, E), V>(frame, part)?;
        let of = Of {
            row: rows.make(&key),
            key: of,
        };
        let node = Node {
            value: Some(value),
            until,
            number,
            ..Node::default()
        };
        let (id, _) = self.table.replace(&of, node);
        kept.restored(id, true);
        Ok(true)
    }

    /// Everything has been loaded: chains the elements of each row again. O(n log n).
    pub fn loaded<K: Key>(&mut self, rows: &mut dyn Rows<K, Head>) {
        if !self.by_key {
            self.table.drop_index();
        }
        let live = (0..self.table.id_end()).filter(|&id| self.table.is_live(id));
        let mut order: Vec<_> = live
            .map(|id| (self.table.key(id).row, self.table.value(id).number, id))
            .collect();
        order.sort_unstable();
        for (row, _, id) in order {
            self.chain(rows.entry(row).1, id);
            let node = self.table.value_mut(id);
            match &mut self.expiry {
                Some(expiry) => expiry.loaded(id, node.until),
                None => node.until = NEVER,
            }
        }
    }

    /// Elements from before there was a time to live begin theirs, a piece; whether none is left.
    fn begin_lives<K: Key>(
        &mut self,
        rows: &mut dyn Rows<K, Head>,
        now: Now,
        budget: &mut u32,
    ) -> bool {
        loop {
            let begun = self.expiry.as_mut().map(|e| e.begins(now, budget));
            let (time, id) = match begun {
                Some(Popped::Due { time, value }) => (time, value),
                Some(Popped::More) => return false,
                Some(Popped::Nothing) | None => return true,
            };
            if self.table.is_live(id) && self.table.value(id).until == NEVER {
                self.touch(id, rows.key(self.table.key(id).row));
                self.end_at(id, time);
            }
        }
    }

    /// Says when an element expires.
    fn end_at(&mut self, id: u32, until: i64) {
        self.table.value_mut(id).until = until;
        if let Some(expiry) = &mut self.expiry {
            expiry.arm(id, until);
        }
    }

    pub fn expire<K: Key>(
        &mut self,
        rows: &mut dyn Rows<K, Head>,
        now: Now,
        budget: &mut u32,
    ) -> bool {
        if !self.begin_lives(rows, now, budget) {
            return false;
        }
        loop {
            let (Some(expiry), table) = (&mut self.expiry, &self.table) else {
                return true;
            };
            let until = |id| {
                let node = table.value(id);
                node.value.as_ref().map(|_| node.until)
            };
            match expiry.next(now, budget, until, |id| table.prefetch_entry(id)) {
                Popped::Due { value: id, .. } => {
                    let row = self.table.key(id).row;
                    let (key, head) = rows.entry(row);
                    self.remove(head, id, key);
                    if head.len == 0 {
                        rows.lost(row);
                    }
                }
                Popped::More => return false,
                Popped::Nothing => return true,
            }
        }
    }

    /// Adds how large it is.
    pub fn sizes(&self, op: OpId, out: &mut Sizes) {
        out.push((op, self.name, self.table.size()));
    }
}

/// See [`Elements::iter`].
pub(crate) struct Iter<'a, E, V> {
    table: &'a KeyTable<Of<E>, Node<V>>,
    at: u32,
    now: i64,
}

impl<'a, E: ElementKey, V> Iterator for Iter<'a, E, V> {
    type Item = (u32, &'a E, &'a V);
    fn next(&mut self) -> Option<Self::Item> {
        while self.at != NONE {
            let id = self.at;
            let node = self.table.value(id);
            self.at = node.after;
            if let Some(value) = node.value.as_ref().filter(|_| node.until > self.now) {
                return Some((id, &self.table.key(id).key, value));
            }
        }
        None
    }
}
