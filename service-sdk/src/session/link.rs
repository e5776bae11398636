//! What every handle of a service holds of its session.

use std::sync::Arc;

use tokio::sync::watch;

use super::ledger::Ledger;

/// The ledger, shared. Whoever changes it wakes whoever waits for a level of it.
///
/// Its lock is held for the length of a closure that neither waits nor calls into a service's code.
#[derive(Debug, Clone)]
pub(crate) struct Link(Arc<watch::Sender<Ledger>>);

impl Link {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self(Arc::new(watch::Sender::new(ledger)))
    }

    /// Changes the ledger.
    pub(crate) fn write<R>(&self, change: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut result = None;
        self.0.send_modify(|ledger| result = Some(change(ledger)));
        result.expect("send_modify calls its closure")
    }

    /// Looks at the ledger.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R {
        look(&self.0.borrow())
    }

    /// Waits until `take` finds what it looks for, which it may take out.
    ///
    /// Cancel safe: what was taken is returned in the same poll.
    pub(crate) async fn until<R>(&self, mut take: impl FnMut(&mut Ledger) -> Option<R>) -> R {
        let mut changes = self.0.subscribe();
        loop {
            let mut found = None;
            self.0.send_if_modified(|ledger| {
                found = take(ledger);
                found.is_some()
            });
            if let Some(found) = found {
                return found;
            }
            changes.changed().await.expect("the sender is held here");
        }
    }
}
