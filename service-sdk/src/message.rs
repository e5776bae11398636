//! [`Message`]: what an inbox takes.

use postcard_schema::Schema;
use postcard_schema::schema::NamedType;
use serde::Serialize;
use serde::de::DeserializeOwned;
pub use watchdog_protocol::layout::Asks;
use watchdog_protocol::limits::{MAX_LAYOUT, MAX_LAYOUTS};
use watchdog_protocol::manifest::{Contract, MessageShape, fnv1a};

use crate::layout;
use crate::reply::ReplyPort;

/// What a service's inbox takes: an enum with one variant a message, by `#[derive(Message)]`.
///
/// ```
/// use watchdog_service::{Message, Reply};
///
/// /// What other services may say to a counter.
/// #[derive(Message)]
/// pub enum CounterMsg {
///     /// Adds `n`.
///     Add { n: u32 },
///     /// What all of them come to.
///     Total { reply: Reply<u64> },
/// }
/// ```
/// - A variant with a field of type [`Reply`](crate::Reply) is asked and answered, any other is told.
/// - The order of variants is the contract: it grows at its end, and nothing of it changes. A sender may talk
///   when its list is a prefix of the receiver's, fields and replies included. Doc comments are free.
/// - Fields and replies are of types with serde and a postcard schema: numbers, strings, options, tuples,
///   lists, maps, and one's own by `#[derive(Payload)]`. No type may contain itself.
/// - `#[message(idempotent)]` on the enum says that handling an ask twice does no harm: an ask whose receiver
///   dies is then delivered again, where it would else fail.
///
/// `()` is the inbox that takes nothing.
pub trait Message: Sized + Send + 'static {
    /// What becomes of an ask that was taken when its receiver dies.
    #[doc(hidden)]
    const ASKS: Asks = Asks::Once;

    /// The ordered messages.
    #[doc(hidden)]
    fn messages() -> Vec<Told>;

    /// Them by name and hash.
    #[doc(hidden)]
    fn contract() -> Contract {
        Contract(Self::messages().into_iter().map(Told::shape).collect())
    }

    /// Appends the message in postcard, without its reply.
    #[doc(hidden)]
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Whether this variant has a reply.
    #[doc(hidden)]
    fn expects_reply(&self) -> bool;

    /// The message of exactly these bytes. A `reply` that is not used says that it was dropped.
    #[doc(hidden)]
    fn decode(payload: &[u8], reply: Option<ReplyPort>) -> Result<Self, DecodeError>;
}

/// What a field or a reply can be: what serde and a postcard schema know of.
///
/// A list of elements without bytes is none, though they know of it: a few bytes of it are a list without end.
/// ```compile_fail,E0080
/// #[derive(watchdog_service::Message)]
/// enum BombMsg {
///     Put { units: Vec<()> },
/// }
/// ```
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a field or a reply of a message",
    label = "not known in bytes",
    note = "`#[derive(watchdog_service::Payload)]` on `{Self}` makes it one"
)]
pub trait Carried: Sized {
    /// Its layout, once it is known to be bounded.
    const LAYOUT: &'static NamedType;
    /// Appends its bytes.
    fn append(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;
    /// Takes it from the start of `rest`.
    fn take(rest: &mut &[u8]) -> Result<Self, DecodeError>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Schema> Carried for T {
    const LAYOUT: &'static NamedType = layout::checked(Self::SCHEMA);

    fn append(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        append(self, out)
    }

    fn take(rest: &mut &[u8]) -> Result<Self, DecodeError> {
        take(rest)
    }
}

fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    postcard::to_io(value, out).map(drop).map_err(EncodeError::Postcard)
}

fn take<T: DeserializeOwned>(rest: &mut &[u8]) -> Result<T, DecodeError> {
    let (value, behind) = postcard::take_from_bytes(rest).map_err(DecodeError::Postcard)?;
    *rest = behind;
    Ok(value)
}

/// A message that can't be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A field's own serde code refuses, or writes what postcard has no form for.
    #[error("the message can't be written")]
    Postcard(#[source] postcard::Error),
}

/// Bytes that are not the message they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They end in the middle, or hold what a field can't.
    #[error("the bytes are no message of this contract")]
    Postcard(#[source] postcard::Error),
    /// A message beyond the contract's end.
    #[error("message {found} of a contract of {known}")]
    Variant {
        /// The number found, from 0.
        found: u32,
        /// How many there are.
        known: u32,
    },
    /// Bytes behind the message.
    #[error("{extra} bytes behind the message")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Asked where it is told, or told where it is asked.
    #[error("message {found} came {}", if *.asked { "with a reply it does not take" } else { "without the reply it takes" })]
    Reply {
        /// Its number, from 0.
        found: u32,
        /// It came as an ask.
        asked: bool,
    },
}

impl Message for () {
    fn messages() -> Vec<Told> {
        Vec::new()
    }

    /// Nobody gets a `()` across: its contract has no message, and what is told to it is no `()`.
    fn encode(&self, _: &mut Vec<u8>) -> Result<(), EncodeError> {
        Err(EncodeError::Postcard(postcard::Error::WontImplement))
    }

    fn expects_reply(&self) -> bool {
        false
    }

    fn decode(payload: &[u8], _: Option<ReplyPort>) -> Result<Self, DecodeError> {
        Err(Reader::new(payload)?.unknown(0))
    }
}

/// Writes one message: what the derive calls.
#[doc(hidden)]
#[derive(Debug)]
pub struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// Starts with the variant's number.
    pub fn new(out: &'a mut Vec<u8>, variant: u32) -> Result<Self, EncodeError> {
        let mut writer = Self(out);
        writer.field(&variant)?;
        Ok(writer)
    }

    /// Appends a field.
    pub fn field<T: Carried>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.append(self.0)
    }

    /// Appends bytes in one go; the same bytes [`field`](Self::field) writes one by one.
    pub fn bytes(&mut self, value: &[u8]) -> Result<(), EncodeError> {
        append(serde_bytes::Bytes::new(value), self.0)
    }
}

/// Reads one message: what the derive calls.
#[doc(hidden)]
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    variant: u32,
}

impl<'a> Reader<'a> {
    /// Starts with the variant's number.
    pub fn new(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Self { rest: payload, variant: 0 };
        reader.variant = reader.field()?;
        Ok(reader)
    }

    /// The variant's number.
    pub fn variant(&self) -> u32 {
        self.variant
    }

    /// Takes a field.
    pub fn field<T: Carried>(&mut self) -> Result<T, DecodeError> {
        T::take(&mut self.rest)
    }

    /// Takes bytes in one go.
    pub fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        take(&mut self.rest).map(serde_bytes::ByteBuf::into_vec)
    }

    /// For a variant beyond the last of `known`.
    pub fn unknown(&self, known: u32) -> DecodeError {
        DecodeError::Variant { found: self.variant, known }
    }

    /// After the last field of a variant that is told.
    pub fn told(self, reply: Option<&ReplyPort>) -> Result<(), DecodeError> {
        self.end()?;
        if reply.is_some() { Err(DecodeError::Reply { found: self.variant, asked: true }) } else { Ok(()) }
    }

    /// After the last field of a variant that is asked.
    pub fn asked(self, reply: Option<ReplyPort>) -> Result<ReplyPort, DecodeError> {
        self.end()?;
        reply.ok_or(DecodeError::Reply { found: self.variant, asked: false })
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { extra: self.rest.len() }) }
    }
}

/// One variant, as the contract and the manifest tell of it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Told {
    name: &'static str,
    layout: String,
}

impl Told {
    /// What the derive calls.
    pub fn of(
        name: &'static str,
        asks: Asks,
        fields: &[(&str, &'static NamedType)],
        reply: Option<&'static NamedType>,
    ) -> Self {
        let mut text = String::new();
        for (field, ty) in fields {
            text.push_str(field);
            text.push(':');
            layout::describe(ty, &mut text);
            text.push(',');
        }
        if let Some(ty) = reply {
            // Both sides must agree whether an ask outlives its receiver.
            text.push_str(match asks {
                Asks::Once => "->",
                Asks::UntilAnswered => "=>",
            });
            layout::describe(ty, &mut text);
        }
        Self { name, layout: text }
    }

    fn shape(self) -> MessageShape {
        MessageShape { name: self.name.to_owned(), hash: fnv1a(self.layout.as_bytes()) }
    }
}

/// The layouts of a contract, as the manifest carries them: without those that are too long.
pub(crate) fn layouts<M: Message>() -> Vec<Option<String>> {
    let mut left = MAX_LAYOUTS;
    let carried = |told: Told| {
        let length = told.layout.len();
        let fits = length <= MAX_LAYOUT && length <= left;
        left -= if fits { length } else { 0 };
        fits.then_some(told.layout)
    };
    M::messages().into_iter().map(carried).collect()
}
