//! What outlives processes and power: every file the watchdog keeps, and the one way each is written.
//!
//! ```text
//! writer    durable writes apart from the event loop: one at a time per file, the newest wins
//!   ├─ journal    what changes often: appended, many changes with one fdatasync; later it goes to the files
//!   └─ replace    temporary file, write, fsync, rename, fsync of the folder      the whole sequence, one function
//! envelope  magic, format, version, incarnation, sequence, length, content, checksum     bytes, no I/O
//!   ├─ snapshot   state/SERVICE.snapshot     newest, else the one before, else fresh
//!   └─ record     settings, wanted           JSON in the same envelope, the same way back
//! lines     files of JSON lines that are appended to: the event log, and what is common with
//!   └─ audit      audit.jsonl     to be read; what of it is not synced is in the journal too
//! dead      state/dead/SERVICE/ID.letter: messages that killed their receivers, a file each in the envelope
//! runtime   what a new core must know: survives processes, not the host; no fsync
//! lock      one watchdog per state folder
//! ```
//!
//! What never happens here:
//! - A file is never half old and half new: content is only ever written to a temporary file, or appended to the
//!   journal, where it counts when it is whole.
//! - An fsync is never repeated on a file where it failed: the kernel may have dropped the pages and call the
//!   second one good. The content goes to a new file.
//! - A damaged file is never deleted, and one of a newer watchdog or service is never overwritten.
//! - Nothing here waits on the event loop's thread except `load` at a start, before there is anything to delay.

pub(crate) mod audit;
pub mod dead;
pub mod envelope;
mod fault;
pub(crate) mod journal;
pub(crate) mod kept;
pub(crate) mod lines;
pub mod lock;
pub mod record;
pub mod replace;
pub mod runtime;
pub mod snapshot;
pub mod writer;

pub(crate) use fault::before;
#[cfg(test)]
pub(crate) use fault::{Fault, child_killed_at, killed_at, plan};
