//! Revisions a watchdog offers, and what the service thinks of them.

use watchdog_protocol::Revision;
use watchdog_protocol::session::Verdict;

/// One service's settings: which revision is in force, which is on trial, which is next.
///
/// ```text
/// arrived ─▶ offered ─ take ─▶ on trial ─ accept ─▶ in force
///                                       └ refuse ─▶ the one before stays in force
/// ```
#[derive(Debug, Default)]
pub(crate) struct Offers {
    in_force: Option<Revision>,
    /// The service has it and has not asked for the next event.
    on_trial: Option<Revision>,
    /// The initial one, until the service is ready.
    initial: Option<Revision>,
    offered: Option<Offer>,
    last: Option<(Revision, Verdict)>,
    due: bool,
    refused_initial: Option<Revision>,
}

/// A revision and its JSON text.
pub(crate) type Offer = (Revision, Vec<u8>);

impl Offers {
    /// With the revision of the welcome, on trial until [`ready`](Self::ready).
    pub(crate) fn starting_with(initial: Option<Revision>) -> Self {
        Self { in_force: initial, initial, ..Self::default() }
    }

    /// A revision came. One that was judged is judged the same again; an older one, or one that is known, is
    /// nothing new.
    pub(crate) fn arrived(&mut self, revision: Revision, json: Vec<u8>) {
        if self.last.as_ref().is_some_and(|(judged, _)| *judged == revision) {
            self.due = true;
            return;
        }
        let known = [self.in_force, self.on_trial, self.offered.as_ref().map(|(offered, _)| *offered)];
        if known.into_iter().flatten().all(|known| revision > known) {
            self.offered = Some((revision, json));
        }
    }

    /// Takes the newest offer for a trial.
    pub(crate) fn take(&mut self) -> Option<Offer> {
        let (revision, json) = self.offered.take()?;
        self.on_trial = Some(revision);
        Some((revision, json))
    }

    /// The service is ready with its initial settings.
    pub(crate) fn ready(&mut self) {
        self.initial = None;
    }

    /// The service went on with what it tried. Whether anything was on trial.
    pub(crate) fn accept(&mut self) -> bool {
        let Some(revision) = self.on_trial.take() else { return false };
        self.in_force = Some(revision);
        self.judge(revision, Verdict::Accepted);
        true
    }

    /// The service does not take what it tries, or its initial settings before it is ready.
    pub(crate) fn refuse(&mut self, reason: String) -> Refused {
        if let Some(revision) = self.on_trial.take() {
            self.judge(revision, Verdict::Refused { reason });
            Refused::Trial
        } else if let Some(revision) = self.initial.take() {
            self.refused_initial = Some(revision);
            self.judge(revision, Verdict::Refused { reason });
            Refused::Initial
        } else {
            Refused::Nothing
        }
    }

    /// Takes the verdict that was not said yet.
    pub(crate) fn verdict_due(&mut self) -> Option<(Revision, Verdict)> {
        if std::mem::take(&mut self.due) { self.last.clone() } else { None }
    }

    /// Says the last verdict again.
    pub(crate) fn repeat(&mut self) {
        self.due = self.last.is_some();
    }

    pub(crate) fn in_force(&self) -> Option<Revision> {
        self.in_force
    }

    /// The initial revision, when the service does not take it.
    pub(crate) fn refused_initial(&self) -> Option<Revision> {
        self.refused_initial
    }

    fn judge(&mut self, revision: Revision, verdict: Verdict) {
        self.last = Some((revision, verdict));
        self.due = true;
    }
}

/// What a refusal was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The revision on trial.
    Trial,
    /// The initial one: the process can't go on.
    Initial,
    /// Nothing was on trial.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: u64) -> Revision {
        Revision::from_stored(number)
    }

    fn refused(reason: &str) -> Verdict {
        Verdict::Refused { reason: reason.into() }
    }

    fn started() -> Offers {
        let mut offers = Offers::starting_with(Some(revision(3)));
        offers.ready();
        offers
    }

    #[test]
    fn an_older_revision_never_comes_after_a_newer_one() {
        let mut offers = started();
        offers.arrived(revision(5), b"five".to_vec());
        offers.arrived(revision(4), b"four".to_vec());
        assert_eq!(offers.take(), Some((revision(5), b"five".to_vec())));
        offers.arrived(revision(4), b"four".to_vec());
        offers.arrived(revision(5), b"five".to_vec());
        assert_eq!(offers.take(), None);
    }

    #[test]
    fn two_revisions_in_a_row_may_be_one_wake_and_the_last_arrives() {
        let mut offers = started();
        offers.arrived(revision(4), b"four".to_vec());
        offers.arrived(revision(5), b"five".to_vec());
        assert_eq!(offers.take(), Some((revision(5), b"five".to_vec())));
        assert_eq!(offers.take(), None);
    }

    #[test]
    fn a_verdict_is_said_once_and_again_when_the_revision_is_repeated() {
        let mut offers = started();
        offers.arrived(revision(4), vec![]);
        offers.take();
        assert_eq!(offers.verdict_due(), None, "it is on trial");
        assert!(offers.accept());
        assert_eq!(offers.verdict_due(), Some((revision(4), Verdict::Accepted)));
        assert_eq!(offers.verdict_due(), None);
        offers.arrived(revision(4), vec![]);
        assert_eq!(offers.take(), None, "it was judged");
        assert_eq!(offers.verdict_due(), Some((revision(4), Verdict::Accepted)));
    }

    #[test]
    fn a_refusal_leaves_the_one_before_in_force() {
        let mut offers = started();
        offers.arrived(revision(4), vec![]);
        offers.take();
        assert_eq!(offers.refuse("no".into()), Refused::Trial);
        assert!(!offers.accept(), "nothing is on trial any more");
        assert_eq!(offers.in_force(), Some(revision(3)));
        assert_eq!(offers.verdict_due(), Some((revision(4), refused("no"))));
        offers.arrived(revision(4), vec![]);
        assert_eq!(offers.take(), None);
        assert_eq!(offers.verdict_due(), Some((revision(4), refused("no"))));
        offers.arrived(revision(5), b"old values".to_vec());
        assert_eq!(offers.take(), Some((revision(5), b"old values".to_vec())));
    }

    #[test]
    fn an_initial_revision_is_refused_before_ready_only() {
        let mut offers = Offers::starting_with(Some(revision(3)));
        assert!(!offers.accept(), "asking for an event does not accept it");
        assert_eq!(offers.refuse("no".into()), Refused::Initial);
        assert_eq!(offers.verdict_due(), Some((revision(3), refused("no"))));
        assert_eq!(offers.refused_initial(), Some(revision(3)));
        assert_eq!(started().refuse("no".into()), Refused::Nothing);
        assert_eq!(Offers::starting_with(None).refuse("no".into()), Refused::Nothing);
    }
}
