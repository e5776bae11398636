//! Random events against a short model of the world the core acts on: what it is commanded, and what can then
//! happen. Each test's name is a sentence that would be false if the property broke.

#![expect(clippy::unwrap_used, reason = "a model that is wrong is a failed test")]

mod causes;
mod group;
mod poison;
mod reload;
mod roster;
mod service;
mod settings;
mod state;
mod why;
mod world;

use proptest::test_runner::{Config, FileFailurePersistence};

/// What failed once is tried again first, for ever: the files beside these modules are part of the tests.
fn config() -> Config {
    Config {
        cases: 512,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..Config::default()
    }
}
