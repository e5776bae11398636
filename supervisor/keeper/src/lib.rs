//! The keeper: parent and subreaper of everything.

mod packet;
mod pid_record;
pub mod protocol;

pub use packet::{DecodeError, EncodeError, Packet};
pub use pid_record::{PidRecord, start_time};
