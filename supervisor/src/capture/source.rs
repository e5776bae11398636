//! One pipe: when to look at it, and what of it to take.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use watchdog_protocol::ServiceName;

use super::Stream;
use super::lines::{self, End, LONGEST};

/// An incomplete line older than this is written as a piece: a prompt should be seen.
const UNFINISHED: Duration = Duration::from_secs(1);

/// Between two looks at an incomplete line: a service that writes byte by byte would have each look copy them all.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Whoever has just written so much at a time does not write byte by byte: what comes next is looked at at once, or a
/// writer whose blocks end within lines would wait [`LOOK_AGAIN`] for each.
const BLOCK: usize = 4096;

/// The pipe of one stream of one service.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) service: ServiceName,
    pub(super) stream: Stream,
    pub(super) pipe: Arc<OwnedFd>,
    /// From this many bytes on an incomplete line is cut: less than a full pipe holds in the worst case, which is
    /// half of its pages.
    piece_at: usize,
    /// There may be something to read.
    ready: bool,
    /// The last that was taken was a block.
    in_blocks: bool,
    unfinished: Option<Unfinished>,
}

/// An incomplete line at the head of a pipe.
#[derive(Debug, Clone, Copy)]
struct Unfinished {
    /// When it was first seen.
    since: Instant,
    /// When it is looked at again, if it grew.
    again_at: Instant,
}

/// What becomes of an incomplete line at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// It waits for its end.
    Waits,
    /// It is written now.
    Taken(End),
}

impl Source {
    pub(super) fn new(service: ServiceName, stream: Stream, pipe: Arc<OwnedFd>) -> Self {
        let capacity = fcntl(&pipe, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok());
        let piece_at = capacity.map_or(LONGEST, |size| size / 2).min(LONGEST);
        Self { service, stream, pipe, piece_at, ready: true, in_blocks: false, unfinished: None }
    }

    /// In how long to look at it; `None`: when it says so.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        let at = match (self.ready, self.unfinished) {
            (true, None) => now,
            (true, Some(line)) => line.again_at,
            (false, Some(line)) => line.since + UNFINISHED,
            (false, None) => return None,
        };
        Some(at.saturating_duration_since(now))
    }

    /// What becomes of an incomplete line at a look now.
    pub(super) fn tail(&self, now: Instant) -> Tail {
        match self.unfinished {
            Some(line) if line.since + UNFINISHED <= now => Tail::Taken(End::GoesOn),
            _ => Tail::Waits,
        }
    }

    /// The kernel says there is more.
    pub(super) fn wake(&mut self) {
        self.ready = true;
    }

    /// Something is wrong with it: not before it says so again.
    pub(super) fn rest(&mut self) {
        (self.ready, self.unfinished) = (false, None);
    }

    /// How much to take of the `raw` bytes at the pipe's head, and what the last of them are. Behind what is taken
    /// there may be more, so it is looked at again at once; what comes when nothing is left wakes us.
    pub(super) fn choose(&mut self, raw: &[u8], tail: Tail, now: Instant) -> (usize, End) {
        let (length, end) = split(raw, self.piece_at, tail);
        self.ready = length > 0;
        let again_at = if self.in_blocks { now } else { now + LOOK_AGAIN };
        self.in_blocks = length >= BLOCK;
        self.unfinished = (length == 0 && !raw.is_empty())
            .then(|| Unfinished { since: self.unfinished.map_or(now, |line| line.since), again_at });
        (length, end)
    }
}

fn split(raw: &[u8], piece_at: usize, tail: Tail) -> (usize, End) {
    let lines = crate::tail::whole(raw);
    match tail {
        // Short of a full look, so this is the end of all.
        Tail::Taken(End::Line) if raw.len() < LONGEST => (raw.len(), End::Line),
        Tail::Taken(_) | Tail::Waits if lines > 0 => (lines, End::Line),
        Tail::Waits if raw.len() < piece_at => (0, End::Line),
        Tail::Waits | Tail::Taken(_) => (lines::piece(raw), End::GoesOn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Tail = Tail::Waits;
    const OLD: Tail = Tail::Taken(End::GoesOn);
    const DEAD: Tail = Tail::Taken(End::Line);

    #[test]
    fn whole_lines_are_taken_and_an_incomplete_one_waits_unless_it_is_long_old_or_a_last_word() {
        assert_eq!(split(b"one\ntw", 100, WAITS), (4, End::Line));
        assert_eq!(split(b"tw", 100, WAITS), (0, End::Line));
        assert_eq!(split(b"tw", 2, WAITS), (2, End::GoesOn));
        assert_eq!(split(b"tw", 100, OLD), (2, End::GoesOn));
        assert_eq!(split(b"two\nth", 100, OLD), (4, End::Line), "its end came in the meantime");
        assert_eq!(split(b"one\ntw", 100, DEAD), (6, End::Line));
        assert_eq!(split(b"", 100, DEAD), (0, End::Line));
        assert_eq!(split(&[b'x'; LONGEST], LONGEST, DEAD), (LONGEST, End::GoesOn), "more may be behind");
    }

    #[test]
    fn an_incomplete_line_is_looked_at_again_when_it_grows_but_not_for_each_byte() {
        let mut source =
            Source::new("counter".parse().unwrap(), Stream::Output, super::super::pipe().unwrap().0.into());
        let now = Instant::now();
        assert_eq!(source.due_in(now), Some(Duration::ZERO));
        source.choose(b"tw", WAITS, now);
        assert_eq!(source.due_in(now), Some(UNFINISHED));
        source.wake();
        assert_eq!(source.due_in(now), Some(LOOK_AGAIN));
        source.choose(b"two", WAITS, now + LOOK_AGAIN);
        assert_eq!(
            source.due_in(now + LOOK_AGAIN),
            Some(UNFINISHED - LOOK_AGAIN),
            "old since it was first seen"
        );
        assert_eq!(source.tail(now + UNFINISHED), OLD);
        source.choose(b"two\n", WAITS, now);
        assert_eq!(source.due_in(now), Some(Duration::ZERO), "there may be more behind it");
        source.choose(b"", WAITS, now);
        assert_eq!(source.due_in(now), None);
    }

    #[test]
    fn a_line_that_a_block_ends_in_is_looked_at_at_once_when_it_grows() {
        let mut source =
            Source::new("counter".parse().unwrap(), Stream::Output, super::super::pipe().unwrap().0.into());
        let now = Instant::now();
        source.choose(&[b"x".repeat(BLOCK - 1), b"\ntw".to_vec()].concat(), WAITS, now);
        source.choose(b"tw", WAITS, now);
        assert_eq!(source.due_in(now), Some(UNFINISHED), "not before it grows");
        source.wake();
        assert_eq!(source.due_in(now), Some(Duration::ZERO));
        source.choose(b"two", WAITS, now);
        source.wake();
        assert_eq!(source.due_in(now), Some(LOOK_AGAIN), "no block came");
    }
}
