//! Where the demo plays: a folder of its own and a watchdog in it. Nothing of either is left when it ends.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use watchdog_protocol::status::{LaneStatus, ServiceStatus, Status};
use watchdog_query::{QueryError, WatchdogQuery};

use super::{BUMPER, COUNTER, DemoError};
use crate::cli::look::ProgressLine;
use crate::cli::place::Place;
use crate::processes::proc::{Identity, ProcessTable};

/// From one look to the next: what is measured by looking is known as exactly as this.
const LOOK: Duration = Duration::from_millis(5);

/// For each thing that is waited for, since a message was handled last: a slow disk has its time to empty the lane.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a watchdog may take to stop two services in good order: their stop timeout, and some.
const STOP: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Stage {
    folder: PathBuf,
    kept: bool,
    run: Child,
    place: Place,
    query: WatchdogQuery,
    struck: bool,
}

/// One look at the watchdog.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) status: Status,
    /// From bumper to counter.
    pub(super) lane: Option<LaneStatus>,
}

impl Seen {
    pub(super) fn counter(&self) -> &ServiceStatus {
        self.service(COUNTER.as_str())
    }

    pub(super) fn bumper(&self) -> &ServiceStatus {
        self.service(BUMPER.as_str())
    }

    fn service(&self, name: &str) -> &ServiceStatus {
        let found = self.status.services.iter().find(|service| service.name.as_str() == name);
        found.expect("both are in the demo's configuration, and every status was checked for them")
    }

    pub(super) fn handled(&self) -> u64 {
        self.lane.as_ref().map_or(0, |lane| lane.handled)
    }

    pub(super) fn redelivered(&self) -> u64 {
        self.lane.as_ref().map_or(0, |lane| lane.redelivered)
    }

    pub(super) fn queued(&self) -> u64 {
        self.lane.as_ref().map_or(0, |lane| lane.queued)
    }
}

impl Stage {
    /// A fresh folder, a configuration in it, and `watchdog run` on that, by `program`.
    pub(super) fn set(program: &Path, config: &str, kept: bool) -> Result<Self, DemoError> {
        // Whatever of it loses its parent becomes our child, and can't be missed at the end.
        set_child_subreaper(true).map_err(|errno| DemoError::Subreaper(errno.into()))?;
        let folder = fresh()?;
        let started = Self::start(program, &folder, config);
        let (run, place) = match started {
            Ok(started) => started,
            Err(error) => {
                let _ = fs::remove_dir_all(&folder);
                return Err(error);
            }
        };
        let query = place.query(&Arc::new(ProgressLine::new()));
        Ok(Self { folder, kept, run, place, query, struck: false })
    }

    fn start(program: &Path, folder: &Path, config: &str) -> Result<(Child, Place), DemoError> {
        let file = folder.join("watchdog.toml");
        fs::write(&file, config).map_err(DemoError::file("write", &file))?;
        let place = Place::find(Some(&file)).map_err(|error| DemoError::Place(Box::new(error)))?;
        let said = said(folder);
        let out = File::create(&said).map_err(DemoError::file("write", &said))?;
        let err = out.try_clone().map_err(DemoError::file("write", &said))?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&file);
        // A group of its own: Ctrl-C in this terminal is for the demo, which stops the watchdog in good order.
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let run = command.spawn().map_err(DemoError::file("run", program))?;
        Ok((run, place))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn logs(&self) -> &Path {
        &self.place.logs
    }

    pub(super) fn query(&self) -> &WatchdogQuery {
        &self.query
    }

    async fn look(&self) -> Result<Seen, QueryError> {
        let status = self.query.status(&[]).await?;
        let inboxes = self.query.intercoms(std::slice::from_ref(&*COUNTER)).await?;
        let lanes = inboxes.into_iter().flat_map(|inbox| inbox.lanes);
        let lane = lanes.into_iter().find(|lane| lane.sender == *BUMPER);
        Ok(Seen { status, lane })
    }

    /// Looks until it shows what is waited for. A watchdog that can't be reached is looked at again.
    pub(super) async fn until(
        &mut self,
        what: &'static str,
        shows: impl Fn(&Seen) -> bool,
    ) -> Result<Seen, DemoError> {
        let (mut begin, mut handled) = (Instant::now(), 0);
        loop {
            if self.has_ended() {
                return Err(DemoError::Ended {
                    what,
                    said: fs::read_to_string(said(&self.folder)).unwrap_or_default(),
                });
            }
            let looked = self.look().await;
            match looked {
                Ok(seen) if shows(&seen) => return Ok(seen),
                Ok(seen) if seen.handled() > handled => {
                    (begin, handled) = (Instant::now(), seen.handled());
                }
                looked if begin.elapsed() > PATIENCE => {
                    return Err(DemoError::Late { what, seconds: PATIENCE.as_secs(), source: looked.err() });
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.run.try_wait(), Ok(Some(_)))
    }

    /// Stops everything and removes the folder, unless it is to be kept. Blocks.
    pub(super) fn end(mut self) -> Result<(), DemoError> {
        self.strike()
    }

    fn strike(&mut self) -> Result<(), DemoError> {
        // Dropping it strikes a second time.
        if std::mem::replace(&mut self.struck, true) {
            return Ok(());
        }
        let stopped = self.stop();
        if !self.kept {
            fs::remove_dir_all(&self.folder).map_err(DemoError::file("remove", &self.folder))?;
        }
        stopped
    }

    /// In good order, as Ctrl-C in its terminal would; by force when that takes too long.
    fn stop(&mut self) -> Result<(), DemoError> {
        if !self.has_ended() {
            // Not reaped yet, so the number is still its own.
            let _ = kill(Pid::from_raw(self.run.id().cast_signed()), Signal::SIGTERM);
        }
        if !holds_within(STOP, || self.has_ended()) {
            let _ = self.run.kill();
            let _ = self.run.wait();
        }
        // What lost its parent is our child now. A core without a keeper stops every service, then itself.
        if holds_within(STOP, || orphans().is_empty()) {
            return Ok(());
        }
        let mut left = Vec::new();
        let gone = holds_within(STOP, || {
            left = orphans();
            for orphan in &left {
                // One that ended meanwhile is what is wanted.
                let _ = orphan.signal(Signal::SIGKILL);
            }
            left.is_empty()
        });
        if gone {
            Ok(())
        } else {
            Err(DemoError::Left { pids: left.iter().map(|orphan| orphan.pid).collect() })
        }
    }
}

/// Also when the demo panics.
impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.strike();
    }
}

/// All below us, once the watchdog's own process is reaped; those that ended are reaped here.
fn orphans() -> Vec<Identity> {
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
        waitpid(None, Some(WaitPidFlag::WNOHANG))
    {}
    let descendants = ProcessTable::read().map(|table| {
        let below = table.descendants(std::process::id().cast_signed());
        below.iter().map(|process| process.identity).collect()
    });
    descendants.unwrap_or_default()
}

fn said(folder: &Path) -> PathBuf {
    folder.join("run.log")
}

fn holds_within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if begin.elapsed() > time {
            return false;
        }
        thread::sleep(LOOK);
    }
}

/// A folder nobody had before, for us alone. Short: the control socket's path is in it.
fn fresh() -> Result<PathBuf, DemoError> {
    loop {
        let folder = std::env::temp_dir().join(format!("watchdog-demo-{:08x}", fastrand::u32(..)));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(DemoError::file("make the folder", &folder)(error)),
        }
    }
}
