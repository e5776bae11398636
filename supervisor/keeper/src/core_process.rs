//! The core as a process: started, watched, started again.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use watchdog_protocol::Incarnation;
use watchdog_seqpacket::Seqpacket;

use crate::descriptors::above_window;
use crate::protocol::{Attach, ChildStep, SpawnRequest};
use crate::spawn::{Failure, Spawner, Starting};

/// The variable in which the core finds the number of its channel.
pub const CHANNEL: &str = "WATCHDOG_KEEPER";

/// That number: the first behind the standard three.
const CHANNEL_NUMBER: u32 = 3;

/// How long a core may live without its channel, or after it has said that all is stopped.
pub(crate) const LEAVE: Duration = Duration::from_secs(5);

/// A core that lived this long did not die of being started.
const LONG_LIFE: Duration = Duration::from_secs(10);

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// What runs as the core.
#[derive(Debug)]
pub(crate) struct CoreProgram {
    pub(crate) program: PathBuf,
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// The one there is, or when the next one starts.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) generation: u64,
    pub(crate) process: Option<CoreProcess>,
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
    /// When it is killed.
    pub(crate) kill_at: Option<Instant>,
}

/// Why there is no new core.
#[derive(Debug)]
pub(crate) enum NoCore {
    Channel(io::Error),
    Spawn(Failure),
}

impl Core {
    /// None yet, and the first one due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { generation: 0, process: None, quick_deaths: 0, again_at: now }
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
        let started = spawn(program, self.generation, spawner, now);
        match started {
            Ok((starting, channel)) => {
                self.process = Some(CoreProcess {
                    pid: starting.pid(),
                    starting: Some(starting),
                    channel: Some(channel),
                    since: now,
                    kill_at: None,
                });
                Ok(())
            }
            Err(err) => {
                self.died_after(Duration::ZERO, now);
                Err(err)
            }
        }
    }

    /// It is reaped: decides when the next one starts.
    pub(crate) fn ended(&mut self, now: Instant) -> Option<CoreProcess> {
        let process = self.process.take()?;
        self.died_after(now.saturating_duration_since(process.since), now);
        Some(process)
    }

    fn died_after(&mut self, life: Duration, now: Instant) {
        self.quick_deaths = if life < LONG_LIFE { self.quick_deaths.saturating_add(1) } else { 0 };
        self.again_at = now + delay(self.quick_deaths);
    }
}

/// None for the first quick death, then doubling.
fn delay(quick_deaths: u32) -> Duration {
    match quick_deaths {
        0 | 1 => Duration::ZERO,
        more => FIRST_DELAY.saturating_mul(1 << (more - 2).min(16)).min(LONGEST_DELAY),
    }
}

fn spawn(
    core: &CoreProgram,
    generation: u64,
    spawner: &mut Spawner,
    now: Instant,
) -> Result<(Starting, Seqpacket), NoCore> {
    let (ours, theirs) = Seqpacket::pair().map_err(NoCore::Channel)?;
    let ours = above_window(ours.into()).map_err(|errno| NoCore::Channel(errno.into()))?;
    let ours = Seqpacket::from_fd(ours).map_err(|err| NoCore::Channel(io::Error::other(err)))?;
    // It is spawned like a service; the name is never registered.
    let name = "core".parse().expect("a legal name");
    let mut request = SpawnRequest::new(name, Incarnation::from_stored(generation), &core.program);
    request.argv.clear();
    for arg in &core.argv {
        request = request.arg(arg);
    }
    for (key, value) in core.env.iter().filter(|(key, _)| key != CHANNEL) {
        request = request.env(key, value);
    }
    // A session of its own: what the terminal sends goes to the keeper alone, which hands it on.
    request = request
        .env(CHANNEL, CHANNEL_NUMBER.to_string())
        .step(ChildStep::SetSid)
        .attach(Attach::Child(0))
        .attach(Attach::Child(1))
        .attach(Attach::Child(2))
        .attach(Attach::Child(CHANNEL_NUMBER));
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let beside: [BorrowedFd<'_>; 4] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), theirs.as_fd()];
    let starting = spawner.start(&request, &beside, now).map_err(NoCore::Spawn)?;
    Ok((starting, ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_quick_death_is_free_then_the_delay_doubles_to_five_seconds() {
        let delays: Vec<u64> = (1..=9).map(|deaths| delay(deaths).as_millis() as u64).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(delay(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn a_long_life_forgives_the_quick_deaths_before() {
        let mut now = Instant::now();
        let mut core = Core::new(now);
        for expected in [0, 100, 200] {
            core.died_after(Duration::from_secs(9), now);
            assert_eq!(core.due(), Some(now + Duration::from_millis(expected)));
            now += Duration::from_secs(20);
        }
        core.died_after(Duration::from_secs(10), now);
        assert_eq!(core.due(), Some(now));
        core.died_after(Duration::ZERO, now);
        assert_eq!(core.due(), Some(now));
    }
}
