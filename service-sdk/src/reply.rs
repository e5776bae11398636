//! [`Reply`]: answered once, or its drop tells the caller.

use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use watchdog_protocol::MessageNumber;

/// Where the answer to one message goes. Answered by [`send`](Self::send) or by its drop, never twice.
///
/// It may outlive the handler: keep it, hand it to a task or a thread, and answer later. A process that dies with
/// it has answered nothing: its caller gets `Died`.
pub struct Reply<T> {
    port: Option<ReplyPort>,
    answer: PhantomData<fn(T)>,
}

impl<T> Reply<T> {
    /// The one a caller puts into its own message: it is not sent, and its drop says nothing.
    #[doc(hidden)]
    pub fn inert() -> Self {
        Self { port: None, answer: PhantomData }
    }

    /// The one of a message that arrived.
    #[doc(hidden)]
    pub fn arrived(port: ReplyPort) -> Self {
        Self { port: Some(port), answer: PhantomData }
    }
}

impl<T: Serialize + 'static> Reply<T> {
    /// Answers. Never waits: what finds no room on its way back is sent by a task of the SDK. Nobody is told
    /// whether the caller still waits.
    ///
    /// # Panics
    /// When `answer` can't be written in postcard, which only types with hand-written serde can do.
    pub fn send(mut self, answer: T) {
        if let Some(port) = self.port.take() {
            let bytes = encode(&answer).expect("a reply is of a type postcard can write");
            port.answer(bytes);
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reply")
    }
}

/// An answer as bytes. A list of bytes goes in one go, as a field of a message does; postcard alone would write
/// them one by one, to the same effect.
fn encode<T: Serialize + 'static>(answer: &T) -> postcard::Result<Vec<u8>> {
    match (answer as &dyn Any).downcast_ref::<Vec<u8>>() {
        Some(bytes) => {
            postcard::to_extend(serde_bytes::Bytes::new(bytes), Vec::with_capacity(bytes.len() + 9))
        }
        None => postcard::to_stdvec(answer),
    }
}

/// The answer of exactly these bytes.
pub(crate) fn decode<T: DeserializeOwned + 'static>(bytes: &[u8]) -> postcard::Result<T> {
    let (answer, rest) = if TypeId::of::<T>() == TypeId::of::<Vec<u8>>() {
        let (read, rest) = postcard::take_from_bytes::<serde_bytes::ByteBuf>(bytes)?;
        let mut read = Some(read.into_vec());
        let read = (&mut read as &mut dyn Any).downcast_mut::<Option<T>>().and_then(Option::take);
        (read.expect("T is a list of bytes"), rest)
    } else {
        postcard::take_from_bytes(bytes)?
    };
    if rest.is_empty() { Ok(answer) } else { Err(postcard::Error::DeserializeBadEncoding) }
}

/// What takes the answers of one lane back to its sender.
#[doc(hidden)]
pub trait Answers: Send + Sync {
    /// Called once a message: with the encoded answer, or with `None` when its reply was dropped.
    fn answer(&self, ask: MessageNumber, answer: Option<Vec<u8>>);
}

/// What carries an answer back. Dropped unused it says that the handler dropped its reply.
#[doc(hidden)]
pub struct ReplyPort {
    /// Until it is used.
    lane: Option<Arc<dyn Answers>>,
    ask: MessageNumber,
}

impl ReplyPort {
    /// Of one ask of a lane.
    pub fn new(lane: Arc<dyn Answers>, ask: MessageNumber) -> Self {
        Self { lane: Some(lane), ask }
    }

    fn answer(mut self, bytes: Vec<u8>) {
        if let Some(lane) = self.lane.take() {
            lane.answer(self.ask, Some(bytes));
        }
    }
}

impl Drop for ReplyPort {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            lane.answer(self.ask, None);
        }
    }
}

impl fmt::Debug for ReplyPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ReplyPort")
    }
}
