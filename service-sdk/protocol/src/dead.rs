//! Dead letters: messages at whose head a receiver died three times running, as they are kept and shown.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, MessageId, ServiceName};

/// What is known of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The message. As text where people read: it is what they type.
    #[serde(with = "typed_id")]
    pub id: MessageId,
    /// Whose processes died.
    pub receiver: ServiceName,
    /// Who sent it.
    pub sender: ServiceName,
    /// Which message of the sender's contract it is; `None`: none of it.
    pub message: Option<String>,
    /// It was asked, and not told.
    pub asked: bool,
    /// Bytes of its payload.
    pub size: u64,
    /// When it was moved: wall clock, microseconds since 1970, UTC.
    pub moved_us: u64,
    /// The deaths, oldest first.
    pub deaths: Vec<DeathRecord>,
}

/// One death with the message in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeathRecord {
    /// Which process.
    pub incarnation: Incarnation,
    /// Why, in words.
    pub cause: String,
}

/// One with its payload: all that is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeDeadLetter {
    /// What is known of it.
    pub letter: DeadLetter,
    /// As its sender wrote it.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

mod typed_id {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::MessageId;

    pub(super) fn serialize<S: Serializer>(id: &MessageId, out: S) -> Result<S::Ok, S::Error> {
        if out.is_human_readable() { out.collect_str(id) } else { id.serialize(out) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MessageId, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(D::Error::custom)
        } else {
            MessageId::deserialize(from)
        }
    }
}
