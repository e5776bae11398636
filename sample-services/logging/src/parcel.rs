//! [`Parcel`]: what goes to all outputs at once, encoded once a format.

use std::sync::OnceLock;

use watchdog_service::ServiceName;

use crate::format::{self, Format};
use watchdog_service::log::{Batch, Record, Value};

/// Records of one process on their way to the outputs. Redacted: nothing behind it sees what was taken out.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) service: ServiceName,
    pub(crate) batch: Batch,
    /// What was dropped before these records.
    pub(crate) gaps: Vec<Gap>,
    /// An earlier process of this service had it in hand: an output may have some of it.
    pub(crate) is_redelivered: bool,
    encoded: [OnceLock<Vec<u8>>; Format::COUNT],
    weight: usize,
}

/// Records that no output, or not this one, will ever have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// When it was noticed: nanoseconds since 1970.
    pub(crate) at: u64,
    /// Who dropped them.
    pub(crate) by: DroppedBy,
    /// Why, in a word.
    pub(crate) reason: &'static str,
    /// How many since the last gap for the same reason.
    pub(crate) count: u64,
    /// How many since that process started.
    pub(crate) total: u64,
}

/// Who drops records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DroppedBy {
    /// The process that made them.
    Sender,
    /// An output, by its name: the others may have them.
    Output(String),
}

impl Parcel {
    pub(crate) fn new(service: ServiceName, batch: Batch, gaps: Vec<Gap>, is_redelivered: bool) -> Self {
        let weight = weight(&batch) + gaps.len() * 200;
        Self { service, batch, gaps, is_redelivered, encoded: Default::default(), weight }
    }

    /// What it counts for in a queue that is bounded by bytes: about what it takes, encoded in one format.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Records in it.
    pub(crate) fn len(&self) -> u64 {
        self.batch.records.len() as u64
    }

    /// Nothing to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.records.is_empty() && self.gaps.is_empty()
    }

    /// A line a record; made by the first output that asks for it.
    pub(crate) fn lines(&self, format: Format) -> &[u8] {
        self.encoded[format as usize].get_or_init(|| {
            let mut out = Vec::with_capacity(self.weight);
            format::encode(format, self, &mut out);
            out
        })
    }

    /// What is left of it for an output that has records of this process up to `written`.
    pub(crate) fn after(&self, written: u64) -> Self {
        let known = written.saturating_add(1).saturating_sub(self.batch.first);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(self.batch.records.len());
        let batch = Batch {
            first: self.batch.first + known as u64,
            dropped: Vec::new(),
            records: self.batch.records[known..].to_vec(),
            ..self.batch
        };
        // What was dropped stands before the records.
        let gaps = if known == 0 { self.gaps.clone() } else { Vec::new() };
        Self::new(self.service.clone(), batch, gaps, false)
    }
}

fn weight(batch: &Batch) -> usize {
    /// Names, numbers and marks of one line.
    const FRAME: usize = 200;
    let mut bytes = 0;
    for record in &batch.records {
        let (texts, fields, links) = match record {
            Record::Event(event) => {
                (event.target.len() + event.message.len() + event.scope.len(), &event.fields, 0)
            }
            Record::Span(span) => (span.target.len() + span.name.len(), &span.fields, span.links.len()),
        };
        let values = fields.iter().map(|field| match &field.value {
            Value::Text(text) => field.key.len() + text.len() + 8,
            _ => field.key.len() + 16,
        });
        bytes += FRAME + texts + values.sum::<usize>() + links * 80;
    }
    bytes
}

#[cfg(test)]
pub(crate) mod sample {
    //! Batches for tests.

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use watchdog_service::log::{
        Event, Field, Level, Span, SpanId, SpanKind, SpanStatus, TraceContext, TraceId,
    };

    pub(crate) fn event(message: &str) -> Record {
        Record::Event(Event {
            at: 1_764_474_000_123_456_789,
            level: Level::Info,
            target: "counter::add".into(),
            message: message.into(),
            fields: Vec::new(),
            within: None,
            scope: String::new(),
        })
    }

    /// So many events, `first` and on; each says its number.
    pub(crate) fn batch(incarnation: u64, first: u64, count: u64) -> Batch {
        let records = (first..first + count).map(|number| event(&format!("record {number}"))).collect();
        Batch { incarnation, pid: 7, first, dropped: Vec::new(), records }
    }

    pub(crate) fn parcel(service: &str, batch: Batch) -> Parcel {
        Parcel::new(service.parse().unwrap(), batch, Vec::new(), false)
    }

    fn contexts() -> impl Strategy<Value = TraceContext> {
        (1u128.., 1u64.., any::<u8>()).prop_map(|(trace, span, flags)| TraceContext {
            trace: TraceId::new(trace).unwrap(),
            span: SpanId::new(span).unwrap(),
            flags,
        })
    }

    /// Any text at all: control characters, quotes, half of Unicode.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![vec(any::<char>(), 0..12).prop_map(String::from_iter), "[ -~]{0,20}"]
    }

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            texts().prop_map(Value::Text),
            any::<i64>().prop_map(Value::Signed),
            any::<u64>().prop_map(Value::Unsigned),
            any::<f64>().prop_map(Value::Float),
            Just(Value::Float(f64::NAN)),
            Just(Value::Float(f64::NEG_INFINITY)),
            any::<bool>().prop_map(Value::Bool),
        ]
    }

    fn fields() -> impl Strategy<Value = Vec<Field>> {
        vec((texts(), values()).prop_map(|(key, value)| Field { key, value }), 0..5)
    }

    fn levels() -> impl Strategy<Value = Level> {
        prop::sample::select(vec![Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error])
    }

    fn events() -> impl Strategy<Value = Record> {
        (any::<u64>(), levels(), texts(), texts(), fields(), prop::option::of(contexts()), texts()).prop_map(
            |(at, level, target, message, fields, within, scope)| {
                Record::Event(Event { at, level, target, message, fields, within, scope })
            },
        )
    }

    fn spans() -> impl Strategy<Value = Record> {
        let status =
            prop_oneof![Just(SpanStatus::Unset), Just(SpanStatus::Ok), texts().prop_map(SpanStatus::Error)];
        let times = (any::<u64>(), any::<u64>());
        (
            contexts(),
            prop::option::of(contexts()),
            texts(),
            texts(),
            times,
            fields(),
            vec(contexts(), 0..3),
            status,
        )
            .prop_map(|(context, parent, target, name, (start, end), fields, links, status)| {
                let (parent, kind, level) =
                    (parent.map(|parent| parent.span), SpanKind::Client, Level::Debug);
                Record::Span(Span {
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
            })
    }

    pub(crate) fn batches() -> impl Strategy<Value = Batch> {
        let records = vec(prop_oneof![events(), spans()], 0..6);
        (1..u64::MAX, any::<u32>(), 1..u64::MAX / 2, records).prop_map(
            |(incarnation, pid, first, records)| Batch {
                incarnation,
                pid,
                first,
                dropped: Vec::new(),
                records,
            },
        )
    }

    /// Puts a text into all that a program may have put a secret in.
    pub(crate) fn hide(batch: &mut Batch, secret: &str) {
        for record in &mut batch.records {
            let fields = match record {
                Record::Event(event) => {
                    event.message.insert_str(0, secret);
                    &mut event.fields
                }
                Record::Span(span) => {
                    span.name.push_str(secret);
                    span.status = SpanStatus::Error(format!("not {secret}"));
                    &mut span.fields
                }
            };
            for field in fields {
                // No number of another kind may look like it.
                field.value = Value::Text(format!("<{secret}>"));
                field.key = "key".into();
            }
            let (Record::Event(Event { at, .. }) | Record::Span(Span { start: at, .. })) = record;
            *at = 0;
            if let Record::Span(span) = record {
                span.end = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_output_has_is_left_out() {
        let gap = Gap { at: 1, by: DroppedBy::Sender, reason: "full", count: 1, total: 1 };
        let parcel = Parcel::new("a".parse().unwrap(), sample::batch(1, 10, 5), vec![gap], true);
        for (written, first, left, gaps) in [
            (3, 10, 5, 1),
            (9, 10, 5, 1),
            (10, 11, 4, 0),
            (13, 14, 1, 0),
            (14, 15, 0, 0),
            (u64::MAX, 15, 0, 0),
        ] {
            let rest = parcel.after(written);
            assert_eq!((rest.batch.first, rest.len(), rest.gaps.len()), (first, left, gaps), "{written}");
        }
    }
}
