//! Whether anybody else has a file open.
#![expect(unsafe_code, reason = "leases have no safe wrapper")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// The kernel's, unknown to libc.
const F_SETSIG: libc::c_int = 10;

/// Nobody but this descriptor of it, which must be one to write, has the file open now: the kernel gives a lease to write
/// to such a one alone, and takes it back here at once. `false` also for a file system that has no leases, and for a file
/// of another user, unless this process is privileged.
pub fn is_open_here_alone(file: &File) -> bool {
    let descriptor = file.as_raw_fd();
    // SAFETY: numbers only. Whoever opens the file just now waits until the lease is gone, and this process is told by a
    // signal whose default is to be ignored.
    unsafe {
        libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_WRLCK) == 0
            && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_file_is_open_here_alone_until_somebody_opens_it_and_again_when_he_closes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = File::create(&path).unwrap();
        for how in [OpenOptions::new().read(true), OpenOptions::new().write(true)] {
            let other = how.open(&path).unwrap();
            assert!(!is_open_here_alone(&file));
            drop(other);
            // A child of another test may have all this process has, until it executes its program.
            let begin = Instant::now();
            while !is_open_here_alone(&file) {
                assert!(begin.elapsed() < Duration::from_secs(60), "nobody has it");
                std::thread::yield_now();
            }
        }
    }
}
