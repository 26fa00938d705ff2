//! State that survives: what a type must be able to do so that its values can be kept in a checkpoint.
//!
//! Laws
//! 1. A value that was saved and loaded again is equal to what it was, in this process and in any later one.
//! 2. Loading looks at every byte before it believes it: damaged bytes are an error, never a panic and never another value.
//! 3. The shape of a type is a text that says all that the bytes depend on. It is stored beside each state; bytes are never
//!    read with another shape.
//!
//! The bytes are rkyv archives: little-endian, 32-bit offsets, whatever the machine.
//!
//! Records that only pass through need none of this. What is kept does: keys, accumulators, what `reduce` and `fold` hold,
//! records that wait in an order by event time, and what watermark generators remember.
//!
//! | type | kept as |
//! |---|---|
//! | `u8` .. `u128`, `i8` .. `i128`, `f32`, `f64`, `bool`, `char`, `()` | itself; floats by their bits |
//! | `usize`, `isize` | not at all: an archive has 32 bits for them. Keep a `u64` or `i64` |
//! | `&str`, `Arc<str>`, all references | not at all: another process loads them. Keep a `String` or `Box<str>` |
//! | `String`, `Box<str>`, `Option`, `Vec`, `VecDeque`, arrays, tuples of up to 12, `Box`, `Duration` | itself |
//! | `BTreeMap`, `BTreeSet`, `HashMap`, `HashSet` | itself, if what rkyv makes of the key can be ordered or hashed |
//! | [`EventTime`](crate::EventTime), [`Span`](crate::Span), [`Windowed`](crate::Windowed), .. | itself |
//! | a type of your own | by [`#[pelton::state(version = 1)]`](macro@crate::state) |

mod containers;
mod loading;
mod shape;
#[cfg(test)]
mod tests;

pub use loading::{Loader, Migrate, load_as, migrated};
pub use shape::{Shape, fingerprint, shape_of};

use pelton_storage::Space;
use rkyv::api::low::{LowDeserializer, LowSerializer, LowValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::{Positional, Serializer, Writer};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// What bytes are written with.
#[doc(hidden)]
pub type Saver<'a, 'b> = LowSerializer<End<'b>, ArenaHandle<'a>, Error>;

/// Where an archive is written, which may begin anywhere: what it points to it points to by distances.
#[doc(hidden)]
#[derive(Debug)]
pub struct End<'a> {
    space: Space<'a>,
    start: usize,
}

impl Positional for End<'_> {
    #[inline(always)]
    fn pos(&self) -> usize {
        self.space.used() - self.start
    }
}

impl<E> Writer<E> for End<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        // What is written is of a known length, but for padding: there mostly is none.
        if !bytes.is_empty() {
            self.space.extend(bytes);
        }
        Ok(())
    }
}

/// A type whose values can be kept in a checkpoint: keys, accumulators, records that windows hold.
///
/// Integers, floats, `bool`, `char`, strings, `Option`, `Vec`, arrays, tuples and more are: see [`mod@crate::state`]. A struct or
/// enum of your own says it by [`#[pelton::state(version = 1)]`](macro@crate::state).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in a checkpoint",
    label = "not a `pelton::State`",
    note = "put `#[pelton::state(version = 1)]` on a struct or enum of your own",
    note = "instead of `&str` keep a `String`, instead of `usize` a `u64`"
)]
pub trait State:
    Send
    + Sized
    + 'static
    + Archive<
        Archived: for<'a> CheckBytes<LowValidator<'a, Error>>
                      + Deserialize<Self, LowDeserializer<Error>>,
    >
    + for<'a, 'b> Serialize<Saver<'a, 'b>>
{
    /// Says what the bytes depend on: names, fields and their types.
    fn shape(out: &mut Shape);

    /// How to load what was stored with another shape than this type's: `None` where nothing is known of that shape.
    /// [`#[pelton::state(version = 2, migrate = ..)]`](macro@crate::state) writes it.
    fn migrate(_stored: &str) -> Option<Migrate<Self>> {
        None
    }
}

/// Bytes that cannot be loaded: damaged, or not of this type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadError {
    /// What is wrong with them.
    pub what: String,
}

impl LoadError {
    /// What is wrong with the bytes, in words.
    pub fn new(what: impl Into<String>) -> Self {
        LoadError { what: what.into() }
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for LoadError {}

/// Turns values into bytes and back, and keeps the memory that this takes.
#[derive(Default)]
#[allow(missing_debug_implementations)]
pub(crate) struct Codec {
    arena: Arena,
    aligned: AlignedVec,
}

impl Codec {
    /// What writes values, one after another.
    #[inline]
    pub fn encoder(&mut self) -> Encoder<'_> {
        Encoder {
            arena: Some(self.arena.acquire()),
        }
    }

    /// The bytes of `value`.
    pub fn bytes_of<T: State>(&mut self, value: &T) -> Vec<u8> {
        let mut bytes = vec![];
        self.append(value, &mut bytes);
        bytes
    }

    /// Appends the bytes of `value`.
    pub fn append<T: State>(&mut self, value: &T, to: &mut Vec<u8>) {
        let start = to.len();
        let mut room = 256;
        loop {
            to.resize(start + room, 0);
            let mut space = Space::new(&mut to[start..]);
            self.encoder().save(value, &mut space);
            let (used, fits) = (space.used(), space.fits());
            if fits {
                return to.truncate(start + used);
            }
            room = used;
        }
    }

    /// The value that these bytes are, wherever in memory they lie.
    pub fn load<T: State>(&mut self, bytes: &[u8]) -> Result<T, LoadError> {
        self.aligned.clear();
        self.aligned.extend_from_slice(bytes);
        load(&self.aligned)
    }
}

/// Writes values. It holds the arena for many of them: taking that for each would cost as much as writing a small one.
#[allow(missing_debug_implementations)]
pub(crate) struct Encoder<'a> {
    arena: Option<ArenaHandle<'a>>,
}

impl Encoder<'_> {
    /// Writes the bytes of `value` to the end of `to`.
    #[inline(always)]
    pub fn save<T: State>(&mut self, value: &T, to: &mut Space<'_>) {
        // It is given back below, unless a value's own code panicked, and then there is no next one.
        let arena = self.arena.take().expect("no value is being written");
        let end = End {
            start: to.used(),
            space: to.lend(),
        };
        let mut serializer = Serializer::new(end, arena, ());
        let saved = rkyv::api::serialize_using::<_, Error>(value, &mut serializer);
        // Writing to memory does not fail; what could is a pointer further away than 2 GiB.
        assert!(saved.is_ok(), "a value of more than 2 GiB");
        let (end, arena, ()) = serializer.into_raw_parts();
        self.arena = Some(arena);
        let used = end.space.used();
        to.reached(used);
    }
}

/// The value that these bytes are. They must lie at an address that is a multiple of 16.
pub(crate) fn load<T: State>(bytes: &[u8]) -> Result<T, LoadError> {
    let wrong = |e: Error| LoadError::new(e.to_string());
    let archived = rkyv::api::low::access::<T::Archived, Error>(bytes).map_err(wrong)?;
    rkyv::api::low::deserialize::<T, Error>(archived).map_err(wrong)
}
