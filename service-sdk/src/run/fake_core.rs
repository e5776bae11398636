//! A watchdog of one session, played by a test.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use watchdog_protocol::limits::{DEFAULT_LANE_BYTES, DEFAULT_MAX_MESSAGE, MAX_PACKET};
use watchdog_protocol::session::{
    Content, FromService, Hello, Initial, SESSION_VERSION, StateOrigin, Stored, ToService, Verdict, Welcome,
    decode, encode,
};
use watchdog_protocol::{Incarnation, Revision, Sequence};
use watchdog_seqpacket::{Received, Seqpacket, payload};

use super::*;

/// Long enough for a machine that does something else meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// The watchdog's end of a session, and the thread that is the service's process.
pub(crate) struct FakeCore {
    socket: Option<Seqpacket>,
    service: JoinHandle<Exit>,
}

/// A welcome of nothing.
pub(crate) fn welcome() -> Welcome {
    Welcome {
        version: SESSION_VERSION,
        service: "tested".parse().unwrap(),
        incarnation: Incarnation::from_stored(7),
        // Longer than any test: after it a service whose watchdog is gone aborts the process.
        stop_timeout_ms: 86_400_000,
        max_message: DEFAULT_MAX_MESSAGE as u64,
        lane_bytes: DEFAULT_LANE_BYTES as u64,
        heartbeat_ms: None,
        settings: None,
        state: None,
        grant: vec![],
    }
}

/// A welcome with settings of revision 3.
pub(crate) fn welcome_with_settings(json: &str) -> Welcome {
    let initial = Initial { revision: revision(3), json: Content::Inline(json.into()) };
    Welcome { settings: Some(initial), ..welcome() }
}

/// A welcome for a service that has a state and starts for the first time.
pub(crate) fn welcome_with_fresh_state() -> Welcome {
    welcome_with_state(StateOrigin::Fresh, 0, 0, vec![])
}

/// A welcome with a stored state.
pub(crate) fn welcome_with_state(origin: StateOrigin, number: u64, version: u32, bytes: Vec<u8>) -> Welcome {
    let content = Content::Inline(bytes);
    let stored = Stored { origin, sequence: sequence(number), version, content };
    Welcome { state: Some(stored), ..welcome() }
}

pub(crate) fn revision(number: u64) -> Revision {
    Revision::from_stored(number)
}

pub(crate) fn sequence(number: u64) -> Sequence {
    Sequence::from_stored(number)
}

impl FakeCore {
    /// Queues the welcome, then starts the service.
    pub(crate) fn start<S, T, M, F>(welcome: Welcome, service: F) -> Self
    where
        S: Settings,
        T: State,
        M: Message,
        F: AsyncFnOnce(Context<S, T, M>) -> Result<(), ServiceError> + Send + 'static,
    {
        Self::start_with(&encode(&ToService::Welcome(welcome)), &[], service)
    }

    /// The same with any first packet.
    pub(crate) fn start_with<S, T, M, F>(first: &[u8], beside: &[BorrowedFd<'_>], service: F) -> Self
    where
        S: Settings,
        T: State,
        M: Message,
        F: AsyncFnOnce(Context<S, T, M>) -> Result<(), ServiceError> + Send + 'static,
    {
        let (socket, other) = Seqpacket::pair().unwrap();
        socket.send(&[IoSlice::new(first)], beside).unwrap();
        let service = std::thread::spawn(move || super::start(other, service));
        let core = Self { socket: Some(socket), service };
        let hello = core.hear();
        assert!(matches!(hello, FromService::Hello(Hello { version: SESSION_VERSION, .. })), "{hello:?}");
        core
    }

    fn socket(&self) -> &Seqpacket {
        self.socket.as_ref().expect("the core is not gone")
    }

    /// The next packet's message, and what is beside it.
    pub(crate) fn hear_beside(&self) -> (FromService, Vec<OwnedFd>) {
        let mut buffer = vec![0; MAX_PACKET];
        match self.socket().recv_by(&mut buffer, 1, Instant::now() + PATIENCE).unwrap() {
            Received::Packet(packet) => (decode(&buffer[..packet.length]).unwrap(), packet.descriptors),
            other => panic!("a packet is expected, not {other:?}"),
        }
    }

    /// The next message.
    pub(crate) fn hear(&self) -> FromService {
        self.hear_beside().0
    }

    /// The next message, which must be this.
    pub(crate) fn expect(&self, expected: &FromService) {
        assert_eq!(&self.hear(), expected);
    }

    pub(crate) fn expect_verdict(&self, number: u64, verdict: Verdict) {
        self.expect(&FromService::Verdict { revision: revision(number), verdict });
    }

    /// The next message, which must be a state: its number, urgency and bytes.
    pub(crate) fn hear_state(&self) -> (u64, watchdog_protocol::session::Urgency, Vec<u8>) {
        match self.hear_beside() {
            (FromService::State { sequence, urgency, content, .. }, beside) => {
                let bytes = match content {
                    Content::Inline(bytes) => bytes,
                    Content::Beside { length } => {
                        payload::read(beside[0].as_fd(), length, DEFAULT_MAX_MESSAGE).unwrap()
                    }
                };
                (sequence.get(), urgency, bytes)
            }
            (other, _) => panic!("a state is expected, not {other:?}"),
        }
    }

    /// Says something.
    pub(crate) fn say(&self, message: &ToService) {
        self.say_beside(message, &[]);
    }

    /// Says something with descriptors beside it.
    pub(crate) fn say_beside(&self, message: &ToService, beside: &[BorrowedFd<'_>]) {
        self.socket().send_by(&[IoSlice::new(&encode(message))], beside, Instant::now() + PATIENCE).unwrap();
    }

    pub(crate) fn say_bytes(&self, bytes: &[u8]) {
        self.socket().send(&[IoSlice::new(bytes)], &[]).unwrap();
    }

    pub(crate) fn say_settings(&self, number: u64, json: &str) {
        self.say(&ToService::Settings { revision: revision(number), json: Content::Inline(json.into()) });
    }

    /// Takes over, and hears all up to the end of what the service repeats. It proves that what was said before
    /// has been read.
    pub(crate) fn take_over(&self) -> (Vec<FromService>, watchdog_protocol::session::Resumed) {
        self.say(&ToService::TookOver);
        let mut repeated = Vec::new();
        loop {
            match self.hear() {
                FromService::Resumed(resumed) => return (repeated, resumed),
                other => repeated.push(other),
            }
        }
    }

    /// The watchdog goes.
    pub(crate) fn go(&mut self) {
        self.socket = None;
    }

    /// Asks for a stop, hears all that is still said, and returns it with how the process ended.
    pub(crate) fn stop(self) -> (Vec<FromService>, Exit) {
        self.say(&ToService::Stop);
        self.end()
    }

    /// Hears all that is still said, and returns it with how the process ended.
    pub(crate) fn end(self) -> (Vec<FromService>, Exit) {
        let mut said = Vec::new();
        let mut buffer = vec![0; MAX_PACKET];
        while let Some(socket) = &self.socket {
            match socket.recv_by(&mut buffer, 1, Instant::now() + PATIENCE).unwrap() {
                Received::Packet(packet) => said.push(decode(&buffer[..packet.length]).unwrap()),
                Received::End => break,
                other => panic!("a packet is expected, not {other:?}"),
            }
        }
        (said, self.service.join().expect("the service does not panic"))
    }
}
