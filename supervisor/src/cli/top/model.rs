//! What is shown and where the reader is in it: from what the watchdog told. Pure: time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::{LimitsView, ServiceLimits};
use watchdog_protocol::status::{EventRecord, ServiceStatus, Status};
use watchdog_protocol::usage::{Rates, ServiceRates, ServiceUsage, Usage};

use super::rows::{Column, Known, Row, Standing, is_move};

/// More entries than any terminal has lines, and enough that those of one service are among them.
const EVENTS: usize = 1000;

/// How the watchdog answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Fine,
    /// It was asked so long ago.
    Silent(Duration),
    /// It can't be reached, in words.
    Away(String),
}

/// What the reader wants to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Of the service, or of all instances of that name.
    Priority {
        service: String,
        to: u8,
    },
    Freeze(ServiceName),
    Thaw(ServiceName),
    Restart(ServiceName),
    Stop(ServiceName),
    Start(ServiceName),
}

impl Action {
    /// What is asked before it is done.
    pub(super) fn question(&self) -> String {
        format!("{}?", self.words())
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::Priority { service, to } => format!("give {service} priority {to}"),
            Self::Freeze(service) => format!("freeze {service}"),
            Self::Thaw(service) => format!("thaw {service}"),
            Self::Restart(service) => format!("restart {service}"),
            Self::Stop(service) => format!("stop {service}"),
            Self::Start(service) => format!("start {service}"),
        }
    }
}

/// What keys mean at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Table,
    /// The filter is being typed.
    Filter,
    /// Waits for yes or no.
    Asking(Action),
    /// One service, from this line on.
    Detail {
        service: ServiceName,
        from: usize,
    },
    Help {
        from: usize,
    },
}

/// What came of the last action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_error: bool,
}

/// Where the reader is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub(super) sort: Column,
    pub(super) is_reversed: bool,
    /// Names that contain it are shown.
    pub(super) filter: String,
    /// The service that keys act on: a name and no row, since rows move.
    pub(super) chosen: Option<ServiceName>,
    /// The row it had last.
    pub(super) row: usize,
    /// The row at the top.
    pub(super) top: usize,
    /// Rows that are seen at once.
    pub(super) page: usize,
    pub(super) mode: Mode,
    pub(super) has_events: bool,
    pub(super) period: Duration,
    pub(super) notice: Option<Notice>,
}

#[derive(Debug)]
pub(super) struct Model {
    status: Option<Status>,
    /// When it was told.
    status_at: Duration,
    usage: Option<Usage>,
    pub(super) rates: Option<Rates>,
    pub(super) limits: Option<LimitsView>,
    standings: HashMap<String, Standing>,
    /// Why nothing is known of priorities.
    pub(super) no_standings: Option<String>,
    asked_priorities: HashMap<String, u8>,
    pub(super) events: VecDeque<EventRecord>,
    moves: HashMap<ServiceName, EventRecord>,
    /// Why a service is as it is, in lines.
    pub(super) why: Option<(ServiceName, Vec<String>)>,
    pub(super) link: Link,
    pub(super) view: View,
    pub(super) rows: Vec<Row>,
    /// How many there are, whatever the filter says.
    pub(super) services: usize,
}

impl Model {
    pub(super) fn new(period: Duration, sort: Column) -> Self {
        let view = View {
            sort,
            is_reversed: false,
            filter: String::new(),
            chosen: None,
            row: 0,
            top: 0,
            page: 1,
            mode: Mode::Table,
            has_events: true,
            period,
            notice: None,
        };
        Self {
            status: None,
            status_at: Duration::ZERO,
            usage: None,
            rates: None,
            limits: None,
            standings: HashMap::new(),
            no_standings: None,
            asked_priorities: HashMap::new(),
            events: VecDeque::new(),
            moves: HashMap::new(),
            why: None,
            link: Link::Fine,
            view,
            rows: Vec::new(),
            services: 0,
        }
    }

    pub(super) fn told_status(&mut self, status: Status, now: Duration) {
        (self.status, self.status_at) = (Some(status), now);
    }

    /// A reading; what was used since the one before is known when there was one that is older.
    pub(super) fn told_usage(&mut self, usage: Usage) {
        let before = self.usage.take();
        // The same reading, or one of another boot, says nothing new.
        let rates = before.as_ref().and_then(|before| usage.since(before));
        self.rates = rates.or(self.rates.take().filter(|_| before.is_some_and(|it| it.at_us == usage.at_us)));
        self.usage = Some(usage);
    }

    pub(super) fn told_standings(&mut self, standings: Result<Vec<Standing>, String>) {
        match standings {
            Ok(standings) => {
                self.standings =
                    standings.into_iter().map(|standing| (standing.service.clone(), standing)).collect();
                self.no_standings = None;
            }
            Err(why) => {
                self.standings.clear();
                self.no_standings = Some(why);
            }
        }
    }

    pub(super) fn told_event(&mut self, event: EventRecord) {
        if self.events.back().is_some_and(|last| last.number >= event.number) {
            // Another log: that of a watchdog whose files were thrown away.
            self.events.clear();
        }
        if let Some(service) = event.service.clone().filter(|_| is_move(&event)) {
            self.moves.insert(service, event.clone());
        }
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// A priority is on its way.
    pub(super) fn asked_priority(&mut self, service: &str, to: u8) {
        self.asked_priorities.insert(service.to_owned(), to);
    }

    /// It is there, or will not come; another one may have been asked for meanwhile.
    pub(super) fn settled_priority(&mut self, service: &str, to: u8, is_set: bool) {
        if self.asked_priorities.get(service) == Some(&to) {
            self.asked_priorities.remove(service);
        }
        let is_its = |standing: &&mut Standing| {
            standing.service.parse().is_ok_and(|name: ServiceName| settings_name(&name) == service)
        };
        for standing in self.standings.values_mut().filter(is_its).filter(|_| is_set) {
            standing.priority = to;
        }
    }

    /// Makes the rows anew of all that was told, and finds the chosen one among them.
    pub(super) fn arrange(&mut self, now: Duration) {
        let Some(status) = &self.status else { return };
        let age = now.saturating_sub(self.status_at).as_millis();
        let age_ms = u64::try_from(age).unwrap_or(u64::MAX);
        let usages = index(self.usage.iter().flat_map(|usage| &usage.services), |of: &ServiceUsage| &of.name);
        let rates = index(self.rates.iter().flat_map(|rates| &rates.services), |of: &ServiceRates| &of.name);
        let limits =
            index(self.limits.iter().flat_map(|view| &view.services), |of: &ServiceLimits| &of.service);
        let of = |status: &ServiceStatus| {
            let name = &status.name;
            Row::of(&Known {
                status,
                age_ms,
                usage: usages.get(name).copied(),
                rates: rates.get(name).copied(),
                limits: limits.get(name).copied(),
                standing: self.standings.get(name.as_str()),
                asked_priority: self.asked_priorities.get(settings_name(name)).copied(),
                last_move: self.moves.get(name),
            })
        };
        self.services = status.services.len();
        let filter = &self.view.filter;
        let shown = status.services.iter().filter(|service| service.name.as_str().contains(filter.as_str()));
        self.rows = shown.map(of).collect();
        let View { sort, is_reversed, .. } = self.view;
        self.rows.sort_by(|one, other| {
            let order = one.compare(other, sort);
            if is_reversed { order.reverse() } else { order }
        });
        self.follow();
    }

    /// Sees so many rows at once, the chosen one among them.
    pub(super) fn fit(&mut self, page: usize) {
        self.view.page = page.max(1);
        self.follow();
    }

    fn follow(&mut self) {
        let last = self.rows.len().saturating_sub(1);
        let View { page, .. } = self.view;
        self.view.top = self.view.top.min(self.rows.len().saturating_sub(page));
        match self.chosen() {
            Some(row) => {
                self.view.row = row;
                self.view.top = self.view.top.clamp((row + 1).saturating_sub(page), row);
            }
            None => self.view.row = self.view.row.min(last),
        }
    }

    /// The row of the chosen service, if it is shown.
    pub(super) fn chosen(&self) -> Option<usize> {
        let chosen = self.view.chosen.as_ref()?;
        self.rows.iter().position(|row| row.name == *chosen)
    }

    pub(super) fn chosen_row(&self) -> Option<&Row> {
        self.chosen().map(|at| &self.rows[at])
    }

    pub(super) fn choose(&mut self, row: usize) {
        let Some(last) = self.rows.len().checked_sub(1) else { return };
        self.view.chosen = Some(self.rows[row.min(last)].name.clone());
        self.follow();
    }

    pub(super) fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    pub(super) fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    pub(super) fn status_of(&self, service: &ServiceName) -> Option<&ServiceStatus> {
        self.status.as_ref()?.services.iter().find(|of| of.name == *service)
    }

    pub(super) fn usage_of(&self, service: &ServiceName) -> Option<&ServiceUsage> {
        self.usage.as_ref()?.services.iter().find(|of| of.name == *service)
    }

    pub(super) fn rates_of(&self, service: &ServiceName) -> Option<&ServiceRates> {
        self.rates.as_ref()?.services.iter().find(|of| of.name == *service)
    }

    pub(super) fn limits_of(&self, service: &ServiceName) -> Option<&ServiceLimits> {
        self.limits.as_ref()?.services.iter().find(|of| of.service == *service)
    }

    pub(super) fn standing_of(&self, service: &ServiceName) -> Option<&Standing> {
        self.standings.get(service.as_str())
    }
}

/// The name a service has in the manager's settings: that of all its instances.
pub(super) fn settings_name(service: &ServiceName) -> &str {
    if service.instance().is_some() { service.base() } else { service.as_str() }
}

fn index<'a, T: 'a>(
    all: impl Iterator<Item = &'a T>,
    name: fn(&T) -> &ServiceName,
) -> HashMap<&'a ServiceName, &'a T> {
    all.map(|one| (name(one), one)).collect()
}
