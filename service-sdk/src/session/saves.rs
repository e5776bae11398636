//! How far a state is on its way to disk.

use watchdog_protocol::Sequence;
use watchdog_protocol::session::Urgency;

/// One service's state, by numbers.
///
/// ```text
/// newest ≥ sent ≥ received ≥ synced
/// ```
/// One update is under way at a time: what changes meanwhile goes, whole, when that one was received. Of one that a `save`
/// waits for, the first that is told may be that it is on disk: one more follows it before, once what went ahead of it was
/// received.
#[derive(Debug)]
pub(crate) struct Saves {
    newest: Sequence,
    sent: Sequence,
    /// What was sent before that.
    before: Sequence,
    received: Sequence,
    synced: Sequence,
    /// The largest number a `save` waits for.
    wanted: Sequence,
    /// The largest number that went with a `save` waiting.
    pressed: Sequence,
    failed: Option<(Sequence, SaveFailure)>,
}

/// Why a state did not get to disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SaveFailure {
    /// It can't be written as bytes, or they are too many: nobody but this process has it.
    Unwritable(String),
    /// The watchdog has it and could not write it.
    NotWritten(String),
}

/// What a `save` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Save {
    /// It is on disk.
    Done,
    /// Until this number is synced.
    Wait(Sequence),
}

impl Saves {
    /// With the sequence of the welcome, which is with the watchdog. Whether it is on disk is not known here.
    pub(crate) fn starting_from(stored: Sequence) -> Self {
        Self {
            newest: stored,
            sent: stored,
            before: stored,
            received: stored,
            synced: Sequence::NONE,
            wanted: Sequence::NONE,
            pressed: Sequence::NONE,
            failed: None,
        }
    }

    /// The service changed its state, which has this number now.
    pub(crate) fn updated(&mut self, newest: Sequence) {
        self.newest = self.newest.max(newest);
    }

    /// A `save` of the content with number `newest`. A content that went already without anybody waiting, or
    /// whose write failed, goes once more under the next number: each number is written at most once.
    pub(crate) fn save(&mut self, newest: Sequence) -> Save {
        if newest <= self.synced {
            return Save::Done;
        }
        let failed = self.failed.as_ref().is_some_and(|(number, _)| newest <= *number);
        let under_way = newest <= self.pressed && !failed;
        let number = if newest > self.sent || under_way { newest } else { newest.next() };
        self.updated(number);
        self.wanted = self.wanted.max(number);
        Save::Wait(number)
    }

    /// How a `save` that waits for `number` ended, when it has.
    pub(crate) fn outcome(&self, number: Sequence) -> Option<Result<(), SaveFailure>> {
        if number <= self.synced {
            return Some(Ok(()));
        }
        let (failed, failure) = self.failed.as_ref()?;
        (number <= *failed).then(|| Err(failure.clone()))
    }

    /// Why the newest state can't leave this process.
    pub(crate) fn unwritable(&self) -> Option<&str> {
        match &self.failed {
            Some((_, SaveFailure::Unwritable(reason))) => Some(reason),
            Some((_, SaveFailure::NotWritten(_))) | None => None,
        }
    }

    /// Whether the newest is to be sent now. At the end it goes without waiting for the one under way: the
    /// watchdog reads a session to its end.
    pub(crate) fn due(&self, closing: bool) -> Option<Urgency> {
        let awaited = if self.pressed == self.sent { self.before } else { self.sent };
        let idle = self.received >= awaited;
        if self.newest <= self.sent || !(idle || closing) {
            return None;
        }
        Some(if self.wanted > self.sent { Urgency::Now } else { Urgency::Soon })
    }

    /// It went, under this number.
    pub(crate) fn sent(&mut self, sequence: Sequence, urgency: Urgency) {
        self.before = std::mem::replace(&mut self.sent, sequence);
        if urgency == Urgency::Now {
            self.pressed = sequence;
        }
        self.failed.take_if(|(_, failure)| matches!(failure, SaveFailure::Unwritable(_)));
    }

    /// The newest can't go.
    pub(crate) fn unsent(&mut self, sequence: Sequence, reason: String) {
        self.sent = sequence;
        self.received = sequence;
        self.failed = Some((sequence, SaveFailure::Unwritable(reason)));
    }

    pub(crate) fn received(&mut self, sequence: Sequence) {
        self.received = self.received.max(sequence.min(self.sent));
    }

    pub(crate) fn synced(&mut self, sequence: Sequence) {
        self.received(sequence);
        self.synced = self.synced.max(sequence.min(self.sent));
    }

    pub(crate) fn failed(&mut self, sequence: Sequence, reason: String) {
        self.received(sequence);
        self.failed = Some((sequence.min(self.sent), SaveFailure::NotWritten(reason)));
    }

    /// A new core: the newest goes again unless it is on disk, also when it is what the old core gave; that one
    /// may not have written it.
    pub(crate) fn repeat(&mut self) {
        self.sent = self.synced;
        self.before = self.synced;
        self.received = self.synced;
        self.pressed = self.synced;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Sequence {
        Sequence::from_stored(number)
    }

    /// Sends what is due, and says which number went how.
    fn go(saves: &mut Saves) -> Option<(Sequence, Urgency)> {
        let urgency = saves.due(false)?;
        saves.sent(saves.newest, urgency);
        Some((saves.newest, urgency))
    }

    #[test]
    fn ss_5_the_initial_value_is_not_sent() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.repeat();
        assert_eq!((saves.due(false), saves.due(true)), (None, None));
        let saves = Saves::starting_from(at(7));
        assert_eq!((saves.due(false), saves.due(true)), (None, None));
    }

    #[test]
    fn a_new_core_gets_the_restored_state_under_the_number_it_has() {
        let mut saves = Saves::starting_from(at(7));
        saves.repeat();
        assert_eq!(go(&mut saves), Some((at(7), Urgency::Soon)));
        saves.synced(at(7));
        saves.repeat();
        assert_eq!(go(&mut saves), None);
    }

    #[test]
    fn one_update_is_under_way_and_the_newest_follows_it() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        assert_eq!(go(&mut saves), Some((at(1), Urgency::Soon)));
        saves.updated(at(2));
        saves.updated(at(3));
        assert_eq!(go(&mut saves), None);
        saves.received(at(1));
        assert_eq!(go(&mut saves), Some((at(3), Urgency::Soon)));
        saves.received(at(3));
        assert_eq!(go(&mut saves), None);
    }

    #[test]
    fn one_update_follows_a_save_that_nobody_was_told_of_and_a_second_one_does_not() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        saves.save(at(1));
        assert_eq!(go(&mut saves), Some((at(1), Urgency::Now)));
        saves.updated(at(2));
        assert_eq!(go(&mut saves), Some((at(2), Urgency::Soon)));
        saves.updated(at(3));
        assert_eq!(go(&mut saves), None);
        saves.synced(at(1));
        assert_eq!(go(&mut saves), None, "the second one was not received");
        saves.received(at(2));
        saves.save(at(3));
        assert_eq!(go(&mut saves), Some((at(3), Urgency::Now)));
        saves.save(at(3).next());
        assert_eq!(go(&mut saves), Some((at(4), Urgency::Now)));
        saves.save(at(4).next());
        assert_eq!(go(&mut saves), None);
        saves.synced(at(3));
        assert_eq!(go(&mut saves), Some((at(5), Urgency::Now)));
    }

    #[test]
    fn a_save_ends_when_its_number_is_synced_and_not_before() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        assert_eq!(saves.save(at(1)), Save::Wait(at(1)));
        assert_eq!(go(&mut saves), Some((at(1), Urgency::Now)));
        saves.received(at(1));
        assert_eq!(saves.outcome(at(1)), None);
        assert_eq!(saves.save(at(1)), Save::Wait(at(1)), "a second save waits for the same write");
        assert_eq!(go(&mut saves), None);
        saves.synced(at(1));
        assert_eq!(saves.outcome(at(1)), Some(Ok(())));
        assert_eq!(saves.save(at(1)), Save::Done);
    }

    #[test]
    fn a_save_of_what_went_without_hurry_presses_it() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        assert_eq!(go(&mut saves), Some((at(1), Urgency::Soon)));
        saves.received(at(1));
        assert_eq!(saves.save(at(1)), Save::Wait(at(2)));
        assert_eq!(go(&mut saves), Some((at(2), Urgency::Now)));
    }

    #[test]
    fn a_save_of_the_restored_state_asks_for_it_to_be_on_disk() {
        let mut saves = Saves::starting_from(at(7));
        assert_eq!(saves.save(at(7)), Save::Wait(at(8)));
        assert_eq!(go(&mut saves), Some((at(8), Urgency::Now)));
    }

    #[test]
    fn a_failed_write_fails_its_save_and_the_next_save_is_a_new_write() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        assert_eq!(saves.save(at(1)), Save::Wait(at(1)));
        go(&mut saves);
        saves.failed(at(1), "disk full".into());
        assert_eq!(saves.outcome(at(1)), Some(Err(SaveFailure::NotWritten("disk full".into()))));
        assert_eq!(saves.save(at(1)), Save::Wait(at(2)));
        assert_eq!(saves.outcome(at(2)), None);
        assert_eq!(go(&mut saves), Some((at(2), Urgency::Now)));
        saves.synced(at(2));
        assert_eq!(saves.outcome(at(2)), Some(Ok(())));
    }

    #[test]
    fn a_new_core_gets_the_newest_again_unless_it_is_synced() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        assert_eq!(saves.save(at(1)), Save::Wait(at(1)));
        go(&mut saves);
        saves.received(at(1));
        saves.repeat();
        assert_eq!(go(&mut saves), Some((at(1), Urgency::Now)), "the save still waits");
        saves.synced(at(1));
        saves.repeat();
        assert_eq!(go(&mut saves), None);
    }

    #[test]
    fn a_new_core_gets_the_newest_also_when_the_old_one_was_sent_two_and_answered_neither() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        saves.save(at(1));
        go(&mut saves);
        saves.updated(at(2));
        saves.save(at(2));
        assert_eq!(go(&mut saves), Some((at(2), Urgency::Now)));
        saves.repeat();
        assert_eq!(go(&mut saves), Some((at(2), Urgency::Now)));
        saves.synced(at(2));
        assert_eq!(saves.outcome(at(1)), Some(Ok(())));
    }

    #[test]
    fn the_last_state_goes_though_one_is_under_way() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        go(&mut saves);
        saves.updated(at(2));
        assert_eq!(saves.due(false), None);
        assert_eq!(saves.due(true), Some(Urgency::Soon));
    }

    #[test]
    fn numbers_that_were_never_sent_are_not_believed() {
        let mut saves = Saves::starting_from(Sequence::NONE);
        saves.updated(at(1));
        saves.synced(at(9));
        assert_eq!(saves.outcome(at(1)), None);
    }
}
