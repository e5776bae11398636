//! Lanes between processes that live in one: each has its own descriptors and mappings, and dies by dropping them.

mod asks;
mod crashes;
mod deferred;
mod denied;
mod hostile;
mod order;
mod peers;
mod room;
