//! Says when it came to life: sends the monotonic clock, read first thing in `main`, and its process number to
//! the datagram socket STAMP_TO, then waits.

use std::env;
use std::os::unix::net::UnixDatagram;
use std::thread;

use rustix::time::{ClockId, clock_gettime};

fn main() {
    let now = clock_gettime(ClockId::Monotonic);
    let stamp = format!("{} {} {}", now.tv_sec, now.tv_nsec, std::process::id());
    let to = env::var_os("STAMP_TO").expect("STAMP_TO names a socket");
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.send_to(stamp.as_bytes(), to).expect("somebody listens");
    loop {
        thread::park();
    }
}
