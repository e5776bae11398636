//! What services use: who is to be measured, and how. The reading is the meter's.

use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{Failure, FailureKind, Outcome};

use super::audit::Replies;
use super::verbs::Asked;
use super::waiting::end;
use super::{Core, chain};
use crate::usage::{Below, Question, Subject};

impl Core {
    /// Answered by the meter's thread.
    pub(super) fn usage_asked(&mut self, asked: &Asked, services: &[ServiceName], pss: bool) {
        let subject = |name: ServiceName| Subject {
            incarnation: self.newest(&name),
            cgroup: self.entry(&name).cgroup.clone(),
            name,
        };
        let subjects: Vec<Subject> = self.named_services(services).into_iter().map(subject).collect();
        let replies = Replies::unrecorded(asked.replies.sender().clone());
        let question = Question {
            // One that never ran has no cgroup either, and no processes to be found.
            below: subjects
                .iter()
                .any(|it| it.cgroup.is_none() && self.entry(&it.name).last_pid.is_some())
                .then(|| Below {
                    keeper: self.keeper_hello.pid.cast_signed(),
                    core: std::process::id().cast_signed(),
                    sessions: self.sessions_of_processes(),
                }),
            of_all: services.is_empty(),
            subjects,
            is_dear: pss,
            answer: Box::new(move |usage| end(&replies, Ok(Outcome::Usage(Box::new(usage))))),
        };
        if let Err(unread) = self.meter.ask(question) {
            end(&asked.replies, Err(Failure::new(FailureKind::TryAgain, chain(&unread))));
        }
    }
}
