//! The layout of messages: what lies in their bytes, by name and order. It makes JSON of a message and a message of
//! JSON without the program that knows the type.
//!
//! ```text
//! derive(Message) ─► text ─► Contract: its hash          Manifest: the text itself
//!                                                              │ parse
//!              JSON ─► to_bytes ─► postcard ◄─ to_json ─ Type ◄─┘─► difference, example
//! ```
//! The text is the one a contract's hash is taken of, so that a layout that is not what it says shows. Texts come from
//! programs, which may be broken or hostile: every bound here is checked before memory is taken, and nothing panics.
//!
//! The crate postcard-dyn is near to it, over the schema crate's own form: it panics at a `char` and says of no error
//! where it is.
//!
//! JSON is what serde writes for the same type. Where JSON has no form, a map whose keys are no plain values, it is a
//! list of pairs.

mod difference;
mod example;
mod inbox;
mod parse;
mod path;
mod to_bytes;
mod to_json;

#[cfg(test)]
mod tests;

pub use difference::{Change, Difference, difference};
pub use inbox::{Encoded, Inbox, Message, NoLayout, Unsent};
pub use parse::ParseError;
pub use path::{Path, Step};
pub use to_bytes::{Unfit, UnfitProblem};
pub use to_json::Unreadable;

use serde::{Deserialize, Serialize};

/// How often an ask may be handed to a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asks {
    /// At most once.
    Once,
    /// Until one process has answered.
    UntilAnswered,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int(Int),
    /// A number of 32 bits.
    F32,
    /// A number of 64 bits.
    F64,
    /// One character.
    Char,
    /// Text.
    String,
    /// Bytes in one go; the same on the wire as a list of `u8`.
    Bytes,
    /// `()`.
    Unit,
    /// A value or none.
    Option(Box<Type>),
    /// Any number of one type.
    Seq(Box<Type>),
    /// Any number of keys, each with a value.
    Map(Box<(Type, Type)>),
    /// One of each.
    Tuple(Vec<Type>),
    /// A type of the program.
    Struct {
        /// Its name.
        name: String,
        /// What it holds.
        fields: Fields,
    },
    /// One of several.
    Enum {
        /// Its name.
        name: String,
        /// By number.
        variants: Vec<Variant>,
    },
}

/// What a struct or variant holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    /// Nothing.
    None,
    /// Values by their place; a single one stands for the whole.
    Positional(Vec<Type>),
    /// Values by name, in this order.
    Named(Vec<Field>),
}

/// A value with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it is.
    pub ty: Type,
}

/// One of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub fields: Fields,
}

macro_rules! ints {
    ($($variant:ident $ty:ident),* $(,)?) => {
        /// A whole number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Int {
            $(#[doc = concat!("`", stringify!($ty), "`.")] $variant,)*
        }

        impl Int {
            /// As the text writes it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($ty),)* }
            }

            fn named(name: &str) -> Option<Self> {
                match name { $(stringify!($ty) => Some(Self::$variant),)* _ => None }
            }

            /// Its smallest and largest value.
            fn range(self) -> (String, String) {
                match self { $(Self::$variant => ($ty::MIN.to_string(), $ty::MAX.to_string()),)* }
            }

            /// Appends the number that these digits are; `None`: it is none of this type.
            fn append(self, digits: &str, out: &mut Vec<u8>) -> Option<()> {
                match self { $(Self::$variant => to_bytes::append(&digits.parse::<$ty>().ok()?, out),)* }
                Some(())
            }

            /// Takes one from the start of `rest`, as digits.
            fn take(self, rest: &mut &[u8]) -> postcard::Result<String> {
                match self { $(Self::$variant => Ok(to_json::take::<$ty>(rest)?.to_string()),)* }
            }
        }
    };
}
ints!(
    I8 i8, I16 i16, I32 i32, I64 i64, I128 i128, Isize isize,
    U8 u8, U16 u16, U32 u32, U64 u64, U128 u128, Usize usize,
);
