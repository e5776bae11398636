//! Messages a second by `feed` and `flush`, counted at the handler, against a packet a message.

use std::env;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, setsockopt, shutdown, socketpair,
    sockopt,
};
use watchdog_protocol::limits::DEFAULT_LANE_BYTES;

use crate::asker::Askers;
use crate::ratio::Rounds;

const ROUNDS: usize = 21;

/// Messages of 64 B and of 1 KiB.
pub(crate) fn run() {
    for (key, size, count) in [("tell_64", 64, 200_000), ("tell_1k", 1024, 50_000)] {
        let mut askers = Askers::start(1);
        let mut feed = || askers.each("feed", size, count)[0];
        let mut drain = Drain::start();
        // The first burst of each warms its caches and is not counted.
        let _warm = feed();
        drain.burst(size, count);
        Rounds::measure(key, ROUNDS, feed, || drain.burst(size, count)).report_rates();
    }
}

/// The floor: two bare processes, blocking, a packet a message, and room for as many bytes as a lane has.
struct Drain {
    socket: OwnedFd,
    other: Child,
}

/// What asks whether all before it was taken.
const TAKEN: usize = 1;

impl Drain {
    fn start() -> Self {
        let (socket, other_end) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .expect("a socket pair");
        // An error is less room than wanted.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &DEFAULT_LANE_BYTES);
        let other = Command::new(env::current_exe().expect("the path of this program"))
            .arg("drain")
            .stdin(Stdio::from(other_end))
            .spawn()
            .expect("this program runs");
        Self { socket, other }
    }

    /// What `count` messages took, from the first until the other side has taken all.
    fn burst(&mut self, size: usize, count: u32) -> Duration {
        let message = vec![7; size];
        let socket = self.socket.as_raw_fd();
        let begin = Instant::now();
        for _ in 0..count {
            send(socket, &message, MsgFlags::empty()).expect("the other side reads");
        }
        send(socket, &[0; TAKEN], MsgFlags::empty()).expect("the other side reads");
        let mut answer = [0; 8];
        let length = recv(socket, &mut answer, MsgFlags::empty()).expect("the other side answers");
        let took = begin.elapsed();
        assert_eq!(answer[..length], u64::from(count).to_le_bytes(), "each is taken once");
        took
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        // End of file ends the other side.
        let _closed = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        let _reaped = self.other.wait();
    }
}

/// The other side: counts the packets that come at standard input, a socket here, and says how many when asked.
pub(crate) fn drain() {
    let socket = io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
    let mut message = vec![0; 2048];
    let mut taken = 0_u64;
    while let Ok(length) = recv(socket.as_raw_fd(), &mut message, MsgFlags::empty())
        && length > 0
    {
        if length == TAKEN {
            send(socket.as_raw_fd(), &taken.to_le_bytes(), MsgFlags::empty()).expect("the other side reads");
            taken = 0;
        } else {
            taken += 1;
        }
    }
}
