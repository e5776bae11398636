//! Payloads too large for a packet: sealed memory that goes beside it as a descriptor.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::sys::uio::pread;

/// Without these a sender could change what its receiver reads.
const SEALS: SealFlag = SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);

/// Since Linux 6.3, where a kernel may refuse memory that could be executed.
const MFD_NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(8);

/// Why a descriptor that came beside a packet is no payload.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// It is no memory, or memory that can still be changed.
    #[error("the payload is not sealed against writing and resizing")]
    NotSealed,
    /// Its size is not what the packet says.
    #[error("the payload has {actual} bytes, its header says {expected}")]
    Length {
        /// What the header says.
        expected: u64,
        /// What it has.
        actual: u64,
    },
    /// It is larger than this process takes.
    #[error("the payload has {length} bytes, at most {limit} are taken")]
    TooLarge {
        /// What the header says.
        length: u64,
        /// The bound.
        limit: usize,
    },
    /// It can't be read.
    #[error("cannot read the payload")]
    Read(#[source] io::Error),
}

/// A copy of `bytes` that nobody can change any more, close-on-exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`, or `ENOSPC` where the memory limit is reached.
pub fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory(c"watchdog-payload")?);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

/// Copies a payload of exactly `expected` bytes, at most `limit`. Nothing is taken from memory before both are
/// checked, and it is never mapped: an unwritten payload costs its sender nothing, but a reader that maps it all
/// of its size.
///
/// # Errors
/// [`PayloadError`]; all but `Read` mean that the peer broke the protocol.
pub fn read(descriptor: BorrowedFd<'_>, expected: u64, limit: usize) -> Result<Vec<u8>, PayloadError> {
    if usize::try_from(expected).is_ok_and(|length| length <= limit) {
        let actual = sealed_length(descriptor)?;
        if actual != expected {
            return Err(PayloadError::Length { expected, actual });
        }
    } else {
        return Err(PayloadError::TooLarge { length: expected, limit });
    }
    let mut bytes = vec![0; expected as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match pread(descriptor, &mut bytes[filled..], filled as libc::off_t) {
            Ok(0) => return Err(PayloadError::Length { expected, actual: filled as u64 }),
            Ok(read) => filled += read,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(PayloadError::Read(error.into())),
        }
    }
    Ok(bytes)
}

fn sealed_length(descriptor: BorrowedFd<'_>) -> Result<u64, PayloadError> {
    // EINVAL: no memfd at all.
    let seals = fcntl(descriptor, FcntlArg::F_GET_SEALS).map_err(|_| PayloadError::NotSealed)?;
    if !SealFlag::from_bits_retain(seals).contains(SEALS) {
        return Err(PayloadError::NotSealed);
    }
    let size = fstat(descriptor).map_err(|error| PayloadError::Read(error.into()))?.st_size;
    Ok(size.try_into().unwrap_or(0))
}

/// Anonymous memory that can be sealed, close-on-exec and never executable.
pub(crate) fn memory(name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(name, flags | MFD_NOEXEC_SEAL) {
        Err(Errno::EINVAL) => Ok(memfd_create(name, flags)?),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    const LIMIT: usize = 1 << 20;

    /// Memory of `length` unwritten bytes with these seals.
    fn with_seals(length: u64, seals: SealFlag) -> OwnedFd {
        let file = File::from(memory(c"test").unwrap());
        file.set_len(length).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        file.into()
    }

    #[test]
    fn what_was_sealed_is_read() {
        for length in [0, 1, 4096, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let sealed = seal(&bytes).unwrap();
            assert_eq!(read(sealed.as_fd(), length as u64, LIMIT).unwrap(), bytes);
        }
    }

    #[test]
    fn what_was_sealed_cannot_be_changed() {
        let file = File::from(seal(b"kept").unwrap());
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(2).is_err());
        assert!(file.set_len(100).is_err());
    }

    #[test]
    fn a_payload_that_could_still_change_is_refused() {
        let all = [SealFlag::F_SEAL_WRITE, SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW];
        for missing in all {
            let open = with_seals(4, SEALS.difference(missing));
            assert!(matches!(read(open.as_fd(), 4, LIMIT), Err(PayloadError::NotSealed)), "{missing:?}");
        }
        assert!(read(with_seals(4, SEALS).as_fd(), 4, LIMIT).is_ok());
    }

    #[test]
    fn a_file_that_is_no_memory_is_refused() {
        let null = File::open("/dev/null").unwrap();
        assert!(matches!(read(null.as_fd(), 0, LIMIT), Err(PayloadError::NotSealed)));
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let sealed = seal(b"four").unwrap();
        for claimed in [3, 5] {
            let result = read(sealed.as_fd(), claimed, LIMIT);
            assert!(
                matches!(result, Err(PayloadError::Length { expected, actual: 4 }) if expected == claimed)
            );
        }
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_before_memory_is_taken() {
        let huge = with_seals(1 << 40, SEALS);
        let result = read(huge.as_fd(), 1 << 40, LIMIT);
        assert!(matches!(result, Err(PayloadError::TooLarge { length, limit: LIMIT }) if length == 1 << 40));
        let fits = seal(&[7; 10]).unwrap();
        assert!(read(fits.as_fd(), 10, 10).is_ok());
        assert!(matches!(read(fits.as_fd(), 10, 9), Err(PayloadError::TooLarge { .. })));
    }
}
