//! Whose an orphan is, where no cgroup says it.

use std::collections::{HashMap, HashSet};

use watchdog_protocol::ServiceName;
use watchdog_protocol::session::SERVICE;

use super::proc::{Process, ProcessTable};

/// The sessions services made, by the pid of their leader: each service is started as the leader of its own.
pub type Sessions = HashMap<i32, ServiceName>;

/// Below the keeper, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Of this service: by its session, or by the environment it was executed with.
    Service(ServiceName),
    /// Below the keeper, but nobody's. Shown, never ended.
    Nobody,
}

/// Whose a process below the keeper is: by session id, else by [`SERVICE`] in its environment, else nobody's.
///
/// The environment is what the process was executed with, and in its own hands: this guards against forgotten
/// processes, not against hostile ones.
pub fn owner(process: &Process, sessions: &Sessions) -> Owner {
    owner_by(process.session, sessions, || process.variable(SERVICE))
}

fn owner_by(session: i32, sessions: &Sessions, service: impl FnOnce() -> Option<String>) -> Owner {
    sessions.get(&session).cloned().or_else(|| service()?.parse().ok()).map_or(Owner::Nobody, Owner::Service)
}

/// All processes of a service below `keeper`, its leader included, dead ones not. `core` and what it started (exec
/// probes) are no service's.
pub fn members<'a>(
    table: &'a ProcessTable,
    keeper: i32,
    core: i32,
    sessions: &Sessions,
    service: &ServiceName,
) -> Vec<&'a Process> {
    of_all(table, keeper, core, sessions).remove(service).unwrap_or_default()
}

/// As [`members`], of all services at once.
pub fn of_all<'a>(
    table: &'a ProcessTable,
    keeper: i32,
    core: i32,
    sessions: &Sessions,
) -> HashMap<ServiceName, Vec<&'a Process>> {
    let of_core: HashSet<i32> = table.descendants(core).iter().map(|process| process.identity.pid).collect();
    let mut found: HashMap<ServiceName, Vec<&Process>> = HashMap::new();
    for process in table.descendants(keeper) {
        let pid = process.identity.pid;
        if process.is_dead() || pid == core || of_core.contains(&pid) {
            continue;
        }
        if let Owner::Service(service) = owner(process, sessions) {
            found.entry(service).or_default().push(process);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_says_it_first_then_the_environment_else_it_is_nobodys() {
        let name = |text: &str| text.parse::<ServiceName>().unwrap();
        let sessions = Sessions::from([(70, name("counter"))]);
        let says = |text: &str| Some(text.to_owned());
        assert_eq!(owner_by(70, &sessions, || says("bumper")), Owner::Service(name("counter")));
        assert_eq!(owner_by(71, &sessions, || says("bumper")), Owner::Service(name("bumper")));
        assert_eq!(owner_by(71, &sessions, || says("No Name")), Owner::Nobody);
        assert_eq!(owner_by(71, &sessions, || None), Owner::Nobody);
    }

    #[test]
    fn a_service_has_its_leader_and_what_left_its_session() {
        use std::process::{Command, Stdio};
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", "setsid sleep 1000 & exec sleep 1000"])
            .env(SERVICE, "adopter")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let me = std::process::id().cast_signed();
        let pid = leader.id().cast_signed();
        // A name of its own: other tests have children that are called `counter`.
        let adopter: ServiceName = "adopter".parse().unwrap();
        let sessions = Sessions::from([(pid, adopter.clone())]);
        let found = loop {
            let table = ProcessTable::read().unwrap();
            let found: Vec<_> =
                members(&table, me, i32::MAX, &sessions, &adopter).into_iter().copied().collect();
            let sleeps = found.iter().filter(|process| process.session == process.identity.pid).count();
            if sleeps == 2 {
                break found;
            }
            std::thread::yield_now();
        };
        let table = ProcessTable::read().unwrap();
        assert!(
            members(&table, me, pid, &sessions, &adopter).is_empty(),
            "the core and its children are nobody's"
        );
        for process in found {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(process.identity.pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        leader.wait().unwrap();
    }
}
