//! What a record is in a log: bytes.

use crate::state::{self, State, fingerprint, shape_of};
use std::fmt;
use std::marker::PhantomData;

/// Turns records into bytes and back. A clone of it works for each shard or partition.
///
/// What comes out of `decode` must be what went into `encode`: a job that goes on from a checkpoint reads records again.
pub trait Codec<T>: Clone + Send + 'static {
    /// Appends the record's bytes. An error ends the job that writes.
    fn encode(&mut self, record: &T, to: &mut Vec<u8>) -> Result<(), String>;
    /// The record, or why these bytes are none: such a record is malformed.
    fn decode(&mut self, bytes: &[u8]) -> Result<T, String>;
}

/// Records that are bytes.
pub fn bytes() -> Bytes {
    Bytes(())
}

/// See [`bytes`].
#[derive(Clone, Copy, Debug)]
pub struct Bytes(());

impl Codec<Vec<u8>> for Bytes {
    fn encode(&mut self, record: &Vec<u8>, to: &mut Vec<u8>) -> Result<(), String> {
        to.extend_from_slice(record);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        Ok(bytes.to_vec())
    }
}

/// Records of a type that is [`State`]: the fastest to read. Each begins with the fingerprint of the type's shape, so that those of
/// another type, or of another version of it, are malformed and never taken for one.
pub fn states<T: State>() -> States<T> {
    States {
        shape: fingerprint(&shape_of::<T>()).to_le_bytes(),
        codec: state::Codec::default(),
        record: PhantomData,
    }
}

/// See [`states`].
pub struct States<T> {
    shape: [u8; 8],
    codec: state::Codec,
    record: PhantomData<fn(T) -> T>,
}

impl<T> fmt::Debug for States<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("States")
    }
}

impl<T: State> Clone for States<T> {
    fn clone(&self) -> Self {
        states()
    }
}

impl<T: State> Codec<T> for States<T> {
    fn encode(&mut self, record: &T, to: &mut Vec<u8>) -> Result<(), String> {
        to.extend_from_slice(&self.shape);
        self.codec.append(record, to);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<T, String> {
        match bytes.split_first_chunk() {
            Some((shape, archive)) if *shape == self.shape => {
                self.codec.load(archive).map_err(|e| e.to_string())
            }
            _ => Err(format!(
                "it was not written as {}; read it with the type that it was written with",
                shape_of::<T>()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_and_nothing_else() {
        let mut codec = states::<(u64, String)>();
        let mut to = vec![9];
        codec.encode(&(7, "seven".into()), &mut to).unwrap();
        assert_eq!(to[0], 9, "appended");
        assert_eq!(codec.clone().decode(&to[1..]), Ok((7, "seven".to_string())));
        let other = states::<(u64, u64)>().decode(&to[1..]).unwrap_err();
        assert!(other.contains("not written as"), "{other}");
        for cut in 1..to.len() {
            assert!(
                codec.decode(&to[1..cut]).is_err(),
                "{cut} bytes are too few"
            );
        }
        let mut plain = vec![];
        bytes().encode(&vec![1, 2], &mut plain).unwrap();
        assert_eq!(bytes().decode(&plain), Ok(vec![1, 2]));
    }
}
