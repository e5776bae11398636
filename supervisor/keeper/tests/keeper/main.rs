//! A real keeper with real children; the test is its core.
#![expect(clippy::unwrap_used, reason = "a test, helpers included")]

mod end;
mod hand_over;
mod refusal;
mod replacement;
mod shutdown;
mod stage;
mod start;
mod start_failure;
