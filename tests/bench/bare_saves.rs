//! What the machine itself takes for the saves of many: as many bare processes, and one thread that appends for them.
//!
//! ```text
//! bench ── a byte ─▶ process ── 1 KiB ─▶ journal: one write and one fdatasync for all that came
//!       ◀─ a byte ──         ◀─ a byte ──
//! ```
//! Nothing is checked, framed or kept apart.

use std::env;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use rustix::event::epoll;

/// What there is to say beside a state: save, or that it is saved.
const WORD: &[u8] = b"y";

/// Bytes of one save.
const SIZE: usize = 1024;

/// The journal's file, which is written over and over: a journal has its blocks before it needs them.
const LENGTH: usize = 4 << 20;

/// The processes, and what they save to.
pub(crate) struct BareSaves {
    processes: Vec<(Child, OwnedFd)>,
    journal: Option<JoinHandle<()>>,
}

impl BareSaves {
    pub(crate) fn start(count: usize) -> Self {
        let (mut processes, mut sessions) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (driver, driven) = pair();
            let (session, saving) = pair();
            let child = Command::new(env::current_exe().expect("the path of this program"))
                .arg("saving")
                .stdin(driven)
                .stdout(saving)
                .spawn()
                .expect("this program runs");
            processes.push((child, driver));
            sessions.push(session);
        }
        let journal = thread::spawn(move || Journal::new().keep(&sessions));
        Self { processes, journal: Some(journal) }
    }

    /// Has each save once, all at once.
    pub(crate) fn save(&mut self) {
        for (_, driver) in &self.processes {
            say(driver.as_fd(), WORD);
        }
        for (_, driver) in &self.processes {
            assert_eq!(hear(driver.as_fd(), &mut [0; 8]), 1, "it says that it has saved");
        }
    }
}

impl Drop for BareSaves {
    fn drop(&mut self) {
        for (mut child, driver) in self.processes.drain(..) {
            drop(driver);
            let _reaped = child.wait();
        }
        if let Some(journal) = self.journal.take() {
            let _ended = journal.join();
        }
    }
}

/// One of the processes: its standard input is who tells it, its standard output where it saves.
pub(crate) fn saving() {
    let (driver, session) = (io::stdin(), io::stdout());
    let (driver, session) = (driver.as_fd(), session.as_fd());
    let state = [7; SIZE];
    while hear(driver, &mut [0; 8]) > 0 {
        say(session, &state);
        if hear(session, &mut [0; 8]) == 0 {
            return;
        }
        say(driver, WORD);
    }
}

struct Journal {
    file: File,
    at: usize,
    _folder: tempfile::TempDir,
}

impl Journal {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a fresh folder");
        let file = OpenOptions::new().write(true).create_new(true).open(folder.path().join("journal"));
        let file = file.expect("a file");
        file.write_all_at(&vec![0; LENGTH], 0).expect("room on the disk");
        file.sync_all().expect("a disk that works");
        Self { file, at: 0, _folder: folder }
    }

    /// Until all are gone.
    fn keep(mut self, sessions: &[OwnedFd]) {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
        for (number, session) in sessions.iter().enumerate() {
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&events, session, data, epoll::EventFlags::IN).expect("it can be polled");
        }
        let mut ready = Vec::with_capacity(sessions.len());
        let mut bytes = vec![0; sessions.len() * SIZE];
        let mut left = sessions.len();
        while left > 0 {
            ready.clear();
            epoll::wait(&events, rustix::buffer::spare_capacity(&mut ready), None).expect("an epoll of ours");
            let (mut saved, mut length) = (Vec::new(), 0);
            for event in &ready {
                let session = &sessions[event.data.u64() as usize];
                match hear(session.as_fd(), &mut bytes[length..length + SIZE]) {
                    0 => {
                        epoll::delete(&events, session).expect("it was added");
                        left -= 1;
                    }
                    came => {
                        length += came;
                        saved.push(session);
                    }
                }
            }
            self.append(&bytes[..length]);
            for session in saved {
                say(session.as_fd(), WORD);
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.at + bytes.len() > LENGTH {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at as u64).expect("room on the disk");
        self.file.sync_data().expect("a disk that works");
        self.at += bytes.len();
    }
}

/// In packets: who waits for one is not woken when what it said is read.
fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair")
}

fn say(socket: BorrowedFd<'_>, bytes: &[u8]) {
    // One that is gone is seen where it is heard.
    let _sent = send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL);
}

/// How many bytes came; 0 at the end.
fn hear(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> usize {
    recv(socket.as_raw_fd(), bytes, MsgFlags::empty()).unwrap_or(0)
}
