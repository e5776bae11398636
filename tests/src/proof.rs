//! The proof that no message is lost, doubled in silence or out of order, whoever is killed.
//!
//! ```text
//! numberer-1 ─┐                                  each notes n in its own file after `tell` said Ok
//! numberer-2 ─┼─► recorder                       notes every number before it asks for the next event
//! numberer-3 ─┘        ▲
//!   ▲ kill -9          │ kill -9      core ◄── kill -9     at moments drawn by the seed
//! ```
//! For each process of a sender, what arrived is 1..k without a gap and in order, k at least the last it noted;
//! a number seen twice is marked redelivered; and nobody was started more often than it was killed.

pub mod contention;
pub mod core;
pub mod flood;
pub mod logging;
pub mod restart;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

pub use self::traffic::{LINE, Shown, gate, line, notes, stored};
use self::traffic::{RECEIVER, SENDERS, Traffic};
use crate::proc::{self, Process};
use crate::until::until;
use crate::{Seen, TestWatchdog};

/// How many messages, and who is killed how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Numbers told, all senders together.
    pub messages: u64,
    /// Deaths of the receiver.
    pub receiver_kills: usize,
    /// Deaths of the core.
    pub core_kills: usize,
    /// Deaths of a sender.
    pub sender_kills: usize,
    /// Draws the moments.
    pub seed: u64,
}

/// Runs one round.
///
/// # Errors
/// What was not as promised.
pub fn intercom(plan: Plan) -> Result<Shown, Broken> {
    let begin = Instant::now();
    let mut wd = TestWatchdog::idle();
    let traffic = Traffic::prepare(&wd, plan.messages);
    wd.configure("", &traffic.entries());
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    let random = fastrand::Rng::with_seed(plan.seed);
    Killer { wd: &wd, traffic: &traffic, random, last: BTreeMap::new() }.run(plan);
    traffic.finish(&wd);
    let starts = |name: &str| wd.status().of(name).starts;
    let receivers = starts(RECEIVER);
    if receivers != 1 + plan.receiver_kills as u64 {
        let events = wd.cli(&["events", "-n", "200"]).ok().stdout;
        return Err(Broken(format!("{RECEIVER} was started {receivers} times\n{events}")));
    }
    let senders: u64 = SENDERS.iter().map(|sender| starts(sender)).sum();
    if senders != (SENDERS.len() + plan.sender_kills) as u64 {
        let events = wd.cli(&["events", "-n", "200"]).ok().stdout;
        return Err(Broken(format!("senders were started {senders} times\n{events}")));
    }
    let mut shown = traffic.check(&wd)?;
    shown.took = begin.elapsed();
    Ok(shown)
}

/// Something was not as promised.
#[derive(Debug)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Receiver,
    Core,
    Sender,
}

struct Killer<'a> {
    wd: &'a TestWatchdog,
    traffic: &'a Traffic,
    random: fastrand::Rng,
    /// Nobody is killed twice.
    last: BTreeMap<&'static str, Process>,
}

impl Killer<'_> {
    fn run(mut self, plan: Plan) {
        let victims = [
            (Victim::Receiver, plan.receiver_kills),
            (Victim::Core, plan.core_kills),
            (Victim::Sender, plan.sender_kills),
        ];
        // A moment is a number of arrived messages, and then up to 2 ms.
        let mut moments: Vec<(u64, Victim)> = Vec::new();
        for (victim, times) in victims {
            moments.extend((0..times).map(|_| (self.random.u64(0..plan.messages * 9 / 10), victim)));
        }
        moments.sort_by_key(|(moment, _)| *moment);
        for (moment, victim) in moments {
            let name = match victim {
                Victim::Receiver => Some(RECEIVER),
                Victim::Sender => Some(SENDERS[self.random.usize(0..SENDERS.len())]),
                Victim::Core => None,
            };
            // Looked for before the moment: a core that dies often is started with a pause, and every kill is to
            // fall into traffic.
            let process = name.map_or_else(|| self.wd.core(), |name| self.process_of(name));
            self.traffic.flows_to(moment);
            thread::sleep(Duration::from_micros(self.random.u64(0..2000)));
            process.signal(Signal::SIGKILL);
            if let Some(name) = name {
                self.last.insert(name, process);
            }
        }
    }

    /// The process of a service there is now, or the next one. Looks at processes alone: a core that is just being
    /// replaced is no reason to wait.
    fn process_of(&self, name: &str) -> Process {
        let last = self.last.get(name).copied();
        let keeper = self.wd.keeper_pid();
        let is_it = |process: &Process| {
            Some(*process) != last
                && process.is_alive()
                && proc::environment(process.pid)
                    .get("WATCHDOG_SERVICE")
                    .is_some_and(|service| service == name)
        };
        until(&format!("a process of {name}"), String::new, || proc::children(keeper).into_iter().find(is_it))
    }
}
