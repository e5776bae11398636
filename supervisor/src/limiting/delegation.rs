//! How we come by the controllers of cgroup v2.
//!
//! ```text
//! before                              after
//! unit.service   watchdog run         unit.service                       cgroup.subtree_control: cpu memory io pids
//!                                      ├ watchdog-<hash>.itself          keeper and core
//!                                      └ watchdog-<hash>                 cgroup.subtree_control: cpu memory io pids
//!                                         └ counter                      cpu.max memory.max …
//! ```
//! A cgroup that hands controllers on may hold no process (only the root may). So before the keeper begins, whoever
//! runs the watchdog is moved to a leaf of its own; but only where that helps: where our cgroup has controllers,
//! nobody else is in it, and it was given to us. Under systemd that means `Delegate=yes`, which it notes in an
//! attribute of the folder; a cgroup that it manages itself we leave alone, also as root.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::files::{Files, Kernel, read_word};
use super::v2::CONTROLLERS;
use crate::processes::cgroup::{Here, Tree, leaf_name};

/// Its presence says that systemd manages the host's cgroups.
const SYSTEMD: &str = "/run/systemd/system";

/// Moves this process to a leaf of its own, if that brings controllers. Why it does not, if there are any to be had.
///
/// # Errors
/// In words, for whoever runs the watchdog; nothing was changed, and everything else works.
pub(crate) fn settle(state_folder: &Path) -> Result<(), String> {
    let Ok(own) = Here::read().and_then(|here| here.folder(Tree::Unified)) else { return Ok(()) };
    let is_given = || !Path::new(SYSTEMD).exists() || is_delegated(&own);
    let own_pid = std::process::id().cast_signed();
    settle_in(&Kernel, &own, &leaf_name(state_folder), own_pid, is_given)
}

fn settle_in(
    files: &dyn Files,
    own: &Path,
    leaf: &str,
    own_pid: i32,
    is_given: impl Fn() -> bool,
) -> Result<(), String> {
    let named = |file: &str, name: &str| words(&own.join(file)).iter().any(|word| word == name);
    let is_missing =
        |name: &&str| named("cgroup.controllers", name) && !named("cgroup.subtree_control", name);
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_given() {
        return Err(format!("systemd manages {} itself", own.display()));
    }
    let cannot = |err: io::Error| format!("cannot use {}: {err}", own.display());
    let others = pids_in_itself(own).map_err(cannot)?.into_iter().filter(|pid| *pid != own_pid).count();
    // What the kernel lets pass as it is, the root of all, is no reason to move.
    match take(files, own, &missing) {
        Ok(()) => return Ok(()),
        Err(err) if is_busy(&err) => {}
        Err(err) => return Err(cannot(err)),
    }
    if others > 0 {
        return Err(format!("{} holds {others} other processes", own.display()));
    }
    let leaf = own.join(leaf);
    files.make(&leaf).map_err(cannot)?;
    files.write(&leaf.join("cgroup.procs"), &own_pid.to_string()).map_err(cannot)?;
    take(files, own, &missing).map_err(|err| {
        // Back where we were: the next one is to find it as it was.
        let _ = files.write(&own.join("cgroup.procs"), &own_pid.to_string());
        let _ = files.remove(&leaf);
        cannot(err)
    })
}

/// One by one: one that the kernel keeps back keeps back no other. An error when none is taken.
fn take(files: &dyn Files, own: &Path, controllers: &[&str]) -> io::Result<()> {
    let file = own.join("cgroup.subtree_control");
    let taken: Vec<_> = controllers.iter().map(|name| files.write(&file, &format!("+{name}"))).collect();
    match taken.iter().any(Result::is_ok) {
        true => Ok(()),
        false => taken.into_iter().collect(),
    }
}

fn is_busy(err: &io::Error) -> bool {
    err.raw_os_error() == Some(Errno::EBUSY as i32)
}

/// Hands controllers on from our own cgroup to the services' tree, and from there to the services. Why some can't be.
pub(super) fn enable(files: &dyn Files, tree: &Path) -> BTreeMap<&'static str, String> {
    let own = tree.parent().unwrap_or(tree);
    let mut refusals = BTreeMap::new();
    for controller in CONTROLLERS {
        if let Err(why) = hand_on(files, own, controller).and_then(|()| hand_on(files, tree, controller)) {
            refusals.insert(controller, why);
        }
    }
    refusals
}

/// Why which controllers do not reach a tree as it is.
pub(super) fn not_handed_on(tree: &Path) -> BTreeMap<&'static str, String> {
    let own = tree.parent().unwrap_or(tree);
    let has =
        |folder: &Path, name: &str| words(&folder.join("cgroup.controllers")).iter().any(|word| word == name);
    let missing = CONTROLLERS.into_iter().filter(|name| !has(tree, name));
    let why = |name: &'static str| match has(own, name) {
        true => format!("{} hands none on yet, as long as processes are in it", own.display()),
        false => format!("{} has none", own.display()),
    };
    missing.map(|name| (name, why(name))).collect()
}

fn hand_on(files: &dyn Files, from: &Path, controller: &str) -> Result<(), String> {
    let has = |file: &str| words(&from.join(file)).iter().any(|word| word == controller);
    if has("cgroup.subtree_control") {
        return Ok(());
    }
    if !has("cgroup.controllers") {
        return Err(format!("{} has none", from.display()));
    }
    files.write(&from.join("cgroup.subtree_control"), &format!("+{controller}")).map_err(|err| match is_busy(
        &err,
    ) {
        true => format!("processes are in {}, which so can hand on nothing", from.display()),
        false => format!("cannot write {}/cgroup.subtree_control: {err}", from.display()),
    })
}

fn words(file: &Path) -> Vec<String> {
    read_word(file).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
}

/// Not below it.
fn pids_in_itself(own: &Path) -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string(own.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// As systemd notes it: for all to read, or for root alone.
fn is_delegated(own: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(own, name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
    })
}

#[cfg(test)]
mod tests;
