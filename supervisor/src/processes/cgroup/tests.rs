use std::process::{Child, Command, Stdio};

use super::*;

#[test]
fn v2_is_found_pure_hybrid_and_with_blanks_in_its_path() {
    let hybrid = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
    let mount = |root: &str, at: &str| Mount { root: root.into(), at: at.into() };
    assert_eq!(v2_mounts(hybrid), [mount("/", "/sys/fs/cgroup/unified")]);
    let odd = b"41 31 0:38 /a /sys/fs/my\\040cgroup rw - cgroup2 cgroup2 rw\n";
    assert_eq!(v2_mounts(odd), [mount("/a", "/sys/fs/my cgroup")]);
    assert_eq!(v2_mounts(b"31 23 0:28 / / rw - ext4 /dev/root rw\n\n"), []);
}

#[test]
fn our_own_cgroup_is_the_line_without_controllers() {
    assert_eq!(own_cgroup(b"9:pids:/x\n0::/user.slice/a b\n"), Some("/user.slice/a b".into()));
    assert_eq!(own_cgroup(b"9:pids:/x\n"), None);
}

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
