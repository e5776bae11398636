//! Takes the records of all services, and says what each is to record.
//!
//! ```text
//! service ── Records ─► ledger ─► redaction ─► parcel ─► outputs: a queue and a thread each
//!         ── Filter ──► waiting ◄─ filter ◄─ settings, the end of a filter
//! core ── event log ──► timeline: records of `watchdog`, which go the same way
//! ```
//! Invariants:
//! - No output delays another one, nor the intake for longer than [`output`] says. What one can't take is dropped, and
//!   counted by service, output and reason: what came is what was written and what was dropped.
//! - No output sees what a pattern of `redact` matches.
//! - A record is one line of a file, whole, and there once, whoever is killed when: the message it came in is done when
//!   it is in the file, and what comes again is compared with the end of that file.
//! - Every line is JSON, or logfmt, whatever a service has put into a record, and commands no terminal.
//! - What happens in the watchdog is a record of `watchdog`, each entry of its event log once, whoever is killed when. The
//!   service whom it is about is a field, beside all that the entry rests on. It needs the grant for `events`.
//! - A wrong setting is refused with its place, and changes nothing.
//!
//! - A collector, and the journal of systemd, get a record at least once: what waits for one is in memory and ends with this
//!   process, and what is sent when the connection breaks, or came again after a kill, is sent again. OpenTelemetry is linked here and nowhere else ([`otlp`]).
//!
//! Absent: records of its own. What it has to say goes to standard error, or each would bring another one.
//!
//! # A line of JSON
//! | key | |
//! |---|---|
//! | `time` | RFC 3339, UTC, nanoseconds: when it happened, of a span when it ended, of what was dropped when it was noticed |
//! | `kind` | `event`, `span`, `dropped` |
//! | `service`, `incarnation`, `pid` | who; of `watchdog`, which event log, from 1, and no pid: 0 |
//! | `number` | which of that process; of `watchdog`, which entry of the event log; not of `dropped` |
//! | `level`, `target` | `TRACE` to `ERROR`; most often a module |
//! | `message` | of an event |
//! | `name` | of a span |
//! | `fields` | an object, when there are any; floats that are no numbers are text |
//! | `scope` | of an event within spans: their names, outermost first |
//! | `trace_id`, `span_id` | of a span itself; of an event the span it happened in |
//! | `parent_id` | of a span that has one |
//! | `span_kind` | `internal`, `server`, `client`, `producer`, `consumer` |
//! | `start`, `end`, `duration_ns` | of a span |
//! | `status`, `error` | of a span that said how it went: `ok`, or `error` and why |
//! | `links` | of a span: objects with `trace_id` and `span_id` |
//! | `output`, `reason`, `count`, `total` | of `dropped`: the output that did it, or else the service itself; why; how many since the last such line, and since that process started |
//!
//! Keys up to `number` stand in this order, before anything a service has to say.

mod filter;
mod format;
mod ledger;
mod metrics;
mod now;
mod otlp;
mod output;
mod parcel;
mod redaction;
mod scrape;
mod service;
mod settings;
mod timeline;

fn main() -> std::process::ExitCode {
    watchdog_service::run(service::logging)
}
