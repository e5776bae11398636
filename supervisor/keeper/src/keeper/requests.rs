//! What the core asks for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use watchdog_seqpacket::{MAX_DESCRIPTORS as MOST_IN_A_PACKET, Received, Seqpacket};

use super::Keeper;
use crate::core_process::LEAVE;
use crate::descriptors::above_window;
use crate::protocol::{FromKeeper, MAX_DESCRIPTORS, Refusal, ToKeeper};
use crate::raw;
use crate::reap;

/// Packets read before the children are looked at again.
const PACKETS_A_TURN: usize = 64;

impl Keeper {
    pub(super) fn take_requests(&mut self) {
        for _ in 0..PACKETS_A_TURN {
            if !self.take_request() {
                return;
            }
        }
    }

    pub(super) fn take_all_requests(&mut self) {
        while self.take_request() {}
    }

    /// Whether there may be another one.
    fn take_request(&mut self) -> bool {
        let Some(channel) = self.core.process.as_ref().and_then(|core| core.channel.as_ref()) else {
            return false;
        };
        match receive(channel, &mut self.buffer) {
            Ok(Arrived::Message(message, beside)) => self.perform(message, beside),
            Ok(Arrived::Nonsense) => {
                self.tell(&FromKeeper::Refused(Refusal::NotUnderstood), Vec::new());
            }
            Ok(Arrived::End) => {
                if let Some(core) = &mut self.core.process {
                    core.channel = None;
                    core.kill_at.get_or_insert(Instant::now() + LEAVE);
                }
                return false;
            }
            Err(_) => return false,
        }
        true
    }

    fn perform(&mut self, message: ToKeeper, beside: Vec<OwnedFd>) {
        if self.finish.is_some() {
            return;
        }
        match message {
            ToKeeper::Spawn(request) => self.spawn(&request, &beside),
            ToKeeper::Signal { service, incarnation, signal, whom } => {
                if let Some(leader) = self.leaders.get(&service).filter(|it| it.incarnation == incarnation) {
                    leader.signal(signal, whom);
                }
            }
            ToKeeper::AckExit { service, incarnation } => {
                self.ends.remove(&(service, incarnation));
            }
            ToKeeper::Store { name } => self.put(name, beside),
            ToKeeper::Drop { name } => self.store.drop_name(&name),
            ToKeeper::Orphans => {
                let orphans = self.orphans();
                self.tell(&FromKeeper::Orphans(orphans), Vec::new());
            }
            ToKeeper::SignalOrphan { pid, signal } => {
                if self.is_orphan(pid) && reap::children().is_ok_and(|children| children.contains(&pid)) {
                    let _ = raw::kill(pid as i32, signal);
                }
            }
            ToKeeper::Finish { code } => self.begin_finish(code),
            ToKeeper::Adopt { service, incarnation, pid } => self.adopt(&service, incarnation, pid),
            ToKeeper::Ready => self.core.is_ready(),
            ToKeeper::Replace { label, ready_within_ms } => self.replace(label, ready_within_ms, beside),
        }
    }

    fn replace(&mut self, label: Vec<u8>, ready_within_ms: u64, mut beside: Vec<OwnedFd>) {
        let arrived = beside.len();
        let executable = beside.pop().filter(|_| arrived == 1).and_then(|fd| above_window(fd).ok());
        match executable {
            Some(executable) => {
                let within = Duration::from_millis(ready_within_ms);
                self.core.replace(executable, label, within, Instant::now());
            }
            None => {
                let refusal = Refusal::Descriptors { name: label, arrived: arrived as u32 };
                self.tell(&FromKeeper::Refused(refusal), Vec::new());
            }
        }
    }

    fn put(&mut self, name: Vec<u8>, descriptors: Vec<OwnedFd>) {
        let arrived = descriptors.len();
        let lifted: Result<Vec<OwnedFd>, _> = descriptors.into_iter().map(above_window).collect();
        match lifted {
            Ok(lifted) if (1..=MAX_DESCRIPTORS).contains(&arrived) => self.store.put(name, lifted),
            _ => {
                let refusal = Refusal::Descriptors { name, arrived: arrived as u32 };
                self.tell(&FromKeeper::Refused(refusal), Vec::new());
            }
        }
    }
}

enum Arrived {
    Message(ToKeeper, Vec<OwnedFd>),
    Nonsense,
    End,
}

/// The next packet as a message. An error means that there is none now.
fn receive(channel: &Seqpacket, buffer: &mut [u8]) -> io::Result<Arrived> {
    let (length, mut beside) = match channel.recv(buffer, MOST_IN_A_PACKET) {
        Ok(Received::Packet(packet)) => (packet.length, packet.descriptors),
        Ok(Received::End) => return Ok(Arrived::End),
        Ok(Received::Oversize { .. } | Received::TooManyDescriptors | Received::Empty) => {
            return Ok(Arrived::Nonsense);
        }
        // No number is left for its descriptors. Done without them, the request is refused by name.
        Err(err) if err.raw_os_error() == Some(libc::EMFILE) => (channel.consume(buffer)?, Vec::new()),
        Err(err) => return Err(err),
    };
    Ok(match ToKeeper::decode(&buffer[..length], &mut beside) {
        Ok(message) => Arrived::Message(message, beside),
        Err(_) => Arrived::Nonsense,
    })
}
