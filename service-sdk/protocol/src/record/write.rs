//! From what happens to bytes, without anything in between: the postcard that [`Batch`](super::Batch) is read from.

use super::{DropReason, Dropped, Level, SpanKind, SpanStatus};
use crate::limits::{MAX_RECORD_FIELDS, MAX_RECORD_TEXT};
use crate::trace::{SpanId, TraceContext};

/// The field that says how many there was no room for.
const LEFT_OUT: &str = "fields_left_out";

/// Fields of one record, written as they come. Together they take at most [`MAX_RECORD_FIELDS`] bytes; how many there
/// was no room for is a field of its own.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    count: u64,
    left_out: u64,
}

/// An [`Event`](super::Event) to be written.
#[derive(Debug)]
pub struct Event<'a> {
    /// When.
    pub at: u64,
    /// How grave.
    pub level: Level,
    /// Where it comes from.
    pub target: &'a str,
    /// What.
    pub message: &'a str,
    /// What is known of it.
    pub fields: &'a Fields,
    /// The span it happened in.
    pub within: Option<TraceContext>,
    /// The names of that span and those around it.
    pub scope: &'a str,
}

/// A [`Span`](super::Span) to be written.
#[derive(Debug)]
pub struct Span<'a> {
    /// Its trace and itself.
    pub context: TraceContext,
    /// The span it is part of.
    pub parent: Option<SpanId>,
    /// Its part in a conversation.
    pub kind: SpanKind,
    /// How grave.
    pub level: Level,
    /// Where it comes from.
    pub target: &'a str,
    /// What it is called.
    pub name: &'a str,
    /// When it began.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// What is known of it.
    pub fields: &'a Fields,
    /// Spans that led to it.
    pub links: &'a [TraceContext],
    /// Whether it went well.
    pub status: &'a SpanStatus,
}

/// What a batch says beside its records.
#[derive(Debug, Clone, Copy)]
pub struct BatchHead<'a> {
    /// Which process.
    pub incarnation: u64,
    /// Its number in the kernel.
    pub pid: u32,
    /// The number of the first record.
    pub first: u64,
    /// What was dropped.
    pub dropped: &'a [Dropped],
}

impl Fields {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.left_out) = (0, 0);
    }

    /// Appends text, cut after [`MAX_RECORD_TEXT`] bytes.
    pub fn text(&mut self, key: &str, value: &str) {
        let value = shortened(value);
        self.field(key, 0, value.len(), |out| text(out, value));
    }

    /// Appends a number of a signed type.
    pub fn signed(&mut self, key: &str, value: i64) {
        // Zigzag: small numbers are short, whatever their sign.
        self.field(key, 1, 0, |out| unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned()));
    }

    /// Appends a number of an unsigned type.
    pub fn unsigned(&mut self, key: &str, value: u64) {
        self.field(key, 2, 0, |out| unsigned(out, value));
    }

    /// Appends a number with a fraction.
    pub fn float(&mut self, key: &str, value: f64) {
        self.field(key, 3, 0, |out| out.extend_from_slice(&value.to_le_bytes()));
    }

    /// Appends yes or no.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.field(key, 4, 0, |out| out.push(value.into()));
    }

    fn field(&mut self, key: &str, kind: u8, length: usize, value: impl FnOnce(&mut Vec<u8>)) {
        let key = shortened(key);
        // What is not text takes ten bytes at most; so does a length.
        if self.left_out > 0 || self.bytes.len() + key.len() + length + 30 > MAX_RECORD_FIELDS {
            self.left_out += 1;
            return;
        }
        self.count += 1;
        text(&mut self.bytes, key);
        self.bytes.push(kind);
        value(&mut self.bytes);
    }

    fn append(&self, out: &mut Vec<u8>) {
        let is_cut = self.left_out > 0;
        unsigned(out, self.count + u64::from(is_cut));
        out.extend_from_slice(&self.bytes);
        if is_cut {
            text(out, LEFT_OUT);
            out.push(2);
            unsigned(out, self.left_out);
        }
    }
}

impl Event<'_> {
    /// Appends the record.
    pub fn append(&self, out: &mut Vec<u8>) {
        out.push(0);
        unsigned(out, self.at);
        out.push(self.level as u8);
        text(out, shortened(self.target));
        text(out, shortened(self.message));
        self.fields.append(out);
        option(out, self.within.map(TraceContext::to_bytes));
        text(out, shortened(self.scope));
    }
}

impl Span<'_> {
    /// Appends the record.
    pub fn append(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.extend_from_slice(&self.context.to_bytes());
        option(out, self.parent.map(SpanId::to_bytes));
        out.push(self.kind as u8);
        out.push(self.level as u8);
        text(out, shortened(self.target));
        text(out, shortened(self.name));
        unsigned(out, self.start);
        unsigned(out, self.end);
        self.fields.append(out);
        unsigned(out, self.links.len() as u64);
        for link in self.links {
            out.extend_from_slice(&link.to_bytes());
        }
        match self.status {
            SpanStatus::Unset => out.push(0),
            SpanStatus::Ok => out.push(1),
            SpanStatus::Error(why) => {
                out.push(2);
                text(out, shortened(why));
            }
        }
    }
}

/// Appends a whole batch: `records` are so many records, one appended after the other.
pub fn batch(out: &mut Vec<u8>, head: &BatchHead<'_>, count: u64, records: &[u8]) {
    unsigned(out, head.incarnation);
    unsigned(out, head.pid.into());
    unsigned(out, head.first);
    unsigned(out, head.dropped.len() as u64);
    for Dropped { reason, count } in head.dropped {
        out.push(match reason {
            DropReason::Full => 0,
            DropReason::Refused => 1,
        });
        unsigned(out, *count);
    }
    unsigned(out, count);
    out.extend_from_slice(records);
}

/// Text of at most [`MAX_RECORD_TEXT`] bytes.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_RECORD_TEXT)]
}

fn text(out: &mut Vec<u8>, text: &str) {
    unsigned(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn option<const N: usize>(out: &mut Vec<u8>, bytes: Option<[u8; N]>) {
    out.push(bytes.is_some().into());
    out.extend_from_slice(bytes.as_ref().map_or(&[], <[u8; N]>::as_slice));
}

/// Seven bits a byte, the least first.
fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::limits::MAX_INLINE;
    use crate::record::{self, Batch, Field, Record, Value};
    use crate::trace::TraceId;

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            "\\PC{0,20}".prop_map(Value::Text),
            any::<i64>().prop_map(Value::Signed),
            any::<u64>().prop_map(Value::Unsigned),
            (-1e300..1e300).prop_map(Value::Float),
            any::<bool>().prop_map(Value::Bool),
        ]
    }

    fn fields() -> impl Strategy<Value = Vec<Field>> {
        vec(("[a-z.]{1,8}", values()).prop_map(|(key, value)| Field { key, value }), 0..8)
    }

    fn contexts() -> impl Strategy<Value = TraceContext> {
        (1u128.., 1u64.., any::<u8>()).prop_map(|(trace, span, flags)| TraceContext {
            trace: TraceId::new(trace).expect("not zero"),
            span: SpanId::new(span).expect("not zero"),
            flags,
        })
    }

    fn levels() -> impl Strategy<Value = Level> {
        prop::sample::select(vec![Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error])
    }

    fn events() -> impl Strategy<Value = Record> {
        let parts = (any::<u64>(), levels(), "[a-z:]{0,9}", "\\PC{0,30}", fields(), "[a-z:]{0,9}");
        (parts, prop::option::of(contexts())).prop_map(
            |((at, level, target, message, fields, scope), within)| {
                Record::Event(record::Event { at, level, target, message, fields, within, scope })
            },
        )
    }

    fn spans() -> impl Strategy<Value = Record> {
        let kinds =
            [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];
        let status = prop_oneof![
            Just(SpanStatus::Unset),
            Just(SpanStatus::Ok),
            "\\PC{0,9}".prop_map(SpanStatus::Error)
        ];
        let parts =
            (contexts(), prop::option::of(contexts()), prop::sample::select(kinds.to_vec()), levels());
        let texts = ("[a-z:]{0,9}", "\\PC{0,9}", any::<u64>(), any::<u64>());
        (parts, texts, fields(), vec(contexts(), 0..3), status).prop_map(
            |(parts, texts, fields, links, status)| {
                let ((context, parent, kind, level), (target, name, start, end)) = (parts, texts);
                let parent = parent.map(|parent| parent.span);
                Record::Span(record::Span {
                    context,
                    parent,
                    kind,
                    level,
                    target,
                    name,
                    start,
                    end,
                    fields,
                    links,
                    status,
                })
            },
        )
    }

    fn written(fields: &[Field]) -> Fields {
        let mut out = Fields::default();
        for Field { key, value } in fields {
            match value {
                Value::Text(value) => out.text(key, value),
                Value::Signed(value) => out.signed(key, *value),
                Value::Unsigned(value) => out.unsigned(key, *value),
                Value::Float(value) => out.float(key, *value),
                Value::Bool(value) => out.bool(key, *value),
            }
        }
        out
    }

    fn append(record: &Record, out: &mut Vec<u8>) {
        match record {
            Record::Event(record::Event { at, level, target, message, fields, within, scope }) => {
                let fields = &written(fields);
                Event { at: *at, level: *level, target, message, fields, within: *within, scope }.append(out);
            }
            Record::Span(span) => Span {
                context: span.context,
                parent: span.parent,
                kind: span.kind,
                level: span.level,
                target: &span.target,
                name: &span.name,
                start: span.start,
                end: span.end,
                fields: &written(&span.fields),
                links: &span.links,
                status: &span.status,
            }
            .append(out),
        }
    }

    #[test]
    fn a_batch_is_these_bytes_for_ever() {
        let context = TraceContext {
            trace: TraceId::new(7).unwrap(),
            span: SpanId::new(8).unwrap(),
            flags: TraceContext::SAMPLED,
        };
        let mut fields = Fields::default();
        fields.text("peer", "counter");
        fields.signed("n", -3);
        fields.unsigned("total", 300);
        fields.float("share", 0.5);
        fields.bool("again", true);
        let mut records = Vec::new();
        let (target, scope) = ("bumper", "bump:ask");
        let event = Event {
            at: 1_000_000_007,
            level: Level::Warn,
            target,
            message: "late",
            fields: &fields,
            within: Some(context),
            scope,
        };
        event.append(&mut records);
        let span = Span {
            context,
            parent: SpanId::new(9),
            kind: SpanKind::Client,
            level: Level::Info,
            target,
            name: "ask",
            start: 1_000_000_000,
            end: 1_000_000_500,
            fields: &Fields::default(),
            links: &[context],
            status: &SpanStatus::Error("late".to_owned()),
        };
        span.append(&mut records);
        let dropped = [Dropped { reason: DropReason::Full, count: 5 }];
        let mut out = Vec::new();
        batch(&mut out, &BatchHead { incarnation: 2, pid: 4711, first: 41, dropped: &dropped }, 2, &records);
        assert_eq!(out, include_bytes!("../../testdata/records-1.bin"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_the_postcard_of_a_batch(
            records in vec(prop_oneof![events(), spans()], 0..6),
            incarnation: u64, pid: u32, first: u64, full in prop::option::of(any::<u64>()),
        ) {
            let dropped: Vec<_> = full
                .into_iter()
                .flat_map(|count| [DropReason::Full, DropReason::Refused].map(|reason| Dropped { reason, count }))
                .collect();
            let mut bytes = Vec::new();
            records.iter().for_each(|record| append(record, &mut bytes));
            let mut out = Vec::new();
            let head = BatchHead { incarnation, pid, first, dropped: &dropped };
            batch(&mut out, &head, records.len() as u64, &bytes);
            let read: Batch = postcard::from_bytes(&out).unwrap();
            prop_assert_eq!(&postcard::to_stdvec(&read).unwrap(), &out);
            prop_assert_eq!(read, Batch { incarnation, pid, first, dropped, records });
        }

        #[test]
        fn a_record_goes_in_a_packet_whatever_it_is_of(
            keys in vec(1usize..20_000, 0..300), length in 0usize..40_000
        ) {
            let long = "ü".repeat(length);
            let mut fields = Fields::default();
            keys.iter().for_each(|key| fields.text(&"k".repeat(*key), &long));
            let event = Event {
                at: 0, level: Level::Info, target: &long, message: &long, fields: &fields, within: None, scope: &long,
            };
            let mut bytes = Vec::new();
            event.append(&mut bytes);
            prop_assert!(bytes.len() < MAX_INLINE - 1024, "{}", bytes.len());
            let record: Record = postcard::from_bytes(&bytes).unwrap();
            let Record::Event(event) = record else { panic!("it is an event") };
            let left_out = event.fields.iter().find(|field| field.key == LEFT_OUT);
            let told = event.fields.len() - usize::from(left_out.is_some());
            let missing = left_out.map_or(0, |field| match field.value {
                Value::Unsigned(count) => count,
                _ => unreachable!("a number was written"),
            });
            prop_assert_eq!(told as u64 + missing, keys.len() as u64);
        }
    }
}
