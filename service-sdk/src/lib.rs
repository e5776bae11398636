//! Everything a program links in order to be a service of the watchdog.
//!
//! One async function is a service. It is given a [`Context`], says that it is ready, and handles events until
//! there are no more:
//!
//! ```no_run
//! use watchdog_service::{Context, Event, Message, Reply, ServiceError};
//!
//! #[derive(Message)]
//! enum PingMsg {
//!     Ping { reply: Reply<()> },
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     watchdog_service::run(ping)
//! }
//!
//! async fn ping(mut ctx: Context<(), (), PingMsg>) -> Result<(), ServiceError> {
//!     ctx.ready().await?;
//!     while let Some(event) = ctx.next().await? {
//!         if let Event::Message(PingMsg::Ping { reply }) = event {
//!             reply.send(());
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! ```text
//! run ─ opening ─▶ Context ── settings() ─▶ SettingsReader ┐
//!                     │  ├─── state() ────▶ StateHandler   ├─ ledger ─ session ─▶ watchdog
//!                     │  ├─── ready() health() progress()  ┘           │ lanes, introduced
//!                     │  └─── intercom() ─▶ Intercom ──▶ lane to a peer ◀┤
//!                   next() ─▶ Event ◀─ inbox ◀────────── lanes of peers ◀┘
//! ```
//!
//! Invariants:
//! - One thread, one runtime: the service, its session and its lanes are tasks of it. A service that blocks it
//!   sends no heartbeat, which is the point of one. What it has to say is sent by a thread beside it, while there is a
//!   logging service: one that hangs is heard too.
//! - The session's socket belongs to one task. All others change a ledger of what is owed, and wait for levels of
//!   it.
//! - No queue here grows with time: what is owed to the watchdog is the newest state, the last verdict, the last
//!   health, and requests whose callers wait. Messages wait in their lanes, which are the kernel's, and bounded; records
//!   in one queue of a fixed size.
//!
//! Absent: files, configuration, the control socket, and any knowledge of other services but by introduction.
#![warn(missing_docs)]

// Derived code names this crate as its users do.
extern crate self as watchdog_service;

mod context;
mod delivery;
mod event;
mod inbox;
mod intercom;
mod lanes;
mod layout;
pub mod log;
mod message;
pub mod query;
mod reply;
mod run;
mod secret;
mod session;
mod settings;
mod state;

pub use context::{Context, IntroduceError, NextError, ReadyError};
pub use delivery::{Deferred, Delivery};
pub use event::Event;
pub use intercom::{AskError, FlushError, Intercom, LaneStats, TellError, UnreadableAnswer};
pub use message::{DecodeError, EncodeError, Message};
pub use reply::Reply;
pub use run::{ServiceError, run};
pub use secret::Secret;
pub use session::SessionError;
pub use settings::{Settings, SettingsReader};
pub use state::{MigrateError, SaveError, State, StateHandler, StateOrigin, decode_state};
pub use watchdog_macros::{Message, Payload};
pub use watchdog_protocol::session::{Health, Refusal};
pub use watchdog_protocol::{
    Incarnation, LaneEpoch, MessageId, MessageNumber, Mismatch, Revision, Sequence, ServiceName,
};
pub use watchdog_query::WatchdogQuery;
pub use watchdog_seqpacket::Propagation;
/// What a type of one's own needs to be in a [`Secret`].
pub use zeroize::Zeroize;

/// What derived code reaches; no part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::message::{Asks, Carried, Reader, Told, Writer};
    pub use crate::reply::{Answers, Encoded, ReplyPort};
    pub use postcard_schema::{self, Schema};
    pub use serde;
    pub use watchdog_protocol::Contract;
}
