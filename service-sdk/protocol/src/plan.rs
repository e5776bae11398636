//! Drift, and what a reload makes of it: what the configuration's file says, what is in force, and what running
//! processes started with. The same types are the `--json` output.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ServiceName;

/// The version of the `--json` output.
pub const PLAN_VERSION: u32 = 1;

/// All that differs, and what a reload would do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// The same for the same plan: a reload of it is refused when it would do anything else by now.
    pub id: u64,
    /// The file.
    pub config: String,
    /// Keys of `[watchdog]`.
    pub watchdog: Vec<FieldChange>,
    /// Groups whose members, strategy or limit differ.
    pub groups: Vec<GroupPlan>,
    /// Services that differ, by name; a renamed one under its new name.
    pub services: Vec<ServicePlan>,
}

/// What becomes of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// Its name.
    pub group: ServiceName,
    /// As the file has it; `None`: not at all.
    pub file: Option<String>,
    /// As it is in force.
    pub in_force: Option<String>,
}

/// What becomes of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePlan {
    /// Its name, in the file where it is there.
    pub service: ServiceName,
    /// What a reload does.
    pub deed: Deed,
    /// The name it has so far.
    pub renamed_from: Option<ServiceName>,
    /// What differs. Empty for one that is added or removed.
    pub fields: Vec<FieldChange>,
    /// What one should know beside it, in words.
    pub notes: Vec<String>,
}

/// What a reload does to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// It goes on under what has changed.
    Live,
    /// Its process ends, with time to save, and another one starts; lanes, settings and state stay.
    Restart,
    /// It ends, with time to save, and begins as something of another kind; what it has on disk stays.
    Recreate,
    /// It ends, with time to save, and begins under another name, with all that it has.
    Rename,
    /// It is new.
    Add,
    /// It ends, with time to save; what it has on disk stays.
    Remove,
}

impl fmt::Display for Deed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Live => "live",
            Self::Restart => "restart",
            Self::Recreate => "recreate",
            Self::Rename => "rename",
            Self::Add => "add",
            Self::Remove => "remove",
        })
    }
}

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The key, as in the file; `env.NAME` and `settings.PATH` for one value.
    pub field: String,
    /// How far a change of it reaches.
    pub way: Way,
    /// What the file says, with defaults filled in; `None`: nothing there.
    pub file: Option<String>,
    /// What is in force.
    pub in_force: Option<String>,
    /// What the running process started with, as far as it has been told nothing else since; `None`: nothing, or none
    /// runs.
    pub running: Option<String>,
}

/// How far a change of a key reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// To what runs, without an end of it.
    Live,
    /// Its process must start anew.
    Restart,
    /// It becomes something of another kind.
    Recreate,
    /// The whole watchdog must start anew.
    Never,
}

impl fmt::Display for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Live => "live",
            Self::Restart => "restart",
            Self::Recreate => "recreate",
            Self::Never => "never",
        })
    }
}

impl Plan {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.watchdog.is_empty() && self.groups.is_empty() && self.services.is_empty()
    }
}
