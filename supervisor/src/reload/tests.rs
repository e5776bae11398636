use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use watchdog_lifecycle::Reach;
use watchdog_protocol::ServiceName;
use watchdog_protocol::plan::{Deed, Plan, ServicePlan, Way};

use super::{Now, Sides, plan, reach};
use crate::config::fixture::manifest;
use crate::config::schema::Schema;
use crate::config::{self, Config, ServiceSpec};

/// Each key with values that all differ, the default first where it has one, and the way of a change among them.
const KEYS: &[(&str, &[&str], Way)] = &[
    ("exec", &[r#"["a"]"#, r#"["a", "b c"]"#, r#"["a", "b", "c"]"#, r#"["/a"]"#], Way::Restart),
    ("dir", &[r#"".""#, r#""sub""#], Way::Restart),
    ("env", &["{}", r#"{ A = "1" }"#, r#"{ A = "2" }"#, r#"{ B = "1" }"#], Way::Restart),
    ("user", &["", "0", r#""nobody""#], Way::Restart),
    ("umask", &[r#""077""#, r#""022""#], Way::Restart),
    ("rlimits", &["{}", "{ nofile = 10 }", "{ nofile = { soft = 5, hard = 10 } }"], Way::Restart),
    ("ready", &["", r#"{ tcp = "a:1" }"#, r#"{ tcp = "a:2" }"#, r#"{ log = "x" }"#], Way::Restart),
    ("restart", &[r#""on-failure""#, r#""never""#, r#""always""#], Way::Live),
    ("restart_limit", &[r#""5/60s""#, r#""off""#, r#""5/61s""#], Way::Live),
    ("restart_delay", &["", r#""0s""#, r#"{ min = "1s" }"#], Way::Live),
    ("start_timeout", &[r#""30s""#, r#""1s""#], Way::Live),
    ("stop_signal", &[r#""TERM""#, r#""INT""#], Way::Live),
    ("stop_timeout", &[r#""10s""#, r#""0s""#], Way::Live),
    ("failing_timeout", &[r#""60s""#, r#""off""#], Way::Live),
    ("requires", &["[]", r#"["z"]"#], Way::Live),
    ("after", &["[]", r#"["z"]"#], Way::Live),
    ("resources", &["{}", "{ db-NAME = 1 }", "{ db-NAME = 2 }", "{ db-NAME = 1, gpu-NAME = 1 }"], Way::Live),
];

/// Those of services alone.
const OF_SERVICES: &[(&str, &[&str], Way)] = &[
    ("offer", &[r#"["*"]"#, "[]", r#"["z"]"#], Way::Live),
    ("use", &[r#"["*"]"#, "[]", r#"["z"]"#], Way::Live),
    ("control", &["[]", r#"["status"]"#, r#"["status:z"]"#], Way::Live),
    ("save_interval", &[r#""1s""#, r#""2s""#], Way::Live),
    ("lane_size", &[r#""1MiB""#, r#""64KiB""#], Way::Live),
    ("settings", &["{}", "{ a = 1 }", "{ a = 2 }", r#"{ b = { c = "x" } }"#], Way::Live),
    ("liveness", &["", r#""1s""#, r#""2s""#], Way::Restart),
];

/// Those of programs alone.
const OF_PROGRAMS: &[(&str, &[&str], Way)] =
    &[("liveness", &["", r#"{ tcp = "a:1" }"#, r#"{ tcp = "a:1", interval = "1s" }"#], Way::Live)];

fn tables() -> impl Strategy<Value = String> {
    let value = |(key, values, _): (&'static str, &'static [&'static str], Way)| {
        select(values).prop_map(move |value| match value {
            "" => String::new(),
            value => format!("{key} = {value}\n"),
        })
    };
    any::<bool>()
        .prop_flat_map(move |is_service| {
            let own = if is_service { OF_SERVICES } else { OF_PROGRAMS };
            let lines: Vec<_> = KEYS.iter().chain(own).copied().map(value).collect();
            lines.prop_map(move |lines| {
                let title = if is_service { "service" } else { "program" };
                (title, lines.concat())
            })
        })
        .prop_map(|(title, lines)| format!("[{title}.NAME]\n{lines}"))
}

fn files() -> impl Strategy<Value = String> {
    (subsequence(&["a", "b", "c"][..], 0..=3), prop::collection::vec(tables(), 3)).prop_map(
        |(names, tables)| {
            let tables = names.iter().zip(tables).map(|(name, table)| table.replace("NAME", name));
            format!("[service.z]\nexec = [\"z\"]\n{}", tables.collect::<String>())
        },
    )
}

fn parsed(text: &str) -> Config {
    config::parse(Path::new("/etc/watchdog.toml"), text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn now(spec: &ServiceSpec) -> Now<'_> {
    Now {
        in_force: spec,
        running: Some(spec),
        schema: None,
        is_rebuilt: false,
        overridden: BTreeSet::new(),
        wanted_down: None,
        is_completed: false,
        has_failed: false,
        keeps: Vec::new(),
        is_registered: false,
    }
}

fn sides<'a>(file: &'a Config, in_force: &'a Config) -> Sides<'a> {
    Sides {
        config: "watchdog.toml".to_owned(),
        digest: 0,
        watchdog: [&file.watchdog, &in_force.watchdog],
        groups: [&file.groups, &in_force.groups],
        file: file.services.iter().map(|(name, spec)| (name.clone(), (spec, None))).collect(),
        now: in_force.services.iter().map(|(name, spec)| (name.clone(), now(spec))).collect(),
    }
}

fn planned(file: &str, in_force: &str) -> Plan {
    plan(&sides(&parsed(file), &parsed(in_force)))
}

proptest! {
    #[test]
    fn whatever_differs_is_planned_and_nothing_else(file in files(), in_force in files()) {
        let (file, in_force) = (parsed(&file), parsed(&in_force));
        let plan = plan(&sides(&file, &in_force));
        let planned: BTreeMap<&ServiceName, _> = plan.services.iter().map(|it| (&it.service, it)).collect();
        prop_assert_eq!(planned.len(), plan.services.len(), "each once");
        for name in file.services.keys().chain(in_force.services.keys()) {
            let deed = planned.get(name).map(|plan| plan.deed);
            match (file.services.get(name), in_force.services.get(name)) {
                (Some(_), None) => prop_assert_eq!(deed, Some(Deed::Add)),
                (None, Some(_)) => prop_assert_eq!(deed, Some(Deed::Remove)),
                (Some(one), Some(other)) if one.same_as(other) => prop_assert_eq!(deed, None),
                (Some(one), Some(other)) => {
                    let service = planned[name];
                    let is_other_kind = one.kind() != other.kind();
                    prop_assert_eq!(is_other_kind, service.deed == Deed::Recreate);
                    let most = service.fields.iter().map(|field| field.way).max();
                    prop_assert_eq!(most, Some(match service.deed {
                        Deed::Live => Way::Live,
                        Deed::Restart => Way::Restart,
                        _ => Way::Recreate,
                    }));
                    if reach(service) != Reach::Restart {
                        prop_assert_eq!(&one.launch, &other.launch, "a process can't be given another one");
                        prop_assert_eq!(one.policy.ready, other.policy.ready);
                        prop_assert_eq!(&one.log_signs, &other.log_signs);
                    }
                    if reach(service) == Reach::Live {
                        prop_assert_eq!(one.policy.liveness, other.policy.liveness);
                        prop_assert_eq!(&one.liveness_probe, &other.liveness_probe);
                    }
                }
                (None, None) => unreachable!("it is of one of them"),
            }
        }
    }

    #[test]
    fn what_is_in_force_needs_no_plan_and_the_same_plan_has_the_same_id(file in files(), in_force in files()) {
        prop_assert!(planned(&file, &file).is_empty());
        prop_assert_eq!(planned(&file, &in_force).id, planned(&file, &in_force).id);
    }

    #[test]
    fn a_change_of_one_key_has_that_keys_way(at in 0..KEYS.len(), one in any::<usize>(), other in any::<usize>()) {
        let (key, values, way) = KEYS[at];
        let (one, other) = (values[one % values.len()], values[other % values.len()]);
        let text = |value: &str| {
            let exec = if key == "exec" { "" } else { "exec = [\"x\"]\n" };
            let line = if value.is_empty() { String::new() } else { format!("{key} = {value}\n") };
            format!("[service.z]\nexec = [\"z\"]\n[program.a]\n{exec}{line}").replace("NAME", "a")
        };
        let plan = planned(&text(one), &text(other));
        if one == other {
            prop_assert!(plan.is_empty());
            return Ok(());
        }
        for field in &plan.services[0].fields {
            prop_assert!(field.field == key || field.field.starts_with(&format!("{key}.")), "{field:?}");
            prop_assert_eq!(field.way, way);
        }
    }
}

#[test]
fn the_same_value_in_other_words_is_no_change() {
    let one = "[program.a]\nexec = [\"/b/a\"]\nrestart_limit = \"5/60s\"\nstart_timeout = \"1m\"\n";
    let other = "[program.a]\nexec = [\"/b/./a\"]\nrestart_limit = { count = 5, within = \"1m\" }\nstart_timeout = \"60s\"\n";
    assert!(planned(one, other).is_empty());
}

#[test]
fn a_value_of_the_environment_is_never_shown() {
    let text = |value: &str| format!("[program.a]\nexec = [\"a\"]\nenv = {{ TOKEN = \"{value}\" }}\n");
    let plan = planned(&text("hush-1"), &text("hush-2"));
    assert_eq!(plan.services[0].fields[0].field, "env.TOKEN");
    assert_eq!(plan.services[0].fields[0].file.as_deref(), Some("(another value)"));
    assert!(!serde_json::to_string(&plan).unwrap().contains("hush"));
    // Yet another value is another plan.
    let digest = |digest| plan_with(&text("hush-1"), &text("hush-2"), digest);
    assert_ne!(digest(1).id, digest(2).id);
}

#[test]
fn a_secret_setting_is_compared_and_not_shown() {
    let schema = r#"{"type":"object","properties":{"step":{"type":"integer"},
        "token":{"type":"string","KEYWORD":true}}}"#;
    let schema = schema.replace("KEYWORD", watchdog_protocol::manifest::SECRET_KEYWORD);
    let schema = Schema::of(&manifest(Some(&schema))).unwrap();
    let text = |value: &str| {
        format!("[service.a]\nexec = [\"a\"]\nsettings = {{ token = \"{value}\", step = 1 }}\n")
    };
    let (file, in_force) = (parsed(&text("hush-1")), parsed(&text("hush-2")));
    let mut sides = sides(&file, &in_force);
    sides.file.values_mut().for_each(|(_, of)| *of = Some(&schema));
    sides.now.values_mut().for_each(|now| now.schema = Some(&schema));
    let plan = plan(&sides);
    assert_eq!(plan.services[0].fields[0].field, "settings.token");
    assert_eq!(plan.services[0].fields.len(), 1);
    assert!(!serde_json::to_string(&plan).unwrap().contains("hush"));
}

fn plan_with(file: &str, in_force: &str, digest: u64) -> Plan {
    let (file, in_force) = (parsed(file), parsed(in_force));
    plan(&Sides { digest, ..sides(&file, &in_force) })
}

#[test]
fn what_stays_as_it_is_is_said() {
    let text = |step: u32, arg: &str| {
        format!("[service.a]\nexec = [\"a\", \"{arg}\"]\nsettings = {{ step = {step} }}\n")
    };
    let (file, in_force) = (parsed(&text(2, "x")), parsed(&text(1, "y")));
    let mut sides = sides(&file, &in_force);
    let a = sides.now.values_mut().next().unwrap();
    a.overridden = BTreeSet::from(["step".to_owned()]);
    a.wanted_down = Some("stop by operator (uid 0)".to_owned());
    let plan = plan(&sides);
    assert_eq!(
        plan.services[0].notes,
        [
            "settings.step stays as it was set over the file; `watchdog unset a step` goes back to it",
            "stays down: stop by operator (uid 0)",
        ]
    );
}

#[test]
fn a_renamed_service_is_neither_added_nor_removed_and_only_once() {
    let named = |name: &str, more: &str| format!("[program.{name}]\nexec = [\"x\"]\n{more}\n");
    let from = |name: &str| named(name, "renamed_from = \"old\"\nstop_timeout = \"3s\"");
    let deeds = |file: &str, in_force: &str| {
        let plan = planned(file, in_force);
        let deed = |it: &ServicePlan| (it.service.to_string(), it.deed, it.fields.len());
        plan.services.iter().map(deed).collect::<Vec<_>>()
    };
    let new = |deed| vec![("new".to_owned(), deed, usize::from(deed == Deed::Rename))];
    assert_eq!(deeds(&from("new"), &named("old", "")), new(Deed::Rename));
    assert_eq!(deeds(&from("new"), ""), new(Deed::Add));
    assert_eq!(deeds(&from("new"), &from("new")), []);
    let both = format!("{}{}", named("new", ""), named("old", ""));
    let (live, gone) = (("new".to_owned(), Deed::Live, 1), ("old".to_owned(), Deed::Remove, 0));
    assert_eq!(deeds(&from("new"), &both), [live, gone]);
    let instances = |name: &str, more: &str| named(name, &format!("instances = 2\n{more}"));
    let plan = planned(&instances("new", "renamed_from = \"old\""), &instances("old", ""));
    let pairs: Vec<_> = plan
        .services
        .iter()
        .map(|it| (it.renamed_from.clone().unwrap().to_string(), it.service.to_string()))
        .collect();
    assert_eq!(pairs, [("old@1".to_owned(), "new@1".to_owned()), ("old@2".to_owned(), "new@2".to_owned())]);
}

#[test]
fn a_program_that_was_built_anew_is_drift_under_the_same_table() {
    let config = parsed("[program.a]\nexec = [\"a\"]\n");
    let mut sides = sides(&config, &config);
    sides.now.values_mut().next().unwrap().is_rebuilt = true;
    let plan = plan(&sides);
    assert_eq!(
        (plan.services[0].deed, plan.services[0].fields[0].field.as_str()),
        (Deed::Restart, "program")
    );
}

#[test]
fn keys_of_the_watchdog_itself_and_groups_are_told() {
    let file = "[watchdog]\nlog_size = \"1MiB\"\nstate = \"s\"\n[program.a]\nexec = [\"a\"]\n[program.b]\nexec = [\"b\"]\n[group.g]\nmembers = [\"a\", \"b\"]\nstrategy = \"one-for-all\"\n";
    let in_force = "[program.a]\nexec = [\"a\"]\n[program.b]\nexec = [\"b\"]\n";
    let plan = planned(file, in_force);
    let keys: Vec<_> = plan.watchdog.iter().map(|field| (field.field.as_str(), field.way)).collect();
    assert_eq!(keys, [("state", Way::Never), ("log_size", Way::Live)]);
    assert_eq!(plan.groups[0].file.as_deref(), Some("one-for-all of [a, b], restart_limit 5/60s"));
}
