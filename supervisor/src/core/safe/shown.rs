//! What an operator is shown in safe mode: what the notes say, corrected by what the keeper says since.

use std::path::Path;
use std::time::Duration;

use watchdog_keeper::protocol::ExitStatus;
use watchdog_lifecycle::{Service, Wanted, Work};
use watchdog_protocol::control::{Failure, FailureKind};
use watchdog_protocol::status::{
    EndStatus, PhaseStatus, STATUS_VERSION, ServiceKind, ServiceStatus, Status, WatchdogStatus,
};
use watchdog_protocol::{Incarnation, ServiceName};

use super::{Known, SafeCore};
use crate::config::manifest_of::last_lines;
use crate::core::status::{kind, millis, recorded, up_ms};
use crate::core::upgrade::how_it_ended;
use crate::core::{now, started_at};
use crate::processes::proc::Process;

impl SafeCore {
    pub(super) fn status(&self, services: &[ServiceName]) -> Result<Status, Failure> {
        if let Some(unknown) = services.iter().find(|name| !self.services.contains_key(*name)) {
            let text = format!("no service `{unknown}` is registered");
            return Err(Failure::new(FailureKind::Usage, text).hint("`watchdog status` lists them"));
        }
        let wanted = |name: &ServiceName| services.is_empty() || services.contains(name);
        let shown = self.services.iter().filter(|(name, _)| wanted(name));
        Ok(Status {
            version: STATUS_VERSION,
            watchdog: self.watchdog(),
            services: shown.map(|(name, known)| self.service(name, known)).collect(),
            // Nobody restarts a member here, and nobody a group.
            groups: Vec::new(),
        })
    }

    fn watchdog(&self) -> WatchdogStatus {
        let folder = |of: fn(&crate::config::WatchdogSection) -> &Path| {
            self.config.as_ref().map_or(String::new(), |config| of(&config.watchdog).display().to_string())
        };
        WatchdogStatus {
            keeper_pid: self.hello.pid,
            core_pid: std::process::id(),
            cores: self.hello.core_generation,
            up_ms: up_ms(&self.hello),
            config: self.path.display().to_string(),
            state: folder(|section| &section.state),
            runtime: self.runtime.display().to_string(),
            logs: folder(|section| &section.logs),
            stopping: self.shutdown.is_some(),
            notes: self.notes(),
        }
    }

    /// Safe mode and why, what else is missing, and what to do.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        match &self.why {
            Some((ends, last)) => {
                // Only a trial has a deadline, and what was on trial is no reason for safe mode.
                let how = how_it_ended(last, Path::new("core"), Duration::ZERO);
                notes.push(format!("safe mode: {ends} cores in a row could not go on; the last one {how}"));
                notes.extend(last_lines(&last.last_words).iter().map(|line| format!("it said: {line}")));
            }
            None => notes.push("safe mode".to_owned()),
        }
        notes.push(
            "services run on; none is started, restarted or stopped, settings and states wait".to_owned(),
        );
        notes.extend(self.without.iter().cloned());
        notes.push("once it is mended, `watchdog upgrade` tries a whole core again".to_owned());
        notes
    }

    fn service(&self, name: &ServiceName, known: &Known) -> ServiceStatus {
        let present = now();
        let spec = self.config.as_ref().ok().and_then(|config| config.services.get(name));
        let kind = match (spec, &known.session) {
            (Some(spec), _) => kind(&spec.policy),
            (None, Some(_)) => ServiceKind::Service,
            (None, None) => ServiceKind::Program,
        };
        let unknown = Service::new(Wanted::Up, Incarnation::NONE, present);
        let mut shown = recorded(name, kind, known.record.as_ref().unwrap_or(&unknown), present);
        shown.task = spec.is_some_and(|spec| spec.policy.work == Work::Once);
        match (&known.child, &known.ended) {
            (Some(child), _) => {
                let process = Process::read(child.pid.cast_signed()).ok();
                shown.incarnation = child.incarnation;
                shown.pid = Some(child.pid);
                shown.uptime_ms = Some(millis(present.since(started_at(child.start_time))));
                shown.memory = process.as_ref().map(|process| process.resident);
                shown.cpu_ms = process.as_ref().map(|process| millis(process.cpu));
                shown.descriptors = process.as_ref().and_then(|process| process.descriptors().ok());
            }
            (None, Some((report, at))) => {
                shown.phase = PhaseStatus::Stopped;
                shown.phase_ms = millis(at.elapsed());
                shown.next_try_ms = None;
                let (cause, why) = match report.status {
                    ExitStatus::Code(code) => ("exit", format!("exit code {code}")),
                    ExitStatus::Signal { signal, .. } => ("signal", format!("killed by signal {signal}")),
                };
                shown.last_end = Some(EndStatus {
                    incarnation: report.incarnation,
                    cause: cause.to_owned(),
                    why: format!("{why}; nobody restarts it in safe mode"),
                    ago_ms: millis(at.elapsed()),
                    last_lines: Vec::new(),
                });
            }
            // Whatever was noted, nobody tries.
            (None, None) => shown.next_try_ms = None,
        }
        shown
    }
}
