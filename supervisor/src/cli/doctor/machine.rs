//! What the kernel and its settings give.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};
use nix::sys::utsname::uname;
use nix::unistd::Uid;
use watchdog_protocol::limits::DEFAULT_LANE_BYTES;
use watchdog_seqpacket::Seqpacket;

use super::finding::Finding;
use super::limits;
use crate::cli::figures::size;
use crate::core::chain;
use crate::processes::cgroup::CgroupTree;

/// The oldest kernel that has all that is needed.
const KERNEL: (u32, u32) = (5, 10);

/// Descriptors that are no lane's: the keeper's window and what every service needs.
const RESERVED: u64 = 256;

/// Descriptors the keeper holds for one lane: two ends, two pages.
const A_LANE: u64 = 4;

pub(super) fn examine() -> Vec<Finding> {
    let is_root = Uid::effective().is_root();
    let files = getrlimit(Resource::RLIMIT_NOFILE).map(|(_, hard)| hard);
    vec![
        kernel(&uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()),
        cgroups(),
        limits::examine(),
        pressure(Path::new("/proc/pressure")),
        peer_pidfd(),
        exit_by_pidfd(),
        send_buffer(lane_bytes(), &read("/proc/sys/net/core/wmem_max")),
        open_files(files, is_root),
        in_flight(files, is_root),
        dumpable(&read("/proc/sys/kernel/yama/ptrace_scope"), is_root),
        clock(SystemTime::now(), built()),
    ]
}

fn read(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Finding {
    let what = "kernel";
    let (major, minor) = KERNEL;
    match version(release) {
        Some(found) if found >= KERNEL => Finding::ok(what, format!("Linux {release}")),
        Some(_) => Finding::mend(
            what,
            format!("Linux {release}"),
            "starting a process needs calls that it does not have",
        )
        .hint(format!("use Linux {major}.{minor} or newer")),
        None => Finding::less(what, format!("{release:?}"), "its version can't be told"),
    }
}

fn cgroups() -> Finding {
    let what = "cgroup v2";
    // A state folder of nobody: the place of a living watchdog is left alone.
    let nobody = std::env::temp_dir().join(format!("watchdog-doctor-{}", std::process::id()));
    let tree = match CgroupTree::make(&nobody) {
        Ok(tree) => tree,
        Err(none) => {
            let means =
                "what a service leaves behind is found by session and environment, which it can change";
            return Finding::less(what, chain(&none), means)
                .hint("run the watchdog where it may make cgroups: under systemd, Delegate=yes");
        }
    };
    // The root has no such file: one below it tells.
    let kills = tree.service(&"doctor".parse().expect("a legal name")).is_ok_and(|probe| {
        let found = probe.path().join("cgroup.kill").exists();
        let _ = probe.remove();
        found
    });
    let own = tree.path().parent().map(|own| own.display().to_string()).unwrap_or_default();
    let _ = tree.remove();
    let controllers = fs::read_to_string(Path::new(&own).join("cgroup.controllers")).unwrap_or_default();
    let controllers = match controllers.trim() {
        "" => "no controllers".to_owned(),
        names => format!("controllers {names}"),
    };
    match kills {
        true => Finding::ok(what, format!("may make cgroups in {own}; {controllers}")),
        false => Finding::less(
            what,
            format!("may make cgroups in {own}; {controllers}"),
            "it has no cgroup.kill (Linux 5.14), so a fork bomb is killed process by process",
        ),
    }
}

fn pressure(folder: &Path) -> Finding {
    let what = "pressure";
    match fs::read_to_string(folder.join("cpu")) {
        Ok(_) => Finding::ok(what, "the kernel tells how starved this machine is"),
        Err(err) => Finding::less(
            what,
            format!("{}: {err}", folder.display()),
            "a service that hangs can't be told from one that gets no processor time",
        )
        .hint("boot with psi=1"),
    }
}

fn peer_pidfd() -> Finding {
    let what = "SO_PEERPIDFD";
    let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    match pair.and_then(|(ours, _theirs)| getsockopt(&ours, sockopt::PeerPidfd)) {
        Ok(_) => Finding::ok(what, "a caller can be held by its very process"),
        Err(errno) => Finding::less(
            what,
            errno.desc(),
            "a caller at the control socket is known by pid and start time (the kernel has it since 6.5)",
        ),
    }
}

/// Linux 6.15 keeps the exit code of a process in its pidfd.
fn exit_by_pidfd() -> Finding {
    let what = "exit by pidfd";
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    match version(&release) {
        Some(found) if found >= (6, 15) => Finding::ok(what, "a pidfd tells how its process ended"),
        _ => Finding::less(
            what,
            format!("not in Linux {release}"),
            "only the keeper can tell how a process ended",
        ),
    }
}

/// What the kernel makes of the bytes a lane should hold.
fn lane_bytes() -> Result<usize, String> {
    let (ours, _theirs) = Seqpacket::pair().map_err(|err| err.to_string())?;
    ours.set_send_bound(DEFAULT_LANE_BYTES).map_err(|err| err.to_string())
}

fn send_buffer(made: Result<usize, String>, wmem_max: &Option<u64>) -> Finding {
    let what = "send buffer";
    let wanted = size(DEFAULT_LANE_BYTES as u64);
    match made {
        Ok(bytes) if bytes >= DEFAULT_LANE_BYTES => Finding::ok(what, format!("a lane holds {wanted}")),
        Ok(bytes) => {
            let limit = wmem_max.map_or(String::new(), |limit| format!(" (net.core.wmem_max is {limit})"));
            Finding::less(
                what,
                format!("a lane holds {} of {wanted}{limit}", size(bytes as u64)),
                "senders wait earlier for a slow receiver",
            )
            .hint(format!("sysctl net.core.wmem_max={}", DEFAULT_LANE_BYTES / 2))
        }
        Err(err) => Finding::mend(what, err, "no lane can be made"),
    }
}

fn open_files(hard: Result<u64, Errno>, is_root: bool) -> Finding {
    let what = "open files";
    match hard {
        Ok(hard) if hard < RESERVED => Finding::mend(what, format!("at most {hard}"), "no keeper can start")
            .hint(format!("raise the hard limit (ulimit -Hn) above {RESERVED}, better to 65536")),
        Ok(hard) => {
            let lanes = (hard - RESERVED) / A_LANE;
            let found = format!("at most {hard}: room for about {lanes} lanes");
            if lanes >= 1000 {
                Finding::ok(what, found)
            } else {
                let finding = Finding::less(what, found, "an introduction beyond that is refused");
                finding.hint(if is_root {
                    "ulimit -Hn 65536"
                } else {
                    "raise the hard limit, LimitNOFILE= of systemd"
                })
            }
        }
        Err(errno) => Finding::less(what, errno.desc(), "the limit can't be told"),
    }
}

fn in_flight(hard: Result<u64, Errno>, is_root: bool) -> Finding {
    let what = "descriptors in flight";
    match (is_root, hard) {
        (true, _) => Finding::ok(what, "not limited for root"),
        (false, Ok(hard)) => Finding::less(
            what,
            format!("at most {hard} for all processes of this user together"),
            "a service that leaves many large messages unread makes others wait to send theirs",
        )
        .hint("give services a lower limit of open files than the watchdog: rlimits = { nofile = 1024 }"),
        (false, Err(errno)) => Finding::less(what, errno.desc(), "the limit can't be told"),
    }
}

fn dumpable(ptrace_scope: &Option<u64>, is_root: bool) -> Finding {
    let what = "ptrace";
    match (ptrace_scope, is_root) {
        (Some(scope @ 1..), _) => Finding::ok(what, format!("restricted (yama, {scope})")),
        (_, true) => Finding::less(
            what,
            "not restricted by yama",
            "a service that runs as root can take descriptors out of any process",
        )
        .hint("sysctl kernel.yama.ptrace_scope=1, and give services a user of their own"),
        (_, false) => Finding::less(
            what,
            "not restricted by yama",
            "services of one user can take descriptors out of each other; keeper and core are protected",
        )
        .hint("sysctl kernel.yama.ptrace_scope=1"),
    }
}

/// When this program was made, as its file tells.
fn built() -> Option<SystemTime> {
    fs::metadata("/proc/self/exe").and_then(|file| file.modified()).ok()
}

fn clock(now: SystemTime, built: Option<SystemTime>) -> Finding {
    let what = "clock";
    // Files that were made on another machine may be a little ahead.
    let slack = Duration::from_secs(24 * 3600);
    match built {
        Some(built) if now + slack < built => Finding::mend(
            what,
            "the wall clock is before the day this program was made",
            "times in logs and events are wrong; timers do not depend on it",
        )
        .hint("set the clock"),
        _ => Finding::ok(what, "set; timers do not depend on it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn a_kernel_is_judged_by_its_first_two_numbers() {
        for (release, level) in [
            ("6.18.1-cloud-amd64", Level::Ok),
            ("5.10.0", Level::Ok),
            ("5.9.16", Level::Mend),
            ("4.19", Level::Mend),
            ("next", Level::Less),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn what_is_too_little_says_what_to_do() {
        assert_eq!(send_buffer(Ok(DEFAULT_LANE_BYTES), &None).level, Level::Ok);
        let less = send_buffer(Ok(212_992 * 2), &Some(212_992));
        assert!(less.found.contains("net.core.wmem_max is 212992") && less.hint.is_some(), "{less:?}");
        for (hard, level) in [(64, Level::Mend), (1024, Level::Less), (20_000, Level::Ok)] {
            assert_eq!(open_files(Ok(hard), false).level, level, "{hard}");
        }
        assert_eq!(in_flight(Ok(1024), true).level, Level::Ok);
        assert_eq!(in_flight(Ok(1024), false).level, Level::Less);
        assert_eq!(dumpable(&Some(1), false).level, Level::Ok);
        assert_eq!(dumpable(&None, true).level, Level::Less);
    }

    #[test]
    fn a_clock_before_the_program_is_wrong_and_a_day_ahead_is_not() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(clock(now, Some(now)).level, Level::Ok);
        assert_eq!(clock(now, Some(now + Duration::from_secs(3600))).level, Level::Ok);
        assert_eq!(clock(SystemTime::UNIX_EPOCH, Some(now)).level, Level::Mend);
        assert_eq!(clock(now, None).level, Level::Ok);
    }

    #[test]
    fn a_machine_without_pressure_files_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(pressure(folder.path()).level, Level::Less);
    }
}
