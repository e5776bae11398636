//! What an operator reads, and what a text means.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use proptest::prelude::*;
use serde_json::json;
use watchdog_lifecycle::Strategy as Takes;
use watchdog_lifecycle::policy::{Liveness, Policy, Readiness, Work};
use watchdog_lifecycle::restart::{Delay, Limit, When};

use watchdog_protocol::ServiceName;

use super::*;

const FILE: &str = "/srv/shop/watchdog.toml";

fn config(text: &str) -> Config {
    parse(Path::new(FILE), text).map_err(|errors| errors.to_string()).unwrap()
}

fn service(text: &str) -> ServiceSpec {
    config(text).services.into_values().next().unwrap()
}

/// What an operator reads, without the folder.
fn wrong(text: &str) -> String {
    parse(Path::new(FILE), text).unwrap_err().to_string().replace("/srv/shop/", "")
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = config("");
    assert_eq!(
        config.watchdog,
        WatchdogSection {
            state: "/srv/shop/.watchdog/state".into(),
            runtime: "/srv/shop/.watchdog/run".into(),
            logs: "/srv/shop/.watchdog/logs".into(),
            log_size: 10 << 20,
            log_files: 5,
            max_message: 16 << 20,
        }
    );
    assert!(config.services.is_empty());
}

#[test]
fn a_service_with_a_command_alone_has_the_defaults() {
    let spec = service("[service.counter]\nexec = [\"target/release/counter\", \"-v\"]");
    assert_eq!(spec.kind(), Kind::Service);
    assert_eq!(*spec.policy, Policy::service());
    assert_eq!(spec.launch.program, Path::new("/srv/shop/target/release/counter"));
    assert_eq!(spec.launch.args, ["-v"]);
    assert_eq!(spec.launch.dir, Path::new("/srv/shop"));
    assert_eq!((spec.launch.umask, spec.launch.user), (0o077, None));
    assert_eq!(spec.stop_signal, Signal::SIGTERM);
    assert_eq!(spec.save_interval, Duration::from_secs(1));
    assert!(spec.control.is_empty() && spec.settings.values.is_empty());
}

#[test]
fn a_program_is_ready_at_exec_and_talks_to_nobody() {
    let spec = service("[program.nginx]\nexec = [\"nginx\", \"-g\", \"daemon off;\"]");
    assert_eq!(spec.launch.program, Path::new("nginx"));
    assert_eq!(spec.policy.ready, Readiness::Exec);
    assert!(spec.policy.access.uses.is_empty() && spec.policy.access.offers.is_empty());
}

#[test]
fn a_task_runs_once_and_has_a_session_when_it_says_that_it_links_the_sdk() {
    let spec = service("[task.migrate]\nexec = [\"migrate\"]\nrestart = \"never\"");
    assert_eq!(spec.policy.restart.when, When::Never);
    assert_eq!(
        (spec.kind(), spec.policy.work, spec.policy.ready),
        (Kind::Program, Work::Once, Readiness::Exec)
    );
    let spec = service("[task.migrate]\nsdk = true\nexec = [\"migrate\"]\nsettings.depth = 3");
    assert_eq!(*spec.policy, Policy::task(Kind::Service));
    assert_eq!(spec.settings.values["depth"], 3);
}

#[test]
fn what_makes_no_sense_for_a_task_is_told() {
    insta::assert_snapshot!(wrong(r#"
[task.a]
exec = ["a"]
restart = "always"
ready = "notify"
start_timeout = "5s"
offer = []

[program.b]
exec = ["b"]
sdk = true
"#), @r#"
    watchdog.toml:4:11: restart = "always", expected "on-failure" or "never"
      4 | restart = "always"
        |           ^^^^^^^^
    watchdog.toml:5:1: [task.a] is done when it ends and can't have `ready`
      5 | ready = "notify"
        | ^^^^^
      hint: whoever requires a task waits until it has completed
    watchdog.toml:6:1: [task.a] is done when it ends and can't have `start_timeout`
      6 | start_timeout = "5s"
        | ^^^^^^^^^^^^^
      hint: whoever requires a task waits until it has completed
    watchdog.toml:7:1: [task.a] is no service and can't have `offer`
      7 | offer = []
        | ^^^^^
      hint: a task built on the SDK says so: sdk = true
    watchdog.toml:11:1: unknown key `sdk` in [program.b]
      11 | sdk = true
         | ^^^
      hint: known are: instances, renamed_from, exec, dir, env, user, umask, rlimits, resources, restart, restart_limit, restart_delay, start_timeout, stop_signal, stop_timeout, ready, liveness, failing_timeout, requires, after, offer, use, control, save_interval, lane_size, settings
    "#);
}

#[test]
fn a_group_puts_its_members_in_order_and_under_its_limit() {
    let config = config(
        r#"
        [group.shop]
        members = ["store", "front"]
        strategy = "rest-for-one"
        restart_limit = "2/10s"
        [program.front]
        exec = ["front"]
        [program.store]
        exec = ["store"]
        "#,
    );
    let group = &config.groups["shop"];
    assert_eq!(group.members.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["store", "front"]);
    assert_eq!(group.strategy, Takes::RestForOne);
    assert_eq!(group.limit, Limit::Within { failures: 2, window: Duration::from_secs(10) });
    assert_eq!(config.services["front"].policy.after, [group.members[0].clone()]);
    assert!(config.services.values().all(|spec| spec.policy.restart.limit == Limit::Off));
}

#[test]
fn what_is_wrong_with_a_group_is_told() {
    let services = "[program.a]\nexec = [\"a\"]\n[program.b]\nexec = [\"b\"]\n";
    let table = |keys: &str| wrong(&format!("{services}{keys}"));
    insta::assert_snapshot!(
        [
            table("restart_limit = \"off\"\n[group.g]\nmembers = [\"a\", \"b\"]\nstrategy = \"one-for-all\""),
            table("requires = [\"a\"]\n[group.g]\nmembers = [\"b\", \"a\"]\nstrategy = \"one-for-all\""),
            table("[group.a]\nmembers = [\"b\"]\nstrategy = \"one-for-all\""),
            table("[group.g]\nstrategy = \"all\"\nlimit = 3"),
            table("[group.g]\nmembers = [\"aa\"]\nstrategy = \"one-for-all\""),
            table("[group.g]\nmembers = [\"a\", \"a\"]\nstrategy = \"one-for-all\"\n[group.h]\nmembers = [\"a\"]\nstrategy = \"one-for-one\""),
        ]
        .join("\n---\n"),
        @r#"
    watchdog.toml:5:1: `b` is in group `g`, whose limit counts for it
      5 | restart_limit = "off"
        | ^^^^^^^^^^^^^
      hint: put restart_limit into [group.g]
    ---
    watchdog.toml:5:13: these wait for each other: a → b → a
      5 | requires = ["a"]
        |             ^^^
    ---
    watchdog.toml:5:8: `a` is given twice
      5 | [group.a]
        |        ^
      hint: the first one is at watchdog.toml:1:10
    ---
    watchdog.toml:5:8: [group.g] has no `members`; expected an array of names, like ["store", "front"]
      5 | [group.g]
        |        ^
    watchdog.toml:6:12: strategy = "all", expected "one-for-one", "rest-for-one" or "one-for-all"
      6 | strategy = "all"
        |            ^^^^^
    watchdog.toml:7:1: unknown key `limit` in [group.g]
      7 | limit = 3
        | ^^^^^
      hint: known are: members, strategy, restart_limit
    ---
    watchdog.toml:6:12: members names `aa`, and there is no such service
      6 | members = ["aa"]
        |            ^^^^
      hint: did you mean `a`?
    ---
    watchdog.toml:6:17: `a` is given twice
      6 | members = ["a", "a"]
        |                 ^^^
    watchdog.toml:9:12: `a` is in group `g` already
      9 | members = ["a"]
        |            ^^^
    "#
    );
}

#[test]
fn instances_are_services_of_one_table_and_its_name_means_all_of_them() {
    let config = config(
        r#"
        [service.worker]
        exec = ["worker"]
        instances = 11
        [program.front]
        exec = ["front"]
        requires = ["worker"]
        after = ["worker@2"]
        [group.all]
        members = ["worker", "front"]
        strategy = "one-for-one"
        "#,
    );
    assert_eq!(config.services.len(), 12);
    assert_eq!(config.services["worker@10"].launch, config.services["worker@9"].launch);
    let members: Vec<_> = config.groups["all"].members.iter().map(ServiceName::as_str).collect();
    assert_eq!((members[1], members[9], members[11]), ("worker@2", "worker@10", "front"), "by their numbers");
    assert_eq!(config.services["front"].policy.requires, ["worker".parse().unwrap()]);
}

#[test]
fn what_is_wrong_with_instances_is_told_once() {
    let registered = "[program.a]\nexec = [\"a\"]\ninstances = 2";
    let registered =
        parse_one(Path::new(FILE), registered).unwrap_err().to_string().replace("/srv/shop/", "");
    insta::assert_snapshot!(
        [
            wrong("[program.\"a@1\"]\nexec = [\"a\"]"),
            wrong("[program.a]\nexec = [\"a\"]\ninstances = 0"),
            wrong("[program.a]\nexec = [\"a\"]\ninstances = 3\nrequires = [\"b\", \"a@4\"]"),
            wrong("[program.a]\nexec = [\"a\"]\ninstances = 2\nafter = [\"a\"]"),
            registered,
        ]
        .join("\n---\n"),
        @r#"
    watchdog.toml:1:10: a table is for all instances of a service, `a@1` is one
      1 | [program."a@1"]
        |          ^^^^^
      hint: name it `a` and say how many: instances = N
    ---
    watchdog.toml:3:13: instances = 0, expected a whole number from 1 to 999
      3 | instances = 0
        |             ^
    ---
    watchdog.toml:4:13: requires names `b`, and there is no such service
      4 | requires = ["b", "a@4"]
        |             ^^^
    watchdog.toml:4:18: requires names `a@4`, and there is no such service
      4 | requires = ["b", "a@4"]
        |                  ^^^^^
      hint: did you mean `a@3`?
    ---
    watchdog.toml:4:10: these wait for each other: a@1 → a@1
      4 | after = ["a"]
        |          ^^^
    ---
    watchdog.toml:1:10: what is registered can't have `instances`; put it into watchdog.toml
      1 | [program.a]
        |          ^
    "#
    );
}

#[test]
fn every_key_of_a_service_arrives() {
    let spec = service(
        r#"
        [service.worker]
        exec = ["bin/worker"]
        restart = "always"
        restart_limit = "3/10s"
        restart_delay = { min = "50ms", max = "5s", reset = "2m" }
        start_timeout = "1m"
        stop_signal = "INT"
        stop_timeout = "0s"
        ready = "exec"
        liveness = "5s"
        failing_timeout = "off"
        save_interval = "200ms"
        lane_size = "64KiB"
        offer = ["a-*"]
        use = []
        control = ["status", "stop:worker"]
        dir = "work"
        user = 1000
        umask = "022"
        env = { MODE = "fast" }
        rlimits = { nofile = 1024, as = "1GiB", core = "unlimited", nproc = { soft = 1, hard = 2 } }
        "#,
    );
    let Policy { restart, start_timeout, stop_timeout, ready, liveness, failing_timeout, access, .. } =
        Arc::unwrap_or_clone(spec.policy);
    assert_eq!(restart.when, When::Always);
    assert_eq!(restart.limit, Limit::Within { failures: 3, window: Duration::from_secs(10) });
    assert_eq!(
        restart.delay,
        Delay::Growing {
            min: Duration::from_millis(50),
            max: Duration::from_secs(5),
            reset: Duration::from_secs(120)
        }
    );
    assert_eq!((start_timeout, stop_timeout), (Duration::from_secs(60), Duration::ZERO));
    assert_eq!((ready, failing_timeout), (Readiness::Exec, None));
    assert_eq!(liveness, Liveness::Heartbeat { interval: Duration::from_secs(5) });
    assert_eq!(access.offers, ["a-*".parse().unwrap()]);
    assert!(access.uses.is_empty());
    assert_eq!(spec.control, ["status".parse().unwrap(), "stop:worker".parse().unwrap()]);
    assert_eq!((spec.save_interval, spec.lane_size), (Duration::from_millis(200), 64 << 10));
    assert_eq!(spec.stop_signal, Signal::SIGINT);
    assert_eq!(spec.launch.dir, Path::new("/srv/shop/work"));
    assert_eq!(spec.launch.user.as_deref(), Some("1000"));
    assert_eq!(spec.launch.umask, 0o022);
    assert_eq!(*spec.launch.env, [("MODE".to_owned(), "fast".to_owned())]);
    let limit = |soft, hard| Rlimit { soft, hard };
    assert_eq!(spec.launch.rlimits[&Resource::Nofile], limit(1024, 1024));
    assert_eq!(spec.launch.rlimits[&Resource::As], limit(1 << 30, 1 << 30));
    assert_eq!(spec.launch.rlimits[&Resource::Core], limit(u64::MAX, u64::MAX));
    assert_eq!(spec.launch.rlimits[&Resource::Nproc], limit(1, 2));
}

#[test]
fn restarts_without_limit_and_without_delay_are_legal() {
    let spec = service("[service.a]\nexec = [\"/a\"]\nrestart_limit = \"off\"\nrestart_delay = \"0s\"");
    assert_eq!(spec.policy.restart.limit, Limit::Off);
    assert_eq!(spec.policy.restart.delay, Delay::AtOnce);
    let table = "[service.a]\nexec = [\"/a\"]\nrestart_limit = { count = 5, within = \"60s\" }";
    assert_eq!(service(table).policy.restart.limit, Policy::service().restart.limit);
}

#[test]
fn probes_say_what_is_tried_and_how_often() {
    let spec = service(
        r#"
        [program.db]
        exec = ["db"]
        ready = { tcp = "[::1]:5432", timeout = "3s" }
        liveness = { exec = ["bin/alive", "-q"], interval = "30s" }
        "#,
    );
    assert_eq!(spec.policy.ready, Readiness::Probe);
    let ready = spec.ready_probe.unwrap();
    assert_eq!(ready.kind, ProbeKind::Tcp { host: "::1".into(), port: 5432 });
    assert_eq!((ready.interval, ready.timeout), (Duration::from_millis(250), Duration::from_secs(3)));
    assert_eq!(spec.policy.liveness, Liveness::Probe { interval: Duration::from_secs(30) });
    let program = "/srv/shop/bin/alive".into();
    assert_eq!(spec.liveness_probe.unwrap().kind, ProbeKind::Exec { program, args: vec!["-q".into()] });
}

#[test]
fn a_line_may_say_that_a_program_is_ready_or_alive() {
    let spec = service(
        r#"
        [program.db]
        exec = ["db"]
        ready = { log = 'ready to accept (\d+ )?connections$' }
        liveness = { log = "^checkpoint", interval = "1m" }
        "#,
    );
    assert_eq!(spec.policy.ready, Readiness::Told);
    assert_eq!(spec.policy.liveness, Liveness::Heartbeat { interval: Duration::from_secs(60) });
    let (ready, alive) = (spec.log_signs.ready.clone().unwrap(), spec.log_signs.alive.clone().unwrap());
    assert!(ready.fits("LOG: ready to accept connections") && !ready.fits("ready to accept connections?"));
    assert!(alive.fits("checkpoint complete") && !alive.fits("no checkpoint"));
    assert!(!spec.is_notifying());
}

#[test]
fn a_page_is_an_address_without_encryption() {
    let kind = |address: &str| {
        let table = format!("[program.web]\nexec = [\"web\"]\nready = {{ http = \"{address}\" }}");
        service(&table).ready_probe.unwrap().kind
    };
    let http = |host: &str, port, path: &str| ProbeKind::Http { host: host.into(), port, path: path.into() };
    assert_eq!(kind("http://localhost"), http("localhost", 80, "/"));
    assert_eq!(kind("http://127.0.0.1:8080/health?deep=1"), http("127.0.0.1", 8080, "/health?deep=1"));
    assert_eq!(kind("http://[::1]/"), http("::1", 80, "/"));
    assert_eq!(kind("http://[::1]:81/a"), http("::1", 81, "/a"));
}

#[test]
fn a_settings_table_becomes_json_in_the_order_it_is_written() {
    let spec = service(
        r#"
        [service.a]
        exec = ["/a"]
        [service.a.settings]
        step = 0x10
        big = 18446744073709551615
        ratio = 0.5
        on = true
        when = 2026-01-02
        list = [1, { deep = "x" }]
        [service.a.settings.inner]
        "key.with.dots" = -1
        "#,
    );
    assert_eq!(
        serde_json::Value::Object(spec.settings.values).to_string(),
        json!({
            "step": 16, "big": u64::MAX, "ratio": 0.5, "on": true, "when": "2026-01-02",
            "list": [1, { "deep": "x" }], "inner": { "key.with.dots": -1 },
        })
        .to_string()
    );
}

#[test]
fn c1_text_that_is_no_toml_is_pointed_at() {
    insta::assert_snapshot!(wrong("[service.a]\nexec = [\"/a\"\nrestart = = 1\n"), @r#"
    watchdog.toml:3:1: missing comma between array elements, expected `,`
      3 | restart = = 1
        | ^
    watchdog.toml:3:14: unclosed array, expected `]`
      3 | restart = = 1
        |              ^
    "#);
}

#[test]
fn c2_an_unknown_key_comes_with_the_nearest_known_one() {
    insta::assert_snapshot!(
        wrong("[service.a]\nexec = [\"/a\"]\nrestrat = \"always\"\ngroup = \"x\"\n\n[watchdog]\nlog_sizes = 1\n\n[servce.b]\n"), @r#"
    watchdog.toml:3:1: unknown key `restrat` in [service.a]
      3 | restrat = "always"
        | ^^^^^^^
      hint: did you mean `restart`?
    watchdog.toml:4:1: unknown key `group` in [service.a]
      4 | group = "x"
        | ^^^^^
      hint: known are: instances, renamed_from, exec, dir, env, user, umask, rlimits, resources, restart, restart_limit, restart_delay, start_timeout, stop_signal, stop_timeout, ready, liveness, failing_timeout, requires, after, offer, use, control, save_interval, lane_size, settings
    watchdog.toml:7:1: unknown key `log_sizes` in [watchdog]
      7 | log_sizes = 1
        | ^^^^^^^^^
      hint: did you mean `log_size`?
    watchdog.toml:9:2: unknown key `servce` in the file
      9 | [servce.b]
        |  ^^^^^^
      hint: did you mean `service`?
    "#);
}

#[test]
fn c3_a_circle_shows_its_way() {
    insta::assert_snapshot!(
        wrong("[service.a]\nexec = [\"/a\"]\nrequires = [\"b\"]\n[service.b]\nexec = [\"/b\"]\nafter = [\"a\"]\n"), @r#"
    watchdog.toml:6:10: these wait for each other: a → b → a
      6 | after = ["a"]
        |          ^^^
    "#);
}

#[test]
fn c3_a_name_of_nobody_comes_with_the_nearest_service() {
    insta::assert_snapshot!(
        wrong("[service.counter]\nexec = [\"/a\"]\nuse = [\"*\", \"bmper\"]\n[service.bumper]\nexec = [\"/b\"]\nrequires = [\"conter\"]\ncontrol = [\"stop:nobody\", \"stop:x-*\"]\n"), @r#"
    watchdog.toml:3:13: use names `bmper`, and there is no such service
      3 | use = ["*", "bmper"]
        |             ^^^^^^^
      hint: did you mean `bumper`?
    watchdog.toml:6:13: requires names `conter`, and there is no such service
      6 | requires = ["conter"]
        |             ^^^^^^^^
      hint: did you mean `counter`?
    watchdog.toml:7:12: control names `nobody`, and there is no such service
      7 | control = ["stop:nobody", "stop:x-*"]
        |            ^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_use_that_the_others_offer_refuses_shows_both_places() {
    insta::assert_snapshot!(
        wrong(r#"[service.bumper]
exec = ["/b"]
use = ["counter", "nginx", "worker@2", "open"]
[service.counter]
exec = ["/c"]
offer = ["audit-*", "worker"]
[service.worker]
exec = ["/w"]
instances = 3
offer = []
use = ["counter"]
[service.open]
exec = ["/o"]
[program.nginx]
exec = ["nginx"]
"#), @r#"
    watchdog.toml:3:8: it can't be used: `counter` has offer = ["audit-*", "worker"], which leaves out `bumper`
      3 | use = ["counter", "nginx", "worker@2", "open"]
        |        ^^^^^^^^^
      hint: the offer is at watchdog.toml:6:9
    watchdog.toml:3:19: use names `nginx`, which is a plain program and has no inbox
      3 | use = ["counter", "nginx", "worker@2", "open"]
        |                   ^^^^^^^
    watchdog.toml:3:28: it can't be used: `worker@2` has offer = [], which leaves out `bumper`
      3 | use = ["counter", "nginx", "worker@2", "open"]
        |                            ^^^^^^^^^^
      hint: the offer is at watchdog.toml:10:9
    "#);
}

#[test]
fn a_use_is_refused_when_no_instance_may_and_what_is_not_named_is_not_refused() {
    config(
        r#"
        [service.worker]
        exec = ["/w"]
        instances = 3
        use = ["leader", "lead*"]
        [service.leader]
        exec = ["/l"]
        offer = ["worker@2", "leader"]
        use = ["*"]
        [service.anybody]
        exec = ["/a"]
        "#,
    );
}

#[test]
fn a_rule_by_which_nobody_can_talk_is_a_warning() {
    let config = config(
        r#"[service.counter]
exec = ["/c"]
offer = ["bumper", "batch-*", "nginx", "worker", "later-*"]
[service.bumper]
exec = ["/b"]
use = ["batch-*", "count*"]
[service.batch-1]
exec = ["/b"]
offer = ["counter"]
[service.worker]
exec = ["/w"]
instances = 2
use = []
offer = ["*"]
[program.nginx]
exec = ["nginx"]
"#,
    );
    let warnings: Vec<String> = unused(config.services.values()).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(warnings.join("\n").replace("/srv/shop/", ""), @r#"
    watchdog.toml:3:31: offer lets nobody in: no service that "nginx" means may use `counter`
      3 | offer = ["bumper", "batch-*", "nginx", "worker", "later-*"]
        |                               ^^^^^^^
    watchdog.toml:3:40: offer lets nobody in: no service that "worker" means may use `counter`
      3 | offer = ["bumper", "batch-*", "nginx", "worker", "later-*"]
        |                                        ^^^^^^^^
    watchdog.toml:3:50: offer lets nobody in: no service that "later-*" means may use `counter`
      3 | offer = ["bumper", "batch-*", "nginx", "worker", "later-*"]
        |                                                  ^^^^^^^^^
    watchdog.toml:6:8: use leads to nobody: no service that "batch-*" means offers to `bumper`
      6 | use = ["batch-*", "count*"]
        |        ^^^^^^^^^
    "#);
}

#[test]
fn c4_a_name_that_is_there_twice_shows_both_places() {
    insta::assert_snapshot!(wrong("[service.a]\nexec = [\"/a\"]\n\n[program.a]\nexec = [\"/b\"]\n"), @r#"
    watchdog.toml:4:10: `a` is given twice
      4 | [program.a]
        |          ^
      hint: the first one is at watchdog.toml:1:10
    "#);
    insta::assert_snapshot!(wrong("[service.a]\nexec = [\"/a\"]\n[service.b]\nexec = [\"/b\"]\n[service.a]\n"), @r#"
    watchdog.toml:5:10: `a` is given twice
      5 | [service.a]
        |          ^
      hint: the first one is at watchdog.toml:1:1
    "#);
    insta::assert_snapshot!(
        wrong("[service.b]\nexec = [\"/b\"]\n[service.a]\nexec = [\"/a\"]\nenv = { exec = \"1\" }\nexec = [\"/c\"]\n"), @r#"
    watchdog.toml:6:1: `exec` is given twice
      6 | exec = ["/c"]
        | ^^^^
      hint: the first one is at watchdog.toml:4:1
    "#);
}

#[test]
fn a_resource_is_declared_once_under_a_name_of_its_own() {
    let config = config(
        "[program.a]\nexec = [\"/a\"]\nresources = { db-connections = 100 }\n[service.b]\nexec = [\"/b\"]\ninstances = 2\n\
         [service.b.resources]\ngpu = 4294967295\n",
    );
    let declared = |name: &str| config.services[&name.parse::<ServiceName>().unwrap()].resources.clone();
    assert_eq!(declared("a"), BTreeMap::from([("db-connections".to_owned(), 100)]));
    assert_eq!(declared("b@2"), BTreeMap::from([("gpu".to_owned(), u32::MAX)]));
    let twice = "[service.b]\nexec = [\"/b\"]\nresources = { gpu = 1 }\n[program.a]\nexec = [\"/a\"]\nresources = { gpu = 2 }\n";
    insta::assert_snapshot!(wrong(twice), @r"
    watchdog.toml:6:15: `gpu` is given twice
      6 | resources = { gpu = 2 }
        |               ^^^
      hint: the first one is at watchdog.toml:3:15
    ");
    let wrong_values = "[program.a]\nexec = [\"/a\"]\n[program.a.resources]\ncpu = 1\nA = 1\n\"a@1\" = 1\nnone = 0\nmany = 4294967296\n";
    insta::assert_snapshot!(wrong(wrong_values), @r#"
    watchdog.toml:4:1: no resource that is declared can be called `cpu`
      4 | cpu = 1
        | ^^^
    watchdog.toml:5:1: `A` starts with 'A'; a service name starts with a letter a-z
      5 | A = 1
        | ^
    watchdog.toml:6:1: no resource that is declared can be called `a@1`
      6 | "a@1" = 1
        | ^^^^^
    watchdog.toml:7:8: none = 0, expected a whole number from 1 to 4294967295
      7 | none = 0
        |        ^
    watchdog.toml:8:8: many = 4294967296, expected a whole number from 1 to 4294967295
      8 | many = 4294967296
        |        ^^^^^^^^^^
    "#);
    insta::assert_snapshot!(wrong("[program.a]\nexec = [\"/a\"]\nresources = 5\n"), @r"
    watchdog.toml:3:13: resources = 5, expected a table of names and how many there are, like { db-connections = 100 }
      3 | resources = 5
        |             ^
    ");
}

#[test]
fn every_wrong_value_says_what_was_expected() {
    insta::assert_snapshot!(wrong(r#"
[watchdog]
state = 1
log_size = "10MB"
log_files = 0
max_message = "1KiB"

[service.a]
exec = "a b"
restart = "sometimes"
restart_limit = "5 in 60s"
restart_delay = "1s"
start_timeout = "0s"
stop_signal = "SIGNOTHING"
stop_timeout = 10
ready = "notify"
liveness = { tcp = "localhost:1" }
failing_timeout = "soon"
save_interval = "1 s"
offer = "*"
use = ["A"]
control = ["stopp:a", "status:A"]
dir = ""
user = "a:b"
umask = 22
env = { GOOD = 1, WATCHDOG_X = "1", "A=B" = "" }
rlimits = { nofile = "many", nofiles = 1, cpu = { soft = 2, hard = 1 }, as = { soft = 1 } }
requires = [1, "B"]

[service.b]
exec = []
restart_limit = { count = 0 }
restart_delay = { min = "1m", max = "1s", top = "1s" }
settings = 1

[program.c]
exec = [""]
ready = "sdk"
liveness = "5s"

[program.d]
exec = ["d"]
ready = { tcp = "nowhere" }
liveness = { tcp = "a:1", exec = ["b"] }

[program.e]
exec = ["e"]
ready = { http = "https://localhost/" }
liveness = { http = "http://localhost/a b" }

[program.f]
exec = ["f"]
ready = { log = "(" }
liveness = { log = "a", timeout = "1s" }
"#), @r#"
    watchdog.toml:3:9: state = 1, expected a path
      3 | state = 1
        |         ^
    watchdog.toml:4:12: log_size = "10MB", expected a size like "64KiB" or "10MiB", at least 4KiB
      4 | log_size = "10MB"
        |            ^^^^^^
    watchdog.toml:5:13: log_files = 0, expected a whole number from 1 to 1000
      5 | log_files = 0
        |             ^
    watchdog.toml:6:15: max_message = "1KiB", expected a size like "64KiB" or "10MiB", from 64KiB to 64MiB
      6 | max_message = "1KiB"
        |               ^^^^^^
    watchdog.toml:9:8: exec = "a b", expected a program and its arguments, like ["bin/worker", "--fast"]
      9 | exec = "a b"
        |        ^^^^^
    watchdog.toml:10:11: restart = "sometimes", expected "always", "on-failure" or "never"
      10 | restart = "sometimes"
         |           ^^^^^^^^^^^
    watchdog.toml:11:17: restart_limit = "5 in 60s", expected "off", "5/60s" or { count = 5, within = "60s" }
      11 | restart_limit = "5 in 60s"
         |                 ^^^^^^^^^^
    watchdog.toml:12:17: restart_delay = "1s", expected "0s" (always at once) or { min = "100ms", max = "30s", reset = "60s" }
      12 | restart_delay = "1s"
         |                 ^^^^
    watchdog.toml:13:17: start_timeout = "0s", expected a duration above zero
      13 | start_timeout = "0s"
         |                 ^^^^
    watchdog.toml:14:15: stop_signal = "SIGNOTHING", expected the name of a signal, like "TERM" or "INT"
      14 | stop_signal = "SIGNOTHING"
         |               ^^^^^^^^^^^^
    watchdog.toml:15:16: stop_timeout = 10, expected a duration like "100ms", "10s" or "1m"
      15 | stop_timeout = 10
         |                ^^
    watchdog.toml:16:9: ready = "notify", expected "sdk", "exec", { tcp = "host:port" }, { http = "http://host/path" }, { log = "regex" } or { exec = ["command"] }
      16 | ready = "notify"
         |         ^^^^^^^^
    watchdog.toml:17:12: liveness = a table, expected the time between two heartbeats, like "5s"
      17 | liveness = { tcp = "localhost:1" }
         |            ^^^^^^^^^^^^^^^^^^^^^^^
    watchdog.toml:18:19: failing_timeout = "soon", expected "off" or a duration above zero, like "1m"
      18 | failing_timeout = "soon"
         |                   ^^^^^^
    watchdog.toml:19:17: save_interval = "1 s", expected a duration like "100ms", "10s" or "1m"
      19 | save_interval = "1 s"
         |                 ^^^^^
    watchdog.toml:20:9: offer = "*", expected an array of names, or ["*"]
      20 | offer = "*"
         |         ^^^
    watchdog.toml:21:8: `A` starts with 'A'; a service name starts with a letter a-z
      21 | use = ["A"]
         |        ^^^
    watchdog.toml:22:12: control: `stopp` is no verb a grant can list
      22 | control = ["stopp:a", "status:A"]
         |            ^^^^^^^^^
      hint: did you mean `stop`?
    watchdog.toml:22:23: control: `A` starts with 'A'; a service name starts with a letter a-z
      22 | control = ["stopp:a", "status:A"]
         |                       ^^^^^^^^^^
    watchdog.toml:23:7: dir = "", expected a path
      23 | dir = ""
         |       ^^
    watchdog.toml:24:8: user = "a:b", expected the name or number of a user
      24 | user = "a:b"
         |        ^^^^^
    watchdog.toml:25:9: umask = 22, expected an octal mask in quotes, like "077"
      25 | umask = 22
         |         ^^
    watchdog.toml:26:16: GOOD = 1, expected a string, in quotes
      26 | env = { GOOD = 1, WATCHDOG_X = "1", "A=B" = "" }
         |                ^
    watchdog.toml:26:19: `WATCHDOG_X` can't be set: the watchdog itself sets WATCHDOG_ variables, all but WATCHDOG_LOG
      26 | env = { GOOD = 1, WATCHDOG_X = "1", "A=B" = "" }
         |                   ^^^^^^^^^^
    watchdog.toml:26:37: `A=B` can't be set: it is no name of a variable
      26 | env = { GOOD = 1, WATCHDOG_X = "1", "A=B" = "" }
         |                                     ^^^^^
    watchdog.toml:27:22: nofile = "many", expected a number, a size like "1GiB", "unlimited", or two of them as { soft = …, hard = … }
      27 | rlimits = { nofile = "many", nofiles = 1, cpu = { soft = 2, hard = 1 }, as = { soft = 1 } }
         |                      ^^^^^^
    watchdog.toml:27:30: unknown key `nofiles` in `rlimits`
      27 | rlimits = { nofile = "many", nofiles = 1, cpu = { soft = 2, hard = 1 }, as = { soft = 1 } }
         |                              ^^^^^^^
      hint: did you mean `nofile`?
    watchdog.toml:27:49: cpu = a table, expected both soft and hard, soft not above hard
      27 | rlimits = { nofile = "many", nofiles = 1, cpu = { soft = 2, hard = 1 }, as = { soft = 1 } }
         |                                                 ^^^^^^^^^^^^^^^^^^^^^^
    watchdog.toml:27:78: as = a table, expected both soft and hard, soft not above hard
      27 | rlimits = { nofile = "many", nofiles = 1, cpu = { soft = 2, hard = 1 }, as = { soft = 1 } }
         |                                                                              ^^^^^^^^^^^^
    watchdog.toml:28:13: requires = 1, expected a service name
      28 | requires = [1, "B"]
         |             ^
    watchdog.toml:28:16: `B` starts with 'B'; a service name starts with a letter a-z
      28 | requires = [1, "B"]
         |                ^^^
    watchdog.toml:31:8: exec = [], expected a program and its arguments, like ["bin/worker", "--fast"]
      31 | exec = []
         |        ^^
    watchdog.toml:32:17: restart_limit = a table, expected "off", "5/60s" or { count = 5, within = "60s" }
      32 | restart_limit = { count = 0 }
         |                 ^^^^^^^^^^^^^
    watchdog.toml:32:27: count = 0, expected a whole number from 1 to 1000
      32 | restart_limit = { count = 0 }
         |                           ^
    watchdog.toml:33:17: restart_delay = a table, expected min not above max
      33 | restart_delay = { min = "1m", max = "1s", top = "1s" }
         |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    watchdog.toml:33:43: unknown key `top` in `restart_delay`
      33 | restart_delay = { min = "1m", max = "1s", top = "1s" }
         |                                           ^^^
      hint: known are: min, max, reset
    watchdog.toml:34:12: settings = 1, expected a table
      34 | settings = …
         |            ^
    watchdog.toml:37:8: exec = [""], expected a program and its arguments, like ["bin/worker", "--fast"]
      37 | exec = [""]
         |        ^^^^
    watchdog.toml:38:9: ready = "sdk", expected "exec", "notify", { tcp = "host:port" }, { http = "http://host/path" }, { log = "regex" } or { exec = ["command"] }
      38 | ready = "sdk"
         |         ^^^^^
    watchdog.toml:39:12: liveness = "5s", expected { notify = "10s" }, { tcp = "host:port" }, { http = "http://host/path" }, { log = "regex" } or { exec = ["command"] }
      39 | liveness = "5s"
         |            ^^^^
    watchdog.toml:43:17: tcp = "nowhere", expected "host:port"
      43 | ready = { tcp = "nowhere" }
         |                 ^^^^^^^^^
    watchdog.toml:44:12: liveness = a table, expected { notify = "10s" }, { tcp = "host:port" }, { http = "http://host/path" }, { log = "regex" } or { exec = ["command"] }
      44 | liveness = { tcp = "a:1", exec = ["b"] }
         |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    watchdog.toml:48:18: http = "https://localhost/", expected an address like "http://127.0.0.1:8080/health"
      48 | ready = { http = "https://localhost/" }
         |                  ^^^^^^^^^^^^^^^^^^^^
    watchdog.toml:49:21: http = "http://localhost/a b", expected an address like "http://127.0.0.1:8080/health"
      49 | liveness = { http = "http://localhost/a b" }
         |                     ^^^^^^^^^^^^^^^^^^^^^^
    watchdog.toml:53:17: log = "(", expected a regular expression for a line, like "ready to accept connections$"
      53 | ready = { log = "(" }
         |                 ^^^
    watchdog.toml:54:25: unknown key `timeout` in `liveness`
      54 | liveness = { log = "a", timeout = "1s" }
         |                         ^^^^^^^
      hint: known are: log, interval
    "#);
}

#[test]
fn settings_that_no_json_can_hold_are_refused() {
    insta::assert_snapshot!(
        wrong("[service.a]\nexec = [\"/a\"]\nsettings.a.list = [1, inf]\nsettings.big = 99999999999999999999\n"), @r#"
    watchdog.toml:3:23: a.list.1 = a number, expected a finite number
      3 | settings.a.list = …
        |                   ^^^
    watchdog.toml:4:16: big = a number, expected an integer of at most 64 bits
      4 | settings.big = …
        |                ^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_program_has_no_session_to_configure() {
    insta::assert_snapshot!(
        wrong("[program.a]\nexec = [\"a\"]\ncontrol = [\"status\"]\n[program.a.settings]\nstep = 1\n"), @r#"
    watchdog.toml:3:1: [program.a] is no service and can't have `control`
      3 | control = ["status"]
        | ^^^^^^^
      hint: a program built on the SDK goes under [service.NAME]
    watchdog.toml:4:12: [program.a] is no service and can't have `settings`
      4 | [program.a.settings]
        |            ^^^^^^^^
      hint: a program built on the SDK goes under [service.NAME]
    "#);
}

#[test]
fn names_and_missing_commands_are_told() {
    insta::assert_snapshot!(wrong("[service.Counter]\nexec = [\"a\"]\n[program.a]\ndir = \".\"\n[service]\nb = 1\n"), @r#"
    watchdog.toml:1:10: `Counter` starts with 'C'; a service name starts with a letter a-z
      1 | [service.Counter]
        |          ^^^^^^^
    watchdog.toml:3:10: [program.a] has no `exec`; expected a program and its arguments, like ["bin/worker", "--fast"]
      3 | [program.a]
        |          ^
    watchdog.toml:6:5: b = 1, expected a table
      6 | b = 1
        |     ^
    "#);
}

#[test]
fn a_file_to_register_holds_exactly_one_service() {
    let one = |text| parse_one(Path::new("/tmp/one.toml"), text);
    let spec = one("[service.late]\nexec = [\"bin/late\"]\nrequires = [\"counter\"]").unwrap();
    assert_eq!(spec.launch.program, Path::new("/tmp/bin/late"));
    let mut texts = String::new();
    for text in ["", "[watchdog]\n", "[service.a]\nexec=[\"a\"]\n[program.b]\nexec=[\"b\"]\n"] {
        writeln!(texts, "{}", one(text).unwrap_err()).unwrap();
    }
    insta::assert_snapshot!(texts, @r#"
    /tmp/one.toml:1:1: expected exactly one [service.NAME], [program.NAME] or [task.NAME], found 0
      1 |
        | ^
    /tmp/one.toml:1:2: unknown key `watchdog` in the file
      1 | [watchdog]
        |  ^^^^^^^^
      hint: known are: service, program, task
    /tmp/one.toml:1:1: expected exactly one [service.NAME], [program.NAME] or [task.NAME], found 2
      1 | [service.a]
        | ^
    "#);
}

#[test]
fn the_same_service_elsewhere_in_the_file_is_the_same() {
    let first = "[service.a]\nexec = [\"/a\"]\n";
    let settings = "[service.a.settings]\nstep = 2\n";
    let a = service(first);
    assert!(a.same_as(&service(&format!("# a comment\n\n{first}"))));
    assert!(!a.same_as(&service(&format!("{first}{settings}"))));
    assert!(!a.same_as(&service(&format!("{first}stop_timeout = \"1s\""))));
}

/// Lines that are nearly right, in any order: far more of them get deep into the reader than random text does.
fn nearly_right() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "[watchdog]",
        "[service.a]",
        "[service.b]",
        "[program.a]",
        "[service.\"ä\"]",
        "[service.a.settings]",
        "[[service.c]]",
        "exec = [\"a\"]",
        "exec = [\"a\", 1]",
        "exec = 5",
        "exec.a = 1",
        "state = \"x\"",
        "requires = [\"b\"]",
        "after = [\"a\", \"ü\"]",
        "use = [\"*\"]",
        "offer = [\"b-*\"]",
        "control = [\"x:y\"]",
        "restart_limit = { count = 1 }",
        "restart_delay = { min = \"1s\" }",
        "ready = { tcp = \"a:1\" }",
        "liveness = \"1s\"",
        "rlimits = { cpu = { soft = 1 } }",
        "env = { \"\" = 1 }",
        "step = [[1], {}]",
        "x = \"\"\"\n\u{1f600}",
        "y = nan",
        "user = 4294967295",
        "umask = \"888\"",
        "\u{feff}",
        "= 1",
        "\r",
    ]);
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_places_inside_it(
        text in prop_oneof![".{0,200}", nearly_right(), any::<Vec<u8>>().prop_map(|b| String::from_utf8_lossy(&b).into_owned())]
    ) {
        for errors in [
            parse(Path::new(FILE), text.as_str()).err(),
            parse_one(Path::new(FILE), &text).err(),
        ].into_iter().flatten() {
            prop_assert!(errors.iter().count() > 0);
            for error in &errors {
                let place = error.place.as_ref().expect("all errors of a text have a place");
                let lines: Vec<&str> = text.split('\n').collect();
                prop_assert!((1..=lines.len()).contains(&place.line()), "{error}");
                prop_assert!(place.column() <= lines[place.line() - 1].chars().count() + 1, "{error}");
            }
            let places: Vec<_> = errors.iter().map(|e| e.place.as_ref().map(|p| (p.line(), p.column()))).collect();
            prop_assert!(places.is_sorted());
        }
    }
}

#[test]
fn no_service_has_the_name_that_an_operator_sends_by() {
    let text = wrong("[service.operator]\nexec = [\"a\"]\n");
    assert!(text.contains("watchdog.toml:1:10: `operator` is the name of whoever sends"), "{text}");
}

#[test]
fn no_service_has_the_name_of_the_watchdogs_own_records() {
    for title in ["service", "program", "task"] {
        let text = wrong(&format!("[{title}.watchdog]\nexec = [\"a\"]\n"));
        assert!(text.contains("`watchdog` is the name that the watchdog's own records have"), "{text}");
    }
}
