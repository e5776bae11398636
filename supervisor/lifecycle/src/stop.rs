//! How an incarnation ends: ask, wait, kill everything, look for what is left, and look again.
//!
//! A stop always ends. An incarnation that was asked has the stop timeout, which its own progress extends to at
//! most ten times; then everything of it is killed. What is there 5 s later is named, killed again and looked
//! for every 5 s: a process in an uninterruptible sleep goes when the kernel lets it go, and nothing of the
//! service is started before that.

use std::time::Duration;

use watchdog_protocol::Incarnation;

use crate::cause::{Cause, End, ExitReport, Manner};
use crate::event::{Command, Occurrence};
use crate::moment::Moment;
use crate::phase::{Deadline, Next, Stage, Stopping};
use crate::service::Turn;

/// Time between a kill and a look for survivors. A killed process is gone within milliseconds, unless it has
/// gigabytes to give back or waits for a disk.
const LOOK_AFTER: Duration = Duration::from_secs(5);

impl Stopping {
    fn new(
        incarnation: Incarnation,
        ready_for: Option<Duration>,
        cause: Cause,
        (manner, stage): (Manner, Stage),
        turn: &mut Turn<'_>,
    ) -> Self {
        turn.commands.push(Command::Log(Occurrence::Stopping { incarnation, cause: cause.clone() }));
        let stopping = Self {
            incarnation,
            since: turn.now,
            ready_for,
            cause,
            manner,
            stage,
            next: Next::AsPolicySays,
            report: None,
            progress: None,
        };
        stopping.command(turn);
        stopping
    }

    /// Asks it to end.
    pub(crate) fn asking(
        incarnation: Incarnation,
        ready_for: Option<Duration>,
        cause: Cause,
        turn: &mut Turn<'_>,
    ) -> Self {
        let deadline = Deadline::new(turn.now, turn.policy.stop_timeout);
        Self::new(incarnation, ready_for, cause, (Manner::Asked, Stage::Asked { deadline }), turn)
    }

    /// Lets it end by itself.
    pub(crate) fn leaving(
        incarnation: Incarnation,
        ready_for: Option<Duration>,
        turn: &mut Turn<'_>,
    ) -> Self {
        let deadline = Deadline::new(turn.now, turn.policy.stop_timeout);
        let how = (Manner::ByItself, Stage::Leaving { deadline });
        Self::new(incarnation, ready_for, Cause::Leaving, how, turn)
    }

    /// Kills everything of it.
    pub(crate) fn killing(
        incarnation: Incarnation,
        ready_for: Option<Duration>,
        cause: Cause,
        manner: Manner,
        turn: &mut Turn<'_>,
    ) -> Self {
        Self::new(incarnation, ready_for, cause, (manner, Stage::killing(turn.now)), turn)
    }

    /// Commands what its stage needs.
    pub(crate) fn command(&self, turn: &mut Turn<'_>) {
        let incarnation = self.incarnation;
        match self.stage {
            Stage::Asked { .. } => turn.commands.push(Command::AskStop { incarnation }),
            Stage::Leaving { .. } => {}
            Stage::Killing { .. } => turn.commands.push(Command::KillAll { incarnation }),
        }
    }

    /// Its leader ended; what it left behind is killed. `of_itself`: what the end means when nobody else wanted it.
    pub(crate) fn exited(&mut self, report: ExitReport, of_itself: Cause, turn: &mut Turn<'_>) {
        self.report = Some(report);
        match self.stage {
            Stage::Asked { .. } | Stage::Leaving { .. } => {
                if matches!(self.stage, Stage::Leaving { .. }) {
                    self.cause = of_itself;
                }
                self.stage = Stage::killing(turn.now);
                self.command(turn);
            }
            Stage::Killing { .. } => {}
        }
    }

    /// No more patience.
    pub(crate) fn hasten(&mut self, turn: &mut Turn<'_>) {
        match self.stage {
            Stage::Asked { deadline } | Stage::Leaving { deadline } => {
                let (incarnation, waited) = (self.incarnation, deadline.waited(turn.now));
                turn.commands.push(Command::Log(Occurrence::Killing { incarnation, waited }));
                self.manner = Manner::Killed;
                self.stage = Stage::killing(turn.now);
                self.command(turn);
            }
            Stage::Killing { .. } => {}
        }
    }

    /// What its progress extends, until it is killed.
    pub(crate) fn patience(&mut self) -> Option<&mut Deadline> {
        match &mut self.stage {
            Stage::Asked { deadline } | Stage::Leaving { deadline } => Some(deadline),
            Stage::Killing { .. } => None,
        }
    }

    pub(crate) fn survivors(&mut self, pids: Vec<u32>, turn: &mut Turn<'_>) {
        match &mut self.stage {
            // Nobody was killed yet.
            Stage::Asked { .. } | Stage::Leaving { .. } => {}
            Stage::Killing { survivors, .. } => {
                if *survivors != pids {
                    let incarnation = self.incarnation;
                    turn.commands
                        .push(Command::Log(Occurrence::Survivors { incarnation, pids: pids.clone() }));
                    *survivors = pids;
                }
            }
        }
    }

    pub(crate) fn deadline(&self) -> Moment {
        match &self.stage {
            Stage::Asked { deadline } | Stage::Leaving { deadline } => deadline.at(),
            Stage::Killing { look_at, .. } => *look_at,
        }
    }

    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        if turn.now < self.deadline() {
            return;
        }
        match &mut self.stage {
            Stage::Asked { .. } | Stage::Leaving { .. } => self.hasten(turn),
            Stage::Killing { look_at, .. } => {
                *look_at = turn.now.after(LOOK_AFTER);
                let incarnation = self.incarnation;
                turn.commands.push(Command::KillAll { incarnation });
                turn.commands.push(Command::NameSurvivors { incarnation });
            }
        }
    }

    pub(crate) fn end(&self, now: Moment) -> End {
        End {
            incarnation: self.incarnation,
            at: now,
            cause: self.cause.clone(),
            manner: self.manner,
            ready_for: self.ready_for,
            report: self.report.clone(),
        }
    }
}

impl Stage {
    fn killing(now: Moment) -> Self {
        Self::Killing { look_at: now.after(LOOK_AFTER), survivors: Vec::new() }
    }
}
