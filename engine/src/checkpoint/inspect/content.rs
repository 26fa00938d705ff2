//! What states hold: their entries counted as a restore would find them, and what of them is the engine's own.

use super::super::registry::Declared;
use super::{Content, PartitionContent, StateContent, WatermarkContent};
use crate::source::Position;
use crate::stage::source::Kept;
use crate::state::{Codec, LoadError, shape_of};
use crate::time::EventTime;
use pelton_storage::Frame;
use std::collections::BTreeMap;

/// States of which something is the engine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Positions,
    /// Of source partitions.
    Watermarks,
    /// What a keyed operator keeps, M among it.
    Keyed,
    /// Another state of one: what is noted there is told by its [`Own::Keyed`], or is of no interest.
    Noted,
}

/// Something of the engine's own.
pub(super) enum OwnValue {
    Position(u32, Kept),
    Watermark(u32, EventTime),
}

/// M of an operator on one shard: see [`crate::checkpoint::Keeping`].
const SHARDS_WATERMARK: u8 = b'M';
/// And among how many shards: of no interest to anybody else.
const OF_SHARDS: u8 = b'S';
/// The clock as a shard saw it last: likewise.
const CLOCK: u8 = b'C';
/// The next number that a shard gives what it takes in hand: likewise. Its key has the number of shards as well.
const NEXT: u8 = b'N';

/// Whether a key of a keyed operator's is that of a note: it goes on with a shard's number.
fn is_note(key: &[u8]) -> bool {
    match key {
        [SHARDS_WATERMARK | OF_SHARDS | CLOCK, number @ ..] => number.len() == 4,
        [NEXT, numbers @ ..] => numbers.len() == 8,
        _ => false,
    }
}

impl Own {
    pub fn of(state: &Declared) -> Option<Own> {
        match state.name.as_str() {
            "positions" if state.shape == shape_of::<Kept>() => Some(Own::Positions),
            // What generators of users have learned has a type of theirs.
            "watermarks" if state.shape == shape_of::<(i64, EventTime)>() => Some(Own::Watermarks),
            // Nothing of a keyed operator's: what is prepared, and what generators of users have learned.
            "positions" | "watermarks" | "prepared" => None,
            // A process function's M is with its timers.
            "keyed" | "timers" => Some(Own::Keyed),
            _ => Some(Own::Noted),
        }
    }

    pub fn read(
        self,
        key: &[u8],
        value: &[u8],
        codec: &mut Codec,
    ) -> Result<Option<OwnValue>, LoadError> {
        let number = |key: &[u8]| match key.try_into() {
            Ok(bytes) => Ok(u32::from_le_bytes(bytes)),
            Err(_) => Err(LoadError::new("the number of a partition has 4 bytes")),
        };
        Ok(match (self, key) {
            (Own::Positions, key) => Some(OwnValue::Position(number(key)?, codec.load(value)?)),
            (Own::Watermarks, key) => {
                let (time, _): (i64, EventTime) = codec.load(value)?;
                let time = EventTime::from_micros(time);
                Some(OwnValue::Watermark(number(key)?, time))
            }
            (Own::Keyed, [SHARDS_WATERMARK, shard @ ..]) => {
                let time = EventTime::from_micros(codec.load(value)?);
                Some(OwnValue::Watermark(number(shard)?, time))
            }
            (Own::Keyed | Own::Noted, _) => None,
        })
    }
}

/// A state while its frames are counted.
pub(super) struct Counted {
    pub declared: Declared,
    own: Option<Own>,
    /// Bytes of the value by the key; those of the engine's own values themselves.
    live: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>,
    written: u64,
}

/// What keys of a tumbling window's state begin with: entries, parked ones, and the window itself. The window's start follows.
const OF_WINDOW: [u8; 2] = *b"EP";
const WINDOW: u8 = b'W';

impl Counted {
    pub fn new(declared: Declared) -> Self {
        Counted {
            own: Own::of(&declared),
            declared,
            live: BTreeMap::new(),
            written: 0,
        }
    }

    /// Law 3.
    pub fn take(&mut self, frame: &Frame<'_>) {
        self.written += 1;
        let is_keyed = matches!(self.own, Some(Own::Keyed | Own::Noted));
        let is_note = is_keyed && is_note(frame.key);
        let is_told = self.own == Some(Own::Keyed) && frame.key.first() == Some(&SHARDS_WATERMARK);
        if is_note && !is_told {
            return;
        }
        let Some(value) = frame.value else {
            match (self.own, frame.key) {
                (Some(Own::Keyed), [WINDOW, start @ ..]) => self.remove_window(start),
                (_, key) => {
                    self.live.remove(key);
                }
            }
            return;
        };
        let is_own = match self.own {
            None | Some(Own::Noted) => false,
            Some(Own::Keyed) => is_note,
            Some(Own::Positions | Own::Watermarks) => true,
        };
        let kept = is_own.then(|| value.to_vec());
        self.live
            .insert(frame.key.to_vec(), (value.len() as u64, kept));
    }

    fn remove_window(&mut self, start: &[u8]) {
        for tag in OF_WINDOW {
            let mut prefix = vec![tag];
            prefix.extend_from_slice(start);
            let rest = self.live.range(prefix.clone()..);
            let gone: Vec<Vec<u8>> = rest
                .map(|(key, _)| key)
                .take_while(|key| key.starts_with(&prefix))
                .cloned()
                .collect();
            for key in gone {
                self.live.remove(&key);
            }
        }
    }

    pub fn tell(self, to: &mut Content) -> Result<(), LoadError> {
        let Counted {
            declared,
            own,
            live,
            written,
        } = self;
        let is_entry = |key: &[u8]| own != Some(Own::Keyed) || !is_note(key);
        let entries = live.iter().filter(|(key, _)| is_entry(key));
        let sizes = entries
            .clone()
            .map(|(key, (len, _))| key.len() as u64 + len);
        to.states.push(StateContent {
            uid: declared.uid.clone(),
            is_uid_given: declared.given,
            operator: declared.operator,
            name: declared.name,
            shape: declared.shape,
            entries: entries.count() as u64,
            bytes: sizes.sum(),
            written,
        });
        let (Some(own), mut codec) = (own, Codec::default()) else {
            return Ok(());
        };
        for (key, value) in &live {
            let (_, Some(value)) = value else {
                continue;
            };
            match own.read(key, value, &mut codec)? {
                Some(OwnValue::Position(number, (name, (offset, (detail, has_ended))))) => {
                    to.partitions.push(PartitionContent {
                        source: declared.uid.clone(),
                        number,
                        name,
                        position: Position { offset, detail },
                        has_ended,
                    });
                }
                Some(OwnValue::Watermark(number, time)) => to.watermarks.push(WatermarkContent {
                    uid: declared.uid.clone(),
                    number,
                    is_partition: own == Own::Watermarks,
                    time,
                }),
                None => {}
            }
        }
        Ok(())
    }
}
