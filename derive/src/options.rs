//! What stands in the attribute's brackets.

use proc_macro2::{Span, TokenStream};
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{Error, LitInt, LitStr, Path, Result, parse_quote};

/// The options of `#[pelton::state(..)]`.
pub struct Options {
    pub version: u32,
    pub migrate: Option<Path>,
    pub name: Option<String>,
    /// Where `pelton` is.
    pub pelton: Path,
}

impl Options {
    pub fn parse(tokens: TokenStream) -> Result<Self> {
        let mut version = None;
        let mut options = Options {
            version: 0,
            migrate: None,
            name: None,
            pelton: parse_quote!(::pelton),
        };
        let read = syn::meta::parser(|meta| options.option(&meta, &mut version));
        read.parse2(tokens)?;
        options.version = version.ok_or_else(|| {
            Error::new(
                Span::call_site(),
                "a state has a version: #[pelton::state(version = 1)]",
            )
        })?;
        Ok(options)
    }

    fn option(&mut self, meta: &ParseNestedMeta<'_>, version: &mut Option<u32>) -> Result<()> {
        if meta.path.is_ident("version") {
            *version = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?);
        } else if meta.path.is_ident("migrate") {
            self.migrate = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("name") {
            self.name = Some(meta.value()?.parse::<LitStr>()?.value());
        } else if meta.path.is_ident("crate") {
            self.pelton = meta.value()?.call(Path::parse_mod_style)?;
        } else {
            return Err(meta.error("the options are version, migrate, name and crate"));
        }
        Ok(())
    }
}
