//! Named descriptors, kept for whichever core comes next.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::close;

use crate::child::WINDOW_END;
use crate::protocol::{MAX_DESCRIPTORS, Stored};

/// Descriptors for a thousand services with lanes between them; the table of so many takes 128 KiB.
const TABLE: RawFd = 16 * 1024;

/// Makes this process's table of descriptors as large as it should ever have to be, within its limit of open files.
///
/// To be called while nobody shares the table, no thread and no child: the kernel doubles a full table, and if it is
/// shared waits until every processor has been through its scheduler (`synchronize_rcu` in `expand_fdtable`), 10 ms
/// each time.
pub fn widen_table() {
    let limit =
        getrlimit(Resource::RLIMIT_NOFILE).map_or(TABLE, |(soft, _)| RawFd::try_from(soft).unwrap_or(TABLE));
    // Refused where memory is short: the table grows when it has to, as it would have.
    if let Ok(number) = fcntl(std::io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(TABLE.min(limit) - 1)) {
        let _ = close(number);
    }
}

/// The same open description under a number that no child ever sees. `EMFILE` when the table is full.
pub(crate) fn above_window(descriptor: OwnedFd) -> Result<OwnedFd, Errno> {
    if descriptor.as_raw_fd() >= WINDOW_END { Ok(descriptor) } else { copy_above_window(descriptor.as_fd()) }
}

/// As [`above_window`], always a second descriptor.
#[expect(unsafe_code, reason = "nix gives the new descriptor as a number")]
pub(crate) fn copy_above_window(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(WINDOW_END))?;
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Descriptors in the order they were given, by name.
///
/// A packet that waits to be sent shares them: what is dropped or replaced meanwhile is closed when it is sent.
#[derive(Debug, Default)]
pub(crate) struct Store {
    names: BTreeMap<Vec<u8>, Vec<Rc<OwnedFd>>>,
}

impl Store {
    /// In place of what the name held, which is closed.
    pub(crate) fn put(&mut self, name: Vec<u8>, descriptors: Vec<OwnedFd>) {
        self.names.insert(name, descriptors.into_iter().map(Rc::new).collect());
    }

    pub(crate) fn drop_name(&mut self, name: &[u8]) {
        self.names.remove(name);
    }

    /// All of it, as packets of at most [`MAX_DESCRIPTORS`] descriptors. No name is split.
    pub(crate) fn packets(&self) -> Vec<(Vec<Stored>, Vec<Rc<OwnedFd>>)> {
        let mut packets: Vec<(Vec<Stored>, Vec<Rc<OwnedFd>>)> = Vec::new();
        for (name, descriptors) in &self.names {
            let full =
                packets.last().is_none_or(|(_, held)| held.len() + descriptors.len() > MAX_DESCRIPTORS);
            if full {
                packets.push((Vec::new(), Vec::new()));
            }
            let (names, held) = packets.last_mut().expect("one was pushed if there was none");
            names.push(Stored { name: name.clone(), count: descriptors.len() as u32 });
            held.extend(descriptors.iter().cloned());
        }
        packets
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn some(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect()
    }

    #[test]
    fn the_table_is_as_large_as_it_should_ever_have_to_be() {
        widen_table();
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<u64>().unwrap() >= limit.min(TABLE as u64), "{size}");
    }

    #[test]
    fn packets_hold_at_most_a_hundred_and_split_no_name() {
        let mut store = Store::default();
        for (name, count) in [("a", 60), ("b", 40), ("c", 1), ("d", 100), ("e", 99)] {
            store.put(name.into(), some(count));
        }
        let counts: Vec<Vec<u32>> = store
            .packets()
            .iter()
            .map(|(names, held)| {
                let counts: Vec<u32> = names.iter().map(|stored| stored.count).collect();
                assert_eq!(counts.iter().sum::<u32>() as usize, held.len());
                counts
            })
            .collect();
        assert_eq!(counts, [vec![60, 40], vec![1], vec![100], vec![99]]);
    }

    #[test]
    fn the_same_name_replaces_and_a_dropped_one_is_gone() {
        let mut store = Store::default();
        store.put(b"a".to_vec(), some(3));
        store.put(b"a".to_vec(), some(1));
        assert_eq!(store.packets()[0].1.len(), 1);
        store.drop_name(b"a");
        assert!(store.packets().is_empty());
    }

    #[test]
    fn a_lifted_descriptor_is_above_the_window_and_closed_on_exec() {
        let lifted = above_window(some(1).remove(0)).unwrap();
        assert!(lifted.as_raw_fd() >= WINDOW_END);
        assert_eq!(fcntl(&lifted, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
