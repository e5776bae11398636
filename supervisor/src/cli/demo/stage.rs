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

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use watchdog_protocol::status::{LaneStatus, ServiceStatus, Status};
use watchdog_query::{QueryError, WatchdogQuery};

use super::{BUMPER, COUNTER, DemoError};
use crate::cli::look::ProgressLine;
use crate::cli::place::Place;
use crate::processes::proc::Identity;

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
    /// Every process of it that was seen, for the case that it does not end by itself.
    seen: Vec<Identity>,
    ended: bool,
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
        let seen = Identity::of(run.id().cast_signed()).into_iter().collect();
        Ok(Self { folder, kept, run, place, query, seen, ended: false })
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

    pub(super) async fn look(&mut self) -> Result<Seen, QueryError> {
        let status = self.query.status(&[]).await?;
        let inboxes = self.query.intercoms(std::slice::from_ref(&*COUNTER)).await?;
        let pids = status.services.iter().filter_map(|service| service.pid);
        for pid in pids.chain([status.watchdog.core_pid]) {
            if let Ok(identity) = Identity::of(pid.cast_signed())
                && !self.seen.contains(&identity)
            {
                self.seen.push(identity);
            }
        }
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
            if let Ok(Some(_)) = self.run.try_wait() {
                self.ended = true;
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

    /// Stops everything and removes the folder, unless it is to be kept. Blocks.
    pub(super) fn end(mut self) -> Result<(), DemoError> {
        self.strike()
    }

    fn strike(&mut self) -> Result<(), DemoError> {
        let stopped = if self.ended { Ok(()) } else { self.stop() };
        self.ended = true;
        if !std::mem::replace(&mut self.kept, true) {
            fs::remove_dir_all(&self.folder).map_err(DemoError::file("remove", &self.folder))?;
        }
        stopped
    }

    /// In good order, as Ctrl-C in its terminal would; then by force. The keeper, which is who ran, is the last to
    /// end: nothing of the watchdog is left then.
    fn stop(&mut self) -> Result<(), DemoError> {
        let keeper = Pid::from_raw(self.run.id().cast_signed());
        // Not reaped yet, so the number is still its own.
        let _ = kill(keeper, Signal::SIGTERM);
        if holds_within(STOP, || matches!(self.run.try_wait(), Ok(Some(_)))) {
            return Ok(());
        }
        let _ = self.run.kill();
        let _ = self.run.wait();
        // Without a keeper the core ends every service; whoever is left after that is killed.
        let living = || self.seen.iter().filter(|process| process.is_alive());
        if !holds_within(STOP, || living().next().is_none()) {
            for process in living() {
                let _ = process.signal(Signal::SIGKILL);
            }
        }
        if holds_within(STOP, || living().next().is_none()) {
            return Ok(());
        }
        Err(DemoError::Left { pids: living().map(|process| process.pid).collect() })
    }
}

/// Also when the demo panics.
impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.strike();
    }
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
