//! What this process may do to others: read once, from the kernel.

use std::fs;

/// Capability numbers of the kernel.
const SYS_NICE: u32 = 23;
const SYS_RESOURCE: u32 = 24;

/// What decides whether a change can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Privileges {
    /// May lower nice values.
    pub(super) nice: bool,
    /// May raise hard limits.
    pub(super) resource: bool,
    /// The effective user is root, whom the limit of processes does not concern.
    pub(super) is_root: bool,
}

impl Privileges {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = capabilities(&status);
        let has = |number: u32| capabilities >> number & 1 == 1;
        let is_root = nix::unistd::geteuid().is_root();
        Self { nice: has(SYS_NICE), resource: has(SYS_RESOURCE), is_root }
    }
}

fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_the_effective_ones() {
        let status = "CapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000001800000\n";
        assert_eq!(capabilities(status), 1 << SYS_NICE | 1 << SYS_RESOURCE);
        assert_eq!(capabilities(""), 0);
    }
}
