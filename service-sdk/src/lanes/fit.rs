//! Whether contracts fit.

use std::sync::{Arc, Mutex, MutexGuard};

use watchdog_protocol::{Contract, Mismatch};

use super::outgoing::Undelivered;

/// Whether one contract of this process's handles fits the receiver's.
#[derive(Debug)]
pub(crate) struct Fit {
    contract: Contract,
    mismatch: Mutex<Option<Mismatch>>,
}

/// The contracts of all handles of a lane. The newest is last: the one the watchdog compares.
#[derive(Debug, Default)]
pub(super) struct Fits(Mutex<Vec<Arc<Fit>>>);

impl Fit {
    pub(crate) fn mismatch(&self) -> Option<Mismatch> {
        self.state().clone()
    }

    pub(super) fn check(&self) -> Result<(), Undelivered> {
        match &*self.state() {
            Some(mismatch) => Err(Undelivered::Mismatch(mismatch.clone())),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<Mismatch>> {
        self.mismatch.lock().expect("nothing panics while it is held")
    }
}

impl Fits {
    /// A handle of this contract was introduced: whether it fits.
    pub(super) fn introduced(&self, contract: Contract, mismatch: Option<Mismatch>) -> Arc<Fit> {
        let mut fits = self.fits();
        let fit = match fits.iter().position(|fit| fit.contract == contract) {
            Some(at) => fits.remove(at),
            None => Arc::new(Fit { contract, mismatch: Mutex::new(None) }),
        };
        *fit.state() = mismatch;
        fits.push(Arc::clone(&fit));
        fit
    }

    /// The contract of the newest introduction was compared again.
    pub(super) fn compared(&self, mismatch: Option<Mismatch>) {
        if let Some(newest) = self.fits().last() {
            *newest.state() = mismatch;
        }
    }

    fn fits(&self) -> MutexGuard<'_, Vec<Arc<Fit>>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}
