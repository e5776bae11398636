//! What the probes say to each other.

use watchdog_service::{Message, Reply};

/// What a puppet takes.
#[derive(Debug, Message)]
pub enum PuppetMsg {
    /// A text, told.
    Say {
        /// Any.
        text: String,
    },
    /// A text, asked.
    Question {
        /// Any.
        text: String,
        /// Takes the answer.
        reply: Reply<String>,
    },
    /// Bytes, told.
    Load {
        /// Any.
        bytes: Vec<u8>,
    },
}

/// What a puppet takes whose asks may be delivered again.
#[derive(Debug, Message)]
#[message(idempotent)]
pub enum PatientMsg {
    /// A text, asked.
    Question {
        /// Any.
        text: String,
        /// Takes the answer.
        reply: Reply<String>,
    },
}

/// The first message of a puppet's contract as somebody else remembers it: the types differ.
#[derive(Debug, Message)]
pub enum WrongMsg {
    /// A number where a text belongs.
    Say {
        /// Not what it should be.
        text: u64,
    },
}

/// What the answering side of the benchmark takes.
#[derive(Debug, Message)]
pub enum EchoMsg {
    /// Bytes that are to come back as they are.
    Echo {
        /// Any.
        bytes: Vec<u8>,
        /// Takes them back.
        reply: Reply<Vec<u8>>,
    },
    /// Bytes that are to be counted.
    Take {
        /// Any.
        bytes: Vec<u8>,
    },
    /// How many were counted.
    Taken {
        /// Takes the count.
        reply: Reply<u64>,
    },
}

/// What the receiver of the proof takes.
#[derive(Debug, Message)]
pub enum ProofMsg {
    /// A number, told once it is the next of its process.
    Number {
        /// Which process of the sender counts.
        incarnation: u64,
        /// From 1, without a gap.
        n: u64,
    },
}

/// What a receiver takes whose restarts nobody is to notice.
#[derive(Debug, Message)]
#[message(idempotent)]
pub enum SteadyMsg {
    /// Asks for twice a number.
    Double {
        /// Any.
        n: u64,
        /// Takes twice of it.
        reply: Reply<u64>,
    },
}

/// What a relay takes.
#[derive(Debug, Message)]
pub enum RelayMsg {
    /// Passes it on to the next, if there is one, and says how many had it in hand.
    Pass {
        /// Takes the number.
        reply: Reply<u64>,
    },
    /// Tells the next, if there is one.
    Tell {},
    /// Says lines, one event each: from `first` on, so many.
    Say {
        /// The first number.
        first: u64,
        /// How many.
        count: u64,
        /// Takes it when all are said.
        reply: Reply<()>,
    },
    /// Says one line of each level.
    Levels {
        /// Takes it when all are said.
        reply: Reply<()>,
    },
    /// Panics.
    Panic {},
    /// Waits until events of level debug are recorded, or are not.
    Until {
        /// Whether they are to be.
        debug: bool,
        /// Takes it when it is so.
        reply: Reply<()>,
    },
}
