//! The operator: runs the command line in a folder and looks at what it says.

use std::fmt;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;
use watchdog_protocol::status::Status;

use crate::until::until;
use crate::{Seen, binary};

/// Somebody at a shell whose folder is the watchdog's.
#[derive(Debug, Clone)]
pub struct Operator {
    folder: PathBuf,
}

/// What a command said, and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Operator {
    /// At work in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// `watchdog` with these arguments, not yet run.
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(binary("watchdog"));
        command.current_dir(&self.folder).stdin(Stdio::null()).env("TEST_FOLDER", &self.folder);
        command.args(args.iter().map(AsRef::as_ref));
        command
    }

    /// Runs `watchdog` with these arguments to its end.
    ///
    /// # Panics
    /// When it does not end within the harness's deadline.
    pub fn run<S: AsRef<str>>(&self, args: &[S]) -> Said {
        self.run_from(args, Stdio::null())
    }

    /// The same, with a text on standard input.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_with_input<S: AsRef<str>>(&self, args: &[S], input: &str) -> Said {
        let mut file = tempfile::tempfile().expect("a file without a name");
        file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("the input is written");
        self.run_from(args, file.into())
    }

    fn run_from<S: AsRef<str>>(&self, args: &[S], input: Stdio) -> Said {
        let words: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let command = format!("watchdog {}", words.join(" "));
        // Files, not pipes: a process that inherits one and lives on can't hold this reader.
        let out = tempfile::NamedTempFile::new_in(&self.folder).expect("a file in the test's folder");
        let err = tempfile::NamedTempFile::new_in(&self.folder).expect("a file in the test's folder");
        let handle = |file: &File| file.try_clone().expect("a descriptor");
        let mut child = self
            .command(args)
            .stdin(input)
            .stdout(handle(out.as_file()))
            .stderr(handle(err.as_file()))
            .spawn()
            .expect("the watchdog's program runs");
        let read = |file: &tempfile::NamedTempFile| {
            String::from_utf8_lossy(&std::fs::read(file.path()).expect("what was printed")).into_owned()
        };
        let explain = || format!("stdout: {}\nstderr: {}", read(&out), read(&err));
        let status = until(&format!("the end of `{command}`"), explain, || {
            child.try_wait().expect("a child of ours can be waited for")
        });
        Said { command, code: status.code().unwrap_or(-1), stdout: read(&out), stderr: read(&err) }
    }

    /// What `status --json` shows, or what went wrong.
    ///
    /// # Errors
    /// What the command said, when it did not end well.
    pub fn try_status(&self) -> Result<Seen, Said> {
        let said = self.run(&["status", "--json"]);
        if said.code == 0 { Ok(Seen(said.json::<Status>())) } else { Err(said) }
    }
}

impl Said {
    /// Expects that it ended well.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.with_code(0)
    }

    /// Expects that it ended with this code.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(err) => panic!("not the JSON it should be: {err}\n{self}"),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` ended with {}\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}
