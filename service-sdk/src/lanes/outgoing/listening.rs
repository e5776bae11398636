//! The task of a lane's sender: hands answers to who waits for them, apart from any handler, and watches deadlines.
//!
//! A lane that nobody asks anything has nothing to read, and its task sleeps.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use watchdog_protocol::lane::{self, Direction, Envelope, EnvelopeError, Kind, PACKET_HEADER, Place};
use watchdog_protocol::limits::PACKET_OVERHEAD;
use watchdog_seqpacket::Received;
use watchdog_seqpacket::payload::{self, PayloadError};

use super::OutLane;
use crate::lanes::LANE_PACKET;
use crate::lanes::asks::AskEnd;
use crate::session::{Death, chain};

/// Packets of answers read at a time: the service has its turn in between.
const ANSWERS_A_TURN: usize = 64;

/// How far answers are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    NobodyWaits,
    Dry,
}

/// What reading answers came to.
enum Found {
    /// As far as was wanted.
    Enough,
    More,
    /// Nobody has the other end, and nobody will: the watchdog is gone too.
    End,
}

/// What is wrong with a packet of answers. It is skipped; the lane goes on.
#[derive(Debug, thiserror::Error)]
enum Violation {
    #[error("a packet without bytes")]
    Empty,
    #[error("a packet of {length} bytes")]
    Oversize { length: usize },
    #[error("a packet with more than one descriptor")]
    TooManyDescriptors,
    #[error("a packet that is none of a lane")]
    Envelope(#[source] EnvelopeError),
    #[error("a packet of requests")]
    Direction,
}

impl OutLane {
    /// Reads answers, apart from any handler, and watches deadlines. Ends with the lane.
    ///
    /// `buffer` is memory for a packet, which all lanes use in turn.
    pub(in crate::lanes) async fn tend(self: Arc<Self>, buffer: Arc<Mutex<Vec<u8>>>) {
        let mut violations = 0;
        let mut is_ended = false;
        let mut watch = std::pin::pin!(tokio::time::sleep_until(Instant::now()));
        let mut watched = None;
        while !self.is_over() {
            let next = self.asks().expire(Instant::now());
            if next != watched {
                watched = next;
                if let Some(next) = next {
                    watch.as_mut().reset(next);
                }
            }
            tokio::select! {
                biased;
                readable = self.socket.readable(), if !is_ended => match readable {
                    Ok(readable) => {
                        // Once nobody waits there is nothing to read: the next answer is to an ask that is not sent
                        // yet, and an event to come. It spares the call that would find nothing.
                        let until = if self.asks().is_any_waiting() { Until::NobodyWaits } else { Until::Dry };
                        match self.read(&buffer, until, ANSWERS_A_TURN, &mut violations) {
                            Found::Enough => readable.drained(),
                            Found::End => is_ended = true,
                            Found::More => tokio::task::yield_now().await,
                        }
                    }
                    // The runtime shuts down.
                    Err(_) => return,
                },
                () = self.news.notified() => {}
                () = watch.as_mut(), if watched.is_some() => {}
            }
            while let Some(death) = self.death() {
                // An answer may be queued behind the notice: first all that the dead one can have sent.
                let most = self.bounds.lane_bytes / PACKET_OVERHEAD + 1;
                self.read(&buffer, Until::Dry, most, &mut violations);
                self.asks().died(death);
            }
        }
    }

    fn death(&self) -> Option<Death> {
        self.deaths.lock().expect("nothing panics while it is held").pop_front()
    }

    /// Reads at most `most` packets of answers.
    fn read(&self, buffer: &Mutex<Vec<u8>>, until: Until, most: usize, violations: &mut u64) -> Found {
        let mut buffer = buffer.lock().expect("nothing panics while it is held");
        buffer.resize(LANE_PACKET, 0);
        for _ in 0..most {
            let filed = match self.socket.socket().take(&mut buffer, 1) {
                Ok(Received::Packet(packet)) => {
                    self.file(&buffer[..packet.length], packet.descriptors.first())
                }
                Ok(Received::Empty) => Err(Violation::Empty),
                Ok(Received::Oversize { length }) => Err(Violation::Oversize { length }),
                Ok(Received::TooManyDescriptors) => Err(Violation::TooManyDescriptors),
                Ok(Received::End) => return Found::End,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Found::Enough,
                Err(error) => {
                    tracing::error!(receiver = %self.receiver, %error, "answers can't be read");
                    return Found::End;
                }
            };
            if let Err(violation) = filed {
                *violations += 1;
                // A receiver that sends nothing else does not fill the log.
                if violations.is_power_of_two() {
                    let (receiver, lane) = (&self.receiver, self.lane);
                    tracing::warn!(%receiver, %lane, count = violations, "skipped {}", chain(&violation));
                }
            }
            if until == Until::NobodyWaits && !self.asks().is_any_waiting() {
                return Found::Enough;
            }
        }
        Found::More
    }

    /// Hands the answers of a packet to who waits for them.
    fn file(&self, packet: &[u8], descriptor: Option<&OwnedFd>) -> Result<(), Violation> {
        let header = lane::check(packet).map_err(Violation::Envelope)?;
        if header.direction != Direction::Replies {
            return Err(Violation::Direction);
        }
        let mut asks = self.asks();
        let mut at = PACKET_HEADER;
        for _ in 0..header.count {
            let (envelope, payload) = lane::read(packet, at).expect("the packet was checked");
            at = payload.end;
            if !asks.is_waiting(envelope.number) {
                continue;
            }
            let end = match (envelope.kind, envelope.place) {
                (Kind::Dropped, _) => AskEnd::Dropped,
                (Kind::Skipped, _) => AskEnd::Late,
                (_, Place::Inline) => AskEnd::Answer(packet[payload].to_vec()),
                (_, Place::Beside) => match self.read_beside(&envelope, descriptor) {
                    Ok(answer) => AskEnd::Answer(answer),
                    Err(error) => AskEnd::Unreadable(error),
                },
            };
            asks.ended(envelope.number, end);
        }
        Ok(())
    }

    fn read_beside(&self, envelope: &Envelope, descriptor: Option<&OwnedFd>) -> io::Result<Vec<u8>> {
        let Some(descriptor) = descriptor else {
            // No number was free for it.
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        };
        payload::read(descriptor.as_fd(), envelope.length.into(), self.bounds.max_message).map_err(|error| {
            match error {
                PayloadError::Read(error) => error,
                broken => io::Error::new(io::ErrorKind::InvalidData, broken),
            }
        })
    }
}
