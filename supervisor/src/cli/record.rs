//! A record as people read it.

use serde_json::Value;

use super::figures::short;
use super::look::{Look, Paint, harmless};
use crate::records::{Level, Record, What};

/// One line, with its time in front.
pub(super) fn text(record: &Record, named: bool, look: &Look) -> String {
    let name = if named { format!("{}  ", harmless(&record.service)) } else { String::new() };
    let (word, paint) = match (&record.what, record.level) {
        (What::Dropped { .. }, _) => ("LOST", Paint::Bad),
        (What::Unreadable, _) | (_, None) => ("", Paint::Plain),
        (_, Some(level)) => (level.as_str(), paint(level)),
    };
    let time = format!("{}Z", record.time.trim_end_matches('Z').get(..26).unwrap_or(&record.time));
    format!(
        "{}  {name}{} {}",
        look.paint(Paint::Faint, &harmless(&time)),
        look.paint(paint, &format!("{word:<5}")),
        harmless(&said(record))
    )
}

fn paint(level: Level) -> Paint {
    match level {
        Level::Error => Paint::Bad,
        Level::Warn => Paint::Doubtful,
        Level::Info => Paint::Plain,
        Level::Debug | Level::Trace => Paint::Faint,
    }
}

/// What it says, without when, who and how grave.
pub(super) fn said(record: &Record) -> String {
    match &record.what {
        What::Event { message, scope } => {
            let scope = if scope.is_empty() { String::new() } else { format!("{scope}: ") };
            let fields = fields(record);
            let gap = if message.is_empty() { "" } else { " " };
            format!("{scope}{}:{gap}{message}{fields}", record.target)
        }
        What::Span { name, duration_ns, status, error, .. } => {
            let status = match (status.as_deref(), error) {
                (Some("error"), Some(error)) => format!(" failed: {error}"),
                (Some("error"), None) => " failed".to_owned(),
                _ => String::new(),
            };
            format!("span {name} took {}{status}{}", short(*duration_ns as f64), fields(record))
        }
        What::Dropped { output, reason, count } => {
            let by =
                output.as_ref().map_or_else(|| "the service".to_owned(), |output| format!("output {output}"));
            let noun = if *count == 1 { "record was" } else { "records were" };
            format!("{count} {noun} dropped by {by}: {reason}")
        }
        What::Unreadable => record.json.clone(),
    }
}

/// ` key=value …`
pub(super) fn fields(record: &Record) -> String {
    let mut out = String::new();
    // The name of a span between services says what these do.
    let is_told = |key: &str| matches!(record.what, What::Span { .. }) && key.starts_with("messaging.");
    for (key, value) in record.fields.iter().filter(|(key, _)| !is_told(key)) {
        let is_plain = |text: &str| {
            !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"')
        };
        let value = match value {
            Value::String(text) if is_plain(text) => text.clone(),
            value => value.to_string(),
        };
        out.push_str(&format!(" {key}={value}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { color: false, width: None };

    fn shown(json: &str) -> String {
        text(&serde_json::from_str(json).unwrap(), true, &PLAIN)
    }

    #[test]
    fn an_event_is_one_line() {
        let json = r#"{"time":"2026-11-30T04:15:00.123456789Z","kind":"event","service":"counter","incarnation":1,"pid":7,"number":3,"level":"WARN","target":"counter::add","message":"not\u001b[31m added\nyet","fields":{"peer":"bumper","n":-3,"why":"too late","share":0.5},"scope":"serve:add","trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"}"#;
        assert_eq!(
            shown(json),
            "2026-11-30T04:15:00.123456Z  counter  WARN  serve:add: counter::add: not\u{fffd}[31m added\u{fffd}yet \
             peer=bumper n=-3 why=\"too late\" share=0.5"
        );
    }

    #[test]
    fn a_span_says_how_long_it_took_and_what_is_missing_how_much() {
        let span = r#"{"time":"2026-11-30T04:15:00.000000001Z","kind":"span","service":"a","level":"INFO","target":"t","name":"ask counter","trace_id":"0","span_id":"1","span_kind":"client","start":"2026-11-30T04:15:00Z","end":"2026-11-30T04:15:00Z","duration_ns":1234567,"status":"error","error":"late"}"#;
        assert!(shown(span).ends_with("INFO  span ask counter took 1.2ms failed: late"), "{}", shown(span));
        let gap = r#"{"time":"2026-11-30T04:15:00.000000001Z","kind":"dropped","service":"a","reason":"full","count":1,"total":4}"#;
        assert!(shown(gap).ends_with("LOST  1 record was dropped by the service: full"), "{}", shown(gap));
    }
}
