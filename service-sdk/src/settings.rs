//! [`SettingsReader`]: what the operator sets, as the service reads it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use watchdog_protocol::Revision;
use watchdog_protocol::manifest::SECRET_KEYWORD;

use crate::session::Link;
use crate::session::offers::{Offer, Refused};

/// A service's settings type; every type that serde reads and schemars describes is one.
///
/// The schema is what an operator's values are checked against, before a process sees them. `()` is a service
/// without settings.
pub trait Settings: DeserializeOwned + JsonSchema + Send + Sync + 'static {}

impl<S: DeserializeOwned + JsonSchema + Send + Sync + 'static> Settings for S {}

/// The current settings, and when they change. A clone reads the same ones.
pub struct SettingsReader<S> {
    values: Arc<Mutex<Values<S>>>,
    link: Link,
}

struct Values<S> {
    current: Arc<S>,
    /// In force until `current` is accepted.
    before: Option<Arc<S>>,
}

/// JSON text that is not of the settings type: where, and what was expected.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub(crate) struct SettingsError {
    path: String,
    problem: String,
}

impl SettingsError {
    fn at<S: Settings>(path: &str, error: &serde_json::Error) -> Self {
        // The path of the whole is a dot.
        let path = if path == "." { "the settings".into() } else { format!("`{path}`") };
        // Whoever set them never saw the text, so its lines and columns say nothing.
        let text = error.to_string();
        let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
        let problem = if holds_secrets::<S>() { unquoted(problem) } else { problem.to_owned() };
        Self { path, problem }
    }
}

fn holds_secrets<S: Settings>() -> bool {
    schemars::schema_for!(S).as_value().to_string().contains(SECRET_KEYWORD)
}

/// Without the value that serde found: one that stands where a table with a secret in it is expected may well be that
/// secret.
fn unquoted(problem: &str) -> String {
    let quotes = ["invalid ", "unknown variant "].iter().any(|start| problem.starts_with(start));
    match problem.rsplit_once(", expected ") {
        Some((_, expected)) if quotes => format!("expected {expected}"),
        Some(_) | None => problem.to_owned(),
    }
}

/// Reads settings from JSON text.
pub(crate) fn parse<S: Settings>(json: &[u8]) -> Result<S, SettingsError> {
    let mut text = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut text)
        .map_err(|error| SettingsError::at::<S>(&error.path().to_string(), error.inner()))?;
    text.end().map_err(|error| SettingsError::at::<S>(".", &error))?;
    Ok(value)
}

impl<S: Settings> SettingsReader<S> {
    pub(crate) fn new(link: Link, initial: S) -> Self {
        let values = Values { current: Arc::new(initial), before: None };
        Self { values: Arc::new(Mutex::new(values)), link }
    }

    /// The current value. It changes only when [`updated`](Self::updated) or
    /// [`Context::next`](crate::Context::next) yields a new one, so it is the same all through a handler.
    pub fn current(&self) -> Arc<S> {
        Arc::clone(&self.values().current)
    }

    /// Waits for a new value, which is [`current`](Self::current) from then on. The initial value is not new,
    /// two changes in a row may be one, and an older value never comes after a newer one.
    ///
    /// Calling it again accepts the value it returned; [`refuse`](Self::refuse) before that does not. A value
    /// that is not of type `S` never gets here: it is refused with the path of what is wrong.
    ///
    /// A service uses this or `Context::next` for its settings, not both: each new value is yielded once. Waits
    /// for ever once the watchdog is gone.
    ///
    /// Cancel safe: a value is yielded or stays for the next call.
    pub async fn updated(&self) -> Arc<S> {
        self.accept();
        loop {
            let offer = self.link.until(|ledger| ledger.settings.take()).await;
            if let Some(value) = self.try_on(offer) {
                return value;
            }
        }
    }

    /// Refuses the value that was yielded last, with a reason for the operator: the value before it is current
    /// again, at once. After the next event was asked for it is too late, and nothing happens.
    ///
    /// Before [`Context::ready`](crate::Context::ready) it refuses the initial value: `ready` fails then, and
    /// the process ends with exit code 78.
    pub fn refuse(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let refused = self.link.write(|ledger| ledger.settings.refuse(reason));
        match refused {
            Refused::Trial => {
                let mut values = self.values();
                if let Some(before) = values.before.take() {
                    values.current = before;
                }
            }
            Refused::Initial => {}
            Refused::Nothing => tracing::debug!("nothing is on trial that could be refused"),
        }
    }

    /// The service goes on with what was yielded.
    pub(crate) fn accept(&self) {
        if self.values().before.take().is_some() {
            self.link.write(|ledger| ledger.settings.accept());
        }
    }

    /// Makes what is on trial the current value; `None`: it is not of type `S`, and is refused.
    pub(crate) fn try_on(&self, (revision, json): Offer) -> Option<Arc<S>> {
        match parse(&json) {
            Ok(value) => {
                let value = Arc::new(value);
                let mut values = self.values();
                values.before = Some(std::mem::replace(&mut values.current, Arc::clone(&value)));
                Some(value)
            }
            Err(error) => {
                tracing::warn!(%revision, %error, "settings refused");
                self.link.write(|ledger| ledger.settings.refuse(error.to_string()));
                None
            }
        }
    }

    fn values(&self) -> MutexGuard<'_, Values<S>> {
        self.values.lock().expect("nothing panics while it is held")
    }
}

impl<S> Clone for SettingsReader<S> {
    fn clone(&self) -> Self {
        Self { values: Arc::clone(&self.values), link: self.link.clone() }
    }
}

impl<S> fmt::Debug for SettingsReader<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.link.read(|ledger| ledger.settings.in_force().unwrap_or(Revision::NONE));
        out.debug_struct("SettingsReader").field("revision", &revision).finish_non_exhaustive()
    }
}
