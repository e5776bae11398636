//! Waiting for something to be seen: the one place where a test lets time pass.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take: longer than the command line itself waits, and far beyond what a loaded machine
/// needs. It is what a hang costs; no test passes or fails by how fast the machine is.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks until `look` sees something and gives what it saw.
///
/// # Panics
/// After [`DEADLINE`], with `what` it waited for and what `explain` says.
pub fn until<T>(what: &str, explain: impl FnOnce() -> String, look: impl FnMut() -> Option<T>) -> T {
    or_give_up(look)
        .unwrap_or_else(|| panic!("waited {} s and did not see: {what}\n{}", DEADLINE.as_secs(), explain()))
}

/// Looks until `look` sees something; `None` after [`DEADLINE`], for who has to go on cleaning up.
pub fn or_give_up<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let seen = look();
        if seen.is_some() || Instant::now() >= give_up {
            return seen;
        }
        thread::sleep(LOOK_AGAIN);
    }
}
