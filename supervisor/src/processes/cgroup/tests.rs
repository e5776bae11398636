use std::process::{Child, Command, Stdio};

use super::*;

#[test]
fn the_name_is_of_the_state_folder_and_stays() {
    assert_eq!(tree_name(Path::new("/no/such/folder")), tree_name(Path::new("/no/such/folder")));
    assert_ne!(tree_name(Path::new("/no/such/folder")), tree_name(Path::new("/no/such/folder2")));
    assert_eq!(tree_name(Path::new("/a/state")), "watchdog-a592f8596eb6925b");
}

/// The tree of a test, removed at its end; nothing where no cgroup can be made.
struct TestTree(CgroupTree, tempfile::TempDir);

impl TestTree {
    fn make() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        match CgroupTree::make(folder.path()) {
            Ok(tree) => Some(Self(tree, folder)),
            Err(error) => {
                eprintln!("nothing to test without a cgroup: {error}");
                None
            }
        }
    }
}

impl Drop for TestTree {
    fn drop(&mut self) {
        for (_, cgroup) in self.0.services().unwrap() {
            cgroup.kill().unwrap();
            while cgroup.populated().unwrap() {
                std::thread::yield_now();
            }
        }
        self.0.remove().unwrap();
    }
}

/// A shell that joins the cgroup, starts a grandchild in a session of its own, and waits.
fn join(cgroup: &Cgroup) -> Child {
    let child = Command::new("sh")
        .args(["-c", r#"echo $$ > "$0/cgroup.procs"; setsid sleep 1000 & exec sleep 1000"#])
        .arg(cgroup.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while cgroup.pids().unwrap().len() < 2 {
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_kill_ends_all_of_a_service_whatever_session_it_is_in() {
    let Some(tree) = TestTree::make() else { return };
    let cgroup = tree.0.service(&"counter".parse().unwrap()).unwrap();
    assert!(!cgroup.populated().unwrap());
    cgroup.folder().unwrap();
    let mut child = join(&cgroup);
    assert!(cgroup.populated().unwrap());
    assert!(cgroup.pids().unwrap().contains(&child.id().cast_signed()));
    assert!(cgroup.remove().is_err());
    assert_eq!(tree.0.services().unwrap()[0].0.as_str(), "counter");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    while cgroup.populated().unwrap() {
        std::thread::yield_now();
    }
    cgroup.remove().unwrap();
    assert!(!cgroup.populated().unwrap());
    assert!(cgroup.pids().unwrap().is_empty());
    cgroup.kill().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn the_next_watchdog_finds_the_tree_of_the_one_before() {
    let Some(tree) = TestTree::make() else { return };
    assert_eq!(CgroupTree::make(tree.1.path()).unwrap().path(), tree.0.path());
    assert_eq!(CgroupTree::at(tree.0.path()).unwrap().path(), tree.0.path());
    assert!(CgroupTree::at(&tree.0.path().join("absent")).is_none());
}

#[test]
fn a_place_that_cannot_be_written_is_a_reason_not_a_failure() {
    let error = CgroupTree::within(Path::new("/proc/self"), Path::new("/a/state")).unwrap_err();
    assert!(matches!(error, NoCgroup::Make { .. }), "{error}");
}
