//! Asking a plain program from outside: is it ready, is it alive.
//!
//! ```text
//! start ─► try ─► told or not ─► wait for the next turn ─► try …      one task per service, until stop
//!            tcp: a connection is accepted   http: a page is given   exec: a command exits with 0
//! ```
//! A try that takes longer than the probe's timeout has failed. Tries of one probe never overlap: a slow one delays
//! the next, so a hung program is asked no faster than it fails to answer.
//!
//! What a probe does is never a decision: it is told as a fact, and the lifecycle counts the misses.

mod exec;
mod http;

use std::collections::HashMap;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use watchdog_lifecycle::{Fact, Purpose};
use watchdog_protocol::{Incarnation, ServiceName};

use crate::config::{Launch, Probe, ProbeKind};

/// Answers that wait for the event loop; a full one delays the next tries, never the loop.
const HEARD: usize = 64;

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was answered in time.
    Answered,
    /// It was not.
    Missed,
}

/// A try that the lifecycle should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Whom.
    pub service: ServiceName,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// What for.
    pub purpose: Purpose,
    /// What came of it.
    pub answer: Answer,
}

impl Heard {
    /// As the lifecycle takes it.
    pub fn fact(&self) -> Fact {
        match (self.purpose, self.answer) {
            (Purpose::Ready, Answer::Answered) => Fact::Ready,
            (Purpose::Alive, Answer::Answered) => Fact::Heartbeat,
            (Purpose::Ready | Purpose::Alive, Answer::Missed) => Fact::ProbeMissed,
        }
    }
}

/// All probes of one event loop.
#[derive(Debug)]
pub struct Probes {
    running: HashMap<ServiceName, Running>,
    tasks: JoinSet<()>,
    tell: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
}

/// The one probe of a service.
#[derive(Debug)]
struct Running {
    incarnation: Incarnation,
    purpose: Purpose,
    task: AbortHandle,
}

impl Default for Probes {
    fn default() -> Self {
        Self::new()
    }
}

impl Probes {
    /// None yet.
    pub fn new() -> Self {
        let (tell, heard) = mpsc::channel(HEARD);
        Self { running: HashMap::new(), tasks: JoinSet::new(), tell, heard }
    }

    /// Asks a process of this service from now on, in the place of what was asked of the service before: for
    /// [`Purpose::Ready`] until it is answered once, for [`Purpose::Alive`] until [`stop`](Self::stop). Asking
    /// again for what runs already changes nothing. `exec` probes run as the service is launched: its folder,
    /// environment and user. Must be called within a tokio runtime.
    pub fn start(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        purpose: Purpose,
        probe: &Probe,
        launch: &Launch,
    ) {
        if let Some(now) = self.running.get(service) {
            if (now.incarnation, now.purpose) == (incarnation, purpose) {
                return;
            }
            now.task.abort();
        }
        let heard = Heard { service: service.clone(), incarnation, purpose, answer: Answer::Missed };
        let task = self.tasks.spawn(ask(probe.clone(), launch.clone(), heard, self.tell.clone()));
        self.running.insert(service.clone(), Running { incarnation, purpose, task });
    }

    /// Asks this process no more; a command that runs is killed. Nothing of it is heard from here on.
    pub fn stop(&mut self, service: &ServiceName, incarnation: Incarnation) {
        if self.running.get(service).is_some_and(|now| now.incarnation == incarnation)
            && let Some(now) = self.running.remove(service)
        {
            now.task.abort();
        }
    }

    /// The next answer or miss; waits for ever while nothing is asked. Cancel safe.
    pub async fn heard(&mut self) -> Heard {
        loop {
            let heard = self.heard.recv().await.expect("the sender beside it lives as long");
            while let Some(ended) = self.tasks.try_join_next() {
                if let Err(Ok(panic)) = ended.map_err(tokio::task::JoinError::try_into_panic) {
                    std::panic::resume_unwind(panic);
                }
            }
            // What was queued before a stop or another start is of no interest any more.
            let current = self.running.get(&heard.service);
            if current.is_some_and(|now| (now.incarnation, now.purpose) == (heard.incarnation, heard.purpose))
            {
                return heard;
            }
        }
    }
}

/// One probe, until it has done its work or is aborted.
async fn ask(probe: Probe, launch: Launch, asked: Heard, tell: mpsc::Sender<Heard>) {
    loop {
        let began = Instant::now();
        let answer = match timeout(probe.timeout, once(&probe, &launch)).await {
            Ok(answer) => answer,
            Err(_late) => Answer::Missed,
        };
        let done = (asked.purpose, answer) == (Purpose::Ready, Answer::Answered);
        // Until it is ready a miss is no news.
        let news = asked.purpose == Purpose::Alive || done;
        if news && tell.send(Heard { answer, ..asked.clone() }).await.is_err() {
            return;
        }
        if done {
            return;
        }
        sleep_until(next(began, probe.interval, Instant::now())).await;
    }
}

/// An interval after the last try began; at once when that took longer.
fn next(began: Instant, interval: Duration, now: Instant) -> Instant {
    (began + interval).max(now)
}

async fn once(probe: &Probe, launch: &Launch) -> Answer {
    let answered = match &probe.kind {
        ProbeKind::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.is_ok(),
        ProbeKind::Http { host, port, path } => http::answers(host, *port, path).await,
        ProbeKind::Exec { program, args } => exec::succeeds(program, args, launch).await,
    };
    if answered { Answer::Answered } else { Answer::Missed }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn counter() -> ServiceName {
        "counter".parse().unwrap()
    }

    fn launch() -> Launch {
        Launch {
            program: "/bin/true".into(),
            args: Vec::new(),
            dir: "/".into(),
            env: [("GREETING".to_owned(), "hello".to_owned())].into(),
            user: None,
            umask: 0o077,
            rlimits: BTreeMap::new(),
        }
    }

    fn probe(kind: ProbeKind) -> Probe {
        Probe { kind, interval: Duration::from_millis(1), timeout: LONG }
    }

    fn shell(script: &str) -> Probe {
        probe(ProbeKind::Exec { program: "sh".into(), args: vec!["-c".into(), script.into()] })
    }

    fn start(probes: &mut Probes, purpose: Purpose, probe: &Probe) {
        probes.start(&counter(), Incarnation::FIRST, purpose, probe, &launch());
    }

    async fn heard(probes: &mut Probes) -> Fact {
        timeout(LONG, probes.heard()).await.expect("something is heard").fact()
    }

    /// Is true from the `n`-th try on; each try leaves a line in `tries`.
    fn from_try(n: usize, tries: &Path) -> Probe {
        shell(&format!("echo >> {tries}; test $(wc -l < {tries}) -ge {n}", tries = tries.display()))
    }

    #[tokio::test]
    async fn ready_is_heard_once_from_the_first_answer_and_misses_before_it_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let tries = folder.path().join("tries");
        let mut probes = Probes::new();
        start(&mut probes, Purpose::Ready, &from_try(3, &tries));
        assert_eq!(heard(&mut probes).await, Fact::Ready);
        assert_eq!(std::fs::read_to_string(&tries).unwrap().len(), 3);
        while !probes.tasks.is_empty() {
            probes.tasks.join_next().await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn alive_is_heard_for_ever_answers_and_misses() {
        let folder = tempfile::tempdir().unwrap();
        let mut probes = Probes::new();
        start(&mut probes, Purpose::Alive, &from_try(3, &folder.path().join("tries")));
        let mut facts = Vec::new();
        for _ in 0..4 {
            facts.push(heard(&mut probes).await);
        }
        assert_eq!(facts, [Fact::ProbeMissed, Fact::ProbeMissed, Fact::Heartbeat, Fact::Heartbeat]);
    }

    #[tokio::test]
    async fn a_port_answers_when_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut probes = Probes::new();
        let tcp = probe(ProbeKind::Tcp { host: "127.0.0.1".into(), port });
        start(&mut probes, Purpose::Alive, &tcp);
        assert_eq!(heard(&mut probes).await, Fact::Heartbeat);
        drop(listener);
        while heard(&mut probes).await != Fact::ProbeMissed {}
    }

    #[tokio::test]
    async fn a_late_command_is_a_miss_and_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let mut late =
            shell(&format!("sleep 1000 & echo $! $$ > {}.new; mv {0}.new {0}; wait", pids.display()));
        late.interval = LONG;
        // Long enough for the shell to write, however slow; the test waits for the file, the miss for the timeout.
        late.timeout = Duration::from_millis(500);
        let mut probes = Probes::new();
        start(&mut probes, Purpose::Alive, &late);
        let written = loop {
            let fact = heard(&mut probes).await;
            assert_eq!(fact, Fact::ProbeMissed);
            if let Ok(text) = std::fs::read_to_string(&pids) {
                break text;
            }
            // The machine was busy: again, with more time.
            late.timeout *= 2;
            probes.stop(&counter(), Incarnation::FIRST);
            start(&mut probes, Purpose::Alive, &late);
        };
        until_dead(&written).await;
    }

    #[tokio::test]
    async fn a_stop_kills_the_command_and_nothing_is_heard_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let mut probes = Probes::new();
        let script = format!("sleep 1000 & echo $! $$ > {}.new; mv {0}.new {0}; wait", pids.display());
        start(&mut probes, Purpose::Ready, &shell(&script));
        let deadline = Instant::now() + LONG;
        let written = loop {
            if let Ok(text) = std::fs::read_to_string(&pids) {
                break text;
            }
            assert!(Instant::now() < deadline, "the command runs");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        probes.stop(&counter(), Incarnation::FIRST);
        until_dead(&written).await;
        start(&mut probes, Purpose::Alive, &shell("true"));
        assert_eq!(heard(&mut probes).await, Fact::Heartbeat);
    }

    async fn until_dead(pids: &str) {
        let deadline = Instant::now() + LONG;
        for pid in pids.split_whitespace() {
            let pid: i32 = pid.parse().unwrap();
            while crate::processes::Process::read(pid).is_ok_and(|process| !process.is_dead()) {
                assert!(Instant::now() < deadline, "{pid} still runs");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn a_command_runs_in_the_services_surroundings_only() {
        let mut probes = Probes::new();
        start(
            &mut probes,
            Purpose::Ready,
            &shell(r#"test "$GREETING" = hello && test -z "$CARGO" && test $PWD = /"#),
        );
        assert_eq!(heard(&mut probes).await, Fact::Ready);
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_a_miss() {
        let mut probes = Probes::new();
        let kind = ProbeKind::Exec { program: "/no/such/program".into(), args: Vec::new() };
        start(&mut probes, Purpose::Alive, &probe(kind));
        assert_eq!(heard(&mut probes).await, Fact::ProbeMissed);
    }

    #[tokio::test]
    async fn what_runs_already_is_not_started_twice_and_another_takes_its_place() {
        let mut probes = Probes::new();
        start(&mut probes, Purpose::Alive, &shell("true"));
        start(&mut probes, Purpose::Alive, &shell("false"));
        assert_eq!(heard(&mut probes).await, Fact::Heartbeat);
        assert_eq!(probes.running.len(), 1);
        probes.start(&counter(), Incarnation::FIRST.next(), Purpose::Alive, &shell("false"), &launch());
        probes.stop(&counter(), Incarnation::FIRST);
        assert_eq!(heard(&mut probes).await, Fact::ProbeMissed);
    }

    #[test]
    fn tries_begin_an_interval_apart_and_never_overlap() {
        let began = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(next(began, second, began + second / 10), began + second);
        assert_eq!(next(began, second, began + second * 3), began + second * 3);
    }
}
