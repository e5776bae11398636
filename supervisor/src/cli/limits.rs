//! `watchdog limits`.

use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::{LimitKey, LimitsView, ServiceLimits, Support};

use super::console::{Console, Format};
use super::figures::{count, size};
use super::look::{Look, Paint, harmless};
use super::report::CliError;
use super::table::{Align, Cell, Column, Rank, Table};

/// Show what services are limited to, and how far limits carry on this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog limits\n  watchdog limits counter --json")]
pub(super) struct Arguments {
    /// Names of services, programs, tasks or groups; all when there is none.
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let view = console.ask(async |query| query.limits(&self.services).await).await?;
        match console.format {
            Format::Json => console.json(&view),
            Format::Text => console.print(&text(&view, &console.look)),
        }
    }
}

fn text(view: &LimitsView, look: &Look) -> String {
    let mut text = table(&view.services).render(look);
    for service in &view.services {
        text += &not_in_force(service, look);
    }
    let processors = count(u64::from(view.processors), "processor");
    let whole = u64::from(view.processors) * 1000;
    text += &format!(
        "\nlimits are made of {}, on {} and {} of memory\n",
        look.paint(Paint::Strong, &harmless(&view.back_end)),
        if view.cpu < whole { format!("{} of {processors}", view.cpu as f64 / 1000.0) } else { processors },
        size(view.memory),
    );
    for (key, support) in &view.support {
        text += &of_support(key.as_str(), support, look);
    }
    text + &of_support("freeze", &view.freeze, look)
}

fn table(services: &[ServiceLimits]) -> Table {
    let column = |head, align, rank| Column { head, align, rank: Rank(rank), cut: None };
    let mut table = Table::new(vec![
        column("NAME", Align::Left, 0),
        column("", Align::Left, 1),
        column("CPU", Align::Right, 0),
        column("CPU WEIGHT", Align::Right, 2),
        column("MEMORY HIGH", Align::Right, 3),
        column("MEMORY MAX", Align::Right, 0),
        column("IO WEIGHT", Align::Right, 4),
        column("TASKS", Align::Right, 5),
        column("DESCRIPTORS", Align::Right, 6),
    ]);
    for service in services {
        let frozen = service.is_frozen.then_some("frozen");
        let mut row = vec![Cell::new(service.service.as_str()), Cell::maybe(frozen)];
        row.extend(LimitKey::ALL.map(|key| of_key(service, key)));
        table.row(row);
    }
    table
}

fn of_key(service: &ServiceLimits, key: LimitKey) -> Cell {
    match service.limits.get(key) {
        Some(value) if service.not_in_force.contains_key(&key) => Cell::painted(key.show(value), Paint::Bad),
        value => Cell::maybe(value.map(|value| key.show(value))),
    }
}

fn not_in_force(service: &ServiceLimits, look: &Look) -> String {
    let line = |(key, why): (&LimitKey, &String)| {
        let words = harmless(&format!("{}: {key} is not in force: {why}", service.service));
        format!("{}\n", look.paint(Paint::Bad, &words))
    };
    service.not_in_force.iter().map(line).collect()
}

fn of_support(what: &str, support: &Support, look: &Look) -> String {
    match support {
        Support::Full => String::new(),
        Support::Weaker(how) => {
            let head = format!("{what} is weaker:");
            format!("  {} {}\n", look.paint(Paint::Doubtful, &head), harmless(how))
        }
        Support::Refused(why) => {
            let head = format!("{what} can't be had:");
            format!("  {} {}\n", look.paint(Paint::Bad, &head), harmless(why))
        }
    }
}

/// The limits of each, a line each, and what is not in force.
pub(super) fn of_each(view: &LimitsView, look: &Look) -> String {
    let line = |service: &ServiceLimits| {
        let limits = match service.limits.is_empty() {
            true => "no limits".to_owned(),
            false => service.limits.to_string(),
        };
        let limited = service.limits.0.keys();
        let weaker = limited.filter_map(|key| Some(of_support(key.as_str(), view.support.get(key)?, look)));
        let name = look.paint(Paint::Strong, service.service.as_str());
        format!("{name}: {limits}\n{}{}", not_in_force(service, look), weaker.collect::<String>())
    };
    view.services.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use watchdog_protocol::resources::Limits;

    use super::*;

    const LOOK: Look = Look { color: false, width: Some(80) };

    fn view() -> LimitsView {
        let of = |name: &str, limits: &[(LimitKey, u64)], not: &[(LimitKey, &str)]| ServiceLimits {
            service: name.parse().unwrap(),
            limits: Limits(limits.iter().copied().collect()),
            not_in_force: not.iter().map(|(key, why)| (*key, (*why).to_owned())).collect(),
            is_frozen: name == "batch",
            resources: BTreeMap::new(),
        };
        let weaker = Support::Weaker("it acts only when the machine is short of memory".into());
        let refused = Support::Refused("the scheduler of vda is `none`".into());
        let full = LimitKey::ALL.into_iter().map(|key| (key, Support::Full));
        let mut support: BTreeMap<_, _> = full.collect();
        support.extend([(LimitKey::MemoryHigh, weaker), (LimitKey::IoWeight, refused)]);
        LimitsView {
            back_end: "cgroup-v1".into(),
            support,
            freeze: Support::Full,
            processors: 2,
            cpu: 1500,
            memory: 8 << 30,
            services: vec![
                of(
                    "batch",
                    &[(LimitKey::Cpu, 500), (LimitKey::MemoryHigh, 1 << 30), (LimitKey::MemoryMax, 1 << 31)],
                    &[(LimitKey::MemoryMax, "it uses more, and gives none of it back")],
                ),
                of("node", &[], &[]),
            ],
        }
    }

    #[test]
    fn limits_are_a_table_with_what_is_not_in_force_and_what_carries_less() {
        insta::assert_snapshot!(text(&view(), &LOOK));
    }

    #[test]
    fn a_change_shows_the_limits_there_are_now() {
        insta::assert_snapshot!(of_each(&view(), &LOOK));
    }
}
