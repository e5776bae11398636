//! What a program says of itself by `sd_notify`.

use std::os::fd::{AsFd, OwnedFd};

use watchdog_keeper::protocol::ToKeeper;
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

    /// A datagram came to a service's socket.
    pub(super) fn notified(&mut self, notified: Notified) -> Result<(), CoreError> {
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
                Ok(Notice::MainPid(main)) => {
                    refused = Some(format!(
                        "it calls process {main} its main one; {leader} was started and is watched: let it stay in \
                         the foreground"
                    ));
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
        before.early.into_iter().try_for_each(|notified| self.notified(notified))
    }

    fn refuse_notification(&mut self, service: &ServiceName, text: String) {
        let entry = self.entry_mut(service);
        let Some(incarnation) = entry.process.as_ref().map(|process| process.incarnation) else { return };
        if !std::mem::replace(&mut entry.notifications.is_refused, true) {
            self.events.add(Event::of(service, "notification", text).at(incarnation));
        }
    }
}
