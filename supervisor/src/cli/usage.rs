//! `watchdog usage`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use watchdog_protocol::ServiceName;
use watchdog_protocol::usage::{Rates, ServiceRates, ServiceUsage, Stalled, Usage};
use watchdog_query::QueryError;

use super::console::{Console, Format};
use super::figures::{parse_span, size};
use super::look::{Look, Paint};
use super::report::CliError;
use super::table::{Align, Cell, Column, Rank, Table};

/// What is read within less is one reading.
const LEAST: Duration = Duration::from_millis(100);

/// Of this share of its time nobody speaks of a service as stalled.
const CALM: f64 = 10.0;

/// Show what services and the machine use: two readings, and the rates between them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog usage\n  watchdog usage counter --interval=10s\n  watchdog usage --sort=memory --pss\n\nCPU is of one processor. STALLED is the share of time in which something of it waited for a processor, memory or the disks. A rate with ≥ is of a service that was restarted in between.\n--json prints both readings, as `before` and `usage` (counters that only grow; microseconds and bytes; null where the kernel does not tell), and `rates` (per second, or percent)."
)]
pub(super) struct Arguments {
    /// Names of services, programs, tasks or groups; all that run when there is none.
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Between the two readings: a number and ms, s, m or h; at least 100ms.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// What comes first.
    #[arg(long, value_enum, value_name = "COLUMN", default_value = "cpu")]
    sort: Sort,
    /// Count memory that processes share once, divided among them; dear to find out.
    #[arg(long)]
    pss: bool,
}

pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        interval if interval < LEAST => Err(format!("{text:?} is too short; expected at least 100ms")),
        interval => Ok(interval),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Cpu,
    Memory,
    Swap,
    Read,
    Written,
    Threads,
    Fds,
    Throttled,
    Stalled,
    Name,
}

/// As JSON.
#[derive(Debug, Serialize)]
struct Shown {
    before: Usage,
    usage: Usage,
    rates: Rates,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        // Counters alone: what is dear is read once.
        let before = console.ask(async |query| query.usage(&self.services, false).await).await?;
        tokio::time::sleep(self.interval).await;
        let usage = console.ask(async |query| query.usage(&self.services, self.pss).await).await?;
        let older = QueryError::Unexpected { expected: "a newer reading" };
        let rates = usage.since(&before).ok_or(CliError::Query(older))?;
        match console.format {
            Format::Json => console.json(&Shown { before, usage, rates }),
            Format::Text => {
                let text = text(&usage, &rates, self.sort, !self.services.is_empty(), &console.look);
                console.print(&text)
            }
        }
    }
}

/// A line a service, and three of the machine. One that has no process is left out, unless it was named.
fn text(usage: &Usage, rates: &Rates, sort: Sort, are_named: bool, look: &Look) -> String {
    let known: HashMap<_, _> = rates.services.iter().map(|rates| (&rates.name, rates)).collect();
    let running = usage.services.iter().filter(|service| are_named || service.processes > 0);
    let mut rows: Vec<Row<'_>> =
        running.map(|usage| Row { usage, rates: known.get(&usage.name).copied() }).collect();
    rows.sort_by_cached_key(|row| (Reverse(row.rank(sort)), row.usage.name.clone()));
    let mut text = String::new();
    if rows.is_empty() {
        text += "no service runs\n";
    } else {
        text += &table(&rows, usage.machine.swap != Some(0)).render(look);
    }
    text + &of_machine(usage, rates, look)
}

#[derive(Debug, Clone, Copy)]
struct Row<'u> {
    usage: &'u ServiceUsage,
    rates: Option<&'u ServiceRates>,
}

impl Row<'_> {
    fn rate(&self, of: fn(&ServiceRates) -> Option<f64>) -> Option<f64> {
        self.rates.and_then(of)
    }

    /// Of the processes' own, what they share divided if that was asked for.
    fn memory(&self) -> Option<u64> {
        self.usage.pss.or(self.usage.rss)
    }

    /// The larger comes first.
    fn rank(&self, sort: Sort) -> Option<u64> {
        // Rates are told apart to a thousandth.
        let rate = |of| self.rate(of).map(|rate| (rate * 1000.0) as u64);
        match sort {
            Sort::Cpu => rate(|rates| rates.cpu_percent),
            Sort::Memory => self.memory(),
            Sort::Swap => self.usage.swap,
            Sort::Read => rate(|rates| rates.read),
            Sort::Written => rate(|rates| rates.written),
            Sort::Threads => self.usage.threads,
            Sort::Fds => self.usage.descriptors,
            Sort::Throttled => rate(|rates| rates.throttled_percent),
            Sort::Stalled => rate(|rates| Some(rates.stalled.worst()?.1)),
            Sort::Name => None,
        }
    }

    fn percent(&self, of: fn(&ServiceRates) -> Option<f64>) -> Cell {
        Cell::maybe(self.rate(of).map(|percent| self.at_least(format!("{percent:.1}%"))))
    }

    fn bytes(&self, of: fn(&ServiceRates) -> Option<f64>) -> Cell {
        Cell::maybe(self.rate(of).map(|rate| self.at_least(format!("{}/s", size(rate as u64)))))
    }

    fn at_least(&self, figure: String) -> String {
        if self.rates.is_some_and(|rates| rates.restarted) { format!("≥{figure}") } else { figure }
    }

    fn stalled(&self) -> Cell {
        if self.usage.is_frozen {
            return Cell::painted("frozen", Paint::Doubtful);
        }
        match self.rates.and_then(|rates| rates.stalled.worst()) {
            Some((what, percent)) if percent >= CALM => {
                Cell::painted(format!("{percent:.0}% {what}"), Paint::Doubtful)
            }
            Some((what, percent)) if percent >= 0.5 => Cell::new(format!("{percent:.0}% {what}")),
            Some(_) => Cell::new("0%"),
            None => Cell::maybe(None::<&str>),
        }
    }
}

fn table(rows: &[Row<'_>], has_swap: bool) -> Table {
    let column = |head, align, rank| Column { head, align, rank: Rank(rank), cut: None };
    let right = |head, rank| column(head, Align::Right, rank);
    let mut table = Table::new(vec![
        column("NAME", Align::Left, 0),
        right("CPU", 0),
        right("MEMORY", 0),
        right("CHARGED", 8),
        right("SWAP", 5),
        right("READ", 3),
        right("WRITTEN", 3),
        right("THREADS", 7),
        right("FDS", 6),
        right("THROTTLED", 2),
        right("STALLED", 1),
        right("OOM KILLS", 4),
    ]);
    for row in rows {
        let usage = row.usage;
        let count = |number: Option<u64>| Cell::maybe(number.map(|number| number.to_string()));
        let bytes = |number: Option<u64>| Cell::maybe(number.map(size));
        table.row(vec![
            Cell::new(usage.name.as_str()),
            row.percent(|rates| rates.cpu_percent),
            bytes(row.memory()),
            bytes(usage.memory),
            bytes(usage.swap.filter(|_| has_swap)),
            row.bytes(|rates| rates.read),
            row.bytes(|rates| rates.written),
            count(usage.threads),
            count(usage.descriptors),
            row.percent(|rates| rates.throttled_percent),
            row.stalled(),
            count(usage.oom_kills.filter(|kills| *kills > 0)),
        ]);
    }
    table
}

fn of_machine(usage: &Usage, rates: &Rates, look: &Look) -> String {
    let machine = &usage.machine;
    let processors = match machine.processors {
        1 => "1 processor".to_owned(),
        many => format!("{many} processors"),
    };
    let busy = rates.machine.cpu_percent.map(|percent| percent / f64::from(machine.processors.max(1)));
    let work = match busy {
        Some(percent) => format!("{processors} {percent:.0}% busy"),
        None => processors,
    };
    let load = machine.load.map(|[one, five, fifteen]| format!("load {one:.2} {five:.2} {fifteen:.2}"));
    let memory = machine.memory.zip(machine.available);
    let memory = memory.map(|(all, available)| format!("{} of {} available", size(available), size(all)));
    let swap = machine.swap.zip(machine.swap_free).filter(|(all, _)| *all > 0);
    let swap =
        swap.map(|(all, free)| format!("{} of {} swap used", size(all.saturating_sub(free)), size(all)));
    let Stalled { cpu_some, memory_some, io_some, .. } = rates.machine.stalled;
    let stalled = [("cpu", cpu_some), ("memory", memory_some), ("io", io_some)];
    let stalled = stalled.map(|(what, percent)| Some(format!("{:.0}% {what}", percent?)));
    let lines =
        [("machine", vec![Some(work), load]), ("memory", vec![memory, swap]), ("stalled", stalled.into())];
    let lines = lines.into_iter().filter_map(|(head, parts)| {
        let known: Vec<String> = parts.into_iter().flatten().collect();
        let head = format!("{head}:");
        let head = look.paint(Paint::Strong, &head);
        (!known.is_empty()).then(|| format!("{head} {}\n", known.join(", ")))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::Incarnation;
    use watchdog_protocol::usage::{MachineUsage, Pressure, Stall, Throttled};

    use super::*;

    fn service(name: &str) -> ServiceUsage {
        ServiceUsage {
            name: name.parse().unwrap(),
            incarnation: Incarnation::from_stored(1),
            processes: 1,
            threads: Some(3),
            cpu_us: Some(0),
            waited_us: Some(0),
            rss: Some(13_002_342),
            pss: None,
            swap: Some(0),
            memory: None,
            read_bytes: Some(0),
            written_bytes: Some(0),
            descriptors: Some(17),
            throttled: None,
            oom_kills: None,
            pressure: Pressure::default(),
            is_frozen: false,
        }
    }

    fn reading(at_us: u64, services: Vec<ServiceUsage>) -> Usage {
        let stall = |some_us| Some(Stall { some_us, full_us: 0 });
        let machine = MachineUsage {
            processors: 2,
            busy_us: Some(at_us),
            load: Some([0.42, 1.0, 12.345]),
            memory: Some(8 << 30),
            available: Some(3 << 30),
            swap: Some(2 << 30),
            swap_free: Some(2 << 30),
            pressure: Pressure { cpu: stall(at_us / 10), memory: stall(0), io: None },
        };
        Usage { at_us, services, machine }
    }

    fn readings() -> (Usage, Usage) {
        let none = Stall { some_us: 0, full_us: 0 };
        let pressure = Pressure { cpu: Some(none), memory: Some(none), io: Some(none) };
        let all = || {
            ["busy", "held", "ice", "new", "down", "again"]
                .map(|name| ServiceUsage { pressure, ..service(name) })
        };
        let [busy, held, ice, _, down, again] = all();
        let held = ServiceUsage { throttled: Some(Throttled { count: 0, us: 0 }), ..held };
        let before = reading(0, vec![busy, held, ice, ServiceUsage { processes: 0, ..down }, again]);
        let [busy, held, ice, new, down, again] = all();
        let stall = Some(Stall { some_us: 250_000, full_us: 0 });
        let services = vec![
            ServiceUsage {
                cpu_us: Some(1_502_000),
                read_bytes: Some(1 << 20),
                swap: Some(4096),
                pressure: Pressure { io: stall, ..pressure },
                ..busy
            },
            ServiceUsage {
                cpu_us: Some(500_000),
                memory: Some(64 << 20),
                throttled: Some(Throttled { count: 5, us: 300_000 }),
                oom_kills: Some(2),
                ..held
            },
            ServiceUsage { is_frozen: true, ..ice },
            ServiceUsage { cpu_us: None, descriptors: None, read_bytes: None, written_bytes: None, ..new },
            ServiceUsage { processes: 0, ..down },
            ServiceUsage { incarnation: Incarnation::from_stored(2), cpu_us: Some(21_000), ..again },
        ];
        (before, reading(1_000_000, services))
    }

    fn shown(sort: Sort, are_named: bool, width: Option<usize>) -> String {
        let (before, now) = readings();
        text(&now, &now.since(&before).unwrap(), sort, are_named, &Look { color: false, width })
    }

    #[test]
    fn use_is_a_table_and_three_lines_of_the_machine() {
        insta::assert_snapshot!(shown(Sort::Cpu, false, None));
    }

    #[test]
    fn what_matters_least_goes_first_in_80_and_40_columns() {
        insta::assert_snapshot!([80, 40].map(|width| shown(Sort::Name, true, Some(width))).join("\n"));
    }

    #[test]
    fn the_largest_comes_first_and_what_is_unknown_last() {
        let first = |sort| {
            let text = shown(sort, true, None);
            let names = text.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned());
            names.take(6).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(first(Sort::Cpu), "busy held again down ice new");
        assert_eq!(first(Sort::Swap), "busy again down held ice new");
        assert_eq!(first(Sort::Name), "again busy down held ice new");
        assert_eq!(first(Sort::Fds), "again busy down held ice new");
    }

    #[test]
    fn without_a_service_there_is_the_machine() {
        let (before, now) = (reading(0, vec![]), reading(1, vec![]));
        let rates = now.since(&before).unwrap();
        let text = text(&now, &rates, Sort::Cpu, false, &Look { color: false, width: None });
        assert!(text.starts_with("no service runs\nmachine: 2 processors 50% busy, load 0.42 "), "{text}");
    }

    #[test]
    fn an_interval_is_long_enough_for_two_readings() {
        assert_eq!(parse_interval("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_interval("99ms").unwrap_err(), "\"99ms\" is too short; expected at least 100ms");
        assert!(parse_interval("soon").is_err());
    }
}
