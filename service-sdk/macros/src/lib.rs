//! `derive(Message)` and `derive(Payload)`: from Rust types to what goes over a lane.
//!
//! Both reach all they need through the SDK, so that a contract crate depends on the SDK alone. What is
//! derived only names types and calls functions of the SDK: layout, bytes and hashes are decided there.

mod message;
mod payload;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes an enum the contract of an inbox; the SDK's trait `Message` says how.
#[proc_macro_derive(Message, attributes(message))]
pub fn message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message::derive(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Makes a struct or enum one that fields and replies of a message can have.
#[proc_macro_derive(Payload, attributes(serde))]
pub fn payload(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    payload::derive(input).unwrap_or_else(|error| error.into_compile_error()).into()
}
