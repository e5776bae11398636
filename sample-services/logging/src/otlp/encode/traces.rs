//! Spans.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind as Kind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Encoded, Status};

use super::{attribute, attributes, grouped, scope};
use crate::otlp::slice::RecordKind;
use crate::otlp::slice::Slice;
use watchdog_service::log::{Record, Span, SpanKind, SpanStatus};

/// How grave a span is. OTLP has severities of logs alone.
const LEVEL: &str = "level";

pub(super) fn request(slices: &[Slice]) -> ExportTraceServiceRequest {
    let groups = grouped(RecordKind::Spans, slices, |number, record| match record {
        Record::Span(span) => Some((span.target.as_str(), encoded(number, span))),
        Record::Event(_) => None,
    });
    let resource_spans = groups.into_iter().map(|(resource, scopes)| {
        let scope_spans = scopes.into_iter().map(|found| ScopeSpans {
            scope: scope(found.target),
            spans: found.records,
            ..ScopeSpans::default()
        });
        ResourceSpans {
            resource: Some(resource),
            scope_spans: scope_spans.collect(),
            ..ResourceSpans::default()
        }
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn encoded(number: u64, span: &Span) -> Encoded {
    let level = attribute(LEVEL, Any::StringValue(span.level.as_str().to_owned()));
    let links = span.links.iter().map(|link| Link {
        trace_id: link.trace.to_bytes().to_vec(),
        span_id: link.span.to_bytes().to_vec(),
        flags: link.flags.into(),
        ..Link::default()
    });
    Encoded {
        trace_id: span.context.trace.to_bytes().to_vec(),
        span_id: span.context.span.to_bytes().to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.to_bytes().to_vec()),
        flags: span.context.flags.into(),
        name: span.name.clone(),
        kind: kind(span.kind).into(),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: attributes(&span.fields, Some(level), number),
        links: links.collect(),
        status: status(&span.status),
        ..Encoded::default()
    }
}

fn kind(kind: SpanKind) -> Kind {
    match kind {
        SpanKind::Internal => Kind::Internal,
        SpanKind::Server => Kind::Server,
        SpanKind::Client => Kind::Client,
        SpanKind::Producer => Kind::Producer,
        SpanKind::Consumer => Kind::Consumer,
    }
}

fn status(status: &SpanStatus) -> Option<Status> {
    let (code, message) = match status {
        SpanStatus::Unset => return None,
        SpanStatus::Ok => (StatusCode::Ok, String::new()),
        SpanStatus::Error(why) => (StatusCode::Error, why.clone()),
    };
    Some(Status { message, code: code.into() })
}
