//! The last lines of standard error of every service: the thread adds them, the event loop takes them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use watchdog_protocol::ServiceName;
use watchdog_protocol::limits::MAX_TEXT;

/// Lines kept per service, for the cause of its death.
pub(super) const LAST_LINES: usize = 20;

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tails(Arc<Mutex<HashMap<ServiceName, VecDeque<String>>>>);

impl Tails {
    /// What a service's errors said before this core began.
    pub(super) fn begin(&self, service: &ServiceName, lines: Vec<String>) {
        self.all().insert(service.clone(), lines.into());
    }

    /// Another line, of which the beginning is kept.
    pub(super) fn add(&self, service: &ServiceName, text: &str) {
        let mut all = self.all();
        let Some(lines) = all.get_mut(service) else { return };
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(text[..text.floor_char_boundary(MAX_TEXT)].to_owned());
    }

    /// The lines, oldest first, which then belong to a process that has ended. `None`: no service of this name is
    /// captured yet.
    pub(super) fn take(&self, service: &ServiceName) -> Option<Vec<String>> {
        self.all().get_mut(service).map(|lines| std::mem::take(lines).into())
    }

    pub(super) fn forget(&self, service: &ServiceName) {
        self.all().remove(service);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ServiceName, VecDeque<String>>> {
        // Each change is a single call: nothing is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
