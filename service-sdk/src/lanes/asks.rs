//! The open asks of one lane: who waits for which number, and until when. No I/O.

use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;
use watchdog_protocol::{Incarnation, MessageNumber};

use crate::message::Asks as Repeat;
use crate::session::Death;

/// How an ask that was sent ended.
#[derive(Debug)]
pub(crate) enum AskEnd {
    /// With these bytes.
    Answer(Vec<u8>),
    /// With an answer beside its packet that can't be had.
    Unreadable(io::Error),
    /// Its handler dropped its reply.
    Dropped,
    /// Its deadline passed.
    Late,
    /// Its receiver died with it in hand.
    Died(Incarnation),
    /// Its lane is gone.
    Closed,
}

#[derive(Debug)]
struct Ask {
    deadline: Instant,
    repeat: Repeat,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Ended(AskEnd),
}

/// Whether the task that watches the deadlines must look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// It will look soon enough.
    AsItIs,
    /// This deadline is before the moment it looks next.
    Sooner,
}

/// All asks of a lane that were sent and whose callers have not seen an end.
#[derive(Debug, Default)]
pub(super) struct Asks {
    open: BTreeMap<MessageNumber, Ask>,
    waiting: usize,
    /// When the deadlines are looked at next; no open one is before it.
    watched: Option<Instant>,
}

impl Asks {
    /// An ask is about to be sent: its answer may be there before the call that sends returns.
    pub(super) fn open(&mut self, number: MessageNumber, deadline: Instant, repeat: Repeat) -> Watch {
        self.open.insert(number, Ask { deadline, repeat, state: State::Waiting(None) });
        self.waiting += 1;
        if self.watched.is_some_and(|next| next <= deadline) {
            return Watch::AsItIs;
        }
        self.watched = Some(deadline);
        Watch::Sooner
    }

    /// It was not sent, or its caller has gone.
    pub(super) fn forget(&mut self, number: MessageNumber) {
        if let Some(Ask { state: State::Waiting(_), .. }) = self.open.remove(&number) {
            self.waiting -= 1;
        }
    }

    /// Its end, which is taken out.
    pub(super) fn poll(&mut self, number: MessageNumber, context: &mut Context<'_>) -> Poll<AskEnd> {
        let ask = self.open.get_mut(&number).expect("an ask is polled until its end, once");
        if let State::Waiting(waker) = &mut ask.state {
            match waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        match self.open.remove(&number) {
            Some(Ask { state: State::Ended(end), .. }) => Poll::Ready(end),
            _ => unreachable!("it was there, and not waiting"),
        }
    }

    /// An answer of whatever kind. One that nobody waits for is dropped.
    pub(super) fn ended(&mut self, number: MessageNumber, end: AskEnd) {
        if let Some(ask) = self.open.get_mut(&number)
            && let State::Waiting(waker) = &mut ask.state
        {
            let waker = waker.take();
            ask.state = State::Ended(end);
            self.waiting -= 1;
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Whether this ask waits for an answer.
    pub(super) fn is_waiting(&self, number: MessageNumber) -> bool {
        self.open.get(&number).is_some_and(|ask| matches!(ask.state, State::Waiting(_)))
    }

    /// Whether any ask waits for an answer.
    pub(super) fn is_any_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// The receiver died. To be said when every answer it sent has been read. What may be delivered again is, unless its
    /// message was done: its handler kept the reply longer than that, and it died with it.
    pub(super) fn died(&mut self, Death { incarnation, taken, done }: Death) {
        let is_lost = |number, ask: &Ask| ask.repeat == Repeat::Once || number <= done;
        let lost = self.open.range(..=taken).filter(|(number, ask)| is_lost(**number, ask));
        for number in lost.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.ended(number, AskEnd::Died(incarnation));
        }
    }

    /// The lane is gone.
    pub(super) fn closed(&mut self) {
        for number in self.open.keys().copied().collect::<Vec<_>>() {
            self.ended(number, AskEnd::Closed);
        }
    }

    /// Ends those whose deadline has passed, and returns when to look again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        if self.watched.is_some_and(|next| next <= now) {
            for number in self
                .waiting_until()
                .filter(|(_, at)| *at <= now)
                .map(|(number, _)| number)
                .collect::<Vec<_>>()
            {
                self.ended(number, AskEnd::Late);
            }
            self.watched = self.waiting_until().map(|(_, deadline)| deadline).min();
        }
        self.watched
    }

    fn waiting_until(&self) -> impl Iterator<Item = (MessageNumber, Instant)> {
        self.open
            .iter()
            .filter(|(_, ask)| matches!(ask.state, State::Waiting(_)))
            .map(|(number, ask)| (*number, ask.deadline))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn number(number: u64) -> MessageNumber {
        MessageNumber::from_stored(number)
    }

    fn incarnation() -> Incarnation {
        Incarnation::from_stored(3)
    }

    fn poll(asks: &mut Asks, of: u64) -> Poll<AskEnd> {
        asks.poll(number(of), &mut Context::from_waker(Waker::noop()))
    }

    fn death(taken: u64, done: u64) -> Death {
        Death { incarnation: incarnation(), taken: number(taken), done: number(done) }
    }

    /// Asks 1 to `count`, in half-second steps from `start`.
    fn asks(start: Instant, count: u32) -> Asks {
        let mut asks = Asks::default();
        for at in 1..=count {
            asks.open(number(at.into()), start + Duration::from_millis(500) * at, Repeat::Once);
        }
        asks
    }

    #[test]
    fn a_death_ends_what_was_taken_and_has_no_answer() {
        let mut asks = asks(Instant::now(), 4);
        asks.ended(number(2), AskEnd::Answer(vec![7]));
        asks.died(death(3, 0));
        assert!(matches!(poll(&mut asks, 1), Poll::Ready(AskEnd::Died(by)) if by == incarnation()));
        assert!(matches!(poll(&mut asks, 2), Poll::Ready(AskEnd::Answer(bytes)) if bytes == [7]));
        assert!(matches!(poll(&mut asks, 3), Poll::Ready(AskEnd::Died(_))));
        assert!(poll(&mut asks, 4).is_pending());
        assert!(asks.is_any_waiting());
    }

    #[test]
    fn an_ask_that_may_be_repeated_lives_through_a_death() {
        let mut asks = Asks::default();
        asks.open(number(1), Instant::now(), Repeat::UntilAnswered);
        asks.died(death(1, 0));
        assert!(poll(&mut asks, 1).is_pending());
    }

    #[test]
    fn an_ask_that_was_done_without_an_answer_is_lost_also_when_it_may_be_repeated() {
        let mut asks = Asks::default();
        for at in 1..=3 {
            asks.open(number(at), Instant::now(), Repeat::UntilAnswered);
        }
        asks.died(death(2, 1));
        assert!(matches!(poll(&mut asks, 1), Poll::Ready(AskEnd::Died(_))));
        assert!(poll(&mut asks, 2).is_pending() && poll(&mut asks, 3).is_pending());
    }

    #[test]
    fn a_deadline_ends_what_waits_and_the_next_one_is_watched() {
        let start = Instant::now();
        let mut asks = asks(start, 3);
        let half = Duration::from_millis(500);
        assert_eq!(asks.expire(start), Some(start + half));
        asks.ended(number(2), AskEnd::Dropped);
        assert_eq!(asks.expire(start + half), Some(start + 3 * half));
        assert!(matches!(poll(&mut asks, 1), Poll::Ready(AskEnd::Late)));
        assert!(matches!(poll(&mut asks, 2), Poll::Ready(AskEnd::Dropped)));
        assert!(poll(&mut asks, 3).is_pending());
        assert_eq!(asks.expire(start + 3 * half), None);
        assert!(matches!(poll(&mut asks, 3), Poll::Ready(AskEnd::Late)));
        assert!(!asks.is_any_waiting());
    }

    #[test]
    fn only_an_earlier_deadline_needs_another_look() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut asks = Asks::default();
        assert_eq!(asks.open(number(1), start + 5 * second, Repeat::Once), Watch::Sooner);
        assert_eq!(asks.open(number(2), start + 6 * second, Repeat::Once), Watch::AsItIs);
        assert_eq!(asks.open(number(3), start + second, Repeat::Once), Watch::Sooner);
        // Whoever goes leaves the watch as it is: it finds nothing then, and looks further.
        for gone in 1..=3 {
            asks.forget(number(gone));
        }
        assert_eq!(asks.open(number(4), start + 9 * second, Repeat::Once), Watch::AsItIs);
        assert_eq!(asks.expire(start + second), Some(start + 9 * second));
    }

    #[test]
    fn an_answer_to_nobody_changes_nothing() {
        let mut asks = asks(Instant::now(), 1);
        asks.forget(number(1));
        asks.ended(number(1), AskEnd::Dropped);
        asks.ended(number(9), AskEnd::Dropped);
        assert!(!asks.is_any_waiting());
    }

    #[test]
    fn the_first_end_counts() {
        let mut asks = asks(Instant::now(), 1);
        asks.ended(number(1), AskEnd::Dropped);
        asks.ended(number(1), AskEnd::Answer(vec![]));
        asks.closed();
        assert!(matches!(poll(&mut asks, 1), Poll::Ready(AskEnd::Dropped)));
    }
}
