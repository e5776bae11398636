//! One service in detail.

use watchdog_protocol::status::{ServiceKind, ServiceStatus, VerdictStatus};

use super::{Look, Paint, count, harmless, paint, phase, pids, size, span};

/// Name, phase and process in one line.
pub(in crate::cli) fn headline(service: &ServiceStatus, look: &Look) -> String {
    let mut line = format!(
        "{}: {}",
        look.paint(Paint::Strong, service.name.as_str()),
        look.paint(paint(service), &harmless(&phase(service)))
    );
    if let Some(pid) = service.pid {
        line += &format!(", pid {pid}");
    }
    line
}

/// All there is to know, a line a subject.
pub(in crate::cli) fn detail(service: &ServiceStatus, look: &Look) -> String {
    let mut text = format!("{}, for {}\n", headline(service, look), span(service.phase_ms));
    let mut line = |subject: &str, words: String| text += &format!("  {subject:<9} {}\n", harmless(&words));
    if let Some(who) = &service.wanted_by {
        line("wanted", format!("down: {who}"));
    }
    let mut process = match service.uptime_ms {
        Some(up) => {
            format!("number {}, up {}, {}", service.incarnation, span(up), count(service.starts, "start"))
        }
        None => format!("none, {}", count(service.starts, "start")),
    };
    if let Some(memory) = service.memory {
        process += &format!(", {} memory", size(memory));
    }
    if let Some(cpu) = service.cpu_ms {
        process += &format!(", {} processor", span(cpu));
    }
    if let Some(descriptors) = service.descriptors {
        process += &format!(", {}", count(descriptors, "descriptor"));
    }
    line("process", process);
    if !service.survivors.is_empty() {
        line(
            "survivors",
            format!(
                "{}: of an ended process, can't be killed, block the next start",
                pids(&service.survivors)
            ),
        );
    }
    if service.drift {
        line("drift", format!("watchdog diff {}", service.name));
    }
    if let Some(settings) = &service.settings {
        let verdict = match settings.verdict {
            // After a refusal the newest revision has the values of before.
            VerdictStatus::Accepted | VerdictStatus::Refused => "in force",
            VerdictStatus::Pending => "pending",
        };
        let mut words = format!("revision {}, {verdict}", settings.revision);
        if settings.waiting > 0 {
            words += &format!(", {} behind it", count(settings.waiting, "change"));
        }
        if let Some(reason) = &settings.refused {
            words += &format!("; the change before was refused: {reason}");
        }
        line("settings", words);
    }
    if let Some(state) = &service.state {
        let saved = match state.age_ms {
            None => "not on disk yet".to_owned(),
            Some(age) if state.synced == state.sequence => format!("on disk since {}", span(age)),
            Some(age) => format!("{} on disk since {}", state.synced, span(age)),
        };
        let size = size(state.bytes);
        let mut words = format!("sequence {}, {saved}, version {}, {size}", state.sequence, state.version);
        if let Some(why) = &state.failed {
            words += &format!("; the last write failed: {why}");
        }
        line("state", words);
    }
    if service.kind == ServiceKind::Service {
        line(
            "intercom",
            format!(
                "{}, {} in, {} out, {} queued",
                count(service.handles, "handle"),
                service.messages_in,
                service.messages_out,
                service.queued
            ),
        );
    }
    if let Some(end) = &service.last_end {
        line(
            "last end",
            format!("{} ago, number {}: {} [{}]", span(end.ago_ms), end.incarnation, end.why, end.cause),
        );
        for last in &end.last_lines {
            line("", format!("| {last}"));
        }
    }
    text
}
