//! Loading what an earlier program stored: the same shape, an older version that is known, or an error that names both.

use super::{LoadError, State, load, shape_of};
use rkyv::util::AlignedVec;

/// Loads bytes of an older shape; they lie at an address that is a multiple of 16.
pub type Migrate<T> = Box<dyn Fn(&[u8]) -> Result<T, LoadError> + Send>;

/// Loads values that were stored with a shape, which it looks at once.
#[allow(missing_debug_implementations)]
pub struct Loader<T> {
    /// Where the shape is not that of `T`.
    migrate: Option<Migrate<T>>,
    /// Bytes are loaded from here: they may lie anywhere.
    aligned: AlignedVec,
}

impl<T: State> Loader<T> {
    /// For values stored with this shape. An error if it is not the shape of `T`, nor one that `T` knows how to migrate from.
    pub fn new(stored: &str) -> Result<Self, LoadError> {
        let now = shape_of::<T>();
        let migrate = if stored == now {
            None
        } else {
            Some(T::migrate(stored).ok_or_else(|| mismatch(stored, &now))?)
        };
        Ok(Loader {
            migrate,
            aligned: AlignedVec::new(),
        })
    }

    /// Whether what it loads is of an older shape, so that it must be stored anew.
    pub fn migrates(&self) -> bool {
        self.migrate.is_some()
    }

    /// The value that these bytes are, wherever in memory they lie.
    pub fn load(&mut self, bytes: &[u8]) -> Result<T, LoadError> {
        self.aligned.clear();
        self.aligned.extend_from_slice(bytes);
        match &self.migrate {
            None => load(&self.aligned),
            Some(migrate) => migrate(&self.aligned),
        }
    }
}

/// The value that bytes stored with this shape are. [`Loader`] is for many of them.
pub fn load_as<T: State>(stored: &str, bytes: &[u8]) -> Result<T, LoadError> {
    Loader::new(stored)?.load(bytes)
}

/// How to load a `T` from what `Old`, or a version before it, wrote: by `from`. `None` where `stored` is none of their shapes.
/// What `migrate = from` stands for.
pub fn migrated<Old: State, T: 'static>(
    from: impl Fn(Old) -> T + Send + 'static,
    stored: &str,
) -> Option<Migrate<T>> {
    if stored == shape_of::<Old>() {
        return Some(Box::new(move |bytes| load::<Old>(bytes).map(&from)));
    }
    let before = Old::migrate(stored)?;
    Some(Box::new(move |bytes| before(bytes).map(&from)))
}

#[cold]
fn mismatch(stored: &str, now: &str) -> LoadError {
    LoadError::new(format!(
        "stored as `{stored}`, but the program now says `{now}`: count the version up and give `migrate = ..`"
    ))
}
