//! Files of the kernel that are read again and again: to open one costs five times as much as to read it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// At most so many descriptors are kept: what the table of a watchdog with a thousand services has to spare.
const KEPT: usize = 4096;

/// Longer than any line of a list, so that a reading which fills less of a page has all there is of it.
const LINE: usize = 64;

/// The kernel gives a list a page at a time.
const PAGE: usize = 4096;

/// How many more descriptors may be kept.
#[derive(Debug)]
pub(super) struct Room(usize);

impl Room {
    /// A quarter of what this process may have open: lanes come first.
    pub(super) fn of_process() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        Self(KEPT.min(usize::try_from(limit / 4).unwrap_or(KEPT)))
    }

    #[cfg(test)]
    pub(super) fn of(descriptors: usize) -> Self {
        Self(descriptors)
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.0
    }
}

/// One file, open if there is room.
#[derive(Debug, Default)]
pub(super) struct Kept(Option<File>);

impl Kept {
    /// What it says now, as far as the kernel gives it at once; `path` is asked when it must be opened.
    ///
    /// # Errors
    /// `NotFound`: it is not there, or what it tells of is gone. `PermissionDenied`.
    pub(super) fn read<'b>(
        &mut self,
        room: &mut Room,
        buffer: &'b mut [u8],
        path: impl FnOnce() -> PathBuf,
    ) -> io::Result<&'b [u8]> {
        let length = self.with(room, path, |file| file.read_at(buffer, 0))?;
        Ok(&buffer[..length])
    }

    /// As [`read`](Self::read), of a list with a line for each of many.
    pub(super) fn read_list<'b>(
        &mut self,
        room: &mut Room,
        buffer: &'b mut Vec<u8>,
        path: impl FnOnce() -> PathBuf,
    ) -> io::Result<&'b [u8]> {
        let length = self.with(room, path, |file| {
            let mut length = 0;
            loop {
                if buffer.len() < length + PAGE {
                    buffer.resize(length + 4 * PAGE, 0);
                }
                let read = file.read_at(&mut buffer[length..], length as u64)?;
                length += read;
                if read < PAGE - LINE {
                    return Ok(length);
                }
            }
        })?;
        Ok(&buffer[..length])
    }

    fn with<T>(
        &mut self,
        room: &mut Room,
        path: impl FnOnce() -> PathBuf,
        read: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        let found = match &self.0 {
            Some(file) => read(file),
            None => File::open(path()).and_then(|file| {
                let found = read(&file);
                if room.0 > 0 && found.is_ok() {
                    room.0 -= 1;
                    self.0 = Some(file);
                }
                found
            }),
        };
        found.map_err(|error| {
            self.close(room);
            match error.raw_os_error() {
                // Its process ended; its cgroup was removed.
                Some(gone) if gone == Errno::ESRCH as i32 || gone == Errno::ENODEV as i32 => {
                    io::ErrorKind::NotFound.into()
                }
                _ => error,
            }
        })
    }

    /// Gives its room back.
    pub(super) fn close(&mut self, room: &mut Room) {
        room.0 += usize::from(self.0.take().is_some());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_open_is_read_anew_and_without_room_it_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counter");
        let mut buffer = vec![0; PAGE];
        for descriptors in [0, 1] {
            let mut room = Room::of(descriptors);
            let mut kept = Kept::default();
            for said in ["1", "22", ""] {
                fs::write(&path, said).unwrap();
                assert_eq!(kept.read(&mut room, &mut buffer, || path.clone()).unwrap(), said.as_bytes());
                assert_eq!((room.0, kept.0.is_some()), (0, descriptors == 1));
            }
            kept.close(&mut room);
            assert_eq!(room.0, descriptors);
        }
        fs::remove_file(&path).unwrap();
        let gone = Kept::default().read(&mut Room::of(1), &mut buffer, || path.clone()).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_list_longer_than_a_page_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let list: String = (0..9000).map(|number| format!("{number}\n")).collect();
        fs::write(&path, &list).unwrap();
        let mut buffer = Vec::new();
        let read = Kept::default().read_list(&mut Room::of(1), &mut buffer, || path.clone()).unwrap();
        assert_eq!(read, list.as_bytes());
    }

    #[test]
    fn what_tells_of_a_process_that_ended_is_gone_and_gives_its_room_back() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut room, mut kept, mut buffer) = (Room::of(1), Kept::default(), vec![0; PAGE]);
        let path = PathBuf::from(format!("/proc/{}/stat", child.id()));
        kept.read(&mut room, &mut buffer, || path.clone()).unwrap();
        assert_eq!(room.0, 0);
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = kept.read(&mut room, &mut buffer, || path.clone()).unwrap_err();
        assert_eq!((gone.kind(), room.0), (io::ErrorKind::NotFound, 1));
    }
}
