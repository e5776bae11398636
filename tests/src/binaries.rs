//! The programs under test: built once per test process, found beside each other.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program of that name: `watchdog`, a sample or a probe.
///
/// Cargo hands a test its own package's programs only, and `cargo test` builds no others: the first call in a
/// test process builds all of the workspace, with the profile and into the folder of the test itself. A
/// driver that is no test (a benchmark, the proof) takes its siblings as they are: its script built them.
/// `WATCHDOG_TEST_BINARIES` names a folder to take them from instead, of an installed build say.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(folder).join(name);
    assert!(path.exists(), "there is no program {path:?}");
    path
}

/// A program that is built anew while services run it: a link to one of ours.
#[derive(Debug)]
pub struct Rebuilt {
    path: PathBuf,
}

impl Rebuilt {
    /// A link at `path`, to this program for now.
    pub fn new(path: PathBuf, binary: &str) -> Self {
        let program = Self { path };
        program.becomes(binary);
        program
    }

    /// From now on it is this one, at every instant one of both.
    pub fn becomes(&self, binary: &str) {
        let fresh = self.path.with_extension("fresh");
        symlink(self::binary(binary), &fresh).expect("a link");
        fs::rename(&fresh, &self.path).expect("the link takes its place");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn folder() -> PathBuf {
    if let Some(folder) = env::var_os("WATCHDOG_TEST_BINARIES") {
        return folder.into();
    }
    let this = env::current_exe().expect("the path of the running test");
    let beside = this.parent().expect("a program lies in a folder");
    if !beside.ends_with("deps") {
        return beside.to_owned();
    }
    let profile = beside.parent().expect("deps lies in the profile's folder");
    build(profile);
    profile.to_owned()
}

fn build(profile: &Path) {
    let target = profile.parent().expect("the profile's folder lies in the target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--workspace", "--bins", "--target-dir"]).arg(target);
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace"));
    if !profile.ends_with("debug") {
        cargo.arg("--profile").arg(profile.file_name().expect("a profile has a name"));
    }
    let built = cargo.status().expect("cargo runs: it started this test");
    assert!(built.success(), "the workspace's programs do not build");
}
