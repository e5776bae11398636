//! Every decision of the watchdog, without I/O.

pub mod access;
pub mod cause;
pub mod event;
pub mod moment;
pub mod phase;
pub mod policy;
pub mod restart;
pub mod service;
mod stop;

pub use service::Service;
