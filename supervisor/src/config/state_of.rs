//! A service's state as JSON: its program is run once with `WATCHDOG_SHOW_STATE`, is given the stored bytes, and
//! prints what it makes of them. Nobody else can: the bytes are of a type that the program alone knows.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::de::IgnoredAny;
use watchdog_protocol::ServiceName;
use watchdog_protocol::limits::MAX_STATE_TEXT;
use watchdog_protocol::manifest::{SHOW_STATE, UNREADABLE_STATE};
use watchdog_seqpacket::payload;

use super::manifest_of::{DescribeError, Heard, Question, ask, in_words, indented, last_lines};
use super::spec::ServiceSpec;

/// A program that has not shown the state by then is killed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The exit code of a program of an older SDK: it takes the question for a start by hand.
const STARTED_BY_HAND: i32 = 78;

/// Why a state can't be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateOfError {
    #[error("the state can't be handed to its program: {0}")]
    HandOver(io::Error),
    /// It can't be run.
    #[error(transparent)]
    Run(DescribeError),
    /// Newer than it knows, without a way from an older version, or damaged: it says which.
    #[error("{} can't read the stored state, version {version}{}", program.display(), indented(stderr))]
    Unreadable { program: PathBuf, version: u32, stderr: Vec<String> },
    #[error("{} ended with {end} when asked to show its state{}", program.display(), indented(stderr))]
    Ended { program: PathBuf, code: Option<i32>, end: String, stderr: Vec<String> },
    #[error("{} was asked to show its state and took longer than {after:?}{}", program.display(), indented(stderr))]
    Late { program: PathBuf, after: Duration, stderr: Vec<String> },
    #[error("{} was asked to show its state, which is more than {MAX_STATE_TEXT} bytes of JSON", program.display())]
    Long { program: PathBuf },
    #[error("{} was asked to show its state, and printed no JSON: {error}{}", program.display(), indented(stderr))]
    NoJson { program: PathBuf, error: serde_json::Error, stderr: Vec<String> },
}

impl StateOfError {
    pub(crate) fn hint(&self, service: &ServiceName) -> String {
        match self {
            Self::Unreadable { .. } => format!(
                "the state is left as it is; watchdog state export {service} FILE keeps its bytes for another build"
            ),
            Self::Ended { code: Some(STARTED_BY_HAND), .. } | Self::NoJson { .. } => {
                "was it built with an older SDK, or does it print before `watchdog_service::run`? Build it anew"
                    .to_owned()
            }
            Self::HandOver(_)
            | Self::Run(_)
            | Self::Ended { .. }
            | Self::Late { .. }
            | Self::Long { .. } => {
                format!("without its program: watchdog state show {service}, without --json")
            }
        }
    }
}

/// Runs the program of `spec` over a stored state. Blocks for up to `timeout`.
///
/// The bytes go as a sealed memfd on standard input: there is no pipe that a program could leave full, and nothing
/// of a state is ever an argument or a variable, which others on the machine may read.
///
/// # Errors
/// [`StateOfError`] says at which step it went wrong.
pub(crate) fn state_of(
    spec: &ServiceSpec,
    version: u32,
    bytes: &[u8],
    timeout: Duration,
) -> Result<String, StateOfError> {
    let environment = spec.launch.environment(std::env::vars_os());
    let program = spec.launch.executable(&environment).map_err(|error| StateOfError::Run(error.into()))?;
    let mut stored = File::from(payload::seal(bytes).map_err(StateOfError::HandOver)?);
    stored.rewind().map_err(StateOfError::HandOver)?;
    let question = Question {
        word: SHOW_STATE,
        value: &version.to_string(),
        stdin: Stdio::from(stored),
        most: MAX_STATE_TEXT,
        within: timeout,
    };
    let heard = ask(spec, &program, &environment, question).map_err(StateOfError::Run)?;
    judge(program, version, &heard, timeout)
}

fn judge(program: PathBuf, version: u32, heard: &Heard, after: Duration) -> Result<String, StateOfError> {
    let stderr = last_lines(&heard.stderr);
    if heard.stdout.len() > MAX_STATE_TEXT {
        return Err(StateOfError::Long { program });
    }
    match heard.end {
        None => Err(StateOfError::Late { program, after, stderr }),
        Some(end) if end.code() == Some(i32::from(UNREADABLE_STATE)) => {
            Err(StateOfError::Unreadable { program, version, stderr })
        }
        Some(end) if !end.success() => {
            Err(StateOfError::Ended { program, code: end.code(), end: in_words(end), stderr })
        }
        Some(_) => {
            // Looked at for its shape alone: numbers stay as the program wrote them.
            let text = String::from_utf8_lossy(&heard.stdout);
            match serde_json::from_str::<IgnoredAny>(&text) {
                Ok(IgnoredAny) => Ok(text.trim().to_owned()),
                Err(error) => Err(StateOfError::NoJson { program, error, stderr }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::Folder;

    /// What this script makes of the state `stored`, version 3; without the folder's name.
    fn shown(script: &str) -> Result<String, String> {
        let folder = Folder::new();
        folder.script("a.sh", script);
        let config = folder.config("[service.a]\nexec = [\"/bin/sh\", \"a.sh\"]\nenv.MODE = \"fast\"");
        let spec = config.services.into_values().next().unwrap();
        state_of(&spec, 3, b"stored", TIMEOUT)
            .map_err(|error| format!("{error}\n  hint: {}", error.hint(&spec.name)))
    }

    #[test]
    fn a_program_is_given_version_and_bytes_in_its_own_surroundings() {
        let script = "[ \"$MODE$WATCHDOG_DESCRIBE\" = fast ] && [ -z \"$CARGO_MANIFEST_DIR\" ] && [ $# = 0 ] && \
                      printf '{\"%s\": \"%s\"}\\n' \"$(cat)\" \"$WATCHDOG_SHOW_STATE\"";
        assert_eq!(shown(script).unwrap(), "{\"stored\": \"3\"}");
    }

    #[test]
    fn a_state_larger_than_a_pipe_does_not_wait_for_its_reader() {
        let folder = Folder::new();
        folder.script("a.sh", "echo null");
        let config = folder.config("[service.a]\nexec = [\"/bin/sh\", \"a.sh\"]");
        let spec = config.services.into_values().next().unwrap();
        assert_eq!(state_of(&spec, 1, &vec![7; 4 << 20], TIMEOUT).unwrap(), "null");
    }

    #[test]
    fn a_number_stays_as_the_program_wrote_it() {
        let large = "340282366920938463463374607431768211455";
        assert_eq!(shown(&format!("echo {large}")).unwrap(), large);
    }

    #[test]
    fn each_way_to_fail_is_told_with_a_hint() {
        let mut texts = String::new();
        for script in [
            "echo 'error: the stored state has version 3' >&2; exit 65",
            "echo 'error: not started by one' >&2; exit 78",
            "echo half; echo 'thread main panicked' >&2; exit 101",
            "kill -KILL $$",
            "echo usage: a",
            ":",
            "exec cat /dev/zero",
        ] {
            texts += &format!("{}\n", shown(script).unwrap_err());
        }
        insta::assert_snapshot!(texts);
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let folder = Folder::new();
        folder.script("a.sh", "echo waiting >&2; exec sleep 1000");
        let config = folder.config("[service.a]\nexec = [\"/bin/sh\", \"a.sh\"]");
        let spec = config.services.into_values().next().unwrap();
        let late = state_of(&spec, 1, b"", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(&late, StateOfError::Late { after, .. } if after.as_millis() == 50), "{late}");
    }
}
