//! A core that is content with little, started by the keeper when core after core could not start.
//!
//! ```text
//! keeper ── who lives, who ended ─┐
//! operators ── status, events ────┼─► answered from what the keeper and the notes say
//!            └ upgrade, shutdown ─┘
//! pipes of services ──────────────► log files, so that nobody stands still for a full pipe
//! ```
//! It decides nothing: no service is started, restarted or stopped but by a shutdown, no end is acknowledged, no session
//! and no lane is touched. So all of it is still there for the whole core that an `upgrade` tries. It needs as little as
//! it can: whatever can't be read is left out and said.

mod ending;
mod shown;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use watchdog_keeper::protocol::{Child, CoreEnd, ExitReport, FromKeeper, Hello, ToKeeper};
use watchdog_lifecycle::{Actor, Service};
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{Failure, FailureKind, Outcome, Reply, Request};
use watchdog_seqpacket::Seqpacket;

use super::audit::{self, Audit, Replies};
use super::build::{self, Found};
use super::candidate::{self, Question};
use super::control::{ControlCall, ControlDoor, Hours};
use super::events::{Entry as Logged, EventLog};
use super::hand_over::{hand, hand_over};
use super::keeper_link::{KeeperLink, LinkError};
use super::note::{Note, Noted};
use super::stored::{self, Stored};
use super::takeover::{starting, write_pid_record};
use super::upgrade::{LEAVING, Leave, Upgrade};
use super::verbs::Asked;
use super::waiting::{Look, end};
use super::words::Said;
use super::{CONTROL_INBOX, CoreError, chain, now};
use crate::capture::{Capture, Hand, Logs, Stream};
use crate::config::{self, Config};
use crate::processes::leftovers;
use crate::run::kept_config;

/// Signs in what programs print: nobody looks for them.
const SIGNS: usize = 1;

struct SafeCore {
    keeper: KeeperLink,
    hello: Hello,
    why: Option<(u32, CoreEnd)>,
    /// Where the configuration lies.
    path: PathBuf,
    runtime: PathBuf,
    /// Or why it can't be read.
    config: Result<Config, String>,
    services: BTreeMap<ServiceName, Known>,
    events: Option<EventLog>,
    /// `None`: it can't be opened, and that must not be the end.
    audit: Option<Audit>,
    capture: Option<Capture>,
    upgrade: Upgrade,
    waiting: Vec<Asked>,
    tasks: JoinSet<()>,
    shutdown: Option<Shutdown>,
    /// What can't be had, in words.
    without: Vec<String>,
}

/// What there is of one service.
#[derive(Default)]
struct Known {
    note: Option<Note>,
    record: Option<Service>,
    child: Option<Child>,
    /// How its process ended that nobody acknowledged.
    ended: Option<(ExitReport, Instant)>,
    session: Option<Seqpacket>,
}

struct Shutdown {
    /// Then everything is killed.
    deadline: Instant,
    asked: Vec<Asked>,
}

/// Its whole life.
pub(super) async fn live(
    keeper: Seqpacket,
    path: &Path,
    runtime: &Path,
    mut said: Said,
) -> Result<u8, CoreError> {
    let mut keeper = KeeperLink::new(keeper).map_err(starting("open the channel to the keeper"))?;
    let mut handed = hand_over(&mut keeper).await?;
    write_pid_record(runtime, handed.hello.core_generation)
        .map_err(starting("write the core's pid record"))?;
    let text = fs::read_to_string(kept_config(runtime)).map_err(|err| err.to_string());
    let config = text.and_then(|text| config::parse(path, text.as_str()).map_err(|err| err.to_string()));
    let hand = hand(&keeper, handed.stored.remove(stored::HAND)).await?;
    let mut core = SafeCore {
        keeper,
        why: handed.safe,
        path: path.to_owned(),
        runtime: runtime.to_owned(),
        config,
        services: BTreeMap::new(),
        events: None,
        audit: None,
        capture: None,
        upgrade: Upgrade::of(handed.upgrade),
        waiting: Vec::new(),
        tasks: JoinSet::new(),
        shutdown: None,
        without: Vec::new(),
        hello: handed.hello,
    };
    core.find(handed.stored, hand);
    for message in handed.told {
        core.keeper_said(message);
    }
    core.log_begin();
    let door = ControlDoor::open(runtime, core.hello.pid, leftovers::led_by(runtime))
        .map_err(starting("open the control socket"))?;
    let (calls_in, mut calls) = mpsc::channel(CONTROL_INBOX);
    let (hours, until) = watch::channel(Hours::Open);
    let mut doors = JoinSet::new();
    doors.spawn(door.serve(calls_in, until));
    match core.serve(&mut calls, &mut said).await {
        Ok(None) => {}
        Ok(Some(leave)) => {
            doors.shutdown().await;
            core.leave(&leave).await?;
            return Ok(0);
        }
        // The processes of services see it too; programs do not, and are ended.
        Err(CoreError::Keeper(LinkError::Gone)) => {
            tracing::error!("the keeper is gone: every service is stopped");
            core.kill_all_without_keeper();
            return Ok(1);
        }
        Err(err) => return Err(err),
    }
    core.answer_shutdown().await;
    hours.send_replace(Hours::Closed);
    doors.join_all().await;
    core.finish().await?;
    Ok(0)
}

impl SafeCore {
    fn find(&mut self, mut stored: HashMap<Vec<u8>, Vec<OwnedFd>>, hand: Hand) {
        let mut pipes = Vec::new();
        for (name, mut fds) in stored.drain() {
            match stored::parse(&name) {
                Some(Stored::Note(service)) => {
                    let read = fds.pop().map(Note::reopen::<Noted<Service>>);
                    let known = self.services.entry(service.clone()).or_default();
                    match read {
                        Some(Ok((note, noted))) => {
                            (known.note, known.record) = (Some(note), noted.map(|noted| noted.service));
                        }
                        Some(Err(err)) => {
                            self.without.push(format!("what was noted of {service} can't be read: {err}"));
                        }
                        None => {}
                    }
                }
                Some(Stored::Pipes(service)) => {
                    pipes.extend(<[OwnedFd; 4]>::try_from(fds).ok().map(|fds| (service, fds)));
                }
                Some(Stored::Session(service, incarnation)) => {
                    let lives = self
                        .hello
                        .children
                        .iter()
                        .any(|child| child.service == service && child.incarnation == incarnation);
                    if lives {
                        let session = fds.pop().and_then(|fd| Seqpacket::from_fd(fd).ok());
                        self.services.entry(service).or_default().session = session;
                    }
                }
                Some(
                    Stored::Manifest(_)
                    | Stored::Notify(_)
                    | Stored::Lane(_)
                    | Stored::Answered
                    | Stored::Groups,
                )
                | None => {}
            }
        }
        for child in &self.hello.children {
            self.services.entry(child.service.clone()).or_default().child = Some(child.clone());
        }
        match &self.config {
            Ok(config) => {
                let section = &config.watchdog;
                let logs =
                    Logs { folder: section.logs.clone(), size: section.log_size, files: section.log_files };
                match EventLog::open(&section.logs) {
                    Ok(events) => self.events = Some(events),
                    Err(err) => self.without.push(format!("the event log can't be written: {err}")),
                }
                match Audit::beside(&section.logs, &section.state) {
                    Ok((audit, unread)) => {
                        self.audit = Some(audit);
                        self.without.extend(unread.map(|err| {
                            format!("the newest calls in the audit may be missing: {}", chain(&err))
                        }));
                    }
                    Err(err) => self.without.push(format!("the audit can't be written: {err}")),
                }
                match Capture::start(logs, hand, mpsc::channel(SIGNS).0) {
                    Ok(mut capture) => {
                        for (service, [out_read, _, err_read, _]) in pipes {
                            capture.add(&service, Stream::Output, out_read);
                            capture.add(&service, Stream::Errors, err_read);
                        }
                        self.capture = Some(capture);
                    }
                    Err(err) => self.without.push(format!("no output is captured: {err}")),
                }
            }
            Err(err) => {
                self.without.push(format!(
                    "the configuration in force can't be read, and no output is captured: {err}"
                ));
            }
        }
    }

    fn log_begin(&mut self) {
        let told = self.upgrade.event(&self.hello);
        let text = self.notes().join("; ");
        let Some(events) = &mut self.events else { return };
        events.add(Logged::new("safe-mode", text));
        if let Some(told) = told {
            events.add(told);
        }
        events.write_out();
    }

    /// Until everything is stopped, or until another build is to take over.
    async fn serve(
        &mut self,
        calls: &mut mpsc::Receiver<ControlCall>,
        said: &mut Said,
    ) -> Result<Option<Leave>, CoreError> {
        self.keeper.send(&ToKeeper::Ready, &[]).await.map_err(CoreError::Keeper)?;
        loop {
            self.keep_audit();
            if let Some(leave) = self.upgrade.due() {
                return Ok(Some(leave));
            }
            let stops_at = self.shutdown.as_ref().map(|shutdown| shutdown.deadline);
            if let Some(deadline) = stops_at
                && (Instant::now() >= deadline || self.services.values().all(|known| known.child.is_none()))
            {
                return Ok(None);
            }
            let waited = self.audit.as_ref().and_then(Audit::next_due);
            let told_at = waited.map(|at| Instant::now() + at.since(now()));
            tokio::select! {
                message = self.keeper.recv() => {
                    let message = message.map_err(CoreError::Keeper)?.0;
                    if let FromKeeper::Signalled { signal } = message
                        && signal != Signal::SIGHUP as i32
                    {
                        self.stop_all(None).await?;
                    }
                    self.keeper_said(message);
                }
                Some(call) = calls.recv() => self.call(call).await?,
                entry = said.next() => self.note_event(entry),
                failed = copied(&mut self.audit) => self.audit_copied(failed),
                () = tokio::time::sleep_until(told_at.unwrap_or_else(Instant::now)), if told_at.is_some() => {}
                answer = self.upgrade.answered() => {
                    self.upgrade.heard(answer);
                    self.answer_waiting();
                }
                () = tokio::time::sleep_until(stops_at.unwrap_or_else(Instant::now)), if stops_at.is_some() => {}
            }
        }
    }

    fn keeper_said(&mut self, message: FromKeeper) {
        match message {
            FromKeeper::Spawned(child) => {
                let known = self.services.entry(child.service.clone()).or_default();
                known.child = Some(child);
            }
            FromKeeper::Exited(report) => {
                let known = self.services.entry(report.service.clone()).or_default();
                let _ = known.child.take_if(|child| child.incarnation == report.incarnation);
                known.ended = Some((report, Instant::now()));
            }
            // The whole core hears of all of these again, or asks for them.
            FromKeeper::SpawnFailed { .. }
            | FromKeeper::OrphanReaped { .. }
            | FromKeeper::Orphans(_)
            | FromKeeper::Refused(_)
            | FromKeeper::Signalled { .. }
            | FromKeeper::Hello(_)
            | FromKeeper::Descriptors(_)
            | FromKeeper::HandedOver
            | FromKeeper::Replaced { .. }
            | FromKeeper::Safe { .. } => {}
        }
    }

    async fn call(&mut self, call: ControlCall) -> Result<(), CoreError> {
        let ControlCall { call, caller, replies } = call;
        let wait = call.wait_ms.map(Duration::from_millis);
        let by = Actor::Operator { uid: caller.uid };
        let replies = match &self.audit {
            Some(audit) => audit.replies(call.id, caller.into(), &call.request, replies),
            None => Replies::unrecorded(replies),
        };
        let asked = Asked { id: call.id, by, wait, replies };
        match call.request {
            Request::Status { services } => {
                let answer = self.status(&services).map(|status| Outcome::Status(Box::new(status)));
                end(&asked.replies, answer);
            }
            Request::Events { after, last, follow: false } => {
                let last = usize::try_from(last).unwrap_or(usize::MAX);
                // Apart from this task: a client reads as fast as it likes.
                let replies = asked.replies.sender().clone();
                match &mut self.events {
                    Some(events) => _ = self.tasks.spawn(events.view().serve(after, last, None, replies)),
                    None => end(&asked.replies, Ok(Outcome::Done(String::new()))),
                }
            }
            Request::Audit { service, last } if self.audit.is_some() => {
                let view = self.audit.as_ref().expect("looked at above").view();
                self.tasks.spawn(audit::serve(view, service, last, asked.replies.sender().clone()));
            }
            Request::Upgrade { program, ready_within_ms } => {
                self.upgrade_asked(asked, program, ready_within_ms);
            }
            Request::Shutdown => self.stop_all(Some(asked)).await?,
            _ => {
                let text = "the core is in safe mode, where it only answers status, events, audit, upgrade and shutdown";
                let failure = Failure::new(FailureKind::TryAgain, text);
                let hint = "`watchdog status` says why; once that is mended, `watchdog upgrade`";
                end(&asked.replies, Err(failure.hint(hint)));
            }
        }
        Ok(())
    }

    fn upgrade_asked(&mut self, asked: Asked, program: Option<String>, ready_within_ms: u64) {
        if !self.upgrade.knows(asked.id)
            && let Err(failure) = self.begin_upgrade(&asked, program, ready_within_ms)
        {
            return end(&asked.replies, Err(failure));
        }
        match asked.wait {
            None => end(&asked.replies, Ok(Outcome::Done("upgrade accepted".to_owned()))),
            Some(_) => {
                self.waiting.push(asked);
                self.answer_waiting();
            }
        }
    }

    fn begin_upgrade(
        &mut self,
        asked: &Asked,
        program: Option<String>,
        ready_within_ms: u64,
    ) -> Result<(), Failure> {
        let failed = |err: std::io::Error| Failure::new(FailureKind::Failed, err.to_string());
        let notes = self.services.values().filter_map(|known| Some(known.note.as_ref()?.record().to_vec()));
        let question = Question {
            program: program
                .map_or_else(|| candidate::usual().map_err(failed), |it| Ok(PathBuf::from(it)))?,
            config: self.path.clone(),
            runtime: self.runtime.clone(),
            notes: build::question(notes).map_err(failed)?,
            found: Found { keeper: self.hello.version },
        };
        self.upgrade.begin(asked, question, ready_within_ms)
    }

    fn answer_waiting(&mut self) {
        let (upgrade, hello) = (&self.upgrade, &self.hello);
        self.waiting.retain(|asked| match upgrade.look(asked.id, hello) {
            Look::Done(outcome) => {
                end(&asked.replies, Ok(outcome));
                false
            }
            Look::Failed(failure) => {
                end(&asked.replies, Err(failure));
                false
            }
            Look::Waits(text) => {
                let _ = asked.replies.sender().try_send(Reply::Progress(text));
                true
            }
        });
    }

    async fn leave(mut self, leave: &Leave) -> Result<(), CoreError> {
        let since = now();
        self.note_event(leave.event());
        self.close_audit().await;
        if let Some(mut capture) = self.capture.take() {
            capture.stop().await;
        }
        self.keeper.send(&leave.message(since), &[leave.executable()]).await.map_err(CoreError::Keeper)
    }

    /// What ended is recorded, and answered once it is on disk.
    fn keep_audit(&mut self) {
        if let Some(audit) = &mut self.audit {
            let for_journal = audit.take_in();
            debug_assert!(for_journal.is_none(), "the journal is the whole core's");
            audit.go_on();
        }
    }

    fn audit_copied(&mut self, failed: Option<String>) {
        if let Some(reason) = failed {
            self.note_event(Logged::new("disk", format!("the audit: {reason}")));
        }
    }

    /// Until everybody is answered whose call ended, or the disk has had its time.
    async fn close_audit(&mut self) {
        self.keep_audit();
        let closed = async {
            let Some(audit) = &mut self.audit else { return };
            audit.close();
            audit.go_on();
            while !audit.is_settled() {
                let _failed = audit.copied().await;
                audit.go_on();
            }
        };
        let _ = tokio::time::timeout(LEAVING, closed).await;
    }

    fn note_event(&mut self, event: Logged) {
        if let Some(events) = &mut self.events {
            events.add(event);
            events.write_out();
        }
    }
}

async fn copied(audit: &mut Option<Audit>) -> Option<String> {
    match audit {
        Some(audit) => audit.copied().await,
        None => future::pending().await,
    }
}
