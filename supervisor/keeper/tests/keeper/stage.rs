//! A keeper process, and the test in the place of its core.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use watchdog_keeper::protocol::{Attach, ChildStep, ExitReport, FromKeeper, Hello, SpawnRequest, ToKeeper};
use watchdog_protocol::{Incarnation, ServiceName};
use watchdog_seqpacket::{MAX_DESCRIPTORS, Received, Seqpacket};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running keeper.
pub(crate) struct Stage {
    keeper: Child,
    cores: Seqpacket,
    pub(crate) folder: tempfile::TempDir,
}

/// A core, played by the test.
pub(crate) struct Core {
    channel: Option<Seqpacket>,
    pid: Pid,
    buffer: Vec<u8>,
}

/// What a core is told at first.
pub(crate) struct HandOver {
    pub(crate) hello: Hello,
    pub(crate) stored: Vec<(Vec<u8>, Vec<OwnedFd>)>,
    pub(crate) ends: Vec<FromKeeper>,
    pub(crate) replaced: Vec<FromKeeper>,
    pub(crate) safe: Option<FromKeeper>,
    pub(crate) most_in_a_packet: usize,
}

impl Stage {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keeper-testbed"));
        command.arg("keeper");
        Self::start_with(command)
    }

    /// The command is used up: it holds the keeper's standard input.
    pub(crate) fn start_with(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cores, theirs) = Seqpacket::pair().unwrap();
        let said = File::create(folder.path().join("said")).unwrap();
        let keeper = command.stdin(Stdio::from(OwnedFd::from(theirs))).stderr(said).spawn().unwrap();
        Self { keeper, cores, folder }
    }

    /// The keeper with its first core, after the hand-over.
    pub(crate) fn with_core() -> (Self, Core) {
        let stage = Self::start();
        let mut core = stage.next_core();
        core.hand_over();
        (stage, core)
    }

    pub(crate) fn next_core(&self) -> Core {
        let mut pid = [0; 4];
        let received = self.cores.recv_by(&mut pid, 1, Instant::now() + PATIENCE);
        let Ok(Received::Packet(mut packet)) = received else {
            panic!("no core came: {received:?}; the keeper said: {}", self.said())
        };
        let channel = Seqpacket::from_fd(packet.descriptors.remove(0)).unwrap();
        Core { channel: Some(channel), pid: Pid::from_raw(i32::from_le_bytes(pid)), buffer: vec![0; 1 << 16] }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.keeper.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.keeper.id() as i32), signal).unwrap();
    }

    /// All lines of the keeper on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap()
    }

    /// How many descriptors the keeper has open.
    pub(crate) fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The keeper's exit code, once it and all its cores are gone: then nobody holds the other end any more.
    pub(crate) fn exit_code(mut self) -> i32 {
        let end = self.cores.recv_by(&mut [0; 4], 0, Instant::now() + PATIENCE);
        assert!(
            matches!(end, Ok(Received::End)),
            "the keeper does not end: {end:?}; it said: {}",
            self.said()
        );
        let status = self.keeper.wait().unwrap();
        status.code().unwrap_or_else(|| panic!("the keeper was killed: {status}; it said: {}", self.said()))
    }

    /// Waits until the keeper has said this many lines.
    pub(crate) fn until_said(&self, lines: usize) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.said();
            if said.lines().count() >= lines {
                return said;
            }
            assert!(Instant::now() < until, "waiting for {lines} lines, the keeper said: {said}");
            std::thread::sleep(Duration::from_millis(2)); // a file can't be waited for
        }
    }

    /// Ends everything in order.
    pub(crate) fn finish(self, core: Core) {
        core.send(&ToKeeper::Finish { code: 7 }, &[]);
        core.die();
        assert_eq!(self.exit_code(), 7);
    }
}

impl Drop for Stage {
    /// Only a test that failed leaves a keeper behind: with all its descendants it goes.
    fn drop(&mut self) {
        if matches!(self.keeper.try_wait(), Ok(None)) {
            for pid in descendants(self.pid()) {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
        }
    }
}

fn descendants(of: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let children = list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    children.flat_map(|pid: u32| [descendants(pid), vec![pid]].concat()).collect()
}

impl Core {
    fn channel(&self) -> &Seqpacket {
        self.channel.as_ref().expect("not closed")
    }

    /// The process stays.
    pub(crate) fn close(&mut self) {
        self.channel = None;
    }

    pub(crate) fn die(self) {
        kill(self.pid, Signal::SIGKILL).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    pub(crate) fn send(&self, message: &ToKeeper, beside: &[BorrowedFd<'_>]) {
        let packet = message.encode().unwrap();
        let payload = packet.payload.iter().map(AsFd::as_fd);
        let all: Vec<BorrowedFd<'_>> = payload.chain(beside.iter().copied()).collect();
        self.send_bytes(&packet.bytes, &all);
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8], beside: &[BorrowedFd<'_>]) {
        self.channel().send_by(&[IoSlice::new(bytes)], beside, Instant::now() + PATIENCE).unwrap();
    }

    pub(crate) fn recv(&mut self) -> (FromKeeper, Vec<OwnedFd>) {
        let until = Instant::now() + PATIENCE;
        let channel = self.channel.as_ref().expect("not closed");
        match channel.recv_by(&mut self.buffer, MAX_DESCRIPTORS, until) {
            Ok(Received::Packet(packet)) => {
                let mut beside = packet.descriptors;
                (FromKeeper::decode(&self.buffer[..packet.length], &mut beside).unwrap(), beside)
            }
            other => panic!("the keeper says nothing: {other:?}"),
        }
    }

    /// The first message that `wanted` makes something of; others are skipped.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(FromKeeper, Vec<OwnedFd>) -> Option<T>,
    ) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let (message, beside) = self.recv();
            let text = format!("{message:?}");
            if let Some(found) = wanted(message, beside) {
                return found;
            }
            assert!(Instant::now() < until, "still waiting for {what}, got {text}");
        }
    }

    pub(crate) fn hand_over(&mut self) -> HandOver {
        let (FromKeeper::Hello(hello), _) = self.recv() else { panic!("the first message is a hello") };
        let mut told = HandOver {
            hello,
            stored: Vec::new(),
            ends: Vec::new(),
            replaced: Vec::new(),
            safe: None,
            most_in_a_packet: 0,
        };
        loop {
            match self.recv() {
                (FromKeeper::HandedOver, _) => return told,
                (FromKeeper::Descriptors(names), mut beside) => {
                    told.most_in_a_packet = told.most_in_a_packet.max(beside.len());
                    for stored in names {
                        let rest = beside.split_off(stored.count as usize);
                        told.stored.push((stored.name, beside));
                        beside = rest;
                    }
                    assert!(beside.is_empty(), "more descriptors than were named");
                }
                (replaced @ FromKeeper::Replaced { .. }, _) => told.replaced.push(replaced),
                (safe @ FromKeeper::Safe { .. }, _) => told.safe = Some(safe),
                (end @ (FromKeeper::Exited(_) | FromKeeper::SpawnFailed { .. }), _) => told.ends.push(end),
                (other, _) => panic!("not part of a hand-over: {other:?}"),
            }
        }
    }

    pub(crate) fn spawn(&self, request: &SpawnRequest, beside: &[BorrowedFd<'_>]) {
        self.send(&ToKeeper::Spawn(request.clone()), beside);
    }

    /// Spawns and waits for exec.
    pub(crate) fn spawned(
        &mut self,
        request: &SpawnRequest,
        beside: &[BorrowedFd<'_>],
    ) -> watchdog_keeper::protocol::Child {
        self.spawn(request, beside);
        self.until("Spawned", |message, _| match message {
            FromKeeper::Spawned(child) if child.service == request.service => Some(child),
            FromKeeper::SpawnFailed { step, errno, .. } => panic!("{step:?}: errno {errno}"),
            _ => None,
        })
    }

    pub(crate) fn exited(&mut self, service: &str) -> ExitReport {
        self.until("Exited", |message, _| match message {
            FromKeeper::Exited(report) if report.service.as_str() == service => Some(report),
            _ => None,
        })
    }

    pub(crate) fn orphans(&mut self) -> Vec<u32> {
        self.send(&ToKeeper::Orphans, &[]);
        self.until("Orphans", |message, _| match message {
            FromKeeper::Orphans(pids) => Some(pids),
            _ => None,
        })
    }

    pub(crate) fn until_no_orphans(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.orphans();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "orphans stay: {left:?}");
        }
    }

    /// Spawns a service that ends and leaves a process in a session of its own: its report, and that process.
    pub(crate) fn leaves_an_orphan(&mut self, service: &str) -> (ExitReport, u32) {
        let (mut read, write) = std::io::pipe().unwrap();
        let (go, tell) = std::io::pipe().unwrap();
        let script = "setsid sh -c 'echo $$; exec sleep 1000' & read go";
        let request = sh(service, script).attach(Attach::Child(1)).attach(Attach::Child(0));
        self.spawned(&request, &[write.as_fd(), go.as_fd()]);
        drop(go);
        let orphan = line(&mut read).parse().unwrap();
        drop(tell); // it has left the group that dies with the leader; now the leader may end
        (self.exited(service), orphan)
    }

    /// Runs a program to its end and returns what it wrote to its standard output.
    pub(crate) fn output(&mut self, request: SpawnRequest) -> String {
        let (mut read, write) = std::io::pipe().unwrap();
        let request = request.attach(Attach::Child(1));
        self.spawned(&request, &[write.as_fd()]);
        drop(write);
        let mut output = String::new();
        until_end(&mut read, &mut output);
        self.exited(request.service.as_str());
        output
    }
}

fn until_end(pipe: &mut std::io::PipeReader, output: &mut String) {
    let mut bytes = Vec::new();
    loop {
        let patience = PollTimeout::from(u16::MAX);
        let ready = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], patience).unwrap();
        assert_eq!(ready, 1, "the pipe has no end; so far: {bytes:?}");
        let mut some = [0; 4096];
        match pipe.read(&mut some).unwrap() {
            0 => break,
            read => bytes.extend_from_slice(&some[..read]),
        }
    }
    output.push_str(&String::from_utf8(bytes).unwrap());
}

/// One line of a pipe that stays open.
pub(crate) fn line(pipe: &mut std::io::PipeReader) -> String {
    let mut bytes = Vec::new();
    while bytes.last() != Some(&b'\n') {
        let patience = PollTimeout::from(u16::MAX);
        let ready = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], patience).unwrap();
        assert_eq!(ready, 1, "no line came; so far: {bytes:?}");
        let mut one = [0; 1];
        assert_eq!(pipe.read(&mut one).unwrap(), 1, "the pipe ended; so far: {bytes:?}");
        bytes.push(one[0]);
    }
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

pub(crate) fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// A program of that service's first incarnation, in its own session.
pub(crate) fn program(service: &str, path: impl AsRef<Path>) -> SpawnRequest {
    SpawnRequest::new(name(service), Incarnation::FIRST, path.as_ref()).step(ChildStep::SetSid)
}

/// A shell script.
pub(crate) fn sh(service: &str, script: &str) -> SpawnRequest {
    program(service, "/bin/sh").env("PATH", "/usr/bin:/bin").arg("-c").arg(script)
}
