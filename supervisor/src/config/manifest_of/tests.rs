use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::config::fixture::{Folder, manifest, prints};

fn spec(folder: &Folder, table: &str) -> ServiceSpec {
    folder.config(&format!("[service.a]\n{table}\n")).services.into_values().next().unwrap()
}

/// What an operator reads when the service is this script.
fn refused(script: &str) -> String {
    let folder = Folder::new();
    folder.script("a.sh", script);
    told(&folder, "exec = [\"/bin/sh\", \"a.sh\"]")
}

fn told(folder: &Folder, table: &str) -> String {
    let spec = spec(folder, table);
    let error = manifest_of(&spec, None).unwrap_err();
    let hint = error.hint(&spec.name).map(|hint| format!("\n  hint: {hint}"));
    folder.hide(&format!("{error}{}", hint.unwrap_or_default()))
}

#[test]
fn a_service_describes_itself_in_its_own_surroundings() {
    let folder = Folder::new();
    let manifest = manifest(Some("{}"));
    fs::create_dir(folder.path().join("work")).unwrap();
    let script = format!(
        "[ \"$WATCHDOG_DESCRIBE$MODE\" = 1fast ] && [ ! -s /dev/stdin ] && [ \"${{PWD##*/}}\" = work ] && \
         [ -z \"$CARGO_MANIFEST_DIR\" ] && {}",
        prints(&manifest)
    );
    folder.script("work/a.sh", &script);
    let spec = spec(&folder, "exec = [\"sh\", \"a.sh\"]\ndir = \"work\"\nenv.MODE = \"fast\"");
    assert_eq!(manifest_of(&spec, None).unwrap(), manifest);
}

#[test]
fn a_service_describes_itself_as_its_own_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let manifest = manifest(None);
    folder.script("a.sh", &format!("[ \"$(id -u)\" = 65534 ] && {}", prints(&manifest)));
    let exec = "exec = [\"/bin/sh\", \"a.sh\"]";
    assert_eq!(manifest_of(&spec(&folder, &format!("{exec}\nuser = 65534")), None).unwrap(), manifest);
    assert!(matches!(manifest_of(&spec(&folder, exec), None), Err(DescribeError::Ended { .. })));
}

#[test]
fn a_program_that_did_not_change_is_not_run_again() {
    let folder = Folder::new();
    let cache = folder.path().join("manifests");
    let (old, new) = (manifest(None), manifest(Some("{}")));
    folder.script("a.sh", &format!("echo >> ran\n{}", prints(&old)));
    let spec = spec(&folder, "exec = [\"/bin/sh\", \"a.sh\"]");
    let runs = || fs::read(folder.path().join("ran")).unwrap().len();
    assert_eq!(manifest_of(&spec, Some(&cache)).unwrap(), old);
    assert_eq!(manifest_of(&spec, Some(&cache)).unwrap(), old);
    assert_eq!(runs(), 1);
    folder.script("a.sh", &format!("echo >> ran\n{}", prints(&new)));
    assert_eq!(manifest_of(&spec, Some(&cache)).unwrap(), new);
    assert_eq!(runs(), 2);
    for file in fs::read_dir(&cache).unwrap() {
        fs::write(file.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(manifest_of(&spec, Some(&cache)).unwrap(), new);
    assert_eq!(runs(), 3);
}

#[test]
fn what_a_described_program_started_goes_with_it() {
    let folder = Folder::new();
    let manifest = manifest(None);
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = fs::File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    // It holds standard output and error open, too.
    folder.script("a.sh", &format!("exec 3> fifo\nsleep 1000 &\n{}", prints(&manifest)));
    assert_eq!(manifest_of(&spec(&folder, "exec = [\"/bin/sh\", \"a.sh\"]"), None).unwrap(), manifest);
    // The pipe hangs up when nobody is left who has it open.
    let mut hangup = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut hangup, PollTimeout::try_from(60_000).unwrap()), Ok(1), "it lives");
}

#[test]
fn a_program_that_does_not_end_is_killed() {
    let folder = Folder::new();
    folder.script("a.sh", "echo waiting >&2; exec sleep 1000");
    let spec = spec(&folder, "exec = [\"/bin/sh\", \"a.sh\"]");
    let environment = spec.launch.environment(std::env::vars_os());
    let late = describe(&spec, Path::new("/bin/sh"), &environment, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(&late, DescribeError::Late { after, .. } if after.as_millis() == 50), "{late}");
    let hint = late.hint(&spec.name).unwrap();
    insta::assert_snapshot!(hint, @"is it not built on the SDK? A plain program goes under [program.a]");
}

#[test]
fn a_program_that_ends_badly_is_told_with_its_last_words() {
    insta::assert_snapshot!(refused("for n in 1 2 3 4 5 6; do echo line $n >&2; done; printf '\\033[1m' >&2; exit 3"), @r#"
    /bin/sh ended with code 3 when asked to describe itself
      stderr: line 3
      stderr: line 4
      stderr: line 5
      stderr: line 6
      stderr: �[1m
    "#);
    insta::assert_snapshot!(refused("kill -SEGV $$"), @"/bin/sh ended with SIGSEGV when asked to describe itself");
}

#[test]
fn what_is_no_manifest_is_told_with_a_hint() {
    insta::assert_snapshot!(refused("echo usage: a >&2"), @r#"
    /bin/sh was asked to describe itself: it printed no manifest
      stderr: usage: a
      hint: is it not built on the SDK? A plain program goes under [program.a]
    "#);
    insta::assert_snapshot!(refused("echo '{\"watchdog_manifest\": 99}'"), @r#"
    /bin/sh was asked to describe itself: the manifest has format 99, this watchdog knows up to 1
      hint: it was built with a newer SDK than this watchdog's
    "#);
    assert!(refused("exec yes").contains("bytes, at most"));
}

#[test]
fn each_mistake_about_a_program_has_its_own_message() {
    let folder = Folder::new();
    // Another process writes what is executed here.
    let write = "printf '#!/nowhere/sh\\n' > script; printf 'x\\001' > garbage; chmod 755 script garbage; \
                 printf x > plain; chmod 644 plain; mkdir folder";
    let written = Command::new("/bin/sh").args(["-c", write]).current_dir(folder.path()).status().unwrap();
    assert!(written.success());
    let mut texts = String::new();
    for table in [
        "exec = [\"./absent\"]",
        "exec = [\"no-such-program\"]\nenv.PATH = \"/nowhere\"",
        "exec = [\"./script\"]",
        "exec = [\"./garbage\"]",
        "exec = [\"./plain\"]",
        "exec = [\"./folder\"]",
        "exec = [\"/bin/sh\"]\ndir = \"gone\"",
        "exec = [\"/bin/sh\"]\nuser = \"no-such-user\"",
    ] {
        writeln!(texts, "{}", told(&folder, table)).unwrap();
    }
    insta::assert_snapshot!(texts, @r#"
    there is no file absent
      hint: build it, or correct `exec`
    there is no program `no-such-program` in PATH (/nowhere)
    script needs an interpreter that is not there: look at its first line
    garbage can't be executed: it is neither a program of this machine nor a script with a #! line
    plain can't be executed: its mode is 0644; chmod +x it
    folder can't be executed: it is a folder
    there is no folder gone to start it in
    there is no user `no-such-user` on this machine
    "#);
}
