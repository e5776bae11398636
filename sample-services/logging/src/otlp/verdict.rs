//! What an answer means for the records that were sent. Pure; the tables are those of the OTLP specification.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use tonic::Code;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The collector has it, but for so many of its records.
    Accepted { rejected: u64, why: String },
    /// The same request may be taken later; not before the collector wants it.
    Retry { after: Option<Duration>, why: String },
    /// It will never be taken.
    Refused { why: String },
}

/// A longer wish of a collector is not heard: it would look as if the exporter was dead.
const LONGEST_WISH: Duration = Duration::from_secs(300);

/// Of what a gRPC server answered. `delay` is what its answer says of trying again.
pub(super) fn of_grpc(code: Code, delay: Option<Duration>, message: &str) -> Verdict {
    let name = name(code);
    let why = if message.is_empty() { name.to_owned() } else { format!("{name}: {}", one_line(message)) };
    let after = delay.map(|delay| delay.min(LONGEST_WISH));
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Verdict::Retry { after, why },
        // Only a server that says when it has room again will have some.
        Code::ResourceExhausted if after.is_some() => Verdict::Retry { after, why },
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => Verdict::Refused { why },
    }
}

/// Of what an HTTP server answered that is no success.
pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, message: &str, now: SystemTime) -> Verdict {
    let why = if message.is_empty() {
        format!("HTTP {status}")
    } else {
        format!("HTTP {status}: {}", one_line(message))
    };
    match status.as_u16() {
        429 | 502..=504 => Verdict::Retry { after: retry_after(headers, now), why },
        _ => Verdict::Refused { why },
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(after.min(LONGEST_WISH))
}

/// As much of foreign text as an operator wants in a line of status.
pub(super) fn one_line(text: &str) -> String {
    const MOST: usize = 200;
    let clean = text.trim().chars().map(|found| if found.is_control() { ' ' } else { found });
    clean.take(MOST).collect()
}

/// As the specification of gRPC writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(status: u16, wish: Option<&str>) -> Verdict {
        let mut headers = HeaderMap::new();
        if let Some(wish) = wish {
            headers.insert(header::RETRY_AFTER, wish.parse().unwrap());
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        of_http(StatusCode::from_u16(status).unwrap(), &headers, "", now)
    }

    fn wish(verdict: Verdict) -> Option<Duration> {
        match verdict {
            Verdict::Retry { after, .. } => after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn http_is_tried_again_for_four_statuses_and_no_others() {
        let again: Vec<_> =
            (300..600).filter(|status| matches!(http(*status, None), Verdict::Retry { .. })).collect();
        assert_eq!(again, [429, 502, 503, 504]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_bound() {
        assert_eq!(wish(http(503, None)), None);
        assert_eq!(wish(http(429, Some("7"))), Some(Duration::from_secs(7)));
        let date = "Sun, 06 Nov 1994 08:49:47 GMT";
        assert_eq!(wish(http(503, Some(date))), Some(Duration::from_secs(10)));
        let past = "Sun, 06 Nov 1994 08:49:27 GMT";
        assert_eq!(wish(http(503, Some(past))), Some(Duration::ZERO));
        assert_eq!(wish(http(503, Some("soon"))), None);
        assert_eq!(wish(http(503, Some("86400"))), Some(LONGEST_WISH));
    }

    #[test]
    fn grpc_is_tried_again_for_the_codes_of_the_specification() {
        let again: Vec<_> = (0..17)
            .map(Code::from)
            .filter(|code| matches!(of_grpc(*code, None, ""), Verdict::Retry { .. }))
            .map(name)
            .collect();
        let expected =
            ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"];
        assert_eq!(again, expected);
    }

    #[test]
    fn an_exhausted_collector_is_tried_again_when_it_says_when() {
        let second = Duration::from_secs(1);
        assert_eq!(wish(of_grpc(Code::ResourceExhausted, Some(second), "")), Some(second));
        let why = "RESOURCE_EXHAUSTED: too large".to_owned();
        assert_eq!(of_grpc(Code::ResourceExhausted, None, "too large"), Verdict::Refused { why });
    }

    #[test]
    fn foreign_text_is_one_short_line() {
        assert_eq!(one_line(" a\nb\u{1b}[31m\n"), "a b [31m");
        assert_eq!(one_line(&"ü".repeat(1000)).chars().count(), 200);
    }
}
