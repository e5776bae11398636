//! Events: log records.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};

use super::{attribute, attributes, grouped, scope};
use crate::otlp::slice::RecordKind;
use crate::otlp::slice::Slice;
use watchdog_service::log::{Event, Level, Record};

/// The names of the spans around an event, outermost first. Its span may be of a trace that nobody records.
const SCOPE: &str = "watchdog.scope";

pub(super) fn request(slices: &[Slice]) -> ExportLogsServiceRequest {
    let groups = grouped(RecordKind::Events, slices, |number, record| match record {
        Record::Event(event) => Some((event.target.as_str(), log_record(number, event))),
        Record::Span(_) => None,
    });
    let resource_logs = groups.into_iter().map(|(resource, scopes)| {
        let scope_logs = scopes.into_iter().map(|found| ScopeLogs {
            scope: scope(found.target),
            log_records: found.records,
            ..ScopeLogs::default()
        });
        ResourceLogs { resource: Some(resource), scope_logs: scope_logs.collect(), ..ResourceLogs::default() }
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

fn log_record(number: u64, event: &Event) -> LogRecord {
    let around = (!event.scope.is_empty()).then(|| attribute(SCOPE, Any::StringValue(event.scope.clone())));
    let within = event.within;
    LogRecord {
        time_unix_nano: event.at,
        observed_time_unix_nano: event.at,
        severity_number: severity(event.level).into(),
        severity_text: event.level.as_str().to_owned(),
        body: Some(AnyValue { value: Some(Any::StringValue(event.message.clone())) }),
        attributes: attributes(&event.fields, around, number),
        flags: within.map_or(0, |within| within.flags.into()),
        trace_id: within.map_or_else(Vec::new, |within| within.trace.to_bytes().to_vec()),
        span_id: within.map_or_else(Vec::new, |within| within.span.to_bytes().to_vec()),
        ..LogRecord::default()
    }
}

fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::Trace => SeverityNumber::Trace,
        Level::Debug => SeverityNumber::Debug,
        Level::Info => SeverityNumber::Info,
        Level::Warn => SeverityNumber::Warn,
        Level::Error => SeverityNumber::Error,
    }
}
