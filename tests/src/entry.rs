//! Entries of a `watchdog.toml`: each test says what differs from the defaults, and no more.

use std::fmt::Write as _;
use std::path::Path;

use crate::binary;

/// One `[service.NAME]`, `[program.NAME]` or `[task.NAME]` table.
#[derive(Debug, Clone)]
pub struct Entry {
    name: String,
    kind: &'static str,
    exec: Vec<String>,
    env: Vec<(String, String)>,
    keys: Vec<String>,
    settings: Option<String>,
}

/// A service built on the SDK: what to run and its arguments.
pub fn service(name: &str, exec: &[&str]) -> Entry {
    Entry::new(name, "service", exec)
}

/// A plain program: what to run and its arguments.
pub fn program(name: &str, exec: &[&str]) -> Entry {
    Entry::new(name, "program", exec)
}

/// A sample service under its own name.
pub fn sample(name: &str) -> Entry {
    let path = binary(name);
    service(name, &[path.to_str().expect("a path of ours")])
}

/// What the logging service may ask of the watchdog, so that its events are on record too.
pub const GRANT: &str = "control = [\"status\", \"intercoms\", \"events\"]";

/// The logging service, with all it may ask for.
pub fn logging_service() -> Entry {
    sample("logging").key(GRANT)
}

/// A plain program of `tests/probes`, `probe-KIND`, with arguments.
pub fn probe(name: &str, kind: &str, args: &[&str]) -> Entry {
    let path = binary(&format!("probe-{kind}"));
    let mut entry = program(name, &[path.to_str().expect("a path of ours")]);
    entry.exec.extend(args.iter().map(|arg| (*arg).to_owned()));
    entry
}

impl Entry {
    fn new(name: &str, kind: &'static str, exec: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            exec: exec.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            keys: Vec::new(),
            settings: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it an SDK service: a probe that links the SDK.
    #[must_use]
    pub fn with_session(mut self) -> Self {
        self.kind = "service";
        self
    }

    /// Makes it a task, which links the SDK if it was a service.
    #[must_use]
    pub fn once(mut self) -> Self {
        if self.kind == "service" {
            self.keys.push("sdk = true".to_owned());
        }
        self.kind = "task";
        self
    }

    /// Runs this program instead.
    #[must_use]
    pub fn exec(mut self, program: &Path) -> Self {
        self.exec = vec![program.to_str().expect("a path of ours").to_owned()];
        self
    }

    /// Adds a line of the table: `restart = "always"`.
    #[must_use]
    pub fn key(mut self, line: &str) -> Self {
        self.keys.push(line.to_owned());
        self
    }

    /// Adds a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The lines of its settings table: `step = 2`.
    #[must_use]
    pub fn settings(mut self, lines: &str) -> Self {
        self.settings = Some(lines.to_owned());
        self
    }

    /// The table as text. `folder` marks the process, so that the harness finds it wherever it hides.
    pub fn render(&self, folder: &Path) -> String {
        let mut text = format!("[{}.{}]\n", self.kind, self.name);
        let words: Vec<String> = self.exec.iter().map(|word| quoted(word)).collect();
        let _ = writeln!(text, "exec = [{}]", words.join(", "));
        let mark = ("TEST_FOLDER".to_owned(), folder.display().to_string());
        let pairs = std::iter::once(&mark).chain(&self.env);
        let env: Vec<String> = pairs.map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
        let _ = writeln!(text, "env = {{ {} }}", env.join(", "));
        for line in &self.keys {
            let _ = writeln!(text, "{line}");
        }
        if let Some(settings) = &self.settings {
            let _ = writeln!(text, "[{}.{}.settings]\n{settings}", self.kind, self.name);
        }
        text
    }
}

/// As a TOML string. JSON's escapes are TOML's for all that a test writes.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}
