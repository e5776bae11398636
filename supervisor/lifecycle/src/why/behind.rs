//! What is behind an event: an older one, of this service or of another, or nothing.

use std::time::Duration;

use watchdog_protocol::status::EventRecord;
use watchdog_protocol::why::Origin;
use watchdog_protocol::{Revision, ServiceName};

use super::{Step, Walk, evidence_of, first, is_asked_down, is_asked_up, is_failure};
use crate::moment::Span;

/// Signals the kernel sends to a program that does what it can't: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV,
/// SIGSYS.
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

/// What the kernel sends for lack of memory, too: only its own log tells that apart from somebody's.
const KILL: i32 = 9;

impl<'a> Walk<'a> {
    /// Tells an event, and goes to what is behind it.
    pub(super) fn because(&mut self, at: usize) -> Step<'a> {
        self.link(at);
        let record = &self.log[at];
        let Some(name) = &record.service else { return Step::End(Origin::FirstCause(record.text.clone())) };
        if record.what == "failed" && !matches!(record.cause.as_deref(), Some("limit" | "group")) {
            // It has the same cause, and the end what the process left behind.
            let end = self.last(name, at, |end| end.what == "ended" && end.cause == record.cause);
            if let Some(end) = end {
                return Step::Because(end);
            }
        }
        self.behind(at)
    }

    /// What is behind an event that is told.
    fn behind(&mut self, at: usize) -> Step<'a> {
        let record = &self.log[at];
        let Some(name) = &record.service else { return Step::End(Origin::FirstCause(record.text.clone())) };
        let evidence = evidence_of(record);
        match record.cause.as_deref() {
            Some("limit") => self.failures(at),
            Some("operator") => {
                let asked = self.last(name, at, |asked| {
                    asked.what == "asked" && evidence_of(asked).verb == evidence.verb
                });
                if let Some(asked) = asked {
                    self.link(asked);
                    return first(name, &self.log[asked].text);
                }
                match (&evidence.verb, &evidence.by) {
                    (Some(verb), Some(by)) => first(name, &format!("{verb} by {by}")),
                    _ => first(name, &record.text),
                }
            }
            Some("dependency") => match &evidence.on {
                Some(on) => self.absence(on, at),
                None => self.not_in_log(name, "which service it required"),
            },
            Some("group") => {
                let on = evidence.on.as_ref().unwrap_or(name);
                match self.last(on, at, |end| end.what == "ended" && is_failure(end)) {
                    Some(end) => Step::Because(end),
                    None => self.not_in_log(on, "how it failed"),
                }
            }
            Some("settings") => self.refusal(at, name, record.revision),
            Some("signal") => self.signal(at, name, evidence.signal),
            Some("watchdog") => match self.last_of_watchdog(at, "shutdown") {
                Some(shutdown) => {
                    self.link(shutdown);
                    Step::End(Origin::FirstCause(self.log[shutdown].text.clone()))
                }
                None => first(name, &record.text),
            },
            Some("state") => {
                let found = self
                    .last(name, at, |found| found.what == "state" && found.cause.as_deref() == Some("state"));
                if let Some(found) = found {
                    self.link(found);
                }
                first(name, &record.text)
            }
            Some("spawn") => {
                // What never ran printed nothing.
                self.advice.retain(|line| !line.starts_with("watchdog logs"));
                first(name, &record.text)
            }
            Some(_) | None => first(name, &record.text),
        }
    }

    /// The last and the first of the failures behind a `failed` or `backoff`.
    pub(super) fn failures(&mut self, at: usize) -> Step<'a> {
        let record = &self.log[at];
        let Some(name) = &record.service else { return Step::End(Origin::FirstCause(record.text.clone())) };
        let known = evidence_of(record).failures.map(|count| count as usize);
        // What somebody started or reset began to count anew.
        let anew = self.last(name, at, is_asked_up).map_or(0, |asked| asked + 1);
        let ends = (anew..at).rev().filter(|end| {
            let end = &self.log[*end];
            end.service.as_ref() == Some(name) && end.what == "ended" && is_failure(end)
        });
        let ends: Vec<usize> = ends.take(known.unwrap_or(usize::MAX)).collect();
        let (Some(&last), Some(&earliest)) = (ends.first(), ends.last()) else {
            return self.not_in_log(name, "how it failed");
        };
        let count = known.unwrap_or(ends.len()).max(ends.len());
        if last == earliest {
            self.link(last);
        } else {
            self.link_saying(last, format!("the last failure: {}", self.log[last].text));
            let span = self.log[last].at_us.saturating_sub(self.log[earliest].at_us);
            let span = Span(Duration::from_micros(span));
            let which = match ends.len() < count {
                true => format!("one of {count} failures"),
                false => format!("the first of {count} failures"),
            };
            let what = format!("{which}, {span} before the last: {}", self.log[earliest].text);
            self.link_saying(earliest, what);
        }
        if ends.len() < count && anew == 0 {
            return self.not_in_log(name, &format!("the first {} of its failures", count - ends.len()));
        }
        self.behind(earliest)
    }

    /// Why a service that was required was not there.
    fn absence(&mut self, on: &ServiceName, before: usize) -> Step<'a> {
        let gone = self.last(on, before, |record| record.what == "failed" || is_asked_down(record));
        match gone {
            Some(at) if self.log[at].what == "failed" => Step::Because(at),
            Some(at) => {
                self.link(at);
                first(on, &self.log[at].text)
            }
            None => self.not_in_log(on, "why it was not there"),
        }
    }

    /// Who set the settings that were refused.
    fn refusal(&mut self, at: usize, name: &ServiceName, revision: Option<Revision>) -> Step<'a> {
        let words = &self.log[at].text;
        // Ended with exit code 78, and named none.
        let Some(revision) = revision else { return first(name, words) };
        let is_set = |record: &EventRecord, revision| {
            record.what == "settings" && evidence_of(record).by.is_some() && record.revision == revision
        };
        let exact = self.last(name, at, |record| is_set(record, Some(revision)));
        // One that waited for the verdict on another was told before it had a number.
        let set = exact.or_else(|| self.last(name, at, |record| is_set(record, None)));
        match set {
            Some(set) => {
                self.link(set);
                first(name, &format!("{words}; {}", self.log[set].text))
            }
            None if revision == Revision::FIRST => {
                first(name, &format!("{words}; they are those of the configuration"))
            }
            None => self.not_in_log(name, &format!("who set revision {revision}")),
        }
    }

    fn signal(&mut self, at: usize, name: &ServiceName, signal: Option<i32>) -> Step<'a> {
        let record = &self.log[at];
        let sent = self.last(name, at, |sent| {
            sent.what == "signal"
                && sent.incarnation == record.incarnation
                && evidence_of(sent).signal == signal
        });
        match (sent, signal) {
            (Some(sent), Some(_)) => {
                self.link(sent);
                first(name, &self.log[sent].text)
            }
            (None, Some(signal)) if FAULTS.contains(&signal) => {
                first(name, &format!("{}: a fault of the program itself", record.text))
            }
            (_, Some(signal)) => {
                if signal == KILL {
                    let look = "dmesg -T | grep -i 'out of memory'  # the kernel kills so for lack of memory";
                    self.advice.push(look.to_owned());
                }
                first(name, &format!("{}, from outside: the watchdog sent no such signal", record.text))
            }
            (_, None) => first(name, &record.text),
        }
    }
}
