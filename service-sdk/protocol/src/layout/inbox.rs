//! The messages of a service, with their layouts.

use std::fmt;

use super::parse::{self, ParseError};
use super::path::Step;
use super::to_bytes::{self, Unfit, UnfitProblem};
use super::to_json::{Reader, Unreadable};
use super::{Asks, Fields, Type, example};
use crate::limits::{MAX_LAYOUT, MAX_LAYOUTS};
use crate::manifest::{Contract, Manifest, fnv1a};

/// What a service's inbox takes.
#[derive(Debug, Clone)]
pub struct Inbox {
    contract: Contract,
    messages: Vec<Result<Message, NoLayout>>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub name: String,
    /// What it holds, without its reply.
    pub fields: Fields,
    /// How often it may be asked, and the type of the answer; `None`: it is told.
    pub reply: Option<(Asks, Type)>,
}

/// Why the layout of a message is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLayout {
    /// The program is of an SDK that said nothing of it.
    #[error("its program was built with an SDK that does not tell what lies in a message")]
    Untold,
    /// It is longer than is carried.
    #[error(
        "what lies in it takes more text than is told: {MAX_LAYOUT} bytes a message, {MAX_LAYOUTS} in all"
    )]
    Long,
    /// It is none.
    #[error("what its program tells of it can't be read")]
    Unreadable(#[source] ParseError),
    /// Its hash is another one.
    #[error("its program tells of another message than its contract names")]
    Another,
}

/// A message in bytes, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// The contract up to and with it: a receiver that it fits reads these bytes so.
    pub contract: Contract,
    /// How it is asked; `None`: it is told.
    pub asks: Option<Asks>,
}

/// Why there is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// The JSON is no message of this inbox.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It is one whose layout is not known.
    #[error("`{name}` can't be written")]
    NoLayout {
        /// The message.
        name: String,
        /// Why not.
        source: NoLayout,
    },
}

impl Inbox {
    /// What this service said of its inbox.
    pub fn of(manifest: &Manifest) -> Self {
        // An honest SDK tells no more; a tree is many times its text.
        let mut left = MAX_LAYOUTS;
        let mut layout = |at: usize| match manifest.layouts.get(at) {
            None => Err(NoLayout::Untold),
            Some(None) => Err(NoLayout::Long),
            Some(Some(text)) => {
                left = left.checked_sub(text.len()).ok_or(NoLayout::Long)?;
                Ok(text)
            }
        };
        let shapes = manifest.contract.0.iter().enumerate();
        let messages = shapes.map(|(at, shape)| {
            let text = layout(at)?;
            if fnv1a(text.as_bytes()) != shape.hash {
                return Err(NoLayout::Another);
            }
            Message::parse(&shape.name, text).map_err(NoLayout::Unreadable)
        });
        Self { messages: messages.collect(), contract: manifest.contract.clone() }
    }

    /// Its messages by name and hash.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Each message's name, with its layout or why there is none.
    pub fn messages(&self) -> impl Iterator<Item = (&str, Result<&Message, &NoLayout>)> {
        self.contract.0.iter().map(|shape| shape.name.as_str()).zip(self.messages.iter().map(Result::as_ref))
    }

    /// The message of a number, from 0.
    pub fn message(&self, at: usize) -> Option<Result<&Message, &NoLayout>> {
        self.messages.get(at).map(Result::as_ref)
    }

    /// The message of a name.
    pub fn named(&self, name: &str) -> Option<Result<&Message, &NoLayout>> {
        self.messages().find(|(known, _)| *known == name).map(|(_, message)| message)
    }

    /// The message that this JSON is: `{"Add": {"n": 1}}`, as serde writes an enum.
    ///
    /// # Errors
    /// [`Unsent`] says where it is none and what was expected.
    pub fn encode(&self, json: &str) -> Result<Encoded, Unsent> {
        let names = || self.contract.0.iter().map(|shape| shape.name.clone());
        let raw = to_bytes::parse(json)?;
        let expected = || format!("a message: {}", names().collect::<Vec<_>>().join(", "));
        let (name, held) = to_bytes::chosen(raw, &expected)?;
        let Some(at) = self.contract.0.iter().position(|shape| shape.name == name) else {
            let known = names().collect();
            return Err(Unfit::new(UnfitProblem::Unknown { what: "message", found: name, known }).into());
        };
        let message = match &self.messages[at] {
            Ok(message) => message,
            Err(source) => return Err(Unsent::NoLayout { name, source: source.clone() }),
        };
        let mut payload = Vec::new();
        to_bytes::append(
            &u32::try_from(at).expect("a contract has at most MAX_CONTRACT messages"),
            &mut payload,
        );
        to_bytes::fields(&message.fields, held, &mut payload)
            .map_err(|unfit| unfit.at(Step::Name(name.clone())))?;
        let contract = Contract(self.contract.0[..=at].to_vec());
        let asks = message.reply.as_ref().map(|(asks, _)| *asks);
        Ok(Encoded { name, payload, contract, asks })
    }

    /// The JSON of a message in bytes; `None` where the layout of that message is not known.
    ///
    /// # Errors
    /// [`Unreadable`] when they are no message of this inbox.
    pub fn decode(&self, payload: &[u8]) -> Result<Result<String, &NoLayout>, Unreadable> {
        let mut reader = Reader::new(payload);
        let at = reader.number("message", self.messages.len())?;
        match &self.messages[at] {
            Ok(message) => {
                reader.variant(&message.name, &message.fields)?;
                reader.end().map(Ok)
            }
            Err(none) => Ok(Err(none)),
        }
    }
}

impl Message {
    fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let (fields, reply) = parse::message(text)?;
        Ok(Self { name: name.to_owned(), fields, reply })
    }

    /// One of it in JSON.
    pub fn example(&self) -> String {
        let mut out = String::new();
        example::variant(&self.name, &self.fields, &mut out);
        out
    }

    /// The JSON of an answer in bytes.
    ///
    /// # Errors
    /// [`Unreadable`] when they are none.
    pub fn decode_reply(&self, bytes: &[u8]) -> Result<String, Unreadable> {
        let mut reader = Reader::new(bytes);
        if let Some((_, ty)) = &self.reply {
            reader.value(ty)?;
        }
        reader.end()
    }
}

impl fmt::Display for Message {
    /// `Add { n: u32 }`, `Total -> u64`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.name, self.fields)?;
        match &self.reply {
            Some((_, reply)) => write!(out, " -> {reply}"),
            None => Ok(()),
        }
    }
}
