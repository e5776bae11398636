//! Where services have cgroups of version 1: below our own place in each controller's tree, once they have a limit there.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::processes::cgroup::{Here, Tree};

/// Our services' cgroups of one controller. Most have none: to look for each would cost more than all else that is read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Groups {
    folder: PathBuf,
    /// Those that were there when it was looked last.
    names: HashSet<OsString>,
}

impl Groups {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder, names: HashSet::new() }
    }

    fn look(&mut self) {
        self.names.clear();
        // None of them has any.
        let Ok(found) = fs::read_dir(&self.folder) else { return };
        self.names.extend(found.flatten().map(|entry| entry.file_name()));
    }

    /// That of a service, if it has one.
    pub(super) fn of(&self, service: &str) -> Option<PathBuf> {
        self.names.contains(Path::new(service).as_os_str()).then(|| self.folder.join(service))
    }
}

/// By controller; `None`: there is no such tree.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Trees {
    pub(super) cpu: Option<Groups>,
    pub(super) memory: Option<Groups>,
    pub(super) freezer: Option<Groups>,
}

impl Trees {
    /// Of this process; `name` is that of its tree.
    pub(super) fn find(name: &str) -> Self {
        let Ok(here) = Here::read() else { return Self::default() };
        let tree = |controller| Some(Groups::at(here.folder(Tree::Of(controller)).ok()?.join(name)));
        Self { cpu: tree("cpu"), memory: tree("memory"), freezer: tree("freezer") }
    }

    /// Who has one by now.
    pub(super) fn look(&mut self) {
        [&mut self.cpu, &mut self.memory, &mut self.freezer].into_iter().flatten().for_each(Groups::look);
    }
}
