//! The first step from each state: the event that made it so, or the service that is in the way.

use watchdog_protocol::ServiceName;
use watchdog_protocol::session::Health;
use watchdog_protocol::status::{EventRecord, PhaseStatus, ServiceStatus, WantedStatus};

use super::{Step, Walk, first, is_asked_down, is_asked_up, is_failure};

impl<'a> Walk<'a> {
    pub(super) fn state(&mut self, service: &'a ServiceStatus) -> Step<'a> {
        self.looked_at.insert(&service.name);
        self.advice.clear();
        match (service.wanted, service.phase) {
            (WantedStatus::Down, _) => self.unwanted(service),
            (WantedStatus::Up, PhaseStatus::Ready) => self.at_work(service),
            (WantedStatus::Up, PhaseStatus::Starting) => self.on_its_way_up(service),
            (WantedStatus::Up, PhaseStatus::Stopping) => self.on_its_way_down(service),
            (WantedStatus::Up, PhaseStatus::Backoff) => self.between_tries(service),
            (WantedStatus::Up, PhaseStatus::Failed) => self.given_up(service),
            (WantedStatus::Up, PhaseStatus::Completed) => self.done(service),
            (WantedStatus::Up, PhaseStatus::Stopped) => self.held(service),
        }
    }

    /// Somebody stopped it.
    fn unwanted(&mut self, service: &ServiceStatus) -> Step<'a> {
        let name = &service.name;
        self.advise([format!("watchdog start {name}")]);
        let Some(asked) = self.last(name, self.log.len(), is_asked_down) else {
            let what =
                format!("is wanted down: {}", service.wanted_by.as_deref().unwrap_or("nobody knows by whom"));
            self.link_state(service, what);
            return match &service.wanted_by {
                Some(by) => first(name, by),
                None => self.not_in_log(name, "who stopped it"),
            };
        };
        // Its end says more than that it is stopped; it has none when it was down before.
        let after = |walk: &Self, whats: &[&str]| {
            walk.last(name, walk.log.len(), |record| whats.contains(&&*record.what)).filter(|at| *at > asked)
        };
        let down = match service.phase {
            PhaseStatus::Stopping => after(self, &["survivors", "killing", "stopping"]),
            _ => after(self, &["ended"]).or_else(|| after(self, &["stopped"])),
        };
        if let Some(at) = down {
            self.link(at);
        }
        self.link(asked);
        first(name, &self.log[asked].text)
    }

    fn at_work(&mut self, service: &ServiceStatus) -> Step<'a> {
        let is_now =
            |record: &EventRecord| record.what == "ready" && record.incarnation == Some(service.incarnation);
        let how = match &service.health {
            Health::Ok if service.task => "runs, and is not done yet".to_owned(),
            Health::Ok => "runs well".to_owned(),
            Health::Degraded { reason } => format!("runs, degraded: {reason}"),
            Health::Failing { reason } => format!("runs, failing: {reason}"),
        };
        let ready = self.last(&service.name, self.log.len(), is_now);
        match ready {
            Some(at) if service.task => self.link_saying(at, how),
            Some(at) => self.link_saying(at, format!("{how}: {}", self.log[at].text)),
            None => self.link_state(service, how),
        }
        self.came_up(service, ready)
    }

    fn on_its_way_up(&mut self, service: &ServiceStatus) -> Step<'a> {
        let is_now = |record: &EventRecord| {
            record.what == "starting" && record.incarnation == Some(service.incarnation)
        };
        let starting = self.last(&service.name, self.log.len(), is_now);
        match starting {
            Some(at) => self.link_saying(at, "is starting and not ready yet".to_owned()),
            None => self.link_state(service, "is starting and not ready yet".to_owned()),
        }
        self.came_up(service, starting)
    }

    /// Why the process of now is there: what ended the one before, who started it, or what it did not take since.
    fn came_up(&mut self, service: &ServiceStatus, since: Option<usize>) -> Step<'a> {
        let name = &service.name;
        let before = since.unwrap_or(self.log.len());
        let older = self
            .last(name, before, |record| record.incarnation.is_some_and(|older| older < service.incarnation));
        // Of the process just before, whose end may have been seen by nobody.
        let end = self.last(name, before, |record| {
            record.what == "ended" && older.is_some_and(|at| self.log[at].incarnation == record.incarnation)
        });
        let is_refused = service.settings.as_ref().is_some_and(|settings| settings.refused.is_some());
        let refused = is_refused.then(|| {
            self.last(name, self.log.len(), |record| {
                record.what == "settings" && record.cause.as_deref() == Some("settings")
            })
        });
        if let Some(refused) = refused.flatten().filter(|refused| Some(*refused) > older) {
            self.advise([format!("watchdog get {name}  # what is in force")]);
            return Step::Because(refused);
        }
        let asked = self.last(name, before, is_asked_up).filter(|asked| Some(*asked) > older);
        if let Some(asked) = asked {
            self.link(asked);
            // Started again after it had been given up: what made that necessary goes on being the answer.
            let given_up = self.last(name, asked, |record| record.what == "failed");
            return match (given_up.filter(|at| Some(*at) > older), end) {
                (Some(at), _) => Step::Because(at),
                (None, Some(at)) if is_failure(&self.log[at]) => Step::Because(at),
                (None, Some(_) | None) => first(name, &self.log[asked].text),
            };
        }
        if let Some(end) = end {
            // One that is not up yet after several failures is between two tries for all that one can tell: the first
            // failure counts. What is up asks for the last.
            let tries = self.last(name, before, |record| record.what == "backoff").filter(|at| *at > end);
            return match (service.phase, tries) {
                (PhaseStatus::Starting, Some(at)) => self.failures(at),
                (_, Some(_) | None) => Step::Because(end),
            };
        }
        let begun = self.last_of_watchdog(before, "started");
        match (older, begun, self.last(name, before, |record| record.what == "registered")) {
            (Some(older), Some(begun), _) if begun > older => {
                self.link(begun);
                let process = self.log[older].incarnation.unwrap_or_default();
                first(
                    name,
                    &format!("the watchdog was started anew; how process {process} ended was seen by nobody"),
                )
            }
            (Some(_), _, _) => self.not_in_log(name, "how its process before ended"),
            (None, begun, Some(registered)) if Some(registered) > begun => {
                self.link(registered);
                first(name, &self.log[registered].text)
            }
            (None, Some(begun), _) if service.starts <= 1 => {
                self.link(begun);
                first(name, "started with the watchdog, and has not ended since")
            }
            (None, _, _) => self.not_in_log(name, "why it was started"),
        }
    }

    fn on_its_way_down(&mut self, service: &ServiceStatus) -> Step<'a> {
        let name = &service.name;
        let is_now = |what: &'static str| {
            move |record: &EventRecord| record.what == what && record.incarnation == Some(service.incarnation)
        };
        if let Some(at) = self.last(name, self.log.len(), is_now("survivors")) {
            self.advise([format!("watchdog status {name}  # names what can't be killed")]);
            self.link(at);
        }
        match self.last(name, self.log.len(), is_now("stopping")) {
            Some(at) => Step::Because(at),
            None => {
                self.link_state(service, "is being stopped".to_owned());
                self.not_in_log(name, "why it is being stopped")
            }
        }
    }

    fn between_tries(&mut self, service: &ServiceStatus) -> Step<'a> {
        let name = &service.name;
        self.advise([format!("watchdog logs {name} -n 50")]);
        match self.of_this_end(service, "backoff") {
            Some(at) => {
                self.link_saying(at, format!("waits for its next try: {}", self.log[at].text));
                self.failures(at)
            }
            None => self.by_last_end(service, "waits for its next try"),
        }
    }

    fn given_up(&mut self, service: &ServiceStatus) -> Step<'a> {
        let name = &service.name;
        let failed = self.of_this_end(service, "failed");
        let kind = match (failed, &service.last_end) {
            (Some(at), _) => self.log[at].cause.as_deref(),
            (None, Some(end)) => Some(&*end.cause),
            (None, None) => None,
        };
        match kind {
            Some("settings") => self.advise([
                format!("watchdog get {name}"),
                format!("watchdog set {name} KEY=VALUE"),
                format!("watchdog reset {name}"),
            ]),
            Some("state") => self.advise([
                format!("watchdog state export {name} FILE  # keep what is there"),
                format!("watchdog state reset {name}  # or begin anew: the old files are set aside"),
                format!("watchdog reset {name}"),
            ]),
            _ => self.advise([
                format!("watchdog logs {name} -n 50"),
                format!("watchdog reset {name}  # when the cause is mended"),
            ]),
        }
        match failed {
            Some(at) => Step::Because(at),
            None => self.by_last_end(service, "has failed"),
        }
    }

    /// What the log says came of the last process. An older one is no answer: a core that was killed may not have
    /// written the newest.
    fn of_this_end(&self, service: &ServiceStatus, what: &str) -> Option<usize> {
        let begun = self.last(&service.name, self.log.len(), |record| record.what == "starting");
        let found = self.last(&service.name, self.log.len(), |record| record.what == what);
        found.filter(|at| Some(*at) > begun)
    }

    /// The log does not tell of this state. It may tell how the last process ended, and the status does.
    fn by_last_end(&mut self, service: &ServiceStatus, what: &str) -> Step<'a> {
        let name = &service.name;
        if let Some(end) = self.of_this_end(service, "ended") {
            self.link_state(service, what.to_owned());
            return Step::Because(end);
        }
        let Some(end) = &service.last_end else {
            self.link_state(service, what.to_owned());
            return self.not_in_log(name, "why");
        };
        self.link_state(service, format!("{what}: {}", end.why));
        if let Some(link) = self.chain.last_mut() {
            link.cause = Some(end.cause.clone());
            link.incarnation = Some(end.incarnation);
            link.last_lines.clone_from(&end.last_lines);
        }
        self.not_in_log(name, "what led to it")
    }

    fn done(&mut self, service: &ServiceStatus) -> Step<'a> {
        let name = &service.name;
        match self.of_this_end(service, "completed") {
            Some(at) => {
                self.link(at);
                if let Some(end) = self.last(name, at, |record| record.what == "ended") {
                    self.link(end);
                }
            }
            None => self.link_state(service, "did its work and ended".to_owned()),
        }
        first(name, "did its work and ended; nothing is wrong")
    }

    /// Wanted up, and without a process.
    fn held(&mut self, service: &ServiceStatus) -> Step<'a> {
        let name = &service.name;
        let Some(via) = self.nearest_missing(service) else { return self.about_to_start(service) };
        let needs = if service.requires.contains(&via.name) { "requires" } else { "waits for" };
        let what = format!("does not run: it {needs} `{}`, which {}", via.name, standing(via));
        let own = self
            .last(name, self.log.len(), |record| ["ended", "stopped", "registered"].contains(&&*record.what));
        match own.max(self.last_of_watchdog(self.log.len(), "started")) {
            Some(since) => self.link_held(since, service, what),
            None => self.link_state(service, what),
        }
        match self.looked_at.contains(&via.name) {
            true => self.not_in_log(name, "what it waits for in the end"),
            false => Step::State(via),
        }
    }

    /// The service next to it on the way to what is missing in the end.
    fn nearest_missing(&self, service: &ServiceStatus) -> Option<&'a ServiceStatus> {
        let target = self.status(service.blocked_by.first()?)?;
        let leads_there = |name: &&ServiceName| {
            self.status(name).is_some_and(|other| other.blocked_by.contains(&target.name))
        };
        if service.requires.contains(&target.name) {
            return Some(target);
        }
        let via = service.requires.iter().find(leads_there).and_then(|name| self.status(name));
        Some(via.unwrap_or(target))
    }

    fn about_to_start(&mut self, service: &ServiceStatus) -> Step<'a> {
        let name = &service.name;
        let begun = self.last_of_watchdog(self.log.len(), "started");
        if let Some(at) = self.last_of_watchdog(self.log.len(), "shutdown").filter(|at| Some(*at) > begun) {
            self.link_state(service, "is stopped".to_owned());
            self.link(at);
            return first(name, &self.log[at].text);
        }
        self.link_state(service, "is about to start".to_owned());
        first(name, "nothing is in its way: it starts in a moment")
    }
}

/// How a service that others wait for stands, after "which".
fn standing(service: &ServiceStatus) -> &'static str {
    match (service.wanted, service.phase) {
        (WantedStatus::Down, _) => "is wanted down",
        (WantedStatus::Up, PhaseStatus::Failed) => "has failed",
        (WantedStatus::Up, PhaseStatus::Backoff) => "waits for its next try",
        (WantedStatus::Up, PhaseStatus::Starting) => "is starting",
        (WantedStatus::Up, PhaseStatus::Stopping) => "is being stopped",
        (WantedStatus::Up, PhaseStatus::Stopped) => "does not run either",
        (WantedStatus::Up, PhaseStatus::Ready) if service.task => "is not done yet",
        (WantedStatus::Up, PhaseStatus::Ready | PhaseStatus::Completed) => "is there now",
    }
}
