//! A vector in pages: it grows without moving what it holds.

use super::PAGE;

/// A vector in pages: growing copies nothing (law 2). Pages are kept when it shrinks.
#[derive(Debug)]
pub(crate) struct Paged<T> {
    pages: Vec<Vec<T>>,
    pub(super) len: usize,
}

impl<T> Paged<T> {
    pub fn new() -> Self {
        Paged {
            pages: vec![],
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, value: T) {
        let page = self.len / PAGE;
        if page == self.pages.len() {
            // The first page grows as it fills, so that a wheel of few timers is small.
            let room = if page == 0 { 16 } else { PAGE };
            self.pages.push(Vec::with_capacity(room));
        }
        self.pages[page].push(value);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        self.pages[self.len / PAGE].pop()
    }

    #[inline(always)]
    pub fn get(&self, at: usize) -> &T {
        &self.pages[at / PAGE][at % PAGE]
    }

    #[inline(always)]
    pub fn get_mut(&mut self, at: usize) -> &mut T {
        &mut self.pages[at / PAGE][at % PAGE]
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages
            .iter()
            .map(|p| p.capacity() * size_of::<T>())
            .sum()
    }
}
