//! `derive(Payload)`.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Error, Fields, Result, parse_quote};

use crate::message::mentions;

/// Serde's words that write different bytes for different values, which postcard can't read back: it has no
/// field names to go by.
const WITHOUT_NAMES: [&str; 9] = [
    "default",
    "flatten",
    "untagged",
    "tag",
    "content",
    "skip",
    "skip_serializing",
    "skip_serializing_if",
    "skip_deserializing",
];

/// A copy of the type that serde's and postcard's derives see, and from it the three traits of the type itself:
/// those derives need attributes on what they derive for, which a derive can't add to the user's item.
pub(crate) fn derive(mut input: DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "a payload can't be generic: both sides must know its bytes",
        ));
    }
    let text = input.ident.to_string();
    prepare(&mut input.attrs)?;
    match &mut input.data {
        Data::Struct(data) => prepare_fields(&mut data.fields, &text)?,
        Data::Enum(data) => {
            for variant in &mut data.variants {
                prepare(&mut variant.attrs)?;
                prepare_fields(&mut variant.fields, &text)?;
            }
        }
        Data::Union(_) => {
            return Err(Error::new_spanned(&input.ident, "a union does not say what it holds: use an enum"));
        }
    }
    let name = std::mem::replace(&mut input.ident, format_ident!("Copied"));
    input.vis = parse_quote!();
    Ok(quote! {
        const _: () = {
            #[derive(
                ::watchdog_service::__private::serde::Serialize,
                ::watchdog_service::__private::serde::Deserialize,
                ::watchdog_service::__private::Schema,
            )]
            #[serde(crate = "::watchdog_service::__private::serde", remote = #text)]
            // By itself: the schema's derive reads no attribute behind a word it does not know.
            #[serde(rename = #text)]
            #[postcard(crate = ::watchdog_service::__private::postcard_schema)]
            #[allow(dead_code)]
            #input

            #[automatically_derived]
            impl ::watchdog_service::__private::serde::Serialize for #name {
                fn serialize<S: ::watchdog_service::__private::serde::Serializer>(
                    &self,
                    out: S,
                ) -> ::std::result::Result<S::Ok, S::Error> {
                    Copied::serialize(self, out)
                }
            }

            #[automatically_derived]
            impl<'de> ::watchdog_service::__private::serde::Deserialize<'de> for #name {
                fn deserialize<D: ::watchdog_service::__private::serde::Deserializer<'de>>(
                    from: D,
                ) -> ::std::result::Result<Self, D::Error> {
                    Copied::deserialize(from)
                }
            }

            #[automatically_derived]
            impl ::watchdog_service::__private::Schema for #name {
                const SCHEMA: &'static ::watchdog_service::__private::postcard_schema::schema::NamedType =
                    <Copied as ::watchdog_service::__private::Schema>::SCHEMA;
            }
        };
    })
}

fn prepare_fields(fields: &mut Fields, of: &str) -> Result<()> {
    for field in fields {
        if mentions(field.ty.to_token_stream(), of) {
            let text = "a payload can't contain itself: nothing would bound how deep a receiver has to read";
            return Err(Error::new_spanned(&field.ty, text));
        }
        prepare(&mut field.attrs)?;
        field.vis = parse_quote!();
    }
    Ok(())
}

/// Keeps what the copied derives read, and refuses what would not come back from the bytes.
fn prepare(attributes: &mut Vec<Attribute>) -> Result<()> {
    attributes.retain(|attribute| attribute.path().is_ident("serde") || attribute.path().is_ident("cfg"));
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            let word = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            if WITHOUT_NAMES.contains(&word.as_str()) {
                return Err(
                    meta.error("a lane's bytes have no field names: a contract grows by messages at its end")
                );
            }
            // What follows the word is serde's to judge.
            if meta.input.peek(syn::Token![=]) {
                let _: syn::Expr = meta.value()?.parse()?;
            } else if meta.input.peek(syn::token::Paren) {
                let inside;
                syn::parenthesized!(inside in meta.input);
                let _: TokenStream = inside.parse()?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
