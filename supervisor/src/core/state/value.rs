//! A state as its program reads it: `watchdog state show SERVICE --json`.
//!
//! The core runs the program, not the command line. It alone may read the state, knows the service's table as it is
//! in force, and may take on its user; and a service with a grant asks over its session, from wherever it is
//! confined to. It passes bytes in and text out, and decodes neither.

use std::sync::Arc;

use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{Failure, FailureKind, Outcome, StateValue, StateView};

use crate::config::ServiceSpec;
use crate::config::state_of::{TIMEOUT, state_of};
use crate::core::Core;
use crate::core::audit::Replies;
use crate::core::verbs::Asked;
use crate::core::waiting::end;

/// A state on its way to its program, off the event loop: that may take seconds, and may hang.
struct Question {
    spec: ServiceSpec,
    view: StateView,
    version: u32,
    bytes: Arc<Vec<u8>>,
}

impl Core {
    /// `state show --json`.
    pub(in crate::core) fn state_value(&mut self, asked: &Asked, service: &ServiceName) {
        match self.state_question(service) {
            Ok(question) => {
                let replies = Replies::unrecorded(asked.replies.sender().clone());
                self.tasks.spawn_blocking(move || question.ask(&replies));
            }
            Err(failure) => end(&asked.replies, Err(failure)),
        }
    }

    fn state_question(&self, service: &ServiceName) -> Result<Question, Failure> {
        let state = self.has_state(service)?;
        let saver = state.saver.as_ref().map_err(|reason| {
            let message = format!("{service}: the state on disk can't be used, and is left as it is: {reason}");
            Failure::new(FailureKind::Failed, message).hint(format!(
                "watchdog state export {service} FILE keeps its bytes, watchdog state reset {service} sets it aside"
            ))
        })?;
        let view = self.state_view(service, state)?;
        let newest = saver.newest();
        let spec = self.entry(service).spec.clone();
        Ok(Question { spec, view, version: newest.version, bytes: newest.content.clone() })
    }
}

impl Question {
    fn ask(self, replies: &Replies) {
        let service = &self.spec.name;
        let shown = match state_of(&self.spec, self.version, &self.bytes, TIMEOUT) {
            Ok(json) => Ok(Outcome::StateValue(Box::new(StateValue { view: self.view, json }))),
            Err(error) => {
                let message = format!("{service}: {error}");
                Err(Failure::new(FailureKind::Failed, message).hint(error.hint(service)))
            }
        };
        end(replies, shown);
    }
}
