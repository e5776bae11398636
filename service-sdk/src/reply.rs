//! [`Reply`]: answered once, or its drop tells the caller.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;

/// Where the answer to one message goes. Answered by [`send`](Self::send) or by its drop, never twice.
///
/// It may outlive the handler: keep it, hand it to a task, and answer later.
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

impl<T: Serialize> Reply<T> {
    /// Answers. Never waits.
    ///
    /// # Panics
    /// When `answer` can't be written in postcard, which only types with hand-written serde can do.
    pub fn send(mut self, answer: T) {
        if let Some(port) = self.port.take() {
            let bytes = postcard::to_stdvec(&answer).expect("a reply is of a type postcard can write");
            port.answer(bytes);
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reply")
    }
}

/// What carries an answer back. Dropped unused it says that the handler dropped its reply.
#[doc(hidden)]
pub struct ReplyPort(Option<Box<Deliver>>);

type Deliver = dyn FnOnce(Option<Vec<u8>>) + Send + Sync;

impl ReplyPort {
    /// `deliver` is called once, with the encoded answer, or with `None` when there is none.
    pub fn new(deliver: impl FnOnce(Option<Vec<u8>>) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(deliver)))
    }

    fn answer(mut self, bytes: Vec<u8>) {
        if let Some(deliver) = self.0.take() {
            deliver(Some(bytes));
        }
    }
}

impl Drop for ReplyPort {
    fn drop(&mut self) {
        if let Some(deliver) = self.0.take() {
            deliver(None);
        }
    }
}

impl fmt::Debug for ReplyPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ReplyPort")
    }
}
