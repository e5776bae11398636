//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use watchdog_lifecycle::access::Denied;
use watchdog_protocol::{NameError, ServiceName};

use super::grant::GrantError;
use super::manifest_of::DescribeError;
use super::source::Place;
use crate::nearest::nearest;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No file in a folder or above it.
    #[error("no {} in {} or above", super::FILE_NAME, start.display())]
    NotFound {
        /// Where the search began.
        start: PathBuf,
    },
    /// The file can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else may write the file, and so run what they like as us.
    #[error("{} can be changed by {who} (mode {mode:04o}, owner {owner})", path.display())]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// `everybody` or `its group`.
        who: &'static str,
        /// Its permission bits.
        mode: u32,
        /// The uid it belongs to.
        owner: u32,
    },
    /// Not TOML.
    #[error("{message}")]
    Syntax {
        /// As the parser says it.
        message: String,
    },
    /// A key or table that is there twice.
    #[error("`{key}` is given twice")]
    Twice {
        /// Its name.
        key: String,
        /// Where it is first, if known.
        first: Option<Place>,
    },
    /// A resource of the machine, or of an instance.
    #[error("no resource that is declared can be called `{name}`")]
    NoResourceName {
        /// As written.
        name: String,
    },
    /// A key nobody reads.
    #[error("unknown key `{key}` in {table}")]
    UnknownKey {
        /// As written.
        key: String,
        /// The table it is in.
        table: String,
        /// What is known there.
        known: Vec<String>,
    },
    /// A value of the wrong type or form.
    #[error("{key} = {found}, expected {expected}")]
    Value {
        /// The key, with the table's where it is not plain.
        key: String,
        /// The value, as written.
        found: String,
        /// In words.
        expected: String,
    },
    /// A key that has to be there.
    #[error("{table} has no `{key}`; expected {expected}")]
    Missing {
        /// The table.
        table: String,
        /// The key.
        key: &'static str,
        /// In words.
        expected: &'static str,
    },
    /// A key that stands for a session, which a program has not.
    #[error("{table} is no service and can't have `{key}`")]
    OfServicesOnly {
        /// The table.
        table: String,
        /// The key.
        key: &'static str,
    },
    /// A key about the way to ready, which nobody waits for at a task.
    #[error("{table} is done when it ends and can't have `{key}`")]
    NotOfTasks {
        /// The table.
        table: String,
        /// The key.
        key: &'static str,
    },
    /// A name that no variable of `env` can have.
    #[error("`{name}` can't be set: {}", if name.starts_with("WATCHDOG_") { "the watchdog itself sets WATCHDOG_ variables, all but WATCHDOG_LOG" } else { "it is no name of a variable" })]
    Variable {
        /// As written.
        name: String,
    },
    /// A service with a name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An entry of `control` that is no grant.
    #[error("control: {0}")]
    Grant(GrantError),
    /// A service that requires itself, over others or directly.
    #[error("these wait for each other: {}", arrows(path))]
    Cycle {
        /// The way around, the first name again at its end.
        path: Vec<ServiceName>,
    },
    /// The name of no service.
    #[error("{key} names `{name}`, and there is no such service")]
    UnknownService {
        /// The list it is in.
        key: &'static str,
        /// The name.
        name: ServiceName,
        /// One that looks like it.
        nearest: Option<String>,
    },
    /// A `use` of a service whose `offer` leaves the sender out.
    #[error("it can't be used: {denied}")]
    Refused {
        /// Who leaves out whom.
        denied: Box<Denied>,
        /// Where the `offer` is.
        offer: Place,
    },
    /// A `use` of what is no service.
    #[error("use names `{name}`, which is a plain program and has no inbox")]
    NoInbox {
        /// The name.
        name: ServiceName,
    },
    /// An entry of `use` or `offer` by which nobody can talk to anybody. No error.
    #[error("{}", unused(key, entry, service))]
    Unused {
        /// The list it is in.
        key: &'static str,
        /// As written.
        entry: String,
        /// Whose list it is.
        service: String,
    },
    /// A table for one of several instances.
    #[error("a table is for all instances of a service, `{name}` is one")]
    NamedInstance {
        /// As written.
        name: ServiceName,
    },
    /// A table with the name of who is none.
    #[error("`operator` is the name of whoever sends messages by `watchdog send`, and can't be a service's")]
    NamedOperator,
    /// A table with the name that the watchdog's own records have.
    #[error("`watchdog` is the name that the watchdog's own records have, and can't be a service's")]
    NamedWatchdog,
    /// A file to register with several instances in it.
    #[error("what is registered can't have `instances`; put it into {}", super::FILE_NAME)]
    RegisteredInstances,
    /// A member of a group with a limit of its own.
    #[error("`{service}` is in group `{group}`, whose limit counts for it")]
    LimitOfMember {
        /// The member.
        service: ServiceName,
        /// Its group.
        group: ServiceName,
    },
    /// A member of two groups.
    #[error("`{service}` is in group `{first}` already")]
    InTwoGroups {
        /// The member.
        service: ServiceName,
        /// The group it is in.
        first: ServiceName,
    },
    /// A file that holds more or less than the one service to register.
    #[error("expected exactly one [service.NAME], [program.NAME] or [task.NAME], found {found}")]
    NotOne {
        /// How many.
        found: usize,
    },
    /// The name of no account.
    #[error("there is no user `{user}` on this machine")]
    NoUser {
        /// As written.
        user: String,
    },
    /// A service that takes the name of another one's past, or of one that is there.
    #[error("`{name}` can't be renamed from `{before}`: there is another that is, or was")]
    Renamed {
        /// The service.
        name: ServiceName,
        /// The name it says it had.
        before: ServiceName,
        /// Where the other one is.
        first: Place,
    },
    /// A program that can't be executed.
    #[error("{service}: {reason}")]
    NoProgram {
        /// Whose.
        service: ServiceName,
        /// Why, with the file.
        reason: String,
    },
    /// A service that can't describe itself.
    #[error("{service}: {error}")]
    Describe {
        /// The service.
        service: ServiceName,
        /// Why.
        error: DescribeError,
    },
    /// Settings that are not what the service's settings type asks for.
    #[error("{service}: {error}")]
    Settings {
        /// The service.
        service: ServiceName,
        /// What is wrong.
        error: super::schema::Invalid,
    },
    /// A secret in a file that is none of one. No error.
    #[error("{service}: {path} is a secret, and everybody can read {} (mode {mode:04o})", file.display())]
    Readable {
        /// Whose.
        service: ServiceName,
        /// Which setting.
        path: super::SettingPath,
        /// Where it lies.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A settings schema that is none.
    #[error("{service}: its settings schema can't be used: {error}")]
    Schema {
        /// The service.
        service: ServiceName,
        /// Why.
        error: super::schema::SchemaError,
    },
}

fn arrows(path: &[ServiceName]) -> String {
    path.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" → ")
}

fn unused(key: &str, entry: &str, service: &str) -> String {
    match key {
        "offer" => format!("offer lets nobody in: no service that \"{entry}\" means may use `{service}`"),
        _ => format!("{key} leads to nobody: no service that \"{entry}\" means offers to `{service}`"),
    }
}

impl Problem {
    /// What to do about it, where that is known.
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some("write one, or name one with --config FILE".to_owned()),
            Self::WritableByOthers { path, .. } => {
                Some(format!("whoever changes it runs programs as you: chmod go-w {}", path.display()))
            }
            Self::Renamed { first, .. } => Some(format!("it is at {first}")),
            Self::Twice { first: Some(place), .. } => Some(format!("the first one is at {place}")),
            Self::UnknownKey { key, known, .. } => match nearest(key, known.iter().map(String::as_str)) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if known.is_empty() => None,
                None => Some(format!("known are: {}", known.join(", "))),
            },
            Self::OfServicesOnly { table, .. } if table.starts_with("[task.") => {
                Some("a task built on the SDK says so: sdk = true".to_owned())
            }
            Self::NotOfTasks { .. } => {
                Some("whoever requires a task waits until it has completed".to_owned())
            }
            Self::OfServicesOnly { .. } => {
                Some("a program built on the SDK goes under [service.NAME]".to_owned())
            }
            Self::Grant(GrantError::Verb { verb }) => {
                Some(match nearest(verb, super::VERBS.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("verbs are: {}", super::VERBS.join(", ")),
                })
            }
            Self::NamedInstance { name } => {
                Some(format!("name it `{}` and say how many: instances = N", name.base()))
            }
            Self::LimitOfMember { group, .. } => Some(format!("put restart_limit into [group.{group}]")),
            Self::UnknownService { nearest: Some(name), .. } => Some(format!("did you mean `{name}`?")),
            Self::Refused { offer, .. } => Some(format!("the offer is at {offer}")),
            Self::Describe { service, error } => error.hint(service),
            Self::Settings { error, .. } => error.hint(),
            Self::Readable { file, .. } => Some(format!("chmod o-r {}", file.display())),
            Self::Read { .. }
            | Self::Syntax { .. }
            | Self::Twice { first: None, .. }
            | Self::NoResourceName { .. }
            | Self::Value { .. }
            | Self::Missing { .. }
            | Self::Variable { .. }
            | Self::Name(_)
            | Self::Grant(GrantError::Target(_))
            | Self::Cycle { .. }
            | Self::InTwoGroups { .. }
            | Self::RegisteredInstances
            | Self::UnknownService { nearest: None, .. }
            | Self::NoInbox { .. }
            | Self::Unused { .. }
            | Self::NotOne { .. }
            | Self::NoUser { .. }
            | Self::NoProgram { .. }
            | Self::NamedOperator
            | Self::NamedWatchdog
            | Self::Schema { .. } => None,
        }
    }
}

/// A problem and its place. [`Display`](fmt::Display) is what an operator reads, over several lines; the cause of
/// the problem is in it.
#[derive(Debug)]
pub struct ConfigError {
    /// Where; `None` when it is no matter of a file's text.
    pub place: Option<Place>,
    /// What.
    pub problem: Problem,
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { place: None, problem }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(out, "{place}: ")?;
        }
        let mut text = self.problem.to_string();
        let mut cause = std::error::Error::source(&self.problem);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        // The place belongs to the first line; what a program wrote comes after it.
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        out.write_str(first)?;
        if let Some(place) = &self.place {
            write!(out, "\n{}", place.excerpt())?;
        }
        if !rest.is_empty() {
            write!(out, "\n{rest}")?;
        }
        if let Some(hint) = self.problem.hint() {
            write!(out, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// All that is wrong, in file order; never empty.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `Ok` when there is nothing wrong, else all of it in file order.
    ///
    /// # Errors
    /// When `errors` is not empty.
    pub fn none_of(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self::some_of(errors)) }
    }

    /// All of `errors`, of which there is at least one, in file order.
    pub(super) fn some_of(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.place.as_ref().map(|place| (place.line(), place.column())));
        Self(errors)
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl<'e> IntoIterator for &'e ConfigErrors {
    type Item = &'e ConfigError;
    type IntoIter = std::slice::Iter<'e, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E: Into<ConfigError>> From<E> for ConfigErrors {
    fn from(error: E) -> Self {
        Self(vec![error.into()])
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(out, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
