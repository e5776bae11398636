//! From a service's configuration to the keeper's spawn request: resolved anew at every start.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_bytes::ByteBuf;
use watchdog_keeper::protocol::{ChildStep, Limit, SpawnRequest};
use watchdog_protocol::Incarnation;
use watchdog_protocol::record::LOGGING;
use watchdog_protocol::session::{HAS_LOGGING, LOGS, SERVICE, SESSION};

use watchdog_lifecycle::{Kind, Liveness};

use crate::account::Account;
use crate::config::ServiceSpec;
use crate::processes::leftovers::STATE;

/// The session's descriptor in every SDK service: the first one behind the standard three.
pub(crate) const SESSION_NUMBER: u32 = 3;

/// Tells an instance its number.
const INSTANCE: &str = "WATCHDOG_INSTANCE";

/// Which step of a start failed before the keeper was asked, in the keeper's words for steps.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct NoLaunch {
    pub(crate) step: &'static str,
    pub(crate) reason: String,
}

/// What the logging service and all others are told of each other.
pub(crate) struct Logging<'c> {
    /// One is registered.
    pub(crate) is_there: bool,
    /// The folder of the logs.
    pub(crate) logs: &'c Path,
}

/// The request without its descriptors. `limited` are resource limits in place of those that are [`given`].
pub(crate) fn request(
    spec: &ServiceSpec,
    incarnation: Incarnation,
    given: Vec<Limit>,
    limited: &[Limit],
    notify: &str,
    logging: &Logging<'_>,
) -> Result<SpawnRequest, NoLaunch> {
    let launch = &spec.launch;
    let mut environment = launch.environment(std::env::vars_os());
    let program = launch
        .executable(&environment)
        .map_err(|missing| NoLaunch { step: "exec", reason: missing.to_string() })?;
    environment.insert(SERVICE.into(), spec.name.as_str().into());
    if let Some(number) = spec.name.instance() {
        environment.insert(INSTANCE.into(), number.to_string().into());
    }
    // Ours has it from `watchdog run`: by it a process is found again that left its session and has no cgroup.
    if let Some(state) = std::env::var_os(STATE) {
        environment.insert(STATE.into(), state);
    }
    if spec.kind() == Kind::Service {
        environment.insert(SESSION.into(), SESSION_NUMBER.to_string().into());
        if spec.name.as_str() == LOGGING {
            environment.insert(LOGS.into(), logging.logs.into());
        } else if logging.is_there {
            environment.insert(HAS_LOGGING.into(), "1".into());
        }
    }
    if spec.is_notifying() {
        environment.insert("NOTIFY_SOCKET".into(), format!("@{notify}").into());
        if let Liveness::Heartbeat { interval } = spec.policy.liveness {
            // A program that follows the manual gives a sign of life twice in this time.
            environment.insert("WATCHDOG_USEC".into(), (2 * interval.as_micros()).to_string().into());
        }
    }
    let mut request = SpawnRequest::new(spec.name.clone(), incarnation, &program);
    request.argv = std::iter::once(ByteBuf::from(launch.program.as_os_str().as_bytes()))
        .chain(launch.args.iter().map(|arg| ByteBuf::from(arg.as_bytes())))
        .collect();
    for (key, value) in &environment {
        request = request.env(key, value);
    }
    request.steps = steps(spec, given, limited)?;
    Ok(request)
}

/// The resource limits it starts with, unless it is limited by an operator. The keeper raised its own; a service starts
/// from what the operator's shell had. No core file unless asked for: it may hold secrets and fills the disk of a
/// service that crashes in a loop.
pub(crate) fn given(spec: &ServiceSpec, original_limits: &[Limit]) -> Vec<Limit> {
    let mut limits = original_limits.to_vec();
    set(&mut limits, Limit { resource: crate::config::Resource::Core.number(), soft: 0, hard: 0 });
    for (resource, limit) in &spec.launch.rlimits {
        set(&mut limits, Limit { resource: resource.number(), soft: limit.soft, hard: limit.hard });
    }
    limits
}

fn set(limits: &mut Vec<Limit>, limit: Limit) {
    limits.retain(|other| other.resource != limit.resource);
    limits.push(limit);
}

fn steps(spec: &ServiceSpec, mut limits: Vec<Limit>, limited: &[Limit]) -> Result<Vec<ChildStep>, NoLaunch> {
    let launch = &spec.launch;
    let mut steps = vec![ChildStep::SetSid, ChildStep::Umask(launch.umask)];
    limited.iter().for_each(|limit| set(&mut limits, *limit));
    steps.extend(limits.into_iter().map(ChildStep::Rlimit));
    if let Some(user) = &launch.user {
        steps.push(ids(user)?);
    }
    steps.push(ChildStep::NoNewPrivs);
    // Last, as the service's user: a folder it can't enter is its error, not a hole.
    steps.push(ChildStep::change_dir(Path::new(&launch.dir)));
    Ok(steps)
}

fn ids(user: &str) -> Result<ChildStep, NoLaunch> {
    let wrong = |reason: String| NoLaunch { step: "user", reason };
    let account = Account::find(user).map_err(|none| wrong(none.to_string()))?;
    let groups =
        account.groups().map_err(|err| wrong(format!("cannot look up the groups of `{user}`: {err}")))?;
    Ok(ChildStep::Ids { uid: account.uid, gid: account.gid, groups })
}
