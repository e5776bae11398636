//! From records and metrics to what OTLP calls them. Pure.
//!
//! Of records one resource a process, and in it one scope a target, each in the order it comes first.

mod logs;
mod metrics;
mod traces;

use std::collections::HashMap;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use watchdog_service::ServiceName;

use super::slice::{RecordKind, Slice};
use crate::metrics::Gathering;
use watchdog_service::log::{Field, Record, Value};

/// The number that the process gave a record: with the resource it tells one record from all others, so that what was
/// sent twice can be told. A collector that was cut off in the middle may have taken what is sent again.
const NUMBER: &str = "watchdog.record.number";

/// The bytes of all requests that it takes: a collector refuses one that is too long.
pub(super) fn metrics(found: &Gathering) -> Vec<Bytes> {
    metrics::requests(found).map(|request| request.encode_to_vec().into()).collect()
}

/// The bytes of a request.
pub(super) fn request(kind: RecordKind, slices: &[Slice]) -> Bytes {
    match kind {
        RecordKind::Events => logs::request(slices).encode_to_vec().into(),
        RecordKind::Spans => traces::request(slices).encode_to_vec().into(),
    }
}

/// Where the scope of a target is.
type Targets<'t> = HashMap<&'t str, usize>;

/// The records of one target of one process.
struct Scope<T> {
    target: String,
    records: Vec<T>,
}

/// All records of a kind by process and target; `encoded` makes one of them, of its number, and says its target.
fn grouped<T>(
    kind: RecordKind,
    slices: &[Slice],
    encoded: impl Fn(u64, &Record) -> Option<(&str, T)>,
) -> Vec<(Resource, Vec<Scope<T>>)> {
    let mut groups: Vec<(Resource, Vec<Scope<T>>)> = Vec::new();
    let mut known: HashMap<(&ServiceName, u64), (usize, Targets<'_>)> = HashMap::new();
    for slice in slices {
        let (group, targets) =
            known.entry((&slice.parcel.service, slice.parcel.batch.incarnation)).or_insert_with(|| {
                groups.push((resource(slice), Vec::new()));
                (groups.len() - 1, HashMap::new())
            });
        let scopes = &mut groups[*group].1;
        for (number, record) in slice.records(kind) {
            let Some((target, one)) = encoded(number, record) else { continue };
            let scope = *targets.entry(target).or_insert_with(|| {
                scopes.push(Scope { target: target.to_owned(), records: Vec::new() });
                scopes.len() - 1
            });
            scopes[scope].records.push(one);
        }
    }
    groups
}

/// Which process it is.
fn resource(slice: &Slice) -> Resource {
    let (service, batch) = (&slice.parcel.service, &slice.parcel.batch);
    let mut attributes = vec![
        attribute("service.name", Any::StringValue(service.to_string())),
        attribute("service.instance.id", Any::StringValue(batch.incarnation.to_string())),
    ];
    // Entries of the event log do not say which process wrote them.
    if batch.pid != 0 {
        attributes.push(attribute("process.pid", Any::IntValue(batch.pid.into())));
    }
    Resource { attributes, ..Resource::default() }
}

fn scope(target: String) -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: target, ..InstrumentationScope::default() })
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Attributes of a record: what is known of it, what there is a name for beside, and its number.
fn attributes(fields: &[Field], more: Option<KeyValue>, number: u64) -> Vec<KeyValue> {
    let mut out = Vec::with_capacity(fields.len() + 2);
    out.extend(fields.iter().map(|field| attribute(&field.key, any(&field.value))));
    out.extend(more);
    out.push(attribute(NUMBER, unsigned(number)));
    out
}

fn any(value: &Value) -> Any {
    match value {
        Value::Text(text) => Any::StringValue(text.clone()),
        Value::Signed(number) => Any::IntValue(*number),
        Value::Unsigned(number) => unsigned(*number),
        Value::Float(number) => Any::DoubleValue(*number),
        Value::Bool(yes) => Any::BoolValue(*yes),
    }
}

/// OTLP has no unsigned numbers: a larger one is text rather than another number.
fn unsigned(number: u64) -> Any {
    i64::try_from(number).map_or_else(|_| Any::StringValue(number.to_string()), Any::IntValue)
}

#[cfg(test)]
mod tests;
