//! Probes: questions asked from outside, of processes that can't tell how they are.
//!
//! ```text
//! start ─► task: ask, wait the interval, ask … ─► Heard ─► event loop ─► Fact::Ready, Heartbeat or ProbeMissed
//! stop  ─► the task and what it started are gone
//! ```
//! Nothing is decided here: how many silences are too many is the lifecycle's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use watchdog_lifecycle::{Fact, Purpose};
use watchdog_protocol::{Incarnation, ServiceName};

use crate::config::{Launch, Probe, ProbeKind};

/// Answers that wait for the event loop. A full one makes the probes wait.
const ANSWERS: usize = 64;

/// What a probe heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Of which service.
    pub service: ServiceName,
    /// Of which process.
    pub incarnation: Incarnation,
    purpose: Purpose,
    answered: bool,
}

impl Heard {
    /// What it means for the service.
    pub fn fact(&self) -> Fact {
        match (self.purpose, self.answered) {
            (Purpose::Ready, _) => Fact::Ready,
            (Purpose::Alive, true) => Fact::Heartbeat,
            (Purpose::Alive, false) => Fact::ProbeMissed,
        }
    }
}

/// All probes that are being asked, one a process and purpose.
#[derive(Debug)]
pub struct Probes {
    tasks: JoinSet<()>,
    running: BTreeMap<(ServiceName, Incarnation), AbortHandle>,
    tell: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
}

impl Default for Probes {
    fn default() -> Self {
        Self::new()
    }
}

impl Probes {
    /// None yet.
    pub fn new() -> Self {
        let (tell, heard) = mpsc::channel(ANSWERS);
        Self { tasks: JoinSet::new(), running: BTreeMap::new(), tell, heard }
    }

    /// Begins to ask, in place of what was asked of this process before. An exec probe runs in the surroundings of
    /// the service.
    pub fn start(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        purpose: Purpose,
        probe: &Probe,
        launch: &Launch,
    ) {
        self.stop(service, incarnation);
        while self.tasks.try_join_next().is_some() {}
        let asked = Asked {
            service: service.clone(),
            incarnation,
            purpose,
            probe: probe.clone(),
            dir: launch.dir.clone(),
            environment: launch.environment(std::env::vars_os()),
        };
        let task = self.tasks.spawn(asked.run(self.tell.clone()));
        self.running.insert((service.clone(), incarnation), task);
    }

    /// Asks no more; a command that is being run is killed.
    pub fn stop(&mut self, service: &ServiceName, incarnation: Incarnation) {
        if let Some(task) = self.running.remove(&(service.clone(), incarnation)) {
            task.abort();
        }
    }

    /// The next answer; waits for ever while nothing is asked. Cancel safe.
    pub async fn heard(&mut self) -> Heard {
        self.heard.recv().await.expect("a sender is kept")
    }
}

struct Asked {
    service: ServiceName,
    incarnation: Incarnation,
    purpose: Purpose,
    probe: Probe,
    dir: PathBuf,
    environment: BTreeMap<OsString, OsString>,
}

impl Asked {
    async fn run(self, tell: mpsc::Sender<Heard>) {
        loop {
            let answered = timeout(self.probe.timeout, self.ask()).await.unwrap_or(false);
            if answered || self.purpose == Purpose::Alive {
                let heard = Heard {
                    service: self.service.clone(),
                    incarnation: self.incarnation,
                    purpose: self.purpose,
                    answered,
                };
                if tell.send(heard).await.is_err() || self.purpose == Purpose::Ready {
                    return;
                }
            }
            sleep(self.probe.interval).await;
        }
    }

    async fn ask(&self) -> bool {
        match &self.probe.kind {
            ProbeKind::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.is_ok(),
            ProbeKind::Exec { program, args } => {
                let child = Command::new(program)
                    .args(args)
                    .current_dir(&self.dir)
                    .env_clear()
                    .envs(&self.environment)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .process_group(0)
                    .kill_on_drop(true)
                    .spawn();
                let Ok(mut child) = child else { return false };
                // Its children too, should it be given up: they are in its group.
                let group = child.id().map(Group);
                let ended = child.wait().await;
                // It is reaped: its number may be somebody else's by now.
                std::mem::forget(group);
                ended.is_ok_and(|status| status.success())
            }
        }
    }
}

/// A process group that goes with the question.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        // Dropped before the command is reaped only, so the number is still its own.
        let _ = killpg(Pid::from_raw(self.0.cast_signed()), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn launch() -> Launch {
        Launch {
            program: "/bin/true".into(),
            args: Vec::new(),
            dir: "/".into(),
            env: BTreeMap::new(),
            user: None,
            umask: 0o077,
            rlimits: BTreeMap::new(),
        }
    }

    fn probe(kind: ProbeKind) -> Probe {
        Probe { kind, interval: Duration::from_millis(1), timeout: Duration::from_secs(20) }
    }

    fn exec(script: &str) -> Probe {
        probe(ProbeKind::Exec { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] })
    }

    fn name() -> ServiceName {
        "a".parse().unwrap()
    }

    #[tokio::test]
    async fn a_listening_port_is_ready() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut probes = Probes::new();
        let tcp = probe(ProbeKind::Tcp { host: "127.0.0.1".into(), port });
        probes.start(&name(), Incarnation::FIRST, Purpose::Ready, &tcp, &launch());
        assert_eq!(probes.heard().await.fact(), Fact::Ready);
    }

    #[tokio::test]
    async fn a_command_is_asked_until_it_says_yes() {
        let folder = tempfile::tempdir().unwrap();
        let flag = folder.path().join("flag");
        // The first try makes the flag and fails, the second finds it.
        let script = format!("test -e {0} || {{ touch {0}; exit 1; }}", flag.display());
        let mut probes = Probes::new();
        probes.start(&name(), Incarnation::FIRST, Purpose::Ready, &exec(&script), &launch());
        assert_eq!(probes.heard().await.fact(), Fact::Ready);
        assert!(flag.exists());
    }

    #[tokio::test]
    async fn a_probe_for_life_tells_answers_and_silences() {
        let mut probes = Probes::new();
        probes.start(&name(), Incarnation::FIRST, Purpose::Alive, &exec("exit 0"), &launch());
        assert_eq!(probes.heard().await.fact(), Fact::Heartbeat);
        assert_eq!(probes.heard().await.fact(), Fact::Heartbeat);
        probes.start(&name(), Incarnation::FIRST, Purpose::Alive, &exec("exit 3"), &launch());
        // An answer of the first may still be on its way.
        while probes.heard().await.fact() != Fact::ProbeMissed {}
    }

    #[tokio::test]
    async fn a_command_that_is_late_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let late = Probe { timeout: Duration::from_millis(300), ..exec(&script) };
        let mut probes = Probes::new();
        probes.start(&name(), Incarnation::FIRST, Purpose::Alive, &late, &launch());
        assert_eq!(probes.heard().await.fact(), Fact::ProbeMissed);
        probes.stop(&name(), Incarnation::FIRST);
        if let Ok(text) = std::fs::read_to_string(&pid)
            && let Ok(pid) = text.trim().parse::<i32>()
        {
            let gone = || crate::processes::Process::read(pid).map_or(true, |process| process.is_dead());
            while !gone() {
                tokio::task::yield_now().await;
            }
        }
    }
}
