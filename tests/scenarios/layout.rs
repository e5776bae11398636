//! Who may import whom: a manifest is the one import rule the compiler enforces, and this pins the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

use serde_json::Value;

/// For each crate, the crates of the workspace it may use when it runs.
const MAY_USE: &[(&str, &[&str])] = &[
    ("watchdog-protocol", &[]),
    ("watchdog-seqpacket", &["watchdog-protocol"]),
    ("watchdog-query", &["watchdog-protocol"]),
    ("watchdog-macros", &[]),
    ("watchdog-lifecycle", &["watchdog-protocol"]),
    ("watchdog-keeper", &["watchdog-protocol", "watchdog-seqpacket"]),
    ("watchdog-service", &["watchdog-macros", "watchdog-protocol", "watchdog-query", "watchdog-seqpacket"]),
    (
        "watchdog",
        &[
            "watchdog-keeper",
            "watchdog-lifecycle",
            "watchdog-protocol",
            "watchdog-query",
            "watchdog-seqpacket",
        ],
    ),
    ("counter", &["watchdog-service"]),
    ("bumper", &["counter", "watchdog-service"]),
    ("logging", &["watchdog-service"]),
    ("resource-manager", &["watchdog-service"]),
    (
        "watchdog-tests",
        &["counter", "resource-manager", "watchdog-protocol", "watchdog-query", "watchdog-service"],
    ),
];

/// Crates that decide and describe, and so have nothing to wait, read or write with.
const PURE: &[&str] = &["watchdog-protocol", "watchdog-lifecycle"];

/// Crates of the outside that a crate must not use.
const NEVER: &[(&str, &[&str])] =
    &[("watchdog-keeper", &["tokio"]), ("watchdog-protocol", IMPURE), ("watchdog-lifecycle", IMPURE)];

const IMPURE: &[&str] = &["tokio", "nix", "libc", "rustix", "interprocess", "fs2", "getrandom", "fastrand"];

/// The `watchdog` program's crates, all of them: what is built is what may break. A quarter of them draw `watchdog top`.
const MOST_CRATES: usize = 200;

#[test]
fn every_crate_imports_only_what_its_place_allows() {
    let metadata = metadata(&["--no-deps"]);
    let rules: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let never: BTreeMap<_, _> = NEVER.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in array(&metadata["packages"]) {
        let name = text(&package["name"]);
        let Some(allowed) = rules.get(name) else {
            wrong.push(format!("{name} has no rule"));
            continue;
        };
        // Of what it is when it runs: a test may look at more.
        for dependency in array(&package["dependencies"]).iter().filter(|found| found["kind"].is_null()) {
            let used = text(&dependency["name"]);
            if rules.contains_key(used) && !allowed.contains(&used) {
                wrong.push(format!("{name} uses {used}"));
            }
            if never.get(name).is_some_and(|banned| banned.contains(&used)) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn what_is_pure_neither_reads_clocks_nor_files() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let metadata = metadata(&["--no-deps"]);
    for package in array(&metadata["packages"]).iter().filter(|found| PURE.contains(&text(&found["name"]))) {
        let folder = std::path::Path::new(text(&package["manifest_path"])).with_file_name("src");
        assert!(folder.starts_with(root));
        for file in std::fs::read_dir(folder).expect("sources") {
            let path = file.expect("an entry").path();
            let source = std::fs::read_to_string(&path).unwrap_or_default();
            for banned in ["std::fs", "std::net", "std::process", "std::thread", "Instant::now", "SystemTime"]
            {
                assert!(!source.contains(banned), "{} uses {banned}", path.display());
            }
        }
    }
}

#[test]
fn the_watchdog_stays_small() {
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let nodes: BTreeMap<_, _> =
        array(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let packages = array(&metadata["packages"]);
    let start = packages.iter().find(|package| package["name"] == "watchdog").expect("the watchdog");
    let mut seen = BTreeSet::new();
    let mut todo = vec![text(&start["id"])];
    while let Some(id) = todo.pop() {
        if seen.insert(id) {
            let needed = array(&nodes[id]["deps"]).iter().filter(|dependency| {
                array(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev")
            });
            todo.extend(needed.map(|dependency| text(&dependency["pkg"])));
        }
    }
    assert!(seen.len() < MOST_CRATES, "{} crates", seen.len());
}

fn metadata(args: &[&str]) -> Value {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = cargo
        .args(["metadata", "--format-version", "1"])
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs: it started this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("metadata is JSON")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}
