//! Why a program could not be started, in words for who has to repair it.
//!
//! The kernel says `ENOENT` for a missing program and for a missing interpreter alike; what it meant is found by
//! looking at the file afterwards. That look may come late, the file may be another by then: the text then falls
//! back to what the kernel said.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use watchdog_protocol::Incarnation;

use crate::protocol::{ChildStep, FailedStep, Limit};

/// Why a process could not be started. The text names what it is about; [`step`](SpawnFailure::step) is to be
/// shown beside it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnFailure {
    /// The program is not there.
    #[error("there is no file {program:?}")]
    MissingFile {
        /// The program.
        program: PathBuf,
    },
    /// The program is there, what its first bytes say runs it is not.
    #[error("{program:?} needs the interpreter {interpreter:?}, which is not there")]
    MissingInterpreter {
        /// The program.
        program: PathBuf,
        /// From its `#!` line, or the loader its ELF header names.
        interpreter: PathBuf,
    },
    /// The program is a folder or something else that is no file.
    #[error("{program:?} is no regular file")]
    NoFile {
        /// The program.
        program: PathBuf,
    },
    /// A file without execute permission.
    #[error("{program:?} is not executable (mode {mode:03o})")]
    NotExecutable {
        /// The program, or its interpreter.
        program: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Executable, and refused all the same.
    #[error(
        "may not execute {program:?}: the user may not enter a folder of its path or execute the file, \
         or it is on a noexec mount"
    )]
    Forbidden {
        /// The program.
        program: PathBuf,
    },
    /// Neither a binary of this machine nor a script with a `#!` line.
    #[error("{program:?} has a wrong format: no binary of this machine, no script with a `#!` line")]
    WrongFormat {
        /// The program.
        program: PathBuf,
    },
    /// Somebody has the program open for writing.
    #[error("{program:?} is busy: somebody has it open for writing")]
    Busy {
        /// The program.
        program: PathBuf,
    },
    /// More arguments and environment than the kernel takes.
    #[error("{program:?} got more arguments and environment than the kernel takes")]
    TooLong {
        /// The program.
        program: PathBuf,
    },
    /// The working folder can't be entered.
    #[error("cannot enter the folder {folder:?}: {}", reason(*errno))]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The kernel's answer.
        errno: i32,
    },
    /// The user or its groups can't be taken.
    #[error("cannot become uid {uid}, gid {gid}: {}", reason(*errno))]
    User {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// The kernel's answer.
        errno: i32,
    },
    /// A resource limit can't be set.
    #[error("cannot set {} to {}:{}: {}", resource_name(limit.resource), amount(limit.soft), amount(limit.hard), reason(*errno))]
    Rlimit {
        /// The limit.
        limit: Limit,
        /// The kernel's answer.
        errno: i32,
    },
    /// An older process of the service lives.
    #[error("incarnation {living} of the service still lives")]
    AnotherLives {
        /// Which.
        living: Incarnation,
    },
    /// A step had no end in time; the child was killed.
    #[error("no answer in time while starting {program:?}")]
    NoAnswer {
        /// The program.
        program: PathBuf,
        /// The step it was at.
        step: String,
    },
    /// Any other step.
    #[error("cannot start {program:?}: {}", reason(*errno))]
    Step {
        /// The program.
        program: PathBuf,
        /// The step.
        step: String,
        /// The kernel's answer.
        errno: i32,
    },
}

impl SpawnFailure {
    /// The step that failed: `exec`, `chdir`, `rlimit nofile`, `user`, `clone` and so on.
    pub fn step(&self) -> String {
        match self {
            Self::MissingFile { .. }
            | Self::MissingInterpreter { .. }
            | Self::NoFile { .. }
            | Self::NotExecutable { .. }
            | Self::Forbidden { .. }
            | Self::WrongFormat { .. }
            | Self::Busy { .. }
            | Self::TooLong { .. } => "exec".to_owned(),
            Self::Folder { .. } => "chdir".to_owned(),
            Self::User { .. } => "user".to_owned(),
            Self::Rlimit { limit, .. } => format!("rlimit {}", resource_name(limit.resource)),
            Self::AnotherLives { .. } => "incarnation".to_owned(),
            Self::NoAnswer { step, .. } | Self::Step { step, .. } => step.clone(),
        }
    }
}

/// What a [`SpawnFailed`](crate::protocol::FromKeeper::SpawnFailed) means for this program. Reads the first bytes
/// of the program and, for a script, of its interpreters.
pub fn explain(program: &Path, step: &FailedStep, errno: i32) -> SpawnFailure {
    let path = program.to_path_buf();
    if errno == libc::ETIMEDOUT {
        return SpawnFailure::NoAnswer { program: path, step: step_name(step) };
    }
    match step {
        FailedStep::Exec => explain_exec(program, errno),
        FailedStep::AnotherLives(living) => SpawnFailure::AnotherLives { living: *living },
        FailedStep::Child(ChildStep::ChangeDir(folder)) => {
            SpawnFailure::Folder { folder: path_of(folder), errno }
        }
        FailedStep::Child(ChildStep::Ids { uid, gid, .. }) => {
            SpawnFailure::User { uid: *uid, gid: *gid, errno }
        }
        FailedStep::Child(ChildStep::Rlimit(limit)) => SpawnFailure::Rlimit { limit: *limit, errno },
        other => SpawnFailure::Step { program: path, step: step_name(other), errno },
    }
}

fn step_name(step: &FailedStep) -> String {
    match step {
        FailedStep::AnotherLives(_) => "incarnation",
        FailedStep::Request => "request",
        FailedStep::Stage => "descriptors",
        FailedStep::Clone => "clone",
        FailedStep::CloneIntoCgroup => "clone into cgroup",
        FailedStep::Unshare => "descriptor table",
        FailedStep::PidRecord => "pid record",
        FailedStep::Child(ChildStep::SetSid) => "setsid",
        FailedStep::Child(ChildStep::ChangeDir(folder)) => return format!("chdir {:?}", path_of(folder)),
        FailedStep::Child(ChildStep::Umask(_)) => "umask",
        FailedStep::Child(ChildStep::Rlimit(limit)) => {
            return format!("rlimit {}", resource_name(limit.resource));
        }
        FailedStep::Child(ChildStep::Ids { uid, .. }) => return format!("user {uid}"),
        FailedStep::Child(ChildStep::NoNewPrivs) => "no_new_privs",
        FailedStep::Child(ChildStep::Nice(_)) => "nice",
        FailedStep::Attach(number) => return format!("descriptor {number}"),
        FailedStep::Exec => "exec",
        FailedStep::Join => "join cgroup",
    }
    .to_owned()
}

fn explain_exec(program: &Path, errno: i32) -> SpawnFailure {
    let path = program.to_path_buf();
    match errno {
        libc::ENOENT => match missing_interpreter(program) {
            Some(interpreter) => SpawnFailure::MissingInterpreter { program: path, interpreter },
            None if program.exists() => SpawnFailure::Step { program: path, step: "exec".to_owned(), errno },
            None => SpawnFailure::MissingFile { program: path },
        },
        libc::EACCES | libc::EISDIR => explain_denied(program),
        libc::ENOEXEC | libc::ELIBBAD => SpawnFailure::WrongFormat { program: path },
        libc::ETXTBSY => SpawnFailure::Busy { program: path },
        libc::E2BIG => SpawnFailure::TooLong { program: path },
        _ => SpawnFailure::Step { program: path, step: "exec".to_owned(), errno },
    }
}

/// The kernel says the same of the program and of its interpreter.
fn explain_denied(program: &Path) -> SpawnFailure {
    for file in std::iter::once(program.to_path_buf()).chain(interpreters(program)) {
        let Ok(found) = file.metadata() else { continue };
        if !found.is_file() {
            return SpawnFailure::NoFile { program: file };
        }
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o111 == 0 {
            return SpawnFailure::NotExecutable { program: file, mode };
        }
    }
    SpawnFailure::Forbidden { program: program.to_path_buf() }
}

fn missing_interpreter(program: &Path) -> Option<PathBuf> {
    interpreters(program).into_iter().find(|interpreter| !interpreter.exists())
}

/// What runs the program, what runs that, and so on: a script's interpreter may be a script. The kernel follows
/// four.
fn interpreters(program: &Path) -> Vec<PathBuf> {
    let mut chain = Vec::new();
    let mut file = program.to_path_buf();
    while chain.len() < 5 {
        let Ok(Some(interpreter)) = interpreter(&file) else { break };
        chain.push(interpreter.clone());
        file = interpreter;
    }
    chain
}

/// The `#!` line's program or the ELF header's loader.
fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    // Only a regular file is opened: a fifo would wait for its writer.
    if !program.metadata()?.is_file() {
        return Ok(None);
    }
    let file = File::open(program)?;
    let mut head = Vec::new();
    // The kernel looks at 256 bytes for either form.
    (&file).take(256).read_to_end(&mut head)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty());
        return Ok(word.map(path_of));
    }
    elf_interpreter(&file, &head)
}

/// `PT_INTERP` of a 64-bit ELF file in this machine's byte order.
fn elf_interpreter(file: &File, head: &[u8]) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: u32 = 3;
    let native = if cfg!(target_endian = "little") { 1 } else { 2 };
    if head.len() < 64 || head[..4] != *b"\x7fELF" || head[4] != 2 || head[5] != native {
        return Ok(None);
    }
    let table = number(&head[32..40]);
    let entry_length = number(&head[54..56]);
    let entries = number(&head[56..58]);
    for index in 0..entries {
        let mut entry = [0; 56];
        let Some(at) = table.checked_add(index * entry_length) else { return Ok(None) };
        file.read_exact_at(&mut entry, at)?;
        if number(&entry[..4]) as u32 == PT_INTERP {
            let length = number(&entry[32..40]).min(libc::PATH_MAX as u64);
            let mut path = vec![0; length as usize];
            file.read_exact_at(&mut path, number(&entry[8..16]))?;
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
            return Ok(Some(path_of(path)));
        }
    }
    Ok(None)
}

/// A native number of 2, 4 or 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    if cfg!(target_endian = "little") {
        wide[..bytes.len()].copy_from_slice(bytes);
    } else {
        wide[8 - bytes.len()..].copy_from_slice(bytes);
    }
    u64::from_ne_bytes(wide)
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn reason(errno: i32) -> &'static str {
    Errno::from_raw(errno).desc()
}

fn amount(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

/// As the configuration calls it.
fn resource_name(resource: u32) -> String {
    let name = match resource {
        libc::RLIMIT_CPU => "cpu",
        libc::RLIMIT_FSIZE => "fsize",
        libc::RLIMIT_DATA => "data",
        libc::RLIMIT_STACK => "stack",
        libc::RLIMIT_CORE => "core",
        libc::RLIMIT_RSS => "rss",
        libc::RLIMIT_NPROC => "nproc",
        libc::RLIMIT_NOFILE => "nofile",
        libc::RLIMIT_MEMLOCK => "memlock",
        libc::RLIMIT_AS => "as",
        libc::RLIMIT_LOCKS => "locks",
        libc::RLIMIT_SIGPENDING => "sigpending",
        libc::RLIMIT_MSGQUEUE => "msgqueue",
        libc::RLIMIT_NICE => "nice",
        libc::RLIMIT_RTPRIO => "rtprio",
        libc::RLIMIT_RTTIME => "rttime",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_interpreter_of_a_script_is_the_first_word_behind_the_mark() {
        let folder = tempfile::tempdir().unwrap();
        let script = file(folder.path(), "s", b"#! /no/such/shell -e\nexit\n", 0o755);
        assert_eq!(missing_interpreter(&script), Some(PathBuf::from("/no/such/shell")));
    }

    #[test]
    fn the_interpreter_of_a_binary_is_its_loader() {
        let own = std::env::current_exe().unwrap();
        let loader = interpreter(&own).unwrap().expect("tests are linked dynamically");
        assert!(loader.exists(), "{loader:?}");
    }

    #[test]
    fn a_missing_interpreter_is_found_behind_another_script() {
        let folder = tempfile::tempdir().unwrap();
        let inner = file(folder.path(), "inner", b"#!/no/such/shell\n", 0o755);
        let outer = file(folder.path(), "outer", format!("#!{}\n", inner.display()).as_bytes(), 0o755);
        assert_eq!(
            explain(&outer, &FailedStep::Exec, libc::ENOENT).to_string(),
            format!("{outer:?} needs the interpreter \"/no/such/shell\", which is not there"),
        );
    }

    #[test]
    fn a_file_that_names_itself_as_interpreter_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loop");
        let script = file(folder.path(), "loop", format!("#!{}\n", path.display()).as_bytes(), 0o755);
        assert_eq!(missing_interpreter(&script), None);
    }

    #[test]
    fn an_interpreter_without_execute_permission_is_the_one_named() {
        let folder = tempfile::tempdir().unwrap();
        let inner = file(folder.path(), "inner", b"#!/bin/sh\n", 0o640);
        let outer = file(folder.path(), "outer", format!("#!{}\n", inner.display()).as_bytes(), 0o755);
        let failure = explain(&outer, &FailedStep::Exec, libc::EACCES);
        assert_eq!(failure, SpawnFailure::NotExecutable { program: inner, mode: 0o640 });
    }

    #[test]
    fn a_truncated_binary_is_no_reason_to_fail() {
        let folder = tempfile::tempdir().unwrap();
        let cut = file(folder.path(), "cut", &[b"\x7fELF\x02\x01", &[255; 80][..]].concat(), 0o755);
        assert!(matches!(explain(&cut, &FailedStep::Exec, libc::ENOENT), SpawnFailure::Step { .. }));
    }

    #[test]
    fn each_step_is_named_with_what_it_concerns() {
        let program = Path::new("/bin/true");
        let text = |step: FailedStep, errno| {
            let failure = explain(program, &step, errno);
            format!("{}: {failure}", failure.step())
        };
        let limit = Limit { resource: libc::RLIMIT_NOFILE, soft: 5, hard: u64::MAX };
        assert_eq!(
            text(FailedStep::Child(ChildStep::change_dir(Path::new("/no"))), libc::ENOENT),
            "chdir: cannot enter the folder \"/no\": No such file or directory",
        );
        assert_eq!(
            text(FailedStep::Child(ChildStep::Rlimit(limit)), libc::EPERM),
            "rlimit nofile: cannot set nofile to 5:unlimited: Operation not permitted",
        );
        assert_eq!(
            text(FailedStep::Child(ChildStep::Ids { uid: 5, gid: 6, groups: vec![] }), libc::EPERM),
            "user: cannot become uid 5, gid 6: Operation not permitted",
        );
        assert_eq!(
            text(FailedStep::Exec, libc::ETIMEDOUT),
            "exec: no answer in time while starting \"/bin/true\"",
        );
        assert_eq!(
            text(FailedStep::AnotherLives(Incarnation::FIRST), 0),
            "incarnation: incarnation 1 of the service still lives",
        );
        assert_eq!(
            text(FailedStep::CloneIntoCgroup, libc::EBUSY),
            "clone into cgroup: cannot start \"/bin/true\": Device or resource busy",
        );
    }
}
