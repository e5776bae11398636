//! Services and machines to look at, and frames of them as they are seen.

mod frames;
mod pressed;

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use watchdog_protocol::Incarnation;
use watchdog_protocol::resources::{LimitKey, Limits, LimitsView, ServiceLimits, Support};
use watchdog_protocol::session::Health;
use watchdog_protocol::status::{EndStatus, EventRecord, PhaseStatus, ServiceStatus, Status};
use watchdog_protocol::usage::{MachineUsage, Pressure, ServiceUsage, Stall, Usage};

use super::draw::{self, Layout, Now};
use super::ink::Ink;
use super::model::Model;
use super::rows::{Column, Standing};
use crate::cli::tests::{down, motley, name, service};

const NOW_US: u64 = 1_795_511_591_000_000;

const SECOND: Duration = Duration::from_secs(1);

const PLAIN: Ink = Ink { has_color: false, has_signs: true };

fn usage_of(of: &str, cpu_us: u64, rss: u64) -> ServiceUsage {
    let stall = Some(Stall { some_us: cpu_us / 5, full_us: 0 });
    ServiceUsage {
        name: name(of),
        incarnation: Incarnation::from_stored(3),
        processes: 1,
        threads: Some(4),
        cpu_us: Some(cpu_us),
        waited_us: Some(0),
        rss: Some(rss),
        pss: None,
        swap: Some(0),
        memory: None,
        read_bytes: Some(cpu_us / 2),
        written_bytes: Some(cpu_us * 8),
        descriptors: Some(17),
        throttled: None,
        oom_kills: None,
        pressure: Pressure { cpu: stall, memory: Some(Stall { some_us: 0, full_us: 0 }), io: None },
        is_frozen: false,
    }
}

fn reading(at_us: u64, services: Vec<ServiceUsage>) -> Usage {
    let stall = |some_us| Some(Stall { some_us, full_us: 0 });
    let machine = MachineUsage {
        processors: 2,
        busy_us: Some(at_us * 3 / 2),
        load: Some([2.42, 1.0, 12.345]),
        memory: Some(8 << 30),
        available: Some(3 << 30),
        swap: Some(2 << 30),
        swap_free: Some(2 << 30),
        pressure: Pressure { cpu: stall(at_us / 2), memory: stall(at_us / 20), io: stall(0) },
    };
    Usage { at_us, services, machine }
}

fn event(number: u64, of: Option<&str>, what: &str, text: &str) -> EventRecord {
    EventRecord {
        number,
        at_us: NOW_US - 60_000_000 + number * 1_000_000,
        service: of.map(name),
        incarnation: None,
        what: what.into(),
        cause: None,
        text: text.into(),
        revision: None,
        sequence: None,
        evidence: None,
    }
}

fn limits(services: &[(&str, &[(LimitKey, u64)])]) -> LimitsView {
    let of = |(of, limits): &(&str, &[(LimitKey, u64)])| ServiceLimits {
        service: name(of),
        limits: Limits(limits.iter().copied().collect()),
        not_in_force: Default::default(),
        resources: std::collections::BTreeMap::new(),
        is_frozen: false,
    };
    LimitsView {
        back_end: "cgroup-v2".into(),
        support: LimitKey::ALL.into_iter().map(|key| (key, Support::Full)).collect(),
        freeze: Support::Full,
        processors: 2,
        cpu: 2000,
        memory: 8 << 30,
        services: services.iter().map(of).collect(),
    }
}

fn standing(of: &str, priority: u8, cpu: &str) -> Standing {
    Standing { service: of.into(), priority, cpu: cpu.into(), memory: "all".into() }
}

fn status(services: Vec<ServiceStatus>) -> Status {
    Status { services, groups: Vec::new(), ..motley() }
}

/// Told all there is, a second before now and now.
fn model(status: Status, before: Usage, usage: Usage) -> Model {
    let mut model = Model::new(SECOND, Column::Cpu);
    model.told_status(status, Duration::ZERO);
    model.told_usage(before);
    model.told_usage(usage);
    model
}

/// A node that is short, a hog that was capped for it, and a web server.
fn three() -> Model {
    let ready = |of| service(of, PhaseStatus::Ready);
    let readings = |factor: u64| {
        let used = [("hog", 625_000, 13 << 20), ("node", 875_000, 1_300 << 20), ("web", 12_000, 40 << 20)];
        used.map(|(of, cpu, rss)| usage_of(of, cpu * factor, rss)).to_vec()
    };
    let mut model = model(
        status(vec![ready("hog"), ready("node"), ready("web")]),
        reading(1_000_000, readings(1)),
        reading(2_000_000, readings(2)),
    );
    model.limits = Some(limits(&[
        ("hog", &[(LimitKey::Cpu, 625), (LimitKey::CpuWeight, 1)]),
        ("node", &[(LimitKey::CpuWeight, 1600), (LimitKey::MemoryMax, 2 << 30)]),
        ("web", &[]),
    ]));
    model.told_standings(Ok(vec![
        standing("hog", 10, "625"),
        standing("node", 90, "all"),
        standing("web", 50, "all"),
    ]));
    let short = "node is short of processor time";
    for (number, of, what, text) in [
        (1, None, "started", "the watchdog started (keeper pid 4000)".to_owned()),
        (2, Some("node"), "ready", "ready after 12ms".to_owned()),
        (30, Some("hog"), "limit", format!("limits changed: cpu_weight 6 → 1: {short}")),
        (34, Some("hog"), "limit", format!("limits changed: cpu none → 62.5%: {short}")),
    ] {
        model.told_event(event(number, of, what, &text));
    }
    model.arrange(SECOND);
    model
}

/// Three hundred, of which the first ones do something.
fn crowd() -> Model {
    let named = |at: usize| format!("worker-{at:03}");
    let services = (0..300).map(|at| service(&named(at), PhaseStatus::Ready)).collect();
    let readings = |factor: u64| {
        (0..300)
            .map(|at| usage_of(&named(at), factor * 90_000 / (at as u64 + 1), (at as u64) << 20))
            .collect()
    };
    let mut model = model(status(services), reading(1_000_000, readings(1)), reading(2_000_000, readings(2)));
    model.arrange(SECOND);
    model
}

/// One of each kind of trouble, and nothing known of their use.
fn trouble() -> Model {
    let mut motley = motley();
    let end = |why: &str| EndStatus {
        incarnation: Incarnation::from_stored(6),
        cause: "limit".into(),
        why: why.into(),
        ago_ms: 61_000,
        last_lines: vec!["cannot open the database".into()],
    };
    motley.services.push(ServiceStatus {
        last_end: Some(end("crash loop: 6 failures within 60s, the last one: exit code 3")),
        ..down("crashing", PhaseStatus::Failed)
    });
    motley.services.push(ServiceStatus { frozen: true, ..service("ice", PhaseStatus::Ready) });
    motley.services.push(ServiceStatus {
        health: Health::Failing { reason: "no \u{1b}[2J disk\u{7}".into() },
        ..service("a-service-whose-name-is-as-long-as-names-of-services-can-be-@17", PhaseStatus::Ready)
    });
    let mut model = Model::new(SECOND, Column::Status);
    model.told_status(motley, Duration::ZERO);
    model.told_standings(Err("no service `resource-manager` is registered".into()));
    model.arrange(SECOND);
    model
}

fn frame(model: &mut Model, width: u16, height: u16, ink: Ink) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    if let Some(layout) = Layout::of(area, model) {
        let page = layout.page(model);
        model.fit(page);
    }
    draw::frame(model, Now { wall_us: NOW_US }, ink, area, &mut buffer);
    buffer
}

/// As one reads it.
fn seen(model: &mut Model, width: u16, height: u16, ink: Ink) -> String {
    let buffer = frame(model, width, height, ink);
    let line = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}
