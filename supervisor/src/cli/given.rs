//! A text on the command line that may lie somewhere else: in a file, or on standard input.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::str::FromStr;

use super::report::CliError;

/// `@FILE`, `-` for standard input, or the text itself; one that begins with these signs is written in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    Here(String),
    File(PathBuf),
    Input,
}

impl FromStr for Given {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('@') {
            Some(path) => Self::File(path.into()),
            None if text == "-" => Self::Input,
            None => Self::Here(text.to_owned()),
        })
    }
}

impl Given {
    /// The text. Standard input is read to its end, which is there once.
    pub(super) fn read(self) -> Result<String, CliError> {
        match self {
            Self::Here(text) => Ok(text),
            Self::File(path) => {
                fs::read_to_string(&path).map_err(|source| CliError::File { what: "read", path, source })
            }
            Self::Input => {
                let mut text = String::new();
                let read = io::stdin().lock().read_to_string(&mut text);
                read.map(|_| text).map_err(|source| CliError::Io { what: "read standard input", source })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_a_file_or_standard_input_by_its_first_sign_or_is_itself() {
        let given = |text: &str| text.parse::<Given>().unwrap();
        assert_eq!(given("@a/b"), Given::File("a/b".into()));
        assert_eq!(given("-"), Given::Input);
        for here in ["-5", "a@b", "\"@a\"", ""] {
            assert_eq!(given(here), Given::Here(here.to_owned()));
        }
    }
}
