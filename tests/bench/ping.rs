//! The floor of a round trip: two bare processes on a blocking stream socket pair.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The side that asks, and the process that answers.
#[derive(Debug)]
pub(crate) struct Ping {
    socket: UnixStream,
    message: Vec<u8>,
    answer: Vec<u8>,
    other: Child,
}

impl Ping {
    /// Starts the answering process: messages and answers of `size` bytes.
    pub(crate) fn start(size: usize) -> Self {
        let (socket, other_end) = UnixStream::pair().expect("a socket pair");
        let other = Command::new(env::current_exe().expect("the path of this program"))
            .args(["pong", &size.to_string()])
            .stdin(Stdio::from(OwnedFd::from(other_end)))
            .spawn()
            .expect("this program runs");
        Self { socket, message: vec![7; size], answer: vec![0; size], other }
    }

    /// The mean of `count` round trips.
    pub(crate) fn burst(&mut self, count: u32) -> Duration {
        let begin = Instant::now();
        for _ in 0..count {
            self.socket.write_all(&self.message).expect("the other side reads");
            self.socket.read_exact(&mut self.answer).expect("the other side answers");
        }
        begin.elapsed() / count
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        // End of file ends the other side.
        let _closed = self.socket.shutdown(std::net::Shutdown::Both);
        let _reaped = self.other.wait();
    }
}

/// The other side: gives back each message of `size` bytes that comes at standard input, a socket here.
pub(crate) fn pong(size: usize) {
    let socket = io::stdin();
    let end: OwnedFd = std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned().expect("a descriptor");
    let mut socket = UnixStream::from(end);
    let mut message = vec![0; size];
    while socket.read_exact(&mut message).is_ok() && socket.write_all(&message).is_ok() {}
}
