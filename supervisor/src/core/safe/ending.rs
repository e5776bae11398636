//! The end of everything, in safe mode: every process is asked to stop, what stays is killed.

use std::io::IoSlice;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;
use watchdog_keeper::protocol::{Child, ToKeeper, Whom};
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::Outcome;
use watchdog_protocol::session::{ToService, encode};

use super::{SafeCore, Shutdown};
use crate::core::CoreError;
use crate::core::events::Entry as Logged;
use crate::core::verbs::Asked;
use crate::core::waiting::end;
use crate::processes::cgroup::CgroupTree;

/// How long services have to stop when the configuration can't be read.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// From one look at what is left to the next.
const LOOK: Duration = Duration::from_millis(20);

/// How long what was killed may take to be gone.
const DYING: Duration = Duration::from_secs(5);

impl SafeCore {
    /// Asks every process to stop; asked again, kills what is left.
    pub(super) async fn stop_all(&mut self, asked: Option<Asked>) -> Result<(), CoreError> {
        if let Some(shutdown) = &mut self.shutdown {
            match asked {
                Some(asked) => shutdown.asked.push(asked),
                None => shutdown.deadline = Instant::now(),
            }
            return Ok(());
        }
        let by = asked.as_ref().map_or("a signal".to_owned(), |asked| asked.by.to_string());
        self.note_event(Logged::new("shutdown", format!("shutdown by {by}: stopping every service")));
        let longest = self.config.as_ref().ok().into_iter().flat_map(|config| config.services.values());
        let patience = longest.map(|spec| spec.policy.stop_timeout).max().unwrap_or(STOP_TIMEOUT);
        let deadline = Instant::now() + patience;
        self.shutdown = Some(Shutdown { deadline, asked: asked.into_iter().collect() });
        for (service, known) in &self.services {
            let Some(child) = &known.child else { continue };
            match &known.session {
                // A session that is full belongs to a service that does not read: it is killed at the deadline.
                Some(session) => drop(session.send(&[IoSlice::new(&encode(&ToService::Stop))], &[])),
                None => self.signal(service, child, self.stop_signal(service)).await?,
            }
            self.signal(service, child, Signal::SIGCONT).await?;
        }
        Ok(())
    }

    fn stop_signal(&self, service: &ServiceName) -> Signal {
        let spec = self.config.as_ref().ok().and_then(|config| config.services.get(service));
        spec.map_or(Signal::SIGTERM, |spec| spec.stop_signal)
    }

    async fn signal(&self, service: &ServiceName, child: &Child, signal: Signal) -> Result<(), CoreError> {
        let (service, signal) = (service.clone(), signal as i32);
        let message = ToKeeper::Signal { service, incarnation: child.incarnation, signal, whom: Whom::Group };
        self.keeper.send(&message, &[]).await.map_err(CoreError::Keeper)
    }

    pub(super) async fn answer_shutdown(&mut self) {
        for asked in self.shutdown.iter_mut().flat_map(|shutdown| shutdown.asked.drain(..)) {
            end(&asked.replies, Ok(Outcome::Done("stopped".to_owned())));
        }
        self.close_audit().await;
    }

    /// Kills what is left, leaves no cgroup behind, and lets the keeper end.
    pub(super) async fn finish(mut self) -> Result<(), CoreError> {
        for (service, known) in &self.services {
            if let Some(child) = &known.child {
                self.signal(service, child, Signal::SIGKILL).await?;
            }
        }
        if let Some(tree) = self.tree() {
            let cgroups = tree.services().unwrap_or_default();
            let until = Instant::now() + DYING;
            for (_, cgroup) in &cgroups {
                while cgroup.populated().unwrap_or(false) && Instant::now() < until {
                    let _ = cgroup.kill();
                    tokio::time::sleep(LOOK).await;
                }
            }
            let removed = cgroups.iter().map(|(_, cgroup)| cgroup.remove()).chain([tree.remove()]);
            for err in removed.filter_map(Result::err) {
                tracing::warn!("cannot remove a cgroup: {err}");
            }
        }
        self.note_event(Logged::new("stopped", "everything is stopped"));
        if let Some(mut capture) = self.capture.take() {
            capture.stop().await;
        }
        self.keeper.send(&ToKeeper::Finish { code: 0 }, &[]).await.map_err(CoreError::Keeper)
    }

    fn tree(&self) -> Option<CgroupTree> {
        CgroupTree::make(&self.config.as_ref().ok()?.watchdog.state).ok()
    }

    pub(super) fn kill_all_without_keeper(&self) {
        for child in self.services.values().filter_map(|known| known.child.as_ref()) {
            // Its group, as it leads one: it had no time to become another process since the keeper went.
            let leader = nix::unistd::Pid::from_raw(child.pid.cast_signed());
            let _ = nix::sys::signal::killpg(leader, Signal::SIGKILL);
        }
    }
}
