//! All that is known of one service, in lines.

use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::LimitKey;

use super::draw::{Now, age};
use super::model::Model;
use crate::cli::figures::{count, size};
use crate::cli::look::{Look, harmless};
use crate::cli::status;

/// The newest entries of the event log about it.
const EVENTS: usize = 30;

pub(super) fn lines(model: &Model, service: &ServiceName, now: Now) -> Vec<String> {
    let Some(status) = model.status_of(service) else {
        return vec![format!("{service} is not registered any more")];
    };
    let plain = Look { color: false, width: None };
    let mut lines: Vec<String> = status::detail(status, &plain).lines().map(str::to_owned).collect();
    let mut line = |subject: &str, words: String| lines.push(format!("  {subject:<9} {}", harmless(&words)));
    let limits = model.limits_of(service);
    line(
        "limits",
        match limits {
            Some(limits) if limits.limits.is_empty() => "none".to_owned(),
            Some(limits) => limits.limits.to_string(),
            None => "not known".to_owned(),
        },
    );
    for (key, why) in limits.iter().flat_map(|limits| &limits.not_in_force) {
        line("", format!("{key} is not in force: {why}"));
    }
    match (model.standing_of(service), &model.no_standings) {
        (Some(standing), _) => line(
            "let have",
            format!(
                "priority {}, processor time: {}, memory: {}",
                standing.priority,
                let_have(LimitKey::Cpu, &standing.cpu),
                let_have(LimitKey::MemoryHigh, &standing.memory)
            ),
        ),
        (None, Some(why)) => line("let have", format!("not known: {why}")),
        (None, None) => {}
    }
    if let Some(words) = usage(model, service) {
        line("use", words);
    }
    lines.push(String::new());
    let of_it = model.events.iter().filter(|event| event.service.as_ref() == Some(service));
    let mut events: Vec<_> = of_it.rev().take(EVENTS).collect();
    events.reverse();
    lines.push(if events.is_empty() { "no event is known" } else { "events" }.to_owned());
    for event in events {
        let cause = event.cause.as_ref().map(|cause| format!("[{cause}] ")).unwrap_or_default();
        let text = format!("  {:>6}  {:<9} {cause}{}", age(event, now), event.what, event.text);
        lines.push(harmless(&text));
    }
    if let Some((_, why)) = model.why.as_ref().filter(|(of, _)| of == service) {
        lines.push(String::new());
        lines.push("why".to_owned());
        lines.extend(why.iter().map(|line| format!("  {line}")));
    }
    lines
}

/// The manager says words, or a number in the unit of limits.
fn let_have(key: LimitKey, said: &str) -> String {
    said.parse().map_or_else(|_| said.to_owned(), |amount| key.show(amount))
}

fn usage(model: &Model, service: &ServiceName) -> Option<String> {
    let (usage, rates) = (model.usage_of(service)?, model.rates_of(service)?);
    let percent = |what: &str, share: Option<f64>| share.map(|share| format!("{share:.1}% {what}"));
    let bytes = |what: &str, rate: Option<f64>| rate.map(|rate| format!("{}/s {what}", size(rate as u64)));
    let parts = [
        percent("cpu", rates.cpu_percent),
        usage.rss.map(|rss| format!("{} memory", size(rss))),
        usage.swap.filter(|swap| *swap > 0).map(|swap| format!("{} swap", size(swap))),
        bytes("read", rates.read),
        bytes("written", rates.written),
        usage.threads.map(|threads| count(threads, "task")),
        percent("throttled", rates.throttled_percent),
        percent("stalled for cpu", rates.stalled.cpu_some),
        percent("for memory", rates.stalled.memory_some),
        percent("for io", rates.stalled.io_some),
    ];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}
