//! From the item to what it becomes.

use crate::fields;
use crate::options::Options;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Error, Fields, GenericParam, Generics, Ident, Item, Path, Result, Type, parse_quote};

/// What the attribute makes of an item.
pub fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = Options::parse(options)?;
    let mut item: Item = syn::parse2(item)?;
    let made = match &mut item {
        Item::Struct(s) => {
            let (kept_as, recursive) = prepare(&mut s.fields, &s.ident)?;
            let shape = fields::shape(&s.fields, &kept_as, &options.pelton);
            Made::of("struct", &s.ident, &s.generics, shape, recursive)
        }
        Item::Enum(e) => {
            let mut recursive = false;
            let mut shape = quote! { out.text(" { "); };
            for (index, variant) in e.variants.iter_mut().enumerate() {
                let (kept_as, one) = prepare(&mut variant.fields, &e.ident)?;
                recursive |= one;
                let comma = if index > 0 { ", " } else { "" };
                let name = format!("{comma}{}", fields::plain(&variant.ident));
                shape.extend(quote! { out.text(#name); });
                shape.extend(fields::shape(&variant.fields, &kept_as, &options.pelton));
                if let Some((_, number)) = &variant.discriminant {
                    let number = format!(" = {}", number.to_token_stream());
                    shape.extend(quote! { out.text(#number); });
                }
            }
            shape.extend(quote! { out.text(" }"); });
            Made::of("enum", &e.ident, &e.generics, shape, recursive)
        }
        other => {
            return Err(Error::new_spanned(
                other,
                "only a struct or an enum can be a state: of a union nobody knows which field is kept",
            ));
        }
    };
    made.refuse_lifetimes()?;
    let attributes = made.attributes(&options.pelton);
    let state = made.state(&options);
    Ok(quote! { #attributes #item #state })
}

/// Takes our own attributes off the fields, and looks at their types.
fn prepare(fields: &mut Fields, name: &Ident) -> Result<(Vec<Option<Type>>, bool)> {
    let kept_as = fields::take_kept_as(fields)?;
    let recursive = fields::check(fields, name, &kept_as)?;
    Ok((kept_as, recursive))
}

/// An item that has been looked through.
struct Made {
    kind: &'static str,
    name: Ident,
    generics: Generics,
    /// Statements that write the fields or variants to `out`.
    shape: TokenStream,
    /// Whether it contains itself.
    recursive: bool,
}

impl Made {
    fn of(
        kind: &'static str,
        name: &Ident,
        generics: &Generics,
        shape: TokenStream,
        recursive: bool,
    ) -> Self {
        Made {
            kind,
            name: name.clone(),
            generics: generics.clone(),
            shape,
            recursive,
        }
    }

    fn refuse_lifetimes(&self) -> Result<()> {
        match self.generics.lifetimes().next() {
            None => Ok(()),
            Some(lifetime) => Err(Error::new_spanned(
                lifetime,
                "a state owns what it keeps, since it is loaded by another process: it has no lifetimes",
            )),
        }
    }

    /// rkyv's derives.
    fn attributes(&self, pelton: &Path) -> TokenStream {
        let bounds = self.recursive.then(|| {
            quote! { #[rkyv(
                serialize_bounds(
                    __S: #pelton::rkyv::ser::Writer + #pelton::rkyv::ser::Allocator,
                    __S::Error: #pelton::rkyv::rancor::Source
                ),
                deserialize_bounds(__D::Error: #pelton::rkyv::rancor::Source),
                bytecheck(bounds(
                    __C: #pelton::rkyv::validation::ArchiveContext,
                    __C::Error: #pelton::rkyv::rancor::Source
                ))
            )] }
        });
        quote! {
            #[derive(#pelton::rkyv::Archive, #pelton::rkyv::Serialize, #pelton::rkyv::Deserialize)]
            #[rkyv(crate = #pelton::rkyv)]
            #bounds
        }
    }

    /// The implementation of `State`.
    fn state(&self, options: &Options) -> TokenStream {
        let pelton = &options.pelton;
        let mut generics = self.generics.clone();
        let bounds = generics.make_where_clause();
        for parameter in self.generics.type_params() {
            let name = &parameter.ident;
            bounds.predicates.push(parse_quote!(#name: #pelton::State));
        }
        let (before, arguments, bounds) = generics.split_for_impl();
        let (ident, shape) = (&self.name, &self.shape);
        let name = options.name.clone().unwrap_or_else(|| fields::plain(ident));
        let (begin, version) = (format!("{} ", self.kind), format!(" v{}", options.version));
        let parameters = self.parameters(pelton);
        let migrate = options.migrate.as_ref().map(|path| {
            quote! {
                fn migrate(stored: &str) -> ::core::option::Option<#pelton::state::Migrate<Self>> {
                    #pelton::state::migrated(#path, stored)
                }
            }
        });
        quote! {
            #[automatically_derived]
            impl #before #pelton::State for #ident #arguments #bounds {
                fn shape(out: &mut #pelton::state::Shape) {
                    out.named::<Self>(#name, |out| {
                        out.text(#begin);
                        out.text(#name);
                        #parameters
                        out.text(#version);
                        #shape
                    });
                }
                #migrate
            }
        }
    }

    /// Statements that write `<u64, string>`.
    fn parameters(&self, pelton: &Path) -> TokenStream {
        let mut writes = TokenStream::new();
        for parameter in &self.generics.params {
            let before = if writes.is_empty() { "<" } else { ", " };
            match parameter {
                GenericParam::Type(ty) => {
                    let ty = &ty.ident;
                    writes
                        .extend(quote! { out.text(#before); <#ty as #pelton::State>::shape(out); });
                }
                GenericParam::Const(constant) => {
                    let constant = &constant.ident;
                    writes.extend(quote! {
                        out.text(#before);
                        out.text(&::std::string::ToString::to_string(&#constant));
                    });
                }
                GenericParam::Lifetime(_) => {}
            }
        }
        if !writes.is_empty() {
            writes.extend(quote! { out.text(">"); });
        }
        writes
    }
}
