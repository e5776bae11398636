//! A terminal that somebody sits at: runs one command, is typed on, and is looked at.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, ExitStatus};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use rustix::termios::tcsetwinsize;

use crate::proc::Process;
use crate::until::{self, until};
use crate::{Operator, binary};

/// What enters and leaves the second screen, where a program draws that goes on.
const ALTERNATE: &str = "\x1b[?1049";

/// Dropping it hangs up, and ends what runs on it.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    /// It is at its end once nothing has the other side open.
    master: File,
    /// Kept, so that what it is set to can be read when the program has ended.
    slave: File,
    screen: Screen,
    said: String,
    before: Termios,
}

struct Screen(vt100::Parser);

impl std::fmt::Debug for Screen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0.screen().contents())
    }
}

impl Terminal {
    /// Runs `watchdog` with these arguments, in the operator's folder, on a terminal of this size that is its own.
    ///
    /// # Panics
    /// When there is no terminal to be had.
    pub fn run(operator: &Operator, args: &[&str], (columns, lines): (u16, u16)) -> Self {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a terminal");
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a descriptor of ours");
        let before = tcgetattr(&slave).expect("a terminal");
        let side = || slave.try_clone().expect("a descriptor");
        let described = operator.command(args);
        // `setsid` makes it the terminal of the program's session, or it would not be told of its size.
        let mut command = Command::new("setsid");
        command.args(["--ctty"]).arg(binary("watchdog")).args(args);
        command.current_dir(described.get_current_dir().expect("an operator has a folder"));
        for (name, value) in described.get_envs() {
            command.env(name, value.expect("none is removed"));
        }
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        command.env_remove("COLUMNS").stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("setsid is part of every Linux");
        let screen = Screen(vt100::Parser::new(some(lines), some(columns), 0));
        Self { child, master, slave, screen, said: String::new(), before }
    }

    /// The process that draws.
    ///
    /// # Panics
    /// When it has ended.
    pub fn process(&self) -> Process {
        Process::of(self.child.id()).expect("it runs")
    }

    /// Types.
    ///
    /// # Panics
    /// When nobody reads.
    pub fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a terminal takes keys");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("the kernel's numbers fit");
        kill(Pid::from_raw(pid), signal).expect("it is ours");
    }

    /// Makes it larger or smaller.
    ///
    /// # Panics
    /// When it can't be.
    pub fn resize(&mut self, (columns, lines): (u16, u16)) {
        let size = rustix::termios::Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.as_fd(), size).expect("a terminal");
        self.screen.0.screen_mut().set_size(some(lines), some(columns));
    }

    /// What is to be seen now, line by line.
    pub fn seen(&mut self) -> String {
        self.read();
        self.screen.0.screen().contents()
    }

    /// All that was written on it so far, with what commands it.
    pub fn written(&mut self) -> &str {
        self.read();
        &self.said
    }

    /// Waits until this is to be seen, and gives it.
    ///
    /// # Panics
    /// After the harness's deadline, with what is seen.
    pub fn until(&mut self, what: &str, shows: impl Fn(&str) -> bool) -> String {
        let seen = until::or_give_up(|| Some(self.seen()).filter(|seen| shows(seen)));
        seen.unwrap_or_else(|| panic!("did not see: {what}\n{}\n{:?}", self.seen(), self.said))
    }

    /// Waits for its end, and expects the terminal as it was before.
    ///
    /// # Panics
    /// When it is not, or does not end.
    pub fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let (master, said, screen) = (&mut self.master, &mut self.said, &mut self.screen);
        let status = until("the end of what runs on the terminal", String::new, || {
            drain(master, said, screen);
            child.try_wait().expect("a child of ours")
        });
        self.read();
        let now = tcgetattr(&self.slave).expect("a terminal");
        let modes = |of: &Termios| (of.input_flags, of.output_flags, of.control_flags, of.local_flags);
        assert_eq!(modes(&now), modes(&self.before), "it is set otherwise than before");
        assert!(now.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO), "{now:?}");
        assert!(!self.screen.0.screen().alternate_screen(), "the second screen was not left");
        assert!(!self.screen.0.screen().hide_cursor(), "the cursor is hidden");
        assert!(self.said.contains(ALTERNATE), "it never drew on the second screen: {:?}", self.said);
        status
    }

    fn read(&mut self) {
        drain(&mut self.master, &mut self.said, &mut self.screen);
    }
}

fn some(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).expect("a terminal has cells")
}

/// Reads what there is.
fn drain(master: &mut File, said: &mut String, screen: &mut Screen) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = master.read(&mut bytes) {
        screen.0.process(&bytes[..length]);
        said.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
