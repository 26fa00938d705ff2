//! A file in memory: pages that clones share, and what its unsynced sectors held before.

use super::Unsynced;
use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = 4096;

/// A file's content now, and enough to go back to what is durable.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What it was called first, for messages.
    pub label: String,
    pub len: usize,
    /// Pages that are not there are zeros, and so is everything beyond `len`.
    pages: BTreeMap<usize, Arc<[u8; PAGE]>>,
    durable_len: usize,
    /// What each sector held that was written since the last sync.
    before: BTreeMap<usize, Vec<u8>>,
    /// Space reserved, also beyond the length; it does not survive a crash, being of no consequence.
    pub reserved: u64,
}

impl Inode {
    pub fn new(label: String) -> Self {
        Inode {
            label,
            ..Inode::default()
        }
    }

    pub fn used(&self) -> u64 {
        (self.len as u64).max(self.reserved)
    }

    /// Copies from `at`; the caller has checked that the range lies within the file.
    pub fn read(&self, mut at: usize, mut to: &mut [u8]) {
        while !to.is_empty() {
            let from = at % PAGE;
            let (now, rest) = to.split_at_mut(to.len().min(PAGE - from));
            match self.pages.get(&(at / PAGE)) {
                Some(page) => now.copy_from_slice(&page[from..from + now.len()]),
                None => now.fill(0),
            }
            at += now.len();
            to = rest;
        }
    }

    /// Changes content and nothing else.
    fn put(&mut self, mut at: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let from = at % PAGE;
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - from));
            let page = self.pages.entry(at / PAGE);
            let page = page.or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[from..from + now.len()].copy_from_slice(now);
            at += now.len();
            bytes = rest;
        }
    }

    /// Remembers what the sectors of a range hold, unless they are unsynced already.
    fn remember(&mut self, from: usize, to: usize, sector: usize) {
        if from == to {
            return;
        }
        for s in from / sector..to.div_ceil(sector) {
            if !self.before.contains_key(&s) {
                let mut bytes = vec![0; sector];
                self.read(s * sector, &mut bytes);
                self.before.insert(s, bytes);
            }
        }
    }

    pub fn write(&mut self, at: usize, bytes: &[u8], sector: usize) {
        self.remember(at, at + bytes.len(), sector);
        self.put(at, bytes);
        self.len = self.len.max(at + bytes.len());
    }

    pub fn set_len(&mut self, len: usize, sector: usize) {
        // What was never written is zero before and after.
        let end = self.len.min(self.written_end());
        self.remember(len, end.max(len), sector);
        self.len = len;
        self.zero_beyond();
    }

    fn written_end(&self) -> usize {
        self.pages
            .last_key_value()
            .map_or(0, |(p, _)| (p + 1) * PAGE)
    }

    fn zero_beyond(&mut self) {
        let first_gone = self.len.div_ceil(PAGE);
        self.pages.split_off(&first_gone);
        let inside = self.len % PAGE;
        if inside > 0
            && let Some(page) = self.pages.get_mut(&(self.len / PAGE))
        {
            Arc::make_mut(page)[inside..].fill(0);
        }
    }

    pub fn sync(&mut self) {
        self.before.clear();
        self.durable_len = self.len;
    }

    /// Goes back to what is durable, but for the units that `keep` says: the length, if it changed, then each sector.
    pub fn crash(&mut self, sector: usize, mut keep: impl FnMut() -> bool) {
        if self.len != self.durable_len && !keep() {
            self.len = self.durable_len;
        }
        for (s, bytes) in std::mem::take(&mut self.before) {
            if !keep() {
                self.put(s * sector, &bytes);
            }
        }
        self.zero_beyond();
        self.reserved = 0;
        self.sync();
    }

    pub fn unsynced(&self, sector: usize, units: &mut Vec<Unsynced>) {
        let file = || self.label.clone();
        if self.len != self.durable_len {
            units.push(Unsynced::Length { file: file() });
        }
        units.extend(self.before.keys().map(|s| Unsynced::Sector {
            file: file(),
            offset: (s * sector) as u64,
        }));
    }

    pub fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }
}
