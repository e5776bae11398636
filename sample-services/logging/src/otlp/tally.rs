//! What became of all records, counted: told = accepted + dropped + still held.

use std::collections::BTreeMap;

use watchdog_service::ServiceName;

use super::queue::Taken;
use super::slice::Slice;

/// Counts of one exporter since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Records that a collector said it has.
    pub(crate) accepted: u64,
    /// Of these, those that are known to be of a service: all of a request of which none was rejected.
    pub(crate) known: BTreeMap<ServiceName, u64>,
    /// Records that no collector will have, by service and reason.
    pub(crate) dropped: BTreeMap<(ServiceName, Dropped), u64>,
    /// Records that a collector took with their request and said to have rejected. Of which service it does not say.
    pub(crate) rejected: u64,
}

/// Why a record was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Dropped {
    /// The queue was full.
    Full,
    /// The collector refused the request it was in.
    Refused,
    /// Its request was tried as long as may be.
    Expired,
    /// It still waited at the end of the deadline to stop.
    Stopped,
}

impl Tally {
    /// All that will never arrive, for whatever reason.
    pub(crate) fn lost(&self) -> u64 {
        self.rejected + self.dropped.values().sum::<u64>()
    }

    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        for (service, count) in &other.known {
            *self.known.entry(service.clone()).or_default() += count;
        }
        self.rejected += other.rejected;
        for (whose, count) in &other.dropped {
            *self.dropped.entry(whose.clone()).or_default() += count;
        }
    }

    pub(super) fn dropped(&mut self, slice: &Slice, why: Dropped) {
        *self.dropped.entry((slice.parcel.service.clone(), why)).or_default() += slice.count as u64;
    }

    pub(super) fn dropped_all(&mut self, taken: &Taken, why: Dropped) {
        taken.slices.iter().for_each(|slice| self.dropped(slice, why));
    }

    /// A collector can't have rejected more than there was.
    pub(super) fn accepted(&mut self, taken: &Taken, rejected: u64) {
        let all = taken.records as u64;
        self.rejected += rejected.min(all);
        self.accepted += all.saturating_sub(rejected);
        if rejected == 0 {
            for slice in &taken.slices {
                *self.known.entry(slice.parcel.service.clone()).or_default() += slice.count as u64;
            }
        }
    }
}

impl Dropped {
    /// As metrics say it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "queue-full",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Stopped => "stopped",
        }
    }
}
