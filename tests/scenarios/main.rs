//! What the watchdog promises, each promise tried on real processes from outside.

mod layout;
