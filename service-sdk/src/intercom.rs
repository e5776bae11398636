//! [`Intercom`]: a handle to a peer's inbox.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use watchdog_protocol::trace::TraceContext;
use watchdog_protocol::{Incarnation, Mismatch, ServiceName};
use watchdog_seqpacket::Propagation;

use crate::lanes::{AskEnd, Fit, OutLane, Outgoing, Undelivered};
use crate::log::{self, spans};
use crate::message::{EncodeError, Message};
use crate::reply::{self, Reply};

/// How long `tell` and `ask` wait unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(5);

/// A handle to a peer's inbox, from [`Context::intercom`](crate::Context::intercom). It is taken once and never
/// renewed: restarts of either side, and of the watchdog's core, are not its affair. Only a permission that was taken
/// away and given back is used by a new one.
///
/// All handles of a process to one peer share one lane: first in, first out over all of them. What is in it lives
/// on when its sender dies, when its receiver dies, and while the receiver is down. It is memory, not disk: it
/// does not outlive the watchdog's keeper or the host.
///
/// The lane holds what the receiver's `lane_size` says, 1 MiB unless configured, as the kernel charges it: about 768 bytes and the payload a packet.
/// Nothing is dropped in silence: what finds no room comes back.
pub struct Intercom<M> {
    lane: Arc<OutLane>,
    fit: Arc<Fit>,
    deadline: Duration,
    messages: PhantomData<fn(M)>,
}

/// Why a message was not told. It is not in the lane, and comes back in the error.
#[derive(thiserror::Error)]
pub enum TellError<M> {
    /// The lane stayed full until the deadline.
    #[error("the lane is full")]
    Full(M),
    /// The peer is not registered any more.
    #[error("no such service is registered any more")]
    NoSuchService(M),
    /// The rules allow it no more. If they do again, it is by a new handle: this one stays denied.
    #[error("the rules do not allow it any more")]
    Denied(M),
    /// The peer was built with another contract; [`Intercom::mismatch`] says where they part.
    #[error("the receiver was built with another contract")]
    ContractMismatch(M),
    /// More bytes than a message may have (`max_message`, 16 MiB unless configured).
    #[error("the message has more than {limit} bytes")]
    TooLarge {
        /// The message.
        message: M,
        /// The bound.
        limit: usize,
    },
    /// It has a reply: it is to be asked.
    #[error("the message has a reply, so it is asked and not told")]
    NotTold(M),
    /// A field's own serde code refuses to write it.
    #[error("the message can't be written")]
    Unwritable {
        /// The message.
        message: M,
        /// Of its field.
        source: EncodeError,
    },
    /// The system refuses: descriptors or memory are used up.
    #[error("the message can't be sent")]
    System {
        /// The message.
        message: M,
        /// Of the system call.
        source: io::Error,
    },
}

impl<M> TellError<M> {
    /// The message.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message)
            | Self::NoSuchService(message)
            | Self::Denied(message)
            | Self::ContractMismatch(message)
            | Self::TooLarge { message, .. }
            | Self::NotTold(message)
            | Self::Unwritable { message, .. }
            | Self::System { message, .. } => message,
        }
    }

    fn of(undelivered: Undelivered, message: M) -> Self {
        match undelivered {
            Undelivered::Full | Undelivered::FullBeside => Self::Full(message),
            Undelivered::NoSuchService => Self::NoSuchService(message),
            Undelivered::Denied => Self::Denied(message),
            Undelivered::Mismatch(_) => Self::ContractMismatch(message),
            Undelivered::TooLarge { limit } => Self::TooLarge { message, limit },
            Undelivered::Unwritable(source) => Self::Unwritable { message, source },
            Undelivered::System(source) => Self::System { message, source },
        }
    }
}

/// By hand, so that a message need not be `Debug` for its error to be one.
impl<M> fmt::Debug for TellError<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => out.write_str("Full"),
            Self::NoSuchService(_) => out.write_str("NoSuchService"),
            Self::Denied(_) => out.write_str("Denied"),
            Self::ContractMismatch(_) => out.write_str("ContractMismatch"),
            Self::TooLarge { limit, .. } => out.debug_struct("TooLarge").field("limit", limit).finish(),
            Self::NotTold(_) => out.write_str("NotTold"),
            Self::Unwritable { source, .. } => {
                out.debug_struct("Unwritable").field("source", source).finish()
            }
            Self::System { source, .. } => out.debug_struct("System").field("source", source).finish(),
        }
    }
}

/// Why what was fed did not go. It stays where it is, unless the lane is gone.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The lane stayed full until the deadline. What was fed stays, and goes before anything else.
    #[error("the lane is full, {fed} messages wait to be flushed")]
    Full {
        /// How many.
        fed: usize,
    },
    /// The peer is not registered any more. What was fed is gone.
    #[error("no such service is registered any more")]
    NoSuchService,
    /// The rules allow it no more. What was fed is gone.
    #[error("the rules do not allow it any more")]
    Denied,
    /// The peer was built with another contract. What was fed stays.
    #[error("the receiver was built with another contract")]
    ContractMismatch(#[source] Mismatch),
    /// The system refuses: descriptors or memory are used up. What was fed stays.
    #[error("what was fed can't be sent")]
    System(#[source] io::Error),
}

/// Why an ask has no answer. Each says what is known of the work that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not done: the peer is not registered any more. For what was sent before, not known.
    #[error("no service `{receiver}` is registered any more")]
    NoSuchService {
        /// Who was asked.
        receiver: ServiceName,
    },
    /// Not done: the rules allow it no more. If they do again, it is by a new handle.
    #[error("the rules do not allow to ask `{receiver}` any more")]
    Denied {
        /// Who was asked.
        receiver: ServiceName,
    },
    /// Not done, and safe to repeat: the lane stayed full until the deadline, or 1,024 asks of it were open.
    #[error("the lane to `{receiver}` stayed full until the deadline")]
    NotSent {
        /// Who was asked.
        receiver: ServiceName,
    },
    /// Not known: the process that had it in hand died.
    #[error("`{receiver}` died with the message in hand (incarnation {incarnation})")]
    Died {
        /// Who was asked.
        receiver: ServiceName,
        /// Which process of it.
        incarnation: Incarnation,
    },
    /// Not known: no answer came before the deadline. It may be in hand; a message that is still queued then is
    /// skipped.
    #[error("`{receiver}` did not answer before the deadline")]
    Late {
        /// Who was asked.
        receiver: ServiceName,
    },
    /// Handled, and its reply was dropped.
    #[error("`{receiver}` dropped the reply")]
    Dropped {
        /// Who was asked.
        receiver: ServiceName,
    },
    /// Not done: the peer was built with another contract.
    #[error("`{receiver}` was built with another contract")]
    ContractMismatch {
        /// Who was asked.
        receiver: ServiceName,
        /// Where the contracts part.
        source: Mismatch,
    },
    /// Not done: the closure's message has no reply in it.
    #[error("the message to `{receiver}` has no reply")]
    NoReply {
        /// Who was asked.
        receiver: ServiceName,
    },
    /// Not done: more bytes than a message may have (`max_message`, 16 MiB unless configured).
    #[error("the message to `{receiver}` has more than {limit} bytes")]
    TooLarge {
        /// Who was asked.
        receiver: ServiceName,
        /// The bound.
        limit: usize,
    },
    /// Not done: a field's own serde code refuses to write the message.
    #[error("the message to `{receiver}` can't be written")]
    Unwritable {
        /// Who was asked.
        receiver: ServiceName,
        /// Of its field.
        source: EncodeError,
    },
    /// Answered, with bytes that are no answer.
    #[error("the answer of `{receiver}` can't be read")]
    Unreadable {
        /// Who was asked.
        receiver: ServiceName,
        /// What is wrong with them.
        source: UnreadableAnswer,
    },
    /// Not done: the system refuses, descriptors or memory are used up.
    #[error("the message to `{receiver}` can't be sent")]
    System {
        /// Who was asked.
        receiver: ServiceName,
        /// Of the system call.
        source: io::Error,
    },
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableAnswer {
    /// Not the type it should be.
    #[error("the bytes are not of the reply's type")]
    Postcard(#[source] postcard::Error),
    /// It came beside a packet and could not be read, or not be received: no descriptor was free.
    #[error("the payload beside it can't be read")]
    Beside(#[source] io::Error),
}

/// How much went over a lane, over all processes of both sides.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LaneStats {
    /// Messages the lane took.
    pub sent: u64,
    /// Messages handed to a handler, each once.
    pub handed: u64,
    /// Messages handed again after a death.
    pub redelivered: u64,
    /// Sends that found it full and gave their message back.
    pub refused: u64,
    /// Messages in it that are not done. A process that was killed sending may have left this too high until the
    /// lane is empty.
    pub queued: u64,
    /// Messages handed over a second, since this process has the lane.
    pub rate: f64,
    /// From accepted by the sender until handed over: count, mean, variance, standard deviation, percentiles.
    pub propagation: Propagation,
}

impl<M: Message> Intercom<M> {
    pub(crate) fn new(lane: Arc<OutLane>, fit: Arc<Fit>) -> Self {
        Self { lane, fit, deadline: DEADLINE, messages: PhantomData }
    }

    /// The same handle with another deadline for what does not name one. Default 5 s.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Who receives.
    pub fn receiver(&self) -> &ServiceName {
        self.lane.receiver()
    }

    /// Where this handle's contract and the receiver's part; `None`: they fit.
    pub fn mismatch(&self) -> Option<Mismatch> {
        self.fit.mismatch()
    }

    /// Puts a message into the lane, waiting for room until the handle's deadline. Who waits longer goes first.
    ///
    /// `Ok`: the kernel has it. It is handed to the receiver at least once, in order, whoever dies; where its
    /// process dies with it in hand it comes again, marked in [`Context::delivery`](crate::Context::delivery).
    ///
    /// Cancel safe: a dropped call has sent nothing, or is done.
    ///
    /// # Errors
    /// [`TellError`], which gives the message back: it is not in the lane.
    pub async fn tell(&self, message: M) -> Result<(), TellError<M>> {
        self.tell_within(self.deadline, message).await
    }

    /// As [`tell`](Self::tell), with a deadline of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn tell_within(&self, deadline: Duration, message: M) -> Result<(), TellError<M>> {
        // A loop of tells that find room waits nowhere: the service's other tasks have their turn here.
        tokio::task::coop::consume_budget().await;
        let (message, outgoing) = self.told(message)?;
        let sent = self.lane.send(&self.fit, &outgoing, deadline).await;
        sent.map_err(|undelivered| TellError::of(undelivered, message))
    }

    /// As [`tell`](Self::tell), now or not at all. It does not pass those that wait for room.
    ///
    /// # Errors
    /// As there.
    pub fn try_tell(&self, message: M) -> Result<(), TellError<M>> {
        let (message, outgoing) = self.told(message)?;
        self.lane.try_send(&self.fit, &outgoing).map_err(|undelivered| TellError::of(undelivered, message))
    }

    /// Packs a message with others that are fed: a packet of small messages costs as much as one message. Nothing
    /// is promised before [`flush`](Self::flush) returns `Ok`: what was fed and not flushed dies with this process.
    ///
    /// Where the packet has no room for it, the packet is sent first, waiting for room in the lane until the
    /// handle's deadline. All handles to a peer feed the same packet, and what is told or asked after it goes
    /// after it.
    ///
    /// Cancel safe: the message of a dropped call is not fed.
    ///
    /// # Errors
    /// [`TellError`], which gives this message back; those fed before it stay where they are, unless the lane is
    /// gone.
    pub async fn feed(&self, message: M) -> Result<(), TellError<M>> {
        tokio::task::coop::consume_budget().await;
        let (message, outgoing) = self.told(message)?;
        let fed = self.lane.feed(&self.fit, &outgoing, self.deadline).await;
        fed.map_err(|undelivered| TellError::of(undelivered, message))
    }

    /// Sends what was fed, waiting for room until the handle's deadline. `Ok`: the kernel has all of it, as if each
    /// had been told.
    ///
    /// Cancel safe: what was fed is sent, or still fed.
    ///
    /// # Errors
    /// [`FlushError`].
    pub async fn flush(&self) -> Result<(), FlushError> {
        let flushed = self.lane.flush(&self.fit, self.deadline).await;
        flushed.map_err(|(undelivered, fed)| match undelivered {
            Undelivered::Full | Undelivered::FullBeside => FlushError::Full { fed },
            Undelivered::NoSuchService => FlushError::NoSuchService,
            Undelivered::Denied => FlushError::Denied,
            Undelivered::Mismatch(mismatch) => FlushError::ContractMismatch(mismatch),
            Undelivered::System(source) => FlushError::System(source),
            Undelivered::TooLarge { .. } | Undelivered::Unwritable(_) => {
                unreachable!("it was written, and found to be small enough, when it was fed")
            }
        })
    }

    /// Asks, and waits for the answer until the handle's deadline. The closure makes the message of the reply it
    /// is given:
    ///
    /// ```no_run
    /// # use watchdog_service::{AskError, Intercom, Message, Reply};
    /// # #[derive(Message)] enum CounterMsg { Total { reply: Reply<u64> } }
    /// # async fn example(counter: Intercom<CounterMsg>) -> Result<(), AskError> {
    /// let total: u64 = counter.ask(|reply| CounterMsg::Total { reply }).await?;
    /// # Ok(()) }
    /// ```
    /// It is handed to a handler at most once, unless its contract is `#[message(idempotent)]`. A lane has at most
    /// 1,024 asks without an answer, those over it wait for one to end.
    ///
    /// Cancel safe: a dropped call waits no longer; what was sent is handled all the same, if it is not skipped
    /// because its deadline passed.
    ///
    /// # Errors
    /// [`AskError`], which says what is known of the work.
    pub async fn ask<T: DeserializeOwned + 'static>(
        &self,
        message: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, AskError> {
        self.ask_within(self.deadline, message).await
    }

    /// As [`ask`](Self::ask), with a deadline of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn ask_within<T: DeserializeOwned + 'static>(
        &self,
        deadline: Duration,
        message: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, AskError> {
        let (span, trace) = spans::asking(self.receiver());
        let answered = self.ask_in(trace, deadline, message).await;
        if let Err(error) = &answered {
            spans::failed(&span, error);
        }
        answered
    }

    async fn ask_in<T: DeserializeOwned + 'static>(
        &self,
        trace: Option<TraceContext>,
        deadline: Duration,
        message: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, AskError> {
        let receiver = || self.receiver().clone();
        let outgoing = {
            let message = message(Reply::inert());
            if !message.expects_reply() {
                return Err(AskError::NoReply { receiver: receiver() });
            }
            self.lane.encode(&message, trace)
        };
        let asked = match outgoing {
            Ok(outgoing) => self.lane.ask(&self.fit, M::ASKS, &outgoing, deadline).await,
            Err(undelivered) => Err(undelivered),
        };
        let end = asked.map_err(|undelivered| match undelivered {
            Undelivered::Full | Undelivered::FullBeside => AskError::NotSent { receiver: receiver() },
            Undelivered::NoSuchService => AskError::NoSuchService { receiver: receiver() },
            Undelivered::Denied => AskError::Denied { receiver: receiver() },
            Undelivered::Mismatch(source) => AskError::ContractMismatch { receiver: receiver(), source },
            Undelivered::TooLarge { limit } => AskError::TooLarge { receiver: receiver(), limit },
            Undelivered::Unwritable(source) => AskError::Unwritable { receiver: receiver(), source },
            Undelivered::System(source) => AskError::System { receiver: receiver(), source },
        })?;
        match end {
            AskEnd::Answer(bytes) => reply::decode(bytes).map_err(|error| AskError::Unreadable {
                receiver: receiver(),
                source: UnreadableAnswer::Postcard(error),
            }),
            AskEnd::Dropped => Err(AskError::Dropped { receiver: receiver() }),
            AskEnd::Late => Err(AskError::Late { receiver: receiver() }),
            AskEnd::Died(incarnation) => Err(AskError::Died { receiver: receiver(), incarnation }),
            AskEnd::Closed => Err(AskError::NoSuchService { receiver: receiver() }),
            AskEnd::Unreadable(error) => {
                Err(AskError::Unreadable { receiver: receiver(), source: UnreadableAnswer::Beside(error) })
            }
        }
    }

    /// What went over the lane so far.
    pub fn stats(&self) -> LaneStats {
        self.lane.stats()
    }

    /// A message to tell, and its bytes.
    fn told(&self, message: M) -> Result<(M, Outgoing), TellError<M>> {
        if message.expects_reply() {
            return Err(TellError::NotTold(message));
        }
        match self.lane.encode(&message, log::current()) {
            Ok(outgoing) => Ok((message, outgoing)),
            Err(undelivered) => Err(TellError::of(undelivered, message)),
        }
    }
}

impl<M> Clone for Intercom<M> {
    fn clone(&self) -> Self {
        Self {
            lane: Arc::clone(&self.lane),
            fit: Arc::clone(&self.fit),
            deadline: self.deadline,
            messages: PhantomData,
        }
    }
}

impl<M> fmt::Debug for Intercom<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Intercom")
            .field("receiver", self.lane.receiver())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
