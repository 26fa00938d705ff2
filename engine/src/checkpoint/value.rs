//! What an entry's value is in a checkpoint: one archive, or several with numbers between them.
//!
//! An operator may have what it keeps for a key in several places. It is put together here without a copy of it being made:
//!
//! ```text
//! number: 8 bytes, little-endian      part: length in 4 bytes, little-endian | archive
//! ```

use crate::state::{Codec, Encoder, LoadError, State};
use pelton_storage::Space;

/// What can be the value of an entry.
pub(crate) trait Stored {
    /// Writes it.
    fn store(&self, to: &mut Value<'_, '_, '_>);
}

impl<V: State> Stored for V {
    #[inline(always)]
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.whole(self);
    }
}

/// A value that lies elsewhere.
#[derive(Debug)]
pub(crate) struct Whole<'a, V>(pub &'a V);

impl<V: Stored> Stored for Whole<'_, V> {
    #[inline(always)]
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        self.0.store(to);
    }
}

/// A value being written.
#[allow(missing_debug_implementations)]
pub(crate) struct Value<'a, 'e, 's> {
    encoder: &'a mut Encoder<'e>,
    out: &'a mut Space<'s>,
}

impl<'a, 'e, 's> Value<'a, 'e, 's> {
    /// Writes to the end of `out`.
    #[inline(always)]
    pub fn new(encoder: &'a mut Encoder<'e>, out: &'a mut Space<'s>) -> Self {
        Value { encoder, out }
    }

    /// The value is this one archive and nothing else.
    #[inline(always)]
    pub fn whole<V: State>(&mut self, value: &V) {
        self.encoder.save(value, self.out);
    }

    /// A number.
    pub fn number(&mut self, number: i64) {
        self.out.extend(&number.to_le_bytes());
    }

    /// A part.
    pub fn part<V: State>(&mut self, part: &V) {
        let at = self.out.used();
        self.out.extend(&[0; 4]);
        self.encoder.save(part, self.out);
        let length = (self.out.used() - at - 4) as u32;
        self.out.replace(at, &length.to_le_bytes());
    }
}

/// A value being read: what was written, in its order.
#[allow(missing_debug_implementations)]
pub(crate) struct Parts<'a> {
    bytes: &'a [u8],
    codec: Codec,
}

impl<'a> Parts<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Parts {
            bytes,
            codec: Codec::default(),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], LoadError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| LoadError::new("an entry's value is too short"))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub fn number(&mut self) -> Result<i64, LoadError> {
        let bytes = self.take(8)?.try_into().unwrap_or_default();
        Ok(i64::from_le_bytes(bytes))
    }

    /// A number of things that follow, each of at least 8 bytes.
    pub fn count(&mut self) -> Result<usize, LoadError> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.bytes.len() / 8 => Ok(count),
            _ => Err(LoadError::new(format!(
                "an entry's value says that {count} parts follow"
            ))),
        }
    }

    pub fn part<V: State>(&mut self) -> Result<V, LoadError> {
        let bytes = self.part_bytes()?;
        self.codec.load(bytes)
    }

    /// A part as it was written.
    pub fn part_bytes(&mut self) -> Result<&'a [u8], LoadError> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default());
        self.take(length as usize)
    }

    /// That is all.
    pub fn end(self) -> Result<(), LoadError> {
        match self.bytes.len() {
            0 => Ok(()),
            n => Err(LoadError::new(format!(
                "an entry's value has {n} bytes too many"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_in_its_order() {
        let mut codec = Codec::default();
        let (mut encoder, mut bytes) = (codec.encoder(), [0; 256]);
        let mut out = Space::new(&mut bytes);
        let mut value = Value::new(&mut encoder, &mut out);
        value.number(-7);
        value.part(&"odd".to_string());
        value.part(&(1u64, vec![2u8, 3]));
        value.number(1);
        let used = out.used();
        let out = &bytes[..used];
        let mut parts = Parts::of(out);
        assert_eq!(parts.number(), Ok(-7));
        assert_eq!(parts.part::<String>(), Ok("odd".to_string()));
        assert_eq!(parts.part::<(u64, Vec<u8>)>(), Ok((1, vec![2, 3])));
        assert!(
            parts.count().is_err(),
            "nothing follows that could be counted"
        );
        assert!(parts.end().is_ok());
        for cut in 0..out.len() {
            let mut parts = Parts::of(&out[..cut]);
            let read = parts.number().is_ok()
                && parts.part::<String>().is_ok()
                && parts.part::<(u64, Vec<u8>)>().is_ok()
                && parts.number().is_ok();
            assert!(!read, "{cut} bytes are too few");
        }
    }
}
