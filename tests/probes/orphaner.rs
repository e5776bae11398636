//! Leaves a grandchild behind that has nothing in common with it any more: own session, own group, adopted by
//! whoever adopts, still holding its output. Says `orphan PID STARTED`, then waits; with `end`, it ends at once.

use std::env;
use std::process::{Command, Stdio};
use std::thread;

use nix::unistd::setsid;
use watchdog_tests::proc::Process;

fn main() {
    let role = env::args().nth(1);
    let this = env::current_exe().expect("the path of this program");
    match role.as_deref() {
        Some("middle") => {
            setsid().expect("a fresh child leads no group");
            #[expect(clippy::zombie_processes, reason = "to be left behind is what it is for")]
            let orphan = Command::new(this).arg("orphan").spawn().expect("this program runs");
            let process = Process::of(orphan.id()).expect("a child that nobody reaps is there");
            println!("orphan {} {}", process.pid, process.started);
        }
        Some("orphan") => {
            setsid().expect("a fresh child leads no group");
            park();
        }
        role => {
            let mut middle =
                Command::new(this).arg("middle").stdin(Stdio::null()).spawn().expect("this program runs");
            middle.wait().expect("a child of ours");
            if role != Some("end") {
                park();
            }
        }
    }
}

fn park() -> ! {
    loop {
        thread::park();
    }
}
