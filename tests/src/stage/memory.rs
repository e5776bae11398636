//! What a puppet is set to, and what it remembers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use watchdog_service::{MigrateError, State, decode_state};

/// What a puppet can be set to.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct PuppetSettings {
    /// Any word.
    #[serde(default)]
    word: String,
    /// A number within bounds.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    number: u64,
    /// A table in the table.
    #[serde(default)]
    inner: Inner,
}

/// A table in the table.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Inner {
    /// A switch.
    #[serde(default)]
    on: bool,
}

fn one() -> u64 {
    1
}

/// What a puppet remembers, in one of the versions there are.
pub trait Remembered: State {
    /// Shows it.
    fn text(&self) -> String;
    /// Changes it.
    fn set_text(&mut self, text: String);
}

/// The first version.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    text: String,
}

/// The second one: it counts the changes too.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CountingMemory {
    changes: u64,
    text: String,
}

impl State for Memory {
    const VERSION: u32 = 1;
}

impl State for CountingMemory {
    const VERSION: u32 = 2;

    fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
        match from {
            1 => decode_state::<Memory>(old).map(|Memory { text }| Self { changes: 0, text }),
            _ => Err(MigrateError::new("there is no such version")),
        }
    }
}

impl Remembered for Memory {
    fn text(&self) -> String {
        self.text.clone()
    }

    fn set_text(&mut self, text: String) {
        self.text = text;
    }
}

impl Remembered for CountingMemory {
    fn text(&self) -> String {
        format!("{} after {} changes", self.text, self.changes)
    }

    fn set_text(&mut self, text: String) {
        self.text = text;
        self.changes += 1;
    }
}
