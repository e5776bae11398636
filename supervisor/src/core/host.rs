//! Looks at the host before a service is called hung, and at the clock before anybody is called late.

use std::time::Duration;

use watchdog_lifecycle::{Fact, HostLook, Moment};
use watchdog_protocol::{Incarnation, ServiceName};

use super::events::Entry as Logged;
use super::limits::Still;
use super::{Core, CoreError, now};
use crate::processes::strain::Strain;

/// So late, and it was not the services' fault: the host was suspended, or this core stopped or starved. A busy turn
/// is a matter of milliseconds.
const LATE: Duration = Duration::from_millis(500);

/// What was seen of a process, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    incarnation: Incarnation,
    at: Moment,
    strain: Strain,
}

impl Core {
    /// What the host did to a service since the last look.
    pub(super) fn look_at_host(&mut self, service: &ServiceName, incarnation: Incarnation) {
        let present = now();
        let pids = self.pids(service);
        let entry = self.entry_mut(service);
        let is_frozen = entry.still == Still::Frozen;
        let strain = Strain::read(&pids, entry.cgroup.as_ref());
        let before = entry.strain.replace(Box::new(Seen { incarnation, at: present, strain }));
        // Where there is no cgroup to be frozen, its processes are halted.
        let mut look = HostLook { frozen: strain.frozen || is_frozen, ..HostLook::default() };
        if let Some(before) = before.filter(|before| before.incarnation == incarnation) {
            // A thread that ended takes its time with it.
            let since = |now: Duration, then: Duration| now.saturating_sub(then);
            look = HostLook {
                over: present.since(before.at),
                ran: since(strain.ran, before.strain.ran),
                waited: since(strain.waited, before.strain.waited),
                queued: strain.queued,
                blocked: strain.blocked,
                memory: since(strain.memory, before.strain.memory),
                io: since(strain.io, before.strain.io),
                ..look
            };
        }
        self.fact(service, incarnation, Fact::Host(look));
    }

    /// Nobody may be blamed for a time in which this core did not run.
    pub(super) async fn look_at_clock(&mut self) -> Result<(), CoreError> {
        let present = now();
        let late = self.roster.next_deadline().map_or(Duration::ZERO, |due| present.since(due));
        if late < LATE {
            return Ok(());
        }
        let text = format!(
            "nobody looked for {late:.1?}, the host or the core stood still: what was due has its time anew"
        );
        self.events.add(Logged::new("paused", text));
        let mut commands = self.roster.paused(late, present, self.chance());
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in &names {
            self.write_note(name)?;
        }
        // What waits for nobody, a next try or a look for survivors, is due all the same.
        commands.extend(self.roster.tick(present, self.chance()));
        self.perform_all(commands).await
    }
}
