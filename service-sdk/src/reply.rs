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
            port.answer(Encoded::of(answer).expect("a reply is of a type postcard can write"));
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reply")
    }
}

/// An answer as bytes: `head`, then `body`.
///
/// Any answer is all body, but a list of bytes: it is itself the body, behind its length. Postcard alone would write
/// it byte by byte, to the same effect.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Encoded {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Encoded {
    fn of<T: Serialize + 'static>(answer: T) -> postcard::Result<Self> {
        let mut answer = Some(answer);
        match (&mut answer as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>().and_then(Option::take) {
            Some(body) => Ok(Self { head: postcard::to_stdvec(&body.len())?, body }),
            None => {
                Ok(Self { head: Vec::new(), body: postcard::to_stdvec(&answer.expect("it was not taken"))? })
            }
        }
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// All of them in a row.
    pub fn concat(&self) -> Vec<u8> {
        [&self.head[..], &self.body].concat()
    }
}

/// The answer of exactly these bytes.
pub(crate) fn decode<T: DeserializeOwned + 'static>(mut bytes: Vec<u8>) -> postcard::Result<T> {
    if TypeId::of::<T>() == TypeId::of::<Vec<u8>>() {
        let (length, rest) = postcard::take_from_bytes::<usize>(&bytes)?;
        if length != rest.len() {
            return Err(postcard::Error::DeserializeBadEncoding);
        }
        bytes.drain(..bytes.len() - length);
        let mut answer = Some(bytes);
        let answer = (&mut answer as &mut dyn Any).downcast_mut::<Option<T>>().and_then(Option::take);
        return Ok(answer.expect("T is a list of bytes"));
    }
    let (answer, rest) = postcard::take_from_bytes(&bytes)?;
    if rest.is_empty() { Ok(answer) } else { Err(postcard::Error::DeserializeBadEncoding) }
}

/// What takes the answers of one lane back to its sender.
#[doc(hidden)]
pub trait Answers: Send + Sync {
    /// Called once a message: with its answer, or with `None` when its reply was dropped.
    fn answer(&self, ask: MessageNumber, answer: Option<Encoded>);
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

    fn answer(mut self, answer: Encoded) {
        if let Some(lane) = self.lane.take() {
            lane.answer(self.ask, Some(answer));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_bytes_is_the_bytes_postcard_writes_one_by_one() {
        for length in [0, 1, 127, 128, 70_000] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let encoded = Encoded::of(bytes.clone()).unwrap().concat();
            assert_eq!(encoded, postcard::to_stdvec(&bytes).unwrap());
            assert_eq!(decode::<Vec<u8>>(encoded).unwrap(), bytes);
        }
        assert_eq!(decode::<u64>(Encoded::of(300_u64).unwrap().concat()).unwrap(), 300);
    }

    #[test]
    fn bytes_that_are_not_exactly_one_answer_are_none() {
        for wrong in [&[][..], &[2, 7], &[1, 7, 8], &[0xff]] {
            assert!(decode::<Vec<u8>>(wrong.to_vec()).is_err(), "{wrong:?}");
        }
        for wrong in [&[][..], &[7, 8]] {
            assert!(decode::<u64>(wrong.to_vec()).is_err(), "{wrong:?}");
        }
    }
}
