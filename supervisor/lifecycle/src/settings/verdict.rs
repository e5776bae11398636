//! The service's side: what an incarnation starts with, and what it says of it.

use std::fmt::Display;

use watchdog_protocol::session::Verdict;
use watchdog_protocol::{Incarnation, Revision};

use super::history::{Author, Ruling};
use super::revision::{Edition, Pending, Running};
use super::{Notice, Outcome, Present, Reader, Refused, SettingsUpdater};
use crate::event::{Fact, Fallback};

impl SettingsUpdater {
    /// An incarnation is about to start: what it starts with, as [`reader`](Self::reader).
    pub fn started<E: Display>(&mut self, incarnation: Incarnation, present: &Present<'_, E>) -> Reader {
        self.touch();
        // What is not on disk is not delivered; it follows when it is.
        for mut set in self.take_late(present.at).into_iter().rev() {
            set.revision = Revision::NONE;
            self.waiting.push_front(set);
        }
        if let Some(pending) = &mut self.pending {
            pending.started = Some(incarnation);
        }
        let reader = self.reader();
        let (holds, values) = (Some(reader.revision), Some(self.values()));
        self.running = Some(Running { incarnation, holds, values, sent: None, is_ready: false });
        self.promote(present);
        reader
    }

    /// What a `SettingsReader` would start with: the pending revision, else the one in force.
    pub fn reader(&self) -> Reader {
        let edition = self.newest_edition();
        Reader { revision: edition.revision, json: edition.values().to_json() }
    }

    /// In a new core: this incarnation lives, and has said ready or not. It holds the revision that it accepted
    /// last, else the one it started with.
    pub fn resumed<E: Display>(
        &mut self,
        incarnation: Incarnation,
        holds: Revision,
        is_ready: bool,
        present: &Present<'_, E>,
    ) {
        if holds > self.newest {
            // What made it did not reach the disk. The number is not used again, and what is pending in this
            // record takes one that the service will not think old.
            self.touch();
            self.newest = holds;
            let made = self.version;
            if let Some(pending) = self.pending.take() {
                let old = pending.edition().values();
                let revision = self.next_revision();
                self.pending = Some(Pending { revision, made, started: None, ..pending });
                self.enter(self.history.author(), &old, present.at);
            }
        }
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.revision == holds) {
            pending.started = Some(incarnation);
        }
        let pending = self.pending.as_ref().map(Pending::edition);
        let known = pending.iter().chain(&self.accepted).find(|edition| edition.revision == holds);
        let values = known.map(Edition::values);
        self.running = Some(Running { incarnation, holds: Some(holds), values, sent: None, is_ready: false });
        if is_ready {
            self.ready(incarnation, present);
        }
    }

    /// It said ready: what it started with is accepted.
    pub fn ready<E: Display>(&mut self, incarnation: Incarnation, present: &Present<'_, E>) {
        let Some(running) = self.running.as_mut().filter(|running| running.incarnation == incarnation) else {
            return;
        };
        running.is_ready = true;
        let holds = running.holds;
        let is_initial =
            |pending: &Pending| Some(pending.revision) == holds && pending.started == Some(incarnation);
        if self.pending.as_ref().is_some_and(is_initial) {
            self.accept(present);
        }
    }

    /// It judged a revision. A judgement of an older revision, or by an older incarnation, changes nothing.
    ///
    /// The fact is for the service's state machine: it refused what it started with, before it was ready.
    pub fn judged<E: Display>(
        &mut self,
        incarnation: Incarnation,
        revision: Revision,
        verdict: Verdict,
        present: &Present<'_, E>,
    ) -> Option<Fact> {
        let running = self.running.as_ref().filter(|running| running.incarnation == incarnation)?;
        let is_pending = self.pending.as_ref().is_some_and(|pending| pending.revision == revision);
        // What it started with is never newer than what it holds; what it was offered since then is.
        let at_start = !running.is_ready && running.holds.is_some_and(|holds| revision <= holds);
        match verdict {
            Verdict::Accepted => {
                if is_pending {
                    self.accept(present);
                }
                None
            }
            Verdict::Refused { reason } if is_pending => {
                // Said once: what it started with is refused, and it is about to end.
                if let Some(running) = self.running.as_mut().filter(|_| at_start) {
                    running.holds = None;
                }
                let fallback = self.refuse(&reason, present);
                at_start.then_some(Fact::SettingsRefused { revision, reason, fallback })
            }
            // It took them once and does not take them now: the outside changed.
            Verdict::Refused { reason } if at_start => {
                let next = self.newest_edition();
                let fallback = if running.values.as_ref() == Some(&next.values()) {
                    Fallback::None
                } else {
                    Fallback::Revision(next.revision)
                };
                Some(Fact::SettingsRefused { revision, reason, fallback })
            }
            Verdict::Refused { .. } => None,
        }
    }

    /// It ended, and its session was read to the end. Said before the next one starts.
    pub fn ended<E: Display>(&mut self, incarnation: Incarnation, present: &Present<'_, E>) {
        let Some(running) = self.running.take_if(|running| running.incarnation == incarnation) else {
            return;
        };
        if let Some(pending) = &self.pending {
            let had_it = running.holds == Some(pending.revision) || running.sent == Some(pending.revision);
            if had_it && self.accepted.is_some() {
                self.refuse("the service ended before it took them", present);
            }
        }
        self.promote(present);
    }

    fn accept<E: Display>(&mut self, present: &Present<'_, E>) {
        let Some(pending) = self.pending.take() else { return };
        self.touch();
        let revision = pending.revision;
        self.accepted = Some(pending.edition());
        self.history.rule(revision, Ruling::Applied);
        for set in &pending.sets {
            self.settle(set.request, Outcome::Applied { revision });
        }
        self.tell(Notice::InForce { revision });
        self.promote(present);
    }

    fn refuse<E: Display>(&mut self, reason: &str, present: &Present<'_, E>) -> Fallback {
        let Some(pending) = self.pending.take() else { return Fallback::None };
        self.touch();
        let refused = pending.edition();
        let (revision, values) = (refused.revision, refused.values());
        self.history.rule(revision, Ruling::Refused { reason: reason.to_owned() });
        let in_force = match &mut self.accepted {
            Some(accepted) => {
                self.newest = self.newest.next();
                accepted.revision = self.newest;
                self.newest
            }
            None => {
                // Nothing to go back to but what the file says, if that is something else.
                let made = self.version;
                let revision = if pending.sets.is_empty() { pending.revision } else { self.next_revision() };
                self.pending =
                    Some(Pending { revision, sets: Vec::new(), started: None, made, ..pending.clone() });
                revision
            }
        };
        if in_force != revision {
            self.enter(Author::Fallback { refused: revision }, &values, present.at);
        }
        let fallback = if self.values() == values { Fallback::None } else { Fallback::Revision(in_force) };
        for set in &pending.sets {
            let outcome = Outcome::Refused { revision: Some(revision), reason: reason.to_owned(), in_force };
            self.settle(set.request, outcome);
        }
        self.refusal = Some(Refused { revision, reason: reason.to_owned(), in_force });
        self.tell(Notice::Refused { revision, reason: reason.to_owned(), in_force });
        self.promote(present);
        fallback
    }
}
