//! Why a service is in the state it is in: from that state back to the first cause, by the one event log.
//!
//! ```text
//!  state of a service ─► the event that made it so ─► the event behind that ─► … ─► first cause
//!     │      ▲                       │
//!     │      └── what it requires    └─► of the service it required then
//!     └─► nothing made it so: it never came to run
//! ```
//! Each way back is one of these, told apart by the cause's name:
//! - somebody asked: who and when;
//! - its group restarts or failed: the failure of the member that took it along;
//! - what it requires is not there: on with that service, over any number of them;
//! - a crash loop: its last failure, then its first, and on from there;
//! - settings refused: who set them;
//! - a signal: who sent it, if it was through the watchdog;
//! - anything else is a first cause, with what the process left behind.
//!
//! It ends: the state of a service is looked at once, and from an event it goes to older ones only. An entry of the
//! log is told once, a state without an entry once a service.
//!
//! Absent: a clock, so that the answer is the same for as long as the state is, whichever core gives it; words that
//! are read back: what is followed is in [`Evidence`].

mod behind;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use watchdog_protocol::ServiceName;
use watchdog_protocol::status::{EventRecord, Evidence, STATUS_VERSION, ServiceStatus};
use watchdog_protocol::why::{Link, Origin, Why};

/// The way from the state of `service` back to its first cause. `services` are all there are, `log` is the event log,
/// oldest first. `None` when there is no such service.
pub fn why(service: &ServiceName, services: &[ServiceStatus], log: &[EventRecord]) -> Option<Why> {
    let mut walk = Walk {
        services,
        log,
        chain: Vec::new(),
        told: BTreeSet::new(),
        looked_at: BTreeSet::new(),
        advice: Vec::new(),
    };
    let mut step = Step::State(walk.status(service)?);
    let origin = loop {
        step = match step {
            Step::State(service) => walk.state(service),
            Step::Because(at) => walk.because(at),
            Step::End(origin) => break origin,
        };
    };
    let Walk { chain, advice, .. } = walk;
    Some(Why { version: STATUS_VERSION, service: service.clone(), chain, origin, advice })
}

struct Walk<'a> {
    services: &'a [ServiceStatus],
    log: &'a [EventRecord],
    chain: Vec<Link>,
    /// Places in the log.
    told: BTreeSet<usize>,
    looked_at: BTreeSet<&'a ServiceName>,
    advice: Vec<String>,
}

/// Where to go on.
enum Step<'a> {
    /// With the state of a service.
    State(&'a ServiceStatus),
    /// With what is behind the event at this place.
    Because(usize),
    /// Nowhere.
    End(Origin),
}

impl<'a> Walk<'a> {
    fn status(&self, name: &ServiceName) -> Option<&'a ServiceStatus> {
        self.services.iter().find(|service| service.name == *name)
    }

    /// The newest event like this about a service, before a place in the log.
    fn last(
        &self,
        service: &ServiceName,
        before: usize,
        like: impl Fn(&EventRecord) -> bool,
    ) -> Option<usize> {
        self.log[..before].iter().rposition(|record| record.service.as_ref() == Some(service) && like(record))
    }

    fn last_of_watchdog(&self, before: usize, what: &str) -> Option<usize> {
        self.log[..before].iter().rposition(|record| record.service.is_none() && record.what == what)
    }

    fn advise<const N: usize>(&mut self, lines: [String; N]) {
        self.advice = lines.into();
    }

    fn link(&mut self, at: usize) {
        self.link_saying(at, self.log[at].text.clone());
    }

    fn link_saying(&mut self, at: usize, what: String) {
        if !self.told.insert(at) {
            return;
        }
        let record = &self.log[at];
        let evidence = evidence_of(record);
        // What it printed before an end that somebody wanted explains nothing.
        let last_lines = if is_failure(record) { evidence.last_lines.clone() } else { Vec::new() };
        self.chain.push(Link {
            service: record.service.clone(),
            at_us: Some(record.at_us),
            what,
            cause: record.cause.clone(),
            event: Some(record.number),
            incarnation: record.incarnation,
            revision: record.revision,
            exit: evidence.exit.clone(),
            ready_ms: evidence.ready_ms,
            last_lines,
        });
    }

    /// Waiting since this event, which is the service's own or the start of the watchdog.
    fn link_held(&mut self, since: usize, service: &ServiceStatus, what: String) {
        let record = &self.log[since];
        self.link_state(service, what);
        if let Some(link) = self.chain.last_mut() {
            (link.at_us, link.event) = (Some(record.at_us), Some(record.number));
            link.cause = Some("dependency".to_owned());
            if record.cause.as_deref() == Some("dependency") {
                link.incarnation = record.incarnation;
                link.exit.clone_from(&evidence_of(record).exit);
            }
        }
    }

    fn link_state(&mut self, service: &ServiceStatus, what: String) {
        self.chain.push(Link {
            service: Some(service.name.clone()),
            at_us: None,
            what,
            cause: None,
            event: None,
            incarnation: None,
            revision: None,
            exit: None,
            ready_ms: None,
            last_lines: Vec::new(),
        });
    }

    fn not_in_log(&self, service: &ServiceName, what: &str) -> Step<'a> {
        let log = match self.log.first() {
            None => ", which is empty,".to_owned(),
            Some(record) if record.number > 1 => format!(", which begins with entry {},", record.number),
            Some(_) => String::new(),
        };
        Step::End(Origin::NotInLog(format!("{service}: the event log{log} does not tell {what}")))
    }
}

fn first<'a>(service: &ServiceName, words: &str) -> Step<'a> {
    Step::End(Origin::FirstCause(format!("{service}: {words}")))
}

fn evidence_of(record: &EventRecord) -> &Evidence {
    static NONE: Evidence = Evidence::NONE;
    record.evidence.as_deref().unwrap_or(&NONE)
}

fn is_asked(record: &EventRecord, verbs: &[&str]) -> bool {
    let verb = evidence_of(record).verb.as_deref();
    record.what == "asked" && verb.is_some_and(|verb| verbs.contains(&verb))
}

fn is_asked_down(record: &EventRecord) -> bool {
    is_asked(record, &["stop", "kill", "scale"])
}

fn is_asked_up(record: &EventRecord) -> bool {
    is_asked(record, &["start", "restart", "reset"])
}

/// An end that nobody wanted.
fn is_failure(end: &EventRecord) -> bool {
    !matches!(end.cause.as_deref(), Some("operator" | "watchdog" | "dependency" | "group"))
}
