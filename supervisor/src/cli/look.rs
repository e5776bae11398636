//! How text looks on this terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use watchdog_protocol::control::SECRET;

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Paint {
    #[default]
    Plain,
    Strong,
    Faint,
    Good,
    Doubtful,
    Bad,
}

/// Colour and width of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) color: bool,
    /// Characters of a line; `None`: no bound.
    pub(super) width: Option<usize>,
}

impl Look {
    /// Of standard output. The width is that of COLUMNS, else of the terminal, else there is none.
    pub(super) fn of_stdout(choice: ColorChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        let said =
            std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|width| *width > 0);
        let real = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let width = said.or_else(|| if terminal { real().or(Some(80)) } else { None });
        Self { color: colored(choice, terminal), width }
    }

    /// Of standard error; only its colour matters.
    pub(super) fn of_stderr(choice: ColorChoice) -> Self {
        Self { color: colored(choice, io::stderr().is_terminal()), width: None }
    }

    pub(super) fn paint<'t>(&self, paint: Paint, text: &'t str) -> Cow<'t, str> {
        let code = match paint {
            _ if !self.color => return text.into(),
            Paint::Plain => return text.into(),
            Paint::Strong => "1",
            Paint::Faint => "2",
            Paint::Good => "32",
            Paint::Doubtful => "33",
            Paint::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m").into()
    }
}

fn colored(choice: ColorChoice, terminal: bool) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

/// Text of a service or file without what would command a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// As [`harmless`], of several lines.
pub(super) fn harmless_lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

/// A JSON text that says the same, without what would command a terminal. JSON itself has it that most control characters
/// are written as `\u00xx`; those from U+007F on, which are left, can stand only within a text, a carriage return only
/// without.
pub(super) fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            '\r' => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

/// A setting, of which we have the JSON text.
pub(super) fn setting(json: &str) -> String {
    let is_secret = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')) == Some(SECRET);
    if is_secret { SECRET.to_owned() } else { harmless(json) }
}

/// At most `width` characters, the last one an ellipsis when some are missing.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// One line of standard error that says what a command waits for, rewritten in place; nothing when standard error
/// is no terminal.
#[derive(Debug)]
pub(super) struct ProgressLine {
    terminal: bool,
    width: usize,
    shown: Mutex<bool>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        let size = terminal_size::terminal_size_of(io::stderr());
        let width = size.map_or(80, |(width, _)| usize::from(width.0));
        Self { terminal: io::stderr().is_terminal(), width, shown: Mutex::new(false) }
    }

    pub(super) fn show(&self, line: &str) {
        if self.terminal {
            *self.shown.lock().expect("nobody panics with it") = true;
            let line = cut(&harmless(line), self.width.saturating_sub(1));
            // It is decoration: a terminal that went away is no failure.
            let _ = write!(io::stderr(), "\r\x1b[K{line}").and_then(|()| io::stderr().flush());
        }
    }

    /// Takes the line away again.
    pub(super) fn clear(&self) {
        if std::mem::take(&mut *self.shown.lock().expect("nobody panics with it")) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_printed_says_the_same_and_commands_no_terminal() {
        let json = "{\r\n\t\"a\u{7f}\": [\"\u{80}\u{9b}2J\u{9f}\u{a0}é\", \"\\\\\u{9c}\"]}";
        let shown = harmless_json(json);
        assert_eq!(shown, "{ \n\t\"a\\u007f\": [\"\\u0080\\u009b2J\\u009f\u{a0}é\", \"\\\\\\u009c\"]}");
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&shown), value(json));
    }
}
