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

    /// Who tells whether the ledger has changed, without looking at it. At first it has.
    pub(crate) fn changes(&self) -> Changes {
        let mut changes = self.0.subscribe();
        changes.mark_changed();
        Changes(changes)
    }

    /// What `take` finds now, and may take out.
    pub(crate) fn now<R>(&self, take: impl FnOnce(&mut Ledger) -> Option<R>) -> Option<R> {
        let mut found = None;
        self.0.send_if_modified(|ledger| {
            found = take(ledger);
            found.is_some()
        });
        found
    }

    /// Waits until `take` finds what it looks for, which it may take out.
    ///
    /// Cancel safe: what was taken is returned in the same poll.
    pub(crate) async fn until<R>(&self, mut take: impl FnMut(&mut Ledger) -> Option<R>) -> R {
        let mut changes = self.0.subscribe();
        loop {
            if let Some(found) = self.now(&mut take) {
                return found;
            }
            changes.changed().await.expect("the sender is held here");
        }
    }
}

/// Whether the ledger has changed.
#[derive(Debug)]
pub(crate) struct Changes(watch::Receiver<Ledger>);

impl Changes {
    /// Whether it has since the last call.
    pub(crate) fn any(&mut self) -> bool {
        let any = self.0.has_changed().unwrap_or(true);
        if any {
            self.0.mark_unchanged();
        }
        any
    }
}
