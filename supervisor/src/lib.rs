//! In the making.
pub mod config;
pub mod processes;
pub mod store;
