//! Records, results, and the user functions of generated jobs: plain functions that the engine and the model share.

use pelton::Firing;

/// A record of a generated job.
#[pelton::state(version = 1)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rec {
    /// Unique among the records of all sources.
    pub id: u64,
    /// Which of the copies made of it: 0 where none were, else its path through them.
    pub copy: u32,
    /// The key.
    pub key: u32,
    /// The value; small, so that no sum saturates.
    pub value: i64,
    /// Event time in microseconds; `None` is NULL.
    pub time: Option<i64>,
    /// The watermark it carries, for punctuated generators.
    pub mark: Option<i64>,
}

/// Parameters of a filter, a map and a flat_map in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fused {
    /// Drops each record whose id is a multiple of it; 0 drops none.
    pub drop_each: u64,
    /// Added to the value.
    pub add: i64,
    /// Makes (id + copies) % 3 copies of a record; 0 leaves it as it is.
    pub copies: u64,
}

impl Fused {
    /// The filter.
    pub fn keeps(self, record: &Rec) -> bool {
        self.drop_each == 0 || !record.id.is_multiple_of(self.drop_each)
    }

    /// The map.
    pub fn mapped(self, mut record: Rec) -> Rec {
        record.value += self.add;
        record
    }

    /// The flat_map.
    pub fn copied(self, record: Rec) -> Vec<Rec> {
        if self.copies == 0 {
            return vec![record];
        }
        (0..(record.id + self.copies) % 3)
            .map(|n| record.with_copy(n as u32))
            .collect()
    }
}

impl Rec {
    /// Copy number `n` (0 to 3) of this one. Where all records go on as copies, or each on one way only, names stay unique.
    pub fn with_copy(&self, n: u32) -> Rec {
        Rec {
            copy: self.copy * 4 + n + 1,
            ..self.clone()
        }
    }

    /// Which record of which source this is.
    pub fn name(&self) -> (u64, u32) {
        (self.id, self.copy)
    }
}

/// A row of a table that changes. Many are equal, so that it matters how many there are.
#[pelton::state(version = 1)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fact {
    /// What it is grouped by.
    pub key: u32,
    /// What it has of the left.
    pub left: i64,
    /// What it has of the right.
    pub right: i64,
    /// The value.
    pub value: i64,
}

impl Fact {
    /// The group of a key: others share it.
    pub fn group(key: u32) -> u32 {
        key % 3
    }
}

/// What the aggregates of a window gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Value {
    /// `count`.
    pub count: u64,
    /// `sum` of the values.
    pub sum: i64,
    /// `min` of them.
    pub min: i64,
    /// `max` of them.
    pub max: i64,
    /// `sum` of a tenth of each: equal to within rounding.
    pub tenths: f64,
    /// The very records, sorted: a user-defined aggregate.
    pub names: Vec<(u64, u32)>,
    /// Further aggregates, where the job has them.
    pub more: Option<More>,
}

/// Aggregates some of which go by the order of (event time, origin).
#[derive(Clone, Debug, PartialEq)]
pub struct More {
    /// `avg` of the values.
    pub avg: f64,
    /// `variance` of them.
    pub variance: f64,
    /// `first` value.
    pub first: i64,
    /// `last` value.
    pub last: i64,
    /// `collect`: all values in order.
    pub all: Vec<i64>,
    /// `top_k` with [`More::K`].
    pub top: Vec<i64>,
    /// `count_distinct`.
    pub distinct: u64,
}

impl More {
    /// How many `top` keeps.
    pub const K: usize = 3;
}

/// The state of a fold in order: how many came, what was made of them, and which came last.
pub type Folded = (u64, i64, (u64, u32));

/// A fold that gives another value for another order.
pub fn fold(state: &mut Folded, record: &Rec) {
    state.0 += 1;
    state.1 = state.1.wrapping_mul(31).wrapping_add(record.value);
    state.2 = record.name();
}

/// A result of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The key.
    pub key: u32,
    /// First microsecond of the window.
    pub start: i64,
    /// First microsecond after it.
    pub end: i64,
    /// Why it came.
    pub firing: Firing,
    /// What the aggregates gave.
    pub value: Value,
}
