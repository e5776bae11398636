//! Which files a process is started from, so that it is noticed when others lie there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use watchdog_protocol::manifest::fnv1a;

use super::Launch;

/// Programs whose first argument is the program: a script. Of no other is it known what its arguments are.
const INTERPRETERS: [&str; 9] = ["sh", "bash", "dash", "env", "node", "perl", "python", "python3", "ruby"];

/// Which file it is, and which content: another one, or one that was written again, has another identity. `None`: it
/// can't be looked at.
pub(crate) fn file_identity(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let (dev, ino, size) = (found.dev(), found.ino(), found.size());
    Some(format!("{dev}:{ino}:{size}:{}.{:09}", found.mtime(), found.mtime_nsec()))
}

/// A digest of the identity of the program's file, and of the script that it is to run. `None`: the program can't be
/// found or looked at. Looks at one file or two.
pub(crate) fn built(launch: &Launch) -> Option<u64> {
    let program = launch.executable_now().ok()?;
    let mut identity = file_identity(&program)?;
    let name = launch.program.file_name().unwrap_or_default();
    if INTERPRETERS.iter().any(|interpreter| name == *interpreter)
        && let Some(script) = launch.args.first()
    {
        identity += &file_identity(&launch.dir.join(script)).unwrap_or_default();
    }
    Some(fnv1a(identity.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Folder;
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_another_one_and_what_it_reads_is_not_it() {
        let folder = Folder::new();
        folder.script("first.sh", "true");
        let config = folder.config(
            "[program.a]\nexec = [\"/bin/sh\", \"first.sh\"]\n[program.b]\nexec = [\"/bin/cat\", \"first.sh\"]\n",
        );
        let built = || config.services.values().map(|spec| built(&spec.launch)).collect::<Vec<_>>();
        let before = built();
        assert_eq!(built(), before);
        folder.script("first.sh", "true again");
        let after = built();
        assert_ne!(after[0], before[0]);
        assert_eq!(after[1], before[1]);
        assert!(after.iter().all(Option::is_some));
    }
}
