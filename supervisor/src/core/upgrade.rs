//! `upgrade`: the core's program is replaced by another build, and services notice nothing.
//!
//! ```text
//! asked ─► the file is asked what it can go on from ─► this core stops serving, writes out what it has,
//!          tells the keeper, ends ─► the new one takes over, as after a death ─► answers the repeated call
//!                                        └ not ready in time: the keeper goes back, and the old build answers
//! ```
//! Nothing of this is kept on disk: what the next core must know travels with the keeper's word of what became of it.

use std::future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use watchdog_keeper::failure::explain;
use watchdog_keeper::protocol::{CoreEnd, CoreFailure, ExitStatus, FromKeeper, Hello};
use watchdog_lifecycle::{Moment, Span};
use watchdog_protocol::RequestId;
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::status::Evidence;

use super::build::{self, Found};
use super::candidate::{self, Candidate, Question, indented};
use super::events::Entry as Logged;
use super::verbs::Asked;
use super::waiting::{Look, Target, end};
use super::{Core, CoreError, Shutdown, now};
use crate::config::manifest_of::last_lines;
use crate::store::writer::Ended;

/// How long a core that leaves waits for its disk.
pub(super) const LEAVING: Duration = Duration::from_secs(2);

/// What the next core must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    id: RequestId,
    by: String,
    program: PathBuf,
    release: String,
    ready_within_ms: u64,
    /// When the old core stopped serving.
    since: Moment,
}

/// What became of an upgrade.
#[derive(Debug)]
pub(super) struct Told {
    label: Label,
    /// The first core after it.
    core_generation: u64,
    undone: Option<CoreEnd>,
    /// From the end of one core's service to the begin of this one's; `None` before that.
    pause: Option<Duration>,
}

/// All a core knows of upgrades.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    told: Option<Told>,
    /// Being asked what it is: who wanted it.
    under_way: Option<UnderWay>,
    /// Came to nothing in this core.
    refused: Option<(RequestId, Failure)>,
    asking: JoinSet<Result<Candidate, Failure>>,
    due: Option<Leave>,
}

#[derive(Debug)]
struct UnderWay {
    id: RequestId,
    by: String,
    program: PathBuf,
    ready_within_ms: u64,
}

/// The core is to end, and this is to run then.
#[derive(Debug)]
pub(super) struct Leave {
    candidate: Candidate,
    under_way: UnderWay,
}

impl Leave {
    /// What the keeper is told, at the moment when service ends.
    pub(super) fn message(&self, since: Moment) -> watchdog_keeper::protocol::ToKeeper {
        let UnderWay { id, by, program, ready_within_ms } = &self.under_way;
        let label = Label {
            id: *id,
            by: by.clone(),
            program: program.clone(),
            release: self.candidate.build.release.clone(),
            ready_within_ms: *ready_within_ms,
            since,
        };
        let label = postcard::to_stdvec(&label).expect("plain data");
        watchdog_keeper::protocol::ToKeeper::Replace { label, ready_within_ms: *ready_within_ms }
    }

    pub(super) fn executable(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.candidate.executable.as_fd()
    }

    pub(super) fn event(&self) -> Logged {
        let UnderWay { by, program, .. } = &self.under_way;
        let text = format!(
            "upgrade by {by}: this core ends, and {} (release {}) takes over",
            program.display(),
            self.candidate.build.release
        );
        Logged::new("upgrade", text).resting_on(Evidence { by: Some(by.clone()), ..Evidence::default() })
    }
}

impl Told {
    /// From the keeper's word; `None` when it is of a build that says it otherwise.
    pub(super) fn read(message: FromKeeper) -> Option<Self> {
        let FromKeeper::Replaced { label, core_generation, undone } = message else { return None };
        let label: Label = postcard::from_bytes(&label).ok()?;
        Some(Self { label, core_generation, undone, pause: None })
    }

    /// This core is about to serve. For the event log; only the first core after it tells.
    fn event(&mut self, hello: &Hello) -> Option<Logged> {
        self.pause = Some(now().since(self.label.since));
        if self.core_generation != hello.core_generation {
            return None;
        }
        let by = Evidence { by: Some(self.label.by.clone()), ..Evidence::default() };
        Some(match &self.undone {
            None => Logged::new("upgraded", self.words(hello)).resting_on(by),
            Some(end) => {
                let last_lines = last_lines(&end.last_words);
                Logged::new("upgrade-undone", self.why(end)).resting_on(Evidence { last_lines, ..by })
            }
        })
    }

    /// For the operator.
    fn outcome(&self, hello: &Hello) -> Result<Outcome, Failure> {
        match &self.undone {
            None => Ok(Outcome::Done(self.words(hello))),
            Some(end) => {
                let text = format!("{}{}", self.why(end), indented(&last_lines(&end.last_words)));
                Err(Failure::new(FailureKind::Failed, text)
                    .hint("the services noticed nothing; `watchdog events`"))
            }
        }
    }

    fn is_of(&self, id: RequestId) -> bool {
        self.label.id == id
    }

    fn words(&self, hello: &Hello) -> String {
        format!(
            "core {} (pid {}) runs {}, release {}; control paused for {} ms, no service was touched",
            hello.core_generation,
            std::process::id(),
            self.label.program.display(),
            self.label.release,
            self.pause.unwrap_or_default().as_millis()
        )
    }

    fn why(&self, end: &CoreEnd) -> String {
        let program = self.label.program.display();
        let how = how_it_ended(end, &self.label.program, Duration::from_millis(self.label.ready_within_ms));
        format!("{program} (release {}) {how}; the core of before runs again", self.label.release)
    }
}

/// How a core ended that did not become ready, in words that follow its name.
pub(super) fn how_it_ended(end: &CoreEnd, program: &Path, ready_within: Duration) -> String {
    match &end.how {
        CoreFailure::NotStarted { step, errno } => {
            let failure = explain(program, step, *errno);
            format!("could not be started: {}: {failure}", failure.step())
        }
        CoreFailure::Ended(ExitStatus::Code(code)) => {
            format!("ended with exit code {code} before it was ready")
        }
        CoreFailure::Ended(ExitStatus::Signal { signal, .. }) => {
            let name = nix::sys::signal::Signal::try_from(*signal)
                .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
            format!("died of {name} before it was ready")
        }
        CoreFailure::Late => format!("was not ready within {} and was killed", Span(ready_within)),
    }
}

impl Upgrade {
    pub(super) fn of(told: Option<Told>) -> Self {
        Self { told, ..Self::default() }
    }

    /// Of what the keeper told, for the event log: [`Told::event`].
    pub(super) fn event(&mut self, hello: &Hello) -> Option<Logged> {
        self.told.as_mut()?.event(hello)
    }

    /// The next file that answered, or did not; waits for ever while none is asked. Cancel safe.
    pub(super) async fn answered(&mut self) -> Result<Candidate, Failure> {
        match self.asking.join_next().await {
            Some(Ok(answer)) => answer,
            Some(Err(err)) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(err) => unreachable!("no question is ever cancelled: {err}"),
            },
            None => future::pending().await,
        }
    }

    /// What the file said: the core ends in favour of it, or goes on.
    pub(super) fn heard(&mut self, answer: Result<Candidate, Failure>) {
        let Some(under_way) = self.under_way.take() else { return };
        match answer {
            Ok(candidate) => self.due = Some(Leave { candidate, under_way }),
            Err(failure) => self.refused = Some((under_way.id, failure)),
        }
    }

    /// Whether the core is to end now, and what is to run then.
    pub(super) fn due(&mut self) -> Option<Leave> {
        self.due.take()
    }

    /// Whether it is known already, in this core or from an older one.
    pub(super) fn knows(&self, id: RequestId) -> bool {
        self.told.as_ref().is_some_and(|told| told.is_of(id))
            || self.under_way.as_ref().is_some_and(|under_way| under_way.id == id)
            || self.refused.as_ref().is_some_and(|(refused, _)| *refused == id)
    }

    pub(super) fn look(&self, id: RequestId, hello: &Hello) -> Look {
        if let Some(told) = self.told.as_ref().filter(|told| told.is_of(id)) {
            return match told.outcome(hello) {
                Ok(outcome) => Look::Done(outcome),
                Err(failure) => Look::Failed(failure),
            };
        }
        match (&self.refused, &self.under_way) {
            (Some((refused, failure)), _) if *refused == id => Look::Failed(failure.clone()),
            (_, Some(under_way)) => {
                Look::Waits(format!("asking {} what it can go on from", under_way.program.display()))
            }
            (_, None) => Look::Waits("the new core is started".to_owned()),
        }
    }

    /// Asks the file, apart from the event loop.
    ///
    /// # Errors
    /// Another one is asked already.
    pub(super) fn begin(
        &mut self,
        asked: &Asked,
        question: Question,
        ready_within_ms: u64,
    ) -> Result<(), Failure> {
        if let Some(other) = &self.under_way {
            let text = format!("an upgrade to {} is under way", other.program.display());
            return Err(Failure::new(FailureKind::TryAgain, text));
        }
        let (id, by) = (asked.id, asked.by.to_string());
        self.under_way = Some(UnderWay { id, by, program: question.program.clone(), ready_within_ms });
        self.asking.spawn_blocking(move || candidate::ask(&question));
        Ok(())
    }
}

impl Core {
    pub(super) fn upgrade_asked(&mut self, asked: Asked, program: Option<String>, ready_within_ms: u64) {
        let id = asked.id;
        if !self.upgrade.knows(id)
            && let Err(failure) = self.begin_upgrade(&asked, program, ready_within_ms)
        {
            return end(&asked.replies, Err(failure));
        }
        match asked.wait {
            None => end(&asked.replies, Ok(Outcome::Done("upgrade accepted".to_owned()))),
            Some(_) => self.wait_for(asked, Target::Upgrade { id }, Vec::new()),
        }
    }

    fn begin_upgrade(
        &mut self,
        asked: &Asked,
        program: Option<String>,
        ready_within_ms: u64,
    ) -> Result<(), Failure> {
        let failed = |text: String| Failure::new(FailureKind::Failed, text);
        if self.shutdown == Shutdown::Stopping {
            return Err(failed("the watchdog shuts down".to_owned()));
        }
        let program = match program {
            Some(program) => PathBuf::from(program),
            None => candidate::usual().map_err(|err| failed(err.to_string()))?,
        };
        let notes = self.entries.values().map(|entry| entry.note.record().to_vec());
        let question = Question {
            program,
            config: self.config.path.clone(),
            runtime: self.config.watchdog.runtime.clone(),
            notes: build::question(notes).map_err(|err| failed(err.to_string()))?,
            found: Found { keeper: self.keeper_hello.version },
        };
        self.upgrade.begin(asked, question, ready_within_ms)
    }

    /// In favour of another build: what is on its way to the disk gets there, then the keeper is told.
    pub(super) async fn leave(mut self, leave: &Leave) -> Result<(), CoreError> {
        let since = now();
        self.events.add(leave.event());
        self.events.write_out();
        // Also for a build that knows of no audit in the journal.
        self.keep_audit();
        self.audit.close();
        let writes = async {
            while !self.audit.is_settled() || !self.store.is_idle() {
                self.audit.go_on();
                tokio::select! {
                    ended = self.store.ended() => {
                        if let Ended::Change(done) = ended {
                            self.audit.stored(&done);
                        }
                    }
                    _ = self.audit.copied() => {}
                }
            }
        };
        // What is not there by then is asked for again, as after a death.
        let _ = tokio::time::timeout(LEAVING, writes).await;
        self.capture.stop().await;
        self.keeper.send(&leave.message(since), &[leave.executable()]).await.map_err(CoreError::Keeper)
    }
}
