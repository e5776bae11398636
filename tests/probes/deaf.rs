//! Hears no request to end: ignores TERM, INT and HUP. Says `deaf PID` and waits for ever.

use std::thread;

use nix::sys::signal::{SigSet, Signal};

fn main() {
    let mut deaf = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        deaf.add(signal);
    }
    // Blocked and never taken is as good as ignored, and needs no handler.
    deaf.thread_block().expect("signals can be blocked");
    println!("deaf {}", std::process::id());
    loop {
        thread::park();
    }
}
