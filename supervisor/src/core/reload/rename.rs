//! A service gets another name, and keeps all it has.
//!
//! ```text
//! the process under the old name ends ─► its files are settled ─► and moved, the last one last ─► lanes are renamed
//!                                                         ─► the old name is forgotten ─► the new one starts
//! ```
//! The journal is renewed before: it may know contents of both names that files have long since, and a mark that says so
//! can be lost with a core. Files are moved, so a name under which there are none is one whose service has been moved:
//! done again after a death of the core in the middle it goes on where it stood. Nothing writes under the old name once
//! its process is gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use watchdog_keeper::protocol::ToKeeper;
use watchdog_protocol::ServiceName;

use super::{Next, Worked};
use crate::config::WatchdogSection;
use crate::core::events::Entry as Logged;
use crate::core::instances::record_of;
use crate::core::{Core, CoreError, Registered, chain};
use crate::store::{dead, kept, record, snapshot};

/// What follows a service that is on its way out.
#[derive(Debug)]
pub(in crate::core) struct Heir {
    next: Box<Next>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The service lives, or the keeper may tell of its end once more.
    Waiting,
    /// The journal still has something of it, or may have for a next core.
    Settling,
    Moving,
    Moved,
}

/// Where everything of a service lies.
#[derive(Debug, Clone)]
pub(super) struct Belongings {
    state: PathBuf,
    logs: PathBuf,
}

impl Belongings {
    pub(super) fn of(section: &WatchdogSection) -> Self {
        Self { state: section.state.clone(), logs: section.logs.clone() }
    }

    /// Those that the journal may have something of, the one that is moved last at the end: it says whether a service
    /// is there.
    fn kept(&self, name: &ServiceName) -> [PathBuf; 4] {
        [
            record::path(&self.state.join("limits"), name.as_str()),
            record::path(&self.state.join("wanted"), name.as_str()),
            record::path(&self.state.join("settings"), name.as_str()),
            snapshot::path(&self.state, name),
        ]
    }

    /// Something of it is there under the old name that is not under the new one.
    fn is_to_be_moved(&self, from: &ServiceName, to: &ServiceName) -> bool {
        let (from, to) = (self.kept(from), self.kept(to));
        let last = from.iter().zip(&to).rev().find(|(from, _)| from.exists());
        last.is_some_and(|(_, to)| !to.exists())
    }

    /// Moves all of it. What lies under the new name already, from a service of long ago, is set aside. Blocks.
    fn move_all(&self, from: &ServiceName, to: &ServiceName) -> io::Result<()> {
        for (from, to) in self.log_files(from)?.into_iter().map(|(file, end)| {
            let name = format!("{to}.log{end}");
            (file, self.logs.join(name))
        }) {
            move_one(&from, &to)?;
        }
        move_one(&dead::folder(&self.state, from), &dead::folder(&self.state, to))?;
        if from.instance() == Some(1) {
            let scaled = |name: &ServiceName| {
                let (folder, record) = record_of(&self.state, name.base());
                record::path(&folder, &record)
            };
            move_one(&kept::previous(&scaled(from)), &kept::previous(&scaled(to)))?;
            move_one(&scaled(from), &scaled(to))?;
        }
        for (from, to) in self.kept(from).iter().zip(&self.kept(to)) {
            move_one(&kept::previous(from), &kept::previous(to))?;
            move_one(from, to)?;
        }
        for folder in [".", "wanted", "settings", "limits"] {
            match File::open(self.state.join(folder)) {
                Ok(folder) => folder.sync_all()?,
                // Nothing was ever put there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Its log files, and what they have behind `.log`.
    fn log_files(&self, name: &ServiceName) -> io::Result<Vec<(PathBuf, String)>> {
        let begins = format!("{name}.log");
        let mut found = Vec::new();
        for file in fs::read_dir(&self.logs)? {
            let file = file?;
            let end =
                file.file_name().to_str().and_then(|file| file.strip_prefix(&begins)).map(str::to_owned);
            let is_its = |end: &String| end.is_empty() || end.starts_with('.');
            found.extend(end.filter(is_its).map(|end| (file.path(), end)));
        }
        Ok(found)
    }
}

fn move_one(from: &Path, to: &Path) -> io::Result<()> {
    if !from.try_exists()? {
        return Ok(());
    }
    if to.try_exists()? {
        kept::aside_as(to, "replaced")?;
    }
    fs::rename(from, to)
}

impl Heir {
    pub(super) fn new(next: Next) -> Self {
        Self { next: Box::new(next), stage: Stage::Waiting }
    }

    pub(super) fn name(&self) -> &ServiceName {
        &self.next.spec.name
    }
}

impl Core {
    /// Its process is gone: what it has is given to its heir, step by step.
    pub(super) async fn hand_down(&mut self, name: &ServiceName) -> Result<(), CoreError> {
        let belongings = Belongings::of(&self.config.watchdog);
        let Some(heir) = &self.entry(name).heir else { return Ok(()) };
        let (to, stage) = (heir.name().clone(), heir.stage);
        match stage {
            Stage::Waiting | Stage::Settling => {
                // A core that is told of its end again would write under its old name.
                if self.acknowledge.iter().any(|(service, _)| service == name) {
                    return Ok(());
                }
                if stage == Stage::Waiting {
                    self.set_stage(name, Stage::Settling);
                    self.store.renew();
                }
                let files = belongings.kept(name).into_iter().chain(belongings.kept(&to));
                let is_kept = |path: PathBuf| self.store.is_busy(&path) || self.store.is_unsettled(&path);
                if self.store.is_renewing() || files.into_iter().any(is_kept) {
                    return Ok(());
                }
                self.set_stage(name, Stage::Moving);
                self.capture.remove(name);
                // The thread that writes the log has let go of it when it answers.
                self.capture.last_lines(name).await;
                let name = name.clone();
                self.reloads.work.spawn_blocking(move || {
                    let outcome = belongings.move_all(&name, &to);
                    Worked::Moved { name, outcome }
                });
            }
            Stage::Moving => {}
            Stage::Moved => self.inherit(name).await?,
        }
        Ok(())
    }

    fn set_stage(&mut self, name: &ServiceName, stage: Stage) {
        if let Some(heir) = &mut self.entry_mut(name).heir {
            heir.stage = stage;
        }
    }

    pub(super) fn files_moved(&mut self, name: &ServiceName, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.set_stage(name, Stage::Moved),
            // It stays as it is, at rest and whole; the next core tries again.
            Err(err) => {
                let text = format!("its files can't get its new name, it waits for that: {}", chain(&err));
                self.events.add(Logged::of(name, "disk", text));
            }
        }
    }

    /// The new name takes the place of the old one.
    async fn inherit(&mut self, name: &ServiceName) -> Result<(), CoreError> {
        let chance = self.chance();
        let last = self.newest(name);
        // Whoever requires it by the old name, and goes too, goes first.
        let Ok(commands) = self.roster.unregister(name, crate::core::now(), chance) else { return Ok(()) };
        self.perform_all(commands).await?;
        let Some(heir) = self.entry_mut(name).heir.take() else { return Ok(()) };
        let Next { spec, checked } = *heir.next;
        let to = spec.name.clone();
        self.rename_lanes(name, &to).await?;
        self.put_away(name).await?;
        let policy = spec.policy.clone();
        self.add_entry(spec, checked, Registered::Config, None).await?;
        let service = self.begin_service(&to, Some(last));
        let text = format!("it was `{name}`, and has all that it had");
        self.events.add(Logged::of(&to, "renamed", text));
        let (present, chance) = (crate::core::now(), self.chance());
        let commands = self.roster.register(to.clone(), policy, service, present, chance);
        let commands = commands.map_err(|err| CoreError::Start {
            step: format!("add `{to}`, which was `{name}`"),
            source: err.into(),
        })?;
        self.perform_all(commands).await?;
        self.compare_contracts(&to);
        self.revoke().await
    }

    async fn rename_lanes(&mut self, from: &ServiceName, to: &ServiceName) -> Result<(), CoreError> {
        for mut lane in self.lanes.take(from) {
            let old = lane.stored_name().into_bytes();
            lane.rename(from, to);
            // The new one first: a core killed in between finds one of them, or both.
            let message = ToKeeper::Store { name: lane.stored_name().into_bytes() };
            self.keeper.send(&message, &lane.stored()).await.map_err(CoreError::Keeper)?;
            self.keeper.send(&ToKeeper::Drop { name: old }, &[]).await.map_err(CoreError::Keeper)?;
            self.lanes.insert(lane);
        }
        Ok(())
    }

    /// A new core: lanes whose one end got another name, and whose own the one before did not come to give.
    pub(in crate::core) async fn rename_lanes_left(
        &mut self,
        renamed: &BTreeMap<ServiceName, ServiceName>,
    ) -> Result<(), CoreError> {
        for (from, to) in renamed {
            if !self.entries.contains_key(from) && self.entries.contains_key(to) {
                self.rename_lanes(from, to).await?;
            }
        }
        Ok(())
    }

    /// The file was changed while no watchdog ran: whoever has another name since finds what it had. Before anything of
    /// either is loaded.
    pub(in crate::core) async fn rename_at_rest(&mut self) -> Result<(), CoreError> {
        let belongings = Belongings::of(&self.config.watchdog);
        let specs = self.config.services.values();
        let renamed = specs.filter_map(|spec| Some((spec.former_name()?, spec.name.clone())));
        let renamed: Vec<_> = renamed.filter(|(from, _)| !self.config.services.contains_key(from)).collect();
        for (from, to) in renamed {
            let is_there = |path: &PathBuf| path.exists() || self.store.is_unsettled(path);
            if !belongings.kept(&from).iter().any(is_there) {
                continue;
            }
            self.store.renew();
            while self.store.is_renewing() {
                self.store.ended().await;
            }
            let files = belongings.kept(&from);
            let is_settled = files.iter().all(|path| !self.store.is_unsettled(path));
            if !is_settled || !belongings.is_to_be_moved(&from, &to) {
                continue;
            }
            let text = match belongings.move_all(&from, &to) {
                Ok(()) => format!("it was `{from}`, and has all that it had"),
                Err(err) => format!("it was `{from}`, whose files can't get its name: {err}"),
            };
            self.events.add(Logged::of(&to, "renamed", text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn belongings(folder: &Path) -> Belongings {
        let (state, logs) = (folder.join("state"), folder.join("logs"));
        for folder in [state.join("wanted"), state.join("settings"), state.join("dead/old"), logs.clone()] {
            fs::create_dir_all(folder).unwrap();
        }
        Belongings { state, logs }
    }

    const FILES: [&str; 8] = [
        "state/NAME.snapshot",
        "state/NAME.snapshot.1",
        "state/settings/NAME.record",
        "state/wanted/NAME.record",
        "state/dead/NAME/1.letter",
        "logs/NAME.log",
        "logs/NAME.log.1",
        "logs/NAME-er.log",
    ];

    #[test]
    fn all_that_a_service_has_gets_the_new_name_also_when_it_is_done_twice() {
        let folder = tempfile::tempdir().unwrap();
        let belongings = belongings(folder.path());
        let previous = kept::previous(&belongings.kept(&name("old"))[2]);
        let previous = previous.strip_prefix(folder.path()).unwrap().to_str().unwrap().replace("old", "NAME");
        let files = FILES.map(|file| if file == FILES[1] { previous.clone() } else { file.to_owned() });
        let path = |file: &str, name: &str| folder.path().join(file.replace("NAME", name));
        for file in &files {
            fs::write(path(file, "old"), file).unwrap();
        }
        for file in [FILES[0], FILES[4]] {
            fs::create_dir_all(path(file, "new").parent().unwrap()).unwrap();
            fs::write(path(file, "new"), "of long ago").unwrap();
        }
        assert!(!belongings.is_to_be_moved(&name("old"), &name("new")));
        fs::remove_file(path(FILES[0], "new")).unwrap();
        assert!(belongings.is_to_be_moved(&name("old"), &name("new")));
        for _ in 0..2 {
            belongings.move_all(&name("old"), &name("new")).unwrap();
            assert!(!belongings.is_to_be_moved(&name("old"), &name("new")));
            for file in &files[..7] {
                assert_eq!(fs::read_to_string(path(file, "new")).unwrap(), *file);
                assert!(!path(file, "old").exists());
            }
        }
        assert!(path(&files[7], "old").exists(), "another service's");
        // A second one of long ago takes nothing from the first.
        assert_eq!(
            fs::read_to_string(path("state/dead/NAME.replaced-1/1.letter", "new")).unwrap(),
            "of long ago"
        );
        fs::create_dir_all(path("state/dead/NAME", "old")).unwrap();
        fs::write(path(FILES[4], "old"), FILES[4]).unwrap();
        belongings.move_all(&name("old"), &name("new")).unwrap();
        assert_eq!(fs::read_to_string(path("state/dead/NAME.replaced-2/1.letter", "new")).unwrap(), FILES[4]);
    }
}
