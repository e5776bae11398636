//! [`Ledger`]: what came from whom, and what they say they dropped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watchdog_service::ServiceName;

use crate::parcel::{DroppedBy, Gap};
use watchdog_service::log::{Batch, DropReason, Dropped};

/// What the last process of a service said it dropped, all in all: what a restart must not lose, or it would be
/// written as news once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Losses {
    incarnation: u64,
    pid: u32,
    full: u64,
    refused: u64,
}

/// The accounts of all services.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    losses: BTreeMap<ServiceName, Losses>,
    received: BTreeMap<ServiceName, u64>,
    lost: BTreeMap<(ServiceName, &'static str), u64>,
}

impl Ledger {
    /// With what is known of before.
    pub(crate) fn resumed(losses: BTreeMap<ServiceName, Losses>) -> Self {
        Self { losses, ..Self::default() }
    }

    /// Books a batch; what its process dropped since the one before, if anything.
    pub(crate) fn book(&mut self, service: &ServiceName, batch: &Batch, now: u64) -> Vec<Gap> {
        let count = batch.records.len() as u64;
        match self.received.get_mut(service) {
            Some(received) => *received += count,
            None => drop(self.received.insert(service.clone(), count)),
        }
        if batch.dropped.is_empty() {
            return Vec::new();
        }
        let losses = self.losses.entry(service.clone()).or_default();
        if (losses.incarnation, losses.pid) != (batch.incarnation, batch.pid) {
            *losses = Losses { incarnation: batch.incarnation, pid: batch.pid, ..Losses::default() };
        }
        let mut gaps = Vec::new();
        for Dropped { reason, count: total } in batch.dropped.iter().copied() {
            let (known, reason) = match reason {
                DropReason::Full => (&mut losses.full, "full"),
                DropReason::Refused => (&mut losses.refused, "refused"),
            };
            // A batch that comes again says no more than it did.
            if total > *known {
                let count = total - *known;
                gaps.push(Gap { at: now, by: DroppedBy::Sender, reason, count, total });
                *self.lost.entry((service.clone(), reason)).or_default() += count;
                *known = total;
            }
        }
        gaps
    }

    /// What a restart must not lose.
    pub(crate) fn losses(&self) -> &BTreeMap<ServiceName, Losses> {
        &self.losses
    }

    /// How many records came since this process started, by service.
    pub(crate) fn received(&self) -> &BTreeMap<ServiceName, u64> {
        &self.received
    }

    /// How many services said they had dropped since this process started, by service and reason.
    pub(crate) fn lost(&self) -> &BTreeMap<(ServiceName, &'static str), u64> {
        &self.lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parcel::sample;

    fn batch(incarnation: u64, full: u64) -> Batch {
        let dropped = vec![Dropped { reason: DropReason::Full, count: full }];
        Batch { dropped, ..sample::batch(incarnation, 1, 2) }
    }

    #[test]
    fn a_new_process_counts_from_zero() {
        let (mut ledger, service) = (Ledger::default(), "a".parse().unwrap());
        let counts: Vec<_> = [(1, 5), (1, 5), (1, 8), (2, 1), (2, 1)]
            .map(|(incarnation, full)| ledger.book(&service, &batch(incarnation, full), 0))
            .iter()
            .map(|gaps| gaps.iter().map(|gap| (gap.count, gap.total)).collect::<Vec<_>>())
            .collect();
        assert_eq!(counts, [vec![(5, 5)], vec![], vec![(3, 8)], vec![(1, 1)], vec![]]);
        assert_eq!(ledger.received()[&service], 10);
        assert_eq!(ledger.lost()[&(service, "full")], 9);
    }

    proptest! {
        #[test]
        fn gaps_add_up_to_what_was_dropped_across_restarts(
            steps in prop::collection::vec((0u64..10, any::<bool>()), 1..20)
        ) {
            let service: ServiceName = "a".parse().unwrap();
            let mut ledger = Ledger::default();
            let (mut total, mut told) = (0, 0);
            for (more, restarts) in steps {
                total += more;
                if restarts {
                    ledger = Ledger::resumed(ledger.losses().clone());
                }
                told += ledger.book(&service, &batch(1, total), 0).iter().map(|gap| gap.count).sum::<u64>();
                prop_assert_eq!(told, total);
            }
        }
    }
}
