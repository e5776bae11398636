//! In the making.
#![warn(missing_docs)]

mod layout;
mod message;
mod reply;

pub use message::{DecodeError, EncodeError, Message};
pub use reply::Reply;
pub use watchdog_macros::{Message, Payload};
pub use watchdog_protocol::{Incarnation, MessageId, Revision, Sequence, ServiceName};

/// What derived code reaches; no part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::layout::checked;
    pub use crate::message::{Asks, Reader, Writer, shape};
    pub use crate::reply::ReplyPort;
    pub use postcard_schema::{self, Schema};
    pub use serde;
    pub use watchdog_protocol::Contract;
}
