//! How a command ends.

use std::fmt::Write;
use std::process::ExitCode;

use watchdog_protocol::control::FailureKind;

/// The exit codes of the command line; they mean the same for every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Ok = 0,
    /// It was tried and did not work.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The service is not running.
    NotRunning = 3,
    /// A message or file does not fit what it is for.
    Data = 65,
    /// No watchdog answers.
    NotReachable = 69,
    /// It was begun, and whether it was done is not known.
    Unknown = 70,
    /// A watchdog runs there already.
    AlreadyRunning = 73,
    /// It did not happen in time, and may still; or another change came first.
    TryAgain = 75,
    /// The caller may not.
    NotPermitted = 77,
    /// The configuration or a settings value is wrong.
    Configuration = 78,
}

impl Exit {
    const ALL: [Self; 11] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::NotRunning,
        Self::Data,
        Self::NotReachable,
        Self::Unknown,
        Self::AlreadyRunning,
        Self::TryAgain,
        Self::NotPermitted,
        Self::Configuration,
    ];

    /// The code.
    pub fn code(self) -> u8 {
        self as u8
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "it was tried and did not work",
            Self::Usage => "the command line is wrong, or names what does not exist",
            Self::NotRunning => "the service is not running, and must be",
            Self::Data => "a message does not fit what the service takes",
            Self::Unknown => "it was begun, and whether it was done is not known",
            Self::NotReachable => "no watchdog answers",
            Self::AlreadyRunning => "a watchdog runs there already",
            Self::TryAgain => "not done in time (it may still be), or another change came first: try again",
            Self::NotPermitted => "the caller may not",
            Self::Configuration => "the configuration or a settings value is wrong",
        }
    }

    /// All of them, as `--help` lists them.
    pub(super) fn help() -> String {
        let mut text = "Exit codes:\n".to_owned();
        for exit in Self::ALL {
            writeln!(text, "  {:<4}{}", exit.code(), exit.meaning()).expect("a String takes all");
        }
        text
    }
}

impl From<FailureKind> for Exit {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Failed => Self::Failed,
            FailureKind::Usage => Self::Usage,
            FailureKind::NotRunning => Self::NotRunning,
            FailureKind::TryAgain => Self::TryAgain,
            FailureKind::NotPermitted => Self::NotPermitted,
            FailureKind::Configuration => Self::Configuration,
            FailureKind::Unknown => Self::Unknown,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
