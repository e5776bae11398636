//! What is executed, and in which surroundings.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where a program named without a slash is looked for when neither the service's environment nor ours says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a child gets of our own environment, if we have it. All else it sees is configured, or is one of the
/// `WATCHDOG_` variables that the core adds.
const INHERITED: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Of [`INHERITED`], what speaks of our user and is wrong for another one.
const OF_THE_USER: &[&str] = &["HOME", "USER", "LOGNAME", "TMPDIR"];

/// A command and the surroundings it runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Absolute, or a name without a slash to look up in `PATH` at each start.
    pub program: PathBuf,
    /// Its arguments, without the program itself.
    pub args: Vec<String>,
    /// The folder it starts in, absolute. Default: the folder of the configuration.
    pub dir: PathBuf,
    /// Variables added to the clean environment, in the order of their names: most services have one or two, for which
    /// a map has a node of eleven.
    pub env: Box<[(String, String)]>,
    /// The account it runs as, a name or a number; `None` is our own.
    pub user: Option<String>,
    /// Default 0o077.
    pub umask: u32,
    /// Set over the inherited ones.
    pub rlimits: BTreeMap<Resource, Rlimit>,
}

/// A program that can't be found: named without a slash, and in no folder of `PATH`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no program `{name}` in PATH ({path})")]
pub struct NoExecutable {
    /// As configured.
    pub name: String,
    /// The folders looked through.
    pub path: String,
}

impl Launch {
    /// The clean environment: what is inherited of `ours`, then what is configured.
    pub fn environment(
        &self,
        ours: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> BTreeMap<OsString, OsString> {
        let mut environment: BTreeMap<OsString, OsString> = ours
            .into_iter()
            .filter(|(key, _)| INHERITED.iter().any(|known| key == known))
            .filter(|(key, _)| self.user.is_none() || !OF_THE_USER.iter().any(|known| key == known))
            .collect();
        environment.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
        environment.extend(self.env.iter().map(|(key, value)| (key.into(), value.into())));
        environment
    }

    /// The file that would be executed now.
    ///
    /// # Errors
    /// As [`executable`](Self::executable).
    pub fn executable_now(&self) -> Result<PathBuf, NoExecutable> {
        // Most name a file, and are asked often: their environment is not made for it.
        if is_a_path(&self.program) {
            return Ok(self.program.clone());
        }
        self.executable(&self.environment(std::env::vars_os()))
    }

    /// The file to execute: a name without a slash is looked up in the `PATH` of `environment`. That the file is
    /// there and can be executed is only asked for in that case; otherwise the spawn tells, and tells why.
    ///
    /// # Errors
    /// [`NoExecutable`] when no folder of `PATH` has an executable file of that name.
    pub fn executable(&self, environment: &BTreeMap<OsString, OsString>) -> Result<PathBuf, NoExecutable> {
        look_up(&self.program, &self.dir, environment.get(OsStr::new("PATH")).map(OsString::as_os_str))
    }
}

/// It is not looked up in `PATH`.
fn is_a_path(program: &Path) -> bool {
    program.as_os_str().as_encoded_bytes().contains(&b'/')
}

/// [`Launch::executable`] for any program, a probe's among them.
pub(super) fn look_up(program: &Path, dir: &Path, path: Option<&OsStr>) -> Result<PathBuf, NoExecutable> {
    if is_a_path(program) {
        return Ok(program.to_owned());
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    std::env::split_paths(path)
        .map(|folder| dir.join(folder).join(program))
        .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
        .ok_or_else(|| NoExecutable {
            name: program.display().to_string(),
            path: path.to_string_lossy().into_owned(),
        })
}

/// The two values of a resource limit; `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// What is in force.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

/// What `rlimits` can limit; named in the file as the kernel does, in lower case and without `RLIMIT_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the kernel's: getrlimit(2)")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Resource {
    /// All there are, by name.
    pub const ALL: &[(&str, Self)] = &[
        ("as", Self::As),
        ("core", Self::Core),
        ("cpu", Self::Cpu),
        ("data", Self::Data),
        ("fsize", Self::Fsize),
        ("memlock", Self::Memlock),
        ("msgqueue", Self::Msgqueue),
        ("nice", Self::Nice),
        ("nofile", Self::Nofile),
        ("nproc", Self::Nproc),
        ("rtprio", Self::Rtprio),
        ("rttime", Self::Rttime),
        ("sigpending", Self::Sigpending),
        ("stack", Self::Stack),
    ];

    /// The kernel's number, `RLIMIT_…`.
    pub fn number(self) -> u32 {
        use nix::sys::resource::Resource as Kernel;
        let kernel = match self {
            Self::As => Kernel::RLIMIT_AS,
            Self::Core => Kernel::RLIMIT_CORE,
            Self::Cpu => Kernel::RLIMIT_CPU,
            Self::Data => Kernel::RLIMIT_DATA,
            Self::Fsize => Kernel::RLIMIT_FSIZE,
            Self::Memlock => Kernel::RLIMIT_MEMLOCK,
            Self::Msgqueue => Kernel::RLIMIT_MSGQUEUE,
            Self::Nice => Kernel::RLIMIT_NICE,
            Self::Nofile => Kernel::RLIMIT_NOFILE,
            Self::Nproc => Kernel::RLIMIT_NPROC,
            Self::Rtprio => Kernel::RLIMIT_RTPRIO,
            Self::Rttime => Kernel::RLIMIT_RTTIME,
            Self::Sigpending => Kernel::RLIMIT_SIGPENDING,
            Self::Stack => Kernel::RLIMIT_STACK,
        };
        kernel as u32
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(_, resource)| resource == self);
        out.write_str(named.map_or("", |(name, _)| *name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            program: "sh".into(),
            args: Vec::new(),
            dir: "/".into(),
            env: [("MODE".to_owned(), "fast".to_owned())].into(),
            user: None,
            umask: 0o077,
            rlimits: BTreeMap::new(),
        }
    }

    fn ours(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(key, value)| (key.into(), value.into())).collect()
    }

    #[test]
    fn a_child_gets_what_is_configured_and_little_else() {
        let ours = ours(&[("SECRET", "x"), ("LANG", "C"), ("HOME", "/root"), ("WATCHDOG_SESSION", "7")]);
        let environment = launch().environment(ours.clone());
        let keys: Vec<_> = environment.keys().map(|key| key.to_str().unwrap()).collect();
        assert_eq!(keys, ["HOME", "LANG", "MODE", "PATH"]);
        let nobody = Launch { user: Some("nobody".into()), ..launch() };
        assert!(!nobody.environment(ours).contains_key(OsStr::new("HOME")));
    }

    #[test]
    fn a_name_is_looked_up_in_the_path_of_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("tool");
        std::fs::write(&tool, "").unwrap();
        let environment = BTreeMap::from([("PATH".into(), folder.path().into())]);
        let launch = Launch { program: "tool".into(), ..launch() };
        assert_eq!(launch.executable(&environment).unwrap_err().name, "tool");
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(launch.executable(&environment), Ok(tool));
    }

    #[test]
    fn every_resource_has_one_name_and_one_number() {
        let mut numbers: Vec<u32> = Resource::ALL.iter().map(|(_, resource)| resource.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Resource::ALL.len());
        assert_eq!(Resource::Nofile.to_string(), "nofile");
    }
}
