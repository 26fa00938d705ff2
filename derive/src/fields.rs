//! Fields: their shapes, and what their types may not be.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Error, Field, Fields, GenericArgument, Ident, Path, PathArguments};
use syn::{Result, Type, parse_quote};

/// Statements that write the fields' part of the shape to `out`: ` { n: u64, best: option string }`, `(i64)` or nothing.
pub fn shape(fields: &Fields, kept_as: &[Option<Type>], pelton: &Path) -> TokenStream {
    let (open, close) = match fields {
        Fields::Named(_) => (" { ", " }"),
        Fields::Unnamed(_) => ("(", ")"),
        Fields::Unit => return TokenStream::new(),
    };
    let mut writes = quote! { out.text(#open); };
    for (index, (field, kept_as)) in fields.iter().zip(kept_as).enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let before = match &field.ident {
            Some(name) => format!("{comma}{}: ", plain(name)),
            None => comma.to_string(),
        };
        let ty = kept_as.as_ref().unwrap_or(&field.ty);
        writes.extend(quote! {
            out.text(#before);
            <#ty as #pelton::State>::shape(out);
        });
    }
    writes.extend(quote! { out.text(#close); });
    writes
}

/// A name without `r#`.
pub fn plain(name: &Ident) -> String {
    let name = name.to_string();
    name.strip_prefix("r#").map(str::to_string).unwrap_or(name)
}

/// Takes `#[state(kept_as = ..)]` off each field, and gives the types that it names.
pub fn take_kept_as(fields: &mut Fields) -> Result<Vec<Option<Type>>> {
    fields.iter_mut().map(take_one).collect()
}

fn take_one(field: &mut Field) -> Result<Option<Type>> {
    let mut kept_as = None;
    let mut with = false;
    let mut rest = Vec::with_capacity(field.attrs.len());
    for attribute in field.attrs.drain(..) {
        if attribute.path().is_ident("state") {
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("kept_as") {
                    return Err(meta.error("the option of a field is kept_as"));
                }
                kept_as = Some(meta.value()?.parse()?);
                Ok(())
            })?;
        } else {
            // rkyv keeps the field as something else than its type.
            with |= says(&attribute, "with");
            rest.push(attribute);
        }
    }
    field.attrs = rest;
    if with && kept_as.is_none() {
        return Err(Error::new_spanned(
            &field.ty,
            "kept in a way of its own: say whose shape its bytes have by #[state(kept_as = Type)]",
        ));
    }
    Ok(kept_as)
}

/// Whether an `#[rkyv(..)]` has this word.
fn says(attribute: &Attribute, word: &str) -> bool {
    if !attribute.path().is_ident("rkyv") {
        return false;
    }
    let tokens = attribute.meta.to_token_stream().into_iter();
    tokens
        .filter_map(|token| match token {
            proc_macro2::TokenTree::Group(group) => Some(group.stream()),
            _ => None,
        })
        .flatten()
        .any(|token| token.to_string() == word)
}

/// Refuses what can be written but not loaded again, and marks the fields whose types mention the type itself, so that
/// rkyv does not ask for their bounds without end. Gives whether there are any; where types contain each other, the user
/// has marked them.
pub fn check(fields: &mut Fields, name: &Ident, kept_as: &[Option<Type>]) -> Result<bool> {
    let mut recursive = false;
    for (field, kept_as) in fields.iter_mut().zip(kept_as) {
        let ty = kept_as.as_ref().unwrap_or(&field.ty);
        let mentioned = mentions(ty, name)?;
        if field.attrs.iter().any(|a| says(a, "omit_bounds")) {
            recursive = true;
        } else if mentioned {
            recursive = true;
            field.attrs.push(parse_quote!(#[rkyv(omit_bounds)]));
        }
    }
    Ok(recursive)
}

fn mentions(ty: &Type, name: &Ident) -> Result<bool> {
    match ty {
        Type::Reference(_) | Type::Ptr(_) => Err(Error::new_spanned(
            ty,
            "a state owns what it keeps, since it is loaded by another process: not &str but String, not &T but T",
        )),
        Type::Array(array) => mentions(&array.elem, name),
        Type::Slice(slice) => mentions(&slice.elem, name),
        Type::Paren(inner) => mentions(&inner.elem, name),
        Type::Group(inner) => mentions(&inner.elem, name),
        Type::Tuple(tuple) => any(tuple.elems.iter().map(|ty| mentions(ty, name))),
        Type::Path(path) => in_path(&path.path, name),
        _ => Ok(false),
    }
}

fn in_path(path: &Path, name: &Ident) -> Result<bool> {
    let Some(last) = path.segments.last() else {
        return Ok(false);
    };
    // It keeps nothing, whatever it speaks of.
    if last.ident == "PhantomData" {
        return Ok(false);
    }
    let itself = path.segments.len() == 1 && (last.ident == *name || last.ident == "Self");
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return Ok(itself);
    };
    let inside = any(arguments.args.iter().map(|argument| match argument {
        GenericArgument::Type(ty) => mentions(ty, name),
        _ => Ok(false),
    }))?;
    Ok(itself || inside)
}

fn any(found: impl Iterator<Item = Result<bool>>) -> Result<bool> {
    let mut one = false;
    for each in found {
        one |= each?;
    }
    Ok(one)
}
