//! What one process did to the end of a lane, undone before the next one gets it.

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollTimeout;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::socket::{HUNG_UP, Seqpacket};
use crate::{message, option};

/// Newer than libc's list for some targets; the numbers are the same on all that Rust knows but these.
const SO_PASSPIDFD: libc::c_int = 76;
const SO_PASSRIGHTS: libc::c_int = 83;

/// Whether an end can be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Handover {
    /// It is as new; what is queued is still queued.
    Clean,
    /// Something can't be undone: the lane needs a new pair, this one being read to its end first.
    Worn(Wear),
}

/// What can't be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wear {
    /// A packet filter is attached; it may be locked, and may have dropped or cut packets already.
    Filter,
    /// One direction is shut down, by this end or the other.
    Shutdown,
}

impl Seqpacket {
    /// Makes this end as good as new for its next holder: non-blocking, no signals, no peek offset, no timeouts,
    /// nothing beside packets but descriptors, and the send bound. Options belong to the open end, not to the
    /// process that set them, so they outlive it. One that is shut down is as good as new but for that.
    ///
    /// # Errors
    /// Of `fcntl` and `setsockopt`; the end is not to be handed on then.
    pub fn reset_for_handover(&self, send_bound: usize) -> io::Result<Handover> {
        if self.is_filtered()? {
            return Ok(Handover::Worn(Wear::Filter));
        }
        // All status flags at once: O_NONBLOCK on, O_ASYNC off.
        fcntl(self.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        option::set(self.as_fd(), libc::SO_PEEK_OFF, -1)?;
        setsockopt(self, sockopt::ReceiveTimeout, &TimeVal::new(0, 0))?;
        setsockopt(self, sockopt::SendTimeout, &TimeVal::new(0, 0))?;
        // What the kernel would put into the control buffer in the place of a descriptor.
        setsockopt(self, sockopt::PassCred, &false)?;
        option::set(self.as_fd(), libc::SO_TIMESTAMP, 0)?;
        for (name, value) in [(libc::SO_PASSSEC, 0), (SO_PASSPIDFD, 0), (SO_PASSRIGHTS, 1)] {
            match option::set(self.as_fd(), name, value) {
                Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {} // an older kernel
                result => result?,
            }
        }
        self.set_send_bound(send_bound)?;
        Ok(if self.is_shut_down()? { Handover::Worn(Wear::Shutdown) } else { Handover::Clean })
    }

    fn is_filtered(&self) -> io::Result<bool> {
        match option::filter_length(self.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true), // an eBPF one
            length => Ok(length? > 0),
        }
    }

    fn is_shut_down(&self) -> io::Result<bool> {
        if self.poll(HUNG_UP, PollTimeout::ZERO)? {
            return Ok(true);
        }
        // Poll does not tell that this end can't send any more.
        match message::probe_send(self.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false), // full, so it may
            result => result.map(|()| false),
        }
    }
}
