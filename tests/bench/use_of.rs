//! What processes use, as the kernel counts it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The threads of a process, as folders.
fn threads(pid: u32) -> Vec<PathBuf> {
    let folder = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    folder.flatten().map(|entry| entry.path()).collect()
}

/// Processor time of all its threads that live, exact.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let of = |thread: &PathBuf| {
        let text = fs::read_to_string(thread.join("schedstat")).expect("a kernel that counts");
        Duration::from_nanos(text.split(' ').next().and_then(|word| word.parse().ok()).expect("nanoseconds"))
    };
    threads(pid).iter().map(of).sum()
}

/// How often its threads were put on a processor, wanted or not.
pub(crate) fn switches(pid: u32) -> u64 {
    let of = |thread: &PathBuf| {
        field(&fs::read_to_string(thread.join("status")).expect("a thread"), "ctxt_switches")
    };
    threads(pid).iter().map(of).sum()
}

/// Its share of memory in bytes: a page that n processes share counts one n-th.
pub(crate) fn pss(pid: u32) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs"), "Pss:") * 1024
}

/// The sum of the numbers in the lines that hold this word in their first one.
fn field(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter(|line| {
        line.split_whitespace()
            .next()
            .is_some_and(|word| word.ends_with(name) || word.trim_end_matches(':').ends_with(name))
    });
    lines
        .map(|line| {
            line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("a number")
        })
        .sum()
}
