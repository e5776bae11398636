//! A whole watchdog of a test's own: a fresh folder, real processes, and nothing left afterwards.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;
use watchdog_protocol::Incarnation;
use watchdog_protocol::status::EventRecord;

use crate::entry::{Entry, sample};
use crate::proc::{self, Process};
use crate::puppet::Puppet;
use crate::until::{self, until};
use crate::{Operator, Said, Seen};

/// `watchdog run` in a fresh folder, and its operator.
///
/// Dropping it stops the watchdog in good order and fails the test when a process, a cgroup or a socket file
/// of it is left behind; whatever is left is killed first.
#[derive(Debug)]
pub struct TestWatchdog {
    folder: TempDir,
    operator: Operator,
    run: Option<Child>,
    runs: u32,
}

impl TestWatchdog {
    /// Runs these samples with their default settings (a counter whose step is 1) until all are ready.
    pub fn start<const N: usize>(samples: [&str; N]) -> Self {
        let entry = |name: &str| match name {
            "counter" => sample(name).settings("step = 1"),
            _ => sample(name),
        };
        let this = Self::run(&samples.map(entry));
        this.until("all samples are ready", Seen::all_ready);
        this
    }

    /// Runs these services and programs; reachable when this returns, whatever they do.
    pub fn run(entries: &[Entry]) -> Self {
        let mut this = Self::idle();
        this.configure("", entries);
        this.run_again();
        this
    }

    /// A folder and no watchdog yet.
    pub fn idle() -> Self {
        // Below the target's temporary folder paths grow too long for some sockets: /tmp is short.
        let folder = tempfile::Builder::new().prefix("wd-").tempdir().expect("a fresh folder");
        let operator = Operator::new(folder.path());
        Self { folder, operator, run: None, runs: 0 }
    }

    /// Writes `watchdog.toml`: lines of the `[watchdog]` table, then the entries.
    pub fn configure(&self, watchdog: &str, entries: &[Entry]) {
        let tables: Vec<String> = entries.iter().map(|entry| entry.render(self.folder())).collect();
        let text = format!("[watchdog]\n{watchdog}\n{}", tables.join("\n"));
        fs::write(self.folder().join("watchdog.toml"), text).expect("the folder can be written");
    }

    /// Starts `watchdog run` and waits until it can be reached.
    ///
    /// # Panics
    /// When it ends instead, with what it said.
    pub fn run_again(&mut self) {
        self.spawn_run();
        let mut run = self.run.take().expect("started above");
        let ended = until(
            "the watchdog can be reached",
            || self.explain(),
            || {
                let ended = run.try_wait().expect("a child of ours");
                if ended.is_some() { Some(ended) } else { self.operator.try_status().ok().map(|_| None) }
            },
        );
        match ended {
            None => self.run = Some(run),
            Some(status) => {
                panic!("`watchdog run` ended with {status} instead of being reached\n{}", self.explain())
            }
        }
    }

    /// Starts `watchdog run` and waits for nothing.
    pub fn spawn_run(&mut self) {
        assert!(self.run.is_none(), "the former run has ended");
        self.runs += 1;
        let file = |kind: &str| {
            File::create(self.folder().join(format!("run-{}.{kind}", self.runs)))
                .expect("a file for its output")
        };
        let config = self.folder().join("watchdog.toml");
        let mut command =
            self.operator.command(&["run", "--config", config.to_str().expect("a path of ours")]);
        command.stdout(file("out")).stderr(file("err")).process_group(0);
        self.run = Some(command.spawn().expect("the watchdog's program runs"));
    }

    /// Where it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Runs a command line in its folder, to its end.
    pub fn cli<S: AsRef<str>>(&self, args: &[S]) -> Said {
        self.operator.run(args)
    }

    /// Its operator, to be used from another thread.
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// The strings of a puppet of this watchdog.
    pub fn puppet(&self, name: &str) -> Puppet {
        Puppet::new(name, self.folder())
    }

    /// The status now.
    ///
    /// # Panics
    /// When it can't be had.
    #[track_caller]
    pub fn status(&self) -> Seen {
        match self.operator.try_status() {
            Ok(seen) => seen,
            Err(said) => panic!("no status: {said}\n{}", self.explain()),
        }
    }

    /// Waits until the status shows it, and gives that status. A watchdog that can't be reached for a moment
    /// is looked at again.
    ///
    /// # Panics
    /// After the harness's deadline, with status, events and logs.
    pub fn until(&self, what: &str, shows: impl Fn(&Seen) -> bool) -> Seen {
        until(what, || self.explain(), || self.operator.try_status().ok().filter(|seen| shows(seen)))
    }

    /// Waits until the event log holds an entry like this, and gives it.
    ///
    /// # Panics
    /// After the harness's deadline, with status, events and logs.
    pub fn until_event(&self, what: &str, like: impl Fn(&EventRecord) -> bool) -> EventRecord {
        self.until_some(what, || self.events().into_iter().find(|event| like(event)))
    }

    /// The event log as its file holds it, oldest first; there also when the watchdog is not.
    pub fn events(&self) -> Vec<EventRecord> {
        let text = fs::read_to_string(self.path(".watchdog/logs/events.jsonl")).unwrap_or_default();
        // The last line may be in the making.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The number of the last event of this kind about this service.
    #[track_caller]
    pub fn last_event(&self, what: &str, service: &str) -> u64 {
        let about = |event: &&EventRecord| {
            event.what == what && event.service.as_ref().is_some_and(|name| name.as_str() == service)
        };
        let number = self.events().iter().filter(about).map(|event| event.number).max();
        number.unwrap_or_else(|| panic!("nothing tells that `{service}` {what}\n{}", self.explain()))
    }

    /// Waits until `look` sees something, anything.
    ///
    /// # Panics
    /// After the harness's deadline, with status, events and logs.
    pub fn until_some<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        until(what, || self.explain(), look)
    }

    /// Sends a signal to a service's process from outside and gives the incarnation that got it.
    pub fn kill(&self, name: &str, signal: Signal) -> Incarnation {
        let seen = self.status();
        let service = seen.of(name);
        service.process().signal(signal);
        service.incarnation
    }

    /// Kills the core and waits for the next one; gives the one that died.
    pub fn kill_core(&self) -> Process {
        let old = self.core();
        old.signal(Signal::SIGKILL);
        self.until("the next core is there", |seen| seen.watchdog.core_pid != old.pid);
        old
    }

    /// Kills the keeper, and waits for its end and for that of all it had started.
    pub fn kill_keeper(&mut self) -> ExitStatus {
        self.keeper().signal(Signal::SIGKILL);
        let status = self.ended();
        until(
            "all is gone after the keeper's death",
            || self.explain(),
            || self.processes().is_empty().then_some(()),
        );
        status
    }

    /// The keeper's number: it is the process that was started.
    pub fn keeper_pid(&self) -> u32 {
        self.run.as_ref().expect("it runs").id()
    }

    /// The keeper.
    pub fn keeper(&self) -> Process {
        Process::of(self.keeper_pid()).expect("the keeper runs")
    }

    /// The core.
    pub fn core(&self) -> Process {
        Process::of(self.status().watchdog.core_pid).expect("the core runs")
    }

    /// All processes of this watchdog, operators at work included.
    pub fn processes(&self) -> Vec<Process> {
        proc::belonging_to(self.folder())
    }

    /// Waits for the end of `watchdog run`.
    pub fn ended(&mut self) -> ExitStatus {
        let mut run = self.run.take().expect("it was started");
        until("the end of `watchdog run`", || self.explain(), || run.try_wait().expect("a child of ours"))
    }

    /// Ends it as a service manager would, by SIGTERM, and gives how long that took.
    pub fn stop(&mut self) -> Duration {
        let mut run = self.run.take().expect("it was started");
        let begin = Instant::now();
        terminate(&run);
        // No looking again and again: this is for who measures.
        let status = run.wait().expect("a child of ours");
        let took = begin.elapsed();
        assert!(status.signal().is_none(), "the keeper ended by {status}\n{}", self.explain());
        took
    }

    /// What the last `watchdog run` printed.
    pub fn output(&self) -> String {
        let read = |kind: &str| fs::read_to_string(self.path(&format!("run-{}.{kind}", self.runs)));
        format!("{}{}", read("out").unwrap_or_default(), read("err").unwrap_or_default())
    }

    /// Everything one wants to see when something was not seen.
    fn explain(&self) -> String {
        let said = |args: &[&str]| {
            let output = self.operator.command(args).output();
            output.map(|out| String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
        };
        let mut text = String::new();
        for args in [&["status"][..], &["events", "-n", "60"], &["intercoms"]] {
            text += &format!("── watchdog {}\n{}\n", args.join(" "), said(args).unwrap_or_default());
        }
        text += &format!("── watchdog run\n{}\n", self.output());
        let mut files: Vec<PathBuf> = files_below(&self.path(".watchdog/logs")).collect();
        files.sort();
        for file in files {
            let bytes = fs::read(&file).unwrap_or_default();
            let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4000)..]).into_owned();
            text += &format!("── {}\n{tail}\n", file.display());
        }
        text
    }

    /// The cgroups of its services: those of its processes that are not the keeper's own.
    fn cgroups(&self) -> BTreeSet<PathBuf> {
        let Some(run) = &self.run else { return BTreeSet::new() };
        let own = proc::cgroup(run.id());
        let others = self.processes().into_iter().map(|process| proc::cgroup(process.pid));
        others.filter(|found| *found != own).flatten().collect()
    }

    /// Stops what runs; says what was left behind after it was to be gone.
    fn close(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        let cgroups = self.cgroups();
        if let Some(mut run) = self.run.take() {
            terminate(&run);
            let ended = until::or_give_up(|| run.try_wait().ok().flatten());
            match ended {
                None => left.push("`watchdog run` itself, asked by SIGTERM to end".to_owned()),
                Some(status) if status.signal().is_some() => {
                    left.push(format!("a keeper that ended by {status}"));
                }
                Some(_) => {}
            }
            if ended.is_none() {
                let _gone = signal::killpg(number(&run), Signal::SIGKILL);
                let _reaped = run.wait();
            }
        }
        let _gone = until::or_give_up(|| self.processes().is_empty().then_some(()));
        for process in self.processes() {
            let name = fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
            left.push(format!("process {} ({})", process.pid, name.trim()));
            process.signal(Signal::SIGKILL);
        }
        let sockets = files_below(&self.path(".watchdog/run"))
            .filter(|file| fs::symlink_metadata(file).is_ok_and(|found| found.file_type().is_socket()));
        left.extend(sockets.map(|file| format!("socket {}", file.display())));
        let cgroups = cgroups.into_iter().filter(|folder| folder.exists());
        left.extend(cgroups.map(|folder| format!("cgroup {}", folder.display())));
        left
    }
}

impl Drop for TestWatchdog {
    fn drop(&mut self) {
        let left = self.close();
        if !left.is_empty() && !thread::panicking() {
            panic!("left behind: {}\n{}", left.join(", "), self.explain());
        }
    }
}

fn number(run: &Child) -> Pid {
    Pid::from_raw(i32::try_from(run.id()).expect("the kernel's numbers fit"))
}

fn terminate(run: &Child) {
    let _gone = signal::kill(number(run), Signal::SIGTERM);
}

/// The files of a folder and of those in it.
fn files_below(folder: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Box::new(std::iter::empty()) };
    Box::new(entries.filter_map(Result::ok).flat_map(|entry| {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&path)
        } else {
            Box::new(std::iter::once(path)) as Box<dyn Iterator<Item = PathBuf>>
        }
    }))
}
