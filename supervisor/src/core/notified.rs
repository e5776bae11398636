//! What a program says of itself by `sd_notify`.

use std::os::fd::{AsFd, OwnedFd};

use watchdog_keeper::protocol::{ExitReport, ToKeeper};
use watchdog_lifecycle::Fact;
use watchdog_protocol::ServiceName;

use super::events::Entry as Event;
use super::from_service::shortened;
use super::{Core, CoreError, stored};
use crate::config::ServiceSpec;
use crate::notify::{self, Notice, Notified};

/// Datagrams kept that came before the keeper told that the process lives. A start is a handful.
const EARLY: usize = 64;

/// What is known of a program's notifications.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    early: Vec<Notified>,
    /// Of this process something was refused already, and said so: once is enough.
    is_refused: bool,
    /// It has ended; what it said before is still read.
    ended: Option<Box<ExitReport>>,
}

impl Core {
    /// The socket of a service that notifies, made or found again, and listened to.
    pub(super) async fn open_notifications(
        &mut self,
        spec: &ServiceSpec,
        found: Option<OwnedFd>,
    ) -> Result<(), CoreError> {
        if !spec.is_notifying() {
            return Ok(());
        }
        let failed = |source: std::io::Error| CoreError::Start {
            step: format!("make the notification socket of `{}`", spec.name),
            source: source.into(),
        };
        let socket = match found {
            Some(socket) => socket,
            None => {
                let address = notify::address(self.keeper_hello.epoch, &spec.name);
                let socket = notify::bind(&address).map_err(failed)?;
                let message = ToKeeper::Store { name: stored::notify(&spec.name) };
                self.keeper.send(&message, &[socket.as_fd()]).await.map_err(CoreError::Keeper)?;
                socket
            }
        };
        let tell = self.from_notifications.clone();
        let listening = notify::listen(spec.name.clone(), socket, tell).map_err(failed)?;
        let task = self.tasks.spawn(listening);
        self.listening.insert(spec.name.clone(), task);
        Ok(())
    }

    /// Whether something may still be in the socket of the process that ended. Then its end waits for it: the end is
    /// gone on with behind a mark.
    pub(super) fn has_words_left(&mut self, report: &ExitReport) -> bool {
        let address = notify::address(self.keeper_hello.epoch, &report.service);
        let is_listened_to = self.listening.get(&report.service).is_some_and(|task| !task.is_finished());
        let entry = self.entry_mut(&report.service);
        let waits = entry.spec.is_notifying()
            && entry.process.as_ref().is_some_and(|process| process.incarnation == report.incarnation)
            // Else the mark would never be heard.
            && is_listened_to
            // A socket with no room has words enough; they are dropped with their process.
            && notify::mark(&address).is_ok();
        if waits {
            entry.notifications.ended = Some(Box::new(report.clone()));
        }
        waits
    }

    /// All that a process said before it ended was heard. Where it named another one as its main one, that is asked
    /// for in its place.
    async fn heard_out(&mut self, service: &ServiceName) -> Result<(), CoreError> {
        let Some(report) = self.entry_mut(service).notifications.ended.take() else { return Ok(()) };
        // What it said is decided on before its end.
        self.decide().await?;
        let main = self.roster.get(service).and_then(|service| service.main());
        let Some(pid) = main.filter(|main| *main != report.pid) else {
            return self.exited_at_last(*report).await;
        };
        let incarnation = report.incarnation;
        self.fact(service, incarnation, Fact::MainIs(None));
        let text = format!("{} has ended, its main process {pid} goes on", report.pid);
        self.events.add(Event::of(service, "adopted", text).at(incarnation));
        let message = ToKeeper::Adopt { service: service.clone(), incarnation, pid };
        self.keeper.send(&message, &[]).await.map_err(CoreError::Keeper)
    }

    /// A datagram came to a service's socket.
    pub(super) async fn notified(&mut self, notified: Notified) -> Result<(), CoreError> {
        let service = notified.service.clone();
        if notified.text.as_ref().is_some_and(Vec::is_empty) {
            // Of an older core it means nothing any more.
            let is_ours = notified.pid == std::process::id();
            return if is_ours { self.heard_out(&service).await } else { Ok(()) };
        }
        self.heed_notification(notified)
    }

    fn heed_notification(&mut self, notified: Notified) -> Result<(), CoreError> {
        let service = notified.service.clone();
        let Some(entry) = self.entries.get_mut(&service) else { return Ok(()) };
        let Some((incarnation, leader)) = entry.process.as_ref().map(|it| (it.incarnation, it.pid)) else {
            // It is faster than the keeper's word that it lives. What comes after an end is of nobody.
            if entry.spawning.is_some() && entry.notifications.early.len() < EARLY {
                entry.notifications.early.push(notified);
            }
            return Ok(());
        };
        let (pid, text) = (notified.pid, &notified.text);
        if pid != leader && !self.left_of(&service)?.contains(&pid) {
            let text = format!("process {pid} is none of it: its notification is ignored");
            self.refuse_notification(&service, text);
            return Ok(());
        }
        let Some(text) = text else {
            let text = format!("process {pid} sent a notification that is too long: it is ignored");
            self.refuse_notification(&service, text);
            return Ok(());
        };
        let said = notify::parse(text);
        let names_main = said.iter().any(|line| matches!(line, Ok(Notice::MainPid(_))));
        let members = if names_main { self.left_of(&service)? } else { Vec::new() };
        let has_status = said.iter().any(|line| matches!(line, Ok(Notice::Status(_))));
        let mut fact = |fact| self.fact(&service, incarnation, fact);
        let mut refused = None;
        for line in said {
            match line {
                Ok(Notice::Ready) => {
                    fact(Fact::Ready);
                    // Done with a reload: what it said of it is over.
                    if !has_status {
                        fact(Fact::Says(None));
                    }
                }
                Ok(Notice::Reloading) if has_status => {}
                Ok(Notice::Reloading) => fact(Fact::Says(Some("reloading".to_owned()))),
                Ok(Notice::Stopping) => fact(Fact::Leaving),
                Ok(Notice::Status(text)) => {
                    fact(Fact::Says(Some(shortened(text)).filter(|it| !it.is_empty())));
                }
                Ok(Notice::Alive) => fact(Fact::Heartbeat),
                Ok(Notice::CalledHung) => fact(Fact::CalledHung),
                Ok(Notice::NeedsTime(at_least)) => fact(Fact::NeedsTime { at_least }),
                Ok(Notice::MainPid(main)) if main == leader => {}
                Ok(Notice::MainPid(main)) if members.contains(&main) => fact(Fact::MainIs(Some(main))),
                Ok(Notice::MainPid(main)) => {
                    refused = Some(format!("it calls process {main} its main one, which is none of it"));
                }
                Err(wrong) => refused = Some(format!("its notification {wrong}, is ignored")),
            }
        }
        if let Some(text) = refused {
            self.refuse_notification(&service, text);
        }
        Ok(())
    }

    /// Its process is known to live now: what came before is heeded. Before that, what the last one said is over.
    pub(super) fn heed_notifications(&mut self, service: &ServiceName) -> Result<(), CoreError> {
        let before = std::mem::take(&mut self.entry_mut(service).notifications);
        before.early.into_iter().try_for_each(|notified| self.heed_notification(notified))
    }

    fn refuse_notification(&mut self, service: &ServiceName, text: String) {
        let entry = self.entry_mut(service);
        let Some(incarnation) = entry.process.as_ref().map(|process| process.incarnation) else { return };
        if !std::mem::replace(&mut entry.notifications.is_refused, true) {
            self.events.add(Event::of(service, "notification", text).at(incarnation));
        }
    }
}
