//! Where services have cgroups of version 1: below our own place in each controller's tree, once they have a limit there.

use std::path::PathBuf;

use crate::processes::cgroup::{Here, Tree};

/// The folder of all our services' cgroups, by controller. Nothing of it need be there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Trees {
    pub(super) cpu: Option<PathBuf>,
    pub(super) memory: Option<PathBuf>,
    pub(super) freezer: Option<PathBuf>,
}

impl Trees {
    /// Of this process; `name` is that of its tree.
    pub(super) fn find(name: &str) -> Self {
        let Ok(here) = Here::read() else { return Self::default() };
        let tree = |controller| Some(here.folder(Tree::Of(controller)).ok()?.join(name));
        Self { cpu: tree("cpu"), memory: tree("memory"), freezer: tree("freezer") }
    }
}
