//! [`State`] and [`StateHandler`]: what a restart must not lose.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;
use serde::de::DeserializeOwned;
use watchdog_protocol::Sequence;
pub use watchdog_protocol::session::StateOrigin;

use crate::run::is_none;
use crate::session::opening::StoredState;
use crate::session::saves::{Save, SaveFailure};
use crate::session::{Link, Snapshot};

/// A service's state type. `()` is a service without state.
///
/// It is kept in postcard, which has no field names: any change of its fields is a new [`VERSION`], and
/// [`migrate`](Self::migrate) reads the older ones. Serde's `default`, `flatten`, `untagged` and `skip_…` do not
/// work in it; large byte fields are faster with `serde_bytes`.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use watchdog_service::{MigrateError, State, decode_state};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct CounterState {
///     total: u64,
///     applied: u64,
/// }
///
/// impl State for CounterState {
///     const VERSION: u32 = 2;
///
///     fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
///         match from {
///             1 => Ok(Self { total: decode_state(old)?, applied: 0 }),
///             _ => Err(MigrateError::new("no release has written it")),
///         }
///     }
/// }
/// ```
///
/// [`VERSION`]: Self::VERSION
pub trait State: Default + Serialize + DeserializeOwned + Send + 'static {
    /// The version this program writes, and the newest it reads. A state of a newer one is left as it is, and
    /// the process ends with exit code 65.
    const VERSION: u32;

    /// Reads a state that was written as version `from`, which is below [`VERSION`](Self::VERSION).
    ///
    /// # Errors
    /// By default there is no way from an older version. The state is left as it is then, and the process ends
    /// with exit code 65.
    fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
        let _ = old;
        Err(MigrateError::new(format!("this program has no way from version {from}")))
    }
}

impl State for () {
    const VERSION: u32 = 0;
}

/// Why a state of an older version can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct MigrateError {
    reason: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl MigrateError {
    /// With a reason for the operator.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), source: None }
    }
}

/// Reads a state of an older version as the type it was written from, for [`State::migrate`].
///
/// # Errors
/// When the bytes are not exactly one value of that type.
pub fn decode_state<Old: DeserializeOwned>(old: &[u8]) -> Result<Old, MigrateError> {
    match postcard::take_from_bytes(old) {
        Ok((value, [])) => Ok(value),
        Ok((_, extra)) => {
            Err(MigrateError::new(format!("{} bytes are behind a state of that version", extra.len())))
        }
        Err(error) => Err(MigrateError {
            reason: "the bytes are no state of that version".into(),
            source: Some(error.into()),
        }),
    }
}

/// Why a service can't start from its stored state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("the stored state has version {found}, this program reads up to {known}; it is left as it is")]
    Newer { found: u32, known: u32 },
    #[error("the stored state of version {found} can't become version {known}; it is left as it is")]
    Migrate { found: u32, known: u32, source: MigrateError },
    #[error("the stored state can't be read as version {version}; it is left as it is")]
    Decode { version: u32, source: postcard::Error },
    #[error("{extra} bytes are behind the stored state of version {version}; it is left as it is")]
    Trailing { extra: usize, version: u32 },
}

/// The value a process starts with.
pub(crate) fn restore<T: State>(stored: &StoredState) -> Result<T, RestoreError> {
    let (found, known) = (stored.version, T::VERSION);
    if stored.origin == StateOrigin::Fresh {
        return Ok(T::default());
    }
    if found > known {
        return Err(RestoreError::Newer { found, known });
    }
    if found < known {
        return T::migrate(found, &stored.bytes).map_err(|source| RestoreError::Migrate {
            found,
            known,
            source,
        });
    }
    let (value, rest) = postcard::take_from_bytes(&stored.bytes)
        .map_err(|source| RestoreError::Decode { version: known, source })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(RestoreError::Trailing { extra: rest.len(), version: known })
    }
}

/// Why a state can't be shown. Postcard keeps more than JSON can say: a map's keys may be of any type.
#[derive(Debug, thiserror::Error)]
#[error("the state can't be shown as JSON, because of `{path}`")]
pub(crate) struct ShowError {
    path: String,
    source: serde_json::Error,
}

/// A state for people: JSON over several lines. Bytes become an array of numbers.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, ShowError> {
    let mut text = Vec::new();
    serde_path_to_error::serialize(value, &mut serde_json::Serializer::pretty(&mut text))
        .map_err(|error| ShowError { path: error.path().to_string(), source: error.into_inner() })?;
    Ok(String::from_utf8(text).expect("JSON is text"))
}

/// Why a state is not on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// It can't be written as bytes, or they are more than a message may have.
    #[error("the state can't be saved: {reason}")]
    Unwritable {
        /// What is wrong with it.
        reason: String,
    },
    /// The watchdog has it in memory and could not write it. Another `save` tries again, into a new file.
    #[error("the watchdog could not write the state: {reason}")]
    NotWritten {
        /// Step, path and cause.
        reason: String,
    },
    /// The session ended before the watchdog said that it is on disk; it may be.
    #[error("the session ended before the state was known to be on disk")]
    SessionEnded,
}

/// The current state, and its way to disk. A clone is the same state.
///
/// What [`update`](Self::update) changed is with the watchdog within moments, and on disk within the save
/// interval (1 s unless set): a service that is killed loses at most the update in flight. [`save`](Self::save)
/// waits until it is on disk.
pub struct StateHandler<T> {
    cell: Arc<Cell<T>>,
    origin: StateOrigin,
    link: Link,
}

struct Cell<T>(Mutex<Content<T>>);

struct Content<T> {
    value: T,
    sequence: Sequence,
    /// There is something to save: it is not the initial value any more.
    is_kept: bool,
}

impl<T: State> StateHandler<T> {
    pub(crate) fn new(link: Link, value: T, origin: StateOrigin, sequence: Sequence) -> Self {
        let content = Content { value, sequence, is_kept: origin != StateOrigin::Fresh };
        Self { cell: Arc::new(Cell(Mutex::new(content))), origin, link }
    }

    pub(crate) fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::clone(&self.cell) as _
    }

    /// Looks at the current value.
    ///
    /// `look` must not call another function of this handler: it would wait for itself.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.content().value)
    }

    /// Changes the current value, and lets the watchdog know soon. Never waits; many updates in a row may go as
    /// one.
    ///
    /// `change` must not call another function of this handler: it would wait for itself.
    ///
    /// # Panics
    /// When an earlier `change` panicked: what it left is half a state.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut content = self.content();
        let result = change(&mut content.value);
        // Nobody keeps a `()`.
        if !is_none::<T>() {
            content.sequence = content.sequence.next();
            content.is_kept = true;
            self.link.write(|ledger| ledger.state.updated(content.sequence));
        }
        result
    }

    /// Waits until the current value, or a newer one, is on disk. A state that is on disk already, or is the
    /// initial value, needs no wait.
    ///
    /// Cancel safe: a dropped call changes nothing, the state goes its way.
    ///
    /// # Errors
    /// [`SaveError`]; the value in memory stays.
    pub async fn save(&self) -> Result<(), SaveError> {
        let number = {
            let mut content = self.content();
            if !content.is_kept {
                return Ok(());
            }
            match self.link.write(|ledger| ledger.state.save(content.sequence)) {
                Save::Done => return Ok(()),
                Save::Wait(number) => {
                    content.sequence = number;
                    number
                }
            }
        };
        let outcome = self
            .link
            .until(|ledger| match ledger.state.outcome(number) {
                Some(outcome) => Some(Some(outcome)),
                None => ledger.end().is_some().then_some(None),
            })
            .await;
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(SaveFailure::Unwritable(reason))) => Err(SaveError::Unwritable { reason }),
            Some(Err(SaveFailure::NotWritten(reason))) => Err(SaveError::NotWritten { reason }),
            None => Err(SaveError::SessionEnded),
        }
    }

    /// Where the value this process started with came from.
    pub fn origin(&self) -> StateOrigin {
        self.origin
    }

    fn content(&self) -> MutexGuard<'_, Content<T>> {
        self.cell.content()
    }
}

impl<T> Cell<T> {
    fn content(&self) -> MutexGuard<'_, Content<T>> {
        self.0.lock().expect("an update that panicked left half a state")
    }
}

impl<T: State> Snapshot for Cell<T> {
    fn encode(&self) -> (Sequence, Result<Vec<u8>, postcard::Error>) {
        let content = self.content();
        (content.sequence, postcard::to_stdvec(&content.value))
    }

    fn version(&self) -> u32 {
        T::VERSION
    }
}

impl<T> Clone for StateHandler<T> {
    fn clone(&self) -> Self {
        Self { cell: Arc::clone(&self.cell), origin: self.origin, link: self.link.clone() }
    }
}

impl<T> fmt::Debug for StateHandler<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StateHandler").field("origin", &self.origin).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    struct Shop {
        name: &'static str,
        stock: BTreeMap<u32, u8>,
        #[serde(with = "serde_bytes")]
        seal: Vec<u8>,
        sold: u128,
    }

    #[test]
    fn a_state_is_shown_with_its_field_names_whole_numbers_and_readable_bytes() {
        let (stock, seal) = (BTreeMap::from([(7, 2)]), vec![0, 255]);
        let shown = to_json(&Shop { name: "corner", stock, seal, sold: u128::MAX }).unwrap();
        let lines = [
            "{",
            "  \"name\": \"corner\",",
            "  \"stock\": {",
            "    \"7\": 2",
            "  },",
            "  \"seal\": [",
            "    0,",
            "    255",
            "  ],",
            "  \"sold\": 340282366920938463463374607431768211455",
            "}",
        ];
        assert_eq!(shown, lines.join("\n"));
    }

    #[test]
    fn a_key_that_json_can_not_have_is_named_by_its_place() {
        #[derive(Serialize)]
        struct Board {
            moves: BTreeMap<(u8, u8), u8>,
        }
        let error = to_json(&Board { moves: BTreeMap::from([((1, 2), 3)]) }).unwrap_err();
        let told = crate::session::chain(&error);
        assert_eq!(told, "the state can't be shown as JSON, because of `moves`: key must be a string");
    }
}
