//! Shapes: what the bytes of a type depend on, as text, and its fingerprint.

use super::State;

/// Gathers the shape of a type.
#[derive(Debug, Default)]
pub struct Shape {
    text: String,
}

impl Shape {
    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.text.push_str(text);
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

macro_rules! plain {
    ($($t:ty => $name:literal),* $(,)?) => { $(
        impl State for $t {
            fn shape(out: &mut Shape) {
                out.text($name);
            }
        }
    )* };
}

plain! {
    u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128", usize => "usize",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128", isize => "isize",
    f32 => "f32", f64 => "f64", bool => "bool", char => "char", () => "()", String => "string",
}

impl<T: State> State for Option<T> {
    fn shape(out: &mut Shape) {
        out.text("option ");
        out.part::<T>();
    }
}

impl<T: State> State for Vec<T> {
    fn shape(out: &mut Shape) {
        out.text("[");
        out.part::<T>();
        out.text("]");
    }
}

impl<T: State> State for Box<T> {
    fn shape(out: &mut Shape) {
        out.part::<T>();
    }
}

impl<A: State> State for (A,) {
    fn shape(out: &mut Shape) {
        out.text("(");
        out.part::<A>();
        out.text(",)");
    }
}

impl<A: State, B: State> State for (A, B) {
    fn shape(out: &mut Shape) {
        out.text("(");
        out.part::<A>();
        out.text(", ");
        out.part::<B>();
        out.text(")");
    }
}
