//! Bursts of events, by the same code in a service and in what it is compared with.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long so many events took that are recorded.
pub fn enabled(count: u32) -> Duration {
    let begin = Instant::now();
    for number in 0..count {
        tracing::info!(number, peer = "echo", "line");
    }
    begin.elapsed()
}

/// How long so many events took that the filter leaves out.
pub fn disabled(count: u32) -> Duration {
    let begin = Instant::now();
    for number in 0..count {
        tracing::debug!(number = black_box(number), peer = "echo", "line");
    }
    begin.elapsed()
}
