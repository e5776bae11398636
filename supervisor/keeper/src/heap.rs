//! The memory of this process.
#![expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// Gives pages that the allocator holds and nobody uses back to the machine, also those between what is used. Takes some
/// milliseconds for ten megabytes. Other allocators than glibc's give back by themselves, or not at all.
pub fn give_back_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and the allocator's own locks; what is allocated stays where it is.
    unsafe {
        libc::malloc_trim(0);
    }
}
