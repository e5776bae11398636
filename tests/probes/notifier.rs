//! Speaks `sd_notify`, as it is told: takes commands, a line each, from the pipe NOTIFIER_AT-PID, which it makes.
//! `daemon A` goes on in the background and says A and its own number as MAINPID before the first process ends.
//! `say A;B` sends the lines A and B in one datagram; `child A;B` lets a child send them, which ends when they were
//! heeded, as `systemd-notify` does; `exit N` ends; `last A` says A and ends at once.

use std::env;
use std::fs;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{self, Command, Stdio};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::sys::stat::Mode;

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1);
    if args.next().is_some_and(|word| word == "child") {
        say(&args.next().expect("what to say"))?;
        return wait_until_heeded();
    }
    if env::args().nth(1).is_some_and(|word| word == "background") {
        let text = env::args().nth(2).expect("what to say");
        say(&format!("MAINPID={};{text}", process::id()))?;
        print!(".");
        io::stdout().flush()?;
    }
    let pipe = format!("{}-{}", env::var("NOTIFIER_AT").expect("NOTIFIER_AT is set"), process::id());
    nix::unistd::mkfifo(&*pipe, Mode::S_IRWXU)?;
    loop {
        // Each writer is one command.
        let line = fs::read_to_string(&pipe)?;
        match line.trim().split_once(' ').expect("a command and its argument") {
            ("say", text) => say(text)?,
            ("child", text) => {
                let this = env::current_exe()?;
                assert!(Command::new(this).args(["child", text]).status()?.success());
            }
            ("last", text) => {
                say(text)?;
                process::exit(0);
            }
            ("daemon", text) => daemon(text)?,
            ("exit", code) => process::exit(code.parse().expect("an exit code")),
            (other, _) => panic!("{other} is no command"),
        }
    }
}

fn say(text: &str) -> io::Result<()> {
    let address = SocketAddr::from_abstract_name(name())?;
    UnixDatagram::unbound()?.send_to_addr(text.replace(';', "\n").as_bytes(), &address)?;
    Ok(())
}

/// Goes on in the background, in a session of its own, once that process has said which it is; and ends.
fn daemon(text: &str) -> io::Result<()> {
    let mut command = Command::new("setsid");
    let mut background =
        command.arg(env::current_exe()?).args(["background", text]).stdout(Stdio::piped()).spawn()?;
    let said = background.stdout.as_mut().expect("a pipe").read(&mut [0])?;
    assert_eq!(said, 1);
    process::exit(0);
}

/// A barrier: the other end of a pipe is closed when all before it was heeded.
fn wait_until_heeded() -> io::Result<()> {
    let (mut reads, writes) = io::pipe()?;
    let socket = UnixDatagram::unbound()?;
    let fds = [writes.as_raw_fd()];
    let (text, beside) = ([IoSlice::new(b"BARRIER=1")], [ControlMessage::ScmRights(&fds)]);
    let to = UnixAddr::new_abstract(name().as_bytes())?;
    sendmsg(socket.as_raw_fd(), &text, &beside, MsgFlags::empty(), Some(&to))?;
    drop(writes);
    assert_eq!(reads.read(&mut [0])?, 0);
    Ok(())
}

fn name() -> String {
    let socket = env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET is set");
    socket.strip_prefix('@').expect("an abstract address").to_owned()
}
