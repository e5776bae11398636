//! The core as a process: started, watched, started again; and its program, replaced by another.
//!
//! ```text
//! core ── Replace ──► is given 5 s to leave ──► reaped ──► the new program runs, on trial
//!                                                             ├── Ready ──────────────► it stays
//!                                                             └── ends, or is late ───► the old program runs again
//! core ends before it was Ready, again and again ──► `--safe`
//! ```
//! A program is a descriptor: whatever becomes of its path, the next core runs the same file.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use watchdog_protocol::Incarnation;
use watchdog_seqpacket::Seqpacket;

use crate::descriptors::above_window;
use crate::last_words::LastWords;
use crate::protocol::{
    Attach, ChildStep, CoreEnd, CoreFailure, ExitStatus, FailedStep, FromKeeper, SpawnRequest,
};
use crate::raw;
use crate::spawn::{Failure, Spawner, Starting};

/// The variable in which the core finds the number of its channel.
pub const CHANNEL: &str = "WATCHDOG_KEEPER";

/// The variable in which a core finds the number of the keeper's standard error, when its own is kept as its last words
/// until it is ready.
pub const STDERR: &str = "WATCHDOG_STDERR";

/// The last argument of a core that is to be content with little.
pub const SAFE: &str = "--safe";

/// The channel's number: the first behind the standard three.
const CHANNEL_NUMBER: u32 = 3;

/// The number of the keeper's standard error.
const STDERR_NUMBER: u32 = 4;

/// How long a core may live without its channel, or after it has said that all is stopped.
pub(crate) const LEAVE: Duration = Duration::from_secs(5);

/// A core that lived this long did not die of being started.
const LONG_LIFE: Duration = Duration::from_secs(10);

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// After so many cores in a row that could not start, the next is to be content with little.
const CRASHES: u32 = 5;

const KILLED: ExitStatus = ExitStatus::Signal { signal: libc::SIGKILL, core_dumped: false };

/// How every core is started.
#[derive(Debug)]
pub(crate) struct CoreProgram {
    /// The path it came from, for what is said of it.
    pub(crate) path: PathBuf,
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// The one there is, or when the next one starts.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) generation: u64,
    pub(crate) process: Option<CoreProcess>,
    executable: Rc<OwnedFd>,
    /// To run next.
    candidate: Option<Candidate>,
    /// What runs now is new.
    trial: Option<Trial>,
    /// What became of the newest trial: [`FromKeeper::Replaced`].
    replaced: Option<FromKeeper>,
    crashes: Crashes,
    quick_deaths: u32,
    again_at: Instant,
}

/// A core that is not reaped.
#[derive(Debug)]
pub(crate) struct CoreProcess {
    pub(crate) pid: u32,
    /// Until it runs its program.
    pub(crate) starting: Option<Starting>,
    /// None once the core has closed its end.
    pub(crate) channel: Option<Seqpacket>,
    since: Instant,
    is_ready: bool,
    is_safe: bool,
    last_words: Option<LastWords>,
    /// When it is killed.
    pub(crate) kill_at: Option<Instant>,
    /// When it is said that it does not die.
    pub(crate) tell_at: Option<Instant>,
}

/// An executable that is to run once the core has ended.
#[derive(Debug)]
struct Candidate {
    executable: OwnedFd,
    label: Vec<u8>,
    ready_within: Duration,
}

/// An executable that is not yet known to be any good.
#[derive(Debug)]
struct Trial {
    label: Vec<u8>,
    before: Rc<OwnedFd>,
    /// When the core is killed for being late.
    until: Instant,
    is_late: bool,
}

/// Cores in a row that could not start.
#[derive(Debug, Default)]
struct Crashes {
    count: u32,
    last: Option<CoreEnd>,
}

/// Why there is no new core.
#[derive(Debug)]
pub(crate) enum NoCore {
    Channel(io::Error),
    Spawn(Failure),
}

/// A core that was reaped.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) starting: Option<Starting>,
    /// What it wrote that nobody has read yet.
    pub(crate) last_words: Vec<u8>,
    /// The program of before runs again.
    pub(crate) is_undone: bool,
    /// Another program was asked for, and is to run next.
    pub(crate) is_replaced: bool,
}

impl Core {
    /// None yet, and the first one due at once.
    pub(crate) fn new(executable: OwnedFd, now: Instant) -> Self {
        Self {
            generation: 0,
            process: None,
            executable: Rc::new(executable),
            candidate: None,
            trial: None,
            replaced: None,
            crashes: Crashes::default(),
            quick_deaths: 0,
            again_at: now,
        }
    }

    /// When the next one starts; None while there is one.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.process.is_none().then_some(self.again_at)
    }

    /// Starts the next one.
    pub(crate) fn start(
        &mut self,
        program: &CoreProgram,
        spawner: &mut Spawner,
        now: Instant,
    ) -> Result<(), NoCore> {
        self.generation += 1;
        if let Some(candidate) = self.candidate.take() {
            let before = std::mem::replace(&mut self.executable, Rc::new(candidate.executable));
            let until = now + candidate.ready_within;
            self.trial = Some(Trial { label: candidate.label, before, until, is_late: false });
        }
        let is_safe = self.trial.is_none() && self.crashes.count >= CRASHES;
        let keeps_words = !is_safe && (self.trial.is_some() || self.crashes.count > 0);
        let started = keeps_words.then(LastWords::new).transpose().map_err(NoCore::Channel);
        let started = started.and_then(|words| {
            let how = How {
                generation: self.generation,
                executable: &self.executable,
                is_safe,
                words: words.as_ref(),
            };
            spawn(program, &how, spawner, now).map(|(starting, channel)| (starting, channel, words))
        });
        match started {
            Ok((starting, channel, last_words)) => {
                self.process = Some(CoreProcess {
                    pid: starting.pid(),
                    starting: Some(starting),
                    channel: Some(channel),
                    since: now,
                    is_ready: false,
                    is_safe,
                    last_words,
                    kill_at: None,
                    tell_at: None,
                });
                Ok(())
            }
            Err(err) => {
                let how = err.failure();
                self.failed(CoreEnd { how, last_words: Vec::new() }, now);
                Err(err)
            }
        }
    }

    /// It serves: what was on trial stays, and what went wrong before is forgotten.
    pub(crate) fn is_ready(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.is_ready = true;
        process.last_words = None;
        if let Some(trial) = self.trial.take_if(|trial| !trial.is_late) {
            self.replaced = Some(FromKeeper::Replaced {
                label: trial.label,
                core_generation: self.generation,
                undone: None,
            });
            self.crashes = Crashes::default();
        }
    }

    /// The next core runs this.
    pub(crate) fn replace(
        &mut self,
        executable: OwnedFd,
        label: Vec<u8>,
        ready_within: Duration,
        now: Instant,
    ) {
        self.candidate = Some(Candidate { executable, label, ready_within });
        if let Some(process) = &mut self.process {
            process.kill_at.get_or_insert(now + LEAVE);
        }
    }

    /// When a core on trial is killed.
    pub(crate) fn trial_ends(&self) -> Option<Instant> {
        self.trial.as_ref().filter(|trial| !trial.is_late && self.process.is_some()).map(|trial| trial.until)
    }

    /// It did not say in time that it is ready, and is about to be killed.
    pub(crate) fn is_late(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.is_late = true;
        }
    }

    /// What a new core is told beside all else.
    pub(crate) fn told(&self) -> Vec<FromKeeper> {
        let on_trial = self.trial.as_ref().map(|trial| FromKeeper::Replaced {
            label: trial.label.clone(),
            core_generation: self.generation,
            undone: None,
        });
        let safe = match (&self.process, &self.crashes.last) {
            (Some(CoreProcess { is_safe: true, .. }), Some(last)) => {
                Some(FromKeeper::Safe { ends: self.crashes.count, last: last.clone() })
            }
            _ => None,
        };
        [on_trial.or_else(|| self.replaced.clone()), safe].into_iter().flatten().collect()
    }

    /// It is reaped: decides when the next one starts, and what that runs.
    pub(crate) fn ended(&mut self, status: ExitStatus, now: Instant) -> Option<Ended> {
        let process = self.process.take()?;
        let last_words = process.last_words.as_ref().map(LastWords::read).unwrap_or_default();
        let not_started = process.starting.as_ref().and_then(Starting::failure);
        let how = match (&self.trial, not_started) {
            (_, Some((step, errno))) => CoreFailure::NotStarted { step, errno },
            (Some(Trial { is_late: true, .. }), None) => CoreFailure::Late,
            (_, None) => CoreFailure::Ended(status),
        };
        let is_undone = self.trial.is_some();
        let is_replaced = !is_undone && self.candidate.is_some();
        let life = now.saturating_duration_since(process.since);
        if is_replaced {
            self.again_at = now;
        } else if is_undone || (!process.is_ready && !process.is_safe && life < LONG_LIFE) {
            self.failed(CoreEnd { how, last_words: last_words.clone() }, now);
        } else {
            // One that served and was killed from outside shows that cores can start: the next is due soon, only not
            // so soon that whoever kills them all the time keeps this machine busy.
            let killed = process.is_ready && status == KILLED;
            if !process.is_safe && (killed || life >= LONG_LIFE) {
                self.crashes = Crashes::default();
            } else if !process.is_safe {
                self.crashes.add(CoreEnd { how, last_words: last_words.clone() });
            }
            if killed {
                self.quick_deaths = self.quick_deaths.min(1);
            }
            self.next_after(life, now);
        }
        Some(Ended { starting: process.starting, last_words, is_undone, is_replaced })
    }

    /// It came to nothing: a trial is over, anything else is one more that could not start.
    fn failed(&mut self, end: CoreEnd, now: Instant) {
        if let Some(trial) = self.trial.take() {
            self.executable = trial.before;
            self.again_at = now;
            self.replaced = Some(FromKeeper::Replaced {
                label: trial.label,
                core_generation: self.generation + 1,
                undone: Some(end),
            });
        } else {
            self.crashes.add(end);
            self.next_after(Duration::ZERO, now);
        }
    }

    fn next_after(&mut self, life: Duration, now: Instant) {
        self.quick_deaths = if life < LONG_LIFE { self.quick_deaths.saturating_add(1) } else { 0 };
        self.again_at = now + delay(self.quick_deaths);
    }
}

impl CoreProcess {
    /// Kills it; says later on that it does not die, if it does not.
    pub(crate) fn kill(&mut self, now: Instant) {
        self.kill_at = None;
        self.tell_at = Some(now + LEAVE);
        let _ = raw::kill(self.pid as i32, libc::SIGKILL);
    }
}

impl Crashes {
    fn add(&mut self, end: CoreEnd) {
        self.count = self.count.saturating_add(1);
        self.last = Some(end);
    }
}

impl NoCore {
    fn failure(&self) -> CoreFailure {
        let (step, errno) = match self {
            Self::Channel(err) => (FailedStep::Stage, err.raw_os_error().unwrap_or(libc::EIO)),
            Self::Spawn((step, errno)) => (step.clone(), *errno),
        };
        CoreFailure::NotStarted { step, errno }
    }
}

/// None for the first quick death, then doubling.
fn delay(quick_deaths: u32) -> Duration {
    match quick_deaths {
        0 | 1 => Duration::ZERO,
        more => FIRST_DELAY.saturating_mul(1 << (more - 2).min(16)).min(LONGEST_DELAY),
    }
}

/// What differs from one core to the next.
struct How<'c> {
    generation: u64,
    executable: &'c OwnedFd,
    is_safe: bool,
    words: Option<&'c LastWords>,
}

fn spawn(
    core: &CoreProgram,
    how: &How<'_>,
    spawner: &mut Spawner,
    now: Instant,
) -> Result<(Starting, Seqpacket), NoCore> {
    let (ours, theirs) = Seqpacket::pair().map_err(NoCore::Channel)?;
    let ours = above_window(ours.into()).map_err(|errno| NoCore::Channel(errno.into()))?;
    let ours = Seqpacket::from_fd(ours).map_err(|err| NoCore::Channel(io::Error::other(err)))?;
    // It is spawned like a service; the name is never registered.
    let name = "core".parse().expect("a legal name");
    let mut request = SpawnRequest::new(name, Incarnation::from_stored(how.generation), &core.path);
    request.argv.clear();
    for arg in &core.argv {
        request = request.arg(arg);
    }
    if how.is_safe {
        request = request.arg(SAFE);
    }
    for (key, value) in core.env.iter().filter(|(key, _)| key != CHANNEL && key != STDERR) {
        request = request.env(key, value);
    }
    // A session of its own: what the terminal sends goes to the keeper alone, which hands it on.
    request = request
        .env(CHANNEL, CHANNEL_NUMBER.to_string())
        .step(ChildStep::SetSid)
        .attach(Attach::Program)
        .attach(Attach::Child(0))
        .attach(Attach::Child(1))
        .attach(Attach::Child(2))
        .attach(Attach::Child(CHANNEL_NUMBER));
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let errors = how.words.map_or(stderr.as_fd(), LastWords::as_fd);
    let mut beside: Vec<BorrowedFd<'_>> =
        vec![how.executable.as_fd(), stdin.as_fd(), stdout.as_fd(), errors, theirs.as_fd()];
    if how.words.is_some() {
        request = request.env(STDERR, STDERR_NUMBER.to_string()).attach(Attach::Child(STDERR_NUMBER));
        beside.push(stderr.as_fd());
    }
    let starting = spawner.start(&request, &beside, now).map_err(NoCore::Spawn)?;
    Ok((starting, ours))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const PANIC: ExitStatus = ExitStatus::Code(101);

    fn core(now: Instant) -> Core {
        Core::new(File::open("/dev/null").unwrap().into(), now)
    }

    /// As if one had run since then.
    fn lived(core: &mut Core, is_ready: bool, since: Instant) {
        core.generation += 1;
        let is_safe = core.crashes.count >= CRASHES;
        core.process = Some(CoreProcess {
            pid: 1,
            starting: None,
            channel: None,
            since,
            is_ready,
            is_safe,
            last_words: None,
            kill_at: None,
            tell_at: None,
        });
    }

    #[test]
    fn the_first_quick_death_is_free_then_the_delay_doubles_to_five_seconds() {
        let delays: Vec<u64> = (1..=9).map(|deaths| delay(deaths).as_millis() as u64).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(delay(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn a_long_life_forgives_the_quick_deaths_before() {
        let mut now = Instant::now();
        let mut core = core(now);
        let mut die_after = |core: &mut Core, life| {
            lived(core, true, now);
            now += Duration::from_secs(life);
            core.ended(PANIC, now).unwrap();
            core.due().unwrap() - now
        };
        for expected in [0, 100, 200] {
            assert_eq!(die_after(&mut core, 9), Duration::from_millis(expected));
        }
        assert_eq!(die_after(&mut core, 10), Duration::ZERO);
        assert_eq!(die_after(&mut core, 0), Duration::ZERO);
    }

    #[test]
    fn five_that_can_not_start_or_crash_soon_make_the_next_a_safe_one_and_it_stays_so() {
        let now = Instant::now();
        let mut core = core(now);
        for is_ready in [false, true, false, false, true] {
            assert!(core.told().is_empty());
            lived(&mut core, is_ready, now);
            core.ended(PANIC, now);
        }
        for _ in 0..2 {
            lived(&mut core, true, now);
            let [FromKeeper::Safe { ends: 5, last }] = &core.told()[..] else { panic!("{:?}", core.told()) };
            assert_eq!(last.how, CoreFailure::Ended(PANIC));
            core.ended(PANIC, now);
        }
    }

    #[test]
    fn one_that_served_and_was_killed_from_outside_is_no_crash() {
        let now = Instant::now();
        let mut core = core(now);
        for round in 0..20 {
            lived(&mut core, round % 5 == 4, now);
            core.ended(KILLED, now);
        }
        assert_eq!(core.crashes.count, 0);
        assert!(core.due().unwrap() <= now + FIRST_DELAY);
    }
}
