//! Seqpacket sockets, descriptors, memfd payloads and lane pages: what two processes share.
//!
//! ```text
//!   sender                                                        receiver
//!   SenderPage (writable) ───── one page of memory ─────▶ SenderPageReader
//!   Seqpacket::send       ───── packets, kept whole ─────▶ Seqpacket::peek … consume
//!   payload::seal         ───── sealed memfd, beside ────▶ payload::read
//!   ReceiverPageReader    ◀──── one page of memory ────── ReceiverPage (writable)
//! ```
//!
//! Invariants:
//! - Every descriptor this crate makes or receives is close-on-exec from birth.
//! - No packet is empty: one would read like the end of the file.
//! - No call blocks unless its name says until when; `O_NONBLOCK` is never relied on, for the other holders of
//!   the same description may clear it.
//! - No received byte is interpreted here, no payload is mapped, and shared memory is read and written by
//!   atomics only: a peer can make a number wrong, never this process.
//! - Nothing here calls `shutdown` on a socket, which would outlive the process that did it.
//!
//! Absent: names, envelopes, protocol, policy. Without the feature `tokio` there is no runtime either: what
//! the keeper links blocks by `poll` alone.

mod atomic {
    //! The memory model the latch is written against; its model check puts another one here.
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
}
#[cfg(feature = "tokio")]
mod async_socket;
pub mod clock;
mod handover;
mod inherited;
mod latch;
mod message;
mod option;
mod page;
pub mod payload;
mod propagation;
mod receiver_page;
mod sender_page;
mod socket;

#[cfg(feature = "tokio")]
pub use async_socket::{AsyncSeqpacket, Readable};
pub use handover::{Handover, Wear};
pub use inherited::{InheritedError, inherited, inherited_descriptor};
pub use message::{MAX_DESCRIPTORS, Packet, Received};
pub use page::{PageError, read_only};
pub use propagation::Propagation;
pub use receiver_page::{Marks, ReceiverPage, ReceiverPageReader, ReceiverStats};
pub use sender_page::{SenderPage, SenderPageReader, SenderStats};
pub use socket::{AdoptError, PeerCredentials, Seqpacket};
