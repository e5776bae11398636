//! What differs, and what is to be done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use watchdog_lifecycle::{GroupPolicy, Reach};
use watchdog_protocol::ServiceName;
use watchdog_protocol::manifest::fnv1a;
use watchdog_protocol::plan::{Deed, FieldChange, GroupPlan, PLAN_VERSION, Plan, ServicePlan, Way};

use super::keys::{self, Keys, Said};
use crate::config::schema::Schema;
use crate::config::{ServiceSpec, WatchdogSection};

/// What is there of one service now.
#[derive(Debug)]
pub(crate) struct Now<'a> {
    /// As it is configured.
    pub(crate) in_force: &'a ServiceSpec,
    /// As its process was configured when it started, and has been told since; `None`: none runs.
    pub(crate) running: Option<&'a ServiceSpec>,
    /// The type of its settings.
    pub(crate) schema: Option<&'a Schema>,
    /// The files of its program are others than its process was started from.
    pub(crate) is_rebuilt: bool,
    /// Settings that were set over the file.
    pub(crate) overridden: BTreeSet<String>,
    /// Who wants it down, in words.
    pub(crate) wanted_down: Option<String>,
    /// It is a task that did its work.
    pub(crate) is_completed: bool,
    /// It failed, or waits for its next try.
    pub(crate) has_failed: bool,
    /// What it has on disk that outlives its removal.
    pub(crate) keeps: Vec<PathBuf>,
    /// It was registered, and is in no file.
    pub(crate) is_registered: bool,
}

/// Both sides, whole.
#[derive(Debug)]
pub(crate) struct Sides<'a> {
    /// The file's path.
    pub(crate) config: String,
    /// A digest of its text.
    pub(crate) digest: u64,
    /// `[watchdog]`, of the file and in force.
    pub(crate) watchdog: [&'a WatchdogSection; 2],
    /// Groups, of the file and in force.
    pub(crate) groups: [&'a BTreeMap<ServiceName, GroupPolicy>; 2],
    /// The services that there would be, by the file.
    pub(crate) file: BTreeMap<ServiceName, (&'a ServiceSpec, Option<&'a Schema>)>,
    /// Those that there are; of the registered ones only such as are in the file too.
    pub(crate) now: BTreeMap<ServiceName, Now<'a>>,
}

/// The plan of a reload: empty when nothing differs.
pub(crate) fn plan(sides: &Sides<'_>) -> Plan {
    let mut services = Vec::new();
    let renamed = renamed(sides);
    for (name, (spec, schema)) in &sides.file {
        if let Some(before) = renamed.get(name) {
            services.extend(sides.now.get(before).map(|now| renamed_from(before, spec, *schema, now)));
            continue;
        }
        services.extend(match sides.now.get(name) {
            Some(now) => changed(spec, *schema, now),
            None => Some(added(spec)),
        });
    }
    let is_gone =
        |name: &ServiceName| !sides.file.contains_key(name) && !renamed.values().any(|before| before == name);
    for (name, now) in sides.now.iter().filter(|(name, _)| is_gone(name)) {
        services.push(removed(name, now));
    }
    services.sort_by(|one, other| one.service.cmp(&other.service));
    let [file, in_force] = sides.watchdog.map(keys::of_watchdog);
    let mut plan = Plan {
        version: PLAN_VERSION,
        id: 0,
        config: sides.config.clone(),
        watchdog: differences(&file, &in_force, None),
        groups: groups(sides.groups),
        services,
    };
    plan.id = id(&plan, sides.digest);
    plan
}

/// How far what a reload does to a service that stays reaches, for the lifecycle.
pub(crate) fn reach(plan: &ServicePlan) -> Reach {
    match plan.deed {
        Deed::Live if plan.fields.iter().any(|field| field.field == "liveness") => Reach::Watch,
        Deed::Live => Reach::Live,
        Deed::Restart | Deed::Recreate | Deed::Rename | Deed::Add | Deed::Remove => Reach::Restart,
    }
}

/// Words change while nothing else does: for how long it is stopped, who stopped it.
fn id(plan: &Plan, digest: u64) -> u64 {
    let mut plan = plan.clone();
    for service in &mut plan.services {
        service.notes.clear();
    }
    let bytes = postcard::to_stdvec(&(plan, digest)).expect("plain data");
    fnv1a(&bytes)
}

fn changed(spec: &ServiceSpec, schema: Option<&Schema>, now: &Now<'_>) -> Option<ServicePlan> {
    let of_now = |spec| keys::of_service(spec, now.schema);
    let running = now.running.map(of_now);
    let mut fields = differences(&keys::of_service(spec, schema), &of_now(now.in_force), running.as_ref());
    if now.is_rebuilt {
        let there = Some("the file that is there now".to_owned());
        fields.push(FieldChange {
            field: "program".to_owned(),
            way: Way::Restart,
            file: there.clone(),
            in_force: there,
            running: Some("a file that was there before".to_owned()),
        });
    }
    let mut notes = Vec::new();
    let way = fields.iter().map(|field| field.way).max();
    if way.is_none() && !now.is_registered {
        return None;
    }
    let deed = match way {
        None | Some(Way::Live) => Deed::Live,
        Some(Way::Restart) => Deed::Restart,
        Some(Way::Recreate | Way::Never) => Deed::Recreate,
    };
    if now.is_registered {
        notes.push("was registered, and is in the file now, which counts from here on".to_owned());
    }
    for field in &fields {
        let path = field.field.strip_prefix("settings.");
        if let Some(path) = path.filter(|path| now.overridden.contains(*path)) {
            notes.push(format!(
                "{} stays as it was set over the file; `watchdog unset {} {path}` goes back to it",
                field.field, spec.name
            ));
        }
    }
    match (&now.wanted_down, deed) {
        (Some(by), Deed::Restart | Deed::Recreate) => notes.push(format!("stays down: {by}")),
        (None, Deed::Restart | Deed::Recreate) if now.is_completed => {
            notes.push("is done, and not run again".to_owned());
        }
        (None, Deed::Restart | Deed::Recreate) if now.has_failed => {
            notes.push("had failed, and is tried again".to_owned());
        }
        _ => {}
    }
    Some(ServicePlan { service: spec.name.clone(), deed, renamed_from: None, fields, notes })
}

/// Those that are there under another name so far, by the new one.
fn renamed(sides: &Sides<'_>) -> BTreeMap<ServiceName, ServiceName> {
    let from = |(name, (spec, _)): (&ServiceName, &(&ServiceSpec, Option<&Schema>))| {
        let before = spec.former_name()?;
        let is_it = sides.now.contains_key(&before)
            && !sides.file.contains_key(&before)
            && !sides.now.contains_key(name);
        is_it.then(|| (name.clone(), before))
    };
    sides.file.iter().filter_map(from).collect()
}

fn renamed_from(
    before: &ServiceName,
    spec: &ServiceSpec,
    schema: Option<&Schema>,
    now: &Now<'_>,
) -> ServicePlan {
    let plan = changed(spec, schema, now);
    let (fields, notes) = plan.map(|plan| (plan.fields, plan.notes)).unwrap_or_default();
    let renamed_from = Some(before.clone());
    ServicePlan { service: spec.name.clone(), deed: Deed::Rename, renamed_from, fields, notes }
}

fn added(spec: &ServiceSpec) -> ServicePlan {
    ServicePlan {
        service: spec.name.clone(),
        deed: Deed::Add,
        renamed_from: None,
        fields: Vec::new(),
        notes: Vec::new(),
    }
}

fn removed(name: &ServiceName, now: &Now<'_>) -> ServicePlan {
    let mut notes = Vec::new();
    if !now.keeps.is_empty() {
        let keeps = now.keeps.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
        notes.push(format!(
            "what it has on disk stays, and is its again when it comes back; to drop it: rm {keeps}"
        ));
    }
    ServicePlan { service: name.clone(), deed: Deed::Remove, renamed_from: None, fields: Vec::new(), notes }
}

/// The keys that are not the same on all sides.
fn differences(file: &Keys, in_force: &Keys, running: Option<&Keys>) -> Vec<FieldChange> {
    let all: BTreeSet<&String> =
        file.keys().chain(in_force.keys()).chain(running.into_iter().flat_map(Keys::keys)).collect();
    let mut found = Vec::new();
    for field in all {
        let sides = [file.get(field), in_force.get(field), running.unwrap_or(in_force).get(field)];
        let is_same = |one: Option<&Said>, other: Option<&Said>| match (one, other) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_same(sides[0], sides[1]) && is_same(sides[1], sides[2]) {
            continue;
        }
        let said = || sides.into_iter().flatten();
        let way = said().map(|said| said.way).max().unwrap_or(Way::Live);
        let place = said().map(Said::place).min();
        let shown = |side: Option<&Said>| side.map(Said::shown);
        // Where the values are not shown, that they are not the same is.
        let against = |side: Option<&Said>| match (side, sides[1]) {
            (Some(side), Some(in_force)) if !side.is_same(in_force) && side.shown() == in_force.shown() => {
                Some("(another value)".to_owned())
            }
            (side, _) => shown(side),
        };
        let running = running.and_then(|_| against(sides[2]));
        let change = FieldChange {
            field: field.clone(),
            way,
            file: against(sides[0]),
            in_force: shown(sides[1]),
            running,
        };
        found.push((place, change));
    }
    // As in the documentation.
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, change)| change).collect()
}

fn groups([file, in_force]: [&BTreeMap<ServiceName, GroupPolicy>; 2]) -> Vec<GroupPlan> {
    let said = |groups: &BTreeMap<ServiceName, GroupPolicy>, name: &ServiceName| {
        groups.get(name).map(|policy| {
            let (members, limit) = (keys::list(&policy.members), keys::limit(policy.limit));
            format!("{} of {members}, restart_limit {limit}", policy.strategy.as_str())
        })
    };
    let all: BTreeSet<&ServiceName> = file.keys().chain(in_force.keys()).collect();
    let plans = all.into_iter().map(|name| GroupPlan {
        group: name.clone(),
        file: said(file, name),
        in_force: said(in_force, name),
    });
    plans.filter(|plan| plan.file != plan.in_force).collect()
}
