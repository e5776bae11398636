//! `derive(Message)`.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, GenericArgument, PathArguments, Result, Type, Variant};

/// The SDK's bound of variants in one contract.
const MAX_VARIANTS: usize = 1024;

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a contract is an enum: one variant a message"));
    };
    if data.variants.is_empty() {
        let text = "a contract has at least one message; the inbox that takes none is of type `()`";
        return Err(Error::new_spanned(&input.ident, text));
    }
    if data.variants.len() > MAX_VARIANTS {
        let text = format!("a contract has at most {MAX_VARIANTS} messages");
        return Err(Error::new_spanned(&input.ident, text));
    }
    if !input.generics.params.is_empty() {
        let text = "a contract can't be generic: both sides must know its bytes";
        return Err(Error::new_spanned(&input.generics, text));
    }
    let asks = asks(input)?;
    let variants = data.variants.iter().map(Shape::of).collect::<Result<Vec<_>>>()?;

    let name = &input.ident;
    let known = number(variants.len());
    let shapes = variants.iter().map(|variant| variant.shape(&asks));
    let encode = variants.iter().enumerate().map(|(at, variant)| variant.encode(number(at)));
    let expects = variants.iter().map(Shape::expects_reply);
    let decode = variants.iter().enumerate().map(|(at, variant)| variant.decode(number(at)));
    let layouts = variants.iter().flat_map(Shape::types).map(layout);
    Ok(quote! {
        // At the type's definition, and not where a contract is first asked for.
        const _: () = { #(let _ = #layouts;)* };

        #[automatically_derived]
        impl ::watchdog_service::Message for #name {
            const ASKS: ::watchdog_service::__private::Asks = ::watchdog_service::__private::#asks;

            fn messages() -> ::std::vec::Vec<::watchdog_service::__private::Told> {
                ::std::vec![#(#shapes),*]
            }

            fn encode(
                &self,
                out: &mut ::std::vec::Vec<u8>,
            ) -> ::std::result::Result<(), ::watchdog_service::EncodeError> {
                match self { #(#encode)* }
                ::std::result::Result::Ok(())
            }

            fn expects_reply(&self) -> bool {
                match self { #(#expects)* }
            }

            fn decode(
                payload: &[u8],
                reply: ::std::option::Option<::watchdog_service::__private::ReplyPort>,
            ) -> ::std::result::Result<Self, ::watchdog_service::DecodeError> {
                let mut reader = ::watchdog_service::__private::Reader::new(payload)?;
                match reader.variant() {
                    #(#decode)*
                    _ => ::std::result::Result::Err(reader.unknown(#known)),
                }
            }
        }
    })
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("at most MAX_VARIANTS")
}

fn asks(input: &DeriveInput) -> Result<TokenStream> {
    let mut asks = quote!(Asks::Once);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("message")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("idempotent") {
                return Err(meta.error("the one word here is `idempotent`"));
            }
            asks = quote!(Asks::UntilAnswered);
            Ok(())
        })?;
    }
    if let Some(misplaced) = inner_attributes(input).next() {
        return Err(Error::new_spanned(
            misplaced,
            "`#[message(…)]` belongs on the enum: it is of all its asks",
        ));
    }
    Ok(asks)
}

fn inner_attributes(input: &DeriveInput) -> impl Iterator<Item = &syn::Attribute> {
    let variants = match &input.data {
        Data::Enum(data) => Some(data.variants.iter()),
        _ => None,
    };
    variants
        .into_iter()
        .flatten()
        .flat_map(|variant| variant.attrs.iter().chain(variant.fields.iter().flat_map(|field| &field.attrs)))
        .filter(|attribute| attribute.path().is_ident("message"))
}

/// What the derive knows of a variant.
struct Shape<'a> {
    variant: &'a Variant,
    fields: Vec<Role<'a>>,
}

/// What a field is for.
enum Role<'a> {
    /// Goes over the lane.
    Payload(&'a Type),
    /// Goes over the lane in one go.
    Bytes(&'a Type),
    /// Stays: what it carries is the type of the answer.
    Reply(&'a Type),
}

impl<'a> Shape<'a> {
    fn of(variant: &'a Variant) -> Result<Self> {
        if let Some((_, value)) = &variant.discriminant {
            let text = "a message is numbered by its place, a number of its own means nothing";
            return Err(Error::new_spanned(value, text));
        }
        let fields = variant.fields.iter().map(role).collect::<Result<Vec<_>>>()?;
        let mut replies =
            variant.fields.iter().zip(&fields).filter(|(_, role)| matches!(role, Role::Reply(_)));
        if let (Some(_), Some((second, _))) = (replies.next(), replies.next()) {
            return Err(Error::new_spanned(second, "a message is answered once: it has at most one `Reply`"));
        }
        Ok(Self { variant, fields })
    }

    fn name(&self) -> &Ident {
        &self.variant.ident
    }

    fn reply(&self) -> Option<&'a Type> {
        self.fields.iter().find_map(|role| match role {
            Role::Reply(answer) => Some(*answer),
            Role::Payload(_) | Role::Bytes(_) => None,
        })
    }

    /// All that goes over the lane, there and back.
    fn types(&self) -> impl Iterator<Item = &'a Type> {
        self.fields.iter().map(|role| match role {
            Role::Payload(ty) | Role::Bytes(ty) | Role::Reply(ty) => *ty,
        })
    }

    /// `{ n: field_0, … }`, with one expression or pattern a field; braces also name the fields of a tuple.
    fn braces(&self, values: impl Iterator<Item = TokenStream>) -> TokenStream {
        let members = self.variant.fields.members();
        quote!({ #(#members: #values),* })
    }

    fn shape(&self, asks: &TokenStream) -> TokenStream {
        let name = self.name().to_string();
        let fields =
            self.variant.fields.members().zip(&self.fields).filter_map(|(member, role)| match role {
                Role::Payload(ty) | Role::Bytes(ty) => {
                    let member = member.to_token_stream().to_string();
                    let member = member.trim_start_matches("r#");
                    let layout = layout(ty);
                    Some(quote!((#member, #layout)))
                }
                Role::Reply(_) => None,
            });
        let reply = match self.reply().map(layout) {
            Some(layout) => quote!(::std::option::Option::Some(#layout)),
            None => quote!(::std::option::Option::None),
        };
        quote! {
            ::watchdog_service::__private::Told::of(
                #name,
                ::watchdog_service::__private::#asks,
                &[#(#fields),*],
                #reply,
            )
        }
    }

    fn encode(&self, number: u32) -> TokenStream {
        let name = self.name();
        let binding = |at: usize| format_ident!("field_{at}");
        let pattern = self.braces(self.fields.iter().enumerate().map(|(at, role)| match role {
            Role::Payload(_) | Role::Bytes(_) => binding(at).into_token_stream(),
            Role::Reply(_) => quote!(_),
        }));
        let fields = self.fields.iter().enumerate().filter_map(|(at, role)| {
            let binding = binding(at);
            match role {
                Role::Payload(ty) => Some(quote!(writer.field::<#ty>(#binding)?;)),
                Role::Bytes(_) => Some(quote!(writer.bytes(#binding)?;)),
                Role::Reply(_) => None,
            }
        });
        // A variant without fields leaves the writer as it is.
        let writer = if self.fields.iter().all(|role| matches!(role, Role::Reply(_))) {
            quote!(::watchdog_service::__private::Writer::new(out, #number)?;)
        } else {
            quote!(let mut writer = ::watchdog_service::__private::Writer::new(out, #number)?;)
        };
        quote!(Self::#name #pattern => { #writer #(#fields)* })
    }

    fn expects_reply(&self) -> TokenStream {
        let name = self.name();
        let expects = self.reply().is_some();
        quote!(Self::#name { .. } => #expects,)
    }

    fn decode(&self, number: u32) -> TokenStream {
        let name = self.name();
        // Fields are taken in their order first; the reply only once all bytes are known to be good.
        let bindings = self.fields.iter().enumerate().filter_map(|(at, role)| {
            let binding = format_ident!("field_{at}");
            match role {
                Role::Payload(ty) => Some(quote!(let #binding = reader.field::<#ty>()?;)),
                Role::Bytes(_) => Some(quote!(let #binding = reader.bytes()?;)),
                Role::Reply(_) => None,
            }
        });
        let end = match self.reply() {
            Some(_) => quote!(let port = reader.asked(reply)?;),
            None => quote!(reader.told(reply.as_ref())?;),
        };
        let values = self.braces(self.fields.iter().enumerate().map(|(at, role)| match role {
            Role::Payload(_) | Role::Bytes(_) => format_ident!("field_{at}").into_token_stream(),
            Role::Reply(_) => quote!(::watchdog_service::Reply::arrived(port)),
        }));
        quote! {
            #number => {
                #(#bindings)*
                #end
                ::std::result::Result::Ok(Self::#name #values)
            }
        }
    }
}

/// The layout of a type, named at the type's own place so that a missing one is told there.
fn layout(ty: &Type) -> TokenStream {
    quote_spanned!(ty.span()=> <#ty as ::watchdog_service::__private::Carried>::LAYOUT)
}

fn role(field: &Field) -> Result<Role<'_>> {
    let nested =
        "a `Reply` inside another type can't be answered: it is a field by itself, `reply: Reply<T>`";
    if let Some((name, argument)) = last_segment(&field.ty) {
        if name == "Reply" {
            return match argument {
                Some(answer) if mentions_reply(answer) => Err(Error::new_spanned(answer, nested)),
                Some(answer) => Ok(Role::Reply(answer)),
                None => Err(Error::new_spanned(&field.ty, "a `Reply` says what it answers: `Reply<T>`")),
            };
        }
        let of_bytes = argument.and_then(last_segment).is_some_and(|(of, _)| of == "u8");
        if name == "Vec" && of_bytes {
            return Ok(Role::Bytes(&field.ty));
        }
    }
    if mentions_reply(&field.ty) {
        return Err(Error::new_spanned(&field.ty, nested));
    }
    Ok(Role::Payload(&field.ty))
}

/// The last name of a path, and its one type argument.
fn last_segment(ty: &Type) -> Option<(&Ident, Option<&Type>)> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let argument = match &last.arguments {
        PathArguments::AngleBracketed(list) if list.args.len() == 1 => match list.args.first() {
            Some(GenericArgument::Type(ty)) => Some(ty),
            _ => None,
        },
        _ => None,
    };
    Some((&last.ident, argument))
}

fn mentions_reply(ty: &Type) -> bool {
    mentions(ty.to_token_stream(), "Reply")
}

/// Whether a name is anywhere in a type.
pub(crate) fn mentions(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(found) => found == name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}
