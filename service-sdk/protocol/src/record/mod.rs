//! What processes have to say: events and spans, on their way to the service [`LOGGING`].
//!
//! ```text
//! tracing ─► write::Event, write::Span ─► bytes ─► write::batch ─► lane ─► Batch
//! ```
//! A sender writes each record once, as bytes, the moment it happens ([`mod@write`]); the receiver reads a [`Batch`] of
//! them. Both are the same postcard.

pub mod write;

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use crate::trace::{SpanId, TraceContext};

/// The service that takes the records of all others, when it is registered.
pub const LOGGING: &str = "logging";

/// Some records of one process, in the order it made them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub struct Batch {
    /// Which process of its service made them.
    pub incarnation: u64,
    /// Its number in the kernel.
    pub pid: u32,
    /// The number of the first record. A process numbers its records from 1 as they happen. What found no room has no
    /// number, what the lane refused leaves a gap; both are counted.
    pub first: u64,
    /// What this process had to drop since it started, all in all.
    pub dropped: Vec<Dropped>,
    /// The records.
    pub records: Vec<Record>,
}

/// How many records a process dropped for a reason, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub count: u64,
}

/// Why a record never left its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Schema)]
pub enum DropReason {
    /// More waited than may: its lane was full.
    Full,
    /// The lane refused it for good: another contract, or the system.
    Refused,
}

/// One thing a process had to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub enum Record {
    /// Something happened.
    Event(Event),
    /// Something went on for a while, and is over.
    Span(Span),
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub struct Event {
    /// When: nanoseconds since 1970 by the system clock.
    pub at: u64,
    /// How grave.
    pub level: Level,
    /// Where it comes from, most often a module's path.
    pub target: String,
    /// What, in words; longer ones are cut.
    pub message: String,
    /// What is known of it.
    pub fields: Vec<Field>,
    /// The span it happened in.
    pub within: Option<TraceContext>,
    /// The names of that span and those around it, outermost first, with colons between them.
    pub scope: String,
}

/// Something went on for a while, and is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub struct Span {
    /// Its trace and itself.
    pub context: TraceContext,
    /// The span it is part of, of this process or another.
    pub parent: Option<SpanId>,
    /// Its part in a conversation between processes.
    pub kind: SpanKind,
    /// How grave.
    pub level: Level,
    /// Where it comes from, most often a module's path.
    pub target: String,
    /// What it is called.
    pub name: String,
    /// When it began: nanoseconds since 1970 by the system clock.
    pub start: u64,
    /// When it ended, by the same clock.
    pub end: u64,
    /// What is known of it.
    pub fields: Vec<Field>,
    /// Spans that led to it without being its parent: who told what is handled.
    pub links: Vec<TraceContext>,
    /// Whether it went well.
    pub status: SpanStatus,
}

/// A named value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub struct Field {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Value,
}

/// What a field can be. Integers of 128 bits are text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub enum Value {
    /// Text; longer ones are cut.
    Text(String),
    /// A number below zero, or of a signed type.
    Signed(i64),
    /// A number of an unsigned type.
    Unsigned(u64),
    /// A number with a fraction, or none.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

/// How grave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Schema)]
pub enum Level {
    /// Every step.
    Trace,
    /// What a developer asks for.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What may lead to trouble.
    Warn,
    /// What went wrong.
    Error,
}

/// The part a span has in a conversation, as OpenTelemetry names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Schema)]
pub enum SpanKind {
    /// None.
    Internal,
    /// It handles what another span asked.
    Server,
    /// It asks.
    Client,
    /// It tells.
    Producer,
    /// It handles what another span told.
    Consumer,
}

/// Whether a span went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum SpanStatus {
    /// Nothing was said.
    Unset,
    /// It was said to be well.
    Ok,
    /// It failed, with what is known of why.
    Error(String),
}

/// What a process is to record: the answer to a sender who asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub struct FilterUpdate {
    /// Numbers the filters of this sender; another one is another filter. Never 0, which a sender says that has none.
    pub number: u64,
    /// Directives as `tracing-subscriber` reads them: `info,counter::add=debug`.
    pub directives: String,
    /// Which traces are recorded, of those that begin in this process.
    pub sampling: Sampling,
}

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Schema)]
pub struct Sampling {
    /// The part of all, from 0 to 1.
    pub ratio: f64,
    /// At most so many a second, of those.
    pub per_second: u32,
}

impl Default for Sampling {
    /// All, up to a hundred a second: a quiet service is seen whole, and a busy one costs no more than that.
    fn default() -> Self {
        Self { ratio: 1.0, per_second: 100 }
    }
}

impl Level {
    /// In capital letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}
