//! Shapes: what the bytes of a type depend on, as text, and its fingerprint.

use super::State;
use std::any::TypeId;

/// Gathers the shape of a type.
#[derive(Debug, Default)]
pub struct Shape {
    text: String,
    /// The types whose shapes are being written, the outermost first.
    within: Vec<TypeId>,
}

impl Shape {
    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds the shape of the type `T` by `write`, or its name alone where it is being written already: a type may contain
    /// itself.
    pub fn named<T: 'static>(&mut self, name: &str, write: impl FnOnce(&mut Shape)) {
        let id = TypeId::of::<T>();
        if self.within.contains(&id) {
            return self.text(name);
        }
        self.within.push(id);
        write(self);
        self.within.pop();
    }

    /// Adds the shape of a part.
    pub fn part<T: State>(&mut self) {
        T::shape(self);
    }
}

/// The shape of a type as text: what an error shows where two do not agree.
pub fn shape_of<T: State>() -> String {
    let mut shape = Shape::default();
    T::shape(&mut shape);
    shape.text
}

/// A number for a shape: equal for equal shapes, and the same for ever.
pub fn fingerprint(shape: &str) -> u64 {
    crate::key::stable_hash(&shape.to_string())
}
