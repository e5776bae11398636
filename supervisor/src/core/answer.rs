//! The changing requests that were taken, by the id their maker gave them: a client whose connection broke repeats
//! its request, and must not have it done twice.
//!
//! Kept in a note, so that the next core knows them too. A request is entered when it takes effect, before it is
//! answered.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use watchdog_protocol::{Incarnation, RequestId, ServiceName};

use super::note::Note;

/// Requests that are remembered. A client repeats within seconds.
const KEPT: usize = 256;

/// A request that took effect, and what its maker waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    id: RequestId,
    /// The processes there were before it, of the services it named.
    pub(crate) before: Vec<(ServiceName, Incarnation)>,
}

/// The requests that were taken.
#[derive(Debug)]
pub(crate) struct Answered {
    taken: VecDeque<Taken>,
    note: Note,
}

impl Answered {
    pub(crate) fn create() -> io::Result<Self> {
        Ok(Self { taken: VecDeque::new(), note: Note::create()? })
    }

    /// What an older core kept.
    pub(crate) fn reopen(fd: OwnedFd) -> io::Result<Self> {
        let (note, taken) = Note::reopen(fd)?;
        Ok(Self { taken: taken.unwrap_or_default(), note })
    }

    /// What the keeper stores.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.note.fd()
    }

    /// The request of this id, when it was taken already.
    pub(crate) fn find(&self, id: RequestId) -> Option<&Taken> {
        self.taken.iter().find(|taken| taken.id == id)
    }

    /// Enters a request that takes effect now.
    pub(crate) fn enter(&mut self, id: RequestId, before: Vec<(ServiceName, Incarnation)>) -> io::Result<()> {
        if self.taken.len() == KEPT {
            self.taken.pop_front();
        }
        self.taken.push_back(Taken { id, before });
        self.note.write(&self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_to_the_next_core_too() {
        let mut answered = Answered::create().unwrap();
        let id = |bits| RequestId::from_bits(bits);
        for bits in 0..300 {
            answered.enter(id(bits), vec![("a".parse().unwrap(), Incarnation::FIRST)]).unwrap();
        }
        let next = Answered::reopen(answered.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(next.find(id(299)), answered.find(id(299)));
        assert!(next.find(id(44)).is_some());
        assert!(next.find(id(43)).is_none(), "only the newest are kept");
    }
}
