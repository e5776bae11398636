//! The W3C trace context: which trace a message or a record belongs to, and under which span.

use std::fmt;

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

/// Bytes of a [`TraceContext`] in an envelope.
pub const TRACE: usize = 25;

/// A trace: one request, through however many processes. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Schema)]
pub struct TraceId([u8; 16]);

/// One span of a trace. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Schema)]
pub struct SpanId([u8; 8]);

/// What travels with a message: its trace, the span that sent it, and the flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Schema)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that is the parent of what comes of it.
    pub span: SpanId,
    /// As the W3C has them: bit 0 says that the trace is recorded.
    pub flags: u8,
}

impl TraceId {
    /// `None` for zero, which names no trace.
    pub fn new(id: u128) -> Option<Self> {
        (id != 0).then(|| Self(id.to_be_bytes()))
    }

    /// Most significant byte first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Of 32 lower or upper case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Self::new(u128::from_str_radix(text, 16).ok()?)
    }
}

impl SpanId {
    /// `None` for zero, which names no span.
    pub fn new(id: u64) -> Option<Self> {
        (id != 0).then(|| Self(id.to_be_bytes()))
    }

    /// Most significant byte first.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl TraceContext {
    /// The flag of a trace that is recorded.
    pub const SAMPLED: u8 = 1;

    /// Whether spans of this trace are recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// Trace, span, flags.
    pub fn to_bytes(self) -> [u8; TRACE] {
        let mut bytes = [0; TRACE];
        bytes[..16].copy_from_slice(&self.trace.0);
        bytes[16..24].copy_from_slice(&self.span.0);
        bytes[24] = self.flags;
        bytes
    }

    /// `None` when an id is zero: then it is no context.
    pub fn from_bytes(bytes: [u8; TRACE]) -> Option<Self> {
        let [id @ .., flags] = bytes;
        let (trace, span) = id.split_at(16);
        let trace = TraceId::new(u128::from_be_bytes(trace.try_into().expect("the first 16 of 24")))?;
        let span = SpanId::new(u64::from_be_bytes(span.try_into().expect("the last 8 of 24")))?;
        Some(Self { trace, span, flags })
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// As the header `traceparent` has it.
impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_shown_as_the_w3c_writes_it() {
        let context = TraceContext {
            trace: TraceId::new(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c).unwrap(),
            span: SpanId::new(0xb7ad_6b71_6920_3331).unwrap(),
            flags: TraceContext::SAMPLED,
        };
        assert_eq!(context.to_string(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(TraceId::parse("0AF7651916cd43dd8448eb211c80319c"), Some(context.trace));
    }

    #[test]
    fn zero_names_nothing() {
        assert_eq!(TraceId::parse(&"0".repeat(32)), None);
        assert_eq!(TraceId::parse("+af7651916cd43dd8448eb211c80319c"), None);
        assert_eq!(TraceContext::from_bytes([0; TRACE]), None);
        let mut no_span = [0; TRACE];
        no_span[3] = 1;
        assert_eq!(TraceContext::from_bytes(no_span), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(trace in 1u128.., span in 1u64.., flags: u8) {
            let context =
                TraceContext { trace: TraceId::new(trace).unwrap(), span: SpanId::new(span).unwrap(), flags };
            prop_assert_eq!(TraceContext::from_bytes(context.to_bytes()), Some(context));
            prop_assert_eq!(TraceId::parse(&context.trace.to_string()), Some(context.trace));
        }
    }
}
