//! One page of memory that two processes share: one writes, the other reads, and it outlives both.
#![expect(unsafe_code, reason = "mapping shared memory")]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::payload::memory;

/// Bytes of a page.
pub(crate) const SIZE: usize = 4096;

const LENGTH: NonZeroUsize = NonZeroUsize::new(SIZE).expect("not 0");

/// Against a peer that truncates it under a reader, and against one that adds a seal which keeps the next
/// incarnation from mapping it writable.
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// Of this layout; a page of another one is not mapped.
const VERSION: u64 = 1;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It could not be made.
    #[error("cannot make a page to share")]
    Make(#[source] io::Error),
    /// It could not be mapped, or asked what it is; `EACCES` when it is to be written through a read-only
    /// descriptor.
    #[error("cannot map the shared page")]
    Map(#[source] io::Error),
    /// It is no memory, or memory that could be resized under its readers.
    #[error("the shared page is not sealed against resizing")]
    NotSealed,
    /// It has not one page's size.
    #[error("the shared page has {actual} bytes, not {SIZE}")]
    Size {
        /// What it has.
        actual: i64,
    },
    /// It is no page of this kind: the other side's, or no page at all.
    #[error("the shared page is of another kind")]
    OtherKind,
    /// Another version of Watchdog laid it out.
    #[error("the shared page has layout {found}, this program knows {VERSION}")]
    Version {
        /// What it says.
        found: u64,
    },
}

/// The beginning of every page.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Head {
    kind: AtomicU64,
    version: AtomicU64,
}

/// What a page holds behind its head.
///
/// # Safety
/// `repr(C)`, [`Head`] as its first field, [`AtomicU64`] in all others, for which all bytes are values and which
/// may change at any time, and no longer than [`SIZE`].
pub(crate) unsafe trait Layout {
    /// Tells the pages of the two sides apart.
    const KIND: u64;
}

/// A page that is filled with zeros behind its head.
pub(crate) fn create<L: Layout>() -> Result<OwnedFd, PageError> {
    let make = || {
        let file = File::from(memory(c"watchdog-page")?);
        file.set_len(SIZE as u64)?;
        // In the order and bytes of `Head`, which its readers see through atomics.
        file.write_all_at(&L::KIND.to_ne_bytes(), 0)?;
        file.write_all_at(&VERSION.to_ne_bytes(), size_of::<u64>() as u64)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
        Ok(file.into())
    };
    make().map_err(PageError::Make)
}

/// A second descriptor of a page, or of anything else, that can't be written through: for the side that only
/// reads. It is a guard against mistakes, for the same user can open it anew.
///
/// # Errors
/// When `/proc` is not there, or the table is full.
pub fn read_only(page: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    File::open(format!("/proc/self/fd/{}", page.as_raw_fd())).map(OwnedFd::from)
}

/// Whether this process may write a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A page in this process's memory. The descriptor is not needed any more.
#[derive(Debug)]
pub(crate) struct Mapping<L> {
    cells: NonNull<L>,
    shared: PhantomData<L>,
}

// SAFETY: the mapping belongs to no thread, and `L` is atomics only.
unsafe impl<L: Sync> Send for Mapping<L> {}
// SAFETY: as above; a shared reference gives out `&L` and no more.
unsafe impl<L: Sync> Sync for Mapping<L> {}

impl<L: Layout> Mapping<L> {
    pub(crate) fn new(page: BorrowedFd<'_>, access: Access) -> Result<Self, PageError> {
        const { assert!(size_of::<L>() <= SIZE) };
        // EINVAL: no memory at all.
        let seals = fcntl(page, FcntlArg::F_GET_SEALS).map_err(|_| PageError::NotSealed)?;
        if !SealFlag::from_bits_retain(seals).contains(SEALS) {
            return Err(PageError::NotSealed);
        }
        let failed = |errno: Errno| PageError::Map(errno.into());
        let actual = fstat(page).map_err(failed)?.st_size;
        if actual != SIZE as i64 {
            return Err(PageError::Size { actual });
        }
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: a new mapping, of memory that keeps this size by its seals.
        let start =
            unsafe { mmap(None, LENGTH, protection, MapFlags::MAP_SHARED, page, 0) }.map_err(failed)?;
        let mapping = Self { cells: start.cast(), shared: PhantomData };
        let head = mapping.head();
        if load(&head.kind) != L::KIND {
            return Err(PageError::OtherKind);
        }
        let found = load(&head.version);
        if found != VERSION {
            return Err(PageError::Version { found });
        }
        Ok(mapping)
    }

    fn head(&self) -> &Head {
        // SAFETY: every layout begins with a head.
        unsafe { self.cells.cast().as_ref() }
    }
}

impl<L> Deref for Mapping<L> {
    type Target = L;

    fn deref(&self) -> &L {
        // SAFETY: mapped until drop, page-aligned, and long enough for `L`, which is atomics only: other
        // processes may write it at any time. A read-only mapping is not written, for its owners only `load`.
        unsafe { self.cells.as_ref() }
    }
}

impl<L> Drop for Mapping<L> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` at this length, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.cells.cast(), SIZE) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// An acquire load that is promised to work on read-only memory, as a plain one is not.
pub(crate) fn load(cell: &AtomicU64) -> u64 {
    let value = cell.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    value
}
