//! Who knocks.
//!
//! A guard against mistakes, not against hostile code: what runs under the watchdog's own uid can do worse than
//! call it. It keeps a service from commanding the watchdog past its grant by running the command line.

use std::fmt;
use std::fs;

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{Failure, FailureKind};

use crate::processes::proc::{Identity, Process};

/// Deeper than any real tree; used-again numbers may make the walk go in a circle.
const DEPTH: usize = 1024;

/// Who made a call, as the kernel says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) pid: u32,
    /// The program's name as the kernel keeps it, at most 15 bytes; empty when it can't be read.
    pub(crate) program: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (pid {}, uid {})", self.program, self.pid, self.uid)
    }
}

/// Names the service that one of these processes leads.
type ServiceOf = dyn Fn(&[Identity]) -> Option<ServiceName> + Send + Sync;

/// Decides who passes.
pub(super) struct Doorkeeper {
    ours: u32,
    keeper: i32,
    service_of: Box<ServiceOf>,
}

impl fmt::Debug for Doorkeeper {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Doorkeeper")
            .field("ours", &self.ours)
            .field("keeper", &self.keeper)
            .finish_non_exhaustive()
    }
}

/// What a process is to the watchdog.
#[derive(Debug, PartialEq, Eq)]
enum Kin {
    None,
    Service(ServiceName),
    /// Below the keeper, of no service that is known: an adopted orphan.
    Unknown,
}

impl Doorkeeper {
    pub(super) fn new(
        keeper: u32,
        service_of: impl Fn(&[Identity]) -> Option<ServiceName> + Send + Sync + 'static,
    ) -> Self {
        let ours = nix::unistd::geteuid().as_raw();
        Self { ours, keeper: keeper.cast_signed(), service_of: Box::new(service_of) }
    }

    /// In this order: uid, a visible pid, whose descendant it is, and that it still lived after that was looked
    /// up, since else the walk may have been of another process.
    pub(super) fn admit(&self, stream: &Stream) -> Result<Caller, Failure> {
        let nobody = |why: &str| {
            Failure::new(FailureKind::NotPermitted, format!("{why}, so the watchdog can't tell who calls"))
        };
        // A pid of 0, a process outside our pid namespace, is an error here.
        let credentials = stream.peer_creds().map_err(|_| nobody("the kernel names no caller"))?;
        let (Some(pid), Some(uid)) = (credentials.pid(), credentials.euid()) else {
            return Err(nobody("the kernel names no caller"));
        };
        if uid != self.ours && uid != 0 {
            let text =
                format!("the caller has uid {uid}; only uid {} and root command this watchdog", self.ours);
            return Err(Failure::new(FailureKind::NotPermitted, text));
        }
        let before = Process::read(pid).map_err(|_| nobody("the caller has ended"))?;
        let program = program(pid);
        let kin = kin(
            pid,
            self.keeper,
            |pid| Process::read(pid).ok().map(|p| (p.identity, p.parent)),
            &self.service_of,
        );
        if !before.identity.is_alive() {
            return Err(nobody("the caller has ended"));
        }
        let caller = Caller { uid, pid: pid.cast_unsigned(), program };
        match kin {
            Kin::None => Ok(caller),
            Kin::Service(name) => Err(Failure::new(
                FailureKind::NotPermitted,
                format!(
                    "{caller} belongs to service `{name}`; services call over their session, with a grant"
                ),
            )
            .hint(format!("list what it may do as `control` in [service.{name}]"))),
            Kin::Unknown => Err(Failure::new(
                FailureKind::NotPermitted,
                format!("{caller} was started below this watchdog; only processes outside of it command it"),
            )),
        }
    }
}

/// Whoever commands the watchdog most often descends from elsewhere: only below the keeper is a service looked for.
fn kin(
    pid: i32,
    keeper: i32,
    look: impl Fn(i32) -> Option<(Identity, i32)>,
    service_of: impl Fn(&[Identity]) -> Option<ServiceName>,
) -> Kin {
    let (mut at, mut line) = (pid, Vec::new());
    for _ in 0..DEPTH {
        if at <= 0 {
            return Kin::None;
        }
        if at == keeper {
            return service_of(&line).map_or(Kin::Unknown, Kin::Service);
        }
        at = match look(at) {
            Some((identity, parent)) => {
                line.push(identity);
                parent
            }
            None if at == pid => return Kin::None,
            // An ancestor ended meanwhile and its child was handed up: from the start.
            None => {
                line.clear();
                pid
            }
        };
    }
    Kin::None
}

fn program(pid: i32) -> String {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&comm).trim_end().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 init, 10 keeper, 11 core, 12 service, 13 its child, 14 an orphan the keeper adopted; 20 a shell, 21 a
    /// command of it; 30 and 31 in a circle.
    fn parent_of(pid: i32) -> Option<i32> {
        Some(match pid {
            1 => 0,
            10 | 20 => 1,
            11 | 12 | 14 => 10,
            13 => 12,
            21 => 20,
            30 => 31,
            31 => 30,
            _ => return None,
        })
    }

    fn identity(pid: i32) -> Identity {
        Identity { pid, start_time: 7 }
    }

    fn of(pid: i32) -> Kin {
        let look = |pid| parent_of(pid).map(|parent| (identity(pid), parent));
        kin(pid, 10, look, |line| line.contains(&identity(12)).then(|| "counter".parse().unwrap()))
    }

    #[test]
    fn whoever_descends_from_the_keeper_is_kin_and_nobody_else() {
        let counter = || Kin::Service("counter".parse().unwrap());
        assert_eq!(of(12), counter());
        assert_eq!(of(13), counter());
        assert_eq!(of(14), Kin::Unknown);
        assert_eq!(of(20), Kin::None);
        assert_eq!(of(21), Kin::None);
    }

    #[test]
    fn the_walk_ends_at_what_it_cannot_read_and_in_a_circle() {
        assert_eq!(of(30), Kin::None);
        assert_eq!(of(99), Kin::None);
        assert_eq!(of(0), Kin::None);
    }
}
