//! [`Slice`]: a part of a parcel's records. Kinds share parcels until each has sent what is its own.

use std::sync::Arc;

use super::config::Signal;
use crate::parcel::Parcel;
use watchdog_service::log::{Event, Field, Record, Span, SpanStatus, Value};

/// Some of the records of one kind that a parcel has.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) parcel: Arc<Parcel>,
    /// Where it begins and ends among all records.
    pub(super) from: usize,
    pub(super) to: usize,
    /// So many of the kind are there.
    pub(super) count: usize,
    /// What it is taken to need of memory.
    pub(super) bytes: usize,
}

/// A kind of records: what goes one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    Events,
    Spans,
}

impl RecordKind {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Events, Self::Spans];

    /// What it is called on its way.
    pub(super) fn signal(self) -> Signal {
        match self {
            Self::Events => Signal::Logs,
            Self::Spans => Signal::Traces,
        }
    }

    /// Whether the record goes this way.
    pub(super) fn takes(self, record: &Record) -> bool {
        match (self, record) {
            (Self::Events, Record::Event(_)) | (Self::Spans, Record::Span(_)) => true,
            (Self::Events, Record::Span(_)) | (Self::Spans, Record::Event(_)) => false,
        }
    }
}

impl Slice {
    /// All that goes this way; `None` when nothing does.
    pub(super) fn whole(parcel: &Arc<Parcel>, kind: RecordKind) -> Option<Self> {
        let (mut count, mut bytes) = (0, 0);
        for record in parcel.batch.records.iter().filter(|record| kind.takes(record)) {
            count += 1;
            bytes += weight(record);
        }
        (count > 0).then(|| Self {
            parcel: parcel.clone(),
            from: 0,
            to: parcel.batch.records.len(),
            count,
            bytes,
        })
    }

    /// Takes the first `count` off, or those of the first `bytes`, one at least.
    pub(super) fn split(&mut self, kind: RecordKind, count: usize, bytes: usize) -> Self {
        let (mut head, mut at) = (Self { count: 0, bytes: 0, ..self.clone() }, self.from);
        while head.count < self.count && head.count < count.max(1) {
            let record = &self.parcel.batch.records[at];
            if kind.takes(record) {
                let bytes_more = weight(record);
                if head.count > 0 && head.bytes + bytes_more > bytes {
                    break;
                }
                head.count += 1;
                head.bytes += bytes_more;
            }
            at += 1;
        }
        head.to = at;
        (self.from, self.count, self.bytes) = (at, self.count - head.count, self.bytes - head.bytes);
        head
    }

    /// The records of the kind, with their numbers.
    pub(super) fn records(&self, kind: RecordKind) -> impl Iterator<Item = (u64, &Record)> {
        (self.parcel.batch.first + self.from as u64..)
            .zip(&self.parcel.batch.records[self.from..self.to])
            .filter(move |(_, record)| kind.takes(record))
    }
}

/// What a record is taken to need of memory. A request of it has no more bytes than that.
pub(super) fn weight(record: &Record) -> usize {
    let texts = match record {
        Record::Event(Event { target, message, fields, scope, .. }) => {
            target.len() + message.len() + scope.len() + fields_weight(fields)
        }
        Record::Span(Span { target, name, fields, links, status, .. }) => {
            let status = match status {
                SpanStatus::Unset | SpanStatus::Ok => 0,
                SpanStatus::Error(text) => text.len(),
            };
            target.len() + name.len() + fields_weight(fields) + 64 * links.len() + status
        }
    };
    size_of::<Record>() + texts
}

fn fields_weight(fields: &[Field]) -> usize {
    let weight = |field: &Field| {
        let text = match &field.value {
            Value::Text(text) => text.len(),
            Value::Signed(_) | Value::Unsigned(_) | Value::Float(_) | Value::Bool(_) => 0,
        };
        size_of::<Field>() + field.key.len() + text
    };
    fields.iter().map(weight).sum()
}
