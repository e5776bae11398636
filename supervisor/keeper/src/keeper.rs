//! The loop: one thread, which waits for signals, for the core, and for children on their way to exec.

mod children;
mod requests;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use watchdog_protocol::limits::MAX_PACKET;
use watchdog_protocol::{Incarnation, LaneEpoch, ServiceName};

use crate::console::{say, say_words};
use crate::core_process::{Core, CoreProgram, LEAVE, NoCore};
use crate::descriptors::Store;
use crate::failure::explain;
use crate::finish::Finish;
use crate::leaders::Leaders;
use crate::memory::give_back_unused;
use crate::outbox::{Flushed, Outbox};
use crate::protocol::{ExitStatus, FailedStep, FromKeeper, Hello, Limit, VERSION};
use crate::reap;
use crate::spawn::{Spawner, Starting, has_room};

/// How soon the keeper tries again what the kernel had no room for.
const RETRY: Duration = Duration::from_millis(5);

/// What never changes in a keeper's life.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) start_time: u64,
    pub(crate) started_unix_ms: u64,
    pub(crate) epoch: LaneEpoch,
    pub(crate) original_limits: Vec<Limit>,
    pub(crate) core: CoreProgram,
    /// Held, never looked at.
    pub(crate) _kept: Vec<OwnedFd>,
}

/// All a keeper knows.
#[derive(Debug)]
pub(crate) struct Keeper {
    life: Life,
    signals: SignalFd,
    spawner: Spawner,
    store: Store,
    leaders: Leaders,
    /// `Exited` and `SpawnFailed`, until they are acknowledged.
    ends: BTreeMap<(ServiceName, Incarnation), FromKeeper>,
    core: Core,
    outbox: Outbox,
    flushed: Flushed,
    /// Requests to shut down. A core that died may have heard of them or not: the next one is told again.
    asked: Vec<i32>,
    /// There may be dead children that no signal will tell of again.
    may_be_dead: bool,
    finish: Option<Finish>,
    buffer: Vec<u8>,
}

/// How long a start may wait for the place that others take, deaf to all else.
const ROOM_DEADLINE: Duration = Duration::from_secs(1);

/// What may become ready, and how that is seen.
type Watched<'k> = (Source, BorrowedFd<'k>, PollFlags);

/// Which of these are, at the latest after so long.
fn ready(sources: Vec<Watched<'_>>, timeout: PollTimeout) -> Vec<Source> {
    let mut watched: Vec<PollFd<'_>> =
        sources.iter().map(|(_, descriptor, events)| PollFd::new(*descriptor, *events)).collect();
    let ready = poll(&mut watched, timeout);
    let seen: Vec<bool> = watched.iter().map(|one| one.any().unwrap_or(true)).collect();
    if !matches!(ready, Ok(1..)) {
        return Vec::new();
    }
    let ready = sources.into_iter().zip(seen).filter(|(_, seen)| *seen);
    ready.map(|((source, ..), _)| source).collect()
}

/// What became ready.
enum Source {
    Signals,
    Channel,
    CoreExec,
    Exec(ServiceName),
}

impl Keeper {
    pub(crate) fn new(life: Life, executable: OwnedFd, signals: SignalFd, null: OwnedFd) -> Self {
        Self {
            life,
            signals,
            spawner: Spawner::new(null),
            store: Store::default(),
            leaders: Leaders::default(),
            ends: BTreeMap::new(),
            core: Core::new(executable, Instant::now()),
            outbox: Outbox::default(),
            flushed: Flushed::All,
            asked: Vec::new(),
            may_be_dead: true,
            finish: None,
            buffer: vec![0; MAX_PACKET],
        }
    }

    /// Until a core says that all is stopped; its exit code.
    pub(crate) fn run(mut self) -> u8 {
        loop {
            self.keep_time(Instant::now());
            self.flush();
            if let Some(code) = self.finish.as_ref().and_then(Finish::code) {
                return code;
            }
            for source in self.wait() {
                match source {
                    Source::Signals => self.take_signals(),
                    Source::Channel => self.take_requests(),
                    Source::CoreExec => self.core_runs(),
                    Source::Exec(service) => self.exec_seen(&service),
                }
            }
            if self.may_be_dead {
                self.reap(Instant::now());
            }
        }
    }

    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![(Source::Signals, self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(core) = &self.core.process {
            if let Some(channel) = &core.channel {
                let room =
                    if self.flushed == Flushed::Full { PollFlags::POLLOUT } else { PollFlags::empty() };
                sources.push((Source::Channel, channel.as_fd(), PollFlags::POLLIN | room));
            }
            if let Some(pipe) = core.starting.as_ref().and_then(|starting| starting.pipe()) {
                sources.push((Source::CoreExec, pipe, PollFlags::POLLIN));
            }
        }
        sources.extend(self.children());
        ready(sources, self.timeout(Instant::now()))
    }

    /// Services' children on their way to exec.
    fn children(&self) -> impl Iterator<Item = Watched<'_>> {
        let pipes =
            self.leaders.starting().filter_map(|(service, starting)| Some((service, starting.pipe()?)));
        pipes.map(|(service, pipe)| (Source::Exec(service.clone()), pipe, PollFlags::POLLIN))
    }

    /// Waits until so many descriptors find a place in the window, where children on their way have theirs. Without one
    /// the start fails: only children that are stopped or frozen at birth keep it for so long.
    fn make_room(&mut self, descriptors: usize) {
        let until = Instant::now() + ROOM_DEADLINE;
        while !has_room(descriptors, self.leaders.starting().map(|(_, starting)| starting)) {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let ready =
                ready(self.children().collect(), PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
            if ready.is_empty() {
                return;
            }
            for source in ready {
                if let Source::Exec(service) = source {
                    self.exec_seen(&service);
                }
            }
        }
    }

    fn timeout(&self, now: Instant) -> PollTimeout {
        let process = self.core.process.as_ref();
        let retry = match (self.flushed, process.map(|core| core.channel.is_some())) {
            // A full socket is tried again beside waiting for it: writable is said only when most of it is free.
            (Flushed::Full | Flushed::Later, Some(true)) => Some(now + RETRY),
            _ => None,
        };
        let next = [
            self.may_be_dead.then_some(now),
            retry,
            self.core.due().filter(|_| self.finish.is_none()),
            process.and_then(|core| core.kill_at),
            process.and_then(|core| core.tell_at),
            self.core.trial_ends(),
            process.and_then(|core| core.starting.as_ref()?.deadline()),
            self.leaders.starting().filter_map(|(_, starting)| starting.deadline()).min(),
            self.finish.as_ref().map(Finish::next_look),
        ];
        let Some(next) = next.into_iter().flatten().min() else { return PollTimeout::NONE };
        let left = next.saturating_duration_since(now).as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(left.min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
    }

    fn keep_time(&mut self, now: Instant) {
        let late = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let starting = self.leaders.starting().filter(|(_, starting)| late(starting.deadline()));
        for service in starting.map(|(service, _)| service.clone()).collect::<Vec<_>>() {
            self.leaders.starting_mut(&service).into_iter().for_each(Starting::give_up);
        }
        let is_late = late(self.core.trial_ends());
        if let Some(core) = &mut self.core.process {
            if let Some(starting) = core.starting.as_mut().filter(|starting| late(starting.deadline())) {
                starting.give_up();
            }
            if late(core.kill_at) {
                say(format_args!("the core does not leave, killing it (pid {})", core.pid));
                core.kill(now);
            } else if is_late {
                say(format_args!("the new core is not ready in time, killing it (pid {})", core.pid));
                core.kill(now);
            }
            if late(core.tell_at) {
                core.tell_at = None;
                say(format_args!(
                    "the core does not die (pid {}); another is started only when it has",
                    core.pid
                ));
            }
        }
        if is_late {
            self.core.is_late();
        }
        match &mut self.finish {
            Some(finish) if late(Some(finish.next_look())) => {
                finish.look(now, &self.leaders, self.core.process.as_ref().map(|core| core.pid));
                self.may_be_dead = true;
            }
            None if late(self.core.due()) => self.start_core(now),
            _ => {}
        }
    }

    fn flush(&mut self) {
        let Some(core) = &mut self.core.process else { return };
        let Some(channel) = &core.channel else { return };
        match self.outbox.flush(channel) {
            Ok(flushed) => self.flushed = flushed,
            // It has closed its end. What it wrote before is still read: that ends with the end itself.
            Err(_) => {
                self.outbox.clear();
                self.flushed = Flushed::All;
            }
        }
    }

    fn tell(&mut self, message: &FromKeeper, beside: Vec<Rc<OwnedFd>>) {
        if let Err(err) = self.outbox.push(message, beside) {
            say(format_args!("cannot tell the core: {err}"));
        }
    }

    // ---- the core ----

    fn start_core(&mut self, now: Instant) {
        match self.core.start(&self.life.core, &mut self.spawner, now) {
            Ok(()) => self.hand_over(),
            Err(NoCore::Channel(err)) => say(format_args!("cannot make the channel of a core: {err}")),
            Err(NoCore::Spawn((step, errno))) => self.say_no_core(&step, errno),
        }
    }

    fn say_no_core(&self, step: &FailedStep, errno: i32) {
        let failure = explain(&self.life.core.path, step, errno);
        say(format_args!("cannot start a core: {}: {failure}", failure.step()));
    }

    fn hand_over(&mut self) {
        self.outbox.clear();
        let hello = Hello {
            version: VERSION,
            pid: std::process::id(),
            start_time: self.life.start_time,
            started_unix_ms: self.life.started_unix_ms,
            epoch: self.life.epoch,
            core_generation: self.core.generation,
            original_limits: self.life.original_limits.clone(),
            children: self.leaders.running(),
        };
        self.tell(&FromKeeper::Hello(hello), Vec::new());
        for (names, descriptors) in self.store.packets() {
            self.tell(&FromKeeper::Descriptors(names), descriptors);
        }
        for end in self.ends.values().cloned().collect::<Vec<_>>() {
            self.tell(&end, Vec::new());
        }
        for message in self.core.told() {
            self.tell(&message, Vec::new());
        }
        self.tell(&FromKeeper::HandedOver, Vec::new());
        for signal in self.asked.clone() {
            self.tell(&FromKeeper::Signalled { signal }, Vec::new());
        }
    }

    fn core_runs(&mut self) {
        let Some(core) = &mut self.core.process else { return };
        let Some(mut starting) = core.starting.take() else { return };
        if starting.look() {
            self.spawner.retire(starting);
            // What this process began with, or did for the core before. The new one loads its libraries, and asks for
            // nothing meanwhile.
            give_back_unused();
        } else {
            core.starting = Some(starting);
        }
    }

    /// It is dead and not reaped: what it wrote is read to the end, then it is reaped, then the next one may start.
    fn core_died(&mut self, pid: u32, now: Instant) {
        self.take_all_requests();
        let Some((status, _)) = reap::reap(pid) else { return };
        let Some(core) = self.core.ended(status, now) else { return };
        self.outbox.clear();
        self.flushed = Flushed::All;
        let failure = core.starting.as_ref().and_then(|starting| starting.failure());
        if let Some(starting) = core.starting {
            self.spawner.retire(starting);
        }
        say_words(&core.last_words);
        if self.finish.is_some() {
            return;
        }
        if let Some((step, errno)) = failure {
            return self.say_no_core(&step, errno);
        }
        let next = match (core.is_undone, core.is_replaced) {
            (true, _) => "before it was ready, going back to the program of before",
            (_, true) => "as asked, starting the new one",
            _ => "starting another",
        };
        match status {
            ExitStatus::Code(code) => say(format_args!("core ended (exit code {code}), {next}")),
            ExitStatus::Signal { signal, .. } => say(format_args!("core died (signal {signal}), {next}")),
        }
    }

    // ---- signals ----

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let signal = signal.ssi_signo as i32;
            if signal == libc::SIGCHLD {
                self.may_be_dead = true;
                continue;
            }
            // The second one says all there is to say.
            if self.asked.len() < 2 {
                self.asked.push(signal);
            }
            if self.core.process.is_some() {
                self.tell(&FromKeeper::Signalled { signal }, Vec::new());
            } else if self.asked.len() == 2 && self.finish.is_none() {
                // There is no core to stop anything in order, maybe never again.
                say(format_args!("asked twice to stop while there is no core, ending all"));
                self.begin_finish(1);
            }
        }
    }

    fn begin_finish(&mut self, code: u8) {
        let now = Instant::now();
        if let Some(core) = &mut self.core.process {
            core.kill_at.get_or_insert(now + LEAVE);
        }
        self.finish = Some(Finish::new(code, now));
        // No core comes any more that would ask for it. It is let go of while the last one leaves.
        self.store = Store::default();
        self.may_be_dead = true;
    }
}
