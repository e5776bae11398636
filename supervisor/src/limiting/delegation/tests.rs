use super::*;
use crate::limiting::fake::Fake;

const OWN: i32 = 4242;

/// A machine whose root hands all controllers to one unit, with us in it.
fn unit() -> (tempfile::TempDir, Fake, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::with(folder.path(), "cpu io memory pids");
    for controller in CONTROLLERS {
        fake.write(&folder.path().join("cgroup.subtree_control"), &format!("+{controller}")).unwrap();
    }
    let unit = folder.path().join("unit.service");
    fake.make(&unit).unwrap();
    fake.write(&unit.join("cgroup.procs"), &OWN.to_string()).unwrap();
    (folder, fake, unit)
}

#[test]
fn the_watchdog_alone_in_a_cgroup_given_to_it_moves_to_a_leaf_and_gets_the_controllers() {
    let (_folder, fake, unit) = unit();
    settle_in(&fake, &unit, "watchdog-1.itself", OWN, || true).unwrap();
    assert_eq!(pids_in_itself(&unit).unwrap(), [0_i32; 0]);
    assert_eq!(pids_in_itself(&unit.join("watchdog-1.itself")).unwrap(), [OWN]);
    let tree = unit.join("watchdog-1");
    fake.make(&tree).unwrap();
    assert_eq!(enable(&fake, &tree), BTreeMap::new());
    fake.make(&tree.join("counter")).unwrap();
    assert!(tree.join("counter/memory.max").exists());
    assert_eq!(not_handed_on(&tree.join("counter")), BTreeMap::new());
    // The next core, or the next watchdog in the same place, finds it done.
    settle_in(&fake, &unit, "watchdog-1.itself", OWN, || panic!("nothing is left to ask")).unwrap();
}

#[test]
fn nobody_is_moved_where_others_are_too_or_the_cgroup_is_not_ours() {
    let (_folder, fake, unit) = unit();
    fake.write(&unit.join("cgroup.procs"), "7").unwrap();
    let with_others = settle_in(&fake, &unit, "leaf", OWN, || true).unwrap_err();
    assert_eq!(with_others, format!("{} holds 1 other processes", unit.display()));
    let not_ours = settle_in(&fake, &unit, "leaf", OWN, || false).unwrap_err();
    assert_eq!(not_ours, format!("systemd manages {} itself", unit.display()));
    assert_eq!(pids_in_itself(&unit).unwrap(), [OWN, 7]);
    assert!(!unit.join("leaf").exists());
    let tree = unit.join("watchdog-1");
    fake.make(&tree).unwrap();
    let why = format!("processes are in {}, which so can hand on nothing", unit.display());
    assert_eq!(enable(&fake, &tree), CONTROLLERS.map(|name| (name, why.clone())).into());
    let seen = format!("{} hands none on yet, as long as processes are in it", unit.display());
    assert_eq!(not_handed_on(&tree), CONTROLLERS.map(|name| (name, seen.clone())).into());
}

#[test]
fn without_controllers_nothing_is_asked_and_nobody_moved() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::with(folder.path(), "");
    settle_in(&fake, folder.path(), "leaf", OWN, || panic!("there is nothing to be given")).unwrap();
    assert!(!folder.path().join("leaf").exists());
    let tree = folder.path().join("watchdog-1");
    fake.make(&tree).unwrap();
    let why = format!("{} has none", folder.path().display());
    assert_eq!(enable(&fake, &tree)["memory"], why);
    assert_eq!(not_handed_on(&tree)["memory"], why);
}

#[test]
fn a_cgroup_is_given_to_us_when_its_attribute_says_so() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!is_delegated(folder.path()));
    for (value, is_given) in [("0", false), ("1", true)] {
        let set = rustix::fs::setxattr(
            folder.path(),
            "user.delegate",
            value.as_bytes(),
            rustix::fs::XattrFlags::empty(),
        );
        if set.is_err() {
            return eprintln!("no attributes in {}: not tried", folder.path().display());
        }
        assert_eq!(is_delegated(folder.path()), is_given);
    }
}
