//! Messages between services, and what they survive.

mod asks;
mod bounds;
mod contracts;
mod dead;
mod deferred;
mod delivery;
mod introduction;
mod odd;
mod permissions;
mod send;
mod statistics;

use std::time::Duration;

use nix::sys::signal::Signal;
use watchdog_protocol::status::{InboxStatus, LaneStatus};
use watchdog_tests::proof::{self, Plan, restart};
use watchdog_tests::puppet::Manner::{ByHand, ByItself};
use watchdog_tests::puppet::{Heard, Manner, Order, Shown, Way, puppet};
use watchdog_tests::{Entry, Rebuilt, Seen, TestWatchdog, sample};

/// Long enough never to be the reason.
const LONG: Option<Duration> = Some(Duration::from_secs(50));

/// So short that it passes while one looks.
const SHORT: Option<Duration> = Some(Duration::from_millis(50));

fn ready(entries: &[Entry]) -> TestWatchdog {
    let wd = TestWatchdog::run(entries);
    wd.until("all are ready", Seen::all_ready);
    wd
}

/// Puppet `a`, and `b` that is led by hand.
fn ready_by_hand() -> TestWatchdog {
    let patient = puppet("b", ByHand).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = TestWatchdog::run(&[puppet("a", ByItself), patient]);
    wd.puppet("b").does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    wd
}

/// A puppet whose asks may be delivered again.
fn patient(name: &str, manner: Manner) -> Entry {
    puppet(name, manner).exec(&watchdog_tests::binary("probe-puppet-patient"))
}

/// Kills a puppet and waits for the next one, which says ready if it is led by hand.
fn kill_and_wait(wd: &TestWatchdog, name: &str) {
    let killed = wd.kill(name, Signal::SIGKILL);
    wd.until("the next one is there", |seen| {
        seen.of(name).incarnation > killed && seen.of(name).pid.is_some()
    });
    wd.puppet(name).does(Order::Ready);
    wd.until("the next one is ready", |seen| seen.of(name).is_ready_after(killed));
}

/// Puts another configuration in force while everything runs.
fn in_force(wd: &TestWatchdog, entries: &[Entry]) {
    wd.configure("", entries);
    wd.cli(&["reload", "--no-wait"]).ok();
}

/// Writes the entry's file, and registers it.
fn register(wd: &TestWatchdog, entry: &Entry) -> watchdog_tests::Said {
    let file = format!("{}.toml", entry.name());
    std::fs::write(wd.path(&file), entry.render(wd.folder())).expect("a file");
    wd.cli(&["register", &file])
}

fn say(to: &str, text: &str) -> Order {
    Order::Tell { to: to.into(), text: text.into(), deadline: None }
}

fn ask(to: &str, text: &str) -> Order {
    Order::Ask { to: to.into(), text: text.into(), deadline: LONG }
}

fn texts(heard: &[Heard]) -> Vec<String> {
    heard.iter().map(|heard| heard.text.clone()).collect()
}

fn inbox(wd: &TestWatchdog, of: &str) -> InboxStatus {
    let inboxes: Vec<InboxStatus> = wd.cli(&["intercoms", of, "--json"]).ok().json();
    inboxes.into_iter().find(|inbox| inbox.service.as_str() == of).expect("the inbox asked for")
}

fn lane(wd: &TestWatchdog, sender: &str, receiver: &str) -> LaneStatus {
    let inbox = inbox(wd, receiver);
    inbox.lanes.into_iter().find(|lane| lane.sender.as_str() == sender).expect("the lane asked for")
}
