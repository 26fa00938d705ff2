//! `#[pelton::state(version = 1)]`: a struct or enum that can be kept in a checkpoint.
//!
//! Used through `pelton`, which re-exports it beside the trait that it implements; what it means is told there, with
//! examples. It adds rkyv's derives by way of `pelton::rkyv` and implements `pelton::State`, whose shape names the type,
//! its version, its parameters, and each field with the shape of its type.

#![forbid(unsafe_code)]

mod expand;
mod fields;
mod options;

/// Makes a struct or enum `pelton::State`. See `pelton::state` for examples.
///
/// | option | |
/// |---|---|
/// | `version = 1` | required; count it up when what the fields mean has changed |
/// | `migrate = path` | a function from what an older version wrote to this type |
/// | `name = "Visit"` | the name in the shape where it is not that of the type: of a copy of an older version |
/// | `crate = path` | where `pelton` is, if not at `::pelton` |
///
/// A field with `#[rkyv(with = ..)]` says by `#[state(kept_as = Type)]` whose shape its bytes have.
#[proc_macro_attribute]
pub fn state(
    options: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    expand::expand(options.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
